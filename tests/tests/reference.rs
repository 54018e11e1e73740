//! Restarts and probes of the supervisor against a model of the systems that users know: random lives, step by step.
//!
//! `WHARF_SIM_SEEDS=100000` for more of them, `WHARF_SIM_SEED=42` to repeat one.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;
use wharf_supervisor::{
    BackOff, Decision, Health, Policy, Preset, Probe, ProbeKind, ProbeResult, Probes, Restart, Restarts,
    RunEnd, Time,
};
use wharf_tests::sim::reference::{self, End, Next, Restarting, Workers};
use wharf_tests::sim::{Chance, probes, restart};

/// All times of probes are multiples of it.
const STEP: Duration = Duration::from_millis(50);
/// The supervisor reckons delays in floats.
const ROUNDING: Duration = Duration::from_micros(1);

#[test]
fn restarts_are_those_of_the_model() {
    each_seed(5_000, |seed| {
        let mut chance = Chance::new(seed);
        let restart = restart(&mut chance);
        if restart.validate().is_ok() {
            live(seed, &mut chance, &restart);
        }
    });
}

/// Starts, ends, and whatever follows from them.
fn live(seed: u64, chance: &mut Chance, restart: &Restart) {
    let (mut restarts, mut model) = (Restarts::default(), Restarting::default());
    let mut now = Duration::from_secs(1000);
    for _ in 0..40 {
        let may = restarts.started(restart, time(now));
        assert_eq!(may, model.starts(restart, now), "seed {seed}: start at {now:?} with {restart:?}");
        let next = match may {
            Ok(()) => {
                let end = end(chance, now);
                now = end.ended;
                let run_end = RunEnd {
                    at: time(now),
                    ran_for: end.ended - end.started,
                    ready_for: end.ready_for,
                    failed: end.code != Some(0),
                    code: end.code,
                };
                let decision = restarts.decide(restart, &run_end, chance.below(u64::MAX));
                let expected = model.ended(restart, end);
                let count = restarts.count;
                compare(restart, decision, expected, now).unwrap_or_else(|what| {
                    panic!("seed {seed}: {what} after {end:?}, {count} with {restart:?}")
                })
            }
            Err(_) => None,
        };
        match next {
            // It may have to wait for others.
            Some(delay) => {
                now += delay
                    + if chance.percent(20) { chance.up_to(Duration::from_secs(900)) } else { Duration::ZERO }
            }
            None => {
                if chance.percent(30) {
                    restarts.reset();
                    restarts.forget();
                    model.reset_failed();
                }
                restarts.reset();
                model.by_hand();
                now += chance.up_to(Duration::from_secs(300));
            }
        }
        if chance.percent(5) {
            // By hand, before it was due.
            restarts.reset();
            model.by_hand();
        }
    }
}

/// Runs of all lengths, as many about as long as limits are.
fn end(chance: &mut Chance, started: Duration) -> End {
    let near = Duration::from_millis(*chance.of(&[9_999, 10_000, 10_001, 600_000, 600_001]));
    let ran_for = if chance.percent(20) { near } else { chance.up_to(Duration::from_secs(1500)) };
    let ready_for = match chance.below(3) {
        0 => Duration::ZERO,
        1 => ran_for,
        _ => chance.up_to(ran_for),
    };
    let code = *chance.of(&[Some(0), Some(0), Some(1), Some(1), Some(42), Some(137), Some(143), None]);
    End { started, ended: started + ran_for, ready_for, code }
}

fn compare(
    restart: &Restart,
    decision: Decision,
    expected: Next,
    end: Duration,
) -> Result<Option<Duration>, String> {
    let jitter = u32::from(restart.back_off.jitter_percent);
    match (decision, expected) {
        (Decision::Stay, Next::Stay) => Ok(None),
        (Decision::GiveUp(why), Next::GiveUp(limit)) if why == limit => Ok(None),
        (Decision::Again { at, delay }, Next::After(least))
            if at == time(end + delay)
                && delay + ROUNDING >= least
                && delay <= least + least * jitter / 100 + ROUNDING =>
        {
            Ok(Some(delay))
        }
        (decision, expected) => Err(format!("{decision:?} is not {expected:?}")),
    }
}

/// The numbers that everybody knows (2.16), so that the model itself is right.
#[test]
fn model_knows_the_curves() {
    let curve =
        |back_off: BackOff| (0..8).map(move |earlier| reference::delay(&back_off, earlier).as_secs_f64());
    let is = |back_off: BackOff, known: [f64; 8]| {
        for (is, known) in curve(back_off).zip(known) {
            assert!((is - known).abs() < 0.005, "{is} is not {known} of {back_off:?}");
        }
    };
    is(BackOff::KUBERNETES, [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]);
    is(BackOff::DOCKER, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8]);
    is(BackOff::SYSTEMD, [0.1; 8]);
    is(BackOff::DEFAULT, [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]);
    let steps = BackOff {
        initial: Duration::from_secs(1),
        growth: wharf_supervisor::Growth::Steps(5),
        max: Duration::from_secs(60),
        ..BackOff::SYSTEMD
    };
    is(steps, [1.0, 2.27, 5.14, 11.67, 26.46, 60.0, 60.0, 60.0]);
}

#[test]
fn model_knows_the_other_vectors() {
    let second = Duration::from_secs;
    let docker = Preset::Docker.restart(Policy::OnFailure { max: Some(3) });
    let mut model = Restarting::default();
    let end = |started: u64, ran_for: u64, code| End {
        started: second(started),
        ended: second(started + ran_for),
        ready_for: Duration::ZERO,
        code: Some(code),
    };
    for delay in [100, 200, 100] {
        let ran_for = if delay == 100 { 10 } else { 9 };
        assert_eq!(model.ended(&docker, end(0, ran_for, 1)), Next::After(Duration::from_millis(delay)));
    }
    assert!(matches!(model.ended(&docker, end(0, 1, 1)), Next::GiveUp(_)), "3 restarts are 4 runs");
    assert_eq!(Restarting::default().ended(&docker, end(0, 1, 0)), Next::Stay);

    let kubelet = Preset::Kubernetes.restart(Policy::Always);
    let mut model = Restarting::default();
    let mut now = 0;
    for delay in [0, 10, 20, 40, 80, 160, 300, 300] {
        model.starts(&kubelet, second(now)).expect("no limit");
        assert_eq!(model.ended(&kubelet, end(now, 1, 0)), Next::After(second(delay)));
        now += 1 + delay;
    }
    model.starts(&kubelet, second(now)).expect("no limit");
    assert_eq!(model.ended(&kubelet, end(now, 601, 0)), Next::After(Duration::ZERO));
    now += 601;
    model.starts(&kubelet, second(now)).expect("no limit");
    assert_eq!(model.ended(&kubelet, end(now, 1, 0)), Next::After(second(10)));

    let mut model = Workers::new(&Probes {
        readiness: Some(Probe { success_threshold: 2, period: STEP, ..Probe::default() }),
        ..Probes::default()
    });
    for (success, ready) in
        [(true, false), (false, false), (true, false), (false, false), (true, false), (true, true)]
    {
        assert_eq!(model.begin(), [ProbeKind::Readiness]);
        model.answer(ProbeKind::Readiness, Some(success));
        assert_eq!(model.ready(), ready);
        model.pass(STEP);
    }
}

#[test]
fn probes_are_those_of_the_model() {
    each_seed(2_000, |seed| {
        let mut chance = Chance::new(seed);
        let probes = in_steps(probes(&mut chance));
        look_after(seed, &mut chance, &probes);
    });
}

/// A minute or so of a run, in steps.
fn look_after(seed: u64, chance: &mut Chance, probes: &Probes) {
    let started_at = Time(1_000_000_000_000);
    let mut health = Health::new(probes, started_at);
    let mut model = Workers::new(probes);
    let mut answers: BTreeMap<ProbeKind, (Duration, Option<bool>)> = BTreeMap::new();
    let fails = *chance.of(&[0, 10, 50, 90, 100]);
    let (loses, dies) = (*chance.of(&[0, 3]), *chance.of(&[0, 0, 1]));
    for step in 0..1600 {
        let age = STEP * step;
        let now = started_at + age;
        let because = || format!("seed {seed} at {age:?} with {probes:?}");
        if probes.health.is_none() && chance.percent(dies) {
            // Another daemon takes over, with what the one before believed.
            health = Health::restore(probes, health.to_save(), started_at, now);
            model.taken_over();
            answers.clear();
        }
        for kind in ProbeKind::ALL {
            if let Some((_, answer)) = answers.get(&kind).copied().filter(|(at, _)| *at == age) {
                answers.remove(&kind);
                let result = match answer {
                    Some(true) => ProbeResult::Success,
                    Some(false) => ProbeResult::Failure("refused".to_owned()),
                    None => ProbeResult::Unknown("it broke".to_owned()),
                };
                health.probed(probes, now, kind, result);
                model.answer(kind, answer);
            }
        }
        let deadline = health.deadline();
        let due = health.due(probes, now);
        assert_eq!(due, model.begin(), "{}", because());
        assert!(
            due.is_empty() || deadline.is_some_and(|at| at <= now),
            "deadline {deadline:?}, {}",
            because()
        );
        assert!(health.deadline().is_none_or(|at| at > now), "deadline that is over, {}", because());
        for check in health.checks() {
            assert_eq!(check.settled, model.settled(check.kind), "{:?}, {}", check.kind, because());
        }
        assert_eq!(health.is_ready(probes), model.ready(), "{}", because());
        for kind in due {
            let timeout = probes.get(kind).map_or(STEP, |probe| probe.timeout);
            let steps = 1 + chance.below((timeout.as_millis() / STEP.as_millis()).max(1) as u64) as u32;
            let answer = if chance.percent(5) { None } else { Some(!chance.percent(fails)) };
            if chance.percent(loses) {
                answers.remove(&kind);
            } else {
                answers.insert(kind, (age + STEP * steps, answer));
            }
        }
        model.pass(STEP);
    }
}

/// The model can only count.
fn in_steps(probes: Probes) -> Probes {
    let whole = |time: Duration| STEP * (time.as_millis() / STEP.as_millis()) as u32;
    let round = |probe: Probe| Probe {
        initial_delay: whole(probe.initial_delay),
        timeout: whole(probe.timeout),
        start_period: whole(probe.start_period),
        ..probe
    };
    Probes {
        startup: probes.startup.map(round),
        liveness: probes.liveness.map(round),
        readiness: probes.readiness.map(round),
        health: probes.health.map(round),
        health_restarts: probes.health_restarts,
    }
}

fn time(since: Duration) -> Time {
    Time::default() + since
}

fn each_seed(usual: u64, check: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("WHARF_SIM_SEED") {
        Some(seed) => check(seed),
        None => (0..number("WHARF_SIM_SEEDS").unwrap_or(usual)).for_each(check),
    }
}
