//! Pseudo-terminals: the one that the container library makes for init, and one of a container's own for an exec.

use crate::tree;
use anyhow::{Context, Result, ensure};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use std::os::unix::net::UnixListener;
use std::path::Path;
use wharf_protocol::TerminalSize;

/// statfs' f_type of devpts.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// The tty group in devpts mounts that we write; a slave that nobody of the group may write to is none of mesg's.
const TTY_GROUP: u32 = 5;

/// The socket on which the library hands over the master.
pub struct ConsoleSocket {
    listener: UnixListener,
}

impl ConsoleSocket {
    /// On the stage, where nobody else can connect.
    pub fn listen(path: &str) -> Result<Self> {
        Ok(Self { listener: UnixListener::bind(path).context("listening for the terminal")? })
    }

    /// The master, which the library has sent by the time that it returns.
    pub fn receive(&self) -> Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept().context("the container library made no terminal")?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        let mut bytes = [0; 64];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &stream,
            &mut [std::io::IoSliceMut::new(&mut bytes)],
            &mut control,
            rustix::net::RecvFlags::CMSG_CLOEXEC,
        )
        .context("receiving the terminal")?;
        for message in control.drain() {
            if let rustix::net::RecvAncillaryMessage::ScmRights(mut fds) = message
                && let Some(master) = fds.next()
            {
                check_master(&master)?;
                return Ok(master);
            }
        }
        anyhow::bail!("the container library sent no terminal")
    }
}

/// A new terminal from the devpts of the container with this root; master and slave.
pub fn open_in(
    root: impl AsFd,
    size: TerminalSize,
    uid: u32,
    gid_of_tty: impl Fn(u32) -> u32,
) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    // Looked at before it is opened: opening what a container put there could have effects.
    let found = tree::open_without_links(&root, Path::new("/dev/pts/ptmx"), OFlags::PATH)
        .context("the container has no /dev/pts; a terminal needs it")?;
    check_ptmx(&found)?;
    let master = rustix::fs::open(
        format!("/proc/self/fd/{}", found.as_raw_fd()),
        flags | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .context("opening the container's /dev/pts/ptmx")?;
    resize(&master, size)?;
    let slave = slave_of(&master)?;
    give(&slave, uid, gid_of_tty(TTY_GROUP))?;
    Ok((master, slave))
}

/// Give the slave of a terminal to a user of the container.
pub fn give(slave: &OwnedFd, uid: u32, gid: u32) -> Result<()> {
    rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))
        .context("giving the terminal to the container's user")
}

/// The slave, without going by a path.
pub fn slave_of(master: &OwnedFd) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    // SAFETY: both requests take an int as documented in ioctl_tty(2); the second gives a new descriptor.
    unsafe {
        ensure!(
            libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) == 0,
            "unlocking the terminal"
        );
        let slave = libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        );
        if slave < 0 {
            return Err(std::io::Error::last_os_error()).context("opening the terminal's other end");
        }
        Ok(OwnedFd::from_raw_fd(slave))
    }
}

/// Set the size in characters.
pub fn resize(master: impl AsFd, size: TerminalSize) -> Result<()> {
    let size =
        rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(master, size).context("setting the terminal's size")
}

fn check_master(master: &OwnedFd) -> Result<()> {
    check_ptmx(master)
}

fn check_ptmx(found: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(found)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(5, 2);
    ensure!(
        device && rustix::fs::fstatfs(found)?.f_type == DEVPTS_SUPER_MAGIC,
        "the container's /dev/pts is no devpts"
    );
    Ok(())
}
