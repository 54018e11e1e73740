//! A container's network namespace, seen from outside: its loopback is switched on here, and sockets are made in it for
//! a wharfd that never enters a namespace.

use anyhow::{Context, Result, bail};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use std::io;
use wharf_protocol::frame::MAX_FDS;
use wharf_protocol::{Failure, FailureKind, Family};

/// Carry out [`wharf_protocol::Request::Sockets`]. A socket belongs to the namespace it was made in, wherever its
/// descriptor goes. The child of this one request stays there; it ends with its answer.
pub fn sockets(count: u8, family: Family, fds: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let container = fds.first().context("no pidfd came with the request for sockets")?;
    if !(1..=MAX_FDS).contains(&usize::from(count)) {
        bail!("{count} sockets were asked for; 1 to {MAX_FDS} fit into an answer");
    }
    match enter(container.as_fd()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            let message = "the container is not running".to_owned();
            return Err(Failure { kind: FailureKind::NotRunning, message, detail: Vec::new() }.into());
        }
        entered => entered.context("joining the container's network namespace")?,
    }
    let family = match family {
        Family::Ipv4 => AddressFamily::INET,
        Family::Ipv6 => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    (0..count)
        .map(|_| rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)))
        .collect::<Result<_, _>>()
        .context("making a socket in the container's network namespace")
}

/// Switch on the loopback of a network namespace that has just been made: the kernel leaves it off, and the container
/// library does as well.
pub fn raise_loopback(container: &OwnedFd) -> Result<()> {
    let home = std::fs::File::open("/proc/self/ns/net").context("opening our network namespace")?;
    enter(container.as_fd()).context("joining the container's network namespace")?;
    let raised = raise().context("switching on the container's loopback");
    enter(home.as_fd()).context("returning from the container's network namespace")?;
    raised
}

/// Addresses come by themselves, 127.0.0.1 and ::1.
fn raise() -> io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero is a valid value of this plain structure; both calls read and write no more than it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) == -1 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The network namespace behind a pidfd or a file of /proc/PID/ns.
fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a descriptor and a flag.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
