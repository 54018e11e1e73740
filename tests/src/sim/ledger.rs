//! What has been asked for, announced and told, container by container: what invariants compare with.

use super::invariants::START_LIMIT;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use wharf_supervisor::{
    Goal, Hook, Id, Phase, Policy, ProbeKind, Run, Saved, SavedHealth, Spec, State, Time, Verdict, Wait,
};

/// The books of one container.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The last state that was announced.
    pub state: Option<State>,
    /// Ready, as far as was announced.
    pub ready: bool,
    /// Somebody wants a run, whatever the restart policy says.
    pub asked: bool,
    /// The last wish was to have no run.
    pub down: bool,
    /// The restart policy wants a run, not before.
    pub restarting: Option<Time>,
    /// The place in the host's budget of restarts that it was given.
    pub place: Option<Time>,
    /// There is a reason to end the run.
    pub may_be_stopped: bool,
    /// Not before.
    pub may_be_killed: Option<Time>,
    /// Not after, once it is being stopped.
    pub kill_at: Option<Time>,
    /// The longest grace there is a reason for.
    pub longest_grace: Duration,
    /// Patience with the start, or with the hook after it, began then.
    pub patience_from: Option<Time>,
    /// That patience was over, and the start with it.
    pub start_gave_up: bool,
    /// It was told of, and found wanting.
    pub unhealthy: bool,
    /// The watchdog was last content.
    pub heard: Time,
    /// The shortest period the watchdog was ever told.
    pub watchdog: Option<Duration>,
    /// It has asked to be taken for dead.
    pub triggered: bool,
    /// How the hook after the start ended, as far as was told.
    pub post_start: Option<bool>,
    /// Failures told, by probe.
    pub failures: BTreeMap<ProbeKind, u32>,
    /// What each probe has settled on, as far as was announced.
    pub settled: BTreeMap<ProbeKind, bool>,
    /// Probes under way.
    pub probes: BTreeMap<ProbeKind, InFlight>,
    /// Hooks under way.
    pub hooks: BTreeMap<Hook, u64>,
    /// When runs were to begin, by the host's age.
    pub starts: VecDeque<Duration>,
    /// Those that have to have ended before it gets its stop signal.
    pub after: BTreeSet<Id>,
}

/// A probe under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub run: Run,
    /// An answer to an earlier one is none to this.
    pub number: u64,
    /// Its answer is not waited for any longer then.
    pub lost_at: Time,
    /// It was frozen in between.
    pub excused: bool,
}

impl Account {
    /// What a new daemon has reason for, going by what was saved.
    pub fn reopen(&mut self, now: Time, spec: &Spec, saved: &Saved, rebooted: bool) {
        let aim = match saved.goal {
            Goal::Up { run, .. } => Some(run),
            Goal::Down | Goal::Removed => None,
        };
        let (run, back_off) = match &saved.phase {
            Phase::Waiting { last, start_at, wait } => {
                let back_off = matches!(wait, Wait::BackOff { .. }).then_some(*start_at);
                (last.as_ref().map(|last| last.run), back_off)
            }
            Phase::Starting { run }
            | Phase::Canceling { run, .. }
            | Phase::Killing { run }
            | Phase::CleaningUp { run, .. }
            | Phase::Ended { run, .. }
            | Phase::GivenUp { run, .. } => (Some(*run), None),
            Phase::Running { process } | Phase::Stopping { process, .. } => (Some(process.run), None),
            Phase::Created | Phase::Removing => (None, None),
        };
        let unwanted = aim.is_none_or(|aim| run.is_some_and(|run| run < aim));
        self.state = None;
        self.ready = saved.vitals.ready_since.is_some();
        self.asked = aim.is_some_and(|aim| run.is_none_or(|run| run < aim)) && back_off.is_none();
        self.down = aim.is_none();
        if rebooted && spec.restart.policy == Policy::Always && saved.goal == Goal::Down && run.is_some() {
            // Docker's meaning of `always`.
            (self.asked, self.down) = (true, false);
        }
        self.restarting = back_off;
        self.place = None;
        (self.may_be_stopped, self.may_be_killed) = match &saved.phase {
            Phase::Canceling { kill_at, .. } | Phase::Stopping { kill_at, .. } => (true, Some(*kill_at)),
            Phase::Killing { .. } => (true, Some(now)),
            _ if saved.goal == Goal::Removed => (true, Some(now)),
            Phase::Created
            | Phase::Waiting { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::CleaningUp { .. }
            | Phase::Ended { .. }
            | Phase::GivenUp { .. }
            | Phase::Removing => (unwanted, unwanted.then_some(now + spec.stop.grace)),
        };
        // A longer grace is remembered by a deadline, if at all.
        self.kill_at = self.may_be_killed;
        self.patience_from = Some(now);
        self.unhealthy = saved.vitals.verdict.is_some();
        self.heard = now;
        // What was told and not saved was told to nobody.
        self.triggered = saved.vitals.verdict == Some(Verdict::Watchdog);
        self.settled = settled(&saved.vitals.health);
        if saved.vitals.post_start {
            // It was not known how it ended, so it is carried out again.
            self.post_start = None;
        }
        self.probes.clear();
        self.hooks.clear();
        self.after.clear();
    }

    /// A run is about to begin.
    pub fn begin(&mut self, now: Time, spec: &Spec) {
        self.asked = false;
        self.restarting = None;
        self.place = None;
        self.may_be_stopped = false;
        self.may_be_killed = None;
        self.kill_at = None;
        self.longest_grace = spec.stop.grace;
        self.patience_from = Some(now);
        self.start_gave_up = false;
        self.unhealthy = false;
        self.watchdog = spec.notify.and_then(|notify| notify.watchdog);
        self.triggered = false;
        self.post_start = None;
        self.failures.clear();
        self.settled.clear();
        self.probes.clear();
        self.hooks.clear();
        self.after.clear();
    }

    /// It has asked to be taken for dead, or its hook after the start has failed: found wanting, even if nobody
    /// has said so yet.
    pub fn is_doomed(&self) -> bool {
        self.unhealthy || self.triggered || self.post_start == Some(false)
    }

    /// A start is to begin. It counts even if nothing comes of it, since the daemon is killed.
    pub fn intend(&mut self, age: Duration, phase: &Phase) {
        if let Phase::Starting { run } = phase
            && !matches!(&self.state, Some(State::Starting { run: begun, .. }) if begun == run)
        {
            self.starts.push_back(age);
            if self.starts.len() > 20 {
                self.starts.pop_front();
            }
        }
    }

    /// Somebody wants the run to end.
    pub fn permit(&mut self, now: Time, grace: Duration) {
        let at = now + grace;
        self.may_be_stopped = true;
        self.may_be_killed = Some(self.may_be_killed.map_or(at, |earlier| earlier.min(at)));
        self.longest_grace = self.longest_grace.max(grace);
    }

    /// It has been said to be in this state.
    pub fn announce(&mut self, now: Time, state: &State) {
        match state {
            State::Running { .. } => {
                self.heard = now;
                if !matches!(self.state, Some(State::Running { .. })) {
                    self.probes.values_mut().for_each(|probe| probe.excused = true);
                    self.patience_from = Some(now);
                }
            }
            State::Canceling { kill_at, .. } | State::Stopping { kill_at, .. } => {
                self.kill_at = Some(*kill_at)
            }
            State::Killing { .. } => {
                let starts = matches!(self.state, Some(State::Starting { .. } | State::Canceling { .. }));
                let too_long = self.patience_from.is_some_and(|from| from + START_LIMIT <= now);
                self.start_gave_up |= starts && too_long;
            }
            State::Created
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
            | State::Resuming { .. }
            | State::Yielding { .. }
            | State::CleaningUp { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
        self.state = Some(state.clone());
    }

    /// As long as the host slept, nobody could do anything.
    pub fn sleep(&mut self, slept: Duration) {
        for at in [&mut self.may_be_killed, &mut self.kill_at, &mut self.patience_from].into_iter().flatten()
        {
            *at = *at + slept;
        }
        self.heard = self.heard + slept;
        for probe in self.probes.values_mut() {
            probe.lost_at = probe.lost_at + slept;
        }
    }

    /// The host was started anew, and its clock with it.
    pub fn reboot(&mut self) {
        *self = Self { starts: std::mem::take(&mut self.starts), down: self.down, ..Self::default() };
    }
}

fn settled(health: &SavedHealth) -> BTreeMap<ProbeKind, bool> {
    let SavedHealth { startup, liveness, readiness, health } = *health;
    let saved = [
        (ProbeKind::Startup, startup),
        (ProbeKind::Liveness, liveness),
        (ProbeKind::Readiness, readiness),
        (ProbeKind::Health, health),
    ];
    saved.into_iter().filter_map(|(kind, saved)| Some((kind, saved?.settled?))).collect()
}
