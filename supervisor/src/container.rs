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
            Fact::FreezeFailed { reason, .. } => self.freeze_failed(reason),
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

    fn freeze_failed(&mut self, reason: String) {
        if let State::Pausing { process, .. } = self.state {
            self.aim(Goal::Up { run: process.run, paused: false });
            self.announce(Change::PauseFailed { reason });
            self.enter(State::Running { process });
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
            State::Pausing { process, .. } => {
                let process = *process;
                self.aim(Goal::Up { run: process.run, paused: false });
                let reason = format!("the processes did not freeze within {} s", FREEZE_LIMIT.as_secs());
                self.announce(Change::PauseFailed { reason });
                self.thaw(now, process);
            }
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
            Phase::Created => {}
            Phase::Ended { run, ending } => self.enter(State::Ended { run, ending }),
            Phase::CleaningUp { run, ending } => self.clean_up(now, run, ending),
            Phase::Removing => self.delete(now),
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
mod tests {
    use crate::*;
    use std::time::Duration;

    const WEB: Id = Id::from_bytes([1; 32]);
    const DB: Id = Id::from_bytes([2; 32]);
    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn intent_is_saved_before_the_start() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        let effects = host.did();
        let save = position(
            &effects,
            |effect| matches!(effect, Effect::Save { saved, .. } if saved.phase == Phase::Starting { run: Run(1) }),
        );
        let start = position(&effects, |effect| matches!(effect, Effect::Start { run: Run(1), .. }));
        assert!(save < start, "{effects:?}");
    }

    #[test]
    fn exit_is_saved_before_its_record_is_cleaned_up() {
        let mut host = Host::running();
        host.exited(Run(1), 3);
        let effects = host.did();
        let save = position(
            &effects,
            |effect| matches!(effect, Effect::Save { saved, .. } if matches!(saved.phase, Phase::CleaningUp { .. })),
        );
        let cleanup = position(&effects, |effect| matches!(effect, Effect::Cleanup { run: Run(1), .. }));
        assert!(save < cleanup, "{effects:?}");
    }

    #[test]
    fn exit_ends_the_wish_to_run() {
        let mut host = Host::running();
        host.exited(Run(1), 3);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert_eq!(host.web().goal(), Goal::Down);
        assert_eq!(host.web().state().name(), "exited");
        assert!(matches!(host.web().state().ending(), Some(Ending::Exited(exit)) if exit.code() == Some(3)));
        assert!(host.web().is_settled());
        assert_eq!(host.supervisor.next_deadline(), None);
    }

    #[test]
    fn fact_about_an_earlier_start_is_ignored() {
        let mut host = Host::running();
        host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        host.started(Run(2), 200);
        host.did();
        host.exited(Run(1), 1);
        host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
        assert_eq!(host.did(), []);
        assert!(matches!(host.web().state(), State::Running { process: Process { run: Run(2), pid: 200 } }));
    }

    #[test]
    fn stop_signals_and_kills_after_the_grace() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
        host.after(GRACE - Duration::from_nanos(1));
        assert_eq!(host.did(), []);
        host.after(Duration::from_nanos(1));
        assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
        host.exited(Run(1), 0);
        assert_eq!(host.web().state().name(), "exited");
    }

    #[test]
    fn stop_without_grace_kills_at_once() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: Some(Duration::ZERO) }).expect("accepted");
        let effects = host.did();
        assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })));
    }

    #[test]
    fn stop_with_endless_grace_never_kills() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: Some(Duration::MAX) }).expect("accepted");
        assert_eq!(host.supervisor.next_deadline(), None);
        host.after(Duration::from_secs(1_000_000));
        assert_eq!(host.web().state().name(), "stopping");
    }

    #[test]
    fn later_stop_can_shorten_the_grace_but_not_lengthen_it() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        let first = host.supervisor.next_deadline();
        host.command(Command::Stop { id: WEB, grace: Some(GRACE * 2) }).expect("accepted");
        assert_eq!(host.supervisor.next_deadline(), first);
        host.command(Command::Stop { id: WEB, grace: Some(GRACE / 2) }).expect("accepted");
        assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE / 2));
    }

    #[test]
    fn facts_do_not_change_the_grace_of_a_stop() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: Some(GRACE * 9) }).expect("accepted");
        host.fact(Fact::Oom { id: WEB, run: Run(1) });
        assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE * 9));
    }

    #[test]
    fn stop_while_starting_signals_as_soon_as_it_runs_and_counts_from_the_wish() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        let kill_at = host.now + GRACE;
        host.after(GRACE / 2);
        host.did();
        host.started(Run(1), 100);
        assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
        assert_eq!(host.supervisor.next_deadline(), Some(kill_at));
    }

    #[test]
    fn start_without_outcome_is_given_up() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        host.did();
        host.after(super::START_LIMIT);
        let effects = host.did();
        assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
        assert!(effects.contains(&tell(Change::StartTimedOut(Run(1)))));
        host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
        assert_eq!(host.web().state().name(), "failed");
    }

    #[test]
    fn start_that_succeeds_after_it_was_given_up_is_killed_again() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        host.after(super::START_LIMIT);
        host.did();
        host.started(Run(1), 100);
        assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
    }

    #[test]
    fn kill_is_tried_again_until_it_works_and_says_so() {
        let mut host = Host::running();
        host.command(Command::Kill { id: WEB, signal: Signal::KILL }).expect("accepted");
        for attempt in 2..5 {
            host.did();
            host.after(super::KILL_LIMIT);
            let effects = host.did();
            assert!(effects.contains(&tell(Change::Retrying { step: Step::Kill, attempt })));
            assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
        }
    }

    #[test]
    fn failed_start_ends_as_failed_and_can_be_started_again() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert_eq!((host.web().state().name(), host.web().goal()), ("failed", Goal::Down));
        host.did();
        host.command(Command::Start { id: WEB }).expect("accepted");
        assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
    }

    #[test]
    fn start_waits_for_the_cleanup_of_the_run_before() {
        let mut host = Host::running();
        host.exited(Run(1), 0);
        host.command(Command::Start { id: WEB }).expect("accepted");
        assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Start { .. })));
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
    }

    #[test]
    fn failed_cleanup_is_tried_again_ever_more_slowly() {
        let mut host = Host::running();
        host.exited(Run(1), 0);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            host.fact(Fact::CleanupFailed { id: WEB, run: Run(1), reason: "busy".into() });
            host.did();
            assert_eq!(host.supervisor.next_deadline(), Some(host.now + Duration::from_secs(pause)));
            host.after(Duration::from_secs(pause));
            assert!(host.did().contains(&Effect::Cleanup { id: WEB, run: Run(1) }));
        }
    }

    #[test]
    fn restart_is_a_stop_and_the_next_run() {
        let mut host = Host::running();
        host.command(Command::Restart { id: WEB, grace: Some(GRACE / 2) }).expect("accepted");
        assert_eq!(host.web().state().name(), "stopping");
        assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE / 2));
        host.exited(Run(1), 0);
        host.did();
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
        host.started(Run(2), 200);
        assert!(host.web().is_settled());
    }

    #[test]
    fn stop_during_a_restart_wins() {
        let mut host = Host::running();
        host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert_eq!(host.web().state().name(), "exited");
    }

    #[test]
    fn restart_of_a_container_with_rm_does_not_remove_it() {
        let mut host = Host::new();
        let spec = Spec { auto_remove: true, ..spec("web") };
        host.command(Command::Run { id: WEB, spec }).expect("accepted");
        host.started(Run(1), 100);
        host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert_eq!(host.web().state().name(), "starting");
        host.started(Run(2), 200);
        host.did();
        host.exited(Run(2), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(2) });
        assert!(host.did().contains(&Effect::Delete { id: WEB }));
    }

    #[test]
    fn container_with_rm_goes_when_it_ends_by_itself_by_a_stop_or_by_a_failed_start() {
        for end in ["exit", "stop", "failed"] {
            let mut host = Host::new();
            let spec = Spec { auto_remove: true, ..spec("web") };
            host.command(Command::Run { id: WEB, spec }).expect("accepted");
            if end == "failed" {
                host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
            } else {
                host.started(Run(1), 100);
                if end == "stop" {
                    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
                }
                host.exited(Run(1), 0);
            }
            host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
            host.fact(Fact::Deleted { id: WEB });
            assert!(host.supervisor.container(WEB).is_none(), "{end}");
        }
    }

    #[test]
    fn removal_refuses_a_running_container_unless_forced() {
        let mut host = Host::running();
        let refused = host.command(Command::Remove { id: WEB, force: false });
        assert_eq!(
            refused.expect_err("running").to_string(),
            "container web is running; stop it first, or remove it by force"
        );
        assert_eq!(host.did(), []);
        host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
        assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Delete { id: WEB }));
        host.fact(Fact::Deleted { id: WEB });
        assert_eq!(host.did(), [tell(Change::Removed)]);
    }

    #[test]
    fn name_is_taken_until_its_holder_is_gone() {
        let mut host = Host::running();
        let taken = Rejection::NameTaken { name: spec("web").name, holder: WEB };
        assert_eq!(host.command(Command::Create { id: DB, spec: spec("web") }), Err(taken.clone()));
        host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert_eq!(host.command(Command::Create { id: DB, spec: spec("web") }), Err(taken));
        host.fact(Fact::Deleted { id: WEB });
        host.command(Command::Create { id: DB, spec: spec("web") }).expect("the name is free");
    }

    #[test]
    fn being_removed_refuses_everything_but_removal() {
        let mut host = Host::running();
        host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
        let refused = Err(Rejection::BeingRemoved(spec("web").name));
        assert_eq!(host.command(Command::Start { id: WEB }), refused);
        assert_eq!(host.command(Command::Stop { id: WEB, grace: None }), refused);
        assert_eq!(host.command(Command::Remove { id: WEB, force: false }), Ok(Accepted::Already));
    }

    #[test]
    fn container_that_is_removed_is_not_saved_again() {
        let mut host = Host::running();
        host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        host.did();
        host.fact(Fact::Limited { id: WEB });
        host.fact(Fact::DeleteFailed { id: WEB, reason: "busy".into() });
        assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Save { .. })));
    }

    #[test]
    fn pause_and_unpause_freeze_and_thaw() {
        let mut host = Host::running();
        host.command(Command::Pause { id: WEB }).expect("accepted");
        assert!(host.did().contains(&Effect::Freeze { id: WEB, run: Run(1) }));
        assert_eq!(host.web().state().name(), "running");
        host.fact(Fact::Frozen { id: WEB, run: Run(1) });
        assert_eq!(host.web().state().name(), "paused");
        assert_eq!(host.command(Command::Pause { id: WEB }), Ok(Accepted::Already));
        assert!(matches!(host.command(Command::Start { id: WEB }), Err(Rejection::Paused(_))));
        host.command(Command::Unpause { id: WEB }).expect("accepted");
        assert!(host.did().contains(&Effect::Thaw { id: WEB, run: Run(1) }));
        host.fact(Fact::Thawed { id: WEB, run: Run(1) });
        assert!(host.web().is_settled());
    }

    #[test]
    fn paused_container_is_thawed_to_take_the_stop_signal() {
        let mut host = Host::running();
        host.command(Command::Pause { id: WEB }).expect("accepted");
        host.fact(Fact::Frozen { id: WEB, run: Run(1) });
        host.did();
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        let effects = host.did();
        let thaw = position(&effects, |effect| matches!(effect, Effect::Thaw { .. }));
        assert!(thaw < position(&effects, |effect| matches!(effect, Effect::Signal { .. })));
    }

    #[test]
    fn pause_that_fails_leaves_a_running_container_and_says_why() {
        let mut host = Host::running();
        host.command(Command::Pause { id: WEB }).expect("accepted");
        host.did();
        host.fact(Fact::FreezeFailed { id: WEB, run: Run(1), reason: "no freezer".into() });
        assert!(host.did().contains(&tell(Change::PauseFailed { reason: "no freezer".into() })));
        assert!(host.web().is_settled());
    }

    #[test]
    fn processes_that_freeze_too_late_are_thawed() {
        let mut host = Host::running();
        host.command(Command::Pause { id: WEB }).expect("accepted");
        host.after(super::FREEZE_LIMIT);
        host.fact(Fact::Thawed { id: WEB, run: Run(1) });
        host.did();
        host.fact(Fact::Frozen { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Thaw { id: WEB, run: Run(1) }));
    }

    #[test]
    fn signal_other_than_kill_only_passes_through() {
        let mut host = Host::running();
        let usr1 = Signal::new(10).expect("SIGUSR1");
        host.command(Command::Kill { id: WEB, signal: usr1 }).expect("accepted");
        assert_eq!(host.did(), [Effect::Signal { id: WEB, run: Run(1), signal: usr1 }]);
        assert!(host.web().is_settled());
    }

    #[test]
    fn signal_to_a_container_that_is_not_running_is_refused() {
        let mut host = Host::new();
        host.command(Command::Create { id: WEB, spec: spec("web") }).expect("accepted");
        let refused = host.command(Command::Kill { id: WEB, signal: Signal::KILL });
        assert_eq!(refused.expect_err("created").to_string(), "container web is not running (it is created)");
    }

    #[test]
    fn update_is_saved_at_once_unless_it_runs_then_after_it_took_effect() {
        let mut host = Host::running();
        host.command(Command::Update { id: WEB }).expect("accepted");
        assert_eq!(host.did(), [Effect::Limit { id: WEB, run: Run(1) }]);
        host.fact(Fact::Limited { id: WEB });
        assert!(matches!(
            &host.did()[..],
            [Effect::Save { .. }, Effect::Announce { change: Change::Updated, .. }]
        ));
        host.exited(Run(1), 0);
        host.did();
        host.command(Command::Update { id: WEB }).expect("accepted");
        assert!(matches!(
            &host.did()[..],
            [Effect::Save { .. }, Effect::Announce { change: Change::Updated, .. }]
        ));
    }

    #[test]
    fn definition_that_could_not_be_saved_leaves_nothing() {
        let mut host = Host::new();
        host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        host.did();
        host.fact(Fact::CreateFailed { id: WEB });
        let effects = host.did();
        assert!(effects.contains(&Effect::Delete { id: WEB }));
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save { .. })));
        host.fact(Fact::Deleted { id: WEB });
        assert!(host.supervisor.containers().next().is_none());
    }

    #[test]
    fn people_may_say_the_id_the_name_or_a_beginning() {
        let mut host = Host::running();
        let other = Id::from_bytes([0x11; 32]);
        host.command(Command::Create { id: other, spec: spec("0101") }).expect("accepted");
        let found = |reference: &str| host.supervisor.resolve(reference).map(Container::id);
        assert_eq!(found(&WEB.to_string()), Ok(WEB));
        assert_eq!(found("web"), Ok(WEB));
        assert_eq!(found("0101"), Ok(other), "a name is stronger than a beginning");
        assert_eq!(found("010101"), Ok(WEB));
        assert_eq!(found("11"), Ok(other));
        assert_eq!(found("0"), Ok(WEB));
        assert_eq!(found(""), Err(Rejection::NoSuchContainer(String::new())));
        assert_eq!(found("ff"), Err(Rejection::NoSuchContainer("ff".into())));
        let mut third = [0x11; 32];
        third[31] = 0;
        host.command(Command::Create { id: Id::from_bytes(third), spec: spec("third") }).expect("accepted");
        let ambiguous = Rejection::Ambiguous { reference: "11".into(), count: 2 };
        assert_eq!(host.supervisor.resolve("11").map(Container::id), Err(ambiguous));
    }

    #[test]
    fn living_run_is_adopted_untouched() {
        let before = Host::running();
        let mut host = before.dies(alive(false));
        assert!(host.web().is_settled());
        assert_eq!(host.web().started(), before.web().started());
        let told_only = host.did().iter().all(|effect| matches!(effect, Effect::Announce { .. }));
        assert!(told_only);
    }

    #[test]
    fn exit_that_nobody_saw_is_not_invented() {
        let mut host = Host::running().dies(Observed::Nothing { at: Stamp::default() });
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(matches!(host.web().state().ending(), Some(Ending::Exited(exit)) if exit.code().is_none()));
    }

    #[test]
    fn start_that_nothing_came_of_is_not_repeated() {
        let mut before = Host::new();
        before.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
        let mut host = before.dies(Observed::Nothing { at: Stamp::default() });
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(matches!(
            host.web().state().ending(),
            Some(Ending::Failed(Failure { kind: FailureKind::Interrupted, .. }))
        ));
        assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Start { .. })));
    }

    #[test]
    fn stop_goes_on_after_the_daemon_died_and_keeps_its_deadline() {
        let mut before = Host::running();
        before.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        let kill_at = before.supervisor.next_deadline();
        before.after(GRACE / 2);
        let mut host = before.dies(alive(false));
        assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
        assert_eq!(host.supervisor.next_deadline(), kill_at);
    }

    #[test]
    fn restart_goes_on_after_the_daemon_died() {
        let mut before = Host::running();
        before.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
        let mut host = before.dies(Observed::Exited(exit(0)));
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
    }

    #[test]
    fn removal_goes_on_after_the_daemon_died() {
        let mut before = Host::running();
        before.command(Command::Remove { id: WEB, force: true }).expect("accepted");
        let mut host = before.dies(alive(false));
        assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
        host.exited(Run(1), 0);
        let mut host = host.dies(Observed::Nothing { at: Stamp::default() });
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Delete { id: WEB }));
    }

    #[test]
    fn container_adopted_frozen_stays_paused_if_that_is_wanted() {
        let mut before = Host::running();
        before.command(Command::Pause { id: WEB }).expect("accepted");
        before.fact(Fact::Frozen { id: WEB, run: Run(1) });
        assert_eq!(before.dies(alive(true)).web().state().name(), "paused");
        let mut thawed_meanwhile = before.dies(alive(false));
        assert!(thawed_meanwhile.did().contains(&Effect::Freeze { id: WEB, run: Run(1) }));
    }

    #[test]
    fn tick_before_the_deadline_does_nothing() {
        let mut host = Host::running();
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        host.did();
        host.supervisor.tick(host.now);
        assert_eq!(host.did(), []);
    }

    /// One supervisor and a clock that is moved by hand.
    struct Host {
        supervisor: Supervisor,
        now: Time,
        saved: Option<Saved>,
        effects: Vec<Effect>,
    }

    impl Host {
        fn new() -> Self {
            Self { supervisor: Supervisor::new(), now: Time(5), saved: None, effects: Vec::new() }
        }

        /// With `web` in its first run.
        fn running() -> Self {
            let mut host = Self::new();
            host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
            host.started(Run(1), 100);
            host.did();
            host
        }

        fn command(&mut self, command: Command) -> Result<Accepted, Rejection> {
            let accepted = self.supervisor.command(self.now, command);
            self.collect();
            accepted
        }

        fn fact(&mut self, fact: Fact) {
            self.supervisor.fact(self.now, fact);
            self.collect();
        }

        fn started(&mut self, run: Run, pid: u32) {
            self.fact(Fact::Started { id: WEB, run, pid, at: Stamp { boot: self.now, wall: 0 } });
        }

        fn exited(&mut self, run: Run, code: u8) {
            self.fact(Fact::Exited { id: WEB, run, exit: exit(code) });
        }

        fn after(&mut self, delay: Duration) {
            self.now = self.now + delay;
            self.supervisor.tick(self.now);
            self.collect();
        }

        fn collect(&mut self) {
            for effect in self.supervisor.effects() {
                if let Effect::Save { id: WEB, saved } = &effect {
                    self.saved = Some(saved.clone());
                }
                self.effects.push(effect);
            }
        }

        /// What was done since the last look.
        fn did(&mut self) -> Vec<Effect> {
            std::mem::take(&mut self.effects)
        }

        fn web(&self) -> &Container {
            self.supervisor.container(WEB).expect("web exists")
        }

        /// A new supervisor, with what this one saved.
        fn dies(&self, observed: Observed) -> Self {
            let mut host = Self { now: self.now, saved: self.saved.clone(), ..Self::new() };
            let saved = self.saved.clone().expect("something was saved");
            host.supervisor.adopt(self.now, WEB, spec("web"), saved, observed);
            host.collect();
            host
        }
    }

    fn spec(name: &str) -> Spec {
        let stop = Stop { signal: Signal::TERM, grace: GRACE };
        Spec { name: name.parse().expect("a name"), stop, auto_remove: false }
    }

    fn exit(code: u8) -> Exit {
        Exit { status: ExitStatus::Code(code), oom_killed: false, at: Stamp::default() }
    }

    fn failure() -> Failure {
        Failure { kind: FailureKind::Failed, message: "it broke".into(), at: Stamp::default() }
    }

    fn alive(frozen: bool) -> Observed {
        Observed::Alive { pid: 100, started: Stamp::default(), frozen }
    }

    fn tell(change: Change) -> Effect {
        Effect::Announce { id: WEB, change }
    }

    fn position(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
        effects.iter().position(wanted).unwrap_or_else(|| panic!("not among {effects:?}"))
    }
}
