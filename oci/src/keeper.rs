//! The client of a keeper: who are you, attach me, resize the terminal, tell me when it ended.
//!
//! A keeper talks in fixed-size packets (see [`wharf_protocol::keeper`]). One connection is kept per container
//! to hear of its end; attach and resize make short ones of their own.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wharf_protocol::ExitRecord;
use wharf_protocol::keeper::{self as wire, attach, kind, size};

/// A connection to a keeper.
#[derive(Debug)]
pub struct Keeper {
    socket: AsyncFd<OwnedFd>,
}

/// What a keeper says of itself and its container.
#[derive(Debug)]
pub struct Status {
    /// Version of the keeper's wire format.
    pub version: u32,
    /// The container's init on the host.
    pub pid: u32,
    /// Which start of the container it is.
    pub run: u64,
    /// The container's init, whatever happens to its pid.
    pub pidfd: OwnedFd,
}

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The container has ended; the keeper's record says the same.
    Exited(ExitRecord),
    /// The keeper has gone without a word: there may be a record.
    Lost,
}

/// What to connect with a container; the far ends stay with the caller.
#[derive(Debug)]
pub enum Attach<'a> {
    /// Write ends of pipes.
    Pipes {
        /// For standard output.
        stdout: BorrowedFd<'a>,
        /// For standard error.
        stderr: BorrowedFd<'a>,
        /// Also ask for the write end of standard input.
        stdin: bool,
    },
    /// One end of a stream socket pair, connected with the terminal.
    Terminal(BorrowedFd<'a>),
}

/// Duplicates of what a keeper holds of its container: as long as somebody has them, the container does not notice that
/// the keeper was killed.
#[derive(Debug)]
pub struct Spare {
    /// The read end of its standard output, or the terminal's master.
    pub stdout: OwnedFd,
    /// The read end of its standard error.
    pub stderr: Option<OwnedFd>,
    /// The write end of its standard input, if that is kept.
    pub stdin: Option<OwnedFd>,
    /// As in [`wharf_protocol::Log`].
    pub log_max_size: u64,
    /// As in [`wharf_protocol::Log`].
    pub log_max_files: u32,
}

impl Keeper {
    /// Connect to the keeper of the run whose directory this is. Must be called within a tokio runtime.
    pub fn connect(run_dir: &Path) -> io::Result<Self> {
        // A path through the directory's descriptor is short, whatever the directory is called (sun_path has
        // 108 bytes).
        let dir = std::fs::File::open(run_dir)?;
        let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), wire::SOCKET);
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket: crate::readiness::watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Ask who it is.
    pub async fn status(&self) -> io::Result<Status> {
        self.send(&[kind::HELLO], &[]).await?;
        let (packet, fds) = self.receive().await?;
        match packet.first() {
            Some(&kind::STATUS) if packet.len() >= size::STATUS => Ok(Status {
                version: u32::from_le_bytes(number(&packet, 1)?),
                pid: u32::from_le_bytes(number(&packet, 5)?),
                run: u64::from_le_bytes(number(&packet, 9)?),
                pidfd: fds.into_iter().next().ok_or_else(|| bad("STATUS without a pidfd"))?,
            }),
            _ => Err(refusal(&packet)),
        }
    }

    /// Duplicate what it holds. To be called when it has answered: before, it may still be the guard.
    pub fn spare(&self) -> io::Result<Spare> {
        // Who listens is who has become the keeper.
        let pid = rustix::net::sockopt::socket_peercred(&self.socket)?.pid;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
        let get = |place| pidfd_getfd(&pidfd, place, PidfdGetfdFlags::empty());
        let stdout = get(wire::fd::STDOUT);
        let others = [wire::fd::STDERR, wire::fd::STDIN].map(|place| match get(place) {
            Ok(fd) => Ok(Some(fd)),
            // Not in use.
            Err(Errno::BADF) => Ok(None),
            Err(error) => Err(error),
        });
        // Not hung up: so it lives, and all that was of the process with this pid is its.
        let mut state = [PollFd::new(&self.socket, PollFlags::empty())];
        poll(&mut state, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if state[0].revents().contains(PollFlags::HUP) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let [stderr, stdin] = others;
        // `wharf-keeper ID RUN PID LOG_MAX_SIZE LOG_MAX_FILES`
        let mut numbers = line.split('\0').skip(4).map_while(|word| word.parse().ok());
        let log_max_size = numbers.next().ok_or_else(|| bad("no size of the log"))?;
        let log_max_files = numbers.next().and_then(|number: u64| u32::try_from(number).ok());
        Ok(Spare {
            stdout: stdout?,
            stderr: stderr?,
            stdin: stdin?,
            log_max_size,
            log_max_files: log_max_files.ok_or_else(|| bad("no number of log files"))?,
        })
    }

    /// Connect the container's output with these, from now on. Returns the write end of standard input if it
    /// was asked for and is kept.
    pub async fn attach(&self, what: Attach<'_>) -> io::Result<Option<OwnedFd>> {
        match what {
            Attach::Pipes { stdout, stderr, stdin } => {
                let flags = attach::STDOUT | attach::STDERR | if stdin { attach::STDIN } else { 0 };
                self.send(&[kind::ATTACH, flags], &[stdout, stderr]).await?;
            }
            Attach::Terminal(socket) => {
                self.send(&[kind::ATTACH, attach::TERMINAL], &[socket]).await?;
            }
        }
        let (packet, fds) = self.receive().await?;
        match packet.first() {
            Some(&kind::ATTACHED) => Ok(fds.into_iter().next()),
            _ => Err(refusal(&packet)),
        }
    }

    /// Set the terminal's size.
    pub async fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let mut packet = [kind::RESIZE; size::RESIZE];
        packet[1..3].copy_from_slice(&rows.to_le_bytes());
        packet[3..5].copy_from_slice(&columns.to_le_bytes());
        self.send(&packet, &[]).await?;
        let (packet, _) = self.receive().await?;
        match packet.first() {
            Some(&kind::DONE) => Ok(()),
            _ => Err(refusal(&packet)),
        }
    }

    /// Wait for the end of the container, or of the keeper.
    pub async fn ended(&self) -> Ended {
        loop {
            match self.receive().await {
                Ok((packet, _)) if packet.first() == Some(&kind::EXITED) => {
                    return exit_record(&packet).map_or(Ended::Lost, Ended::Exited);
                }
                // An answer that nobody waits for any more.
                Ok((packet, _)) if !packet.is_empty() => {}
                Ok(_) | Err(_) => return Ended::Lost,
            }
        }
    }

    async fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(fds));
                }
                rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
                Ok(())
            })
            .await
    }

    /// The next packet; empty when the keeper has closed. EXITED may come instead of any answer.
    async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.socket
            .async_io(Interest::READABLE, |socket| {
                let mut packet = [0; size::MAX];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let received = match rustix::net::recvmsg(
                    socket,
                    &mut [IoSliceMut::new(&mut packet)],
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC,
                ) {
                    Err(Errno::CONNRESET) => return Ok((Vec::new(), Vec::new())),
                    other => other?,
                };
                let mut fds = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        fds.extend(received);
                    }
                }
                Ok((packet[..received.bytes].to_vec(), fds))
            })
            .await
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn exit_record(packet: &[u8]) -> Option<ExitRecord> {
    Some(ExitRecord {
        wait_status: i32::from_le_bytes(number(packet, 1).ok()?),
        finished_realtime_ns: u64::from_le_bytes(number(packet, 5).ok()?),
        finished_boottime_ns: u64::from_le_bytes(number(packet, 13).ok()?),
        dropped_bytes: u64::from_le_bytes(number(packet, 21).ok()?),
    })
}

fn number<const N: usize>(packet: &[u8], at: usize) -> io::Result<[u8; N]> {
    packet.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| bad("short packet"))
}

fn refusal(packet: &[u8]) -> io::Error {
    match packet.first() {
        Some(&kind::REFUSED) => number(packet, 1)
            .map_or_else(|error| error, |errno| io::Error::from_raw_os_error(i32::from_le_bytes(errno))),
        Some(&kind::EXITED) | None => io::Error::new(io::ErrorKind::NotConnected, "the container has ended"),
        Some(_) => bad("unexpected answer from the keeper"),
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
