//! How a run is beside being alive: what its probes, its hooks and the container itself say.

use crate::{Health, SavedHealth};
use crate::{Notification, Notify, ProbeKind, Probes, Spec, Time};
use std::fmt;
use std::time::Duration;

/// How a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vitals {
    health: Health,
    /// The hook after the start is under way; without outcome it has failed then.
    post_start: Option<Time>,
    /// `READY=1` has been said, and not taken back.
    notified: bool,
    /// `STOPPING=1` has been said.
    leaving: bool,
    status: String,
    watchdog: Option<Watchdog>,
    ready_since: Option<Time>,
    ready_for: Duration,
    verdict: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watchdog {
    period: Duration,
    at: Time,
}

/// Why a run has to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This probe has failed.
    Probe(ProbeKind),
    /// It has not said `WATCHDOG=1` in time, or has asked for it.
    Watchdog,
    /// The hook after the start has failed.
    PostStart,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(kind) => write!(f, "its {} probe failed", kind.name()),
            Self::Watchdog => f.write_str("it did not feed its watchdog"),
            Self::PostStart => f.write_str("its postStart hook failed"),
        }
    }
}

/// What is durable of it; the same as long as nothing but time passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedVitals {
    /// Results and counters of the probes.
    pub health: SavedHealth,
    /// The hook after the start has not ended yet.
    pub post_start: bool,
    /// `READY=1` has been said.
    pub notified: bool,
    /// `STOPPING=1` has been said.
    pub leaving: bool,
    /// The last `STATUS=`.
    pub status: String,
    /// The watchdog's period, if it is not the definition's.
    pub watchdog: Option<Duration>,
    /// Ready since then.
    pub ready_since: Option<Time>,
    /// The longest time it has been ready before.
    pub ready_for: Duration,
    /// Why it has to end.
    pub verdict: Option<Verdict>,
}

impl Vitals {
    /// Those of a run that has been started, as is known now; `post_start` is the time its hook has, if there is one.
    pub(crate) fn new(spec: &Spec, started_at: Time, now: Time, post_start: Option<Time>) -> Self {
        let period = spec.notify.and_then(|notify| notify.watchdog);
        Self {
            health: Health::new(&spec.probes, started_at),
            post_start,
            notified: false,
            leaving: false,
            status: String::new(),
            watchdog: period.map(|period| Watchdog { period, at: now + period }),
            ready_since: None,
            ready_for: Duration::ZERO,
            verdict: None,
        }
    }

    /// Those of a run that an earlier supervisor looked after. Nobody could hear it in between, so its watchdog begins
    /// anew.
    pub(crate) fn restore(
        spec: &Spec,
        saved: SavedVitals,
        started_at: Time,
        now: Time,
        post_start: Option<Time>,
    ) -> Self {
        let period = saved.watchdog.or(spec.notify.and_then(|notify| notify.watchdog));
        Self {
            health: Health::restore(&spec.probes, saved.health, started_at, now),
            post_start,
            notified: saved.notified,
            leaving: saved.leaving,
            status: saved.status,
            watchdog: period.map(|period| Watchdog { period, at: now + period }),
            ready_since: saved.ready_since,
            ready_for: saved.ready_for,
            verdict: saved.verdict,
        }
    }

    pub(crate) fn to_save(&self, spec: &Spec) -> SavedVitals {
        let period = self.watchdog.map(|watchdog| watchdog.period);
        SavedVitals {
            health: self.health.to_save(),
            post_start: self.post_start.is_some(),
            notified: self.notified,
            leaving: self.leaving,
            status: self.status.clone(),
            watchdog: period.filter(|_| period != spec.notify.and_then(|notify| notify.watchdog)),
            ready_since: self.ready_since,
            ready_for: self.ready_for,
            verdict: self.verdict,
        }
    }

    /// What its probes say.
    pub fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn health_mut(&mut self) -> &mut Health {
        &mut self.health
    }

    /// What it said last of itself.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// Is it ready?
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }

    /// Why it has to end, if it has.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Has the startup come to its end, and is there nothing against its being healthy?
    pub(crate) fn is_healthy(&self, probes: &Probes) -> bool {
        self.post_start.is_none() && self.verdict.is_none() && self.health.is_healthy(probes)
    }

    /// The longest time it has been ready, `now` included.
    pub(crate) fn ready_for(&self, now: Time) -> Duration {
        self.ready_since.map_or(self.ready_for, |since| now.since(since).max(self.ready_for))
    }

    /// Look at everything again; `lives` says whether the container runs, and is to. True if its readiness changed.
    pub(crate) fn look(&mut self, spec: &Spec, now: Time, lives: bool) -> bool {
        if self.verdict.is_none() && lives {
            self.verdict = if self.post_start.is_some_and(|until| until <= now) {
                Some(Verdict::PostStart)
            } else if self.watchdog.is_some_and(|watchdog| watchdog.at <= now) {
                Some(Verdict::Watchdog)
            } else {
                self.health.has_failed(&spec.probes).map(Verdict::Probe)
            };
        }
        let says_so = !spec.notify.is_some_and(|notify: Notify| notify.ready) || self.notified;
        let ready = lives
            && says_so
            && !self.leaving
            && self.post_start.is_none()
            && self.verdict.is_none()
            && self.health.is_ready(&spec.probes);
        match (ready, self.ready_since) {
            (true, None) => self.ready_since = Some(now),
            (false, Some(_)) => {
                self.ready_for = self.ready_for(now);
                self.ready_since = None;
            }
            (true, Some(_)) | (false, None) => return false,
        }
        true
    }

    /// When there is something to do, or overdue.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let watchdog = self.watchdog.map(|watchdog| watchdog.at);
        [self.health.deadline(), self.post_start, watchdog].into_iter().flatten().min()
    }

    pub(crate) fn awaits_post_start(&self) -> bool {
        self.post_start.is_some()
    }

    pub(crate) fn post_start_ended(&mut self, failed: bool) {
        self.post_start = None;
        if failed && self.verdict.is_none() {
            self.verdict = Some(Verdict::PostStart);
        }
    }

    pub(crate) fn notified(&mut self, now: Time, notification: &Notification) {
        self.notified = (self.notified && !notification.reloading) || notification.ready;
        self.leaving |= notification.stopping;
        if let Some(status) = &notification.status {
            self.status.clone_from(status);
        }
        if let Some(period) = notification.watchdog {
            self.watchdog = (!period.is_zero()).then_some(Watchdog { period, at: now + period });
        }
        if let Some(watchdog) = &mut self.watchdog {
            if notification.alive {
                watchdog.at = now + watchdog.period;
            }
            if let Some(longer) = notification.extend {
                watchdog.at = watchdog.at.max(now + longer);
            }
        }
        if let (Some(until), Some(longer)) = (&mut self.post_start, notification.extend) {
            *until = (*until).max(now + longer);
        }
        if notification.trigger && self.verdict.is_none() {
            self.verdict = Some(Verdict::Watchdog);
        }
    }

    /// It is frozen, or to be stopped: nothing is asked of it any more.
    pub(crate) fn suspend(&mut self) {
        self.health.abandon();
    }

    /// Nobody could do anything for so long.
    pub(crate) fn slept(&mut self, slept: Duration) {
        self.health.slept(slept);
        if let Some(until) = &mut self.post_start {
            *until = *until + slept;
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.at = watchdog.at + slept;
        }
    }

    /// It goes on after it was frozen, and so does its hook, which gets as long again.
    pub(crate) fn resume(&mut self, now: Time, post_start: Time) {
        self.health.resume(now);
        if let Some(until) = &mut self.post_start {
            *until = (*until).max(post_start);
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.at = now + watchdog.period;
        }
    }
}
