//! What the supervisor knows of a container's definition: only what it decides on. The rest stays outside.

use crate::{Name, Probes, Restart};
use std::fmt;
use std::time::Duration;

/// The part of a definition that decisions depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Unique among the containers of one supervisor.
    pub name: Name,
    /// How a run is asked to end.
    pub stop: Stop,
    /// The container is removed when a run has ended and no further one is wanted (`--rm`).
    pub auto_remove: bool,
    /// When it is started again by itself.
    pub restart: Restart,
    /// How its runs are looked after.
    pub probes: Probes,
    /// What it does around a run.
    pub hooks: Hooks,
    /// What it tells of itself (sd_notify), if it may.
    pub notify: Option<Notify>,
    /// Who has to be there first.
    pub requires: Vec<Requirement>,
}

impl Spec {
    /// One that is neither restarted nor looked after, and requires nothing.
    pub fn new(name: Name, stop: Stop) -> Self {
        Self {
            name,
            stop,
            auto_remove: false,
            restart: Restart::default(),
            probes: Probes::default(),
            hooks: Hooks::default(),
            notify: None,
            requires: Vec::new(),
        }
    }
}

/// What is done around a run, as in a pod's `lifecycle`. What exactly is the shell's business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    /// After the start: the container is not ready before it has ended, and is killed if it fails.
    pub post_start: bool,
    /// Before the stop signal, within the grace; not when the grace is zero or the run ends by itself.
    pub pre_stop: bool,
}

/// What is expected of a container that speaks sd_notify.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// It is ready only when it has said so.
    pub ready: bool,
    /// It has to say `WATCHDOG=1` this often, or is taken for dead.
    pub watchdog: Option<Duration>,
}

/// Somebody who has to be there first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Who.
    pub name: Name,
    /// In which condition.
    pub condition: Condition,
    /// When that one has started anew, this one is restarted too.
    pub restart_with: bool,
}

/// What is asked of a container that another one requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Started,
    /// It runs, its startup probe has succeeded, and its health check or liveness probe does not say otherwise.
    Healthy,
    /// It is ready.
    Ready,
    /// It has run and ended with 0.
    Completed,
}

impl Condition {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Ready => "ready",
            Self::Completed => "completed",
        }
    }
}

/// How a run is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Sent to its first process.
    pub signal: Signal,
    /// How long it may take before everything is killed; zero kills at once, `Duration::MAX` never.
    pub grace: Duration,
}

/// A signal's number, 1..=64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Why a number is no [`Signal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signal: {0} is none; 1 to 64 are possible")]
pub struct BadSignal(
    /// The number.
    pub i32,
);

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// The signal with this number.
    pub fn new(number: i32) -> Result<Self, BadSignal> {
        if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(BadSignal(number)) }
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_signals_are_signals() {
        assert_eq!(Signal::new(15), Ok(Signal::TERM));
        assert_eq!(Signal::new(64).map(Signal::number), Ok(64));
        assert_eq!(Signal::new(0), Err(BadSignal(0)));
        assert_eq!(Signal::new(65), Err(BadSignal(65)));
        assert_eq!(Signal::new(-9), Err(BadSignal(-9)));
    }
}
