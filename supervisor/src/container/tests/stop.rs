//! How long a run has from the wish that it end, hooks and probes included.

use super::*;

#[test]
fn hook_before_the_stop_takes_its_time_from_the_grace() {
    let mut host = stopping_with_hook(30 * SECOND);
    host.after(12 * SECOND);
    assert_eq!(host.did(), [], "the hook comes first");
    host.hook_ended(Hook::PreStop, None);
    assert!(host.did().contains(&TERM));
    host.after(18 * SECOND - MOMENT);
    assert_eq!(host.did(), []);
    host.after(MOMENT);
    assert!(host.did().contains(&KILL));
}

#[test]
fn hook_before_the_stop_that_fails_leaves_the_rest_of_the_grace_too() {
    let mut host = stopping_with_hook(30 * SECOND);
    host.after(12 * SECOND);
    host.hook_ended(Hook::PreStop, Some("it broke"));
    let effects = host.did();
    assert!(effects.contains(&tell(Change::HookFailed { hook: Hook::PreStop, reason: "it broke".into() })));
    assert!(effects.contains(&TERM));
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 18 * SECOND));
}

#[test]
fn hook_that_outlasts_the_grace_is_left_behind_and_the_stop_signal_has_two_seconds() {
    let mut host = stopping_with_hook(30 * SECOND);
    host.after(30 * SECOND - MOMENT);
    assert_eq!(host.did(), []);
    host.after(MOMENT);
    let effects = host.did();
    assert!(effects.contains(&TERM));
    let said = |effect: &Effect| {
        matches!(effect, Effect::Announce { change: Change::HookFailed { hook: Hook::PreStop, .. }, .. })
    };
    assert!(effects.iter().any(said), "{effects:?}");
    host.after(SECOND);
    host.hook_ended(Hook::PreStop, None);
    assert_eq!(host.did(), [], "nobody waits for it any more");
    host.after(SECOND - MOMENT);
    assert_eq!(host.did(), []);
    host.after(MOMENT);
    assert!(host.did().contains(&KILL));
}

#[test]
fn hook_that_nearly_outlasts_the_grace_leaves_two_seconds_as_well() {
    let mut host = stopping_with_hook(30 * SECOND);
    host.after(29 * SECOND);
    host.hook_ended(Hook::PreStop, None);
    assert!(host.did().contains(&TERM));
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 2 * SECOND));
}

#[test]
fn stop_without_grace_does_not_wait_for_a_hook() {
    let mut host = Host::runs(Spec { hooks: PRE_STOP, ..spec("web") });
    host.command(Command::Stop { id: WEB, grace: Some(Duration::ZERO) }).expect("accepted");
    let effects = host.did();
    assert!(effects.contains(&KILL));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Hook { .. })), "{effects:?}");
}

#[test]
fn grace_of_a_probe_that_failed_is_stronger_than_that_of_the_container() {
    for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Health] {
        let mut host = Host::runs(failing(kind, Some(5 * SECOND)));
        host.probe_fails(kind);
        let effects = host.did();
        assert!(effects.contains(&tell(Change::Unhealthy(Verdict::Probe(kind)))), "{effects:?}");
        assert!(effects.contains(&TERM), "{effects:?}");
        host.after(5 * SECOND - MOMENT);
        assert_eq!(host.did(), [], "{kind:?}");
        host.after(MOMENT);
        assert!(host.did().contains(&KILL), "{kind:?}");
    }
}

#[test]
fn grace_of_a_probe_may_be_longer_than_that_of_the_container() {
    let mut spec = failing(ProbeKind::Liveness, Some(60 * SECOND));
    spec.stop.grace = 5 * SECOND;
    let mut host = Host::runs(spec);
    host.probe_fails(ProbeKind::Liveness);
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 60 * SECOND));
}

#[test]
fn probe_without_a_grace_of_its_own_leaves_that_of_the_container() {
    let mut host = Host::runs(failing(ProbeKind::Liveness, None));
    host.probe_fails(ProbeKind::Liveness);
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 3600 * SECOND));
}

#[test]
fn grace_of_a_probe_is_not_for_a_stop_that_somebody_asks_for() {
    let mut host = Host::runs(failing(ProbeKind::Liveness, Some(5 * SECOND)));
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 3600 * SECOND));
}

#[test]
fn hook_before_the_stop_has_the_grace_of_the_probe_that_failed() {
    let spec = Spec { hooks: PRE_STOP, ..failing(ProbeKind::Liveness, Some(5 * SECOND)) };
    let mut host = Host::runs(spec);
    host.probe_fails(ProbeKind::Liveness);
    let hook = Effect::Hook { id: WEB, run: Run(1), hook: Hook::PreStop, timeout: 5 * SECOND };
    assert!(host.did().contains(&hook));
    host.after(4 * SECOND);
    host.hook_ended(Hook::PreStop, None);
    assert!(host.did().contains(&TERM));
    assert_eq!(host.supervisor.next_deadline(), Some(host.now + 2 * SECOND));
}

#[test]
fn run_that_ends_by_itself_has_no_hook_before_its_stop() {
    let mut host = Host::runs(Spec { hooks: PRE_STOP, ..spec("web") });
    host.exited(Run(1), 0);
    let effects = host.did();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Hook { .. })), "{effects:?}");
}

const PRE_STOP: Hooks = Hooks { post_start: false, pre_stop: true };

/// It has been asked to stop with so much grace, and its hook is at work.
fn stopping_with_hook(grace: Duration) -> Host {
    let mut spec = Spec { hooks: PRE_STOP, ..spec("web") };
    spec.stop.grace = grace;
    let mut host = Host::runs(spec);
    host.command(Command::Stop { id: WEB, grace: None }).expect("accepted");
    let effects = host.did();
    let hook = Effect::Hook { id: WEB, run: Run(1), hook: Hook::PreStop, timeout: grace };
    assert!(effects.contains(&hook), "{effects:?}");
    assert!(!effects.contains(&TERM), "{effects:?}");
    host
}

/// An hour to stop, and a probe of this kind whose first failure ends the run.
fn failing(kind: ProbeKind, grace: Option<Duration>) -> Spec {
    let mut spec = spec("web");
    spec.stop.grace = 3600 * SECOND;
    let probe = Some(Probe { failure_threshold: 1, grace, ..Probe::default() });
    match kind {
        ProbeKind::Startup => spec.probes.startup = probe,
        ProbeKind::Liveness => spec.probes.liveness = probe,
        ProbeKind::Readiness => spec.probes.readiness = probe,
        ProbeKind::Health => spec.probes.health = probe,
    }
    spec.probes.health_restarts = true;
    spec
}

impl Host {
    fn hook_ended(&mut self, hook: Hook, failure: Option<&str>) {
        self.fact(Fact::HookEnded { id: WEB, run: Run(1), hook, failure: failure.map(str::to_owned) });
    }

    /// The next one that is due.
    fn probe_fails(&mut self, kind: ProbeKind) {
        let due = self.supervisor.next_deadline().expect("it is to be probed");
        self.after(due.since(self.now));
        let effects = self.did();
        let asks = |effect: &Effect| matches!(effect, Effect::Probe { kind: asked, .. } if *asked == kind);
        assert!(effects.iter().any(asks), "{effects:?}");
        let result = ProbeResult::Failure("refused".to_owned());
        self.fact(Fact::Probed { id: WEB, run: Run(1), kind, result });
    }
}
