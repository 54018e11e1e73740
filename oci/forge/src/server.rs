//! The forge's loop: accept, fork, reap.
//!
//! Single-threaded, since its children go on in this program without execve (as the container library's do).

use crate::sys::{self, Forked};
use crate::{cgroup, handle, keeper};
use anyhow::{Context, Result, bail};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use wharf_protocol::failpoint;

/// Children at work: creators and execs, of some ten processes and descriptors each. Whoever comes later waits in
/// connect(2) until one is done. Keepers do not count; they are on their own.
const MAX_CHILDREN: usize = 512;
/// wharfd writes its request at once; one that does not holds a child no longer than this.
const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// Creates that come in a burst, such as after a reboot.
const BACKLOG: i32 = 1024;

/// Serve until SIGTERM.
pub fn serve(path: &Path) -> Result<()> {
    if let Err(error) = cgroup::make_room() {
        sys::say(format_args!("making room in the own cgroup: {error:#}, ignoring"));
    }
    // What a creator or a keeper leaves behind when it is killed is ours to reap, whatever the host's init does.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")?;
    let open_files = raise_open_files()?;
    let keeper = keeper::sealed()?;
    let signals = take_signals()?;
    let listener = listen(path)?;
    let inode = std::fs::symlink_metadata(path).context("looking at the socket")?.ino();
    let forge = Forge { listener, signals, keeper, open_files, children: Vec::new() };
    let result = forge.run();
    // Another forge may have taken the place meanwhile.
    if std::fs::symlink_metadata(path).is_ok_and(|now| now.ino() == inode) {
        let _ = std::fs::remove_file(path);
    }
    result
}

struct Forge {
    listener: UnixListener,
    signals: OwnedFd,
    keeper: OwnedFd,
    /// The limit as it was, for the children: containers inherit it.
    open_files: libc::rlimit,
    children: Vec<Child>,
}

/// A child at work.
struct Child {
    /// Readable when it has ended.
    pidfd: OwnedFd,
    /// Closes when it executes another program: then it is a keeper and on its own.
    working: OwnedFd,
    /// Its connection. Processes that it has started hold copies; when it dies in their midst the asker shall know.
    connection: UnixStream,
}

impl Forge {
    fn run(mut self) -> Result<()> {
        loop {
            let of_children =
                self.children.iter().flat_map(|child| [child.pidfd.as_raw_fd(), child.working.as_raw_fd()]);
            let mut polled: Vec<libc::pollfd> = [self.signals.as_raw_fd(), self.listener.as_raw_fd()]
                .into_iter()
                .chain(of_children)
                .map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
                .collect();
            if self.children.len() >= MAX_CHILDREN {
                // A negative descriptor is left out.
                polled[1].fd = -1;
            }
            // SAFETY: the array is valid and its length is given.
            if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) } == -1 {
                let error = std::io::Error::last_os_error();
                if error.kind() == std::io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error).context("waiting for requests");
            }
            let mut of_children = polled[2..].chunks_exact(2);
            self.children.retain(|child| match of_children.next() {
                Some([ended, working]) => {
                    if ended.revents != 0 {
                        let _ = child.connection.shutdown(std::net::Shutdown::Both);
                    }
                    ended.revents == 0 && working.revents == 0
                }
                _ => true,
            });
            if polled[0].revents != 0 && self.take_signal()? {
                return Ok(());
            }
            if polled[1].revents != 0 {
                self.accept();
            }
        }
    }

    /// True if it says that we shall end.
    fn take_signal(&self) -> Result<bool> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.signals, &mut info) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error).context("reading signals"),
        }
        reap();
        let signal = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32;
        Ok(matches!(signal, libc::SIGTERM | libc::SIGINT))
    }

    /// Nothing that a peer does may end the forge, so errors are said and forgotten.
    fn accept(&mut self) {
        let connection = match self.listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) => {
                sys::say(format_args!("accepting a connection: {error}, ignoring"));
                // Out of descriptors or memory: give others time to return theirs.
                std::thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        match rustix::net::sockopt::socket_peercred(&connection) {
            Ok(peer) if peer.uid == rustix::process::geteuid() => {}
            Ok(peer) => {
                sys::say(format_args!("refusing uid {}", peer.uid.as_raw()));
                return;
            }
            Err(error) => {
                sys::say(format_args!("asking who connects: {error}, refusing"));
                return;
            }
        }
        match std::io::pipe() {
            Ok((done, working)) => {
                failpoint::reach("forge.accepted");
                // SAFETY: this process has one thread, and the child never returns from `work`.
                match unsafe { sys::fork(0, None) } {
                    Ok(Forked::Child) => self.work(connection, working.into()),
                    Ok(Forked::Parent { pidfd, .. }) => {
                        self.children.push(Child { pidfd, working: done.into(), connection });
                        failpoint::reach("forge.forked");
                    }
                    Err(error) => sys::say(format_args!("making a child: {error}, refusing")),
                }
            }
            Err(error) => sys::say(format_args!("making a pipe: {error}, refusing")),
        }
    }

    /// In the child.
    fn work(&mut self, connection: UnixStream, _working: OwnedFd) -> ! {
        sys::reset_signals();
        // SAFETY: a valid structure; the hard limit is as it was.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.open_files) };
        // What belongs to the forge; above all the other children's pipes and the listening socket.
        // SAFETY: the forge's values are not used in this process again, and it ends without dropping them.
        unsafe {
            libc::close(self.listener.as_raw_fd());
            libc::close(self.signals.as_raw_fd());
            for child in &self.children {
                libc::close(child.pidfd.as_raw_fd());
                libc::close(child.working.as_raw_fd());
                libc::close(child.connection.as_raw_fd());
            }
        }
        let _ = connection.set_read_timeout(Some(PEER_PATIENCE));
        let _ = connection.set_write_timeout(Some(PEER_PATIENCE));
        handle(&connection, &self.keeper);
        sys::exit(0)
    }
}

/// Let us have the descriptors that [`MAX_CHILDREN`] need; the limit as it was.
fn raise_open_files() -> Result<libc::rlimit> {
    const NEEDED: u64 = 64 + 4 * MAX_CHILDREN as u64;
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid places for reading and writing a limit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) == -1 {
            return Err(std::io::Error::last_os_error()).context("reading the limit of open files");
        }
        let raised = libc::rlimit { rlim_cur: before.rlim_cur.max(NEEDED).min(before.rlim_max), ..before };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == -1 {
            return Err(std::io::Error::last_os_error()).context("raising the limit of open files");
        }
    }
    Ok(before)
}

/// SIGTERM, SIGINT and SIGCHLD come as reads; SIGHUP and the rest of a terminal's signals do not concern us.
fn take_signals() -> Result<OwnedFd> {
    // SAFETY: plain structures and calls as documented.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd == -1 {
            return Err(std::io::Error::last_os_error()).context("taking signals");
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn reap() {
    // SAFETY: no place for the status is given. Several children may stand behind one SIGCHLD.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// The listening socket, 0600, which appears under its name only when it can be connected to.
fn listen(path: &Path) -> Result<UnixListener> {
    let doing = || format!("making the socket {}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{} is no path", path.display())
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty()).with_context(doing)?;
    // By descriptor, since an address has room for 108 bytes only.
    let at = |name: &str| format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let name = name.to_str().with_context(doing)?;
    if UnixStream::connect(at(name)).is_ok() {
        bail!("{} is served by another forge", path.display());
    }

    let new = format!("{name}.{}", std::process::id());
    let _ = rustix::fs::unlinkat(&directory, &*new, rustix::fs::AtFlags::empty());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(at(&new).as_str())?);
    rustix::process::umask(mask);
    bound.with_context(doing)?;
    rustix::net::listen(socket.as_fd(), BACKLOG).with_context(doing)?;
    rustix::fs::renameat(&directory, &*new, &directory, name).with_context(doing)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
