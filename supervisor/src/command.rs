//! What can be asked for, and why it may be refused.

use crate::{Id, Name, Signal, Spec};
use std::time::Duration;

/// A wish. It is about the future: that it was accepted does not mean that it has come true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Define a container.
    Create {
        /// Chosen by the caller.
        id: Id,
        /// What decisions depend on.
        spec: Spec,
    },
    /// Define a container and start it.
    Run {
        /// Chosen by the caller.
        id: Id,
        /// What decisions depend on.
        spec: Spec,
    },
    /// Have a run, if there is none.
    Start {
        /// Of whom.
        id: Id,
    },
    /// Have no run: stop signal, grace, then everything is killed.
    Stop {
        /// Of whom.
        id: Id,
        /// Instead of the definition's. One that ends sooner shortens a stop under way.
        grace: Option<Duration>,
    },
    /// [`Command::Stop`] for all at once: who requires others stops before them.
    StopAll {
        /// As in [`Command::Stop`].
        grace: Option<Duration>,
    },
    /// Forget earlier failures: one that was given up is merely ended, and back-off begins anew.
    ResetFailed {
        /// Of whom.
        id: Id,
    },
    /// Send a signal to the first process. SIGKILL ends everything, and no run is wanted any more.
    Kill {
        /// Of whom.
        id: Id,
        /// Which.
        signal: Signal,
    },
    /// End the run, if there is one, and have another.
    Restart {
        /// Of whom.
        id: Id,
        /// As in [`Command::Stop`].
        grace: Option<Duration>,
    },
    /// Freeze every process.
    Pause {
        /// Of whom.
        id: Id,
    },
    /// Let them go on.
    Unpause {
        /// Of whom.
        id: Id,
    },
    /// The limits in the definition are to change; the caller keeps the new ones at hand until
    /// [`crate::Change::Updated`] or its own failure to apply them.
    Update {
        /// Of whom.
        id: Id,
    },
    /// Leave nothing of it.
    Remove {
        /// Of whom.
        id: Id,
        /// Kill a run instead of refusing.
        force: bool,
    },
}

impl Command {
    /// Whom it is about, if it is about one.
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Create { id, .. }
            | Self::Run { id, .. }
            | Self::Start { id }
            | Self::Stop { id, .. }
            | Self::ResetFailed { id }
            | Self::Kill { id, .. }
            | Self::Restart { id, .. }
            | Self::Pause { id }
            | Self::Unpause { id }
            | Self::Update { id }
            | Self::Remove { id, .. } => Some(*id),
            Self::StopAll { .. } => None,
        }
    }
}

/// What an accepted command means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It will come true; announcements say when.
    Underway,
    /// It is true already; nothing happens.
    Already,
}

/// Why a command was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Another container has the name.
    #[error("name: {name} belongs to container {holder}; choose another, or remove that container first")]
    NameTaken {
        /// The name.
        name: Name,
        /// Who has it.
        holder: Id,
    },
    /// There is a container with this id.
    #[error("id: container {0} exists already")]
    IdTaken(Id),
    /// Nobody has this id, name or beginning of an id.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// Several ids begin like this.
    #[error("{reference} is the beginning of {count} container ids; give more digits")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// How many it could be.
        count: usize,
    },
    /// It takes a run, and there is none.
    #[error("container {name} is not running (it is {state})")]
    NotRunning {
        /// Whose.
        name: Name,
        /// What it is instead, as [`crate::State::name`] says it.
        state: &'static str,
    },
    /// It takes that there is no run.
    #[error("container {name} is {state}; stop it first, or remove it by force")]
    Running {
        /// Whose.
        name: Name,
        /// As [`crate::State::name`] says it.
        state: &'static str,
    },
    /// What a start begins with is settled, and there is no cgroup yet.
    #[error("container {0} is starting; its limits can be changed when it runs")]
    Starting(Name),
    /// A start would change nothing while it is frozen.
    #[error("container {0} is paused; unpause it instead")]
    Paused(Name),
    /// It has been started too often lately.
    #[error("container {name}: {why}")]
    StartLimit {
        /// Whose.
        name: Name,
        /// Which limit.
        why: crate::GaveUp,
    },
    /// It requires somebody who does not exist.
    #[error("requires: there is no container {0}; create it first")]
    UnknownRequirement(Name),
    /// It would require itself in the end.
    #[error("requires: {} would never start: each waits for the next; leave one of these out", .0.iter().map(Name::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<Name>),
    /// Others require it.
    #[error("container {name} is required by {by}; remove that first, or remove this one by force")]
    Required {
        /// Whose removal was asked for.
        name: Name,
        /// Who requires it.
        by: Name,
    },
    /// It will be gone in a moment.
    #[error("container {0} is being removed")]
    BeingRemoved(Name),
}
