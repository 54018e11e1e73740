//! Carries out probes and hooks: from outside of the image, inside the container's network namespace. When one is due
//! and what its outcome means is the supervisor's business.
//!
//! ```text
//! Http, Tcp, Grpc ─► socket of the container's network (the forge makes a few at a time) ─► connect ─► ask ─► Outcome
//! Exec ────────────► forge: one more process in the container ─► its end, or the end of the time ─► Outcome
//! ```
//! The mechanisms are the kubelet's; each file says where we differ. Whoever drops a probe under way ends it, with all
//! that it has started.

mod exec;
mod grpc;
mod http;
mod means;
mod tcp;
#[cfg(test)]
mod tests;

pub use exec::{Confinement, expand};
pub use means::Means;

use std::io;
use std::time::Duration;

/// A probe whose outcome nobody knows is tried that often in all, back to back.
const ATTEMPTS: u32 = 3;
/// Whom to ask if nobody is named: the container itself.
const LOOPBACK: &str = "127.0.0.1";
/// Who asks, where the caller has set no other name.
const USER_AGENT: &str = concat!("wharf-probe/", env!("CARGO_PKG_VERSION"));

/// How to ask a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// Run a program in the container, without a shell: good if it ends with 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// GET a page: good if the status is 200 to 399.
    Http {
        /// With or without TLS.
        scheme: Scheme,
        /// 127.0.0.1, of the container, if absent; a name is resolved on the host.
        host: Option<String>,
        /// 1 to 65535.
        port: u16,
        /// With the query, if there is one.
        path: String,
        /// Sent as they are, repeats included. `Host` sets the host that is asked for; `Accept` with an empty value
        /// takes away our own.
        headers: Vec<(String, String)>,
    },
    /// Connect: good if somebody listens.
    Tcp {
        /// As for [`Handler::Http`].
        host: Option<String>,
        /// 1 to 65535.
        port: u16,
    },
    /// Ask `grpc.health.v1.Health/Check`, without TLS: good if the answer is SERVING.
    Grpc {
        /// 1 to 65535.
        port: u16,
        /// Empty is the server as a whole.
        service: String,
    },
    /// Wait, for hooks.
    Sleep {
        /// How long.
        duration: Duration,
    },
}

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without.
    Http,
    /// With, whoever signed the certificate.
    Https,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is well.
    Success {
        /// What is odd about it, such as a redirect to another host.
        warning: Option<String>,
    },
    /// It is not, for this reason: one sentence, for an exec with what it has printed.
    Failure(String),
    /// The probe could not be carried out, for this reason; it says nothing of the container.
    Unknown(String),
}

/// A warning, if there is one; or why there is no success.
type Verdict = Result<Option<String>, Trouble>;

/// What stands in the way of success.
#[derive(Debug)]
enum Trouble {
    /// It is the container's.
    Bad(String),
    /// It is ours.
    Unknown(String),
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Ok(warning) => Self::Success { warning },
            Err(Trouble::Bad(why)) => Self::Failure(why),
            Err(Trouble::Unknown(why)) => Self::Unknown(why),
        }
    }
}

/// Carry out one probe or hook; each of its attempts has the time of `timeout`.
pub async fn carry_out(means: &Means, handler: &Handler, timeout: Duration) -> Outcome {
    let mut outcome = Outcome::from(attempt(means, handler, timeout).await);
    for _ in 1..ATTEMPTS {
        if !matches!(outcome, Outcome::Unknown(_)) {
            break;
        }
        outcome = attempt(means, handler, timeout).await.into();
    }
    outcome
}

async fn attempt(means: &Means, handler: &Handler, timeout: Duration) -> Verdict {
    match handler {
        Handler::Exec { command } => exec::probe(means, command, timeout).await,
        Handler::Http { scheme, host, port, path, headers } => {
            let target = http::Target::new(*scheme, host.as_deref().unwrap_or(LOOPBACK), *port, path);
            means.prepare().await?;
            within(timeout, http::probe(means, target, headers)).await
        }
        Handler::Tcp { host, port } => {
            means.prepare().await?;
            let connected = tcp::connect(means, host.as_deref().unwrap_or(LOOPBACK), *port);
            within(timeout, async { connected.await.map(|_| None) }).await
        }
        Handler::Grpc { port, service } => {
            means.prepare().await?;
            within(timeout, grpc::probe(means, *port, service, timeout)).await
        }
        Handler::Sleep { duration } => {
            let slept = async {
                tokio::time::sleep(*duration).await;
                Ok(None)
            };
            within(timeout, slept).await
        }
    }
}

async fn within(timeout: Duration, asking: impl Future<Output = Verdict>) -> Verdict {
    let late = |_| Trouble::Bad(format!("timeout: no answer within {timeout:?}"));
    tokio::time::timeout(timeout, asking).await.map_err(late)?
}

/// An error in words, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
