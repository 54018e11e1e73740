//! The last steps of a process that becomes a container's program, and what it says while it takes them.
//!
//! ```text
//! process            creator, guard / monitor
//!    │── ready ──────►│   filters are loaded, capabilities dropped
//!    │                │   looks from outside whether all is as asked
//!    │◄───── go ──────│
//!    │ execve         │
//!    └── closed ─────►│   the program runs (the socket is close-on-exec), or:
//!      ── failed ────►│   why not
//! ```
//! Everything that needs memory is made beforehand: the process is a clone that should only make system calls.

use crate::capabilities::{self, Sets};
use anyhow::{Context, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::time::Duration;
use wharf_protocol::{Failure, FailureKind};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A process that was stopped, or sits on a file system that does not answer, must not hold us for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A compiled seccomp filter.
pub type Filter = Vec<libc::sock_filter>;

/// Read a filter from its memfd.
pub fn read_filter(memfd: impl AsFd) -> Result<Filter> {
    /// BPF_MAXINSNS: the kernel takes no longer program.
    const MAX: usize = 4096;
    let mut bytes = vec![0u8; (MAX + 1) * size_of::<libc::sock_filter>()];
    let length = rustix::io::pread(&memfd, &mut bytes, 0).context("reading a seccomp filter")?;
    let (instructions, rest) = bytes[..length].as_chunks::<8>();
    if instructions.is_empty() || instructions.len() > MAX || !rest.is_empty() {
        return Err(invalid("a seccomp filter is not 1 to 4096 whole BPF instructions".into()));
    }
    Ok(instructions
        .iter()
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect())
}

/// A program ready to be executed.
pub struct Program {
    explanation: Explanation,
    strings: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    candidates: Vec<CString>,
    filters: Vec<Filter>,
    capabilities: Sets,
    no_new_privileges: bool,
}

impl Program {
    /// Arguments and environment are checked here, once.
    pub fn new(
        args: &[String],
        env: &[String],
        filters: Vec<Filter>,
        capabilities: Sets,
        no_new_privileges: bool,
    ) -> Result<Self> {
        let name = match args.first() {
            Some(name) if !name.is_empty() => name.clone(),
            Some(_) | None => return Err(invalid("the command is empty; name a program to run".into())),
        };
        for entry in env {
            if entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
                return Err(invalid(format!("environment entry {entry:?} is not KEY=value")));
            }
        }
        let c_string = |text: &String| {
            CString::new(text.as_bytes()).map_err(|_| invalid(format!("{text:?} has a NUL character")))
        };
        let strings = args.iter().chain(env).map(c_string).collect::<Result<Vec<_>>>()?;
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let argv = pointers(&strings[..args.len()]);
        let envp = pointers(&strings[args.len()..]);

        let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let candidates = if name.contains('/') {
            vec![c_string(&name)?]
        } else {
            // A relative entry would run whatever lies in the working directory.
            let directories = path.split(':').filter(|directory| directory.starts_with('/'));
            directories.map(|directory| c_string(&format!("{directory}/{name}"))).collect::<Result<_>>()?
        };
        let explanation = Explanation { name, path: path.to_owned() };
        Ok(Self { explanation, strings, argv, envp, candidates, filters, capabilities, no_new_privileges })
    }

    /// How many filters it will load.
    pub fn filters(&self) -> usize {
        self.filters.len()
    }

    /// What it takes to explain why it could not be executed.
    pub fn explanation(&self) -> Explanation {
        self.explanation.clone()
    }

    /// In the new process, once it has all other properties and still CAP_SETPCAP if its bounding set is too large
    /// (and CAP_SYS_ADMIN if it has filters to load without no_new_privs): drop capabilities, load the filters, say so, wait for the word, execute.
    /// Returns only on failure, when the other side already knows why.
    pub fn become_program(&self, socket: BorrowedFd<'_>) -> io::Error {
        let error = match self.confine() {
            Ok(()) => match self.await_go(socket) {
                Ok(()) => self.execute(socket),
                Err(error) => error,
            },
            Err((step, error)) => {
                let _ = Word { kind: kind::UNCONFINED, step, errno: errno(&error) }.send(socket);
                error
            }
        };
        debug_assert!(!self.strings.is_empty());
        error
    }

    fn confine(&self) -> Result<(), (u8, io::Error)> {
        capabilities::bound(self.capabilities.bounding).map_err(|error| (step::BOUNDING, error))?;
        if self.no_new_privileges {
            // SAFETY: prctl with plain numbers.
            if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == -1 {
                return Err((step::NO_NEW_PRIVILEGES, io::Error::last_os_error()));
            }
        } else {
            // Loading a filter then needs CAP_SYS_ADMIN, which goes with the next step.
            self.load_filters().map_err(|error| (step::FILTER, error))?;
        }
        capabilities::set(self.capabilities.effective, self.capabilities.permitted)
            .map_err(|error| (step::CAPABILITIES, error))?;
        if self.no_new_privileges {
            self.load_filters().map_err(|error| (step::FILTER, error))?;
        }
        Ok(())
    }

    fn load_filters(&self) -> io::Result<()> {
        for filter in &self.filters {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            // SAFETY: the kernel copies the program, whose length is right.
            let result = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
            };
            if result == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    fn await_go(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Word { kind: kind::READY, step: 0, errno: 0 }.send(socket)?;
        let mut word = [0];
        match rustix::net::recv(socket, &mut word, RecvFlags::empty())? {
            (1, _) => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn execute(&self, socket: BorrowedFd<'_>) -> io::Error {
        let mut word = Word { kind: kind::FAILED, step: step::MISSING, errno: libc::ENOENT };
        for candidate in &self.candidates {
            // SAFETY: the arrays end with null pointers and live in `self`.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let errno = errno(&io::Error::last_os_error());
            // SAFETY: the path is a C string.
            let exists = unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0;
            match errno {
                libc::ENOENT | libc::ENOTDIR if !exists => {}
                // As a shell does: go on looking, and say "permission denied" if nothing better turns up.
                libc::EACCES => word = Word { kind: kind::FAILED, step: step::PRESENT, errno },
                _ => {
                    word = Word { kind: kind::FAILED, step: step::PRESENT, errno };
                    break;
                }
            }
        }
        let _ = word.send(socket);
        io::Error::from_raw_os_error(word.errno)
    }
}

/// What a program was called and where it was looked for.
#[derive(Clone, Serialize, Deserialize)]
pub struct Explanation {
    name: String,
    path: String,
}

impl Explanation {
    /// The failure for the user when the process could not become the program.
    fn failure(&self, word: Word) -> Failure {
        let error = io::Error::from_raw_os_error(word.errno);
        let name = &self.name;
        let searched = if name.contains('/') { String::new() } else { format!(" in PATH ({})", self.path) };
        let (kind, message) = match (word.kind, word.step, word.errno) {
            (kind::FAILED, step::MISSING, _) => {
                (FailureKind::CommandNotFound, format!("command {name:?} was not found{searched}"))
            }
            (kind::FAILED, _, libc::ENOENT) => (
                FailureKind::CommandNotFound,
                format!("command {name:?} is there, but its interpreter (#! line or ELF loader) is not"),
            ),
            (kind::FAILED, _, libc::ENOEXEC) => (
                FailureKind::CommandNotExecutable,
                format!("command {name:?} is neither a program for this machine nor a script with a #! line"),
            ),
            (kind::FAILED, _, libc::EACCES) => (
                FailureKind::CommandNotExecutable,
                format!(
                    "command {name:?} cannot be executed{searched}: not an executable file for this user"
                ),
            ),
            (kind::FAILED, _, libc::E2BIG) => (
                FailureKind::InvalidInput,
                "arguments and environment are too large for the kernel".to_owned(),
            ),
            (kind::FAILED, ..) => {
                (FailureKind::CommandNotExecutable, format!("command {name:?} cannot be executed: {error}"))
            }
            (_, step::FILTER, _) => {
                (FailureKind::Failed, format!("loading the seccomp filter failed: {error}"))
            }
            (_, step::NO_NEW_PRIVILEGES, _) => {
                (FailureKind::Failed, format!("setting no_new_privs failed: {error}"))
            }
            (_, step::BOUNDING | step::CAPABILITIES, _) => {
                (FailureKind::Failed, format!("setting the capabilities failed: {error}"))
            }
            (_, step::DIRECTORY, _) => {
                (FailureKind::InvalidInput, format!("the working directory cannot be entered: {error}"))
            }
            (_, step::STREAMS, _) => {
                (FailureKind::Failed, format!("setting up the standard streams failed: {error}"))
            }
            (_, step::LIMITS, _) => {
                (FailureKind::Failed, format!("setting the resource limits failed: {error}"))
            }
            (_, step::IDS, _) => (FailureKind::Failed, format!("becoming the user failed: {error}")),
            (_, step, _) => {
                (FailureKind::Failed, format!("preparing the process failed at step {step}: {error}"))
            }
        };
        Failure { kind, message, detail: Vec::new() }
    }
}

/// The parent's end.
pub struct Launch {
    socket: OwnedFd,
}

impl Launch {
    /// The parent's and the process' end.
    pub fn pair() -> Result<(Self, OwnedFd)> {
        let (socket, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .context("making a socket pair")?;
        Ok((Self { socket }, theirs))
    }

    /// Wait until the process has confined itself. `None` when it ended without a word.
    pub fn await_ready(&self, program: &Program) -> Result<Option<()>> {
        match self.receive()? {
            Some(Word { kind: kind::READY, .. }) => Ok(Some(())),
            Some(word) => Err(program.explanation.failure(word).into()),
            None => Ok(None),
        }
    }

    /// Let it execute the program; returns once it has.
    pub fn go(&self, explanation: &Explanation) -> Result<()> {
        match rustix::net::send(&self.socket, b"g", SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::PIPE) => {}
            Err(error) => return Err(error).context("releasing the process"),
        }
        match self.receive()? {
            // Closed by execve; or the process was killed in between, which its exit status will tell.
            None => Ok(()),
            Some(word) => Err(explanation.failure(word).into()),
        }
    }

    fn receive(&self) -> Result<Option<Word>> {
        if crate::sys::wait_readable(&[self.socket.as_fd()], PATIENCE)?.is_none() {
            anyhow::bail!("the process did not answer within {} s", PATIENCE.as_secs());
        }
        let mut bytes = [0; Word::SIZE];
        match rustix::net::recv(&self.socket, &mut bytes, RecvFlags::empty()) {
            Ok((Word::SIZE, _)) => Ok(Some(Word::from_bytes(bytes))),
            Ok(_) | Err(rustix::io::Errno::CONNRESET) => Ok(None),
            Err(error) => Err(error).context("listening to the process"),
        }
    }
}

impl From<OwnedFd> for Launch {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Launch> for OwnedFd {
    fn from(launch: Launch) -> Self {
        launch.socket
    }
}

impl AsRawFd for Launch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

mod kind {
    pub const READY: u8 = b'R';
    pub const UNCONFINED: u8 = b'U';
    pub const FAILED: u8 = b'F';
}

/// Where a process failed.
pub mod step {
    /// No candidate exists.
    pub const MISSING: u8 = 0;
    /// A candidate exists and cannot be executed.
    pub const PRESENT: u8 = 1;
    /// Dropping from the bounding set.
    pub const BOUNDING: u8 = 2;
    /// Setting no_new_privs.
    pub const NO_NEW_PRIVILEGES: u8 = 3;
    /// Loading a filter.
    pub const FILTER: u8 = 4;
    /// Setting the capabilities.
    pub const CAPABILITIES: u8 = 5;
    /// Taking the terminal and the standard streams.
    pub const STREAMS: u8 = 6;
    /// Setting resource limits.
    pub const LIMITS: u8 = 7;
    /// Becoming the user.
    pub const IDS: u8 = 8;
    /// Entering the working directory.
    pub const DIRECTORY: u8 = 9;
}

/// In the new process: it failed at `step` before [`Program::become_program`].
pub fn report_unready(socket: BorrowedFd<'_>, step: u8, error: &io::Error) {
    let _ = Word { kind: kind::UNCONFINED, step, errno: errno(error) }.send(socket);
}

#[derive(Clone, Copy)]
struct Word {
    kind: u8,
    step: u8,
    errno: i32,
}

impl Word {
    const SIZE: usize = 6;

    fn send(self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let errno = self.errno.to_le_bytes();
        let bytes = [self.kind, self.step, errno[0], errno[1], errno[2], errno[3]];
        rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Self {
            kind: bytes[0],
            step: bytes[1],
            errno: i32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn invalid(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into()
}
