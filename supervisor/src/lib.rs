//! Decides what should happen to containers, and nothing else.
//!
//! ```text
//!   Command ──► goal ─┐                        ┌─► Effect::Save      (always first)
//!   Fact ─────► state ┼─► converge(now) ───────┼─► Effect::Start, Signal, Kill, Cleanup …
//!   tick(now) ────────┘                        └─► Effect::Announce
//! ```
//!
//! A [`Command`] changes a container's [`Goal`] and can be refused with a [`Rejection`]. A [`Fact`] says what
//! happened and cannot be refused; one about an earlier [`Run`] is dropped. Whatever came in, goal and state
//! are compared in one place, and what follows is handed out as [`Effect`]s, to be carried out in order.
//!
//! There is no clock, no chance, no file, no task here: time is an argument, and everything else is somebody
//! else's business. Who drives a [`Supervisor`] does, for ever:
//!
//! 1. wait for a command, a fact, or [`Supervisor::next_deadline`];
//! 2. call [`Supervisor::command`], [`Supervisor::fact`] or [`Supervisor::tick`] with the time;
//! 3. carry out [`Supervisor::effects`], without waiting for container work: its outcome comes back as a fact.

mod command;
mod container;
mod effect;
mod fact;
mod identity;
mod probe;
mod restart;
mod saved;
mod spec;
mod state;
mod supervisor;
mod time;
#[cfg(test)]
mod transitions;
mod vitals;

pub use command::{Accepted, Command, Rejection};
pub use container::Container;
pub use effect::{Change, Effect, Step};
pub use fact::{Exit, ExitStatus, Fact, Failure, FailureKind, Hook, Notification};
pub use identity::{BadId, BadName, Id, Name, Run};
pub use probe::{
    BadProbe, Check, Health, HealthStatus, Probe, ProbeKind, ProbeResult, Probes, SavedHealth, SavedProbe,
    Settled,
};
pub use restart::{
    Attempts, BackOff, BadRestart, Codes, Decision, ExitRule, GaveUp, Growth, Policy, Preset, Reset, Restart,
    Restarts, RuleAction, RunEnd, StartLimit,
};
pub use saved::{Observed, Phase, Saved};
pub use spec::{BadSignal, Condition, Hooks, Notify, Requirement, Signal, Spec, Stop};
pub use state::{Ending, Goal, Hold, Last, Process, State, Wait};
pub use supervisor::{Limits, Supervisor};
pub use time::{Stamp, Time};
pub use vitals::{SavedVitals, Verdict, Vitals};
