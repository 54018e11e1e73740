//! What happened out there.

use crate::{Id, ProbeKind, ProbeResult, Run, Signal, Stamp};
use std::time::Duration;

/// Something that happened. It cannot be refused, but one about a run that is over is dropped. Saying a fact
/// twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The definition could not be made durable, so the [`crate::Command::Create`] or
    /// [`crate::Command::Run`] is void.
    CreateFailed {
        /// Of whom.
        id: Id,
    },
    /// The run's first process has been executed.
    Started {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// In the host's pid namespace; for display.
        pid: u32,
        /// When.
        at: Stamp,
    },
    /// There is no process of this run, and there will be none.
    StartFailed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// Why.
        failure: Failure,
    },
    /// The run's first process has ended. Also when nobody can say how: [`ExitStatus::Unknown`].
    Exited {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// How.
        exit: Exit,
    },
    /// The kernel killed a process of the run for want of memory.
    Oom {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// A probe has been carried out.
    Probed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// Which of its probes.
        kind: ProbeKind,
        /// What came of it.
        result: ProbeResult,
    },
    /// A hook has been carried out.
    HookEnded {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// Which of its hooks.
        hook: Hook,
        /// Why it failed, if it did: a sentence for people.
        failure: Option<String>,
    },
    /// The container has told something of itself (sd_notify).
    Notified {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// What.
        notification: Notification,
    },
    /// Every process of the run is frozen. This and `Thawed` say how things are, whoever brought it about, so
    /// the last one counts: those of one run are told in the order in which they happened.
    Frozen {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Freezing did not work, or not for all.
    FreezeFailed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// A sentence for people.
        reason: String,
    },
    /// Every process of the run goes on.
    Thawed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Thawing did not work.
    ThawFailed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// A sentence for people.
        reason: String,
    },
    /// The new limits are in force, so the definition may say so. Not bound to a run: what was accepted is
    /// kept even if the run has ended in the meantime.
    Limited {
        /// Of whom.
        id: Id,
    },
    /// Nothing of the run is left but its logs: no process, cgroup, directory, mount.
    CleanedUp {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
    },
    /// Something of the run is left.
    CleanupFailed {
        /// Of whom.
        id: Id,
        /// Which.
        run: Run,
        /// A sentence for people.
        reason: String,
    },
    /// Nothing of the container is left, its definition included.
    Deleted {
        /// Of whom.
        id: Id,
    },
    /// Something of the container is left.
    DeleteFailed {
        /// Of whom.
        id: Id,
        /// A sentence for people.
        reason: String,
    },
}

impl Fact {
    /// Whom it is about.
    pub fn id(&self) -> Id {
        match self {
            Self::CreateFailed { id }
            | Self::Started { id, .. }
            | Self::StartFailed { id, .. }
            | Self::Exited { id, .. }
            | Self::Oom { id, .. }
            | Self::Probed { id, .. }
            | Self::HookEnded { id, .. }
            | Self::Notified { id, .. }
            | Self::Frozen { id, .. }
            | Self::FreezeFailed { id, .. }
            | Self::Thawed { id, .. }
            | Self::ThawFailed { id, .. }
            | Self::Limited { id }
            | Self::CleanedUp { id, .. }
            | Self::CleanupFailed { id, .. }
            | Self::Deleted { id }
            | Self::DeleteFailed { id, .. } => *id,
        }
    }

    /// Which run it is about; `None` when it is about the container.
    pub fn run(&self) -> Option<Run> {
        match self {
            Self::Started { run, .. }
            | Self::StartFailed { run, .. }
            | Self::Exited { run, .. }
            | Self::Oom { run, .. }
            | Self::Probed { run, .. }
            | Self::HookEnded { run, .. }
            | Self::Notified { run, .. }
            | Self::Frozen { run, .. }
            | Self::FreezeFailed { run, .. }
            | Self::Thawed { run, .. }
            | Self::ThawFailed { run, .. }
            | Self::CleanedUp { run, .. }
            | Self::CleanupFailed { run, .. } => Some(*run),
            Self::CreateFailed { .. }
            | Self::Limited { .. }
            | Self::Deleted { .. }
            | Self::DeleteFailed { .. } => None,
        }
    }
}

/// What is done around a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// After the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

impl Hook {
    /// As in a pod's `lifecycle`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostStart => "postStart",
            Self::PreStop => "preStop",
        }
    }
}

/// One message of sd_notify(3), as far as it is understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `RELOADING=1`: not ready until the next `READY=1`.
    pub reloading: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `STATUS=`
    pub status: Option<String>,
    /// `WATCHDOG=1`
    pub alive: bool,
    /// `WATCHDOG=trigger`: to be taken for dead.
    pub trigger: bool,
    /// `WATCHDOG_USEC=`: another period from now on.
    pub watchdog: Option<Duration>,
    /// `EXTEND_TIMEOUT_USEC=`: what is being waited for may take so much longer from now on.
    pub extend: Option<Duration>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// What its first process left behind.
    pub status: ExitStatus,
    /// The kernel killed a process of the run for want of memory.
    pub oom_killed: bool,
    /// When it ended; with [`ExitStatus::Unknown`], when that was noticed.
    pub at: Stamp,
}

impl Exit {
    /// As a shell shows it: the code, or 128 + the signal; nothing if nobody can say.
    pub fn code(&self) -> Option<i32> {
        match self.status {
            ExitStatus::Code(code) => Some(code.into()),
            ExitStatus::Signal(signal) => Some(128 + signal.number()),
            ExitStatus::Unknown => None,
        }
    }
}

/// What a process leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself.
    Code(u8),
    /// It was ended by a signal.
    Signal(Signal),
    /// Nobody was there to see it: the host went down, or the keeper was killed on a kernel that keeps no exit
    /// information.
    Unknown,
}

/// Why a run did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For exit codes and error names.
    pub kind: FailureKind,
    /// One sentence: what went wrong and what to do about it.
    pub message: String,
    /// When.
    pub at: Stamp,
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The command does not exist in the image.
    CommandNotFound,
    /// The command is there but cannot be executed.
    CommandNotExecutable,
    /// What was asked for does not fit this image or host.
    InvalidInput,
    /// The image tries something hostile.
    RefusedImage,
    /// The kernel or file system cannot do it.
    Unsupported,
    /// The intent to start could not be made durable.
    NotSaved,
    /// The daemon ended in the middle of the start, and nothing came of it.
    Interrupted,
    /// Everything else.
    Failed,
}

impl FailureKind {
    /// What `ctl run` ends with: 127, 126 or 125, as a docker user expects.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::CommandNotFound => 127,
            Self::CommandNotExecutable => 126,
            Self::InvalidInput
            | Self::RefusedImage
            | Self::Unsupported
            | Self::NotSaved
            | Self::Interrupted
            | Self::Failed => 125,
        }
    }
}
