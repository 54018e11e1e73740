//! The forge: a small root process that does the privileged acts which wharfd asks for, one child for each. It
//! decides nothing and keeps no state; when it dies nothing happens to containers.
//!
//! ```text
//! wharfd ──request──► forge ──fork──► child: makes a container (creator) and becomes its keeper
//!                                            runs a process in a container (exec)
//!                                            limits, freezes, kills, removes a cgroup; sends a signal
//! ```
//! It is a static program that runs from a sealed memfd: a container that gets hold of /proc/PID/exe of one of
//! these processes cannot overwrite the file on the host (CVE-2019-5736).

mod capabilities;
mod cgroup;
mod console;
mod creator;
mod devices;
mod exec;
mod idmap;
mod inspection;
mod journal;
mod keeper;
mod limits;
mod network;
mod program;
mod seal;
mod server;
mod stage;
mod sys;
mod tree;
mod users;

use anyhow::{Context, Result};
use rustix::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wharf_protocol::{Failure, FailureKind, Reply, Request, VERSION, failpoint, frame};

const USAGE: &str = "usage: wharf-forge --socket PATH";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sys::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let socket = match args.as_slice() {
        [option] if option == "--version" => {
            eprintln!("wharf-forge {} (protocol {VERSION})", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        [option, path] if option == "--socket" => PathBuf::from(path),
        _ => anyhow::bail!("{USAGE}"),
    };
    seal::ensure_sealed()?;
    // The kernel took the number of the descriptor that was executed.
    rustix::thread::set_name(c"wharf-forge").context("taking our name")?;
    sys::close_range(3, i32::MAX, 0).context("closing descriptors")?;
    for (name, _) in std::env::vars_os() {
        // SAFETY: there are no other threads. LISTEN_FDS, for one, would hand descriptors to containers.
        unsafe { std::env::remove_var(name) };
    }
    // Beside the socket, as far as tests know.
    failpoint::watch(socket.parent().unwrap_or(Path::new("/")));
    server::serve(&socket)
}

/// In a child: carry out the one request of this connection.
pub fn handle(connection: &UnixStream, keeper: &OwnedFd) {
    let (request, fds) = match frame::receive::<Request>(connection) {
        Ok(received) => received,
        Err(error) => {
            sys::say(format_args!("reading a request: {error}"));
            // A later wharfd may ask for more than we know; it shall hear why nothing comes of it.
            if error.kind() == std::io::ErrorKind::InvalidData {
                let message = format!(
                    "the forge (wharf {}) does not understand the request: {error}; if wharfd was upgraded, restart \
                     the forge as well (containers live on)",
                    env!("CARGO_PKG_VERSION")
                );
                let failure = Failure { kind: FailureKind::Unsupported, message, detail: Vec::new() };
                let _ = frame::send(connection, &Reply::Failed(failure), &[]);
            }
            return;
        }
    };
    let result = match request {
        Request::Hello => {
            let pid = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
            let _ = frame::send(connection, &Reply::Hello { version: VERSION, pid }, &[]);
            return;
        }
        Request::Create(request) => match creator::create(connection, &request, fds, keeper) {
            // The guard has answered.
            Ok(()) => return,
            Err(failure) => Err(failure.into()),
        },
        Request::Exec(request) => match exec::exec(connection, &request, fds) {
            Ok(()) => return,
            Err(error) => Err(error),
        },
        Request::Sockets { count, family } => match network::sockets(count, family, &fds) {
            Ok(made) => {
                let made: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                let _ = frame::send(connection, &Reply::Sockets, &made);
                return;
            }
            Err(error) => Err(error),
        },
        Request::Signal { signal } => send_signal(signal, &fds),
        Request::Limit { cgroup, limits } => {
            cgroup::Cgroup::at(&cgroup).and_then(|cgroup| cgroup.relimit(&limits))
        }
        Request::Freeze { cgroup, frozen } => {
            cgroup::Cgroup::at(&cgroup).and_then(|cgroup| cgroup.freeze(frozen))
        }
        Request::Kill { cgroup } => cgroup::Cgroup::at(&cgroup).and_then(|cgroup| cgroup.kill()),
        Request::RemoveCgroup { cgroup } => cgroup::Cgroup::at(&cgroup).and_then(|cgroup| cgroup.remove()),
    };
    let reply = match result {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed(failure(&error)),
    };
    let _ = frame::send(connection, &reply, &[]);
}

fn send_signal(signal: i32, fds: &[OwnedFd]) -> Result<()> {
    let pidfd = fds.first().context("no pidfd came with the signal")?;
    match sys::signal(pidfd, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            let message = "the container is not running".to_owned();
            Err(Failure { kind: FailureKind::NotRunning, message, detail: Vec::new() }.into())
        }
        result => result.with_context(|| format!("sending signal {signal}")),
    }
}

/// What the asker is told: the failure that someone on the way has put into words, or the chain of causes.
pub fn failure(error: &anyhow::Error) -> Failure {
    match error.downcast_ref::<Failure>() {
        Some(failure) => failure.clone(),
        None => Failure { kind: FailureKind::Failed, message: format!("{error:#}"), detail: Vec::new() },
    }
}
