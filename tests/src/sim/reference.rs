//! Restarts and probes once more: as the systems do it that users know, not as the supervisor does. Where it reckons
//! ahead, this does the obvious; time goes in steps, curves are lists, histories are complete.

use std::collections::BTreeMap;
use std::time::Duration;
use wharf_supervisor::{
    BackOff, Codes, Ending, GaveUp, Growth, Policy, Probe, ProbeKind, Probes, Reset, Restart, RuleAction,
};

/// An answer that has not come so long after the timeout is lost; no system says what it does then.
const LOST: Duration = Duration::from_secs(30);

/// Does the policy want another run?
pub fn wants(restart: &Restart, ending: &Ending, unhealthy: bool) -> bool {
    let code = match ending {
        Ending::Exited(exit) if !unhealthy => exit.code(),
        Ending::Exited(_) | Ending::Failed(_) => None,
    };
    wants_after(restart, code, code != Some(0))
}

/// An exit rule that fits comes first, in their order (KEP-5307); then the policy.
pub fn wants_after(restart: &Restart, code: Option<i32>, failed: bool) -> bool {
    for rule in &restart.rules {
        let fits = match (&rule.codes, code) {
            (Codes::In(codes), Some(code)) => codes.contains(&code),
            (Codes::NotIn(codes), Some(code)) => !codes.contains(&code),
            (Codes::In(_) | Codes::NotIn(_), None) => false,
        };
        if fits {
            return rule.action == RuleAction::Restart;
        }
    }
    match restart.policy {
        Policy::No => false,
        Policy::OnFailure { .. } => failed,
        Policy::Always | Policy::UnlessStopped => true,
    }
}

/// The delay after so many others in a row, without chance.
pub fn delay(back_off: &BackOff, earlier: u32) -> Duration {
    let (initial, max) = (back_off.initial.as_secs_f64(), back_off.max.as_secs_f64());
    let mut curve = if back_off.first_at_once { vec![0.0] } else { vec![] };
    curve.push(initial.min(max));
    for step in 1..=earlier.min(2000) {
        curve.push(match back_off.growth {
            Growth::Factor { thousandths } => {
                let last = curve.last().copied().unwrap_or_default();
                (last * f64::from(thousandths) / 1000.0).min(max)
            }
            // systemd: RestartSec, then r0·(rn/r0)^((n−1)/steps), after that RestartMaxDelaySec.
            Growth::Steps(steps) if step >= steps => max,
            Growth::Steps(steps) => initial * (max / initial).powf(f64::from(step) / f64::from(steps)),
        });
    }
    Duration::from_secs_f64(curve[earlier.min(2000) as usize])
}

/// A run that has ended by itself, in seconds since some beginning.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// When it started.
    pub started: Duration,
    /// When it ended.
    pub ended: Duration,
    /// How long it was ready.
    pub ready_for: Duration,
    /// As a shell shows it.
    pub code: Option<i32>,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Nothing.
    Stay,
    /// Another run after this delay, without chance.
    After(Duration),
    /// A limit.
    GiveUp(GaveUp),
}

/// One container's restarts.
#[derive(Debug, Clone, Default)]
pub struct Restarting {
    /// When restarts were decided, since the last start by hand.
    decided: Vec<Duration>,
    /// How many of these are in the row that goes on.
    row: u32,
    /// The last start that was a restart.
    restarted: Option<Duration>,
    /// systemd's rate limit: when its interval began, and what was let through in it.
    limit: Option<(Duration, u32)>,
}

impl Restarting {
    /// A run has ended by itself.
    pub fn ended(&mut self, restart: &Restart, end: End) -> Next {
        if !wants_after(restart, end.code, end.code != Some(0)) {
            return Next::Stay;
        }
        let all = self.decided.len() as u32;
        if let Policy::OnFailure { max: Some(max) } = restart.policy
            && all >= max
        {
            return Next::GiveUp(GaveUp::Retries { max });
        }
        if let Some(attempts) = restart.attempts {
            // Swarm: without a window all of them, otherwise those within the window before the end.
            let counts = |at: &&Duration| attempts.window.is_none_or(|window| **at + window > end.ended);
            let (max, window) = (attempts.max, attempts.window);
            if self.decided.iter().filter(counts).count() as u32 >= max {
                return Next::GiveUp(GaveUp::Attempts { max, window });
            }
        }
        let over = match restart.back_off.reset {
            Reset::Ready(after) => end.ready_for >= after,
            // Docker: executionDuration of 10 s or more.
            Reset::Running(after) => end.ended - end.started >= after,
            // The kubelet: finish − last start > 2×max.
            Reset::Quiet(after) => self.restarted.is_some_and(|at| end.ended.saturating_sub(at) > after),
            Reset::Never => false,
        };
        self.row = if over { 0 } else { self.row };
        let delay = delay(&restart.back_off, self.row);
        self.row += 1;
        self.decided.push(end.ended);
        Next::After(delay)
    }

    /// A start is to begin: may it?
    pub fn starts(&mut self, restart: &Restart, at: Duration) -> Result<(), GaveUp> {
        if let Some(limit) = restart.start_limit {
            match &mut self.limit {
                Some((from, count)) if at - *from <= limit.interval => {
                    if *count >= limit.burst {
                        return Err(GaveUp::StartLimit { burst: limit.burst, interval: limit.interval });
                    }
                    *count += 1;
                }
                limit => *limit = Some((at, 1)),
            }
        }
        self.restarted = (!self.decided.is_empty()).then_some(at);
        Ok(())
    }

    /// Somebody has started it by hand.
    pub fn by_hand(&mut self) {
        *self = Self { limit: self.limit, ..Self::default() };
    }

    /// `systemctl reset-failed`.
    pub fn reset_failed(&mut self) {
        *self = Self::default();
    }
}

/// The probes of one run: the kubelet's workers (2.4) and Docker's monitor (2.9), a step at a time.
#[derive(Debug, Clone)]
pub struct Workers {
    now: Duration,
    workers: BTreeMap<ProbeKind, Worker>,
    health_restarts: bool,
}

#[derive(Debug, Clone)]
struct Worker {
    probe: Probe,
    /// The ticker began then.
    ticks_from: Duration,
    /// Docker: what is left of the interval.
    left: Duration,
    begun: Option<Duration>,
    on_hold: bool,
    /// What `results` holds: nothing, or what was set at a threshold.
    settled: Option<bool>,
    last: Option<bool>,
    result_run: u32,
}

impl Workers {
    /// A run starts.
    pub fn new(probes: &Probes) -> Self {
        let mut workers = BTreeMap::new();
        for kind in ProbeKind::ALL {
            if let Some(probe) = probes.get(kind) {
                let mut worker = Worker {
                    probe: *probe,
                    ticks_from: Duration::ZERO,
                    left: Duration::ZERO,
                    begun: None,
                    on_hold: false,
                    settled: None,
                    last: None,
                    result_run: 0,
                };
                worker.left = worker.interval(Duration::ZERO);
                workers.insert(kind, worker);
            }
        }
        Self { now: Duration::ZERO, workers, health_restarts: probes.health_restarts }
    }

    /// Time passes.
    pub fn pass(&mut self, step: Duration) {
        self.now += step;
        let started = self.started();
        for (kind, worker) in &mut self.workers {
            if *kind == ProbeKind::Health && worker.begun.is_none() && started {
                worker.left = worker.left.saturating_sub(step);
            }
        }
    }

    /// Which probes begin now.
    pub fn begin(&mut self) -> Vec<ProbeKind> {
        let (now, started) = (self.now, self.started());
        let mut begun = Vec::new();
        for (kind, worker) in &mut self.workers {
            if worker.begun.is_some_and(|begun| now >= begun + worker.probe.timeout + LOST) {
                worker.begun = None;
                worker.left = worker.interval(now);
            }
            let gated = *kind != ProbeKind::Startup && !started;
            let ticks = match kind {
                ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness => {
                    let since = (now - worker.ticks_from).as_nanos();
                    since.is_multiple_of(worker.probe.period.as_nanos()) && now >= worker.probe.initial_delay
                }
                ProbeKind::Health => worker.left.is_zero(),
            };
            if ticks && !gated && !worker.on_hold && worker.begun.is_none() {
                worker.begun = Some(now);
                begun.push(*kind);
            }
        }
        begun
    }

    /// A probe has come back: success, failure, or an error that says nothing.
    pub fn answer(&mut self, kind: ProbeKind, result: Option<bool>) {
        let (now, restarts) = (self.now, self.health_restarts);
        let Some(worker) = self.workers.get_mut(&kind) else { return };
        let Some(begun) = worker.begun.take() else { return };
        let excused =
            kind == ProbeKind::Health && worker.settled.is_none() && begun < worker.probe.start_period;
        match result {
            Some(false) if excused => worker.last = Some(false),
            Some(success) => worker.result(success),
            None => {}
        }
        worker.left = worker.interval(now);
        worker.on_hold |= match (kind, worker.settled) {
            (ProbeKind::Startup, settled) => settled.is_some(),
            (ProbeKind::Liveness, settled) => settled == Some(false),
            (ProbeKind::Readiness, _) => false,
            // It is about to be restarted for it.
            (ProbeKind::Health, settled) => restarts && settled == Some(false),
        };
        if kind == ProbeKind::Startup && worker.settled == Some(true) {
            for (kind, worker) in &mut self.workers {
                match kind {
                    // The manual trigger resets the ticker.
                    ProbeKind::Readiness => worker.ticks_from = now,
                    ProbeKind::Health => worker.left = worker.interval(now),
                    ProbeKind::Startup | ProbeKind::Liveness => {}
                }
            }
        }
    }

    /// Another daemon goes on; what was under way has ended with the one before. Who is not ready is looked at.
    pub fn taken_over(&mut self) {
        for (kind, worker) in &mut self.workers {
            worker.begun = None;
            let looked_at = *kind == ProbeKind::Readiness && worker.settled != Some(true);
            worker.ticks_from = if looked_at { self.now } else { Duration::ZERO };
        }
    }

    /// What is believed of a probe.
    pub fn settled(&self, kind: ProbeKind) -> Option<bool> {
        self.workers.get(&kind)?.settled
    }

    /// 2.6: started, and what says ready does, if there is anything.
    pub fn ready(&self) -> bool {
        let says_so = |kind| self.workers.get(&kind).is_none_or(|worker| worker.settled == Some(true));
        self.started() && says_so(ProbeKind::Readiness) && says_so(ProbeKind::Health)
    }

    fn started(&self) -> bool {
        self.workers.get(&ProbeKind::Startup).is_none_or(|worker| worker.settled == Some(true))
    }
}

impl Worker {
    fn result(&mut self, success: bool) {
        self.result_run = if self.last == Some(success) { self.result_run + 1 } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.probe.success_threshold } else { self.probe.failure_threshold };
        if self.result_run >= threshold {
            self.settled = Some(success);
        }
    }

    fn interval(&self, now: Duration) -> Duration {
        let starting = self.settled.is_none() && now < self.probe.start_period;
        if starting { self.probe.start_interval } else { self.probe.period }
    }
}
