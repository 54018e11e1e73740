//! The system calls of the keeper and of `wharf-init`, as few as there are, straight to the kernel.

use core::arch::asm;
use core::ffi::{CStr, c_char};
use core::ptr::{from_mut, from_ref, null_mut};

use linux_raw_sys::general as k;
use linux_raw_sys::{ioctl, net, prctl};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("the keeper makes its system calls itself and knows only x86_64 Linux so far");

/// An errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

/// What a system call gives.
pub type Result<T> = core::result::Result<T, Errno>;

/// A descriptor that is closed with its owner.
pub struct Fd(i32);

impl Fd {
    /// Take over a descriptor that nobody else closes.
    pub fn new(raw: i32) -> Self {
        Self(raw)
    }

    /// Its number.
    pub fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = call(k::__NR_close, [self.0 as usize, 0, 0, 0, 0, 0]);
    }
}

/// Six arguments for every call: what a call does not take it does not look at.
#[inline]
fn call(number: u32, args: [usize; 6]) -> Result<usize> {
    let result: isize;
    // SAFETY: every caller passes what the call of this number asks for: pointers into buffers that it
    // borrows for the time of the call, with their true sizes. The kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as usize => result, in("rdi") args[0], in("rsi") args[1],
            in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as u32)) } else { Ok(result as usize) }
}

/// The same call again as long as a signal interrupts it.
fn patiently(number: u32, args: [usize; 6]) -> Result<usize> {
    loop {
        match call(number, args) {
            Err(Errno(linux_raw_sys::errno::EINTR)) => {}
            other => return other,
        }
    }
}

/// exit_group(2).
pub fn exit(code: i32) -> ! {
    loop {
        let _ = call(k::__NR_exit_group, [code as usize, 0, 0, 0, 0, 0]);
    }
}

/// read(2).
pub fn read(fd: i32, to: &mut [u8]) -> Result<usize> {
    patiently(k::__NR_read, [fd as usize, to.as_mut_ptr() as usize, to.len(), 0, 0, 0])
}

/// pread(2).
pub fn read_at(fd: i32, to: &mut [u8], offset: u64) -> Result<usize> {
    patiently(k::__NR_pread64, [fd as usize, to.as_mut_ptr() as usize, to.len(), offset as usize, 0, 0])
}

/// write(2), once: it may write less.
pub fn write(fd: i32, from: &[u8]) -> Result<usize> {
    patiently(k::__NR_write, [fd as usize, from.as_ptr() as usize, from.len(), 0, 0, 0])
}

/// openat(2) with O_NOFOLLOW and O_CLOEXEC, mode 0600.
pub fn open_at(dir: i32, name: &CStr, flags: u32) -> Result<Fd> {
    let flags = (flags | k::O_NOFOLLOW | k::O_CLOEXEC) as usize;
    patiently(k::__NR_openat, [dir as usize, name.as_ptr() as usize, flags, 0o600, 0, 0])
        .map(|fd| Fd(fd as i32))
}

/// renameat(2) within one directory.
pub fn rename_at(dir: i32, from: &CStr, to: &CStr) -> Result<()> {
    let dir = dir as usize;
    call(k::__NR_renameat, [dir, from.as_ptr() as usize, dir, to.as_ptr() as usize, 0, 0]).map(drop)
}

/// unlinkat(2).
pub fn unlink_at(dir: i32, name: &CStr) -> Result<()> {
    call(k::__NR_unlinkat, [dir as usize, name.as_ptr() as usize, 0, 0, 0, 0]).map(drop)
}

/// The size of a file, by fstat(2).
pub fn size(fd: i32) -> Result<u64> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut stat: k::stat = unsafe { core::mem::zeroed() };
    call(k::__NR_fstat, [fd as usize, from_mut(&mut stat) as usize, 0, 0, 0, 0])?;
    Ok(stat.st_size.max(0) as u64)
}

/// ftruncate(2).
pub fn truncate(fd: i32, size: u64) -> Result<()> {
    patiently(k::__NR_ftruncate, [fd as usize, size as usize, 0, 0, 0, 0]).map(drop)
}

/// fsync(2).
pub fn sync(fd: i32) -> Result<()> {
    patiently(k::__NR_fsync, [fd as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// Is there such a descriptor?
pub fn is_open(fd: i32) -> bool {
    call(k::__NR_fcntl, [fd as usize, k::F_GETFD as usize, 0, 0, 0, 0]).is_ok()
}

/// O_NONBLOCK for everything that shares this open file description.
pub fn set_nonblocking(fd: i32) -> Result<()> {
    let flags = call(k::__NR_fcntl, [fd as usize, k::F_GETFL as usize, 0, 0, 0, 0])?;
    call(k::__NR_fcntl, [fd as usize, k::F_SETFL as usize, flags | k::O_NONBLOCK as usize, 0, 0, 0]).map(drop)
}

/// Close every descriptor from `first` on.
pub fn close_from(first: i32) {
    let _ = call(k::__NR_close_range, [first as usize, u32::MAX as usize, 0, 0, 0, 0]);
}

/// Wait for one of `entries`, at most `timeout_ns`.
pub fn poll(entries: &mut [k::pollfd], timeout_ns: Option<u64>) -> Result<usize> {
    let mut time = k::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
    let pointer = match timeout_ns {
        None => 0,
        Some(ns) => {
            time.tv_sec = (ns / NS_PER_S) as i64;
            time.tv_nsec = (ns % NS_PER_S) as i64;
            from_mut(&mut time) as usize
        }
    };
    call(k::__NR_ppoll, [entries.as_mut_ptr() as usize, entries.len(), pointer, 0, 0, 0])
}

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// A clock in nanoseconds.
pub fn clock(id: u32) -> u64 {
    let mut time = k::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
    // Cannot fail for the clocks that we read; a date before 1970 is not worth a thought.
    let _ = call(k::__NR_clock_gettime, [id as usize, from_mut(&mut time) as usize, 0, 0, 0, 0]);
    time.tv_sec.max(0) as u64 * NS_PER_S + time.tv_nsec.max(0) as u64
}

/// Reap `pid` (-1: any child) if it has ended: its pid and wait status.
pub fn reap(pid: i32) -> Result<Option<(i32, i32)>> {
    let mut status = 0i32;
    let options = (k::WNOHANG | k::__WALL) as usize;
    let reaped =
        patiently(k::__NR_wait4, [pid as usize, from_mut(&mut status) as usize, options, 0, 0, 0])? as i32;
    Ok((reaped != 0).then_some((reaped, status)))
}

/// Block every signal; gives what was blocked before.
pub fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    let _ = call(
        k::__NR_rt_sigprocmask,
        [k::SIG_SETMASK as usize, from_ref(&all) as usize, from_mut(&mut before) as usize, 8, 0, 0],
    );
    before
}

/// Block exactly these.
pub fn set_signal_mask(mask: u64) {
    let _ = call(k::__NR_rt_sigprocmask, [k::SIG_SETMASK as usize, from_ref(&mask) as usize, 0, 8, 0, 0]);
}

/// Take the next pending signal of `set`, which is blocked.
pub fn wait_signal(set: u64) -> Result<i32> {
    patiently(k::__NR_rt_sigtimedwait, [from_ref(&set) as usize, 0, 0, 8, 0, 0]).map(|signal| signal as i32)
}

/// kill(2). Only for a child of ours, whose pid cannot be another's before we reap it.
pub fn kill(pid: i32, signal: i32) {
    let _ = call(k::__NR_kill, [pid as usize, signal as usize, 0, 0, 0, 0]);
}

/// getpid(2).
#[cfg(feature = "failpoints")]
pub fn own_pid() -> i32 {
    call(k::__NR_getpid, [0; 6]).map_or(0, |pid| pid as i32)
}

/// fork(2): zero in the child.
pub fn fork() -> Result<i32> {
    call(k::__NR_clone, [k::SIGCHLD as usize, 0, 0, 0, 0, 0]).map(|pid| pid as i32)
}

/// execve(2); returns only on failure.
///
/// # Safety
/// `argv` and `envp` point to arrays of strings, each ended by a null pointer.
pub unsafe fn exec(path: &CStr, argv: *const *const c_char, envp: *const *const c_char) -> Errno {
    let args = [path.as_ptr() as usize, argv as usize, envp as usize, 0, 0, 0];
    call(k::__NR_execve, args).err().unwrap_or(Errno(0))
}

/// Put the calling process into a process group of its own, and into the foreground of the terminal on its
/// standard input, if that is one.
pub fn lead_foreground() {
    let _ = call(k::__NR_setpgid, [0; 6]);
    let Ok(group) = call(k::__NR_getpid, [0; 6]) else { return };
    let group = group as i32;
    let _ = call(k::__NR_ioctl, [0, ioctl::TIOCSPGRP as usize, from_ref(&group) as usize, 0, 0, 0]);
}

/// Become the parent of orphans below us; pid 1 of a namespace is that anyway.
pub fn adopt_orphans() {
    let _ = call(k::__NR_prctl, [prctl::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0, 0]);
}

/// The name in /proc/PID/comm.
pub fn set_name(name: &CStr) {
    let _ = call(k::__NR_prctl, [prctl::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]);
}

/// umask(2).
pub fn set_umask(mask: u32) {
    let _ = call(k::__NR_umask, [mask as usize, 0, 0, 0, 0, 0]);
}

/// Give the pages of `bytes` back to the kernel; they read as zeros afterwards. Keeps a page that is not
/// wholly inside.
pub fn release_pages(bytes: &mut [u8]) {
    const PAGE: usize = 4096;
    let start = (bytes.as_mut_ptr() as usize).next_multiple_of(PAGE);
    let end = (bytes.as_ptr() as usize + bytes.len()) / PAGE * PAGE;
    if end > start {
        let _ = call(k::__NR_madvise, [start, end - start, k::MADV_DONTNEED as usize, 0, 0, 0]);
    }
}

/// Is it a terminal (either side)?
pub fn is_terminal(fd: i32) -> bool {
    let mut size = k::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let args = [fd as usize, ioctl::TIOCGWINSZ as usize, from_mut(&mut size) as usize, 0, 0, 0];
    call(k::__NR_ioctl, args).is_ok()
}

/// Set a terminal's size.
pub fn set_terminal_size(master: i32, rows: u16, columns: u16) -> Result<()> {
    let size = k::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let args = [master as usize, ioctl::TIOCSWINSZ as usize, from_ref(&size) as usize, 0, 0, 0];
    call(k::__NR_ioctl, args).map(drop)
}

/// Open the other side of a terminal's master.
pub fn terminal_peer(master: i32) -> Result<Fd> {
    let flags = (k::O_RDWR | k::O_NOCTTY | k::O_CLOEXEC) as usize;
    call(k::__NR_ioctl, [master as usize, ioctl::TIOCGPTPEER as usize, flags, 0, 0, 0])
        .map(|fd| Fd(fd as i32))
}

/// accept4(2), without waiting if the socket does not.
pub fn accept(listener: i32) -> Result<Fd> {
    patiently(k::__NR_accept4, [listener as usize, 0, 0, k::O_CLOEXEC as usize, 0, 0]).map(|fd| Fd(fd as i32))
}

/// Is the other end of this socket the same user as we are?
pub fn peer_is_own_user(socket: i32) -> bool {
    let mut peer = net::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<net::ucred>() as u32;
    let args = [
        socket as usize,
        net::SOL_SOCKET as usize,
        net::SO_PEERCRED as usize,
        from_mut(&mut peer) as usize,
        from_mut(&mut length) as usize,
        0,
    ];
    let own = call(k::__NR_geteuid, [0; 6]);
    call(k::__NR_getsockopt, args).is_ok() && own == Ok(peer.uid as usize)
}

/// How many descriptors a message may bring; one more than any message of ours does.
pub const MAX_RIGHTS: usize = 3;

/// The control data of a message: descriptors only.
#[repr(C)]
struct Rights {
    header: net::cmsghdr,
    fds: [i32; MAX_RIGHTS],
}

fn message(bytes: &mut k::iovec, rights: Option<&mut Rights>, fds: usize) -> net::msghdr {
    let length = size_of::<net::cmsghdr>() + fds * size_of::<i32>();
    net::msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: from_mut(bytes).cast(),
        msg_iovlen: 1,
        msg_controllen: if rights.is_some() { length } else { 0 },
        msg_control: rights.map_or(null_mut(), |rights| from_mut(rights).cast()),
        msg_flags: 0,
    }
}

/// Send a message, with at most one descriptor, or fail at once.
pub fn send(socket: i32, bytes: &[u8], fd: Option<i32>) -> Result<()> {
    let mut part = k::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() as u64 };
    let mut rights = fd.map(|fd| Rights {
        header: net::cmsghdr {
            cmsg_len: size_of::<net::cmsghdr>() + size_of::<i32>(),
            cmsg_level: net::SOL_SOCKET as i32,
            cmsg_type: net::SCM_RIGHTS as i32,
        },
        fds: [fd, 0, 0],
    });
    let header = message(&mut part, rights.as_mut(), 1);
    let flags = (net::MSG_DONTWAIT | net::MSG_NOSIGNAL) as usize;
    patiently(k::__NR_sendmsg, [socket as usize, from_ref(&header) as usize, flags, 0, 0, 0]).map(drop)
}

/// A message: its length, its descriptors, and whether it came whole.
pub struct Received {
    /// Bytes in the caller's buffer.
    pub length: usize,
    /// In the order in which they were sent.
    pub fds: [Option<Fd>; MAX_RIGHTS],
    /// Neither bytes nor descriptors were cut off.
    pub whole: bool,
}

/// Receive a message, or fail at once.
pub fn receive(socket: i32, to: &mut [u8]) -> Result<Received> {
    let mut part = k::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() as u64 };
    let mut rights =
        Rights { header: net::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 }, fds: [-1; MAX_RIGHTS] };
    let mut header = message(&mut part, Some(&mut rights), MAX_RIGHTS);
    let flags = (net::MSG_DONTWAIT | net::MSG_CMSG_CLOEXEC) as usize;
    let args = [socket as usize, from_mut(&mut header) as usize, flags, 0, 0, 0];
    let length = patiently(k::__NR_recvmsg, args)?;
    let mut fds = [const { None }; MAX_RIGHTS];
    if header.msg_controllen >= size_of::<net::cmsghdr>()
        && (rights.header.cmsg_level, rights.header.cmsg_type)
            == (net::SOL_SOCKET as i32, net::SCM_RIGHTS as i32)
    {
        let count = rights.header.cmsg_len.saturating_sub(size_of::<net::cmsghdr>()) / size_of::<i32>();
        for (slot, raw) in fds.iter_mut().zip(rights.fds).take(count) {
            *slot = Some(Fd(raw));
        }
    }
    let whole = header.msg_flags & (net::MSG_TRUNC | net::MSG_CTRUNC) == 0;
    Ok(Received { length, fds, whole })
}
