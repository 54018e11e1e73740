//! The programs that this one carries in itself, and how it starts the forge from a sealed memfd.
//!
//! The forge outlives its starter: containers do not care who asks for them. So the first thing is always to look
//! whether one is there. After an upgrade that one is of another build: since it keeps no state and nobody needs it
//! as a parent, it is ended and replaced, and what its children are at goes on. One that a service manager started is
//! left to it; it is used if it speaks the same protocol.

use crate::forge::{Forge, ForgeError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wharf_protocol::VERSION;

/// The forge.
static FORGE: &[u8] = include_bytes!(env!("WHARF_FORGE"));
/// The static init that `--init` puts in front of a container's program.
pub static INIT: &[u8] = include_bytes!(env!("WHARF_INIT"));
/// The static program of the embedded demo image.
pub static DEMO: &[u8] = include_bytes!(env!("WHARF_DEMO"));

/// The forge's socket in the runtime directory.
pub const SOCKET: &str = "forge.sock";
/// What the forge has to say, in the runtime directory.
pub const LOG: &str = "forge.log";
/// Held while somebody starts a forge.
const LOCK: &str = "forge.lock";
/// How a forge that was started here is called; a service manager calls it by its path.
const NAME: &str = "wharf-forge";
/// A cold start takes some 20 ms.
const STARTING: Duration = Duration::from_secs(15);
/// It has nothing to finish, so its end is a matter of a millisecond.
const ENDING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Why there is no forge.
#[derive(Debug, thiserror::Error)]
pub enum HandsError {
    /// Starting it failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// It was started and does not answer.
    #[error("the forge does not answer{}", if said.is_empty() { String::new() } else { format!("; it said: {said}") })]
    Silent {
        /// The end of its log.
        said: String,
        /// What happened to the question.
        source: ForgeError,
    },
    /// A forge of another version runs, and somebody else started it.
    #[error(
        "the forge with pid {pid} speaks version {found} of the protocol, this program version {VERSION}; restart it \
         (`systemctl restart wharf-forge`; containers live on)"
    )]
    Version {
        /// The version that it speaks.
        found: u32,
        /// Its pid.
        pid: u32,
    },
}

/// The forge that serves `runtime_dir`, started if there is none or one of another build. Blocks; usually for less
/// than a millisecond.
pub fn ensure(runtime_dir: &Path) -> Result<Forge, HandsError> {
    let forge = Forge::at(runtime_dir.join(SOCKET));
    if let Found::Usable = look(&forge)? {
        return Ok(forge);
    }
    let lock = runtime_dir.join(LOCK);
    let lock =
        rustix::fs::open(&lock, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
            .map_err(failed(format!("opening {}", lock.display())))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(failed("waiting for the lock"))?;
    match look(&forge)? {
        // Whoever held the lock has started one.
        Found::Usable => return Ok(forge),
        Found::Foreign => {
            tracing::info!("the forge is of another build, replacing it");
            end(&forge)?;
        }
        Found::Nobody => {}
    }

    let log = runtime_dir.join(LOG);
    start(forge.socket(), &log)?;
    let deadline = Instant::now() + STARTING;
    let mut pause = Duration::from_millis(1);
    loop {
        match forge.hello() {
            Ok(_) => return Ok(forge),
            Err(error) if Instant::now() >= deadline => return Err(silent(&log, error)),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// End the forge, and wait for that: who comes next should find its directory unused. Containers live on.
pub fn end(forge: &Forge) -> Result<(), HandsError> {
    let doing = "ending the forge";
    let asked = |error: ForgeError| failed("asking the forge who it is")(io::Error::other(error));
    let (_, number) = forge.hello().map_err(asked)?;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| failed(doing)(io::Error::other("it has no pid")))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed(doing))?;
    // It has answered under this pid after the pidfd was opened, so the pidfd is not a stranger's.
    let (_, again) = forge.hello().map_err(asked)?;
    if again != number {
        return Err(failed(doing)(io::Error::other("another one has taken its place")));
    }
    pidfd_send_signal(&pidfd, Signal::TERM).map_err(failed(doing))?;
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&ENDING)).map_err(failed(doing))? {
        0 => Err(failed(doing)(io::ErrorKind::TimedOut)),
        _ => Ok(()),
    }
}

/// Who serves the socket?
enum Found {
    /// One that we can work with.
    Usable,
    /// One of another build, that some wharfd has started.
    Foreign,
    /// Nobody.
    Nobody,
}

fn look(forge: &Forge) -> Result<Found, HandsError> {
    let Ok((version, pid)) = forge.hello() else { return Ok(Found::Nobody) };
    // What cannot be looked at is taken for what it says that it is.
    if is_of_this_build(pid).unwrap_or(true) && version == VERSION {
        return Ok(Found::Usable);
    }
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if line.split(|byte| *byte == 0).next() == Some(NAME.as_bytes()) {
        return Ok(Found::Foreign);
    }
    if version != VERSION {
        return Err(HandsError::Version { found: version, pid });
    }
    tracing::warn!(
        pid,
        "the forge is of another build; `systemctl restart wharf-forge` brings it up to date"
    );
    Ok(Found::Usable)
}

/// Does this process run the forge that we carry? A version number would not tell two builds of it apart.
fn is_of_this_build(pid: u32) -> io::Result<bool> {
    let mut running = std::fs::File::open(format!("/proc/{pid}/exe"))?;
    if FORGE.is_empty() {
        return Ok(true);
    }
    if running.metadata()?.len() != FORGE.len() as u64 {
        return Ok(false);
    }
    let mut piece = [0; 64 << 10];
    let mut rest = FORGE;
    loop {
        let length = running.read(&mut piece)?;
        match rest.split_at_checked(length) {
            Some((ours, after)) if length > 0 && *ours == piece[..length] => rest = after,
            Some(_) if length == 0 => return Ok(rest.is_empty()),
            Some(_) | None => return Ok(false),
        }
    }
}

fn start(socket: &Path, log: &Path) -> Result<(), HandsError> {
    let memfd = sealed().map_err(failed("putting the forge into a memfd"))?;
    let output = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed(format!("opening {}", log.display())))?;
    let mut command = Command::new(PathBuf::from(format!("/proc/self/fd/{}", memfd.as_raw_fd())));
    command
        .arg0(NAME)
        .arg("--socket")
        .arg(socket)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    // SAFETY: between fork and execve the closure makes only system calls: a session of its own, and a second fork
    // whose parent leaves, so that the forge is nobody's child here and leaves no zombie to its starter.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            match nix::unistd::fork()? {
                nix::unistd::ForkResult::Child => Ok(()),
                nix::unistd::ForkResult::Parent { .. } => nix::libc::_exit(0),
            }
        });
    }
    let mut child = command.spawn().map_err(failed("starting the forge"))?;
    child.wait().map_err(failed("starting the forge"))?;
    Ok(())
}

/// The forge in memory that nobody can change (CVE-2019-5736).
fn sealed() -> io::Result<OwnedFd> {
    if FORGE.is_empty() {
        return Err(io::Error::other("this program was built with WHARF_HANDS_SKIP and carries no forge"));
    }
    wharf_protocol::memfd::sealed_program(c"wharf-forge", FORGE)
}

fn silent(log: &Path, source: ForgeError) -> HandsError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    HandsError::Silent { said: text.lines().last().unwrap_or_default().to_owned(), source }
}

fn failed<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> HandsError {
    let doing = doing.into();
    move |source| HandsError::Io { doing, source: source.into() }
}
