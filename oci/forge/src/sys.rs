//! The system calls that no crate of ours wraps, and the few lines of procfs reading that several files share.

use anyhow::{Context, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ffi::CStr;
use std::io;

/// What a fork-like call returns in which process.
pub enum Forked {
    /// In the parent: the child's pid and, where asked for, its pidfd.
    Parent {
        /// The child, in the caller's pid namespace.
        pid: i32,
        /// Refers to it even after it has been reaped.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// fork(2) that also gives a pidfd, may put the child into a cgroup of the unified hierarchy at birth
/// (which costs no grace period, unlike a later write to `cgroup.procs`), and takes further CLONE_ flags.
///
/// # Safety
/// The process must be single-threaded: the child goes on in this program.
pub unsafe fn fork(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT the signal is that of the caller itself and must be absent here.
    args.exit_signal = if flags & libc::CLONE_PARENT != 0 { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = cgroup {
        /// libc's constant has too narrow a type.
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` describes a plain fork (no stack, no shared memory); the caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel has just put a new descriptor there.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: pid as i32, pidfd })
        }
    }
}

/// Leave at once: no destructors and no exit handlers of a program that this process is only a copy of.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// mount_setattr(2) on the mount behind `mount`.
pub fn mount_setattr(mount: impl AsFd, flags: libc::c_int, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is a constant C string and the structure outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// close_range(2).
pub fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the callers own every descriptor in the range, or mark them only.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as u32, last as u32, flags) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Every signal as the kernel gives it to a new program, none blocked.
///
/// Rust's runtime ignores SIGPIPE, which containers would otherwise inherit.
pub fn reset_signals() {
    // SAFETY: the structures are plain and local; invalid signal numbers give EINVAL, which does no harm.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// execveat(2) of a descriptor. Returns only on failure.
pub fn execute_fd(program: impl AsFd, args: &[&CStr], env: &[&CStr]) -> io::Error {
    let pointers = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Wait for the end of our child `pid`; its wait status.
pub fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the answer.
        match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => return Ok(status),
        }
    }
}

/// Send a signal (or 0 to ask) to the process behind a pidfd.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers but the null one for siginfo, which means "as kill(2)".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Wait until one of `fds` is readable, closed or (a pidfd) ended. `None` when the time is over.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: std::time::Duration) -> io::Result<Option<usize>> {
    let deadline = std::time::Instant::now() + timeout;
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array is valid and its length is given.
        match unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, milliseconds) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            0 => return Ok(None),
            _ => return Ok(polled.iter().position(|entry| entry.revents != 0)),
        }
    }
}

/// The pid behind a pidfd in our pid namespace; `None` once it is gone.
pub fn pid_of(pidfd: impl AsFd) -> Result<Option<i32>> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let pid = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|value| value.trim().parse().ok())
        .context("the descriptor is no pidfd")?;
    Ok((pid > 0).then_some(pid))
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Is the process behind this pidfd gone (or a zombie)?
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    matches!(wait_readable(&[pidfd], std::time::Duration::ZERO), Ok(Some(_)))
}

/// Say something on standard error. Unlike `eprintln!` it survives a standard error that nobody reads any more, and it
/// stops filling a log file at a megabyte: a forge has little to say, and lives long.
pub fn say(text: std::fmt::Arguments<'_>) {
    const MAX_LOG: i64 = 1 << 20;
    let stderr = rustix::stdio::stderr();
    let full = rustix::fs::fstat(stderr).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
            && stat.st_size >= MAX_LOG
    });
    if !full {
        let _ = rustix::io::write(stderr, format!("wharf-forge: {text}\n").as_bytes());
    }
}
