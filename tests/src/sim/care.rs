//! What containers say of themselves, and what is found when they are looked at: probes, hooks, sd_notify.

use super::host::{Event, Host};
use super::invariants::{self, Check};
use super::ledger::InFlight;
use super::runtime::Life;
use std::time::Duration;
use wharf_supervisor::{Fact, Hook, Id, Notification, ProbeKind, ProbeResult, Run, State};

/// So long the supervisor waits for an answer beyond a probe's timeout.
const MARGIN: Duration = Duration::from_secs(30);

impl Host {
    /// A probe is begun; one of the same kind that is still under way is ended.
    pub fn probe(&mut self, id: Id, run: Run, kind: ProbeKind, timeout: Duration) -> Check {
        invariants::probes_only_while_running(self, id, run)?;
        invariants::probe_never_in_flight_twice(self, id, run, kind)?;
        self.numbers += 1;
        let number = self.numbers;
        let lost_at = self.now + timeout + MARGIN;
        let in_flight = InFlight { run, number, lost_at, excused: false };
        self.accounts.entry(id).or_default().probes.insert(kind, in_flight);
        if self.chance.percent(self.temper.loses / 3) {
            return Ok(());
        }
        let illness = self.runtime.get(id, run).map_or(0, |real| real.nature.illness);
        let (result, mut delay) = if self.temper.calm() {
            (ProbeResult::Success, Duration::ZERO)
        } else if self.chance.percent(self.temper.fails / 3) {
            (ProbeResult::Unknown("it broke".to_owned()), self.chance.up_to(timeout))
        } else if self.chance.percent(illness / 2) {
            (ProbeResult::Failure("no answer in time".to_owned()), timeout)
        } else if self.chance.percent(illness) {
            (ProbeResult::Failure("refused".to_owned()), self.chance.up_to(timeout))
        } else {
            (ProbeResult::Success, self.chance.up_to(timeout))
        };
        if self.chance.percent(self.temper.late / 3) {
            delay += self.chance.up_to(MARGIN * 2);
        }
        self.schedule(delay, Event::Probed { id, run, kind, number, result });
        Ok(())
    }

    /// Its answer, once or twice.
    pub fn probed(&mut self, id: Id, run: Run, kind: ProbeKind, number: u64, result: ProbeResult) -> Check {
        let Some(account) = self.accounts.get_mut(&id) else { return Ok(()) };
        if account.probes.get(&kind).is_none_or(|probe| probe.number != number) {
            return Ok(());
        }
        account.probes.remove(&kind);
        self.tell_at_once(Fact::Probed { id, run, kind, result })
    }

    /// What the daemon itself has done is not heard of late.
    fn tell_at_once(&mut self, fact: Fact) -> Check {
        let repeated = self.chance.percent(self.temper.repeats);
        self.tell_now(fact.clone())?;
        if repeated { self.tell_now(fact) } else { Ok(()) }
    }

    /// A hook is begun.
    pub fn hook(&mut self, id: Id, run: Run, hook: Hook, timeout: Duration) -> Check {
        if hook == Hook::PreStop {
            invariants::no_stop_without_a_reason(self, id, run)?;
            invariants::dependants_stop_first(self, id)?;
        }
        self.numbers += 1;
        let number = self.numbers;
        let account = self.accounts.entry(id).or_default();
        account.hooks.insert(hook, number);
        if hook == Hook::PostStart {
            account.patience_from = Some(self.now);
        }
        if !self.chance.percent(self.temper.stalls) {
            let delay = self.chance.up_to(timeout.min(Duration::from_secs(40)));
            let fails = self.chance.percent(self.temper.fails);
            self.schedule(delay, Event::HookEnds { id, run, hook, number, fails });
        }
        Ok(())
    }

    /// Its outcome, once or twice.
    pub fn hook_ends(&mut self, id: Id, run: Run, hook: Hook, number: u64, fails: bool) -> Check {
        let frozen = self.runtime.get(id, run).is_some_and(|real| real.frozen);
        let Some(account) = self.accounts.get_mut(&id) else { return Ok(()) };
        if account.hooks.get(&hook) != Some(&number) {
            return Ok(());
        }
        if frozen {
            // So is what it runs.
            self.schedule(Duration::from_secs(1), Event::HookEnds { id, run, hook, number, fails });
            return Ok(());
        }
        account.hooks.remove(&hook);
        let failure = fails.then(|| "it broke".to_owned());
        self.tell_at_once(Fact::HookEnded { id, run, hook, failure })
    }

    /// One that speaks sd_notify has a few things to say in its life.
    pub fn begins_to_speak(&mut self, id: Id, run: Run) {
        let Some(notify) = self.specs.get(&id).and_then(|spec| spec.notify) else { return };
        if self.temper.calm() || !self.chance.percent(self.temper.ill / 4) {
            let delay = self.delay(5, 20, 60);
            self.schedule(delay, Event::SaysReady { id, run });
        }
        if let Some(period) = notify.watchdog {
            self.schedule(period / 3, Event::Feeds { id, run });
        }
        if !self.temper.calm() {
            for _ in 0..self.chance.below(4) {
                let delay = self.chance.up_to(Duration::from_secs(300));
                self.schedule(delay, Event::Says { id, run });
            }
        }
    }

    pub fn says_ready(&mut self, id: Id, run: Run) {
        if self.runtime.awake(id, run).is_some() {
            let notification = Notification { ready: true, ..Notification::default() };
            self.tell(Fact::Notified { id, run, notification });
        }
    }

    pub fn says(&mut self, id: Id, run: Run) {
        if self.runtime.awake(id, run).is_none() {
            return;
        }
        let mut notification = Notification::default();
        let longer = self.chance.up_to(Duration::from_secs(100));
        match self.chance.below(12) {
            0 => notification.reloading = true,
            1 => notification.stopping = true,
            2 => notification.trigger = true,
            3 => notification.watchdog = Some(Duration::ZERO),
            4..=5 => {
                let period = Duration::from_secs(2 + self.chance.below(60));
                notification.watchdog = Some(period);
                self.schedule(period / 3, Event::Feeds { id, run });
            }
            6..=8 => notification.extend = Some(longer),
            _ => notification.status = Some(format!("number {}", self.chance.below(3))),
        }
        self.tell(Fact::Notified { id, run, notification });
    }

    pub fn feeds(&mut self, id: Id, run: Run) {
        let Some(real) = self.runtime.get(id, run) else { return };
        if real.life != Life::Alive {
            return;
        }
        let (awake, forgetful) = (!real.frozen, real.nature.forgetful);
        if awake && (self.temper.calm() || !self.chance.percent(forgetful)) {
            let notification = Notification { alive: true, ..Notification::default() };
            self.tell(Fact::Notified { id, run, notification });
        }
        if let Some(period) = self.accounts.get(&id).and_then(|account| account.watchdog) {
            self.schedule(period / 3, Event::Feeds { id, run });
        }
    }

    /// What the daemon is told from here on is no surprise to it.
    pub fn hear(&mut self, fact: &Fact) {
        let now = self.now;
        let state = self.daemon.as_ref().and_then(|daemon| Some(daemon.container(fact.id())?.state()));
        let run = state.and_then(State::run);
        if fact.run() != run {
            return;
        }
        // Nothing is heard of a run that is not known to live.
        let lives = state.is_some_and(|state| state.process().is_some());
        let Some(account) = self.accounts.get_mut(&fact.id()) else { return };
        match fact {
            Fact::Probed { kind, result: ProbeResult::Failure(_), .. } => {
                *account.failures.entry(*kind).or_default() += 1;
            }
            Fact::HookEnded { hook: Hook::PostStart, failure, .. } => {
                account.post_start = Some(failure.is_none() && account.post_start != Some(false));
            }
            Fact::HookEnded { hook: Hook::PreStop, .. } => {
                account.kill_at = account.kill_at.map(|at| at.max(now + invariants::LEAST_GRACE));
            }
            Fact::Notified { notification, .. } => {
                if notification.alive {
                    account.heard = now;
                }
                if let Some(period) = notification.watchdog.filter(|period| !period.is_zero()) {
                    account.watchdog = Some(account.watchdog.map_or(period, |known| known.min(period)));
                    account.heard = now;
                }
                if let Some(longer) = notification.extend {
                    account.kill_at = account.kill_at.map(|at| at.max(now + longer));
                }
                account.triggered |= lives && notification.trigger;
            }
            Fact::CreateFailed { .. }
            | Fact::Started { .. }
            | Fact::StartFailed { .. }
            | Fact::Exited { .. }
            | Fact::Oom { .. }
            | Fact::Probed { .. }
            | Fact::Frozen { .. }
            | Fact::FreezeFailed { .. }
            | Fact::Thawed { .. }
            | Fact::ThawFailed { .. }
            | Fact::Limited { .. }
            | Fact::CleanedUp { .. }
            | Fact::CleanupFailed { .. }
            | Fact::Deleted { .. }
            | Fact::DeleteFailed { .. } => {}
        }
    }
}
