use super::*;
use ProbeKind::{Liveness, Readiness, Startup};

const START: Time = Time(1_000_000_000_000);

/// So long after the start.
fn at(seconds: f64) -> Time {
    START + Duration::from_secs_f64(seconds)
}

fn every(seconds: f64) -> Probe {
    Probe { period: Duration::from_secs_f64(seconds), ..Probe::default() }
}

fn liveness(probe: Probe) -> Probes {
    Probes { liveness: Some(probe), ..Probes::default() }
}

fn readiness(probe: Probe) -> Probes {
    Probes { readiness: Some(probe), ..Probes::default() }
}

fn docker(probe: Probe) -> Probes {
    Probes { health: Some(probe), ..Probes::default() }
}

fn failure() -> ProbeResult {
    ProbeResult::Failure("connection refused".to_owned())
}

/// Seconds after the start at which each probe begins, if every one answers after `takes` seconds with what
/// `answer` says.
fn run(
    health: &mut Health,
    probes: &Probes,
    until: f64,
    takes: f64,
    mut answer: impl FnMut(ProbeKind, Time) -> ProbeResult,
) -> Vec<(ProbeKind, f64)> {
    let mut begun = Vec::new();
    let mut answers: Vec<(Time, ProbeKind)> = Vec::new();
    loop {
        answers.sort();
        let deadline = health.deadline();
        let (next, answered) = match (answers.first(), deadline) {
            (Some((at, _)), deadline) if deadline.is_none_or(|deadline| *at <= deadline) => (*at, true),
            (_, Some(deadline)) => (deadline, false),
            (_, None) => return begun,
        };
        if next > at(until) {
            return begun;
        }
        if answered {
            let (now, kind) = answers.remove(0);
            health.probed(probes, now, kind, answer(kind, now));
        } else {
            for kind in health.due(probes, next) {
                begun.push((kind, next.since(START).as_secs_f64()));
                answers.push((next + Duration::from_secs_f64(takes), kind));
            }
        }
    }
}

fn times(begun: &[(ProbeKind, f64)], of: ProbeKind) -> Vec<f64> {
    begun.iter().filter(|(kind, _)| *kind == of).map(|(_, at)| *at).collect()
}

/// One probe after another with these results, each on its tick; which ones settled something.
fn feed(health: &mut Health, probes: &Probes, kind: ProbeKind, results: &str) -> Vec<Option<bool>> {
    let feed_one = |result| {
        let now = health.deadline().expect("it is probed");
        assert_eq!(health.due(probes, now), [kind]);
        let result = if result == 'S' { ProbeResult::Success } else { failure() };
        health.probed(probes, now, kind, result).map(|settled| settled.success)
    };
    results.chars().map(feed_one).collect()
}

fn save_and_restore(health: &Health, probes: &Probes, now: Time) -> Health {
    Health::restore(probes, health.to_save(), START, now)
}

#[test]
fn failure_settles_at_the_threshold_only() {
    let probes = liveness(every(1.0));
    let mut health = Health::new(&probes, START);
    let settled = feed(&mut health, &probes, Liveness, "FFSFF");
    assert_eq!(settled, [None, None, Some(true), None, None]);
    assert_eq!(health.has_failed(&probes), None);
    assert_eq!(feed(&mut health, &probes, Liveness, "F"), [Some(false)]);
    assert_eq!(health.has_failed(&probes), Some(Liveness));
}

#[test]
fn success_settles_at_the_threshold_only() {
    let probes = readiness(Probe { success_threshold: 2, ..every(1.0) });
    let mut health = Health::new(&probes, START);
    assert_eq!(feed(&mut health, &probes, Readiness, "FSFS"), [None; 4]);
    assert!(!health.is_ready(&probes));
    assert_eq!(feed(&mut health, &probes, Readiness, "S"), [Some(true)]);
    assert!(health.is_ready(&probes));
}

#[test]
fn ready_container_turns_unready_and_back() {
    let probes = readiness(every(1.0));
    let mut health = Health::new(&probes, START);
    let settled = feed(&mut health, &probes, Readiness, "SFFFFS");
    assert_eq!(settled, [Some(true), None, None, Some(false), None, Some(true)]);
    assert_eq!(health.has_failed(&probes), None, "nothing is restarted for want of readiness");
}

#[test]
fn settled_failure_says_why() {
    let probes = readiness(Probe { failure_threshold: 1, ..every(1.0) });
    let mut health = Health::new(&probes, START);
    health.due(&probes, START);
    let settled = health.probed(&probes, START, Readiness, failure());
    let message = Some("connection refused".to_owned());
    assert_eq!(settled, Some(Settled { kind: Readiness, success: false, message }));
    let check = health.checks().next().expect("one is configured");
    assert_eq!((check.settled, check.streak, check.message), (Some(false), 1, Some("connection refused")));
}

#[test]
fn first_probe_is_at_once_and_then_every_period() {
    let probes = liveness(every(10.0));
    let begun = run(&mut Health::new(&probes, START), &probes, 35.0, 0.5, |_, _| ProbeResult::Success);
    assert_eq!(times(&begun, Liveness), [0.0, 10.0, 20.0, 30.0]);
}

#[test]
fn ticks_before_the_initial_delay_are_skipped() {
    for (delay, first) in [(5.0, 10.0), (10.0, 10.0), (10.1, 20.0), (0.0, 0.0)] {
        let probes = readiness(Probe { initial_delay: Duration::from_secs_f64(delay), ..every(10.0) });
        assert_eq!(Health::new(&probes, START).deadline(), Some(at(first)), "delay {delay}");
    }
}

#[test]
fn ticks_during_a_slow_probe_are_dropped() {
    let probes = liveness(every(10.0));
    let begun = run(&mut Health::new(&probes, START), &probes, 70.0, 25.0, |_, _| ProbeResult::Success);
    assert_eq!(times(&begun, Liveness), [0.0, 30.0, 60.0]);
}

#[test]
fn ten_probes_a_second() {
    let probes = liveness(every(0.1));
    let begun = run(&mut Health::new(&probes, START), &probes, 0.95, 0.01, |_, _| ProbeResult::Success);
    assert_eq!(times(&begun, Liveness).len(), 10);
}

#[test]
fn nothing_but_startup_runs_before_startup() {
    let probes = Probes {
        startup: Some(Probe { failure_threshold: 30, ..every(10.0) }),
        liveness: Some(every(10.0)),
        readiness: Some(every(10.0)),
        ..Probes::default()
    };
    let mut health = Health::new(&probes, START);
    let begun = run(&mut health, &probes, 100.0, 0.5, |kind, now| {
        if kind == Startup && now < at(60.0) { failure() } else { ProbeResult::Success }
    });
    assert_eq!(times(&begun, Startup), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0], "and never again");
    assert_eq!(times(&begun, Readiness), [60.5, 70.5, 80.5, 90.5], "at once, and from then on");
    assert_eq!(times(&begun, Liveness), [70.0, 80.0, 90.0, 100.0], "with its next tick");
    assert!(health.is_ready(&probes));
}

#[test]
fn startup_has_threshold_times_period() {
    let probes = Probes {
        startup: Some(Probe { failure_threshold: 30, ..every(10.0) }),
        liveness: Some(every(1.0)),
        ..Probes::default()
    };
    let mut health = Health::new(&probes, START);
    let begun = run(&mut health, &probes, 1000.0, 0.5, |_, _| failure());
    assert_eq!(times(&begun, Startup).len(), 30);
    assert_eq!(times(&begun, Startup).last(), Some(&290.0));
    assert_eq!(times(&begun, Liveness), Vec::<f64>::new());
    assert_eq!(health.has_failed(&probes), Some(Startup));
    assert!(!health.is_started(&probes));
    assert_eq!(health.deadline(), None, "nothing is probed while it is being stopped");
}

#[test]
fn initial_delays_count_from_the_start_of_the_run() {
    let probes = Probes {
        startup: Some(every(1.0)),
        liveness: Some(Probe { initial_delay: Duration::from_secs(5), ..every(1.0) }),
        readiness: Some(Probe { initial_delay: Duration::from_secs(5), ..every(2.0) }),
        ..Probes::default()
    };
    let begun = run(&mut Health::new(&probes, START), &probes, 9.0, 0.5, |kind, now| {
        if kind == Startup && now < at(2.0) { failure() } else { ProbeResult::Success }
    });
    assert_eq!(times(&begun, Startup), [0.0, 1.0, 2.0]);
    assert_eq!(times(&begun, Liveness)[0], 5.0);
    assert_eq!(times(&begun, Readiness)[0], 6.5);
}

#[test]
fn failed_liveness_is_not_probed_any_more() {
    let probes = liveness(every(1.0));
    let mut health = Health::new(&probes, START);
    feed(&mut health, &probes, Liveness, "FFF");
    assert_eq!(health.deadline(), None);
    assert_eq!(health.due(&probes, at(100.0)), []);
}

#[test]
fn probe_that_could_not_be_made_says_nothing() {
    let probes = liveness(every(1.0));
    let mut health = Health::new(&probes, START);
    feed(&mut health, &probes, Liveness, "FF");
    let before = health.to_save();
    let now = health.deadline().expect("it is probed");
    health.due(&probes, now);
    let unknown = ProbeResult::Unknown("no such file".to_owned());
    assert_eq!(health.probed(&probes, now, Liveness, unknown), None);
    assert_eq!(health.to_save(), before);
    assert_eq!(health.checks().next().and_then(|check| check.message), Some("no such file"));
    assert_eq!(feed(&mut health, &probes, Liveness, "F"), [Some(false)], "the third of three");
}

#[test]
fn probe_is_in_flight_once() {
    let probes = liveness(every(1.0));
    let mut health = Health::new(&probes, START);
    assert_eq!(health.due(&probes, START), [Liveness]);
    assert_eq!(health.due(&probes, at(5.0)), []);
    assert_eq!(health.deadline(), Some(at(31.0)), "the timeout and a margin");
}

#[test]
fn lost_answer_does_not_end_the_probing() {
    let probes = liveness(every(10.0));
    let mut health = Health::new(&probes, START);
    health.due(&probes, START);
    assert_eq!(health.due(&probes, at(31.0)), []);
    assert_eq!(health.deadline(), Some(at(40.0)));
    assert_eq!(health.probed(&probes, at(32.0), Liveness, failure()), None);
    assert_eq!(health.to_save().liveness, Some(SavedProbe::default()), "the late answer counts for nothing");
    assert_eq!(health.due(&probes, at(40.0)), [Liveness]);
}

#[test]
fn jump_of_years_brings_no_burst() {
    let probes = Probes { liveness: Some(every(1.0)), readiness: Some(every(1.0)), ..Probes::default() };
    let mut health = Health::new(&probes, START);
    health.due(&probes, START);
    health.probed(&probes, START, Liveness, ProbeResult::Success);
    let later = at(3.0e8 + 0.5);
    assert_eq!(health.due(&probes, later), [Liveness], "the other one was in flight, and is given up");
    health.probed(&probes, later, Liveness, ProbeResult::Success);
    assert_eq!(health.due(&probes, later), []);
    assert_eq!(health.deadline(), Some(at(3.0e8 + 1.0)));
    assert_eq!(health.due(&probes, at(3.0e8 + 1.0)), [Liveness, Readiness]);
}

#[test]
fn nothing_is_probed_and_nothing_counts_while_paused() {
    let probes = liveness(Probe { failure_threshold: 1, ..every(10.0) });
    let mut health = Health::new(&probes, START);
    health.due(&probes, START);
    health.abandon();
    assert_eq!(health.deadline(), None);
    assert_eq!(health.due(&probes, at(10.0)), []);
    assert_eq!(health.probed(&probes, at(10.0), Liveness, failure()), None);
    health.resume(at(25.0));
    assert_eq!(health.due(&probes, at(25.0)), [Liveness]);
    assert_eq!(
        health.probed(&probes, at(25.5), Liveness, ProbeResult::Success).map(|s| s.success),
        Some(true)
    );
    assert_eq!(health.deadline(), Some(at(30.0)));
}

#[test]
fn docker_waits_an_interval_before_and_after_each() {
    let probes = docker(Probe { period: Duration::from_secs(30), ..Probe::health() });
    let begun = run(&mut Health::new(&probes, START), &probes, 100.0, 2.0, |_, _| ProbeResult::Success);
    assert_eq!(times(&begun, ProbeKind::Health), [30.0, 62.0, 94.0]);
}

#[test]
fn docker_forgives_failures_in_the_start_period() {
    let start = Duration::from_secs(20);
    let probes = docker(Probe { start_period: start, ..Probe::health() });
    let mut health = Health::new(&probes, START);
    let begun = run(&mut health, &probes, 22.0, 0.0, |_, _| failure());
    assert_eq!(times(&begun, ProbeKind::Health), [5.0, 10.0, 15.0, 20.0], "with the start interval");
    assert_eq!(health.to_save().health.map(|saved| saved.streak), Some(1), "one began after it");
    assert_eq!(health.status(), HealthStatus::Starting);
    let begun =
        run(
            &mut health,
            &probes,
            200.0,
            0.0,
            |_, now| {
                if now < at(100.0) { failure() } else { ProbeResult::Success }
            },
        );
    assert_eq!(times(&begun, ProbeKind::Health), [50.0, 80.0, 110.0, 140.0, 170.0, 200.0]);
    assert_eq!(health.status(), HealthStatus::Healthy, "one success is enough");
}

#[test]
fn docker_forgives_nothing_after_the_first_success() {
    let start = Duration::from_secs(1000);
    let probes = docker(Probe { start_period: start, ..Probe::health() });
    let mut health = Health::new(&probes, START);
    let settled = feed(&mut health, &probes, ProbeKind::Health, "FFFFSFFF");
    assert_eq!(settled, [None, None, None, None, Some(true), None, None, Some(false)]);
    assert_eq!(health.status(), HealthStatus::Unhealthy);
    assert!(!health.is_ready(&probes));
}

#[test]
fn unhealthy_container_is_restarted_if_wanted() {
    let probes = docker(Probe::health());
    let mut health = Health::new(&probes, START);
    feed(&mut health, &probes, ProbeKind::Health, "FFF");
    assert_eq!(health.has_failed(&probes), None);
    assert_eq!(feed(&mut health, &probes, ProbeKind::Health, "S"), [Some(true)], "and may recover");

    let probes = Probes { health_restarts: true, ..probes };
    let mut health = Health::new(&probes, START);
    feed(&mut health, &probes, ProbeKind::Health, "FFF");
    assert_eq!(health.has_failed(&probes), Some(ProbeKind::Health));
    assert_eq!(health.deadline(), None);
}

#[test]
fn restored_health_believes_what_it_did() {
    let probes = Probes {
        startup: Some(every(1.0)),
        liveness: Some(every(1.0)),
        readiness: Some(every(10.0)),
        ..Probes::default()
    };
    let mut health = Health::new(&probes, START);
    run(&mut health, &probes, 5.0, 0.1, |_, _| ProbeResult::Success);
    health.due(&probes, at(6.0));
    health.probed(&probes, at(6.0), Liveness, failure());
    health.due(&probes, at(7.0));
    health.probed(&probes, at(7.0), Liveness, failure());

    let mut restored = save_and_restore(&health, &probes, at(7.5));
    assert!(restored.is_ready(&probes), "it never looks unready in between");
    assert_eq!(restored.deadline(), Some(at(8.0)), "on the tick on which it would have been");
    assert_eq!(feed(&mut restored, &probes, Liveness, "F"), [Some(false)], "the third of three");

    let restored = save_and_restore(&restored, &probes, at(9.0));
    assert_eq!(restored.has_failed(&probes), Some(Liveness), "and a failure is not forgotten");
    assert_eq!(restored.deadline(), Some(at(10.0)), "of readiness: the other two are on hold");
}

#[test]
fn restored_unready_container_is_probed_at_once() {
    let probes = readiness(every(60.0));
    let mut health = Health::new(&probes, START);
    feed(&mut health, &probes, Readiness, "FF");
    let mut restored = save_and_restore(&health, &probes, at(62.0));
    assert_eq!(restored.deadline(), Some(at(62.0)));
    assert_eq!(feed(&mut restored, &probes, Readiness, "F"), [Some(false)], "the third of three");
}

#[test]
fn steady_results_change_nothing_that_is_saved() {
    for (probes, kind, result, until_steady) in [
        (liveness(every(1.0)), Liveness, "S", 1),
        (readiness(Probe { success_threshold: 5, ..every(1.0) }), Readiness, "S", 5),
        (readiness(every(1.0)), Readiness, "F", 3),
        (docker(Probe::health()), ProbeKind::Health, "F", 3),
    ] {
        let mut health = Health::new(&probes, START);
        feed(&mut health, &probes, kind, &result.repeat(until_steady));
        let steady = health.to_save();
        feed(&mut health, &probes, kind, &result.repeat(20));
        assert_eq!(health.to_save(), steady);
    }
}

#[test]
fn what_has_no_probes_is_ready_at_once() {
    let probes = Probes::default();
    let mut health = Health::new(&probes, START);
    assert!(probes.is_empty());
    assert!(health.is_started(&probes) && health.is_ready(&probes));
    assert_eq!((health.status(), health.deadline()), (HealthStatus::None, None));
    assert_eq!(health.due(&probes, at(5.0)), []);
}

#[test]
fn what_has_only_a_liveness_probe_is_ready_at_once() {
    let probes = liveness(every(1.0));
    let health = Health::new(&probes, START);
    assert!(health.is_ready(&probes));
    assert_eq!(health.status(), HealthStatus::Starting, "nobody has said that it is healthy");
}

#[test]
fn kinds_of_probes_have_rules_of_their_own() {
    let bad = |probe: Probe, kind| probe.validate(kind).map_err(|bad| bad.to_string());
    let says = |text: &str| Err(text.to_owned());
    assert_eq!(bad(Probe::default(), Liveness), Ok(()));
    assert_eq!(bad(Probe::health(), ProbeKind::Health), Ok(()));
    assert_eq!(
        bad(Probe { success_threshold: 2, ..Probe::default() }, Liveness),
        says("successThreshold: must be 1 for liveness")
    );
    assert_eq!(
        bad(Probe { success_threshold: 2, ..Probe::default() }, Startup),
        says("successThreshold: must be 1 for startup")
    );
    assert_eq!(bad(Probe { success_threshold: 2, ..Probe::default() }, Readiness), Ok(()));
    assert_eq!(
        bad(Probe { grace: Some(Duration::from_secs(5)), ..Probe::default() }, Readiness),
        says("terminationGracePeriodSeconds: must not be set for readinessProbes")
    );
    assert_eq!(
        bad(Probe { grace: Some(Duration::ZERO), ..Probe::default() }, Liveness),
        says("terminationGracePeriodSeconds: must be greater than 0")
    );
    assert_eq!(bad(every(0.1), Liveness), Ok(()));
    assert_eq!(
        bad(every(0.099), Liveness),
        says("periodSeconds: must be greater than or equal to 0.1 (seconds)")
    );
    assert_eq!(
        bad(Probe { timeout: Duration::ZERO, ..Probe::health() }, ProbeKind::Health),
        says("timeout: must be greater than or equal to 0.1 (seconds)")
    );
    assert_eq!(
        bad(Probe { failure_threshold: 0, ..Probe::default() }, Startup),
        says("failureThreshold: must be greater than or equal to 1")
    );
}
