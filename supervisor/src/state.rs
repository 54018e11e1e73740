//! What is wanted of a container, and what is.
//!
//! ```text
//!            ┌───────── next run: by hand, or by the restart policy ◄──────────┐
//!            ▼                                                                 │
//! Created ► Waiting (back-off, requirements, a place)                          │
//!            ▼                                                                 │
//!           Starting ──► Running ◄─► Pausing, Paused, Resuming                 │
//!            │  │           │             │                                    │
//!            │  │ stop      │ stop, or    │ stop                               │
//!            │  │           │ unhealthy   │                                    │
//!            │  ▼           ▼             │                                    │
//!            │ Canceling ► Stopping ◄─────┘   (Yielding before, while those    │
//!            │  │           │                  that require it stop)           │
//!            │  │           │ grace over, or killed at once                    │
//!            │  │           ▼                                                  │
//!            │  └───────► Killing                                              │
//!            │              │         (from each of the above when it exits)   │
//!            └─ failed ──►──┴──────► CleaningUp ──► Ended ─────────────────────┤
//!                                                     │ no more restarts       │
//!                                                     ├──► GivenUp ── by hand ─┘
//!                                          Created ───┴──► Removing ──► (gone)
//! ```

use crate::{Condition, Exit, Failure, GaveUp, Name, Run, Time};
use std::fmt;
use std::time::Duration;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This run or a later one; an earlier one has to end first. When it ends by itself, the restart policy says
    /// whether the next one is wanted or the goal is [`Goal::Down`].
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
    /// To be started as soon as it may.
    Waiting {
        /// The run before, if there was one.
        last: Option<Last>,
        /// Not before.
        start_at: Time,
        /// What it waits for at first.
        wait: Wait,
        /// What keeps it from being started, since its time has come.
        hold: Option<Hold>,
    },
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
    /// Alive, to be stopped once those that require it have stopped.
    Yielding {
        /// Who.
        process: Process,
        /// From then on.
        grace: Duration,
    },
    /// Has got the stop signal, or gets it after its hook.
    Stopping {
        /// Who.
        process: Process,
        /// The end of the grace.
        kill_at: Time,
        /// The hook before the stop signal is under way.
        hook: bool,
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
    /// As `Ended`, and its restart policy forbids another run. Only somebody can start it again.
    GivenUp {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
        /// Why.
        why: GaveUp,
    },
    /// Everything of the container is being removed.
    Removing {
        /// How often it was tried.
        attempt: u32,
        /// Without outcome, it is tried again then.
        again_at: Time,
    },
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// Which.
    pub run: Run,
    /// How it ended.
    pub ending: Ending,
}

/// Why a start waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It does not: somebody wants it now.
    Asked,
    /// The restart policy wants it.
    BackOff {
        /// After the end of the run before.
        delay: Duration,
    },
}

/// What keeps a container from being started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Somebody it requires is not as required.
    Requires {
        /// Who.
        name: Name,
        /// What is required.
        condition: Condition,
        /// As [`State::name`] says it; "missing" if there is nobody.
        state: &'static str,
    },
    /// As many as may are being started on this host.
    Starts,
    /// As many restarts as may have happened on this host lately.
    Restarts,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requires { name, condition, state } => {
                write!(f, "waits for {name} to be {} (it is {state})", condition.name())
            }
            Self::Starts => f.write_str("waits for other starts on this host to finish"),
            Self::Restarts => f.write_str("waits for its turn: too many restarts on this host lately"),
        }
    }
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
    /// One word for people: created, waiting, starting, running, paused, stopping, exited, failed or removing.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Waiting { .. } => "waiting",
            Self::Starting { .. } => "starting",
            Self::Running { .. } | Self::Pausing { .. } => "running",
            Self::Paused { .. } | Self::Resuming { .. } => "paused",
            Self::Canceling { .. } | Self::Yielding { .. } | Self::Stopping { .. } | Self::Killing { .. } => {
                "stopping"
            }
            Self::CleaningUp { ending: Ending::Exited(_), .. }
            | Self::Ended { ending: Ending::Exited(_), .. } => "exited",
            Self::CleaningUp { ending: Ending::Failed(_), .. }
            | Self::Ended { ending: Ending::Failed(_), .. }
            | Self::GivenUp { .. } => "failed",
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
            | Self::Ended { run, .. }
            | Self::GivenUp { run, .. } => Some(*run),
            Self::Waiting { last, .. } => last.as_ref().map(|last| last.run),
            Self::Running { process }
            | Self::Pausing { process, .. }
            | Self::Paused { process }
            | Self::Resuming { process, .. }
            | Self::Yielding { process, .. }
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
            | Self::Yielding { process, .. }
            | Self::Stopping { process, .. } => Some(*process),
            Self::Created
            | Self::Waiting { .. }
            | Self::Starting { .. }
            | Self::Canceling { .. }
            | Self::Killing { .. }
            | Self::CleaningUp { .. }
            | Self::Ended { .. }
            | Self::GivenUp { .. }
            | Self::Removing { .. } => None,
        }
    }

    /// How the last run ended, if it has.
    pub fn ending(&self) -> Option<&Ending> {
        match self {
            Self::CleaningUp { ending, .. } | Self::Ended { ending, .. } | Self::GivenUp { ending, .. } => {
                Some(ending)
            }
            Self::Waiting { last, .. } => last.as_ref().map(|last| &last.ending),
            Self::Created
            | Self::Starting { .. }
            | Self::Canceling { .. }
            | Self::Running { .. }
            | Self::Pausing { .. }
            | Self::Paused { .. }
            | Self::Resuming { .. }
            | Self::Yielding { .. }
            | Self::Stopping { .. }
            | Self::Killing { .. }
            | Self::Removing { .. } => None,
        }
    }

    /// When something has to be done if nothing happens before, as far as the state itself waits for it.
    pub fn deadline(&self) -> Option<Time> {
        let at = match self {
            Self::Waiting { start_at, hold: None | Some(Hold::Restarts), .. } => *start_at,
            Self::Starting { give_up_at, .. } => *give_up_at,
            Self::Canceling { give_up_at, kill_at, .. } => (*give_up_at).min(*kill_at),
            Self::Stopping { kill_at, .. } => *kill_at,
            Self::Pausing { give_up_at, .. } => *give_up_at,
            Self::Resuming { again_at, .. }
            | Self::Killing { again_at, .. }
            | Self::CleaningUp { again_at, .. }
            | Self::Removing { again_at, .. } => *again_at,
            // Others have to do something first.
            Self::Waiting { hold: Some(Hold::Requires { .. } | Hold::Starts), .. }
            | Self::Yielding { .. } => {
                return None;
            }
            Self::Created
            | Self::Running { .. }
            | Self::Paused { .. }
            | Self::Ended { .. }
            | Self::GivenUp { .. } => return None,
        };
        (at != Time::NEVER).then_some(at)
    }
}
