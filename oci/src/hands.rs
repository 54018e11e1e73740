//! The programs that this one carries in itself, and how it starts the forge from a sealed memfd.
//!
//! The forge outlives its starter: containers do not care who asks for them. So the first thing is always to look
//! whether one is there.

use crate::forge::{Forge, ForgeError};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use std::io;
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
/// A cold start takes some 20 ms.
const STARTING: Duration = Duration::from_secs(15);

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
    /// A forge of another version runs.
    #[error(
        "the forge with pid {pid} speaks version {found} of the protocol, this program version {VERSION}; end it with \
         SIGTERM (containers live on), then a new one is started"
    )]
    Version {
        /// The version that it speaks.
        found: u32,
        /// Its pid.
        pid: u32,
    },
}

/// The forge that serves `runtime_dir`, started if there is none. Blocks; usually for less than a millisecond.
pub fn ensure(runtime_dir: &Path) -> Result<Forge, HandsError> {
    let forge = Forge::at(runtime_dir.join(SOCKET));
    if let Some(forge) = usable(&forge)? {
        return Ok(forge);
    }
    let lock = runtime_dir.join(LOCK);
    let lock =
        rustix::fs::open(&lock, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
            .map_err(failed(format!("opening {}", lock.display())))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(failed("waiting for the lock"))?;
    // Whoever held the lock has started one.
    if let Some(forge) = usable(&forge)? {
        return Ok(forge);
    }

    let log = runtime_dir.join(LOG);
    start(forge.socket(), &log)?;
    let deadline = Instant::now() + STARTING;
    let mut pause = Duration::from_millis(1);
    loop {
        match forge.hello() {
            Ok(_) => return usable(&forge)?.ok_or_else(|| silent(&log, ForgeError::Unexpected)),
            Err(error) if Instant::now() >= deadline => return Err(silent(&log, error)),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The forge, if it runs; an error if it is of a version that we do not understand.
fn usable(forge: &Forge) -> Result<Option<Forge>, HandsError> {
    match forge.hello() {
        Ok((version, _)) if version == VERSION || version + 1 == VERSION => Ok(Some(forge.clone())),
        Ok((found, pid)) => Err(HandsError::Version { found, pid }),
        Err(_) => Ok(None),
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
        .arg0("wharf-forge")
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
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create("wharf-forge", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd was executable and nobody knew the flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create("wharf-forge", flags)?,
        other => other?,
    };
    let mut written = 0;
    while written < FORGE.len() {
        written += rustix::io::write(&memfd, &FORGE[written..])?;
    }
    rustix::fs::fcntl_add_seals(
        &memfd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(memfd)
}

fn silent(log: &Path, source: ForgeError) -> HandsError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    HandsError::Silent { said: text.lines().last().unwrap_or_default().to_owned(), source }
}

fn failed<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> HandsError {
    let doing = doing.into();
    move |source| HandsError::Io { doing, source: source.into() }
}
