//! One container: goal, state, and the one place where they are compared.

use crate::{
    Accepted, Change, Effect, Ending, Exit, ExitStatus, Fact, Failure, FailureKind, Goal, Id, Observed,
    Phase, Process, Rejection, Run, Saved, Signal, Spec, Stamp, State, Step, Time,
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
    /// What was last handed out with [`Effect::Save`], so that only what is new is saved.
    saved: Option<Saved>,
    outbox: Vec<Effect>,
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

    /// Nothing is under way: what is wanted is what is, as far as it can be.
    pub fn is_settled(&self) -> bool {
        match (&self.goal, &self.state) {
            (Goal::Up { paused: false, .. }, State::Running { .. })
            | (Goal::Up { paused: true, .. }, State::Paused { .. })
            | (Goal::Down, State::Created | State::Ended { .. }) => true,
            (Goal::Up { .. } | Goal::Down | Goal::Removed, _) => false,
        }
    }
}

/// Commands: each checks whether it can be, changes the goal, and has the rest follow from it.
impl Container {
    pub(crate) fn new(id: Id, spec: Spec) -> Self {
        Self {
            id,
            spec,
            goal: Goal::Down,
            state: State::Created,
            started: None,
            saved: None,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, now: Time) -> Result<Accepted, Rejection> {
        match self.goal {
            Goal::Removed => Err(self.being_removed()),
            Goal::Up { paused: true, .. } => Err(Rejection::Paused(self.spec.name.clone())),
            Goal::Up { paused: false, .. } => Ok(Accepted::Already),
            Goal::Down => {
                self.aim(Goal::Up { run: self.next_run(), paused: false });
                self.converge(now, None);
                Ok(Accepted::Underway)
            }
        }
    }

    pub(crate) fn stop(&mut self, now: Time, grace: Option<Duration>) -> Result<Accepted, Rejection> {
        match self.goal {
            Goal::Removed => return Err(self.being_removed()),
            Goal::Down if !self.is_alive() => return Ok(Accepted::Already),
            Goal::Down | Goal::Up { .. } => {}
        }
        self.aim(Goal::Down);
        self.converge(now, Some(grace.unwrap_or(self.spec.stop.grace)));
        Ok(Accepted::Underway)
    }

    pub(crate) fn restart(&mut self, now: Time, grace: Option<Duration>) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Err(self.being_removed());
        }
        self.aim(Goal::Up { run: self.next_run(), paused: false });
        self.converge(now, Some(grace.unwrap_or(self.spec.stop.grace)));
        Ok(Accepted::Underway)
    }

    pub(crate) fn kill(&mut self, now: Time, signal: Signal) -> Result<Accepted, Rejection> {
        if self.goal == Goal::Removed {
            return Err(self.being_removed());
        }
        if signal == Signal::KILL && self.is_alive() {
            return self.stop(now, Some(Duration::ZERO));
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
            Goal::Up { run, paused } if self.state.run() == Some(run) => {
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
                | State::Stopping { process, .. },
            ) => self.outbox.push(Effect::Limit { id: self.id, run: process.run }),
            (
                Goal::Up { .. } | Goal::Down,
                State::Created
                | State::Killing { .. }
                | State::CleaningUp { .. }
                | State::Ended { .. }
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

    /// There is, or may be, a process.
    fn is_alive(&self) -> bool {
        match self.state {
            State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => true,
            State::Created | State::CleaningUp { .. } | State::Ended { .. } | State::Removing { .. } => false,
        }
    }
}

/// Facts: each moves the state to what is true now, and has the rest follow from it. Facts about earlier runs
/// do not come here.
impl Container {
    pub(crate) fn fact(&mut self, now: Time, fact: Fact) {
        match fact {
            Fact::CreateFailed { .. } => self.create_failed(now),
            Fact::Started { run, pid, at, .. } => self.has_started(Process { run, pid }, at),
            Fact::StartFailed { run, failure, .. } => self.start_failed(now, run, failure),
            Fact::Exited { run, exit, .. } => self.exited(now, run, exit),
            Fact::Oom { run, .. } => self.announce(Change::Oom(run)),
            Fact::Frozen { run, .. } => self.frozen(run),
            Fact::FreezeFailed { reason, .. } => self.freeze_failed(now, reason),
            Fact::Thawed { .. } => self.thawed(),
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
        if matches!(self.state, State::Created | State::Starting { run: Run::FIRST, .. }) {
            self.aim(Goal::Removed);
            self.delete(now);
            // Nothing was saved, so there is no intent to keep either.
            self.saved = Some(self.to_save());
        }
    }

    fn has_started(&mut self, process: Process, at: Stamp) {
        match self.state {
            State::Starting { .. } => {
                self.started = Some(at);
                self.enter(State::Running { process });
            }
            State::Canceling { kill_at, .. } => {
                self.started = Some(at);
                self.signal_stop(process, kill_at);
            }
            // The kill may have come before there was anything to kill.
            State::Killing { run, .. } => {
                self.started = Some(at);
                self.emit(Effect::Kill { id: self.id, run });
            }
            State::Created
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::Removing { .. } => {}
        }
    }

    fn start_failed(&mut self, now: Time, run: Run, failure: Failure) {
        match self.state {
            State::Starting { .. } | State::Canceling { .. } | State::Killing { .. } => {
                self.clean_up(now, run, Ending::Failed(failure));
            }
            State::Created
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Stopping { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::Removing { .. } => {}
        }
    }

    fn exited(&mut self, now: Time, run: Run, exit: Exit) {
        if self.is_alive() {
            self.clean_up(now, run, Ending::Exited(exit));
        }
    }

    /// Also when it comes late: what is frozen against the goal is found here, and thawed.
    fn frozen(&mut self, run: Run) {
        match self.state {
            State::Running { process } | State::Pausing { process, .. } => {
                self.enter(State::Paused { process })
            }
            State::Resuming { .. } | State::Stopping { .. } => self.emit(Effect::Thaw { id: self.id, run }),
            State::Created
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Paused { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
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
    fn thawed(&mut self) {
        match self.state {
            State::Paused { process } | State::Resuming { process, .. } => {
                self.enter(State::Running { process })
            }
            State::Pausing { process, .. } => self.emit(Effect::Freeze { id: self.id, run: process.run }),
            State::Created
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
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
            State::Starting { run, .. } => {
                let run = *run;
                self.announce(Change::StartTimedOut(run));
                self.kill_all(now, run);
            }
            State::Canceling { run, .. } => self.kill_all(now, *run),
            State::Stopping { process, .. } => self.kill_all(now, process.run),
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
            State::Created | State::Running { .. } | State::Paused { .. } | State::Ended { .. } => {}
        }
        self.converge(now, None);
    }
}

/// After the end of an earlier supervisor.
impl Container {
    pub(crate) fn adopt(&mut self, now: Time, saved: Saved, observed: Observed) {
        self.announce_added();
        self.started = saved.started;
        self.aim(saved.goal);
        self.saved = Some(saved.clone());
        match saved.phase {
            // What is to be removed is, as soon as goal and state are compared.
            Phase::Created | Phase::Removing => {}
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
        self.converge(now, None);
    }

    fn adopt_run(&mut self, now: Time, run: Run, begun: Begun, observed: Observed) {
        match observed {
            Observed::Exited(exit) => self.clean_up(now, run, Ending::Exited(exit)),
            Observed::Nothing { at } => {
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
                self.started.get_or_insert(started);
                match begun {
                    Begun::Start if frozen => self.enter(State::Paused { process }),
                    Begun::Start => self.enter(State::Running { process }),
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
        match (self.goal, &self.state) {
            (Goal::Up { .. }, State::Created) => self.begin(now),
            (Goal::Up { run: wanted, .. }, State::Ended { run, .. }) if *run < wanted => self.begin(now),

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

            (
                Goal::Removed,
                State::Starting { .. }
                | State::Canceling { .. }
                | State::Running { .. }
                | State::Pausing { .. }
                | State::Paused { .. }
                | State::Resuming { .. }
                | State::Stopping { .. },
            ) => self.kill_now(now),

            // The run has ended, and no later one is wanted.
            (Goal::Up { .. } | Goal::Down, State::CleaningUp { .. } | State::Ended { .. })
                if self.spec.auto_remove && !self.wants_another_run() =>
            {
                self.aim(Goal::Removed);
                self.converge(now, None);
            }
            (Goal::Up { .. }, State::CleaningUp { .. } | State::Ended { .. })
                if !self.wants_another_run() =>
            {
                self.aim(Goal::Down);
            }
            (Goal::Removed, State::Created | State::Ended { .. }) => self.delete(now),

            // Nothing to do, or nothing that could be done before what is under way has its outcome.
            (
                Goal::Up { .. },
                State::Starting { .. }
                | State::Running { .. }
                | State::Pausing { .. }
                | State::Paused { .. }
                | State::Resuming { .. }
                | State::Ended { .. },
            )
            | (Goal::Down, State::Created | State::Ended { .. })
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

    fn begin(&mut self, now: Time) {
        let run = self.next_run();
        self.started = None;
        self.enter(State::Starting { run, give_up_at: now + START_LIMIT });
        self.emit(Effect::Start { id: self.id, run });
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
        match self.kill_at(now, grace) {
            kill_at if kill_at <= now => self.kill_all(now, process.run),
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
            | State::Starting { .. }
            | State::Canceling { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
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
            State::Stopping { process, kill_at } if earlier < kill_at => {
                self.enter(State::Stopping { process, kill_at: earlier });
            }
            State::Canceling { .. } | State::Stopping { .. } => {}
            State::Created
            | State::Starting { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Killing { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::Removing { .. } => {}
        }
    }

    fn kill_at(&self, now: Time, grace: Option<Duration>) -> Time {
        now + grace.unwrap_or(self.spec.stop.grace)
    }

    fn kill_now(&mut self, now: Time) {
        if let Some(run) = self.state.run() {
            self.kill_all(now, run);
        }
    }

    fn signal_stop(&mut self, process: Process, kill_at: Time) {
        self.enter(State::Stopping { process, kill_at });
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

    fn to_save(&self) -> Saved {
        Saved { goal: self.goal, phase: Phase::of(&self.state), started: self.started }
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

#[cfg(test)]
mod tests;
