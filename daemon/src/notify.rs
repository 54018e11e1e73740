//! What a container says of itself with sd_notify(3): a datagram socket for each run that offers it.
//!
//! ```text
//! RUN_DIR/notify/  ──bind mount, read-only──► /dev/wharf/  in the container, NOTIFY_SOCKET=/dev/wharf/notify
//!        └ notify   the socket, 0666: the directories above it on the host are closed
//! ```
//! The directory is mounted and not the socket, so that a socket which another wharfd binds under the same name is seen
//! inside. What is sent while no wharfd runs is refused and lost, as it is when systemd's own socket is gone; the
//! sender goes on. Keeping the socket open for that time would be worse: its queue is as short as
//! `net.unix.max_dgram_qlen` (10, or 512 with systemd), and who sends to a full one blocks. A supervisor that is
//! gone must not stop what it supervises. A watchdog's time therefore starts anew with a new wharfd.
//!
//! Credentials are not looked at: only the run has the socket, and all of its processes may speak for it (NotifyAccess=all).
//! A pid would prove less, since the program that sent it (systemd-notify) is often gone before anyone can look.

use anyhow::Context;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::time::Instant;
use wharf_supervisor::Notification;

/// NOTIFY_SOCKET in the container, where the bundle offers [`directory`]. In /dev, which is ours: no image and no volume
/// can be in its way.
pub const ADDRESS: &str = "/dev/wharf/notify";

const SOCKET: &str = "notify";
/// systemd's own limit.
const MESSAGE_MAX: usize = 4096;
/// A status is one line of a table; the rest of it, in characters, is left out.
const STATUS_MAX: usize = 256;
/// Messages that are taken in each [`WINDOW`]. Who sends more waits; a watchdog's keep-alive comes a few times a second
/// at most.
const RATE: u32 = 50;
/// See [`RATE`].
const WINDOW: Duration = Duration::from_secs(1);

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// What could be understood; a status is one line for people, without control characters.
    pub said: Notification,
    /// Lines that could not be understood. Those that do not concern us are none of them.
    pub malformed: u32,
}

impl Message {
    fn parse(message: &[u8]) -> Self {
        let mut parsed = Self::default();
        if message.len() > MESSAGE_MAX {
            parsed.malformed = 1;
            return parsed;
        }
        // Some senders count a terminating zero in.
        let message = message.strip_suffix(b"\0").unwrap_or(message);
        for line in message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if take(&mut parsed.said, line).is_none() {
                parsed.malformed = parsed.malformed.saturating_add(1);
            }
        }
        parsed
    }
}

/// `None` if the line cannot be understood.
fn take(said: &mut Notification, line: &[u8]) -> Option<()> {
    let (key, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
    let yes = || (value == "1").then_some(true);
    let time = || value.parse().ok().map(Duration::from_micros);
    match key {
        "READY" => said.ready = yes()?,
        "RELOADING" => said.reloading = yes()?,
        "STOPPING" => said.stopping = yes()?,
        "STATUS" => {
            let shown = value.chars().filter(|character| !character.is_control());
            said.status = Some(shown.take(STATUS_MAX).collect());
        }
        "WATCHDOG" => match value {
            "1" => said.alive = true,
            "trigger" => said.trigger = true,
            _ => return None,
        },
        "WATCHDOG_USEC" => said.watchdog = Some(time()?),
        "EXTEND_TIMEOUT_USEC" => said.extend = Some(time()?),
        // ERRNO, MAINPID, FDSTORE, BARRIER, …: a descriptor that comes along is closed by the kernel, which is all that
        // a barrier waits for.
        _ => {}
    }
    Some(())
}

/// The directory that is offered to the container.
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("notify")
}

/// What one run sends.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    /// Of the present window, and how many messages it has had.
    begin: Instant,
    taken: u32,
}

impl Notify {
    /// Make the socket, also in the place of one that an earlier wharfd has left. Must be called within a tokio
    /// runtime.
    pub fn bind(run_dir: &Path) -> anyhow::Result<Self> {
        let directory = directory(run_dir);
        let socket =
            bound(&directory).with_context(|| format!("making the socket in {}", directory.display()))?;
        Ok(Self { socket, begin: Instant::now(), taken: 0 })
    }

    /// The next message that says something. It waits for ever; dropping it loses nothing.
    pub async fn receive(&mut self) -> io::Result<Message> {
        // One more byte tells a message that is too long.
        let mut buffer = [0; MESSAGE_MAX + 1];
        loop {
            if self.begin.elapsed() >= WINDOW {
                (self.begin, self.taken) = (Instant::now(), 0);
            }
            if self.taken >= RATE {
                tokio::time::sleep_until(self.begin + WINDOW).await;
                continue;
            }
            let length = self.socket.recv(&mut buffer).await?;
            self.taken += 1;
            let message = Message::parse(&buffer[..length]);
            if message != Message::default() {
                return Ok(message);
            }
        }
    }
}

fn bound(directory: &Path) -> io::Result<UnixDatagram> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    // By descriptor, since an address has room for 108 bytes only.
    let opened = std::fs::File::open(directory)?;
    let at = |name: &str| PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
    let (new, path) = (at("new"), at(SOCKET));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixDatagram::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666))?;
    // Under its name only when anyone may send to it; who had the old one is refused from now on.
    std::fs::rename(&new, &path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram as Sender;

    #[test]
    fn messages_are_taken_apart() {
        let none = Notification::default;
        for (text, said) in [
            ("READY=1", Notification { ready: true, ..none() }),
            (
                "READY=1\nSTATUS=serving 3 \x1b[31mclients\nMAINPID=7\nX_MINE=\n\0",
                Notification { ready: true, status: Some("serving 3 [31mclients".to_owned()), ..none() },
            ),
            (
                "RELOADING=1\nMONOTONIC_USEC=12\nSTOPPING=1\nERRNO=2",
                Notification { reloading: true, stopping: true, ..none() },
            ),
            ("WATCHDOG=1", Notification { alive: true, ..none() }),
            (
                "WATCHDOG=trigger\nWATCHDOG_USEC=20000000\nEXTEND_TIMEOUT_USEC=5",
                Notification {
                    trigger: true,
                    watchdog: Some(Duration::from_secs(20)),
                    extend: Some(Duration::from_micros(5)),
                    ..none()
                },
            ),
            ("FDSTORE=1\n\nBARRIER=1\n", none()),
            ("STATUS=", Notification { status: Some(String::new()), ..none() }),
        ] {
            assert_eq!(Message::parse(text.as_bytes()), Message { said, malformed: 0 }, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_counted_and_the_rest_is_heard() {
        for (text, malformed) in [
            (&b"READY"[..], 1),
            (b"READY=yes\nREADY=0\nREADY=", 3),
            (b"WATCHDOG=2\nWATCHDOG_USEC=-1\nEXTEND_TIMEOUT_USEC=1s", 3),
            (b"STATUS=\xff", 1),
            (&[b'x'; MESSAGE_MAX + 1], 1),
        ] {
            assert_eq!(Message::parse(text), Message { malformed, ..Message::default() });
        }
        let mixed = Message::parse(b"nonsense\nREADY=1");
        assert_eq!((mixed.said.ready, mixed.malformed), (true, 1));
        let long = Message::parse(format!("STATUS={}", "ä".repeat(1000)).as_bytes());
        assert_eq!(long.said.status.map(|status| status.chars().count()), Some(STATUS_MAX));
    }

    #[tokio::test]
    async fn another_daemon_hears_what_is_sent_to_the_same_place() {
        let run = tempfile::tempdir().unwrap();
        // Longer than an address may be.
        let run_dir = run.path().join("x".repeat(100));
        std::fs::create_dir(&run_dir).unwrap();
        let place = std::fs::File::open({
            let first = Notify::bind(&run_dir).unwrap();
            drop(first);
            directory(&run_dir)
        })
        .unwrap();
        // As a container sees it: through its own mount of the directory.
        let address = format!("/proc/self/fd/{}/{SOCKET}", place.as_raw_fd());
        let sender = Sender::unbound().unwrap();
        let refused = sender.send_to(b"READY=1", &address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "nobody there, and nobody waits");

        let mut second = Notify::bind(&run_dir).unwrap();
        let mode = std::fs::metadata(directory(&run_dir).join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        sender.send_to(b"MAINPID=1", &address).unwrap();
        sender.send_to(&[b'='; 8000], &address).unwrap();
        sender.send_to(b"READY=1", &address).unwrap();
        assert_eq!(second.receive().await.unwrap().malformed, 1);
        assert!(second.receive().await.unwrap().said.ready);
        let names: Vec<_> = std::fs::read_dir(directory(&run_dir)).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[tokio::test]
    async fn who_sends_too_much_waits() {
        let run = tempfile::tempdir().unwrap();
        let mut notify = Notify::bind(run.path()).unwrap();
        let address = directory(run.path()).join(SOCKET);
        let sending = std::thread::spawn(move || {
            let sender = Sender::unbound().unwrap();
            for _ in 0..RATE + 10 {
                sender.send_to(b"WATCHDOG=1", &address).unwrap();
            }
        });
        let begin = Instant::now();
        for _ in 0..RATE + 10 {
            assert!(notify.receive().await.unwrap().said.alive);
        }
        assert!(begin.elapsed() >= WINDOW / 2, "{:?}", begin.elapsed());
        sending.join().unwrap();
    }
}
