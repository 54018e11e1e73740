//! Sockets inside a container's network namespace, for a wharfd that never enters one.
//!
//! A socket belongs to the namespace it was made in, wherever its descriptor goes. This runs in the child of one
//! request, which ends with its answer, so nothing has to find its way back.

use anyhow::{Context, Result, bail};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use wharf_protocol::frame::MAX_FDS;
use wharf_protocol::{Failure, FailureKind, Family};

/// Carry out [`wharf_protocol::Request::Sockets`].
pub fn sockets(count: u8, family: Family, fds: &[OwnedFd]) -> Result<Vec<OwnedFd>> {
    let container = fds.first().context("no pidfd came with the request for sockets")?;
    if !(1..=MAX_FDS).contains(&usize::from(count)) {
        bail!("{count} sockets were asked for; 1 to {MAX_FDS} fit into an answer");
    }
    enter_network(container)?;
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

fn enter_network(container: &OwnedFd) -> Result<()> {
    // SAFETY: a pidfd and a flag.
    if unsafe { libc::setns(container.as_fd().as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => {
            let message = "the container is not running".to_owned();
            Err(Failure { kind: FailureKind::NotRunning, message, detail: Vec::new() }.into())
        }
        error => Err(error).context("joining the container's network namespace"),
    }
}
