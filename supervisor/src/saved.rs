//! What outlives the process that supervises, and what the next one finds.

use crate::{Ending, GaveUp, Goal, Last, Process, Restarts, Run, SavedVitals, Stamp, State, Time, Wait};

/// What is durable of a container beside its definition: plain data, to be written down as it is.
///
/// Times since boot ([`Time`]) mean nothing after the next boot: whoever reads them back then puts zero there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What is wanted.
    pub goal: Goal,
    /// How far it got.
    pub phase: Phase,
    /// When the last run started, if it did.
    pub started: Option<Stamp>,
    /// What is remembered of earlier restarts.
    pub restarts: Restarts,
    /// How the last run is, or was.
    pub vitals: SavedVitals,
}

/// How far a container got: a [`crate::State`] without what a new supervisor finds out for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Never started.
    Created,
    /// It is to be started as soon as it may.
    Waiting {
        /// The run before, if there was one.
        last: Option<Last>,
        /// Not before.
        start_at: Time,
        /// What it waits for.
        wait: Wait,
    },
    /// A start was about to begin.
    Starting {
        /// Which.
        run: Run,
    },
    /// It was, and is not wanted any more.
    Canceling {
        /// Which.
        run: Run,
        /// The end of the grace.
        kill_at: Time,
    },
    /// Alive, frozen or not.
    Running {
        /// Who.
        process: Process,
    },
    /// Alive; the stop signal was about to be sent.
    Stopping {
        /// Who.
        process: Process,
        /// The end of the grace.
        kill_at: Time,
    },
    /// Everything of the run was about to be killed.
    Killing {
        /// Which.
        run: Run,
    },
    /// The run is over, something of it may be left.
    CleaningUp {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
    },
    /// The run is over, nothing of it is left.
    Ended {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
    },
    /// Likewise, and there is to be no other by itself.
    GivenUp {
        /// Which.
        run: Run,
        /// How it ended.
        ending: Ending,
        /// Why.
        why: GaveUp,
    },
    /// Everything of the container was about to be removed.
    Removing,
}

impl Phase {
    /// The run that may be alive: the only one that is worth looking for before
    /// [`crate::Supervisor::adopt`]. Processes of any other run belong to nobody.
    pub fn living_run(&self) -> Option<Run> {
        match self {
            Self::Starting { run } | Self::Canceling { run, .. } | Self::Killing { run } => Some(*run),
            Self::Running { process } | Self::Stopping { process, .. } => Some(process.run),
            Self::Created
            | Self::Waiting { .. }
            | Self::CleaningUp { .. }
            | Self::Ended { .. }
            | Self::GivenUp { .. }
            | Self::Removing => None,
        }
    }

    pub(crate) fn of(state: &State) -> Self {
        match state {
            State::Created => Self::Created,
            State::Waiting { last, start_at, wait, .. } => {
                Self::Waiting { last: last.clone(), start_at: *start_at, wait: *wait }
            }
            State::Starting { run, .. } => Self::Starting { run: *run },
            State::Canceling { run, kill_at, .. } => Self::Canceling { run: *run, kill_at: *kill_at },
            State::Running { process }
            | State::Pausing { process, .. }
            | State::Paused { process }
            | State::Resuming { process, .. }
            // Who takes over has to compare the goal with it anyway.
            | State::Yielding { process, .. } => Self::Running { process: *process },
            State::Stopping { process, kill_at, .. } => Self::Stopping { process: *process, kill_at: *kill_at },
            State::Killing { run, .. } => Self::Killing { run: *run },
            State::CleaningUp { run, ending, .. } => Self::CleaningUp { run: *run, ending: ending.clone() },
            State::Ended { run, ending } => Self::Ended { run: *run, ending: ending.clone() },
            State::GivenUp { run, ending, why } => {
                Self::GivenUp { run: *run, ending: ending.clone(), why: *why }
            }
            State::Removing { .. } => Self::Removing,
        }
    }
}

/// What was found of [`Phase::living_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It is still being made; a `Started` or `StartFailed` will come.
    Starting,
    /// It lives; an `Exited` will come.
    Alive {
        /// Its first process in the host's pid namespace.
        pid: u32,
        /// When it started, for a start that nobody saw.
        started: Stamp,
        /// Its processes are frozen.
        frozen: bool,
    },
    /// It left an exit record.
    Exited(crate::Exit),
    /// Nothing of it: no process, no record, and nobody who could still make one. Also the answer where there
    /// was no run to look for.
    Nothing {
        /// Now.
        at: Stamp,
    },
    /// Likewise, since the host has been started anew.
    Rebooted {
        /// Now.
        at: Stamp,
    },
}
