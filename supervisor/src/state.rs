//! What is wanted of a container, and what is.
//!
//! ```text
//!            ┌──────────────────────────── next run ◄──────────────────────────┐
//!            ▼                                                                 │
//! Created ► Starting ──► Running ◄─► Pausing, Paused, Resuming                 │
//!            │  │           │             │                                    │
//!            │  │ stop      │ stop        │ stop                               │
//!            │  ▼           ▼             │                                    │
//!            │ Canceling ► Stopping ◄─────┘                                    │
//!            │  │           │ grace over, or killed at once                    │
//!            │  │           ▼                                                  │
//!            │  └───────► Killing                                              │
//!            │              │         (from each of the above when it exits)   │
//!            └─ failed ──►──┴──────► CleaningUp ──► Ended ─────────────────────┘
//!                                                     │
//!                                          Created ───┴──► Removing ──► (gone)
//! ```

use crate::{Exit, Failure, Run, Time};

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This run or a later one; an earlier one has to end first. When it ends by itself, the goal is [`Goal::Down`].
    Up {
        /// The earliest that will do.
        run: Run,
        /// Frozen.
        paused: bool,
    },
    /// No run.
    Down,
    /// No container.
    Removed,
}

impl Goal {
    /// One word for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Up { paused: false, .. } => "up",
            Self::Up { paused: true, .. } => "paused",
            Self::Down => "down",
            Self::Removed => "removed",
        }
    }
}

/// A run that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Which start this is.
    pub run: Run,
    /// Its first process in the host's pid namespace; for display, never for signals.
    pub pid: u32,
}

/// What is. A state holds what only it needs, its deadline included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Defined, never started.
    Created,
    /// Being made.
    Starting {
        /// Which start this is.
        run: Run,
        /// A start without outcome is killed then.
        give_up_at: Time,
    },
    /// Being made, but not wanted any more: it gets the stop signal as soon as it runs.
    Canceling {
        /// Which start this is.
        run: Run,
        /// A start without outcome is killed then.
        give_up_at: Time,
        /// The end of the grace.
        kill_at: Time,
    },
    /// Alive and well.
    Running {
        /// Who.
        process: Process,
    },
    /// Alive, to be frozen.
    Pausing {
        /// Who.
        process: Process,
        /// Without outcome, it is thawed again then.
        give_up_at: Time,
    },
    /// Alive and frozen.
    Paused {
        /// Who.
        process: Process,
    },
    /// Frozen, to go on.
    Resuming {
        /// Who.
        process: Process,
        /// How often it was tried.
        attempt: u32,
        /// Without outcome, thawing is tried again then.
        again_at: Time,
    },
    /// Has got the stop signal.
    Stopping {
        /// Who.
        process: Process,
        /// The end of the grace.
        kill_at: Time,
    },
    /// Everything of the run is being killed.
    Killing {
        /// Which.
        run: Run,
        /// How often it was tried.
        attempt: u32,
        /// Without outcome, it is tried again then.
        again_at: Time,
    },
    /// The run is over; its cgroup and directories are being removed.
    CleaningUp {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
        /// How often it was tried.
        attempt: u32,
        /// Without outcome, it is tried again then.
        again_at: Time,
    },
    /// The run is over, and nothing of it is left but this and its logs.
    Ended {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
    },
    /// Everything of the container is being removed.
    Removing {
        /// How often it was tried.
        attempt: u32,
        /// Without outcome, it is tried again then.
        again_at: Time,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It ran, and its first process ended.
    Exited(Exit),
    /// It never ran.
    Failed(Failure),
}

impl State {
    /// One word for people: created, starting, running, paused, stopping, exited, failed or removing.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting { .. } => "starting",
            Self::Running { .. } | Self::Pausing { .. } => "running",
            Self::Paused { .. } | Self::Resuming { .. } => "paused",
            Self::Canceling { .. } | Self::Stopping { .. } | Self::Killing { .. } => "stopping",
            Self::CleaningUp { ending: Ending::Exited(_), .. }
            | Self::Ended { ending: Ending::Exited(_), .. } => "exited",
            Self::CleaningUp { ending: Ending::Failed(_), .. }
            | Self::Ended { ending: Ending::Failed(_), .. } => "failed",
            Self::Removing { .. } => "removing",
        }
    }

    /// The run that is, or was the last.
    pub fn run(&self) -> Option<Run> {
        match self {
            Self::Starting { run, .. }
            | Self::Canceling { run, .. }
            | Self::Killing { run, .. }
            | Self::CleaningUp { run, .. }
            | Self::Ended { run, .. } => Some(*run),
            Self::Running { process }
            | Self::Pausing { process, .. }
            | Self::Paused { process }
            | Self::Resuming { process, .. }
            | Self::Stopping { process, .. } => Some(process.run),
            Self::Created | Self::Removing { .. } => None,
        }
    }

    /// The process that is known to live.
    pub fn process(&self) -> Option<Process> {
        match self {
            Self::Running { process }
            | Self::Pausing { process, .. }
            | Self::Paused { process }
            | Self::Resuming { process, .. }
            | Self::Stopping { process, .. } => Some(*process),
            Self::Created
            | Self::Starting { .. }
            | Self::Canceling { .. }
            | Self::Killing { .. }
            | Self::CleaningUp { .. }
            | Self::Ended { .. }
            | Self::Removing { .. } => None,
        }
    }

    /// How the last run ended, if it has.
    pub fn ending(&self) -> Option<&Ending> {
        match self {
            Self::CleaningUp { ending, .. } | Self::Ended { ending, .. } => Some(ending),
            Self::Created
            | Self::Starting { .. }
            | Self::Canceling { .. }
            | Self::Running { .. }
            | Self::Pausing { .. }
            | Self::Paused { .. }
            | Self::Resuming { .. }
            | Self::Stopping { .. }
            | Self::Killing { .. }
            | Self::Removing { .. } => None,
        }
    }

    /// When something has to be done if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        let at = match self {
            Self::Starting { give_up_at, .. } => *give_up_at,
            Self::Canceling { give_up_at, kill_at, .. } => (*give_up_at).min(*kill_at),
            Self::Stopping { kill_at, .. } => *kill_at,
            Self::Pausing { give_up_at, .. } => *give_up_at,
            Self::Resuming { again_at, .. }
            | Self::Killing { again_at, .. }
            | Self::CleaningUp { again_at, .. }
            | Self::Removing { again_at, .. } => *again_at,
            Self::Created | Self::Running { .. } | Self::Paused { .. } | Self::Ended { .. } => return None,
        };
        (at != Time::NEVER).then_some(at)
    }
}
