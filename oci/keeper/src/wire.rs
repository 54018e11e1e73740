//! What wharfd and a keeper say to each other, on a SOCK_SEQPACKET socket `keeper.sock` in the run's directory
//! (0600 in a 0700 directory). Messages are of fixed size and need no parser and no allocator: one byte that
//! says what it is, then little-endian numbers.
//!
//! | message | direction | bytes | descriptors beside it |
//! |---|---|---|---|
//! | HELLO | to the keeper | `H` | |
//! | STATUS | answer | `S`, version u32, pid u32, run u64 | the container's pidfd |
//! | ATTACH | to the keeper | `A`, flags u8 | stdout and stderr pipes (write ends), or one terminal socket |
//! | ATTACHED | answer | `a` | with STDIN asked for and a kept pipe: its write end |
//! | RESIZE | to the keeper | `R`, rows u16, columns u16 | |
//! | DONE | answer | `D` | |
//! | REFUSED | answer | `E`, errno u32 | |
//! | EXITED | unasked, to every connection | `X`, wait status i32, realtime ns u64, boottime ns u64, dropped bytes u64 | |
//!
//! REFUSED says EINVAL (a message that is none of these, or not the descriptors that its flags announce), ENOTTY
//! (a terminal asked of pipes, or pipes of a terminal), EUSERS (eight outputs are attached already). An output
//! that has ended is attached, and its descriptor closed at once. Attached descriptors become non-blocking.
//! A ninth connection replaces the oldest; connections of other users are closed.
//!
//! EXITED is sent after the record `exit.<run>` is in place and all output is in the log; then the keeper brings the
//! record to the disk and ends. So a connection that closes without EXITED means: read the record, and if there is
//! none, the keeper died.
#![no_std]

/// The version in STATUS.
pub const VERSION: u32 = 1;
/// The socket's name in the run's directory.
pub const SOCKET: &str = "keeper.sock";

/// First bytes of the messages, see the table above.
pub mod kind {
    /// Who are you?
    pub const HELLO: u8 = b'H';
    /// Answer to [`HELLO`].
    pub const STATUS: u8 = b'S';
    /// Copy the output to these descriptors as well, from now on.
    pub const ATTACH: u8 = b'A';
    /// Answer to [`ATTACH`].
    pub const ATTACHED: u8 = b'a';
    /// Set the size of the terminal.
    pub const RESIZE: u8 = b'R';
    /// Carried out.
    pub const DONE: u8 = b'D';
    /// Not carried out.
    pub const REFUSED: u8 = b'E';
    /// The container has ended and its record is in place.
    pub const EXITED: u8 = b'X';
}

/// Flags of ATTACH.
pub mod attach {
    /// The first descriptor is for standard output.
    pub const STDOUT: u8 = 1;
    /// The next descriptor is for standard error.
    pub const STDERR: u8 = 2;
    /// Give me the write end of standard input.
    pub const STDIN: u8 = 4;
    /// The descriptor is a stream socket to connect with the terminal; excludes the others.
    pub const TERMINAL: u8 = 8;
}

/// Sizes in bytes of the messages that are longer than their kind.
pub mod size {
    /// STATUS.
    pub const STATUS: usize = 17;
    /// ATTACH.
    pub const ATTACH: usize = 2;
    /// RESIZE.
    pub const RESIZE: usize = 5;
    /// REFUSED.
    pub const REFUSED: usize = 5;
    /// EXITED.
    pub const EXITED: usize = 29;
    /// The longest of all.
    pub const MAX: usize = 32;
}

/// How the guard of a start becomes the keeper: descriptors at fixed numbers, the rest as arguments
/// `wharf-keeper ID RUN PID LOG_MAX_SIZE LOG_MAX_FILES` (decimal but for the id). Descriptors that are not
/// needed are closed. After execve the keeper may rely on: these descriptors, default signal dispositions, an
/// empty mask, the host's mount namespace, cwd `/`, oom_score_adj of the forge.
pub mod fd {
    /// A pidfd of the container's init, a child of the keeper.
    pub const INIT: i32 = 3;
    /// The listening socket.
    pub const LISTEN: i32 = 4;
    /// The directory for `exit.<run>`.
    pub const RECORD_DIR: i32 = 5;
    /// The directory of the log files.
    pub const LOG_DIR: i32 = 6;
    /// Read end of the container's stdout; or the pty's master, then [`STDERR`] is closed.
    pub const STDOUT: i32 = 7;
    /// Read end of the container's stderr.
    pub const STDERR: i32 = 8;
    /// Write end of the container's stdin, if it is kept for those who attach later.
    pub const STDIN: i32 = 9;
    /// Copy of standard output wanted from the first byte on; with a terminal: the attached socket.
    pub const ATTACH_STDOUT: i32 = 10;
    /// Copy of standard error wanted from the first byte on.
    pub const ATTACH_STDERR: i32 = 11;
}
