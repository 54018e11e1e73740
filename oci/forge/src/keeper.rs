//! The hand-over: the guard becomes the keeper of what the creator has made, in the same pid.

use crate::sys;
use anyhow::{Context, Result};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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

/// Above the fixed numbers: the keeper's program.
const LAST: RawFd = fd::ATTACH_STDERR + 1;

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

/// Everything that becoming a keeper takes and may be refused, so that what is left to do cannot fail for want of
/// descriptors.
pub struct Handover {
    sealed: OwnedFd,
    null: OwnedFd,
    /// Where each of them belongs.
    places: Vec<(RawFd, Option<OwnedFd>)>,
    args: Vec<CString>,
}

impl Handover {
    /// Of the container whose init has this pid.
    pub fn prepare(sealed: &OwnedFd, request: &Create, pid: i32, descriptors: Descriptors) -> Result<Self> {
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
        // Above the fixed numbers, so that no place is taken when its turn comes.
        let aside = |descriptor: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(descriptor, LAST + 1);
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
        let places = places.into_iter().map(|(place, descriptor)| {
            Ok((place, descriptor.map(|descriptor| aside(&descriptor)).transpose()?))
        });
        let places = places.collect::<Result<_>>().context("moving descriptors")?;
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
            .context("opening /dev/null")?;
        let numbers = [request.run, pid as u64, request.log.max_size, u64::from(request.log.max_files)];
        let mut args = vec![CString::from(c"wharf-keeper"), CString::new(request.id.as_str())?];
        for number in numbers {
            args.push(CString::new(number.to_string())?);
        }
        Ok(Self { sealed: aside(sealed)?, null: aside(&null)?, places, args })
    }

    /// Put the descriptors in their places, close all others and execute the keeper. Returns only on failure.
    pub fn become_keeper(self) -> anyhow::Error {
        // SAFETY: from here to execve nothing else in this process uses a descriptor; dup2 gives copies without
        // close-on-exec, and what is not in its place is closed. All of ours are above the places.
        unsafe {
            for standard in 0..=2 {
                libc::dup2(self.null.as_raw_fd(), standard);
            }
            for (place, descriptor) in &self.places {
                match descriptor {
                    Some(descriptor) => {
                        if libc::dup2(descriptor.as_raw_fd(), *place) == -1 {
                            let error = std::io::Error::last_os_error();
                            return anyhow::Error::from(error).context("handing a descriptor over");
                        }
                    }
                    None => {
                        libc::close(*place);
                    }
                }
            }
            if libc::dup3(self.sealed.as_raw_fd(), LAST, libc::O_CLOEXEC) == -1 {
                return anyhow::Error::from(std::io::Error::last_os_error())
                    .context("handing the keeper over");
            }
        }
        let args: Vec<_> = self.args.iter().map(CString::as_c_str).collect();
        // None of them is closed a second time.
        std::mem::forget((self.sealed, self.null, self.places));
        if let Err(error) = sys::close_range(LAST + 1, i32::MAX, 0) {
            return anyhow::Error::from(error).context("closing descriptors");
        }
        // SAFETY: just put there.
        let sealed = unsafe { OwnedFd::from_raw_fd(LAST) };
        anyhow::Error::from(sys::execute_fd(&sealed, &args, &[])).context("executing the keeper")
    }
}
