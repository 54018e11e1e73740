//! When a container's probes are due, and what their results come to. How one is carried out is not known here.
//!
//! ```text
//!            due                     probed
//!   waiting ─────► in flight ───────────────────────► streak of equal results ──► settled at the threshold
//!      ▲              │ no answer in time, Unknown │                                   │
//!      └──────────────┴────────────────────────────┘       startup: either ────────────┤
//!                                                          liveness: failure ──────────┴──► on hold
//! ```
//!
//! Startup, liveness and readiness tick as in the kubelet: at the start of the run and then every period; a tick
//! before the initial delay is skipped, one that falls into a running probe is dropped. Until the startup probe
//! has succeeded no other one runs; then readiness is probed at once. [`ProbeKind::Health`] is Docker's
//! HEALTHCHECK: its interval lies between the end of one probe and the start of the next.

use crate::Time;
use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The shortest period and timeout: Kubernetes knows whole seconds only, but a crash can be noticed earlier.
const SHORTEST: Duration = Duration::from_millis(100);
/// Beyond its timeout a probe may take this long to get going on a busy host (Docker allows an exec as much)
/// before its answer counts as lost.
const MARGIN: Duration = Duration::from_secs(30);

/// What a probe is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it come up? No other probe runs before.
    Startup,
    /// Does it still work? If not, it is restarted.
    Liveness,
    /// Can it do its work right now? Nothing is restarted.
    Readiness,
    /// An image's HEALTHCHECK.
    Health,
}

impl ProbeKind {
    /// All of them, in the order in which they are begun.
    pub const ALL: [Self; 4] = [Self::Startup, Self::Liveness, Self::Readiness, Self::Health];

    /// In lower case, as in a spec document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::Health => "health",
        }
    }
}

/// When a probe runs and how often it has to say the same to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// From the start of the run; not for [`ProbeKind::Health`].
    pub initial_delay: Duration,
    /// From one tick to the next; for [`ProbeKind::Health`] from the end of one to the start of the next.
    pub period: Duration,
    /// After which it has failed.
    pub timeout: Duration,
    /// So many in a row settle on success.
    pub success_threshold: u32,
    /// So many in a row settle on failure.
    pub failure_threshold: u32,
    /// Instead of the container's own, when this probe's failure ends the run.
    pub grace: Option<Duration>,
    /// Failures of a probe begun within this time of the start do not count until one has succeeded; for
    /// [`ProbeKind::Health`] only.
    pub start_period: Duration,
    /// Instead of `period` within `start_period` until one has succeeded; for [`ProbeKind::Health`] only.
    pub start_interval: Duration,
}

/// The kubelet's; the last two are Docker's.
impl Default for Probe {
    fn default() -> Self {
        Self {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
            grace: None,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
        }
    }
}

/// Why a [`Probe`] is none, with the field as a spec document calls it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadProbe {
    /// Which one.
    pub field: &'static str,
    /// What it must be.
    pub reason: String,
}

impl Probe {
    /// Docker's defaults for a HEALTHCHECK.
    pub fn health() -> Self {
        Self { period: Duration::from_secs(30), timeout: Duration::from_secs(30), ..Self::default() }
    }

    /// Whether it can be one of this kind.
    pub fn validate(&self, kind: ProbeKind) -> Result<(), BadProbe> {
        let bad = |field, reason: &str| Err(BadProbe { field, reason: reason.to_owned() });
        let names = FieldNames::of(kind);
        let shortest = [
            (names.period, self.period),
            (names.timeout, self.timeout),
            // Where there is no start period, it does not matter.
            ("startInterval", if self.start_period.is_zero() { SHORTEST } else { self.start_interval }),
        ];
        for (field, length) in shortest {
            if length < SHORTEST {
                return bad(field, "must be greater than or equal to 0.1 (seconds)");
            }
        }
        if self.failure_threshold < 1 {
            return bad(names.failures, "must be greater than or equal to 1");
        }
        match kind {
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Health if self.success_threshold != 1 => {
                bad("successThreshold", &format!("must be 1 for {}", kind.name()))
            }
            ProbeKind::Readiness if self.success_threshold < 1 => {
                bad("successThreshold", "must be greater than or equal to 1")
            }
            ProbeKind::Readiness if self.grace.is_some() => {
                bad("terminationGracePeriodSeconds", "must not be set for readinessProbes")
            }
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Health
                if self.grace == Some(Duration::ZERO) =>
            {
                bad("terminationGracePeriodSeconds", "must be greater than 0")
            }
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness | ProbeKind::Health => Ok(()),
        }
    }
}

/// What Kubernetes and Docker call the same.
struct FieldNames {
    period: &'static str,
    timeout: &'static str,
    failures: &'static str,
}

impl FieldNames {
    fn of(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => {
                Self { period: "periodSeconds", timeout: "timeoutSeconds", failures: "failureThreshold" }
            }
            ProbeKind::Health => Self { period: "interval", timeout: "timeout", failures: "retries" },
        }
    }
}

/// The probes of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probes {
    /// [`ProbeKind::Startup`].
    pub startup: Option<Probe>,
    /// [`ProbeKind::Liveness`].
    pub liveness: Option<Probe>,
    /// [`ProbeKind::Readiness`].
    pub readiness: Option<Probe>,
    /// [`ProbeKind::Health`].
    pub health: Option<Probe>,
    /// An unhealthy container is restarted, as if it were a liveness probe that failed.
    pub health_restarts: bool,
}

impl Probes {
    /// The one of this kind.
    pub fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Health => self.health.as_ref(),
        }
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.configured().next().is_none()
    }

    fn configured(&self) -> impl Iterator<Item = (ProbeKind, &Probe)> {
        ProbeKind::ALL.into_iter().filter_map(|kind| Some((kind, self.get(kind)?)))
    }

    /// Nothing more is to be learned in this run: either the answer is final or the run is about to end.
    fn hold_after(&self, kind: ProbeKind, success: bool) -> bool {
        match kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !success,
            ProbeKind::Readiness => false,
            ProbeKind::Health => !success && self.health_restarts,
        }
    }
}

/// What one probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// As it should be.
    Success,
    /// Not as it should be, a timeout included; a sentence for people.
    Failure(String),
    /// It could not be carried out, which says nothing about the container: nothing is counted. A sentence for
    /// people.
    Unknown(String),
}

/// Enough equal results in a row have changed what is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which probe.
    pub kind: ProbeKind,
    /// On what.
    pub success: bool,
    /// Why it failed.
    pub message: Option<String>,
}

/// All probes of a container in one word, Docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthStatus {
    /// It has no probes.
    None,
    /// Not every probe has settled yet.
    Starting,
    /// All probes have settled on success.
    Healthy,
    /// A probe has settled on failure.
    Unhealthy,
}

impl HealthStatus {
    /// In lower case, as `docker inspect` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one probe stands, to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check<'a> {
    /// Which.
    pub kind: ProbeKind,
    /// What is believed, once there were enough equal results.
    pub settled: Option<bool>,
    /// What the last one said.
    pub last: Option<bool>,
    /// So many in a row said that, counted up to the threshold.
    pub streak: u32,
    /// Why the last one failed or could not be carried out.
    pub message: Option<&'a str>,
    /// It is under way.
    pub in_flight: bool,
}

/// What outlives the supervisor of [`Health`]: plain data that does not change while results stay the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedHealth {
    /// [`ProbeKind::Startup`].
    pub startup: Option<SavedProbe>,
    /// [`ProbeKind::Liveness`].
    pub liveness: Option<SavedProbe>,
    /// [`ProbeKind::Readiness`].
    pub readiness: Option<SavedProbe>,
    /// [`ProbeKind::Health`].
    pub health: Option<SavedProbe>,
}

impl SavedHealth {
    fn get(&self, kind: ProbeKind) -> Option<SavedProbe> {
        match kind {
            ProbeKind::Startup => self.startup,
            ProbeKind::Liveness => self.liveness,
            ProbeKind::Readiness => self.readiness,
            ProbeKind::Health => self.health,
        }
    }
}

/// Of one probe; see [`Check`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SavedProbe {
    /// What is believed.
    pub settled: Option<bool>,
    /// What the last one said.
    pub last: Option<bool>,
    /// So many in a row, up to the threshold.
    pub streak: u32,
}

/// How a run is, as its probes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    started_at: Time,
    abandoned: bool,
    tracks: BTreeMap<ProbeKind, Track>,
}

/// Where one probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Track {
    /// Ticks are at this time and every period after it.
    ticks_from: Time,
    next_at: Time,
    in_flight: Option<Attempt>,
    on_hold: bool,
    believed: SavedProbe,
    message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    begun: Time,
    /// An answer that is lost must not end the probing.
    give_up_at: Time,
}

impl Health {
    /// A run has started.
    pub fn new(probes: &Probes, started_at: Time) -> Self {
        Self::restore(probes, SavedHealth::default(), started_at, started_at)
    }

    /// A run goes on under a new supervisor: what was believed still is. Ticks are where they would have been,
    /// so containers that were started one after another are not all probed at once; only who is not ready is.
    pub fn restore(probes: &Probes, saved: SavedHealth, started_at: Time, now: Time) -> Self {
        let mut health = Self { started_at, abandoned: false, tracks: BTreeMap::new() };
        for (kind, probe) in probes.configured() {
            let believed = saved.get(kind).unwrap_or_default();
            let ticks_from = match kind {
                ProbeKind::Readiness if believed.settled != Some(true) => now,
                ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness | ProbeKind::Health => {
                    started_at
                }
            };
            let next_at = match kind {
                ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => {
                    tick(ticks_from, probe.period, now.max(started_at + probe.initial_delay))
                }
                ProbeKind::Health => {
                    let interval = interval(probe, &believed, started_at, now);
                    tick(started_at, interval, just_after(now))
                }
            };
            let on_hold = believed.settled.is_some_and(|success| probes.hold_after(kind, success));
            let track = Track { ticks_from, next_at, in_flight: None, on_hold, believed, message: None };
            health.tracks.insert(kind, track);
        }
        health
    }

    /// What [`Health::restore`] takes.
    pub fn to_save(&self) -> SavedHealth {
        let of = |kind| self.tracks.get(&kind).map(|track| track.believed);
        SavedHealth {
            startup: of(ProbeKind::Startup),
            liveness: of(ProbeKind::Liveness),
            readiness: of(ProbeKind::Readiness),
            health: of(ProbeKind::Health),
        }
    }

    /// When [`Health::due`] has something to do next.
    pub fn deadline(&self) -> Option<Time> {
        if self.abandoned {
            return None;
        }
        let waits = |(kind, track): (&ProbeKind, &Track)| match track.in_flight {
            Some(attempt) => Some(attempt.give_up_at),
            None if self.is_idle(*kind, track) => None,
            None => Some(track.next_at),
        };
        self.tracks.iter().filter_map(waits).min()
    }

    /// Which probes to begin now. If an earlier one of the same kind is still under way, its answer came too
    /// late and it is to be ended.
    pub fn due(&mut self, probes: &Probes, now: Time) -> Vec<ProbeKind> {
        if self.abandoned {
            return Vec::new();
        }
        let gate = self.is_open();
        let mut due = Vec::new();
        for (kind, probe) in probes.configured() {
            let Some(track) = self.tracks.get_mut(&kind) else { continue };
            if track.in_flight.is_some_and(|attempt| attempt.give_up_at <= now) {
                track.message = Some("the probe gave no answer".to_owned());
                track.finish(kind, probe, self.started_at, now);
            }
            let idle = track.on_hold || (kind != ProbeKind::Startup && !gate);
            if track.in_flight.is_none() && !idle && track.next_at <= now {
                track.begin(kind, probe, self.started_at, now);
                due.push(kind);
            }
        }
        due
    }

    /// A probe has answered. What comes of it if that changes what is believed, or is the first of its kind.
    pub fn probed(
        &mut self,
        probes: &Probes,
        now: Time,
        kind: ProbeKind,
        result: ProbeResult,
    ) -> Option<Settled> {
        let probe = probes.get(kind)?;
        let started_at = self.started_at;
        let track = self.tracks.get_mut(&kind)?;
        let begun = track.in_flight?.begun;
        let settled = match result {
            ProbeResult::Success => {
                track.message = None;
                track.count(true, probe.success_threshold)
            }
            ProbeResult::Failure(message) => {
                track.message = Some(message);
                let forgiven = kind == ProbeKind::Health
                    && track.believed.settled.is_none()
                    && begun.since(started_at) < probe.start_period;
                if forgiven {
                    track.believed.last = Some(false);
                    None
                } else {
                    track.count(false, probe.failure_threshold)
                }
            }
            ProbeResult::Unknown(message) => {
                track.message = Some(message);
                None
            }
        };
        track.finish(kind, probe, started_at, now);
        let success = settled?;
        track.on_hold = probes.hold_after(kind, success);
        let settled = Settled { kind, success, message: track.message.clone() };
        if kind == ProbeKind::Startup && success {
            self.open(probes, now);
        }
        Some(settled)
    }

    /// The run is frozen or about to end: nothing is in flight any more, no late answer counts, nothing is due.
    pub fn abandon(&mut self) {
        self.abandoned = true;
        for track in self.tracks.values_mut() {
            track.in_flight = None;
        }
    }

    /// The run is not frozen any more. What was missed is made up for, once.
    pub fn resume(&mut self, now: Time) {
        self.abandoned = false;
        for track in self.tracks.values_mut() {
            track.next_at = track.next_at.max(now);
        }
    }

    /// The host was suspended for so long: no answer is late for that.
    pub fn slept(&mut self, slept: Duration) {
        for attempt in self.tracks.values_mut().filter_map(|track| track.in_flight.as_mut()) {
            attempt.give_up_at = attempt.give_up_at + slept;
        }
    }

    /// The startup probe has succeeded, or there is none.
    pub fn is_started(&self, probes: &Probes) -> bool {
        probes.startup.is_none() || self.believes(ProbeKind::Startup) == Some(true)
    }

    /// It can do its work: it has started, and the probes that say so do, if there are any.
    pub fn is_ready(&self, probes: &Probes) -> bool {
        let says_so = |kind| probes.get(kind).is_none() || self.believes(kind) == Some(true);
        self.is_started(probes) && says_so(ProbeKind::Readiness) && says_so(ProbeKind::Health)
    }

    /// Does the health check say so, if there is one?
    pub fn is_healthy(&self, probes: &Probes) -> bool {
        self.is_started(probes) && (probes.health.is_none() || self.believes(ProbeKind::Health) == Some(true))
    }

    /// The probe because of which the run has to end.
    pub fn has_failed(&self, probes: &Probes) -> Option<ProbeKind> {
        let ends_the_run = |kind: &ProbeKind| match kind {
            ProbeKind::Startup | ProbeKind::Liveness => true,
            ProbeKind::Readiness => false,
            ProbeKind::Health => probes.health_restarts,
        };
        let failed = |(kind, _): (ProbeKind, &Probe)| {
            (ends_the_run(&kind) && self.believes(kind) == Some(false)).then_some(kind)
        };
        probes.configured().find_map(failed)
    }

    /// All of it in one word.
    pub fn status(&self) -> HealthStatus {
        let settled = || self.tracks.values().map(|track| track.believed.settled);
        if self.tracks.is_empty() {
            HealthStatus::None
        } else if settled().any(|success| success == Some(false)) {
            HealthStatus::Unhealthy
        } else if settled().any(|success| success.is_none()) {
            HealthStatus::Starting
        } else {
            HealthStatus::Healthy
        }
    }

    /// Each probe by itself.
    pub fn checks(&self) -> impl Iterator<Item = Check<'_>> {
        self.tracks.iter().map(|(kind, track)| Check {
            kind: *kind,
            settled: track.believed.settled,
            last: track.believed.last,
            streak: track.believed.streak,
            message: track.message.as_deref(),
            in_flight: track.in_flight.is_some(),
        })
    }

    fn believes(&self, kind: ProbeKind) -> Option<bool> {
        self.tracks.get(&kind)?.believed.settled
    }

    /// No startup probe stands before the others.
    fn is_open(&self) -> bool {
        !self.tracks.contains_key(&ProbeKind::Startup) || self.believes(ProbeKind::Startup) == Some(true)
    }

    fn is_idle(&self, kind: ProbeKind, track: &Track) -> bool {
        track.on_hold || (kind != ProbeKind::Startup && !self.is_open())
    }

    /// The startup probe has succeeded. Liveness has ticked on without being looked at; readiness begins now,
    /// and ticks from now, so that dependants need not wait for a period.
    fn open(&mut self, probes: &Probes, now: Time) {
        for (kind, track) in &mut self.tracks {
            let Some(probe) = probes.get(*kind) else { continue };
            match kind {
                ProbeKind::Startup => {}
                ProbeKind::Liveness => {
                    let earliest = now.max(self.started_at + probe.initial_delay);
                    track.next_at = tick(track.ticks_from, probe.period, earliest);
                }
                ProbeKind::Readiness => {
                    let earliest = now.max(self.started_at + probe.initial_delay);
                    track.ticks_from = now;
                    track.next_at = tick(now, probe.period, earliest);
                }
                ProbeKind::Health => {
                    track.next_at = now + interval(probe, &track.believed, self.started_at, now);
                }
            }
        }
    }
}

impl Track {
    fn begin(&mut self, kind: ProbeKind, probe: &Probe, started_at: Time, now: Time) {
        self.in_flight = Some(Attempt { begun: now, give_up_at: now + probe.timeout + MARGIN });
        // Should its answer never matter, this stands.
        self.next_at = match kind {
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => {
                tick(self.ticks_from, probe.period, just_after(now))
            }
            ProbeKind::Health => now + interval(probe, &self.believed, started_at, now),
        };
    }

    fn finish(&mut self, kind: ProbeKind, probe: &Probe, started_at: Time, now: Time) {
        self.in_flight = None;
        match kind {
            ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => {
                if self.next_at < now {
                    self.next_at = tick(self.ticks_from, probe.period, now);
                }
            }
            ProbeKind::Health => self.next_at = now + interval(probe, &self.believed, started_at, now),
        }
    }

    /// One more result; the one that is settled on if it was not believed before.
    fn count(&mut self, success: bool, threshold: u32) -> Option<bool> {
        let before = if self.believed.last == Some(success) { self.believed.streak } else { 0 };
        self.believed.last = Some(success);
        self.believed.streak = before.saturating_add(1).min(threshold);
        if self.believed.streak < threshold || self.believed.settled == Some(success) {
            return None;
        }
        self.believed.settled = Some(success);
        Some(success)
    }
}

/// From the end of one HEALTHCHECK to the start of the next.
fn interval(probe: &Probe, believed: &SavedProbe, started_at: Time, now: Time) -> Duration {
    if believed.settled.is_none() && now.since(started_at) < probe.start_period {
        probe.start_interval
    } else {
        probe.period
    }
}

/// A tick that is at this time has been.
fn just_after(time: Time) -> Time {
    Time(time.0.saturating_add(1))
}

/// The first of `from`, `from + period`, … that is not before `earliest`.
fn tick(from: Time, period: Duration, earliest: Time) -> Time {
    let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    let periods = earliest.0.saturating_sub(from.0).div_ceil(period);
    Time(from.0.saturating_add(periods.saturating_mul(period)))
}
