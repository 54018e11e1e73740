//! What people want: containers of every kind, and something of them every now and then.

use super::Chance;
use std::time::Duration;
use wharf_supervisor::{
    Attempts, BackOff, Codes, Command, Condition, ExitRule, Growth, Hooks, Id, Limits, Name, Notify, Policy,
    Preset, Probe, ProbeKind, Probes, Requirement, Reset, Restart, RuleAction, Signal, Spec, StartLimit,
    Stop,
};

const NAMES: [&str; 4] = ["web", "db", "queue", "cache"];

/// What the host allows; often so little that it matters.
pub(super) fn limits(chance: &mut Chance) -> Limits {
    if chance.percent(30) {
        return Limits::default();
    }
    Limits {
        starts: 1 + chance.below(3) as usize,
        restart_burst: 1 + chance.below(4) as u32,
        restart_every: chance.up_to(Duration::from_secs(10)),
    }
}

/// A wish about one of these, or about all.
pub(super) fn command(chance: &mut Chance, known: &[Id]) -> Command {
    let grace = match chance.below(4) {
        0 => Some(Duration::ZERO),
        1 => Some(chance.up_to(Duration::from_secs(100))),
        _ => None,
    };
    let id = *chance.of(known);
    match chance.below(44) {
        0..=9 => Command::Start { id },
        10..=15 => Command::Stop { id, grace },
        16..=20 => Command::Restart { id, grace },
        21..=22 => Command::Kill { id, signal: Signal::KILL },
        23..=24 => Command::Kill { id, signal: Signal::new(10).expect("SIGUSR1") },
        25..=28 => Command::Pause { id },
        29..=33 => Command::Unpause { id },
        34..=35 => Command::Update { id },
        36..=37 => Command::Remove { id, force: false },
        38..=39 => Command::Remove { id, force: chance.percent(50) },
        40..=41 => Command::StopAll { grace },
        _ => Command::ResetFailed { id },
    }
}

pub(super) fn spec(chance: &mut Chance) -> Spec {
    let stop = Stop { signal: Signal::TERM, grace: chance.up_to(Duration::from_secs(60)) };
    let restart = restart(chance);
    let probes = probes(chance);
    Spec {
        auto_remove: chance.percent(20),
        restart: if restart.validate().is_ok() { restart } else { Restart::default() },
        probes,
        hooks: Hooks { post_start: chance.percent(20), pre_stop: chance.percent(20) },
        notify: chance.percent(25).then(|| Notify {
            ready: chance.percent(60),
            watchdog: chance.percent(60).then(|| Duration::from_secs(2 + chance.below(60))),
        }),
        requires: (0..chance.below(4).saturating_sub(1)).map(|_| requirement(chance)).collect(),
        ..Spec::new(name(chance), stop)
    }
}

fn name(chance: &mut Chance) -> Name {
    chance.of(&NAMES).parse().expect("a name")
}

fn requirement(chance: &mut Chance) -> Requirement {
    let conditions = [Condition::Started, Condition::Healthy, Condition::Ready, Condition::Completed];
    Requirement { name: name(chance), condition: *chance.of(&conditions), restart_with: chance.percent(30) }
}

/// A restart policy; not each can be.
pub fn restart(chance: &mut Chance) -> Restart {
    let retries = chance.percent(50).then(|| 1 + chance.below(5) as u32);
    let policies = [
        Policy::No,
        Policy::OnFailure { max: retries },
        Policy::Always,
        Policy::UnlessStopped,
        Policy::Always,
    ];
    let mut restart = chance.of(&Preset::ALL).restart(*chance.of(&policies));
    if chance.percent(30) {
        restart.back_off = back_off(chance);
    }
    if chance.percent(20) {
        restart.rules = (0..1 + chance.below(3)).map(|_| rule(chance)).collect();
    }
    if chance.percent(20) {
        let window = chance.percent(60).then(|| Duration::from_secs(1 + chance.below(300)));
        restart.attempts = Some(Attempts { max: 1 + chance.below(6) as u32, window });
    }
    if chance.percent(20) {
        let interval = Duration::from_secs(1 + chance.below(200));
        restart.start_limit = Some(StartLimit { burst: 1 + chance.below(6) as u32, interval });
    }
    restart
}

fn rule(chance: &mut Chance) -> ExitRule {
    let codes = (0..1 + chance.below(3)).map(|_| *chance.of(&[0, 1, 42, 137, 139, 143])).collect();
    ExitRule {
        action: *chance.of(&[RuleAction::Restart, RuleAction::Stay]),
        codes: if chance.percent(70) { Codes::In(codes) } else { Codes::NotIn(codes) },
    }
}

fn back_off(chance: &mut Chance) -> BackOff {
    let initial = Duration::from_millis(100) + chance.up_to(Duration::from_secs(20));
    let after = Duration::from_secs(1 + chance.below(60));
    BackOff {
        first_at_once: chance.percent(50),
        initial,
        growth: match chance.below(3) {
            0 => Growth::Steps(1 + chance.below(6) as u32),
            1 => Growth::Factor { thousandths: 1000 },
            _ => Growth::Factor { thousandths: 1000 + chance.below(3000) as u32 },
        },
        max: initial + chance.up_to(Duration::from_secs(200)),
        jitter_percent: *chance.of(&[0, 10, 100]),
        reset: *chance.of(&[Reset::Ready(after), Reset::Running(after), Reset::Quiet(after), Reset::Never]),
    }
}

/// Probes of every kind, or none.
pub fn probes(chance: &mut Chance) -> Probes {
    let mut one =
        |kind| chance.percent(25).then(|| probe(chance, kind)).filter(|probe| probe.validate(kind).is_ok());
    Probes {
        startup: one(ProbeKind::Startup),
        liveness: one(ProbeKind::Liveness),
        readiness: one(ProbeKind::Readiness),
        health: one(ProbeKind::Health),
        health_restarts: chance.percent(50),
    }
}

fn probe(chance: &mut Chance, kind: ProbeKind) -> Probe {
    let periods = [1, 10, 20, 50, 100, 100, 200, 300];
    let settles_late = kind == ProbeKind::Readiness;
    Probe {
        initial_delay: if chance.percent(50) {
            Duration::ZERO
        } else {
            chance.up_to(Duration::from_secs(40))
        },
        period: Duration::from_millis(100) * *chance.of(&periods),
        timeout: Duration::from_millis(100) + chance.up_to(Duration::from_secs(20)),
        success_threshold: if settles_late { 1 + chance.below(3) as u32 } else { 1 },
        failure_threshold: 1 + chance.below(4) as u32,
        grace: (!settles_late && chance.percent(30)).then(|| Duration::from_secs(1 + chance.below(40))),
        start_period: if chance.percent(50) { Duration::ZERO } else { chance.up_to(Duration::from_secs(60)) },
        start_interval: Duration::from_secs(1 + chance.below(10)),
    }
}
