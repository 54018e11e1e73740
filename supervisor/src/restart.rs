//! Whether a container is started again when a run has ended, and when.
//!
//! ```text
//!  run ends ──► exit rules ──► policy ──► limits ──► back-off ──► Again { at }
//!               first match    wanted?    reached?   how long?
//!                  │ stay        │ no        │ yes
//!                  ▼             ▼           ▼
//!                 Stay          Stay       GiveUp
//! ```
//!
//! Starts by hand are nobody's decision here, but count for the [`StartLimit`]. What is remembered of earlier
//! restarts is [`Restarts`]; it is saved, so a crash of the supervisor neither shortens a back-off nor forgets
//! a limit.

use crate::Time;
use std::fmt;
use std::time::Duration;

/// The highest exit code.
const LAST_CODE: i32 = 255;
/// As many rules and codes as Kubernetes allows: one who needs more has a program for it.
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
/// Longer than that, a waiting container looks forgotten.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Above that, the second delay is the longest anyway.
const LARGEST_FACTOR: u32 = 1000 * 1000;
/// Their times are part of what is saved at each change, so their number has an end.
const MOST_ATTEMPTS_IN_WINDOW: u32 = 1000;

/// When a container is started again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// Whether, if no rule says so.
    pub policy: Policy,
    /// The first one that fits an exit decides it, before the policy.
    pub rules: Vec<ExitRule>,
    /// How long after the end.
    pub back_off: BackOff,
    /// How often at most.
    pub attempts: Option<Attempts>,
    /// How many starts of any kind in a while.
    pub start_limit: Option<StartLimit>,
}

/// Whether a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// After a run that failed.
    OnFailure {
        /// How often at most since the last start by hand; a long run does not begin a new count.
        max: Option<u32>,
    },
    /// After every run that was not asked to end, and at boot.
    Always,
    /// As [`Policy::Always`], but at boot only if it was not stopped before.
    UnlessStopped,
}

/// What to do about some exit codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRule {
    /// What follows.
    pub action: RuleAction,
    /// Of which codes. An end without a code fits no rule.
    pub codes: Codes,
}

/// What an [`ExitRule`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Start again, with back-off and within the limits.
    Restart,
    /// Leave it.
    Stay,
}

/// Some exit codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// These.
    In(Vec<i32>),
    /// All but these.
    NotIn(Vec<i32>),
}

/// How long a container waits before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first restart in a row does not wait; the second waits for `initial`.
    pub first_at_once: bool,
    /// The first delay.
    pub initial: Duration,
    /// How the next delay comes from the one before.
    pub growth: Growth,
    /// The longest delay, before jitter.
    pub max: Duration,
    /// How much longer chance may make a delay; never shorter.
    pub jitter_percent: u8,
    /// What ends a row of restarts, so that the next one is the first again.
    pub reset: Reset,
}

/// How delays grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Each is this many times the one before.
    Factor {
        /// 1000 is a constant delay, 2000 doubles it.
        thousandths: u32,
    },
    /// From `initial` to `max` in this many steps of the same factor, as systemd's RestartSteps=.
    Steps(u32),
}

/// What ends a row of restarts. It is looked at when a run has ended, before its delay is reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The run was ready for so long.
    Ready(Duration),
    /// The run lasted so long, ready or not.
    Running(Duration),
    /// The run ended more than this after the last restart.
    Quiet(Duration),
    /// Only a start by hand or reset-failed.
    Never,
}

/// A limit on restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// That many.
    pub max: u32,
    /// Only those count that were decided in this time before the end of the run; without it, all since the
    /// last start by hand.
    pub window: Option<Duration>,
}

/// A limit on starts, those by hand and at boot included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimit {
    /// That many.
    pub burst: u32,
    /// In this time, which begins with the first start after the last such time.
    pub interval: Duration,
}

/// The back-off of a system that users know, under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// Ours.
    #[default]
    Default,
    /// As the kubelet does it.
    Kubernetes,
    /// As the Docker engine does it.
    Docker,
    /// As systemd does it if a unit says nothing.
    Systemd,
}

/// Why a [`Restart`] cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRestart {
    /// Fewer than one retry.
    #[error("restart.maxRetries: 0 is below 1; leave it out for no limit, or say \"no\" for no restart")]
    NoRetries,
    /// Fewer than one attempt.
    #[error("restart.maxAttempts: 0 is below 1; leave it out for no limit, or say \"no\" for no restart")]
    NoAttempts,
    /// A limit on what never happens.
    #[error(
        "restart.maxAttempts: there is nothing to limit with policy \"no\" and no rule that restarts; give a policy, or leave it out"
    )]
    AttemptsWithoutRestart,
    /// Too many to remember.
    #[error("restart.maxAttempts: {0} is above {most}; that is the most with a window", most = MOST_ATTEMPTS_IN_WINDOW)]
    TooManyAttempts(u32),
    /// No window.
    #[error("restart.window: 0 s counts no restart; it must be longer, or left out to count all")]
    NoWindow,
    /// No start at all.
    #[error("restart.startLimit.burst: 0 is below 1; leave startLimit out for no limit")]
    NoBurst,
    /// No interval.
    #[error("restart.startLimit.interval: 0 s limits nothing; it must be longer, or leave startLimit out")]
    NoInterval,
    /// It would shrink, or cannot matter.
    #[error("restart.factor: {} is {}; 1 to {} are possible, 1 being a constant delay",
        f64::from(*thousandths) / 1000.0,
        if *thousandths < 1000 { "below 1" } else { "too large" },
        LARGEST_FACTOR / 1000
    )]
    Factor {
        /// What was given.
        thousandths: u32,
    },
    /// Nowhere to go.
    #[error("restart.steps: 0 is below 1; leave it out to use factor")]
    NoSteps,
    /// Zero times anything is zero.
    #[error("restart.initial: 0 s cannot grow in steps; it must be longer, or use factor")]
    StepsFromZero,
    /// Upside down.
    #[error("restart.max: {max:?} is below restart.initial ({initial:?}); it must be at least that")]
    MaxBelowInitial {
        /// The first delay.
        initial: Duration,
        /// The longest.
        max: Duration,
    },
    /// Too long.
    #[error("restart.max: {0:?} is too long; 0 s to {longest:?} are possible", longest = LONGEST_DELAY)]
    MaxTooLong(Duration),
    /// More than all.
    #[error("restart.jitter: {}% is above 100%; 0 to 1 are possible", .0)]
    Jitter(u8),
    /// Each run would be the first.
    #[error("restart.resetAfter: 0 s would undo every back-off; it must be longer")]
    ResetAtOnce,
    /// Too many.
    #[error("restart.rules: {0} are too many; {MOST_RULES} are possible")]
    TooManyRules(usize),
    /// A rule for nothing, or for too much.
    #[error("restart.rules[{rule}].exitCodes.values: {count} codes; 1 to {MOST_CODES} are possible")]
    CodeCount {
        /// Which rule, from 0.
        rule: usize,
        /// How many it has.
        count: usize,
    },
    /// No process ends with it.
    #[error("restart.rules[{rule}].exitCodes.values: {code} is no exit code; 0 to {LAST_CODE} are possible")]
    Code {
        /// Which rule, from 0.
        rule: usize,
        /// What was given.
        code: i32,
    },
}

impl Default for Restart {
    fn default() -> Self {
        Preset::Default.restart(Policy::No)
    }
}

impl Restart {
    /// Whether it can be.
    pub fn validate(&self) -> Result<(), BadRestart> {
        let retries = match self.policy {
            Policy::OnFailure { max } => max,
            Policy::No | Policy::Always | Policy::UnlessStopped => None,
        };
        if retries == Some(0) {
            return Err(BadRestart::NoRetries);
        }
        self.validate_rules()?;
        self.back_off.validate()?;
        if let Some(attempts) = self.attempts {
            attempts.validate()?;
            if !self.ever_restarts() {
                return Err(BadRestart::AttemptsWithoutRestart);
            }
        }
        self.start_limit.map_or(Ok(()), StartLimit::validate)
    }

    /// Some end of a run makes another one.
    pub fn ever_restarts(&self) -> bool {
        self.policy != Policy::No || self.rules.iter().any(|rule| rule.action == RuleAction::Restart)
    }

    fn validate_rules(&self) -> Result<(), BadRestart> {
        if self.rules.len() > MOST_RULES {
            return Err(BadRestart::TooManyRules(self.rules.len()));
        }
        for (rule, codes) in self.rules.iter().map(|rule| rule.codes.values()).enumerate() {
            if codes.is_empty() || codes.len() > MOST_CODES {
                return Err(BadRestart::CodeCount { rule, count: codes.len() });
            }
            if let Some(code) = codes.iter().find(|code| !(0..=LAST_CODE).contains(*code)) {
                return Err(BadRestart::Code { rule, code: *code });
            }
        }
        Ok(())
    }

    fn wants(&self, end: &RunEnd) -> bool {
        let rule = end.code.and_then(|code| self.rules.iter().find(|rule| rule.codes.contain(code)));
        match (rule.map(|rule| rule.action), self.policy) {
            (Some(RuleAction::Restart), _) => true,
            (Some(RuleAction::Stay), _) => false,
            (None, Policy::No) => false,
            (None, Policy::OnFailure { .. }) => end.failed,
            (None, Policy::Always | Policy::UnlessStopped) => true,
        }
    }
}

impl Codes {
    fn values(&self) -> &[i32] {
        match self {
            Self::In(values) | Self::NotIn(values) => values,
        }
    }

    fn contain(&self, code: i32) -> bool {
        match self {
            Self::In(values) => values.contains(&code),
            Self::NotIn(values) => !values.contains(&code),
        }
    }
}

impl Attempts {
    fn validate(self) -> Result<(), BadRestart> {
        if self.max == 0 {
            return Err(BadRestart::NoAttempts);
        }
        match self.window {
            Some(Duration::ZERO) => Err(BadRestart::NoWindow),
            Some(_) if self.max > MOST_ATTEMPTS_IN_WINDOW => Err(BadRestart::TooManyAttempts(self.max)),
            Some(_) | None => Ok(()),
        }
    }
}

impl StartLimit {
    fn validate(self) -> Result<(), BadRestart> {
        if self.burst == 0 {
            return Err(BadRestart::NoBurst);
        }
        if self.interval.is_zero() {
            return Err(BadRestart::NoInterval);
        }
        Ok(())
    }
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Default, Self::Kubernetes, Self::Docker, Self::Systemd];

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Kubernetes => "kubernetes",
            Self::Docker => "docker",
            Self::Systemd => "systemd",
        }
    }

    /// Its delays.
    pub fn back_off(self) -> BackOff {
        match self {
            Self::Default => BackOff::DEFAULT,
            Self::Kubernetes => BackOff::KUBERNETES,
            Self::Docker => BackOff::DOCKER,
            Self::Systemd => BackOff::SYSTEMD,
        }
    }

    /// Its limit on starts: only systemd has one.
    pub fn start_limit(self) -> Option<StartLimit> {
        match self {
            Self::Default | Self::Kubernetes | Self::Docker => None,
            Self::Systemd => Some(StartLimit { burst: 5, interval: Duration::from_secs(10) }),
        }
    }

    /// All of it, with this policy.
    pub fn restart(self, policy: Policy) -> Restart {
        Restart {
            policy,
            rules: Vec::new(),
            back_off: self.back_off(),
            attempts: None,
            start_limit: self.start_limit(),
        }
    }
}

impl BackOff {
    /// A single crash costs nothing, a loop ends at one start a minute, and only a run that was ready for a
    /// while shows that the loop is over. Chance keeps containers apart that crashed together.
    pub const DEFAULT: Self = Self {
        first_at_once: true,
        initial: Duration::from_millis(100),
        growth: Growth::Factor { thousandths: 2000 },
        max: Duration::from_secs(60),
        jitter_percent: 10,
        reset: Reset::Ready(Duration::from_secs(10)),
    };
    /// 0, 10, 20, 40 … 300 s. The kubelet forgets after twice its longest delay.
    pub const KUBERNETES: Self = Self {
        first_at_once: true,
        initial: Duration::from_secs(10),
        growth: Growth::Factor { thousandths: 2000 },
        max: Duration::from_secs(300),
        jitter_percent: 0,
        reset: Reset::Quiet(Duration::from_secs(600)),
    };
    /// 0.1, 0.2, 0.4 … 60 s.
    pub const DOCKER: Self = Self {
        first_at_once: false,
        initial: Duration::from_millis(100),
        growth: Growth::Factor { thousandths: 2000 },
        max: Duration::from_secs(60),
        jitter_percent: 0,
        reset: Reset::Running(Duration::from_secs(10)),
    };
    /// Always 100 ms: it is [`Preset::start_limit`] that ends a loop.
    pub const SYSTEMD: Self = Self {
        first_at_once: false,
        initial: Duration::from_millis(100),
        growth: Growth::Factor { thousandths: 1000 },
        max: Duration::from_millis(100),
        jitter_percent: 0,
        reset: Reset::Never,
    };

    /// The one with this name: default, kubernetes, docker or systemd.
    pub fn preset(name: &str) -> Option<Self> {
        Preset::parse(name).map(Preset::back_off)
    }

    /// Whether it can be.
    pub fn validate(&self) -> Result<(), BadRestart> {
        if self.max < self.initial {
            return Err(BadRestart::MaxBelowInitial { initial: self.initial, max: self.max });
        }
        if self.max > LONGEST_DELAY {
            return Err(BadRestart::MaxTooLong(self.max));
        }
        if self.jitter_percent > 100 {
            return Err(BadRestart::Jitter(self.jitter_percent));
        }
        match self.growth {
            Growth::Factor { thousandths } if !(1000..=LARGEST_FACTOR).contains(&thousandths) => {
                return Err(BadRestart::Factor { thousandths });
            }
            Growth::Steps(0) => return Err(BadRestart::NoSteps),
            Growth::Steps(_) if self.initial.is_zero() => return Err(BadRestart::StepsFromZero),
            Growth::Factor { .. } | Growth::Steps(_) => {}
        }
        match self.reset {
            Reset::Ready(after) | Reset::Running(after) | Reset::Quiet(after) if after.is_zero() => {
                Err(BadRestart::ResetAtOnce)
            }
            Reset::Ready(_) | Reset::Running(_) | Reset::Quiet(_) | Reset::Never => Ok(()),
        }
    }

    /// The delay of the restart that comes after `earlier` others in the same row, before jitter.
    pub fn delay(&self, earlier: u32) -> Duration {
        // How many delays, not restarts, came before.
        let grown = match (self.first_at_once, earlier) {
            (true, 0) => return Duration::ZERO,
            (true, earlier) => earlier - 1,
            (false, earlier) => earlier,
        };
        if grown == 0 || self.initial.is_zero() {
            return self.initial.min(self.max);
        }
        let (initial, max) = (self.initial.as_nanos() as f64, self.max.as_nanos() as f64);
        let delay = match self.growth {
            Growth::Factor { thousandths } => initial * (f64::from(thousandths) / 1000.0).powf(grown.into()),
            Growth::Steps(steps) if grown < steps => {
                initial * (max / initial).powf(f64::from(grown) / f64::from(steps))
            }
            Growth::Steps(_) => max,
        };
        // A float that is too large becomes the largest integer, so the longest delay holds in any case.
        Duration::from_nanos(delay.round() as u64).clamp(self.initial.min(self.max), self.max)
    }

    /// Chance lengthens only: nobody waits less than the policy says.
    fn jitter(&self, delay: Duration, seed: u64) -> Duration {
        let most = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX) / 100
            * u64::from(self.jitter_percent.min(100));
        let part = (u128::from(most) * u128::from(mixed(seed))) >> 64;
        delay.saturating_add(Duration::from_nanos(u64::try_from(part).unwrap_or(0)))
    }
}

/// The output of splitmix64: neighbouring seeds give numbers that have nothing to do with each other.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is remembered of earlier restarts: plain data, to be written down as it is.
///
/// As everywhere, a time of an earlier boot is read back as zero; here it counts as long ago.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Since the last start by hand.
    pub count: u32,
    /// In a row: since the back-off began anew.
    pub streak: u32,
    /// When the last one was due, or did happen.
    pub decided_at: Option<Time>,
    /// When those were decided that count for [`Attempts`] with a window; no more than its `max`.
    pub recent: Vec<Time>,
    /// When the time of the [`StartLimit`] began.
    pub limit_from: Option<Time>,
    /// Starts since then.
    pub starts: u32,
}

/// How a run ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    /// When; what follows counts from it.
    pub at: Time,
    /// How long after its start; zero if there was none.
    pub ran_for: Duration,
    /// How much of that it was ready for.
    pub ready_for: Duration,
    /// It did not end as it should: another code than 0, a signal, no start, an unhealthy run, or nobody knows.
    pub failed: bool,
    /// As a shell shows it; nothing if nobody knows.
    pub code: Option<i32>,
}

/// What follows the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: no restart is wanted.
    Stay,
    /// Another run.
    Again {
        /// When.
        at: Time,
        /// How long after the end that is.
        delay: Duration,
    },
    /// Nothing, although a restart is wanted.
    GiveUp(GaveUp),
}

/// Which limit was reached. It is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// That of [`Policy::OnFailure`].
    Retries {
        /// It.
        max: u32,
    },
    /// That of [`Attempts`].
    Attempts {
        /// It.
        max: u32,
        /// In which time.
        window: Option<Duration>,
    },
    /// That of [`StartLimit`].
    StartLimit {
        /// It.
        burst: u32,
        /// In which time.
        interval: Duration,
    },
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retries { max } => {
                write!(
                    f,
                    "failed again after {}; look at its logs, then `ctl start` it",
                    times("restart", *max)
                )
            }
            Self::Attempts { max, window: None } => {
                write!(
                    f,
                    "ended again after {}; look at its logs, then `ctl start` it",
                    times("restart", *max)
                )
            }
            Self::Attempts { max, window: Some(window) } => write!(
                f,
                "ended again after {} within {window:?}; look at its logs, then `ctl start` it",
                times("restart", *max)
            ),
            Self::StartLimit { burst, interval } => write!(
                f,
                "no more than {} within {interval:?}; look at its logs, then `ctl reset-failed` and `ctl start` it",
                times("start", *burst)
            ),
        }
    }
}

fn times(what: &str, count: u32) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

impl Restarts {
    /// A run has ended by itself: what follows. Another run is counted here and now. `seed` is for the jitter.
    pub fn decide(&mut self, restart: &Restart, end: &RunEnd, seed: u64) -> Decision {
        if !restart.wants(end) {
            return Decision::Stay;
        }
        if let Some(limit) = self.reached(restart, end.at) {
            return Decision::GiveUp(limit);
        }
        if self.begins_anew(restart.back_off.reset, end) {
            self.streak = 0;
        }
        let delay = restart.back_off.delay(self.streak);
        let delay = restart.back_off.jitter(delay, seed ^ u64::from(self.count));
        let at = end.at + delay;
        self.count = self.count.saturating_add(1);
        self.streak = self.streak.saturating_add(1);
        self.decided_at = Some(at);
        if restart.attempts.is_some_and(|attempts| attempts.window.is_some()) {
            self.recent.push(end.at);
        }
        Decision::Again { at, delay }
    }

    /// A start is about to begin, by hand or not: whether it may. It counts if it may.
    pub fn started(&mut self, restart: &Restart, at: Time) -> Result<(), GaveUp> {
        self.count_start(restart.start_limit, at)?;
        // It may have had to wait for other containers after it was due.
        if self.decided_at.is_some() {
            self.decided_at = Some(at);
        }
        Ok(())
    }

    /// As if it had never been restarted: someone started it. What counts for the start limit stays, since that
    /// holds for starts by hand too.
    pub fn reset(&mut self) {
        let Self { count, streak, decided_at, recent, limit_from: _, starts: _ } = self;
        (*count, *streak, *decided_at) = (0, 0, None);
        recent.clear();
    }

    /// As if it had never been started, as far as the start limit goes.
    pub fn forget(&mut self) {
        (self.limit_from, self.starts) = (None, 0);
    }

    /// The limit that forbids another restart.
    fn reached(&mut self, restart: &Restart, end: Time) -> Option<GaveUp> {
        if let Policy::OnFailure { max: Some(max) } = restart.policy
            && self.count >= max
        {
            return Some(GaveUp::Retries { max });
        }
        let Attempts { max, window } = restart.attempts?;
        let counted = match window {
            None => self.count,
            Some(window) => {
                self.recent.retain(|at| since(end, *at).is_some_and(|ago| ago < window));
                u32::try_from(self.recent.len()).unwrap_or(u32::MAX)
            }
        };
        (counted >= max).then_some(GaveUp::Attempts { max, window })
    }

    fn begins_anew(&self, reset: Reset, end: &RunEnd) -> bool {
        match reset {
            Reset::Ready(after) => end.ready_for >= after,
            Reset::Running(after) => end.ran_for >= after,
            Reset::Quiet(after) => {
                self.decided_at.and_then(|at| since(end.at, at)).is_some_and(|quiet| quiet > after)
            }
            Reset::Never => false,
        }
    }

    fn count_start(&mut self, limit: Option<StartLimit>, at: Time) -> Result<(), GaveUp> {
        let Some(StartLimit { burst, interval }) = limit else {
            self.forget();
            return Ok(());
        };
        match self.limit_from.and_then(|from| since(at, from)) {
            Some(ago) if ago <= interval => {
                if self.starts >= burst {
                    return Err(GaveUp::StartLimit { burst, interval });
                }
                self.starts += 1;
            }
            Some(_) | None => (self.limit_from, self.starts) = (Some(at), 1),
        }
        Ok(())
    }
}

/// How long before `now` that was. `None` of a time of an earlier boot, which is zero or may be later than now.
fn since(now: Time, earlier: Time) -> Option<Duration> {
    (earlier != Time::default() && earlier <= now).then(|| now.since(earlier))
}

#[cfg(test)]
mod tests;
