//! What the supervisor knows of a container's definition: only what it decides on. The rest stays outside.

use crate::Name;
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
