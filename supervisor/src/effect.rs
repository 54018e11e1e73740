//! What is to be done, and what is to be told.

use crate::{GaveUp, Goal, Hold, Hook, Id, ProbeKind, Run, Saved, Settled, Signal, State, Time, Verdict};
use std::time::Duration;

/// Something to be done. Effects of one container are begun in the order in which they are handed out. All but
/// `Save` and `Announce` are only begun: the outcome comes back as a [`crate::Fact`]. One without outcome is
/// handed out again, so each must do no harm when it is carried out twice, or while the first is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this durable before the next effect is begun.
    ///
    /// If that fails, a `Create` or `Run` command is answered with the error and
    /// [`crate::Fact::CreateFailed`], and the rest of its effects is dropped. Otherwise it is tried again until
    /// it works, or a later one of the same container has; until then each [`Effect::Start`] is not begun but
    /// answered with [`crate::Fact::StartFailed`] ([`crate::FailureKind::NotSaved`]), and each
    /// [`Effect::Cleanup`] with [`crate::Fact::CleanupFailed`]: it would remove the only record of the exit.
    /// Everything else goes on.
    Save {
        /// Of whom.
        id: Id,
        /// What a later [`crate::Supervisor::adopt`] needs.
        saved: Saved,
    },
    /// Make and start a run. Outcome: `Started` or `StartFailed`; after `Started`, some day, `Exited`.
    Start {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Send a signal to the first process, through its pidfd. No outcome.
    Signal {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// The signal.
        signal: Signal,
    },
    /// End everything of the run with SIGKILL, frozen or not; also one that is still being made. Outcome:
    /// `Exited`, or `StartFailed` for one that never ran; said once more if it was over already.
    Kill {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Outcome: `Frozen` or `FreezeFailed`.
    Freeze {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Outcome: `Thawed` or `ThawFailed`.
    Thaw {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Apply the limits that came with [`crate::Command::Update`] to the run. Outcome: `Limited`, or nothing.
    Limit {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Carry out a probe of the run, and end it with all it has started when the time is over. Outcome: `Probed`,
    /// or nothing once the run is over.
    Probe {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// Which of its probes.
        kind: ProbeKind,
        /// How long it may take.
        timeout: Duration,
    },
    /// Carry out a hook of the run. Outcome: `HookEnded`, or nothing once the run is over. It may be left alone
    /// when its time is over, and is ended with the run at the latest.
    Hook {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// Which of its hooks.
        hook: Hook,
        /// How long it may take.
        timeout: Duration,
    },
    /// Remove what is left of a run that is over: processes, cgroup, directories, its exit record. Not its
    /// logs. Outcome: `CleanedUp` or `CleanupFailed`.
    Cleanup {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Remove everything of the container: logs, root file system, and in the end what was saved. Outcome:
    /// `Deleted` or `DeleteFailed`.
    Delete {
        /// Of whom.
        id: Id,
    },
    /// Tell the world.
    Announce {
        /// Of whom.
        id: Id,
        /// What is new.
        change: Change,
    },
}

impl Effect {
    /// Whom it is about.
    pub fn id(&self) -> Id {
        match self {
            Self::Save { id, .. }
            | Self::Start { id, .. }
            | Self::Signal { id, .. }
            | Self::Kill { id, .. }
            | Self::Freeze { id, .. }
            | Self::Thaw { id, .. }
            | Self::Limit { id, .. }
            | Self::Probe { id, .. }
            | Self::Hook { id, .. }
            | Self::Cleanup { id, .. }
            | Self::Delete { id }
            | Self::Announce { id, .. } => *id,
        }
    }
}

/// What is new with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It exists: just created, or adopted.
    Added,
    /// It has another goal.
    Goal(Goal),
    /// It has entered another state.
    State(State),
    /// The kernel killed a process of this run for want of memory.
    Oom(Run),
    /// Its definition has changed.
    Updated,
    /// The run was not there in time, and is killed.
    StartTimedOut(Run),
    /// It has become ready, or has ceased to be.
    Ready(bool),
    /// A probe has come to another result.
    Probe(Settled),
    /// The run is ended for this, to be followed by another if the restart policy says so.
    Unhealthy(Verdict),
    /// It is going to be started again.
    Restarting {
        /// Not before.
        at: Time,
        /// How long after the end of the run before.
        delay: Duration,
        /// How many restarts this makes since somebody started it by hand.
        count: u32,
    },
    /// It may not be started yet for this reason.
    Held(Hold),
    /// It is not started again.
    GaveUp(GaveUp),
    /// What it says of itself (sd_notify `STATUS=`).
    Status(String),
    /// A hook failed.
    HookFailed {
        /// Which.
        hook: Hook,
        /// A sentence for people.
        reason: String,
    },
    /// It is to go on running: freezing failed.
    PauseFailed {
        /// A sentence for people.
        reason: String,
    },
    /// A step failed, and will be tried again. Someone should look at it.
    StepFailed {
        /// Which step.
        step: Step,
        /// Which attempt this was, counted from 1.
        attempt: u32,
        /// A sentence for people.
        reason: String,
    },
    /// A step failed, or nothing was heard of it for long; it is tried again now.
    Retrying {
        /// Which step.
        step: Step,
        /// Which attempt this is: 2 or more.
        attempt: u32,
    },
    /// It is gone; the name is free.
    Removed,
}

/// A step that is repeated until it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// [`Effect::Thaw`]
    Thaw,
    /// [`Effect::Kill`]
    Kill,
    /// [`Effect::Cleanup`]
    Cleanup,
    /// [`Effect::Delete`]
    Delete,
}
