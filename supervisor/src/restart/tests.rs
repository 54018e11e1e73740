//! Delays and limits, compared with the numbers of the systems that they are taken from.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A container whose runs end as they are told to, by a clock that stands still in between.
struct Loop {
    restart: Restart,
    restarts: Restarts,
    now: Time,
}

impl Loop {
    fn new(restart: Restart) -> Self {
        assert_eq!(restart.validate(), Ok(()));
        let mut this = Self { restart, restarts: Restarts::default(), now: Time(1) + secs(1000) };
        assert_eq!(this.restarts.started(&this.restart, this.now), Ok(()));
        this
    }

    fn of(preset: Preset) -> Self {
        Self::new(preset.restart(Policy::Always))
    }

    fn ends(&mut self, ran_for: Duration, code: i32) -> Decision {
        self.now = self.now + ran_for;
        let end = RunEnd { at: self.now, ran_for, ready_for: ran_for, failed: code != 0, code: Some(code) };
        self.restarts.decide(&self.restart, &end, 7)
    }

    /// Ends and is started again when it is due: how long that took.
    fn crash(&mut self, ran_for: Duration) -> Duration {
        let Decision::Again { at, delay } = self.ends(ran_for, 1) else {
            panic!("not started again: {:?}", self.restarts);
        };
        assert_eq!(at, self.now + delay);
        self.now = at;
        assert_eq!(self.restarts.started(&self.restart, at), Ok(()));
        delay
    }

    fn delays(&mut self, ran_for: Duration, count: usize) -> Vec<Duration> {
        (0..count).map(|_| self.crash(ran_for)).collect()
    }
}

#[test]
fn kubernetes_waits_as_the_kubelet_does() {
    let mut pod = Loop::of(Preset::Kubernetes);
    assert_eq!(pod.delays(SECOND, 9), [0, 10, 20, 40, 80, 160, 300, 300, 300].map(secs));
    assert_eq!(pod.delays(secs(601), 1), [Duration::ZERO]);
    assert_eq!(pod.delays(SECOND, 2), [10, 20].map(secs));
    // Ten minutes are not more than ten minutes.
    assert_eq!(pod.crash(secs(600)), secs(40));
}

#[test]
fn kubernetes_backs_off_after_success_too() {
    let mut pod = Loop::of(Preset::Kubernetes);
    for delay in [0, 10, 20] {
        assert!(matches!(pod.ends(SECOND, 0), Decision::Again { delay: is, .. } if is == secs(delay)));
    }
}

#[test]
fn docker_waits_as_the_engine_does() {
    let mut container = Loop::of(Preset::Docker);
    let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000].map(ms);
    assert_eq!(container.delays(ms(9900), 12), expected);
    assert_eq!(container.crash(secs(10)), ms(100));
    assert_eq!(container.crash(ms(9900)), ms(200));
}

#[test]
fn docker_counts_all_retries_since_the_start_by_hand() {
    let mut container = Loop::new(Preset::Docker.restart(Policy::OnFailure { max: Some(3) }));
    // Runs of a day make the back-off new, not the count.
    assert_eq!(container.delays(secs(86_400), 3), [ms(100); 3]);
    assert_eq!(container.ends(secs(86_400), 1), Decision::GiveUp(GaveUp::Retries { max: 3 }));
    container.restarts.reset();
    assert_eq!(container.delays(SECOND, 3), [100, 200, 400].map(ms));
    assert_eq!(container.ends(SECOND, 1), Decision::GiveUp(GaveUp::Retries { max: 3 }));
}

#[test]
fn success_is_no_failure() {
    let mut container = Loop::new(Preset::Docker.restart(Policy::OnFailure { max: Some(3) }));
    assert_eq!(container.ends(SECOND, 0), Decision::Stay);
    assert_eq!(container.restarts.count, 0);
}

#[test]
fn default_restarts_once_at_once_and_begins_anew_when_ready() {
    let mut restart = Restart { policy: Policy::UnlessStopped, ..Restart::default() };
    restart.back_off.jitter_percent = 0;
    let mut container = Loop::new(restart);
    let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000].map(ms);
    assert_eq!(container.delays(SECOND, 13), expected);
    assert_eq!(container.crash(secs(10)), Duration::ZERO);
    assert_eq!(container.crash(ms(9999)), ms(100));
    // It ran for an hour, but was never ready.
    let end = RunEnd {
        at: container.now + secs(3600),
        ran_for: secs(3600),
        ready_for: Duration::ZERO,
        failed: true,
        code: None,
    };
    let decision = container.restarts.decide(&container.restart, &end, 7);
    assert_eq!(decision, Decision::Again { at: end.at + ms(200), delay: ms(200) });
}

#[test]
fn systemd_gives_up_at_the_sixth_start() {
    let mut unit = Loop::of(Preset::Systemd);
    assert_eq!(unit.delays(ms(1), 4), [ms(100); 4]);
    let Decision::Again { at, delay } = unit.ends(ms(1), 1) else { panic!("not started again") };
    assert_eq!(delay, ms(100));
    let gave_up = GaveUp::StartLimit { burst: 5, interval: secs(10) };
    assert_eq!(unit.restarts.started(&unit.restart, at), Err(gave_up));
    // A start by hand is one more.
    unit.restarts.reset();
    assert_eq!(unit.restarts.started(&unit.restart, at + secs(1)), Err(gave_up));
    let mut forgotten = unit.restarts.clone();
    forgotten.forget();
    assert_eq!(forgotten.started(&unit.restart, at + secs(1)), Ok(()));
    assert_eq!(unit.restarts.started(&unit.restart, at + secs(10)), Ok(()));
}

#[test]
fn systemd_never_gives_up_on_slow_crashes() {
    let mut unit = Loop::of(Preset::Systemd);
    assert_eq!(unit.delays(secs(3), 100), [ms(100); 100]);
}

#[test]
fn steps_are_those_of_systemd() {
    let steps = |initial, max| {
        let growth = Growth::Steps(5);
        let back_off = BackOff { initial, max, growth, ..BackOff::SYSTEMD };
        Loop::new(Restart { policy: Policy::Always, back_off, ..Restart::default() })
            .delays(secs(100), 7)
            .iter()
            .map(Duration::as_secs_f64)
            .map(|delay| (delay * 100.0).round() / 100.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(secs(1), secs(60)), [1.0, 2.27, 5.14, 11.67, 26.46, 60.0, 60.0]);
    assert_eq!(steps(ms(100), secs(100)), [0.1, 0.4, 1.58, 6.31, 25.12, 100.0, 100.0]);
}

#[test]
fn any_with_max_attempts_is_honoured() {
    let attempts = Some(Attempts { max: 3, window: None });
    let mut service = Loop::new(Restart { policy: Policy::Always, attempts, ..Restart::default() });
    for _ in 0..3 {
        assert!(matches!(service.ends(SECOND, 0), Decision::Again { .. }));
    }
    assert_eq!(service.ends(SECOND, 0), Decision::GiveUp(GaveUp::Attempts { max: 3, window: None }));
}

#[test]
fn only_attempts_within_the_window_count() {
    let window = Some(secs(120));
    let attempts = Some(Attempts { max: 2, window });
    let back_off = BackOff { initial: secs(5), max: secs(5), ..BackOff::SYSTEMD };
    let mut service = Loop::new(Restart { policy: Policy::Always, attempts, back_off, ..Restart::default() });
    assert_eq!(service.delays(SECOND, 2), [secs(5); 2]);
    // The first was decided 120 s ago, counting the delays.
    assert_eq!(service.crash(secs(109)), secs(5));
    assert_eq!(service.restarts.recent.len(), 2);
    assert_eq!(service.ends(ms(900), 1), Decision::GiveUp(GaveUp::Attempts { max: 2, window }));
}

#[test]
fn first_rule_that_fits_comes_before_the_policy() {
    let rule = |action, codes| ExitRule { action, codes };
    let rules = vec![
        rule(RuleAction::Stay, Codes::In(vec![3])),
        rule(RuleAction::Restart, Codes::In(vec![3, 42])),
        rule(RuleAction::Stay, Codes::NotIn(vec![1])),
    ];
    let wants = |policy, code, failed| {
        let restart = Restart { policy, rules: rules.clone(), ..Restart::default() };
        restart.wants(&RunEnd { at: Time(5), ran_for: SECOND, ready_for: SECOND, failed, code })
    };
    assert!(!wants(Policy::Always, Some(3), true));
    assert!(wants(Policy::No, Some(42), true));
    assert!(!wants(Policy::Always, Some(0), false));
    assert!(wants(Policy::OnFailure { max: None }, Some(1), true));
    assert!(!wants(Policy::No, Some(1), true));
    // Nobody knows the code: no rule fits.
    assert!(wants(Policy::OnFailure { max: None }, None, true));
    assert!(!wants(Policy::No, None, true));
}

#[test]
fn rules_do_not_get_round_the_limit() {
    let rules = vec![ExitRule { action: RuleAction::Restart, codes: Codes::In(vec![42]) }];
    let mut job = Loop::new(Restart { rules, ..Preset::Docker.restart(Policy::OnFailure { max: Some(1) }) });
    assert!(matches!(job.ends(SECOND, 42), Decision::Again { .. }));
    assert_eq!(job.ends(SECOND, 42), Decision::GiveUp(GaveUp::Retries { max: 1 }));
}

#[test]
fn chance_only_lengthens_a_delay() {
    let back_off = BackOff { jitter_percent: 10, ..BackOff::DOCKER };
    let delays: Vec<_> = (0..1000).map(|seed| back_off.jitter(secs(60), seed)).collect();
    assert!(delays.iter().all(|delay| (secs(60)..secs(66)).contains(delay)));
    assert!(delays.iter().any(|delay| *delay < secs(61)));
    assert!(delays.iter().any(|delay| *delay > secs(65)));
    assert_eq!(back_off.jitter(secs(60), 3), back_off.jitter(secs(60), 3));
    assert_eq!(back_off.jitter(Duration::ZERO, 3), Duration::ZERO);
    assert_eq!(BackOff::DOCKER.jitter(secs(60), 3), secs(60));
}

#[test]
fn time_of_an_earlier_boot_neither_delays_nor_limits() {
    let window = Some(secs(120));
    for (decided_at, now) in
        [(Time(0), Time(0)), (Time(0), Time(5) + SECOND), (Time(0) + secs(9000), Time(0))]
    {
        for preset in Preset::ALL {
            let attempts = Some(Attempts { max: 2, window });
            let restart = Restart { attempts, ..preset.restart(Policy::Always) };
            let mut restarts = Restarts {
                count: u32::MAX,
                streak: u32::MAX,
                decided_at: Some(decided_at),
                recent: vec![decided_at; 2],
                limit_from: Some(decided_at),
                starts: 5,
            };
            assert_eq!(restarts.clone().started(&restart, now), Ok(()));
            let end = RunEnd {
                at: now,
                ran_for: Duration::ZERO,
                ready_for: Duration::ZERO,
                failed: true,
                code: None,
            };
            let Decision::Again { at, delay } = restarts.decide(&restart, &end, 7) else {
                panic!("not started again: {preset:?}");
            };
            assert_eq!(at, now + delay);
            assert!((restart.back_off.max..=restart.back_off.max * 2).contains(&delay), "{delay:?}");
        }
    }
}

#[test]
fn start_that_had_to_wait_begins_the_quiet_time() {
    let mut pod = Loop::of(Preset::Kubernetes);
    pod.delays(SECOND, 2);
    let Decision::Again { at, .. } = pod.ends(SECOND, 1) else { panic!("not started again") };
    pod.now = at + secs(500);
    assert_eq!(pod.restarts.started(&pod.restart, pod.now), Ok(()));
    assert_eq!(pod.crash(secs(200)), secs(40));
}

#[test]
fn delays_never_shrink_and_end_at_the_longest() {
    for thousandths in [1000, 1001, 1500, 2000, LARGEST_FACTOR] {
        for initial in [Duration::ZERO, Duration::from_nanos(1), ms(1), SECOND, LONGEST_DELAY] {
            let growth = Growth::Factor { thousandths };
            let back_off = BackOff { initial, growth, max: LONGEST_DELAY, ..BackOff::DEFAULT };
            assert_eq!(back_off.validate(), Ok(()));
            let counts = (0..2000).chain([u32::MAX - 1, u32::MAX]);
            let delays: Vec<_> = counts.map(|earlier| back_off.delay(earlier)).collect();
            assert!(delays.is_sorted(), "{back_off:?}");
            assert!(delays.iter().all(|delay| *delay <= LONGEST_DELAY), "{back_off:?}");
        }
    }
}

#[test]
fn presets_are_valid_and_go_by_their_names() {
    for preset in Preset::ALL {
        assert_eq!(Preset::parse(preset.name()), Some(preset));
        assert_eq!(BackOff::preset(preset.name()), Some(preset.back_off()));
        assert_eq!(preset.restart(Policy::No).validate(), Ok(()));
    }
    assert_eq!(BackOff::preset("k8s"), None);
    assert_eq!(Restart::default().policy, Policy::No);
}

#[test]
fn what_cannot_be_is_refused_with_its_range() {
    let always = || Restart { policy: Policy::Always, ..Restart::default() };
    let back_off = |change: fn(&mut BackOff)| {
        let mut restart = always();
        change(&mut restart.back_off);
        restart
    };
    let rule = |codes| {
        let rules = vec![ExitRule { action: RuleAction::Stay, codes }];
        Restart { rules, ..always() }
    };
    let attempts = |max, window| Restart { attempts: Some(Attempts { max, window }), ..always() };
    let cases = [
        (
            Restart { policy: Policy::OnFailure { max: Some(0) }, ..always() },
            "restart.maxRetries: 0 is below 1",
        ),
        (attempts(0, None), "restart.maxAttempts: 0 is below 1"),
        (attempts(1001, Some(SECOND)), "restart.maxAttempts: 1001 is above 1000"),
        (attempts(1, Some(Duration::ZERO)), "restart.window: 0 s"),
        (
            Restart { policy: Policy::No, ..attempts(3, None) },
            "restart.maxAttempts: there is nothing to limit",
        ),
        (
            Restart { start_limit: Some(StartLimit { burst: 0, interval: SECOND }), ..always() },
            "restart.startLimit.burst: 0 is below 1",
        ),
        (
            Restart { start_limit: Some(StartLimit { burst: 1, interval: Duration::ZERO }), ..always() },
            "restart.startLimit.interval: 0 s",
        ),
        (
            back_off(|it| it.growth = Growth::Factor { thousandths: 500 }),
            "restart.factor: 0.5 is below 1; 1 to 1000 are possible",
        ),
        (
            back_off(|it| it.growth = Growth::Factor { thousandths: u32::MAX }),
            "restart.factor: 4294967.295 is too",
        ),
        (back_off(|it| it.growth = Growth::Steps(0)), "restart.steps: 0 is below 1"),
        (
            back_off(|it| (it.growth, it.initial) = (Growth::Steps(3), Duration::ZERO)),
            "restart.initial: 0 s cannot grow",
        ),
        (back_off(|it| it.max = ms(50)), "restart.max: 50ms is below restart.initial (100ms)"),
        (back_off(|it| it.max = LONGEST_DELAY * 2), "restart.max: 172800s is too long; 0 s to 86400s"),
        (back_off(|it| it.jitter_percent = 101), "restart.jitter: 101% is above 100%"),
        (back_off(|it| it.reset = Reset::Running(Duration::ZERO)), "restart.resetAfter: 0 s"),
        (rule(Codes::In(Vec::new())), "restart.rules[0].exitCodes.values: 0 codes"),
        (rule(Codes::NotIn(vec![0, 256])), "restart.rules[0].exitCodes.values: 256 is no exit code"),
        (
            Restart { rules: vec![rule(Codes::In(vec![1])).rules.remove(0); 21], ..always() },
            "restart.rules: 21",
        ),
    ];
    for (restart, expected) in cases {
        let error = restart.validate().expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn max_attempts_limit_rules_where_the_policy_never_restarts() {
    let rules = vec![ExitRule { action: RuleAction::Restart, codes: Codes::In(vec![42]) }];
    let attempts = Some(Attempts { max: 3, window: None });
    assert_eq!(Restart { rules, attempts, ..Restart::default() }.validate(), Ok(()));
}

#[test]
fn giving_up_says_what_to_do() {
    assert_eq!(
        GaveUp::Retries { max: 1 }.to_string(),
        "failed again after 1 restart; look at its logs, then `ctl start` it"
    );
    assert_eq!(
        GaveUp::Attempts { max: 3, window: Some(secs(120)) }.to_string(),
        "ended again after 3 restarts within 120s; look at its logs, then `ctl start` it"
    );
    assert_eq!(
        GaveUp::StartLimit { burst: 5, interval: secs(10) }.to_string(),
        "no more than 5 starts within 10s; look at its logs, then `ctl reset-failed` and `ctl start` it"
    );
}
