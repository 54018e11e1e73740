//! What one container does, by a clock that is moved by hand.

use crate::*;
use std::time::Duration;

mod notify;
mod stop;

const WEB: Id = Id::from_bytes([1; 32]);
const DB: Id = Id::from_bytes([2; 32]);
const GRACE: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_nanos(1);
const TERM: Effect = Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM };
const KILL: Effect = Effect::Kill { id: WEB, run: Run(1) };

#[test]
fn intent_is_saved_before_the_start() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    let effects = host.did();
    let save = position(
        &effects,
        |effect| matches!(effect, Effect::Save { saved, .. } if saved.phase == Phase::Starting { run: Run(1) }),
    );
    let start = position(&effects, |effect| matches!(effect, Effect::Start { run: Run(1), .. }));
    assert!(save < start, "{effects:?}");
}

#[test]
fn exit_is_saved_before_its_record_is_cleaned_up() {
    let mut host = Host::running();
    host.exited(Run(1), 3);
    let effects = host.did();
    let save = position(
        &effects,
        |effect| matches!(effect, Effect::Save { saved, .. } if matches!(saved.phase, Phase::CleaningUp { .. })),
    );
    let cleanup = position(&effects, |effect| matches!(effect, Effect::Cleanup { run: Run(1), .. }));
    assert!(save < cleanup, "{effects:?}");
}

#[test]
fn exit_ends_the_wish_to_run() {
    let mut host = Host::running();
    host.exited(Run(1), 3);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!(host.web().goal(), Goal::Down);
    assert_eq!(host.web().state().name(), "exited");
    assert!(matches!(host.web().state().ending(), Some(Ending::Exited(exit)) if exit.code() == Some(3)));
    assert!(host.web().is_settled());
    assert_eq!(host.supervisor.next_deadline(), None);
}

#[test]
fn fact_about_an_earlier_start_is_ignored() {
    let mut host = Host::running();
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    host.started(Run(2), 200);
    host.did();
    host.exited(Run(1), 1);
    host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
    assert_eq!(host.did(), []);
    assert!(matches!(host.web().state(), State::Running { process: Process { run: Run(2), pid: 200 } }));
}

#[test]
fn stop_signals_and_kills_after_the_grace() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
    host.after(GRACE - Duration::from_nanos(1));
    assert_eq!(host.did(), []);
    host.after(Duration::from_nanos(1));
    assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
    host.exited(Run(1), 0);
    assert_eq!(host.web().state().name(), "exited");
}

#[test]
fn stop_without_grace_kills_at_once() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: Some(Duration::ZERO) }).expect("accepted");
    let effects = host.did();
    assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Signal { .. })));
}

#[test]
fn stop_with_endless_grace_never_kills() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: Some(Duration::MAX) }).expect("accepted");
    assert_eq!(host.supervisor.next_deadline(), None);
    host.after(Duration::from_secs(1_000_000));
    assert_eq!(host.web().state().name(), "stopping");
}

#[test]
fn later_stop_can_shorten_the_grace_but_not_lengthen_it() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let first = host.supervisor.next_deadline();
    host.command(Command::Stop { id: WEB, grace: Some(GRACE * 2) }).expect("accepted");
    assert_eq!(host.supervisor.next_deadline(), first);
    host.command(Command::Stop { id: WEB, grace: Some(GRACE / 2) }).expect("accepted");
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE / 2));
}

#[test]
fn facts_do_not_change_the_grace_of_a_stop() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: Some(GRACE * 9) }).expect("accepted");
    host.fact(Fact::Oom { id: WEB, run: Run(1) });
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE * 9));
}

#[test]
fn stop_while_starting_signals_as_soon_as_it_runs_and_counts_from_the_wish() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let kill_at = host.now + GRACE;
    host.after(GRACE / 2);
    host.did();
    host.started(Run(1), 100);
    assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
    assert_eq!(host.supervisor.next_deadline(), Some(kill_at));
}

#[test]
fn start_without_outcome_is_given_up() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    host.did();
    host.after(super::START_LIMIT);
    let effects = host.did();
    assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
    assert!(effects.contains(&tell(Change::StartTimedOut(Run(1)))));
    host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
    assert_eq!(host.web().state().name(), "failed");
}

#[test]
fn start_that_succeeds_after_it_was_given_up_is_killed_again() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    host.after(super::START_LIMIT);
    host.did();
    host.started(Run(1), 100);
    assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
}

#[test]
fn kill_is_tried_again_until_it_works_and_says_so() {
    let mut host = Host::running();
    host.command(Command::Kill { id: WEB, signal: Signal::KILL }).expect("accepted");
    for attempt in 2..5 {
        host.did();
        host.after(super::KILL_LIMIT);
        let effects = host.did();
        assert!(effects.contains(&tell(Change::Retrying { step: Step::Kill, attempt })));
        assert!(effects.contains(&Effect::Kill { id: WEB, run: Run(1) }));
    }
}

#[test]
fn failed_start_ends_as_failed_and_can_be_started_again() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!((host.web().state().name(), host.web().goal()), ("failed", Goal::Down));
    host.did();
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
}

#[test]
fn start_waits_for_the_cleanup_of_the_run_before() {
    let mut host = Host::running();
    host.exited(Run(1), 0);
    host.command(Command::Start { id: WEB }).expect("accepted");
    assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Start { .. })));
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
}

#[test]
fn failed_cleanup_is_tried_again_ever_more_slowly() {
    let mut host = Host::running();
    host.exited(Run(1), 0);
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        host.fact(Fact::CleanupFailed { id: WEB, run: Run(1), reason: "busy".into() });
        host.did();
        assert_eq!(host.supervisor.next_deadline(), Some(host.now + Duration::from_secs(pause)));
        host.after(Duration::from_secs(pause));
        assert!(host.did().contains(&Effect::Cleanup { id: WEB, run: Run(1) }));
    }
}

#[test]
fn restart_is_a_stop_and_the_next_run() {
    let mut host = Host::running();
    host.command(Command::Restart { id: WEB, grace: Some(GRACE / 2) }).expect("accepted");
    assert_eq!(host.web().state().name(), "stopping");
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE / 2));
    host.exited(Run(1), 0);
    host.did();
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
    host.started(Run(2), 200);
    assert!(host.web().is_settled());
}

#[test]
fn stop_during_a_restart_wins() {
    let mut host = Host::running();
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!(host.web().state().name(), "exited");
}

#[test]
fn restart_of_a_container_with_rm_does_not_remove_it() {
    let mut host = Host::new();
    let spec = Spec { auto_remove: true, ..spec("web") };
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    host.started(Run(1), 100);
    host.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!(host.web().state().name(), "starting");
    host.started(Run(2), 200);
    host.did();
    host.exited(Run(2), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(2) });
    assert!(host.did().contains(&Effect::Delete { id: WEB }));
}

#[test]
fn container_with_rm_goes_when_it_ends_by_itself_by_a_stop_or_by_a_failed_start() {
    for end in ["exit", "stop", "failed"] {
        let mut host = Host::new();
        let spec = Spec { auto_remove: true, ..spec("web") };
        host.command(Command::Run { id: WEB, spec }).expect("accepted");
        if end == "failed" {
            host.fact(Fact::StartFailed { id: WEB, run: Run(1), failure: failure() });
        } else {
            host.started(Run(1), 100);
            if end == "stop" {
                host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
            }
            host.exited(Run(1), 0);
        }
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        host.fact(Fact::Deleted { id: WEB });
        assert!(host.supervisor.container(WEB).is_none(), "{end}");
    }
}

#[test]
fn removal_refuses_a_running_container_unless_forced() {
    let mut host = Host::running();
    let refused = host.command(Command::Remove { id: WEB, force: false });
    assert_eq!(
        refused.expect_err("running").to_string(),
        "container web is running; stop it first, or remove it by force"
    );
    assert_eq!(host.did(), []);
    host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
    assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Delete { id: WEB }));
    host.fact(Fact::Deleted { id: WEB });
    assert_eq!(host.did(), [tell(Change::Removed)]);
}

#[test]
fn name_is_taken_until_its_holder_is_gone() {
    let mut host = Host::running();
    let taken = Rejection::NameTaken { name: spec("web").name, holder: WEB };
    assert_eq!(host.command(Command::Create { id: DB, spec: spec("web") }), Err(taken.clone()));
    host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!(host.command(Command::Create { id: DB, spec: spec("web") }), Err(taken));
    host.fact(Fact::Deleted { id: WEB });
    host.command(Command::Create { id: DB, spec: spec("web") }).expect("the name is free");
}

#[test]
fn being_removed_refuses_everything_but_removal() {
    let mut host = Host::running();
    host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
    let refused = Err(Rejection::BeingRemoved(spec("web").name));
    assert_eq!(host.command(Command::Start { id: WEB }), refused);
    assert_eq!(host.command(Command::Stop { id: WEB, grace: None }), refused);
    assert_eq!(host.command(Command::Remove { id: WEB, force: false }), Ok(Accepted::Already));
}

#[test]
fn container_that_is_removed_is_not_saved_again() {
    let mut host = Host::running();
    host.command(Command::Remove { id: WEB, force: true }).expect("accepted");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    host.did();
    host.fact(Fact::Limited { id: WEB });
    host.fact(Fact::DeleteFailed { id: WEB, reason: "busy".into() });
    assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Save { .. })));
}

#[test]
fn pause_and_unpause_freeze_and_thaw() {
    let mut host = Host::running();
    host.command(Command::Pause { id: WEB }).expect("accepted");
    assert!(host.did().contains(&Effect::Freeze { id: WEB, run: Run(1) }));
    assert_eq!(host.web().state().name(), "running");
    host.fact(Fact::Frozen { id: WEB, run: Run(1) });
    assert_eq!(host.web().state().name(), "paused");
    assert_eq!(host.command(Command::Pause { id: WEB }), Ok(Accepted::Already));
    assert!(matches!(host.command(Command::Start { id: WEB }), Err(Rejection::Paused(_))));
    host.command(Command::Unpause { id: WEB }).expect("accepted");
    assert!(host.did().contains(&Effect::Thaw { id: WEB, run: Run(1) }));
    host.fact(Fact::Thawed { id: WEB, run: Run(1) });
    assert!(host.web().is_settled());
}

#[test]
fn paused_container_is_thawed_to_take_the_stop_signal() {
    let mut host = Host::running();
    host.command(Command::Pause { id: WEB }).expect("accepted");
    host.fact(Fact::Frozen { id: WEB, run: Run(1) });
    host.did();
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let effects = host.did();
    let thaw = position(&effects, |effect| matches!(effect, Effect::Thaw { .. }));
    assert!(thaw < position(&effects, |effect| matches!(effect, Effect::Signal { .. })));
}

#[test]
fn pause_that_fails_leaves_a_running_container_and_says_why() {
    let mut host = Host::running();
    host.command(Command::Pause { id: WEB }).expect("accepted");
    host.did();
    host.fact(Fact::FreezeFailed { id: WEB, run: Run(1), reason: "no freezer".into() });
    let effects = host.did();
    assert!(effects.contains(&tell(Change::PauseFailed { reason: "no freezer".into() })));
    assert!(effects.contains(&Effect::Thaw { id: WEB, run: Run(1) }), "it may be frozen in part");
    host.fact(Fact::Thawed { id: WEB, run: Run(1) });
    assert!(host.web().is_settled());
}

#[test]
fn processes_that_freeze_too_late_are_thawed() {
    let mut host = Host::running();
    host.command(Command::Pause { id: WEB }).expect("accepted");
    host.after(super::FREEZE_LIMIT);
    host.fact(Fact::Thawed { id: WEB, run: Run(1) });
    host.did();
    host.fact(Fact::Frozen { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Thaw { id: WEB, run: Run(1) }));
}

#[test]
fn signal_other_than_kill_only_passes_through() {
    let mut host = Host::running();
    let usr1 = Signal::new(10).expect("SIGUSR1");
    host.command(Command::Kill { id: WEB, signal: usr1 }).expect("accepted");
    assert_eq!(host.did(), [Effect::Signal { id: WEB, run: Run(1), signal: usr1 }]);
    assert!(host.web().is_settled());
}

#[test]
fn signal_to_a_container_that_is_not_running_is_refused() {
    let mut host = Host::new();
    host.command(Command::Create { id: WEB, spec: spec("web") }).expect("accepted");
    let refused = host.command(Command::Kill { id: WEB, signal: Signal::KILL });
    assert_eq!(refused.expect_err("created").to_string(), "container web is not running (it is created)");
}

#[test]
fn update_is_saved_at_once_unless_it_runs_then_after_it_took_effect() {
    let mut host = Host::running();
    host.command(Command::Update { id: WEB }).expect("accepted");
    assert_eq!(host.did(), [Effect::Limit { id: WEB, run: Run(1) }]);
    host.fact(Fact::Limited { id: WEB });
    assert!(matches!(
        &host.did()[..],
        [Effect::Save { .. }, Effect::Announce { change: Change::Updated, .. }]
    ));
    host.exited(Run(1), 0);
    host.did();
    host.command(Command::Update { id: WEB }).expect("accepted");
    assert!(matches!(
        &host.did()[..],
        [Effect::Save { .. }, Effect::Announce { change: Change::Updated, .. }]
    ));
}

#[test]
fn definition_that_could_not_be_saved_leaves_nothing() {
    let mut host = Host::new();
    host.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    host.did();
    host.fact(Fact::CreateFailed { id: WEB });
    let effects = host.did();
    assert!(effects.contains(&Effect::Delete { id: WEB }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save { .. })));
    host.fact(Fact::Deleted { id: WEB });
    assert!(host.supervisor.containers().next().is_none());
}

#[test]
fn people_may_say_the_id_the_name_or_a_beginning() {
    let mut host = Host::running();
    let other = Id::from_bytes([0x11; 32]);
    host.command(Command::Create { id: other, spec: spec("0101") }).expect("accepted");
    let found = |reference: &str| host.supervisor.resolve(reference).map(Container::id);
    assert_eq!(found(&WEB.to_string()), Ok(WEB));
    assert_eq!(found("web"), Ok(WEB));
    assert_eq!(found("0101"), Ok(other), "a name is stronger than a beginning");
    assert_eq!(found("010101"), Ok(WEB));
    assert_eq!(found("11"), Ok(other));
    assert_eq!(found("0"), Ok(WEB));
    assert_eq!(found(""), Err(Rejection::NoSuchContainer(String::new())));
    assert_eq!(found("ff"), Err(Rejection::NoSuchContainer("ff".into())));
    let mut third = [0x11; 32];
    third[31] = 0;
    host.command(Command::Create { id: Id::from_bytes(third), spec: spec("third") }).expect("accepted");
    let ambiguous = Rejection::Ambiguous { reference: "11".into(), count: 2 };
    assert_eq!(host.supervisor.resolve("11").map(Container::id), Err(ambiguous));
}

#[test]
fn living_run_is_adopted_untouched() {
    let before = Host::running();
    let mut host = before.dies(alive(false));
    assert!(host.web().is_settled());
    assert_eq!(host.web().started(), before.web().started());
    let told_only = host.did().iter().all(|effect| matches!(effect, Effect::Announce { .. }));
    assert!(told_only);
}

#[test]
fn exit_that_nobody_saw_is_not_invented() {
    let mut host = Host::running().dies(Observed::Nothing { at: Stamp::default() });
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(matches!(host.web().state().ending(), Some(Ending::Exited(exit)) if exit.code().is_none()));
}

#[test]
fn start_that_nothing_came_of_is_not_repeated() {
    let mut before = Host::new();
    before.command(Command::Run { id: WEB, spec: spec("web") }).expect("accepted");
    let mut host = before.dies(Observed::Nothing { at: Stamp::default() });
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(matches!(
        host.web().state().ending(),
        Some(Ending::Failed(Failure { kind: FailureKind::Interrupted, .. }))
    ));
    assert!(!host.did().iter().any(|effect| matches!(effect, Effect::Start { .. })));
}

#[test]
fn stop_goes_on_after_the_daemon_died_and_keeps_its_deadline() {
    let mut before = Host::running();
    before.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let kill_at = before.supervisor.next_deadline();
    before.after(GRACE / 2);
    let mut host = before.dies(alive(false));
    assert!(host.did().contains(&Effect::Signal { id: WEB, run: Run(1), signal: Signal::TERM }));
    assert_eq!(host.supervisor.next_deadline(), kill_at);
}

#[test]
fn restart_goes_on_after_the_daemon_died() {
    let mut before = Host::running();
    before.command(Command::Restart { id: WEB, grace: None }).expect("accepted");
    let mut host = before.dies(Observed::Exited(exit(0)));
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
}

#[test]
fn removal_goes_on_after_the_daemon_died() {
    let mut before = Host::running();
    before.command(Command::Remove { id: WEB, force: true }).expect("accepted");
    let mut host = before.dies(alive(false));
    assert!(host.did().contains(&Effect::Kill { id: WEB, run: Run(1) }));
    host.exited(Run(1), 0);
    let mut host = host.dies(Observed::Nothing { at: Stamp::default() });
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Delete { id: WEB }));
}

#[test]
fn container_adopted_frozen_stays_paused_if_that_is_wanted() {
    let mut before = Host::running();
    before.command(Command::Pause { id: WEB }).expect("accepted");
    before.fact(Fact::Frozen { id: WEB, run: Run(1) });
    assert_eq!(before.dies(alive(true)).web().state().name(), "paused");
    let mut thawed_meanwhile = before.dies(alive(false));
    assert!(thawed_meanwhile.did().contains(&Effect::Freeze { id: WEB, run: Run(1) }));
}

#[test]
fn tick_before_the_deadline_does_nothing() {
    let mut host = Host::running();
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.did();
    host.supervisor.tick(host.now);
    assert_eq!(host.did(), []);
}

#[test]
fn start_while_a_run_ends_is_not_lost_to_the_restart_policy() {
    let mut host = Host::new();
    let mut spec = spec("web");
    spec.restart.policy = Policy::OnFailure { max: None };
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    host.started(Run(1), 100);
    host.exited(Run(1), 0);
    assert_eq!(
        host.command(Command::Pause { id: WEB }),
        Err(Rejection::NotRunning { name: "web".parse().expect("a name"), state: "exited" })
    );
    assert_eq!(host.command(Command::Start { id: WEB }), Ok(Accepted::Underway));
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }));
}

#[test]
fn watchdog_and_hook_have_their_time_from_when_the_start_was_heard_of() {
    let mut host = Host::new();
    let mut spec = spec("web");
    spec.notify = Some(Notify { ready: false, watchdog: Some(GRACE) });
    spec.hooks.post_start = true;
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    let at = Stamp { boot: host.now, wall: 0 };
    host.now = host.now + GRACE * 20;
    host.fact(Fact::Started { id: WEB, run: Run(1), pid: 100, at });
    assert_eq!(host.web().state().name(), "running");
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE));
}

#[test]
fn start_that_is_told_again_does_not_make_an_unhealthy_run_a_new_one() {
    let mut host = Host::new();
    let mut spec = spec("web");
    spec.hooks.post_start = true;
    spec.restart.rules = vec![ExitRule { action: RuleAction::Restart, codes: Codes::In(vec![0]) }];
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    host.started(Run(1), 100);
    let failure = Some("it broke".to_owned());
    host.fact(Fact::HookEnded { id: WEB, run: Run(1), hook: Hook::PostStart, failure });
    host.after(GRACE);
    host.started(Run(1), 100);
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert_eq!(host.web().goal(), Goal::Down, "its code says nothing, since it was killed");
}

#[test]
fn hook_after_the_start_that_went_with_a_daemon_is_carried_out_when_all_is_thawed() {
    let hooks = Hooks { post_start: true, ..Hooks::default() };
    let mut old = Host::runs(Spec { hooks, ..spec("web") });
    old.command(Command::Pause { id: WEB }).expect("accepted");
    old.fact(Fact::Frozen { id: WEB, run: Run(1) });
    let mut host = Host { now: old.now, saved: old.saved.clone(), ..Host::new() };
    let saved = old.saved.clone().expect("something was saved");
    host.supervisor.adopt(host.now, WEB, Spec { hooks, ..spec("web") }, saved, alive(true));
    host.supervisor.adopted(host.now);
    host.collect();
    let begun = |host: &mut Host| {
        let hook = |effect: &Effect| matches!(effect, Effect::Hook { hook: Hook::PostStart, .. });
        host.did().iter().filter(|effect| hook(effect)).count()
    };
    assert_eq!(begun(&mut host), 0, "it would hang with the others");
    for times in [1, 0] {
        host.command(Command::Unpause { id: WEB }).expect("accepted");
        host.fact(Fact::Thawed { id: WEB, run: Run(1) });
        assert_eq!(begun(&mut host), times);
        host.command(Command::Pause { id: WEB }).expect("accepted");
        host.fact(Fact::Frozen { id: WEB, run: Run(1) });
    }
}

#[test]
fn hook_after_the_start_is_not_late_for_having_been_frozen() {
    let mut host = Host::new();
    let mut spec = spec("web");
    spec.hooks.post_start = true;
    host.command(Command::Run { id: WEB, spec }).expect("accepted");
    host.started(Run(1), 100);
    host.command(Command::Pause { id: WEB }).expect("accepted");
    host.fact(Fact::Frozen { id: WEB, run: Run(1) });
    host.after(GRACE * 100);
    host.command(Command::Unpause { id: WEB }).expect("accepted");
    host.fact(Fact::Thawed { id: WEB, run: Run(1) });
    host.after(GRACE);
    assert_eq!(host.web().state().name(), "running");
}

/// One supervisor and a clock that is moved by hand.
struct Host {
    supervisor: Supervisor,
    now: Time,
    saved: Option<Saved>,
    effects: Vec<Effect>,
}

impl Host {
    fn new() -> Self {
        Self {
            supervisor: Supervisor::new(Limits::default()),
            now: Time(5),
            saved: None,
            effects: Vec::new(),
        }
    }

    /// With `web` in its first run.
    fn running() -> Self {
        Self::runs(spec("web"))
    }

    /// With this one as `web`, in its first run.
    fn runs(spec: Spec) -> Self {
        let mut host = Self::new();
        host.command(Command::Run { id: WEB, spec }).expect("accepted");
        host.started(Run(1), 100);
        host.did();
        host
    }

    fn command(&mut self, command: Command) -> Result<Accepted, Rejection> {
        let accepted = self.supervisor.command(self.now, command);
        self.collect();
        accepted
    }

    fn fact(&mut self, fact: Fact) {
        self.supervisor.fact(self.now, fact);
        self.collect();
    }

    fn started(&mut self, run: Run, pid: u32) {
        self.fact(Fact::Started { id: WEB, run, pid, at: Stamp { boot: self.now, wall: 0 } });
    }

    fn exited(&mut self, run: Run, code: u8) {
        self.fact(Fact::Exited { id: WEB, run, exit: exit(code) });
    }

    fn after(&mut self, delay: Duration) {
        self.now = self.now + delay;
        self.supervisor.tick(self.now);
        self.collect();
    }

    fn collect(&mut self) {
        for effect in self.supervisor.effects() {
            if let Effect::Save { id: WEB, saved } = &effect {
                self.saved = Some(saved.clone());
            }
            self.effects.push(effect);
        }
    }

    /// What was done since the last look.
    fn did(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn web(&self) -> &Container {
        self.supervisor.container(WEB).expect("web exists")
    }

    /// A new supervisor, with what this one saved.
    fn dies(&self, observed: Observed) -> Self {
        let mut host = Self { now: self.now, saved: self.saved.clone(), ..Self::new() };
        let saved = self.saved.clone().expect("something was saved");
        host.supervisor.adopt(self.now, WEB, spec("web"), saved, observed);
        host.supervisor.adopted(self.now);
        host.collect();
        host
    }
}

fn spec(name: &str) -> Spec {
    let stop = Stop { signal: Signal::TERM, grace: GRACE };
    Spec::new(name.parse().expect("a name"), stop)
}

fn exit(code: u8) -> Exit {
    Exit { status: ExitStatus::Code(code), oom_killed: false, at: Stamp::default() }
}

fn failure() -> Failure {
    Failure { kind: FailureKind::Failed, message: "it broke".into(), at: Stamp::default() }
}

fn alive(frozen: bool) -> Observed {
    Observed::Alive { pid: 100, started: Stamp::default(), frozen }
}

fn tell(change: Change) -> Effect {
    Effect::Announce { id: WEB, change }
}

fn position(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(wanted).unwrap_or_else(|| panic!("not among {effects:?}"))
}
