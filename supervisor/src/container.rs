//! One container: goal, state, and the one place where they are compared.

use crate::{
    Accepted, Change, Condition, Decision, Effect, Ending, Exit, ExitStatus, Fact, Failure, FailureKind,
    Goal, Hold, Hook, Id, Last, Notification, Observed, Phase, Policy, ProbeKind, ProbeResult, Process,
    Rejection, Restarts, Run, RunEnd, Saved, Signal, Spec, Stamp, State, Step, Time, Verdict, Vitals, Wait,
};
use std::time::Duration;

/// A start that takes longer is stuck in the kernel or on a dead file system. Generous, because a host that
/// boots starts hundreds at once.
const START_LIMIT: Duration = Duration::from_secs(120);
/// SIGKILL works within milliseconds unless a process hangs in the kernel; then nothing but trying again, and
/// saying so, is left.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Freezing takes one scheduler tick per process, unless one hangs in the kernel.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Removing a root file system of many files takes its time; what takes longer is asked for again.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);
/// For a hook after the start, which could otherwise keep a container from ever being ready without a word.
const POST_START_LIMIT: Duration = START_LIMIT;
/// What is left for the stop signal, however long the hook before it took; the kubelet's minimum.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// The first delay after a step that failed; doubled each time up to [`REMOVAL_LIMIT`].
const RETRY: Duration = Duration::from_secs(1);

/// One container, to be looked at. What changes it are the methods of [`crate::Supervisor`].
#[derive(Debug)]
pub struct Container {
    id: Id,
    spec: Spec,
    goal: Goal,
    state: State,
    started: Option<Stamp>,
    /// Of the last run that started.
    vitals: Vitals,
    /// The hook after the start went with an earlier supervisor, and cannot be carried out while all is frozen.
    hook_due: bool,
    restarts: Restarts,
    gate: Gate,
    /// What was last handed out with [`Effect::Save`], so that only what is new is saved.
    saved: Option<Saved>,
    outbox: Vec<Effect>,
}

/// What the rest of the host has to say at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Why it may not start: somebody it requires.
    pub requires: Option<Hold>,
    /// As many as may are being started.
    pub starts_taken: bool,
    /// When the host allows the next restart.
    pub restart_at: Time,
    /// Somebody that requires it is being stopped, and comes first.
    pub must_yield: bool,
    /// A restart has been begun, or is to be at `restart_at`: it counts.
    pub restart_taken: bool,
}

/// What others depend on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    goal_up: bool,
    alive: bool,
    started: Option<Time>,
    healthy: bool,
    ready: bool,
    completed: bool,
    state: &'static str,
}

/// What everybody may know.
impl Container {
    /// Its identity.
    pub fn id(&self) -> Id {
        self.id
    }

    /// What decisions depend on.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What is wanted of it.
    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// What it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When the last run started, if it did.
    pub fn started(&self) -> Option<Stamp> {
        self.started
    }

    /// How the last run that started is, or was.
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// It runs, and says that it can be used.
    pub fn is_ready(&self) -> bool {
        self.vitals.is_ready()
    }

    /// What is remembered of earlier restarts.
    pub fn restarts(&self) -> &Restarts {
        &self.restarts
    }

    /// Nothing is under way: what is wanted is what is, as far as it can be.
    pub fn is_settled(&self) -> bool {
        match (&self.goal, &self.state) {
            (Goal::Up { paused: false, .. }, State::Running { .. })
            | (Goal::Up { paused: true, .. }, State::Paused { .. })
            | (Goal::Down, State::Created | State::Ended { .. } | State::GivenUp { .. }) => true,
            (Goal::Up { .. } | Goal::Down | Goal::Removed, _) => false,
        }
    }
}

/// Commands: each checks whether it can be, changes the goal, and has the rest follow from it.
impl Container {
    pub(crate) fn new(id: Id, spec: Spec) -> Self {
        let vitals = Vitals::new(&spec, Time::default(), Time::default(), None);
        Self {
            id,
            spec,
            goal: Goal::Down,
            state: State::Created,
            started: None,
            vitals,
            hook_due: false,
            restarts: Restarts::default(),
            gate: Gate::default(),
            saved: None,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, now: Time) -> Result<Accepted, Rejection> {
        match self.goal {
            Goal::Removed => Err(self.being_removed()),
            Goal::Up { paused: true, .. } if !self.ends_as_last() => {
                Err(Rejection::Paused(self.spec.name.clone()))
            }
            Goal::Up { paused: false, .. } if !self.ends_as_last() => Ok(self.hurry(now)),
            Goal::Up { .. } | Goal::Down => {
                // It counts when it begins; here it is only whether it may.
                let may = self.restarts.clone().started(&self.spec.restart, now);
                may.map_err(|why| Rejection::StartLimit { name: self.spec.name.clone(), why })?;
                self.restarts.reset();
                self.aim(Goal::Up { run: self.next_run(), paused: false });
                self.converge(now, None);
                Ok(Accepted::Underway)
            }
        }
    }

    /// Whoever asks for a start does not want to wait for the back-off.
    fn hurry(&mut self, now: Time) -> Accepted {
        if let State::Waiting { last, start_at, wait: Wait::BackOff { .. }, .. } = &self.state
            && *start_at > now
        {
            let last = last.clone();
            self.restarts.reset();
            self.enter(State::Waiting { last, start_at: now, wait: Wait::Asked, hold: None });
            self.converge(now, None);
            return Accepted::Underway;
        }
        Accepted::Already
    }

    /// Stop as soon as the others that require it have stopped; what of them is to stop is decided already.
    pub(crate) fn stop(&mut self, now: Time, grace: Option<Duration>) -> Result<Accepted, Rejection> {
        match self.goal {
            Goal::Removed => return Err(self.being_removed()),
            // One that waits has been told to by `intend_to_stop`, and has to give up its place.
            Goal::Down if !self.is_alive() && !matches!(self.state, State::Waiting { .. }) => {
                return Ok(Accepted::Already);
            }
            Goal::Down | Goal::Up { .. } => {}
        }
        self.aim(Goal::Down);
        self.converge(now, Some(grace.unwrap_or(self.spec.stop.grace)));
        Ok(Accepted::Underway)
    }

    /// The first half of stopping many: so that each sees of the others that they are to stop.
    pub(crate) fn intend_to_stop(&mut self) {
        if let Goal::Up { .. } = self.goal {
            self.aim(Goal::Down);
        }
    }

    pub(crate) fn reset_failed(&mut self, now: Time) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Err(self.being_removed());
        }
        let before = self.restarts.clone();
        self.restarts.reset();
        self.restarts.forget();
        if let State::GivenUp { run, ending, .. } = &self.state {
            self.enter(State::Ended { run: *run, ending: ending.clone() });
            self.converge(now, None);
            return Ok(Accepted::Underway);
        }
        Ok(if before == self.restarts { Accepted::Already } else { Accepted::Underway })
    }

    pub(crate) fn restart(&mut self, now: Time, grace: Option<Duration>) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Err(self.being_removed());
        }
        self.restarts.reset();
        self.renew(now, Some(grace.unwrap_or(self.spec.stop.grace)));
        Ok(Accepted::Underway)
    }

    /// Somebody who requires it is to start.
    pub(crate) fn start_as_required(&mut self, now: Time) -> Result<Accepted, Rejection> {
        match self.goal {
            // Its back-off has its reasons.
            Goal::Up { .. } => Ok(Accepted::Already),
            Goal::Down | Goal::Removed => self.start(now),
        }
    }

    /// It runs since before `started`, and is to be restarted with that container.
    pub(crate) fn is_older_than(&self, name: &crate::Name, started: Time) -> bool {
        let with = |requirement: &crate::Requirement| requirement.restart_with && requirement.name == *name;
        matches!(self.goal, Goal::Up { run, .. } if self.state.run() == Some(run))
            && self.state.process().is_some()
            && self.started.is_some_and(|own| own.boot < started)
            && self.spec.requires.iter().any(with)
    }

    /// Somebody that it is to be restarted with has started anew.
    pub(crate) fn restart_with(&mut self, now: Time) {
        self.renew(now, None);
    }

    /// Without a grace, a stop under way keeps its own.
    fn renew(&mut self, now: Time, grace: Option<Duration>) {
        // What waits has no run to be ended.
        if let State::Waiting { .. } = self.state {
            self.hurry(now);
            return;
        }
        self.aim(Goal::Up { run: self.next_run(), paused: false });
        self.converge(now, grace);
    }

    pub(crate) fn kill(&mut self, now: Time, signal: Signal) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Err(self.being_removed());
        }
        if signal == Signal::KILL && self.is_alive() {
            self.aim(Goal::Down);
            self.kill_now(now);
            self.converge(now, None);
            return Ok(Accepted::Underway);
        }
        let run = self.state.process().ok_or_else(|| self.not_running())?.run;
        self.emit(Effect::Signal { id: self.id, run, signal });
        Ok(Accepted::Underway)
    }

    pub(crate) fn pause(&mut self, now: Time) -> Result<Accepted, Rejection> {
        self.aim_paused(now, true)
    }

    pub(crate) fn unpause(&mut self, now: Time) -> Result<Accepted, Rejection> {
        self.aim_paused(now, false)
    }

    fn aim_paused(&mut self, now: Time, wanted: bool) -> Result<Accepted, Rejection> {
        match self.goal {
            Goal::Removed => Err(self.being_removed()),
            Goal::Up { run, paused } if self.state.run() == Some(run) && !self.ends_as_last() => {
                if paused == wanted {
                    return Ok(Accepted::Already);
                }
                self.aim(Goal::Up { run, paused: wanted });
                self.converge(now, None);
                Ok(Accepted::Underway)
            }
            Goal::Up { .. } | Goal::Down => Err(self.not_running()),
        }
    }

    pub(crate) fn update(&mut self) -> Result<Accepted, Rejection> {
        match (self.goal, &self.state) {
            (Goal::Removed, _) => return Err(self.being_removed()),
            (_, State::Starting { .. } | State::Canceling { .. }) => {
                return Err(Rejection::Starting(self.spec.name.clone()));
            }
            (
                Goal::Up { .. } | Goal::Down,
                State::Running { process }
                | State::Pausing { process, .. }
                | State::Paused { process }
                | State::Resuming { process, .. }
                | State::Yielding { process, .. }
                | State::Stopping { process, .. },
            ) => self.outbox.push(Effect::Limit { id: self.id, run: process.run }),
            (
                Goal::Up { .. } | Goal::Down,
                State::Created
                | State::Waiting { .. }
                | State::Killing { .. }
                | State::CleaningUp { .. }
                | State::Ended { .. }
                | State::GivenUp { .. }
                | State::Removing { .. },
            ) => self.updated(),
        }
        Ok(Accepted::Underway)
    }

    pub(crate) fn remove(&mut self, now: Time, force: bool) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Ok(Accepted::Already);
        }
        if !force && (self.is_alive() || matches!(self.goal, Goal::Up { .. })) {
            return Err(Rejection::Running { name: self.spec.name.clone(), state: self.state.name() });
        }
        self.aim(Goal::Removed);
        self.converge(now, None);
        Ok(Accepted::Underway)
    }

    fn being_removed(&self) -> Rejection {
        Rejection::BeingRemoved(self.spec.name.clone())
    }

    fn not_running(&self) -> Rejection {
        Rejection::NotRunning { name: self.spec.name.clone(), state: self.state.name() }
    }

    fn next_run(&self) -> Run {
        self.state.run().map_or(Run::FIRST, Run::next)
    }

    /// A run ends that was wanted, and only the restart policy could want another.
    fn ends_as_last(&self) -> bool {
        let ends = matches!(
            self.state,
            State::Stopping { .. } | State::Killing { .. } | State::CleaningUp { .. } | State::Ended { .. }
        );
        ends && !self.wants_another_run()
    }

    /// There is, or may be, a process.
    pub(crate) fn is_alive(&self) -> bool {
        match self.state {
            State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => true,
            State::Created
            | State::Waiting { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => false,
        }
    }
}

/// Facts: each moves the state to what is true now, and has the rest follow from it. Facts about earlier runs
/// do not come here.
impl Container {
    pub(crate) fn fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::CreateFailed { .. } => self.create_failed(now),
            Fact::Started { run, pid, at, .. } => self.has_started(now, Process { run, pid }, at),
            Fact::StartFailed { run, failure, .. } => self.start_failed(now, run, failure),
            Fact::Exited { run, exit, .. } => self.exited(now, run, exit),
            Fact::Oom { run, .. } => self.announce(Change::Oom(run)),
            Fact::Probed { kind, result, .. } => self.probed(now, kind, result),
            Fact::HookEnded { hook, failure, .. } => self.hook_ended(now, hook, failure),
            Fact::Notified { notification, .. } => self.notified(now, &notification),
            Fact::Frozen { run, .. } => self.frozen(run),
            Fact::FreezeFailed { reason, .. } => self.freeze_failed(now, reason),
            Fact::Thawed { .. } => self.thawed(now),
            Fact::ThawFailed { reason, .. } => self.thaw_failed(now, reason),
            Fact::Limited { .. } => self.updated(),
            Fact::CleanedUp { .. } => self.cleaned_up(),
            Fact::CleanupFailed { reason, .. } => self.cleanup_failed(now, reason),
            Fact::Deleted { .. } => {}
            Fact::DeleteFailed { reason, .. } => self.delete_failed(now, reason),
        }
        self.converge(now, None);
    }
}

impl Container {
    /// Only what nobody has begun to act on can be void.
    fn create_failed(&mut self, now: Time) {
        if matches!(
            self.state,
            State::Created | State::Waiting { last: None, .. } | State::Starting { run: Run::FIRST, .. }
        ) {
            self.aim(Goal::Removed);
            self.delete(now);
            // Nothing was saved, so there is no intent to keep either.
            self.saved = Some(self.to_save());
        }
    }

    fn has_started(&mut self, now: Time, process: Process, at: Stamp) {
        match self.state {
            State::Starting { .. } => {
                self.live(now, at);
                self.enter(State::Running { process });
                self.begin_post_start(process.run);
            }
            State::Canceling { kill_at, .. } => {
                self.live(now, at);
                self.signal_stop(process, kill_at);
            }
            // The kill may have come before there was anything to kill.
            State::Killing { run, .. } => {
                if self.started.is_none() {
                    self.live(now, at);
                }
                self.emit(Effect::Kill { id: self.id, run });
            }
            State::Created
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    /// The news may have taken their time: what it has to do in time counts from now.
    fn live(&mut self, now: Time, at: Stamp) {
        self.started = Some(at);
        let post_start = self.spec.hooks.post_start.then(|| now + POST_START_LIMIT);
        self.vitals = Vitals::new(&self.spec, at.boot, now, post_start);
    }

    fn begin_post_start(&mut self, run: Run) {
        if self.spec.hooks.post_start {
            let timeout = POST_START_LIMIT;
            self.emit(Effect::Hook { id: self.id, run, hook: Hook::PostStart, timeout });
        }
    }

    fn start_failed(&mut self, now: Time, run: Run, failure: Failure) {
        match self.state {
            State::Starting { .. } | State::Canceling { .. } | State::Killing { .. } => {
                self.clean_up(now, run, Ending::Failed(failure));
            }
            State::Created
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    fn exited(&mut self, now: Time, run: Run, exit: Exit) {
        if self.is_alive() {
            self.clean_up(now, run, Ending::Exited(exit));
        }
    }

    fn probed(&mut self, now: Time, kind: ProbeKind, result: ProbeResult) {
        if let State::Running { .. } = self.state
            && let Some(settled) = self.vitals.health_mut().probed(&self.spec.probes, now, kind, result)
        {
            self.announce(Change::Probe(settled));
        }
    }

    fn hook_ended(&mut self, now: Time, hook: Hook, failure: Option<String>) {
        let awaited = match (hook, &self.state) {
            (Hook::PostStart, state) => state.process().is_some() && self.vitals.awaits_post_start(),
            (Hook::PreStop, State::Stopping { hook, .. }) => *hook,
            (Hook::PreStop, _) => false,
        };
        if !awaited {
            return;
        }
        let failed = failure.is_some();
        if let Some(reason) = failure {
            self.announce(Change::HookFailed { hook, reason });
        }
        match (hook, &self.state) {
            (Hook::PreStop, State::Stopping { process, kill_at, .. }) => {
                self.signal_after_hook(now, *process, *kill_at);
            }
            (Hook::PostStart | Hook::PreStop, _) => self.vitals.post_start_ended(failed),
        }
    }

    fn signal_after_hook(&mut self, now: Time, process: Process, kill_at: Time) {
        self.signal_stop(process, kill_at.max(now + LEAST_GRACE));
    }

    fn notified(&mut self, now: Time, notification: &Notification) {
        if self.state.process().is_none() {
            return;
        }
        if let Some(status) = &notification.status
            && status != self.vitals.status()
        {
            self.announce(Change::Status(status.clone()));
        }
        self.vitals.notified(now, notification);
        if let (State::Stopping { process, kill_at, hook }, Some(longer)) = (&self.state, notification.extend)
        {
            let (process, kill_at, hook) = (*process, (*kill_at).max(now + longer), *hook);
            self.enter(State::Stopping { process, kill_at, hook });
        }
    }

    /// Also when it comes late: what is frozen against the goal is found here, and thawed.
    fn frozen(&mut self, run: Run) {
        match self.state {
            State::Running { process } | State::Pausing { process, .. } => {
                self.vitals.suspend();
                self.enter(State::Paused { process })
            }
            State::Resuming { .. } | State::Stopping { .. } => self.emit(Effect::Thaw { id: self.id, run }),
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Paused { .. }
            | State::Yielding { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    /// Some of it may be frozen, and all of it is if it was still to be thawed: thawing settles both.
    fn freeze_failed(&mut self, now: Time, reason: String) {
        if let State::Pausing { process, .. } = self.state {
            self.aim(Goal::Up { run: process.run, paused: false });
            self.announce(Change::PauseFailed { reason });
            self.thaw(now, process);
        }
    }

    /// Also when it comes late: what runs against the goal is found here, and frozen.
    fn thawed(&mut self, now: Time) {
        match self.state {
            State::Paused { process } | State::Resuming { process, .. } => {
                self.vitals.resume(now, now + POST_START_LIMIT);
                self.enter(State::Running { process });
                if std::mem::take(&mut self.hook_due) {
                    self.begin_post_start(process.run);
                }
            }
            State::Pausing { process, .. } => self.emit(Effect::Freeze { id: self.id, run: process.run }),
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    fn thaw_failed(&mut self, now: Time, reason: String) {
        if let State::Resuming { process, attempt, .. } = self.state {
            self.announce(Change::StepFailed { step: Step::Thaw, attempt, reason });
            self.enter(State::Resuming { process, attempt, again_at: now + pause_after(attempt) });
        }
    }

    fn cleaned_up(&mut self) {
        if let State::CleaningUp { run, ending, .. } = &self.state {
            self.enter(State::Ended { run: *run, ending: ending.clone() });
        }
    }

    fn cleanup_failed(&mut self, now: Time, reason: String) {
        if let State::CleaningUp { run, ending, attempt, .. } = &self.state {
            let (run, ending, attempt) = (*run, ending.clone(), *attempt);
            self.announce(Change::StepFailed { step: Step::Cleanup, attempt, reason });
            self.enter(State::CleaningUp { run, ending, attempt, again_at: now + pause_after(attempt) });
        }
    }

    fn delete_failed(&mut self, now: Time, reason: String) {
        if let State::Removing { attempt, .. } = self.state {
            self.announce(Change::StepFailed { step: Step::Delete, attempt, reason });
            self.enter(State::Removing { attempt, again_at: now + pause_after(attempt) });
        }
    }

    /// Not of one that is being removed: saving it then could bring it back.
    fn updated(&mut self) {
        if self.goal != Goal::Removed {
            // Not a word of it is new here, but the definition that is saved along with it is.
            self.saved = None;
            self.announce(Change::Updated);
        }
    }
}

/// How long to wait after this many attempts have failed.
fn pause_after(attempt: u32) -> Duration {
    RETRY.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(REMOVAL_LIMIT)
}

/// Time: what the state waited for has not happened.
impl Container {
    pub(crate) fn overdue(&mut self, now: Time) {
        match &self.state {
            State::Running { process } => {
                let run = process.run;
                self.probe(now, run);
            }
            State::Starting { run, .. } => {
                let run = *run;
                self.announce(Change::StartTimedOut(run));
                self.kill_all(now, run);
            }
            State::Canceling { run, .. } => self.kill_all(now, *run),
            State::Stopping { process, kill_at, hook: true } => {
                let reason = "it was still at work when the grace was over".to_owned();
                let (process, kill_at) = (*process, *kill_at);
                self.announce(Change::HookFailed { hook: Hook::PreStop, reason });
                self.signal_after_hook(now, process, kill_at);
            }
            State::Stopping { process, hook: false, .. } => self.kill_all(now, process.run),
            State::Pausing { .. } => self.freeze_failed(
                now,
                format!("the processes did not freeze within {} s", FREEZE_LIMIT.as_secs()),
            ),
            State::Resuming { process, attempt, .. } => {
                let (process, attempt) = (*process, attempt + 1);
                self.announce(Change::Retrying { step: Step::Thaw, attempt });
                self.enter(State::Resuming { process, attempt, again_at: now + FREEZE_LIMIT });
                self.emit(Effect::Thaw { id: self.id, run: process.run });
            }
            State::Killing { run, attempt, .. } => {
                let (run, attempt) = (*run, attempt + 1);
                self.announce(Change::Retrying { step: Step::Kill, attempt });
                self.enter(State::Killing { run, attempt, again_at: now + KILL_LIMIT });
                self.emit(Effect::Kill { id: self.id, run });
            }
            State::CleaningUp { run, ending, attempt, .. } => {
                let (run, ending, attempt) = (*run, ending.clone(), attempt + 1);
                self.announce(Change::Retrying { step: Step::Cleanup, attempt });
                self.enter(State::CleaningUp { run, ending, attempt, again_at: now + REMOVAL_LIMIT });
                self.emit(Effect::Cleanup { id: self.id, run });
            }
            State::Removing { attempt, .. } => {
                let attempt = attempt + 1;
                self.announce(Change::Retrying { step: Step::Delete, attempt });
                self.enter(State::Removing { attempt, again_at: now + REMOVAL_LIMIT });
                self.emit(Effect::Delete { id: self.id });
            }
            // Compared with the goal it goes on.
            State::Waiting { .. } => {}
            State::Created
            | State::Paused { .. }
            | State::Yielding { .. }
            | State::Ended { .. }
            | State::GivenUp { .. } => {}
        }
        self.converge(now, None);
    }

    /// Deadlines of others, which could not meet them while the host was suspended. Its own can be now.
    pub(crate) fn slept(&mut self, slept: Duration) {
        match &mut self.state {
            State::Starting { give_up_at, .. } | State::Pausing { give_up_at, .. } => {
                *give_up_at = *give_up_at + slept;
            }
            State::Canceling { give_up_at, kill_at, .. } => {
                *give_up_at = *give_up_at + slept;
                *kill_at = *kill_at + slept;
            }
            State::Stopping { kill_at, .. } => *kill_at = *kill_at + slept,
            State::Created
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
        self.vitals.slept(slept);
    }

    /// When something has to be done if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        if let State::Running { .. } = self.state {
            return self.vitals.deadline().filter(|at| *at != Time::NEVER);
        }
        self.state.deadline()
    }

    fn probe(&mut self, now: Time, run: Run) {
        for kind in self.vitals.health_mut().due(&self.spec.probes, now) {
            if let Some(probe) = self.spec.probes.get(kind) {
                let timeout = probe.timeout;
                self.emit(Effect::Probe { id: self.id, run, kind, timeout });
            }
        }
    }
}

/// What others have to do with it.
impl Container {
    /// What the rest of the host has to say from now on.
    pub(crate) fn open(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Was one of the restarts taken that the host allows?
    pub(crate) fn has_taken_restart(&mut self) -> bool {
        std::mem::take(&mut self.gate.restart_taken)
    }

    /// Something about the others has changed.
    pub(crate) fn look_around(&mut self, now: Time) {
        self.converge(now, None);
    }

    pub(crate) fn outline(&self) -> Outline {
        Outline {
            goal_up: matches!(self.goal, Goal::Up { .. }),
            alive: self.is_alive(),
            started: self.state.process().and(self.started).map(|at| at.boot),
            healthy: self.is(Condition::Healthy),
            ready: self.is(Condition::Ready),
            completed: self.is(Condition::Completed),
            state: self.state.name(),
        }
    }

    /// Is it as somebody requires it?
    pub(crate) fn is(&self, condition: Condition) -> bool {
        let runs = match self.state {
            State::Running { .. } | State::Pausing { .. } | State::Paused { .. } | State::Resuming { .. } => {
                true
            }
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => false,
        };
        match condition {
            Condition::Started => runs,
            Condition::Healthy => runs && self.vitals.is_healthy(&self.spec.probes),
            Condition::Ready => runs && self.is_ready(),
            Condition::Completed => match self.state.ending() {
                Some(Ending::Exited(exit)) => exit.status == ExitStatus::Code(0),
                Some(Ending::Failed(_)) | None => false,
            },
        }
    }
}

/// After the end of an earlier supervisor.
impl Container {
    pub(crate) fn adopt(&mut self, now: Time, saved: Saved, observed: Observed) {
        self.announce_added();
        self.started = saved.started;
        self.aim(saved.goal);
        self.saved = Some(saved.clone());
        self.restarts = saved.restarts;
        let started_at = saved.started.map_or(now, |at| at.boot);
        let post_start = saved.vitals.post_start.then(|| now + POST_START_LIMIT);
        self.vitals = Vitals::restore(&self.spec, saved.vitals, started_at, now, post_start);
        let rebooted = matches!(observed, Observed::Rebooted { .. });
        if rebooted {
            // That the host went down is nothing that its containers did.
            self.restarts.reset();
        }
        match saved.phase {
            // What is to be removed is, as soon as goal and state are compared.
            Phase::Created | Phase::Removing => {}
            Phase::Waiting { last, start_at, wait } => {
                let start_at = if rebooted { now } else { start_at };
                self.enter(State::Waiting { last, start_at, wait, hold: None });
            }
            Phase::GivenUp { run, ending, why } => self.enter(State::GivenUp { run, ending, why }),
            Phase::Ended { run, ending } => self.enter(State::Ended { run, ending }),
            Phase::CleaningUp { run, ending } => self.clean_up(now, run, ending),
            Phase::Starting { run } => self.adopt_run(now, run, Begun::Start, observed),
            Phase::Running { process } => self.adopt_run(now, process.run, Begun::Start, observed),
            Phase::Canceling { run, kill_at } => self.adopt_run(now, run, Begun::Stop { kill_at }, observed),
            Phase::Stopping { process, kill_at } => {
                self.adopt_run(now, process.run, Begun::Stop { kill_at }, observed);
            }
            Phase::Killing { run } => self.adopt_run(now, run, Begun::Kill, observed),
        }
        // Docker's meaning of `always`: after a boot, even what somebody had stopped.
        let ran = self.state.run().is_some();
        if rebooted && ran && self.goal == Goal::Down && self.spec.restart.policy == Policy::Always {
            self.aim(Goal::Up { run: self.next_run(), paused: false });
        }
        self.converge(now, None);
    }

    fn adopt_run(&mut self, now: Time, run: Run, begun: Begun, observed: Observed) {
        match observed {
            Observed::Exited(exit) => self.clean_up(now, run, Ending::Exited(exit)),
            Observed::Nothing { at } | Observed::Rebooted { at } => {
                let ending = match self.started {
                    Some(_) => Ending::Exited(Exit { status: ExitStatus::Unknown, oom_killed: false, at }),
                    None => Ending::Failed(Failure {
                        kind: FailureKind::Interrupted,
                        message: "the daemon ended while the container was being started; start it again"
                            .to_owned(),
                        at,
                    }),
                };
                self.clean_up(now, run, ending);
            }
            Observed::Starting => {
                let give_up_at = now + START_LIMIT;
                match begun {
                    Begun::Start => self.enter(State::Starting { run, give_up_at }),
                    Begun::Stop { kill_at } if kill_at <= now => self.kill_all(now, run),
                    Begun::Stop { kill_at } => self.enter(State::Canceling { run, give_up_at, kill_at }),
                    Begun::Kill => self.kill_all(now, run),
                }
            }
            Observed::Alive { pid, started, frozen } => {
                let process = Process { run, pid };
                if self.started.is_none() {
                    self.live(now, started);
                }
                match begun {
                    Begun::Start if frozen => {
                        self.vitals.suspend();
                        self.enter(State::Paused { process });
                        self.hook_due = self.vitals.awaits_post_start();
                    }
                    Begun::Start => {
                        self.enter(State::Running { process });
                        if self.vitals.awaits_post_start() {
                            self.begin_post_start(run);
                        }
                    }
                    Begun::Stop { kill_at } if kill_at <= now => self.kill_all(now, run),
                    Begun::Stop { kill_at } => {
                        if frozen {
                            self.emit(Effect::Thaw { id: self.id, run });
                        }
                        // It may be the second signal, which a few programs take for impatience; none at
                        // all would be a kill without warning.
                        self.signal_stop(process, kill_at);
                    }
                    Begun::Kill => self.kill_all(now, run),
                }
            }
        }
    }
}

/// What an earlier supervisor was about to do with a run.
#[derive(Clone, Copy)]
enum Begun {
    Start,
    Stop { kill_at: Time },
    Kill,
}

/// Decisions.
impl Container {
    /// The one place where goal and state are compared. With a grace, a stop under way is shortened to it.
    fn converge(&mut self, now: Time, grace: Option<Duration>) {
        self.compare(now, grace);
        let lives = matches!((self.goal, &self.state), (Goal::Up { .. }, State::Running { .. }));
        if self.vitals.look(&self.spec, now, lives) {
            self.announce(Change::Ready(self.vitals.is_ready()));
        }
        if let (true, State::Running { process }, Some(verdict)) = (lives, &self.state, self.vitals.verdict())
        {
            let process = *process;
            self.announce(Change::Unhealthy(verdict));
            self.ask_to_stop(now, process, self.grace_after(verdict));
        }
    }

    fn compare(&mut self, now: Time, grace: Option<Duration>) {
        match (self.goal, &self.state) {
            (Goal::Up { .. }, State::Created) => self.wait(now, None),
            (
                Goal::Up { run: wanted, .. },
                State::Ended { run, ending } | State::GivenUp { run, ending, .. },
            ) if *run < wanted => {
                self.wait(now, Some(Last { run: *run, ending: ending.clone() }));
            }
            (Goal::Up { .. }, State::Waiting { start_at, .. }) if *start_at <= now => self.admit(now),
            (Goal::Down | Goal::Removed, State::Waiting { last, .. }) => {
                match last.clone() {
                    Some(Last { run, ending }) => self.enter(State::Ended { run, ending }),
                    None => self.enter(State::Created),
                }
                self.compare(now, grace);
            }

            (Goal::Up { run: wanted, .. }, State::Starting { run, .. }) if *run < wanted => {
                self.cancel(now, grace);
            }
            (Goal::Down, State::Starting { .. }) => self.cancel(now, grace),

            (
                Goal::Up { run: wanted, .. },
                State::Running { process }
                | State::Pausing { process, .. }
                | State::Paused { process }
                | State::Resuming { process, .. },
            ) if process.run < wanted => self.ask_to_stop(now, *process, grace),
            (
                Goal::Down,
                State::Running { process }
                | State::Pausing { process, .. }
                | State::Paused { process }
                | State::Resuming { process, .. },
            ) => self.ask_to_stop(now, *process, grace),

            (Goal::Up { paused: true, .. }, State::Running { process } | State::Resuming { process, .. }) => {
                self.freeze(now, *process);
            }
            (Goal::Up { paused: false, .. }, State::Paused { process } | State::Pausing { process, .. }) => {
                self.thaw(now, *process);
            }

            (Goal::Up { .. } | Goal::Down, State::Canceling { .. } | State::Stopping { .. }) => {
                self.shorten(now, grace);
            }
            (Goal::Up { .. } | Goal::Down, State::Yielding { process, grace: first }) => {
                let (process, grace) = (*process, grace.map_or(*first, |grace| grace.min(*first)));
                if self.gate.must_yield && !grace.is_zero() && self.goal == Goal::Down {
                    self.enter(State::Yielding { process, grace });
                } else {
                    self.ask_to_stop(now, process, Some(grace));
                }
            }

            (
                Goal::Removed,
                State::Starting { .. }
                | State::Canceling { .. }
                | State::Running { .. }
                | State::Pausing { .. }
                | State::Paused { .. }
                | State::Resuming { .. }
                | State::Yielding { .. }
                | State::Stopping { .. },
            ) => self.kill_now(now),

            // The run has ended, and no later one is wanted.
            (Goal::Up { .. } | Goal::Down, State::CleaningUp { .. } | State::Ended { .. })
                if self.spec.auto_remove && !self.wants_another_run() =>
            {
                self.aim(Goal::Removed);
                self.compare(now, None);
            }
            (Goal::Up { .. }, State::CleaningUp { .. })
                if !self.wants_another_run() && !self.spec.restart.ever_restarts() =>
            {
                self.aim(Goal::Down);
            }
            (Goal::Up { .. }, State::Ended { run, ending }) if !self.wants_another_run() => {
                let (run, ending) = (*run, ending.clone());
                self.decide(now, run, ending);
            }
            (Goal::Removed, State::Created | State::Ended { .. } | State::GivenUp { .. }) => self.delete(now),

            // Nothing to do, or nothing that could be done before what is under way has its outcome.
            (
                Goal::Up { .. },
                State::Starting { .. }
                | State::Running { .. }
                | State::Pausing { .. }
                | State::Paused { .. }
                | State::Resuming { .. }
                | State::Waiting { .. }
                | State::Ended { .. }
                | State::GivenUp { .. },
            )
            | (Goal::Down, State::Created | State::Ended { .. } | State::GivenUp { .. })
            | (
                Goal::Up { .. } | Goal::Down | Goal::Removed,
                State::Killing { .. } | State::CleaningUp { .. } | State::Removing { .. },
            ) => {}
        }
    }

    fn wants_another_run(&self) -> bool {
        match self.goal {
            Goal::Up { run, .. } => self.state.run().is_none_or(|last| last < run),
            Goal::Down | Goal::Removed => false,
        }
    }

    /// A run has ended by itself, or has been ended because it was unhealthy: another one?
    fn decide(&mut self, now: Time, run: Run, ending: Ending) {
        let end = self.end_of(now, &ending);
        if is_hopeless(run, &ending) {
            self.aim(Goal::Down);
            return;
        }
        match self.restarts.decide(&self.spec.restart, &end, self.seed(run)) {
            Decision::Stay => self.aim(Goal::Down),
            Decision::Again { at, delay } => {
                let count = self.restarts.count;
                self.aim(Goal::Up { run: run.next(), paused: false });
                self.announce(Change::Restarting { at, delay, count });
                let last = Some(Last { run, ending });
                self.enter(State::Waiting { last, start_at: at, wait: Wait::BackOff { delay }, hold: None });
                self.compare(now, None);
            }
            Decision::GiveUp(why) => {
                self.aim(Goal::Down);
                self.give_up(run, ending, why);
            }
        }
    }

    fn give_up(&mut self, run: Run, ending: Ending, why: crate::GaveUp) {
        self.announce(Change::GaveUp(why));
        self.enter(State::GivenUp { run, ending, why });
    }

    fn end_of(&self, now: Time, ending: &Ending) -> RunEnd {
        // What is said to have ended in the future, or before a reboot, has ended now.
        let at = |stamp: Stamp| if stamp.boot == Time::default() { now } else { stamp.boot.min(now) };
        match ending {
            Ending::Exited(exit) => {
                let at = at(exit.at);
                let unhealthy = self.vitals.verdict().is_some();
                RunEnd {
                    at,
                    ran_for: self.started.map_or(Duration::ZERO, |started| at.since(started.boot)),
                    ready_for: self.vitals.ready_for(at),
                    failed: unhealthy || exit.code() != Some(0),
                    code: exit.code().filter(|_| !unhealthy),
                }
            }
            Ending::Failed(failure) => RunEnd {
                at: at(failure.at),
                ran_for: Duration::ZERO,
                ready_for: Duration::ZERO,
                failed: true,
                code: None,
            },
        }
    }

    /// For chance that is the same when everything is.
    fn seed(&self, run: Run) -> u64 {
        self.id.seed() ^ run.0
    }

    fn wait(&mut self, now: Time, last: Option<Last>) {
        self.enter(State::Waiting { last, start_at: now, wait: Wait::Asked, hold: None });
        self.admit(now);
    }

    /// Its time has come: is there anything else in the way?
    fn admit(&mut self, now: Time) {
        let State::Waiting { last, wait, hold, .. } = &self.state else { return };
        let (last, wait) = (last.clone(), *wait);
        let reserved = matches!(hold, Some(Hold::Restarts | Hold::Starts));
        let counts = matches!(wait, Wait::BackOff { .. }) && !reserved;
        let (start_at, new) = match &self.gate {
            Gate { requires: Some(requires), .. } => (now, Some(requires.clone())),
            Gate { restart_at, .. } if counts && *restart_at > now => (*restart_at, Some(Hold::Restarts)),
            Gate { starts_taken: true, .. } => (now, Some(Hold::Starts)),
            Gate { starts_taken: false, .. } => (now, None),
        };
        self.gate.restart_taken |= counts && !matches!(new, Some(Hold::Requires { .. }));
        match new {
            None => self.begin(now),
            Some(new) => {
                if hold.as_ref() != Some(&new) {
                    self.announce(Change::Held(new.clone()));
                }
                self.enter(State::Waiting { last, start_at, wait, hold: Some(new) });
            }
        }
    }

    fn begin(&mut self, now: Time) {
        let run = self.next_run();
        if let (Err(why), State::Waiting { last: Some(Last { run, ending }), .. }) =
            (self.restarts.started(&self.spec.restart, now), &self.state)
        {
            let (run, ending) = (*run, ending.clone());
            self.aim(Goal::Down);
            self.give_up(run, ending, why);
            return;
        }
        self.started = None;
        self.vitals = Vitals::new(&self.spec, now, now, None);
        self.enter(State::Starting { run, give_up_at: now + START_LIMIT });
        self.emit(Effect::Start { id: self.id, run });
    }

    /// The kubelet's choice: the probe's own grace, otherwise the container's.
    fn grace_after(&self, verdict: Verdict) -> Option<Duration> {
        match verdict {
            Verdict::Probe(kind) => self.spec.probes.get(kind).and_then(|probe| probe.grace),
            Verdict::Watchdog | Verdict::PostStart => None,
        }
    }

    fn cancel(&mut self, now: Time, grace: Option<Duration>) {
        if let State::Starting { run, give_up_at } = self.state {
            match self.kill_at(now, grace) {
                kill_at if kill_at <= now => self.kill_all(now, run),
                kill_at => self.enter(State::Canceling { run, give_up_at, kill_at }),
            }
        }
    }

    fn ask_to_stop(&mut self, now: Time, process: Process, grace: Option<Duration>) {
        let runs = matches!(self.state, State::Running { .. } | State::Yielding { .. });
        match self.kill_at(now, grace) {
            kill_at if kill_at <= now => self.kill_all(now, process.run),
            _ if self.gate.must_yield
                && self.goal == Goal::Down
                && matches!(self.state, State::Running { .. }) =>
            {
                let grace = grace.unwrap_or(self.spec.stop.grace);
                self.enter(State::Yielding { process, grace });
            }
            kill_at if self.spec.hooks.pre_stop && runs => {
                self.vitals.suspend();
                self.enter(State::Stopping { process, kill_at, hook: true });
                let (run, timeout) = (process.run, kill_at.since(now));
                self.emit(Effect::Hook { id: self.id, run, hook: Hook::PreStop, timeout });
            }
            kill_at => {
                self.thaw_for_signal(process);
                self.signal_stop(process, kill_at);
            }
        }
    }

    /// A frozen process takes no signal but SIGKILL.
    fn thaw_for_signal(&mut self, process: Process) {
        match self.state {
            State::Pausing { .. } | State::Paused { .. } | State::Resuming { .. } => {
                self.emit(Effect::Thaw { id: self.id, run: process.run });
            }
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Yielding { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    fn shorten(&mut self, now: Time, grace: Option<Duration>) {
        let Some(earlier) = grace.map(|grace| now + grace) else { return };
        match self.state {
            State::Canceling { run, .. } if earlier <= now => self.kill_all(now, run),
            State::Stopping { process, .. } if earlier <= now => self.kill_all(now, process.run),
            State::Canceling { run, give_up_at, kill_at } if earlier < kill_at => {
                self.enter(State::Canceling { run, give_up_at, kill_at: earlier });
            }
            State::Stopping { process, kill_at, hook } if earlier < kill_at => {
                self.enter(State::Stopping { process, kill_at: earlier, hook });
            }
            State::Canceling { .. } | State::Stopping { .. } => {}
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    fn kill_at(&self, now: Time, grace: Option<Duration>) -> Time {
        now + grace.unwrap_or(self.spec.stop.grace)
    }

    fn kill_now(&mut self, now: Time) {
        if let State::Killing { .. } = self.state {
            return;
        }
        if let Some(run) = self.state.run() {
            self.kill_all(now, run);
        }
    }

    fn signal_stop(&mut self, process: Process, kill_at: Time) {
        self.vitals.suspend();
        self.enter(State::Stopping { process, kill_at, hook: false });
        self.emit(Effect::Signal { id: self.id, run: process.run, signal: self.spec.stop.signal });
    }

    fn kill_all(&mut self, now: Time, run: Run) {
        self.enter(State::Killing { run, attempt: 1, again_at: now + KILL_LIMIT });
        self.emit(Effect::Kill { id: self.id, run });
    }

    fn freeze(&mut self, now: Time, process: Process) {
        self.enter(State::Pausing { process, give_up_at: now + FREEZE_LIMIT });
        self.emit(Effect::Freeze { id: self.id, run: process.run });
    }

    fn thaw(&mut self, now: Time, process: Process) {
        self.enter(State::Resuming { process, attempt: 1, again_at: now + FREEZE_LIMIT });
        self.emit(Effect::Thaw { id: self.id, run: process.run });
    }

    fn clean_up(&mut self, now: Time, run: Run, ending: Ending) {
        self.enter(State::CleaningUp { run, ending, attempt: 1, again_at: now + REMOVAL_LIMIT });
        self.emit(Effect::Cleanup { id: self.id, run });
    }

    fn delete(&mut self, now: Time) {
        self.enter(State::Removing { attempt: 1, again_at: now + REMOVAL_LIMIT });
        self.emit(Effect::Delete { id: self.id });
    }
}

/// The way out.
impl Container {
    /// The only assignment of the state, so that no change goes unannounced. Another deadline or attempt in
    /// the same state is nobody's news.
    fn enter(&mut self, state: State) {
        let news = std::mem::discriminant(&self.state) != std::mem::discriminant(&state);
        self.state = state;
        if news {
            self.announce(Change::State(self.state.clone()));
        }
    }

    /// The only assignment of the goal.
    fn aim(&mut self, goal: Goal) {
        if self.goal != goal {
            self.goal = goal;
            self.announce(Change::Goal(goal));
        }
    }

    pub(crate) fn announce_added(&mut self) {
        self.announce(Change::Added);
    }

    fn announce(&mut self, change: Change) {
        self.emit(Effect::Announce { id: self.id, change });
    }

    fn emit(&mut self, effect: Effect) {
        self.outbox.push(effect);
    }

    /// Everything that followed from one input; before it, what has to be durable for that.
    pub(crate) fn hand_out(&mut self, effects: &mut Vec<Effect>) {
        let saved = self.to_save();
        if self.is_worth_saving(&saved) {
            effects.push(Effect::Save { id: self.id, saved: saved.clone() });
            self.saved = Some(saved);
        }
        effects.append(&mut self.outbox);
    }

    pub(crate) fn to_save(&self) -> Saved {
        Saved {
            goal: self.goal,
            phase: Phase::of(&self.state),
            started: self.started,
            restarts: self.restarts.clone(),
            vitals: self.vitals.to_save(&self.spec),
        }
    }

    /// A removal that is intended already is not written down a second time: it will be found wanting, and
    /// finished, just the same.
    fn is_worth_saving(&self, new: &Saved) -> bool {
        match &self.saved {
            Some(Saved { goal: Goal::Removed, .. }) if new.phase == Phase::Removing => false,
            Some(old) => old != new,
            None => true,
        }
    }
}

/// Nothing that a restart could mend: what somebody asked for just now does not fit the image or the host.
fn is_hopeless(run: Run, ending: &Ending) -> bool {
    match ending {
        Ending::Failed(failure) if run == Run::FIRST => match failure.kind {
            FailureKind::CommandNotFound
            | FailureKind::CommandNotExecutable
            | FailureKind::InvalidInput
            | FailureKind::RefusedImage
            | FailureKind::Unsupported => true,
            FailureKind::Interrupted | FailureKind::NotSaved | FailureKind::Failed => false,
        },
        Ending::Failed(_) | Ending::Exited(_) => false,
    }
}

#[cfg(test)]
mod tests;
