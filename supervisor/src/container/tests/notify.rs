//! What a container says of itself (sd_notify), and what comes of it.

use super::*;

#[test]
fn one_that_has_to_say_so_is_ready_when_it_has() {
    let mut host = speaking(true, None);
    assert!(!host.web().is_ready());
    host.says(Notification { ready: true, ..SILENCE });
    assert!(host.did().contains(&tell(Change::Ready(true))));
    assert!(host.web().is_ready());
}

#[test]
fn reloading_is_not_ready_until_it_says_so_again() {
    let mut host = speaking(true, None);
    host.says(Notification { ready: true, ..SILENCE });
    host.did();
    host.says(Notification { reloading: true, ..SILENCE });
    assert!(host.did().contains(&tell(Change::Ready(false))));
    host.after(3600 * SECOND);
    assert_eq!(host.did(), [], "it may take as long as it likes, and is not stopped for it");
    assert!(!host.web().is_ready());
    host.says(Notification { ready: true, ..SILENCE });
    assert!(host.did().contains(&tell(Change::Ready(true))));
    assert_eq!(host.web().state().name(), "running");
}

#[test]
fn stopping_is_not_ready_any_more_but_left_to_end_by_itself() {
    for asked in [true, false] {
        let mut host = speaking(asked, None);
        host.says(Notification { ready: true, ..SILENCE });
        assert!(host.web().is_ready());
        host.did();
        host.says(Notification { stopping: true, ..SILENCE });
        let effects = host.did();
        assert!(effects.contains(&tell(Change::Ready(false))), "{effects:?}");
        assert!(!effects.contains(&TERM), "{effects:?}");
        host.says(Notification { ready: true, ..SILENCE });
        assert!(!host.web().is_ready(), "there is no way back");
        assert_eq!(host.web().state().name(), "running");
    }
}

#[test]
fn stopping_is_forgotten_with_the_run_that_said_it() {
    let mut host = speaking(false, None);
    host.says(Notification { stopping: true, ..SILENCE });
    host.exited(Run(1), 1);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    host.started(Run(2), 200);
    assert!(host.web().is_ready());
}

#[test]
fn stopping_does_not_change_the_grace_of_a_stop() {
    let mut host = speaking(false, None);
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.says(Notification { stopping: true, ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE));
}

#[test]
fn stop_is_extended_from_when_it_was_said() {
    let mut host = speaking(false, None);
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.after(6 * SECOND);
    host.did();
    host.says(Notification { extend: Some(30 * SECOND), ..SILENCE });
    host.after(30 * SECOND - MOMENT);
    assert!(!host.did().contains(&KILL));
    host.after(MOMENT);
    assert!(host.did().contains(&KILL));
}

#[test]
fn extension_that_ends_before_the_grace_does_not_shorten_the_stop() {
    let mut host = speaking(false, None);
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let kill_at = host.now + GRACE;
    host.after(6 * SECOND);
    host.says(Notification { extend: Some(SECOND), ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), Some(kill_at));
}

#[test]
fn extension_before_the_stop_is_none_of_it() {
    let mut host = speaking(false, None);
    host.says(Notification { extend: Some(3600 * SECOND), ..SILENCE });
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + GRACE));
}

#[test]
fn extended_stop_keeps_its_time_when_the_daemon_dies() {
    let mut before = speaking(false, None);
    before.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    before.says(Notification { extend: Some(30 * SECOND), ..SILENCE });
    before.after(20 * SECOND);
    let host = before.dies(alive(false));
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 10 * SECOND));
}

#[test]
fn start_is_extended_as_long_as_its_hook_is_at_work() {
    let mut spec = notifying(false, None);
    spec.hooks.post_start = true;
    let mut host = Host::runs(spec);
    host.after(super::super::POST_START_LIMIT - SECOND);
    host.says(Notification { extend: Some(60 * SECOND), ..SILENCE });
    host.did();
    host.after(60 * SECOND - MOMENT);
    assert_eq!(host.did(), []);
    assert_eq!(host.web().state().name(), "running");
    host.after(MOMENT);
    let effects = host.did();
    assert!(effects.contains(&tell(Change::Unhealthy(Verdict::PostStart))), "{effects:?}");
    assert!(effects.contains(&TERM), "{effects:?}");
}

#[test]
fn missed_watchdog_ends_the_run_and_the_policy_counts_it_as_failed() {
    let mut host = speaking(false, Some(20 * SECOND));
    host.after(20 * SECOND - MOMENT);
    assert_eq!(host.did(), []);
    host.after(MOMENT);
    let effects = host.did();
    assert!(effects.contains(&tell(Change::Unhealthy(Verdict::Watchdog))), "{effects:?}");
    assert!(effects.contains(&TERM), "{effects:?}");
    host.after(GRACE);
    assert!(host.did().contains(&KILL), "it has the container's grace");
    host.exited(Run(1), 0);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }), "whatever its code says");
}

#[test]
fn watchdog_that_is_fed_is_content_for_another_period() {
    let mut host = speaking(false, Some(20 * SECOND));
    for _ in 0..5 {
        host.after(20 * SECOND - MOMENT);
        host.says(Notification { alive: true, ..SILENCE });
    }
    assert_eq!(host.did(), []);
    host.after(20 * SECOND);
    assert!(host.did().contains(&tell(Change::Unhealthy(Verdict::Watchdog))));
}

#[test]
fn other_messages_do_not_feed_the_watchdog() {
    let mut host = speaking(false, Some(20 * SECOND));
    host.after(19 * SECOND);
    host.says(Notification { ready: true, status: Some("busy".to_owned()), ..SILENCE });
    host.after(SECOND);
    assert!(host.did().contains(&tell(Change::Unhealthy(Verdict::Watchdog))));
}

#[test]
fn new_period_of_the_watchdog_counts_from_when_it_was_said() {
    for (period, told) in [(5 * SECOND, "shorter"), (90 * SECOND, "longer")] {
        let mut host = speaking(false, Some(20 * SECOND));
        host.after(10 * SECOND);
        host.says(Notification { watchdog: Some(period), ..SILENCE });
        host.did();
        host.after(period - MOMENT);
        host.says(Notification { alive: true, ..SILENCE });
        assert_eq!(host.did(), [], "{told}");
        host.after(period - MOMENT);
        assert_eq!(host.did(), [], "{told}: it holds for the next time too");
        host.after(MOMENT);
        assert!(host.did().contains(&tell(Change::Unhealthy(Verdict::Watchdog))), "{told}");
    }
}

#[test]
fn watchdog_may_be_begun_and_ended_by_the_container() {
    let mut host = speaking(false, None);
    assert_eq!(host.supervisor.next_deadline(), None);
    host.says(Notification { watchdog: Some(5 * SECOND), ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 5 * SECOND));
    host.says(Notification { watchdog: Some(Duration::ZERO), ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), None);
    host.after(3600 * SECOND);
    assert_eq!(host.web().state().name(), "running");
}

#[test]
fn new_period_of_the_watchdog_is_forgotten_with_the_run_but_not_with_the_daemon() {
    let mut before = speaking(false, Some(20 * SECOND));
    before.says(Notification { watchdog: Some(5 * SECOND), ..SILENCE });
    let host = before.dies(alive(false));
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 5 * SECOND));
    let mut host = before;
    host.exited(Run(1), 1);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    host.started(Run(2), 200);
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 20 * SECOND));
}

#[test]
fn watchdog_is_extended_once() {
    let mut host = speaking(false, Some(20 * SECOND));
    host.after(10 * SECOND);
    host.says(Notification { extend: Some(60 * SECOND), ..SILENCE });
    host.after(50 * SECOND);
    assert_eq!(host.web().state().name(), "running");
    host.says(Notification { alive: true, ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 20 * SECOND), "as before");
    host.says(Notification { extend: Some(SECOND), ..SILENCE });
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 20 * SECOND), "at least, not at most");
}

#[test]
fn whoever_asks_to_be_taken_for_dead_is_even_without_a_watchdog() {
    for watchdog in [None, Some(20 * SECOND)] {
        let mut host = speaking(false, watchdog);
        host.says(Notification { trigger: true, ..SILENCE });
        let effects = host.did();
        assert!(effects.contains(&tell(Change::Unhealthy(Verdict::Watchdog))), "{effects:?}");
        assert!(effects.contains(&TERM), "{effects:?}");
        assert!(!host.web().is_ready());
        host.exited(Run(1), 0);
        host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
        assert!(host.did().contains(&Effect::Start { id: WEB, run: Run(2) }), "as a run that failed");
    }
}

#[test]
fn watchdog_does_not_bark_at_one_that_is_being_stopped() {
    let mut host = speaking(false, Some(SECOND));
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    host.did();
    host.after(GRACE - MOMENT);
    assert_eq!(host.did(), []);
    host.exited(Run(1), 0);
    assert_eq!(host.web().vitals().verdict(), None, "nobody fed it, and nobody had to");
    assert_eq!(host.web().goal(), Goal::Down);
}

#[test]
fn what_an_earlier_run_said_late_is_nothing_to_the_next() {
    let mut host = speaking(true, Some(20 * SECOND));
    host.exited(Run(1), 1);
    host.fact(Fact::CleanedUp { id: WEB, run: Run(1) });
    host.started(Run(2), 200);
    host.did();
    let notification =
        Notification { ready: true, stopping: true, trigger: true, watchdog: Some(SECOND), ..SILENCE };
    host.fact(Fact::Notified { id: WEB, run: Run(1), notification });
    assert_eq!(host.did(), []);
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 20 * SECOND));
}

const SILENCE: Notification = Notification {
    ready: false,
    reloading: false,
    stopping: false,
    status: None,
    alive: false,
    trigger: false,
    watchdog: None,
    extend: None,
};

fn notifying(ready: bool, watchdog: Option<Duration>) -> Spec {
    let mut spec = Spec { notify: Some(Notify { ready, watchdog }), ..spec("web") };
    spec.restart.policy = Policy::OnFailure { max: None };
    spec
}

fn speaking(ready: bool, watchdog: Option<Duration>) -> Host {
    Host::runs(notifying(ready, watchdog))
}

impl Host {
    fn says(&mut self, notification: Notification) {
        self.fact(Fact::Notified { id: WEB, run: Run(1), notification });
    }
}
