//! The hand-over: the guard becomes the keeper of what the creator has made, in the same pid.

use crate::sys;
use anyhow::{Context, Result};
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::CString;
use wharf_protocol::keeper::fd;
use wharf_protocol::{Create, memfd};

/// The socket's name in the run's directory.
pub use wharf_protocol::keeper::SOCKET;

/// The static keeper binary.
const BINARY: &[u8] = include_bytes!(env!("WHARF_KEEPER"));
/// wharfd and a few who attach; more wait in connect(2).
const BACKLOG: i32 = 16;

/// A sealed copy of the keeper. All keepers of a forge run from the same one and share its pages.
pub fn sealed() -> Result<OwnedFd> {
    memfd::sealed_program(c"wharf-keeper", BINARY).context("putting the keeper into a memfd")
}

/// The keeper's listening socket, before there is a keeper: who has been told of the container can connect.
pub fn listen(run_dir: &OwnedFd) -> Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // By descriptor, since an address has room for 108 bytes only.
    let path = format!("/proc/self/fd/{}/{}", run_dir.as_raw_fd(), SOCKET);
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(path.as_str())?);
    rustix::process::umask(mask);
    bound.context("making the keeper's socket")?;
    rustix::net::listen(&socket, BACKLOG).context("listening on the keeper's socket")?;
    Ok(socket)
}

/// What a keeper starts with.
pub struct Descriptors {
    /// The container's pidfd.
    pub init: OwnedFd,
    /// From [`listen`].
    pub listen: OwnedFd,
    /// For the exit record.
    pub record_dir: OwnedFd,
    /// For the log.
    pub log_dir: OwnedFd,
    /// Read end of standard output, or the terminal's master.
    pub stdout: OwnedFd,
    /// Read end of standard error.
    pub stderr: Option<OwnedFd>,
    /// Write end of a standard input that is kept.
    pub stdin: Option<OwnedFd>,
    /// Copies of the output wanted, or the attached terminal.
    pub attach_stdout: Option<OwnedFd>,
    /// Likewise for standard error.
    pub attach_stderr: Option<OwnedFd>,
}

/// Put the descriptors in their places, close all others and execute the keeper. Returns only on failure.
pub fn become_keeper(
    sealed: &OwnedFd,
    request: &Create,
    pid: i32,
    descriptors: Descriptors,
) -> anyhow::Error {
    match prepare(sealed, request, pid, descriptors) {
        Ok((sealed, args)) => {
            let args: Vec<_> = args.iter().map(CString::as_c_str).collect();
            anyhow::Error::from(sys::execute_fd(&sealed, &args, &[])).context("executing the keeper")
        }
        Err(error) => error,
    }
}

fn prepare(
    sealed: &OwnedFd,
    request: &Create,
    pid: i32,
    descriptors: Descriptors,
) -> Result<(OwnedFd, Vec<CString>)> {
    /// Above the fixed numbers, so that no place is taken when its turn comes.
    const CLEAR: i32 = fd::ATTACH_STDERR + 2;
    let Descriptors {
        init,
        listen,
        record_dir,
        log_dir,
        stdout,
        stderr,
        stdin,
        attach_stdout,
        attach_stderr,
    } = descriptors;
    let places = [
        (fd::INIT, Some(init)),
        (fd::LISTEN, Some(listen)),
        (fd::RECORD_DIR, Some(record_dir)),
        (fd::LOG_DIR, Some(log_dir)),
        (fd::STDOUT, Some(stdout)),
        (fd::STDERR, stderr),
        (fd::STDIN, stdin),
        (fd::ATTACH_STDOUT, attach_stdout),
        (fd::ATTACH_STDERR, attach_stderr),
    ];
    let aside = |descriptor: &OwnedFd| -> Result<i32> {
        Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, CLEAR)?.into_raw_fd())
    };
    let sealed = aside(sealed)?;
    let mut moved = Vec::new();
    for (place, descriptor) in places {
        let descriptor =
            descriptor.map(|descriptor| aside(&descriptor).inspect(|_| drop(descriptor))).transpose()?;
        moved.push((place, descriptor));
    }
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
        .context("opening /dev/null")?;
    // SAFETY: from here to execve nothing else in this process uses a descriptor; dup2 gives copies without
    // close-on-exec, and what is not in its place is closed.
    unsafe {
        for standard in 0..=2 {
            libc::dup2(null.as_raw_fd(), standard);
        }
        std::mem::forget(null);
        for (place, descriptor) in moved {
            match descriptor {
                Some(descriptor) => {
                    if libc::dup2(descriptor, place) == -1 {
                        return Err(std::io::Error::last_os_error()).context("handing a descriptor over");
                    }
                }
                None => {
                    libc::close(place);
                }
            }
        }
        if libc::dup3(sealed, fd::ATTACH_STDERR + 1, libc::O_CLOEXEC) == -1 {
            return Err(std::io::Error::last_os_error()).context("handing the keeper over");
        }
    }
    sys::close_range(fd::ATTACH_STDERR + 2, i32::MAX, 0).context("closing descriptors")?;
    // SAFETY: just put there.
    let sealed = unsafe { <OwnedFd as rustix::fd::FromRawFd>::from_raw_fd(fd::ATTACH_STDERR + 1) };

    let numbers = [request.run, pid as u64, request.log.max_size, u64::from(request.log.max_files)];
    let mut args = vec![CString::from(c"wharf-keeper"), CString::new(request.id.as_str())?];
    for number in numbers {
        args.push(CString::new(number.to_string())?);
    }
    Ok((sealed, args))
}
