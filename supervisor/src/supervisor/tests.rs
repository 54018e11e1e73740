//! What containers have to do with each other.

use crate::*;
use std::time::Duration;

const DB: Id = Id::from_bytes([1; 32]);
const WEB: Id = Id::from_bytes([2; 32]);
const FRONT: Id = Id::from_bytes([3; 32]);

struct Host {
    supervisor: Supervisor,
    now: Time,
}

impl Host {
    fn new(limits: Limits) -> Self {
        Self { supervisor: Supervisor::new(limits), now: Time(1_000_000_000) }
    }

    fn command(&mut self, command: Command) -> Result<Accepted, Rejection> {
        self.supervisor.command(self.now, command)
    }

    /// A new supervisor for what this one would save, with the same found of each run.
    fn dies(&self, observed: Observed) -> Self {
        let mut next = Self { now: self.now, ..Self::new(self.supervisor.limits) };
        for container in self.supervisor.containers() {
            let saved = container.to_save();
            next.supervisor.adopt(self.now, container.id(), container.spec().clone(), saved, observed);
        }
        next.supervisor.adopted(self.now);
        next
    }

    fn started(&mut self, id: Id) {
        self.now = self.now + Duration::from_millis(1);
        let run = self.run(id);
        let at = Stamp { boot: self.now, wall: 0 };
        self.supervisor.fact(self.now, Fact::Started { id, run, pid: 100, at });
    }

    fn ended(&mut self, id: Id, code: u8) {
        self.now = self.now + Duration::from_millis(1);
        let run = self.run(id);
        let at = Stamp { boot: self.now, wall: 0 };
        let exit = Exit { status: ExitStatus::Code(code), oom_killed: false, at };
        self.supervisor.fact(self.now, Fact::Exited { id, run, exit });
        self.supervisor.fact(self.now, Fact::CleanedUp { id, run });
    }

    /// What came of the next probe of this kind.
    fn probed(&mut self, id: Id, kind: ProbeKind, success: bool) {
        let due = self.supervisor.next_deadline().expect("it is to be probed");
        self.now = self.now.max(due);
        self.supervisor.tick(self.now);
        let asks = |effect: &Effect| matches!(effect, Effect::Probe { kind: asked, .. } if *asked == kind);
        let effects = self.supervisor.effects();
        assert!(effects.iter().any(asks), "{effects:?}");
        let result = if success { ProbeResult::Success } else { ProbeResult::Failure("refused".to_owned()) };
        self.supervisor.fact(self.now, Fact::Probed { id, run: self.run(id), kind, result });
    }

    fn health(&self, id: Id) -> HealthStatus {
        self.supervisor.container(id).expect("it exists").vitals().health().status()
    }

    fn run(&self, id: Id) -> Run {
        self.supervisor.container(id).and_then(|container| container.state().run()).expect("it has a run")
    }

    fn state(&self, id: Id) -> &'static str {
        self.supervisor.container(id).expect("it exists").state().name()
    }

    /// Why it waits.
    fn held(&self, id: Id) -> String {
        let container = self.supervisor.container(id).expect("it exists");
        let State::Waiting { hold: Some(hold), .. } = container.state() else { panic!("{container:?}") };
        hold.to_string()
    }

    /// Those that were begun, in order.
    fn begun(&mut self) -> Vec<Id> {
        let start = |effect| if let Effect::Start { id, .. } = effect { Some(id) } else { None };
        self.supervisor.effects().into_iter().filter_map(start).collect()
    }

    /// Those that were asked to stop, in order.
    fn asked_to_stop(&mut self) -> Vec<Id> {
        let stop = |effect| if let Effect::Signal { id, .. } = effect { Some(id) } else { None };
        self.supervisor.effects().into_iter().filter_map(stop).collect()
    }
}

fn spec(name: &str, requires: &[(&str, Condition, bool)]) -> Spec {
    let stop = Stop { signal: Signal::TERM, grace: Duration::from_secs(10) };
    let requires = requires
        .iter()
        .map(|(name, condition, restart_with)| Requirement {
            name: name.parse().expect("a name"),
            condition: *condition,
            restart_with: *restart_with,
        })
        .collect();
    Spec { requires, ..Spec::new(name.parse().expect("a name"), stop) }
}

fn always(name: &str) -> Spec {
    let mut spec = spec(name, &[]);
    spec.restart.policy = Policy::Always;
    spec
}

/// `web` requires `db` to be healthy; `db`, which is looked after like this, runs.
fn requires_healthy(probes: Probes) -> Host {
    let mut host = Host::new(Limits::default());
    let db = Spec { probes, restart: always("db").restart, ..spec("db", &[]) };
    host.command(Command::Run { id: DB, spec: db }).expect("accepted");
    let web = spec("web", &[("db", Condition::Healthy, false)]);
    host.command(Command::Run { id: WEB, spec: web }).expect("accepted");
    assert_eq!(host.begun(), [DB]);
    host.started(DB);
    host
}

/// `web` requires `db`, `front` requires `web`; nothing is started.
fn chain(condition: Condition, restart_with: bool) -> Host {
    let mut host = Host::new(Limits::default());
    for (id, spec) in [
        (DB, spec("db", &[])),
        (WEB, spec("web", &[("db", condition, restart_with)])),
        (FRONT, spec("front", &[("web", condition, restart_with)])),
    ] {
        host.command(Command::Create { id, spec }).expect("created");
    }
    host.supervisor.effects();
    host
}

#[test]
fn start_brings_up_what_it_requires_one_after_the_other() {
    let mut host = chain(Condition::Started, false);
    host.command(Command::Start { id: FRONT }).expect("accepted");
    assert_eq!(host.begun(), [DB]);
    assert_eq!(host.state(FRONT), "waiting");
    host.started(DB);
    assert_eq!(host.begun(), [WEB]);
    host.started(WEB);
    assert_eq!(host.begun(), [FRONT]);
}

#[test]
fn what_is_held_says_by_whom() {
    let mut host = chain(Condition::Ready, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert_eq!(host.held(WEB), "waits for db to be ready (it is starting)");
    assert_eq!(host.supervisor.container(WEB).and_then(Container::deadline), None);
}

#[test]
fn requirement_to_be_completed_wants_exit_code_zero() {
    let mut host = chain(Condition::Completed, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    host.started(DB);
    host.ended(DB, 1);
    assert_eq!(host.state(WEB), "waiting");
    host.command(Command::Start { id: DB }).expect("accepted");
    host.started(DB);
    host.begun();
    host.ended(DB, 0);
    assert_eq!(host.begun(), [WEB]);
    host.started(WEB);
    host.ended(WEB, 0);
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert_eq!(host.begun(), [WEB], "db has done its work");
}

#[test]
fn requirement_to_be_healthy_waits_for_the_startup_probe() {
    let mut host = requires_healthy(Probes { startup: Some(Probe::default()), ..Probes::default() });
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is running)");
    host.probed(DB, ProbeKind::Startup, false);
    host.probed(DB, ProbeKind::Startup, false);
    assert_eq!(host.begun(), [], "it may still succeed");
    assert_eq!(host.state(WEB), "waiting");
    host.probed(DB, ProbeKind::Startup, true);
    assert_eq!(host.begun(), [WEB]);
}

#[test]
fn requirement_to_be_healthy_waits_while_the_health_check_is_still_starting() {
    for start_period in [Duration::ZERO, Duration::from_secs(300)] {
        let health = Some(Probe { start_period, ..Probe::health() });
        let mut host = requires_healthy(Probes { health, ..Probes::default() });
        assert_eq!(host.held(WEB), "waits for db to be healthy (it is running)");
        host.probed(DB, ProbeKind::Health, false);
        host.probed(DB, ProbeKind::Health, false);
        assert_eq!(host.health(DB), HealthStatus::Starting);
        assert_eq!(host.begun(), []);
        assert_eq!(host.state(WEB), "waiting");
        host.probed(DB, ProbeKind::Health, true);
        assert_eq!(host.health(DB), HealthStatus::Healthy);
        assert_eq!(host.begun(), [WEB]);
    }
}

#[test]
fn requirement_to_be_healthy_waits_while_it_is_unhealthy() {
    let health = Some(Probe { failure_threshold: 2, ..Probe::health() });
    let mut host = requires_healthy(Probes { health, ..Probes::default() });
    host.probed(DB, ProbeKind::Health, false);
    host.probed(DB, ProbeKind::Health, false);
    assert_eq!(host.health(DB), HealthStatus::Unhealthy);
    assert_eq!(host.begun(), []);
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is running)");
    host.probed(DB, ProbeKind::Health, true);
    assert_eq!(host.begun(), [WEB], "one success is enough");
}

#[test]
fn requirement_that_turns_unhealthy_holds_the_next_start_and_stops_nobody() {
    let health = Some(Probe { failure_threshold: 1, ..Probe::health() });
    let mut host = requires_healthy(Probes { health, ..Probes::default() });
    host.probed(DB, ProbeKind::Health, true);
    host.started(WEB);
    host.supervisor.effects();
    host.probed(DB, ProbeKind::Health, false);
    assert_eq!(host.asked_to_stop(), []);
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    host.ended(WEB, 0);
    assert_eq!(host.begun(), []);
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is running)");
    host.probed(DB, ProbeKind::Health, true);
    assert_eq!(host.begun(), [WEB]);
}

#[test]
fn requirement_to_be_healthy_waits_for_the_next_run_of_one_that_failed_its_liveness_probe() {
    let liveness = Some(Probe { failure_threshold: 1, ..Probe::default() });
    let mut host = requires_healthy(Probes { liveness, ..Probes::default() });
    assert_eq!(host.begun(), [WEB], "a liveness probe only speaks up against it");
    host.started(WEB);
    host.probed(DB, ProbeKind::Liveness, false);
    assert_eq!(host.asked_to_stop(), [DB]);
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    host.ended(WEB, 0);
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is stopping)");
    host.ended(DB, 0);
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is starting)");
    host.begun();
    host.started(DB);
    assert_eq!(host.begun(), [WEB], "that was the run before");
}

#[test]
fn requirement_to_be_healthy_waits_for_the_hook_after_the_start() {
    let mut host = Host::new(Limits::default());
    let mut db = spec("db", &[]);
    db.hooks.post_start = true;
    host.command(Command::Run { id: DB, spec: db }).expect("accepted");
    let web = spec("web", &[("db", Condition::Healthy, false)]);
    host.command(Command::Run { id: WEB, spec: web }).expect("accepted");
    host.started(DB);
    host.begun();
    assert_eq!(host.held(WEB), "waits for db to be healthy (it is running)");
    let ended = Fact::HookEnded { id: DB, run: Run(1), hook: Hook::PostStart, failure: None };
    host.supervisor.fact(host.now, ended);
    assert_eq!(host.begun(), [WEB]);
}

#[test]
fn requirement_to_be_healthy_does_not_ask_whether_it_is_ready() {
    let mut host = requires_healthy(Probes { readiness: Some(Probe::default()), ..Probes::default() });
    assert_eq!(host.begun(), [WEB]);
}

#[test]
fn requirement_to_be_healthy_outlives_the_daemon() {
    for healthy in [true, false] {
        let health = Some(Probe { failure_threshold: 1, ..Probe::health() });
        let mut host = requires_healthy(Probes { health, ..Probes::default() });
        host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
        host.probed(DB, ProbeKind::Health, healthy);
        let mut next = host.dies(Observed::Alive { pid: 100, started: Stamp::default(), frozen: false });
        next.command(Command::Start { id: WEB }).expect("accepted");
        assert_eq!(next.begun().contains(&WEB), healthy);
    }
}

#[test]
fn restart_of_a_requirement_restarts_only_those_that_ask_for_it() {
    for restart_with in [true, false] {
        let mut host = chain(Condition::Started, restart_with);
        host.command(Command::Start { id: WEB }).expect("accepted");
        host.started(DB);
        host.started(WEB);
        host.command(Command::Restart { id: DB, grace: None }).expect("accepted");
        host.ended(DB, 0);
        host.asked_to_stop();
        host.started(DB);
        let asked = if restart_with { vec![WEB] } else { vec![] };
        assert_eq!(host.asked_to_stop(), asked);
        if restart_with {
            host.ended(WEB, 0);
            assert_eq!(host.begun(), [WEB]);
        }
    }
}

#[test]
fn stopping_all_goes_from_the_dependants_to_the_required() {
    let mut host = chain(Condition::Started, false);
    host.command(Command::Start { id: FRONT }).expect("accepted");
    for id in [DB, WEB, FRONT] {
        host.started(id);
    }
    host.supervisor.effects();
    host.command(Command::StopAll { grace: None }).expect("accepted");
    assert_eq!(host.asked_to_stop(), [FRONT]);
    host.ended(FRONT, 0);
    assert_eq!(host.asked_to_stop(), [WEB]);
    host.ended(WEB, 0);
    assert_eq!(host.asked_to_stop(), [DB]);
    assert_eq!(host.state(DB), "stopping");
}

#[test]
fn stop_of_one_that_is_required_does_not_wait_for_those_that_go_on() {
    let mut host = chain(Condition::Started, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    host.started(DB);
    host.started(WEB);
    host.supervisor.effects();
    host.command(Command::Stop { id: DB, grace: None }).expect("accepted");
    assert_eq!(host.asked_to_stop(), [DB]);
    assert_eq!(host.state(WEB), "running");
}

#[test]
fn unknown_requirement_and_cycles_are_refused_by_name() {
    let mut host = Host::new(Limits::default());
    let refused =
        host.command(Command::Create { id: WEB, spec: spec("web", &[("db", Condition::Started, false)]) });
    assert_eq!(
        refused.expect_err("nobody is called db").to_string(),
        "requires: there is no container db; create it first"
    );
    let refused =
        host.command(Command::Create { id: WEB, spec: spec("web", &[("web", Condition::Started, false)]) });
    assert!(refused.expect_err("itself").to_string().contains("web -> web"));

    let mut host = chain(Condition::Started, false);
    host.command(Command::Remove { id: DB, force: true }).expect("by force");
    host.supervisor.fact(host.now, Fact::Deleted { id: DB });
    let again = spec("db", &[("front", Condition::Started, false)]);
    let refused = host.command(Command::Create { id: DB, spec: again }).expect_err("a cycle");
    assert_eq!(
        refused.to_string(),
        "requires: db -> front -> web -> db would never start: each waits for the next; leave one of these out"
    );
}

#[test]
fn required_container_is_removed_by_force_only() {
    let mut host = chain(Condition::Started, false);
    let refused = host.command(Command::Remove { id: DB, force: false }).expect_err("web requires it");
    assert!(refused.to_string().contains("required by web"), "{refused}");
    host.command(Command::Remove { id: DB, force: true }).expect("by force");
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert_eq!(host.held(WEB), "waits for db to be started (it is removing)");
    host.supervisor.fact(host.now, Fact::Deleted { id: DB });
    assert_eq!(host.held(WEB), "waits for db to be started (it is missing)");
    host.command(Command::Run { id: DB, spec: spec("db", &[]) }).expect("the name is free");
    host.begun();
    host.started(DB);
    assert_eq!(host.begun(), [WEB]);
}

#[test]
fn no_more_starts_at_a_time_than_allowed_and_the_longest_waiting_first() {
    let mut host = Host::new(Limits { starts: 2, ..Limits::default() });
    let ids: Vec<Id> = (10..15).map(|byte| Id::from_bytes([byte; 32])).collect();
    for (number, id) in ids.iter().rev().enumerate() {
        let spec = spec(&format!("c{number}"), &[]);
        host.command(Command::Run { id: *id, spec }).expect("accepted");
    }
    assert_eq!(host.begun(), [ids[4], ids[3]]);
    host.started(ids[3]);
    assert_eq!(host.begun(), [ids[2]]);
    host.started(ids[4]);
    assert_eq!(host.begun(), [ids[1]]);
    host.command(Command::Remove { id: ids[0], force: true }).expect("by force");
    host.started(ids[1]);
    assert_eq!(host.begun(), []);
}

#[test]
fn restarts_beyond_the_burst_come_one_by_one() {
    let every = Duration::from_secs(1);
    let mut host = Host::new(Limits { starts: 100, restart_burst: 2, restart_every: every });
    let ids: Vec<Id> = (10..15).map(|byte| Id::from_bytes([byte; 32])).collect();
    for (number, id) in ids.iter().enumerate() {
        host.command(Command::Run { id: *id, spec: always(&format!("c{number}")) }).expect("accepted");
        host.started(*id);
    }
    host.begun();
    for id in &ids {
        host.ended(*id, 1);
    }
    assert_eq!(host.begun(), ids[..2]);
    assert_eq!(host.state(ids[2]), "waiting");
    for id in &ids[2..] {
        let next = host.supervisor.next_deadline().expect("there is more to come");
        assert!(next > host.now);
        host.now = next;
        host.supervisor.tick(next);
        assert_eq!(host.begun(), [*id]);
    }
    assert!(host.now.since(Time(1_000_000_000)) >= every * 2);
}

#[test]
fn whoever_asks_for_a_start_does_not_wait_for_the_back_off() {
    let mut host = Host::new(Limits::default());
    host.command(Command::Run { id: WEB, spec: always("web") }).expect("accepted");
    for _ in 0..2 {
        host.started(WEB);
        host.ended(WEB, 1);
    }
    host.begun();
    assert_eq!(host.state(WEB), "waiting");
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert_eq!(host.begun(), [WEB]);
    assert_eq!(host.supervisor.container(WEB).map(|web| web.restarts().count), Some(0));
}

#[test]
fn after_a_boot_those_come_back_that_should() {
    let mut host = Host::new(Limits::default());
    let at = Stamp { boot: Time(0), wall: 7 };
    let ended = |code| {
        let exit = Exit { status: ExitStatus::Code(code), oom_killed: false, at };
        Phase::Ended { run: Run(1), ending: Ending::Exited(exit) }
    };
    let running = Phase::Running { process: Process { run: Run(1), pid: 5 } };
    let up = Goal::Up { run: Run(1), paused: false };
    let cases = [
        (Policy::No, up, running.clone(), false),
        (Policy::Always, up, running.clone(), true),
        (Policy::Always, Goal::Down, ended(0), true),
        (Policy::Always, Goal::Down, Phase::Created, false),
        (Policy::UnlessStopped, up, running.clone(), true),
        (Policy::UnlessStopped, Goal::Down, ended(0), false),
        (Policy::OnFailure { max: None }, up, running, true),
        (Policy::OnFailure { max: None }, Goal::Down, ended(0), false),
    ];
    for (number, (policy, goal, phase, _)) in cases.iter().enumerate() {
        let id = Id::from_bytes([number as u8 + 1; 32]);
        let mut spec = spec(&format!("c{number}"), &[]);
        spec.restart.policy = *policy;
        let (restarts, vitals) = (Restarts::default(), SavedVitals::default());
        let saved = Saved { goal: *goal, phase: phase.clone(), started: Some(at), restarts, vitals };
        host.supervisor.adopt(host.now, id, spec, saved, Observed::Rebooted { at: Stamp::default() });
    }
    host.supervisor.adopted(host.now);
    for number in 0..cases.len() {
        let id = Id::from_bytes([number as u8 + 1; 32]);
        if host.state(id) == "exited" {
            let run = host.run(id);
            host.supervisor.fact(host.now, Fact::CleanedUp { id, run });
        }
    }
    let begun = host.begun();
    for (number, case) in cases.iter().enumerate() {
        let id = Id::from_bytes([number as u8 + 1; 32]);
        assert_eq!(begun.contains(&id), case.3, "{case:?}: {:?}", host.supervisor.container(id));
    }
}

#[test]
fn stopping_all_ends_the_waiting_too() {
    let mut host = chain(Condition::Ready, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert_eq!(host.state(WEB), "waiting");
    host.command(Command::StopAll { grace: None }).expect("accepted");
    assert_eq!(host.state(WEB), "created");
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    assert_eq!(host.state(WEB), "waiting", "it can be started again");
}

#[test]
fn start_of_one_that_waits_starts_again_what_it_waits_for() {
    let mut host = chain(Condition::Ready, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    host.ended(DB, 1);
    host.begun();
    assert_eq!(host.command(Command::Start { id: WEB }), Ok(Accepted::Underway));
    assert_eq!(host.begun(), [DB]);
    assert_eq!(host.command(Command::Start { id: WEB }), Ok(Accepted::Already));
}

#[test]
fn order_of_stopping_all_outlives_the_daemon() {
    let mut host = chain(Condition::Started, false);
    host.command(Command::Start { id: WEB }).expect("accepted");
    host.started(DB);
    host.started(WEB);
    host.command(Command::StopAll { grace: None }).expect("accepted");
    let mut next = host.dies(Observed::Alive { pid: 100, started: Stamp::default(), frozen: false });
    assert_eq!(next.asked_to_stop(), [WEB]);
    next.ended(WEB, 0);
    assert_eq!(next.asked_to_stop(), [DB]);
}

#[test]
fn restarts_that_are_due_when_the_daemon_comes_back_keep_to_the_budget() {
    let second = Duration::from_secs(1);
    let limits = Limits { restart_burst: 1, restart_every: second, ..Limits::default() };
    let mut host = Host::new(limits);
    for (id, name) in [(DB, "db"), (WEB, "web"), (FRONT, "front")] {
        let mut spec = always(name);
        spec.restart.back_off = BackOff::DOCKER;
        host.command(Command::Run { id, spec }).expect("accepted");
        host.started(id);
        host.ended(id, 1);
    }
    host.now = host.now + second;
    let mut next = host.dies(Observed::Nothing { at: Stamp::default() });
    assert_eq!(next.begun().len(), 1);
    next.now = next.now + second;
    next.supervisor.tick(next.now);
    assert_eq!(next.begun().len(), 1);
}

#[test]
fn time_the_host_slept_is_added_to_what_others_are_given() {
    let hour = Duration::from_secs(3600);
    let mut host = Host::new(Limits::default());
    let mut spec = spec("web", &[]);
    spec.notify = Some(Notify { ready: false, watchdog: Some(Duration::from_secs(30)) });
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    host.now = host.now + hour;
    host.supervisor.slept(host.now, hour);
    host.supervisor.tick(host.now);
    assert_eq!(host.state(WEB), "starting");
    host.started(WEB);
    host.now = host.now + hour;
    host.supervisor.slept(host.now, hour);
    host.supervisor.tick(host.now);
    assert_eq!(host.state(WEB), "running", "it could not feed its watchdog");
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.now = host.now + hour;
    host.supervisor.slept(host.now, hour);
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + Duration::from_secs(10)));
}
