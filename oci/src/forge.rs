//! The client of the forge: one connection for each request.
//!
//! All calls block (a create for some 10 ms); in async code they belong into `spawn_blocking`.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wharf_protocol::{Create, Exec, Failure, FailureKind, Family, Limits, Reply, Request, failpoint, frame};

/// A create may have to wait for a slow file system; longer than this is an error.
const CREATE_PATIENCE: Duration = Duration::from_secs(120);
/// Everything else is a matter of milliseconds, but for an exec in a throttled container and for the end of
/// processes that the kernel has to kill.
const PATIENCE: Duration = Duration::from_secs(10);
/// See [`PATIENCE`].
const EXEC_PATIENCE: Duration = Duration::from_secs(60);

/// Between the tries of what may be tried again.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500)];

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// Nobody serves the socket.
    #[error("the forge cannot be reached at {}", socket.display())]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The conversation broke off: the forge or its child was killed, or time ran out. What it was doing may be half
    /// done; removing the cgroup and the run's directory clears that up.
    #[error("the forge did not answer ({0})")]
    Broken(#[source] io::Error),
    /// The forge said something that this version does not understand.
    #[error("the forge gave an unexpected answer")]
    Unexpected,
    /// It was not done, for this reason; nothing is left of it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A started container.
#[derive(Debug)]
pub struct Started {
    /// The pid of its init on the host.
    pub pid: u32,
    /// Refers to it for good.
    pub pidfd: OwnedFd,
    /// CLOCK_BOOTTIME when it was released, nanoseconds.
    pub started_boottime_ns: u64,
    /// What had to be clamped or left out.
    pub warnings: Vec<String>,
    /// Another mount of its overlay. As long as it is held, the end of the run does not wait for the file system
    /// below to be synced; closing it may. Good for [`crate::CreateFd::Rootfs`] of the next run.
    pub rootfs: Option<OwnedFd>,
}

/// A started exec. Dropping it closes the connection, which ends an exec that was to be killed on disconnect.
#[derive(Debug)]
pub struct Executing {
    /// The pid of the process on the host.
    pub pid: u32,
    /// Refers to it for good.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    connection: UnixStream,
}

impl Executing {
    /// Wait for its end; as waitpid(2) gives it.
    pub fn wait(&self) -> Result<i32, ForgeError> {
        self.connection.set_read_timeout(None).map_err(ForgeError::Broken)?;
        match receive(&self.connection)? {
            (Reply::ExecExited { wait_status }, _) => Ok(wait_status),
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// End one that was to be killed on disconnect, and stay to hear that it has: [`Executing::wait`] says when nothing
    /// of it is left.
    pub fn cancel(&self) {
        // Whatever can go wrong here means that the other side has gone already.
        let _ = self.connection.shutdown(std::net::Shutdown::Write);
    }
}

impl AsFd for Executing {
    /// Readable when [`Executing::wait`] would not block.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// Where the forge is. Cheap to clone; it holds no connection.
#[derive(Debug, Clone)]
pub struct Forge {
    socket: PathBuf,
    /// The runtime directory, if another forge is to be started in place of one that has died.
    revive: Option<PathBuf>,
}

impl Forge {
    /// The forge that serves `socket`.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), revive: None }
    }

    /// The same, but when nobody serves the socket any more a new forge is started for `runtime_dir`: containers
    /// outlive their forge, and so should the rest.
    pub fn revived_in(self, runtime_dir: &Path) -> Self {
        Self { revive: Some(runtime_dir.to_owned()), ..self }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its protocol version and pid.
    pub fn hello(&self) -> Result<(u32, u32), ForgeError> {
        match self.ask(&Request::Hello, &[], PATIENCE)? {
            (Reply::Hello { version, pid }, _) => Ok((version, pid)),
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// Make and start a container. `fds` as in [`Create::fds`].
    pub fn create(&self, request: Create, fds: &[BorrowedFd<'_>]) -> Result<Started, ForgeError> {
        match self.ask(&Request::Create(Box::new(request)), fds, CREATE_PATIENCE)? {
            (Reply::Started { pid, started_boottime_ns, warnings }, fds) => {
                let mut fds = fds.into_iter();
                let pidfd = fds.next().ok_or(ForgeError::Unexpected)?;
                Ok(Started { pid, pidfd, started_boottime_ns, warnings, rootfs: fds.next() })
            }
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// Run one more process in the container with the pidfd `container`. `fds` as in [`Exec::fds`].
    pub fn exec(
        &self,
        request: Exec,
        container: BorrowedFd<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Executing, ForgeError> {
        let connection = self.connect(EXEC_PATIENCE)?;
        let all: Vec<_> = std::iter::once(container).chain(fds.iter().copied()).collect();
        frame::send(&connection, &Request::Exec(Box::new(request)), &all).map_err(ForgeError::Broken)?;
        match receive(&connection)? {
            (Reply::ExecStarted { pid }, fds) => {
                let mut fds = fds.into_iter();
                let pidfd = fds.next().ok_or(ForgeError::Unexpected)?;
                Ok(Executing { pid, pidfd, terminal: fds.next(), connection })
            }
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// 1 to 16 TCP sockets, neither bound nor connected and non-blocking, inside the network namespace of the container
    /// with the pidfd `container`. They keep that namespace alive: drop them with the run.
    pub fn sockets(
        &self,
        container: BorrowedFd<'_>,
        family: Family,
        count: u8,
    ) -> Result<Vec<OwnedFd>, ForgeError> {
        let asked = self.ask(&Request::Sockets { count, family }, &[container], PATIENCE);
        // The first release knows no such request, and hangs up.
        let hung_up = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        if matches!(&asked, Err(ForgeError::Broken(error)) if hung_up(error)) {
            let message = "the forge did not answer; if it is of an earlier release, restart it (`systemctl restart \
                           wharf-forge`; containers live on)";
            let (kind, detail) = (FailureKind::Unsupported, Vec::new());
            return Err(Failure { kind, message: message.to_owned(), detail }.into());
        }
        match asked? {
            // None, or fewer than were asked for, when this process may have no more descriptors.
            (Reply::Sockets, sockets) if !sockets.is_empty() => Ok(sockets),
            (reply, _) => Err(refusal(reply)),
        }
    }

    /// Signal the process behind a pidfd.
    pub fn signal(&self, pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), ForgeError> {
        self.order(&Request::Signal { signal }, &[pidfd])
    }

    /// Change the limits of a running container.
    pub fn limit(&self, cgroup: &str, limits: Limits) -> Result<(), ForgeError> {
        self.order(&Request::Limit { cgroup: cgroup.to_owned(), limits }, &[])
    }

    /// Freeze or thaw every process of a cgroup; returns when they are.
    pub fn freeze(&self, cgroup: &str, frozen: bool) -> Result<(), ForgeError> {
        self.order(&Request::Freeze { cgroup: cgroup.to_owned(), frozen }, &[])
    }

    /// Kill every process of a cgroup and below, frozen ones too.
    pub fn kill(&self, cgroup: &str) -> Result<(), ForgeError> {
        self.order(&Request::Kill { cgroup: cgroup.to_owned() }, &[])
    }

    /// Kill what is left in a cgroup and remove it everywhere. One that does not exist is no error.
    pub fn remove_cgroup(&self, cgroup: &str) -> Result<(), ForgeError> {
        self.order(&Request::RemoveCgroup { cgroup: cgroup.to_owned() }, &[])
    }

    /// What may be done twice, so it is asked for again if the forge or its child was killed meanwhile, or if there was
    /// no descriptor or memory to ask it: a signal that comes twice is better than none, which would end in a kill.
    fn order(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ForgeError> {
        let mut answer = self.ask(request, fds, PATIENCE);
        for pause in PAUSES {
            match &answer {
                Err(ForgeError::Unreachable { .. }) => {}
                Err(ForgeError::Broken(error)) if !is_late(error) => {}
                Err(ForgeError::Broken(_) | ForgeError::Unexpected | ForgeError::Failed(_)) | Ok(_) => break,
            }
            std::thread::sleep(pause);
            answer = self.ask(request, fds, PATIENCE);
        }
        match answer? {
            (Reply::Done, _) => Ok(()),
            (reply, _) => Err(refusal(reply)),
        }
    }

    fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), ForgeError> {
        let connection = self.connect(patience)?;
        failpoint::reach("ask.connected");
        frame::send(&connection, request, fds).map_err(ForgeError::Broken)?;
        failpoint::reach("ask.sent");
        let answer = receive(&connection);
        failpoint::reach("ask.answered");
        answer
    }

    fn connect(&self, patience: Duration) -> Result<UnixStream, ForgeError> {
        let dead = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
        };
        let mut connected = connect(&self.socket, patience);
        if let (Err(error), Some(runtime_dir)) = (&connected, &self.revive)
            && dead(error)
        {
            tracing::warn!("the forge has died, starting another");
            match crate::hands::ensure(runtime_dir) {
                Ok(_) => connected = connect(&self.socket, patience),
                Err(error) => tracing::error!(%error, "starting a forge"),
            }
        }
        connected.map_err(|source| ForgeError::Unreachable { socket: self.socket.clone(), source })
    }
}

/// A reply that is not the one to the request.
fn refusal(reply: Reply) -> ForgeError {
    match reply {
        Reply::Failed(failure) => failure.into(),
        Reply::Hello { .. }
        | Reply::Started { .. }
        | Reply::ExecStarted { .. }
        | Reply::ExecExited { .. }
        | Reply::Sockets
        | Reply::Done => ForgeError::Unexpected,
    }
}

/// Has time run out?
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn receive(connection: &UnixStream) -> Result<(Reply, Vec<OwnedFd>), ForgeError> {
    frame::receive(connection).map_err(ForgeError::Broken)
}

fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let no_path = || io::Error::new(io::ErrorKind::InvalidInput, "not a path of a socket");
    let directory = socket.parent().ok_or_else(no_path)?;
    let name = socket.file_name().and_then(|name| name.to_str()).ok_or_else(no_path)?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Also bounds connect(2), which waits while the forge's queue is full.
    sockopt::set_socket_timeout(&connection, sockopt::Timeout::Send, Some(patience))?;
    sockopt::set_socket_timeout(&connection, sockopt::Timeout::Recv, Some(patience))?;
    // By descriptor, since an address has room for 108 bytes only.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).as_str())?;
    rustix::net::connect(&connection, &address)?;
    Ok(UnixStream::from(connection))
}
