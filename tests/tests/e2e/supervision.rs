//! Containers that crash, hang, are not ready, and need each other.

use serde_json::Value;
use std::time::{Duration, Instant};
use wharf_tests::e2e::{Container, Wharf, eventually, field, flag, number, text};

/// Probes every 100 ms that settle at once.
const QUICK: [&str; 6] =
    ["--liveness-period", "100ms", "--liveness-failures", "1", "--liveness-timeout", "500ms"];

fn restarts(container: &Container<'_>) -> i64 {
    number(&container.inspect(), "restarts")
}

fn is_ready(container: &Container<'_>) -> bool {
    flag(&container.inspect(), "ready")
}

fn tell(container: &Container<'_>, path: &str) {
    // It may end before it answers.
    let _ = container.wharf().output(["exec", container.id(), "/bin/demo", "tell", path]);
}

/// The events of a container, as KIND or KIND:DETAIL.
fn kinds(container: &Container<'_>) -> Vec<String> {
    let lines = container.wharf().ok(["events", "--no-stream", "--format", "json"]);
    lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| text(event, "container") == container.id())
        .map(|event| text(&event, "kind"))
        .collect()
}

#[test]
fn crashed_container_comes_back_with_back_off_and_ps_says_when_and_why() {
    let wharf = Wharf::start();
    let script = "sleep 0.2; exit 3";
    let container = wharf.run([
        "--restart",
        "always",
        "--restart-delay",
        "30s",
        "--restart-preset",
        "default",
        "--name",
        "crasher",
        wharf.busybox(),
        "sh",
        "-c",
        script,
    ]);
    // The first restart is at once, the second waits.
    eventually(10, "it waits for its second restart", || container.state() == "waiting");
    let state = container.inspect();
    assert_eq!(number(&state, "restarts"), 2);
    assert!(text(&state, "nextStart").contains('T'), "{state}");
    assert!(text(&state, "reason").contains("exited with 3"), "{state}");
    let ps = wharf.ok(["ps"]);
    let line = ps.lines().find(|line| line.contains("crasher")).expect("it is listed without -a");
    assert!(line.contains("waiting (") && line.contains("exited with 3"), "{line}");

    // Who asks for a start does not wait.
    wharf.ok(["start", "crasher"]);
    eventually(5, "it runs again", || {
        kinds(&container).iter().filter(|kind| *kind == "started").count() == 3
    });
    wharf.ok(["stop", "crasher"]);
    assert_eq!(container.state(), "exited");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(container.state(), "exited", "stopped is stopped");
}

#[test]
fn restart_after_a_crash_is_quick() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--restart", "always", "wharf/demo"]);
    let first = container.pid();
    let killed = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    eventually(5, "another process runs", || {
        let pid = container.pid();
        pid != 0 && pid != first
    });
    // Far more than it takes, since other tests run beside it; the benchmark says how long it is.
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    assert_eq!(restarts(&container), 1);
}

#[test]
fn on_failure_gives_up_after_its_retries_and_says_so() {
    let wharf = Wharf::shared();
    let container = wharf.run([
        "--restart",
        "on-failure:2",
        "--restart-delay",
        "0s",
        wharf.busybox(),
        "sh",
        "-c",
        "sleep 0.1; exit 7",
    ]);
    eventually(20, "it is given up", || container.state() == "failed");
    let state = container.inspect();
    assert_eq!(number(&state, "restarts"), 2);
    assert_eq!(number(&state, "exitCode"), 7);
    assert!(text(&state, "reason").contains("after 2 restarts"), "{state}");
    assert!(wharf.ok(["ps"]).contains("after 2 restarts"), "it is listed without -a");
    assert_eq!(kinds(&container).iter().filter(|kind| *kind == "started").count(), 3);
    wharf.ok(["reset-failed", container.id()]);
    assert_eq!(container.state(), "exited");
    assert_eq!(restarts(&container), 0);
}

#[test]
fn exit_code_zero_is_no_failure_and_rules_come_first() {
    let wharf = Wharf::shared();
    let good = wharf.run(["--restart", "on-failure", wharf.busybox(), "sh", "-c", "sleep 0.1"]);
    let ruled = wharf.run([
        "--restart",
        "always",
        "--restart-rule",
        "stay:42",
        wharf.busybox(),
        "sh",
        "-c",
        "sleep 0.1; exit 42",
    ]);
    assert_eq!(good.wait(), 0);
    assert_eq!(ruled.wait(), 42);
    assert_eq!((restarts(&good), restarts(&ruled)), (0, 0));
    assert_eq!(ruled.state(), "exited");
}

#[test]
fn failed_liveness_restarts_and_readiness_only_shows() {
    let wharf = Wharf::shared();
    let mut arguments = vec![
        "--restart",
        "always",
        "--restart-delay",
        "0s",
        "--liveness",
        "http://:8080/healthz",
        "--readiness",
        "http://:8080/readyz",
        "--readiness-period",
        "100ms",
        "--readiness-failures",
        "1",
    ];
    arguments.extend(QUICK);
    arguments.extend(["--stop-timeout", "1", "wharf/demo"]);
    let container = wharf.run(arguments);
    eventually(10, "it is ready", || is_ready(&container));
    let first = container.pid();

    tell(&container, "/control/unready");
    eventually(10, "it is not ready", || !is_ready(&container));
    assert_eq!(container.pid(), first, "and goes on running");
    tell(&container, "/control/ready");
    eventually(10, "it is ready again", || is_ready(&container));

    tell(&container, "/control/hang");
    eventually(20, "it was restarted", || container.pid() != first && container.pid() != 0);
    eventually(10, "it is ready once more", || is_ready(&container));
    assert_eq!(restarts(&container), 1);
    let kinds = kinds(&container);
    for kind in ["ready", "unready", "probe-failed", "unhealthy", "restarting"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is among {kinds:?}");
    }
}

#[test]
fn startup_probe_holds_the_others_back() {
    let wharf = Wharf::shared();
    let container = wharf.run([
        "--startup",
        "exec:test -e /tmp/started",
        "--startup-period",
        "100ms",
        "--startup-failures",
        "100",
        "--liveness",
        "exec:test -e /tmp/alive",
        "--liveness-period",
        "100ms",
        "--liveness-failures",
        "1",
        "--stop-timeout",
        "0",
        wharf.busybox(),
        "sleep",
        "1000",
    ]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(container.state(), "running", "liveness has not been asked yet");
    assert!(!is_ready(&container));
    container.exec(["touch", "/tmp/alive", "/tmp/started"]);
    eventually(10, "it has started", || is_ready(&container));
    container.exec(["rm", "/tmp/alive"]);
    eventually(10, "it is ended", || container.state() == "exited");
    assert!(text(&container.inspect(), "reason").contains("liveness"), "{}", container.inspect());
}

#[test]
fn probe_that_times_out_is_killed_with_everything_it_started() {
    let wharf = Wharf::shared();
    let container = wharf.run([
        "--readiness",
        "exec:sh -c 'sleep 4242 & sleep 4242'",
        "--readiness-period",
        "5s",
        "--readiness-timeout",
        "300ms",
        "--readiness-failures",
        "1",
        wharf.busybox(),
        "sleep",
        "1000",
    ]);
    eventually(10, "the probe has failed", || {
        let state = container.inspect();
        field(&state, "probes").to_string().contains("timeout")
    });
    let left = wharf.ok(["top", container.id()]);
    assert!(!left.contains("4242"), "{left}");
}

#[test]
fn healthcheck_restarts_when_there_is_a_policy_and_only_shows_otherwise() {
    let wharf = Wharf::shared();
    let check = ["--health-cmd", "test ! -e /tmp/ill", "--health-interval", "100ms", "--health-retries", "2"];
    let mut plain: Vec<&str> = check.to_vec();
    plain.extend([wharf.busybox(), "sleep", "1000"]);
    let mut supervised: Vec<&str> = vec!["--restart", "always", "--stop-timeout", "0"];
    supervised.extend(&plain);
    let (plain, supervised) = (wharf.run(plain), wharf.run(supervised));
    let health = |container: &Container<'_>| text(&container.inspect(), "health");
    eventually(10, "both are healthy", || health(&plain) == "healthy" && health(&supervised) == "healthy");
    let (first, second) = (plain.pid(), supervised.pid());
    for container in [&plain, &supervised] {
        container.exec(["touch", "/tmp/ill"]);
    }
    eventually(10, "one is unhealthy", || health(&plain) == "unhealthy");
    assert!(!is_ready(&plain));
    assert_eq!(plain.pid(), first);
    // What it wrote is still there after a restart, so this one stays ill.
    eventually(10, "the other was restarted", || supervised.pid() != second);
}

#[test]
fn requirements_order_starts_and_stops() {
    let wharf = Wharf::start();
    let db = wharf.run([
        "--name",
        "db",
        "--readiness",
        "exec:test -e /tmp/ready",
        "--readiness-period",
        "100ms",
        wharf.busybox(),
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ]);
    let web = wharf.run([
        "--name",
        "web",
        "--requires",
        "db:ready",
        wharf.busybox(),
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ]);
    assert_eq!(web.state(), "waiting");
    assert!(text(&web.inspect(), "reason").contains("waits for db to be ready"), "{}", web.inspect());
    db.exec(["touch", "/tmp/ready"]);
    eventually(10, "web runs", || web.state() == "running");

    wharf.ok(["stop", "--all"]);
    let order: Vec<String> = wharf
        .ok(["events", "--no-stream", "--filter", "kind=exited", "--format", "{{.Name}}"])
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(order, ["web", "db"], "those that require others stop first");

    let refused = wharf.output(["rm", "db"]);
    assert!(refused.stderr.contains("required by web"), "{}", refused.stderr);
    let refused = wharf.output(["run", "-d", "--requires", "nobody", wharf.busybox(), "true"]);
    assert!(refused.stderr.contains("there is no container nobody"), "{}", refused.stderr);
}

#[test]
fn supervision_goes_on_where_it_was_after_the_daemon_was_killed() {
    let wharf = Wharf::start();
    let ready =
        wharf.run(["--readiness", "http://:8080/readyz", "--readiness-period", "100ms", "wharf/demo"]);
    let waits = wharf.run([
        "--restart",
        "always",
        "--restart-preset",
        "default",
        "--restart-delay",
        "8s",
        wharf.busybox(),
        "sh",
        "-c",
        "sleep 0.1; exit 1",
    ]);
    eventually(10, "one is ready, one waits", || is_ready(&ready) && waits.state() == "waiting");
    let pid = ready.pid();
    let due = text(&waits.inspect(), "nextStart");
    wharf.kill_daemon();
    wharf.launch();
    assert!(is_ready(&ready), "readiness was not forgotten");
    assert_eq!(ready.pid(), pid);
    let state = waits.inspect();
    assert_eq!(text(&state, "state"), "waiting");
    assert_eq!(number(&state, "restarts"), 2);
    assert_eq!(text(&state, "nextStart").get(..19), due.get(..19), "{state}");
    eventually(20, "it is started when it is due", || restarts(&waits) == 3);
}

#[test]
fn hooks_run_before_ready_and_before_the_stop_signal() {
    let wharf = Wharf::shared();
    let container = wharf.run([
        "--post-start",
        "exec:sh -c 'while [ ! -e /tmp/go ]; do sleep 0.1; done; echo post >> /tmp/hooks'",
        "--pre-stop",
        "exec:sh -c 'sleep 0.3; echo pre > /proc/1/fd/1'",
        wharf.busybox(),
        "sh",
        "-c",
        "trap 'echo term; exit 0' TERM; while :; do sleep 0.1; done",
    ]);
    assert!(!is_ready(&container));
    container.exec(["touch", "/tmp/go"]);
    eventually(10, "the hook has ended", || is_ready(&container));
    assert_eq!(container.exec(["cat", "/tmp/hooks"]), "post");
    wharf.ok(["stop", container.id()]);
    assert_eq!(container.logs(), "pre\nterm");
}

#[test]
fn container_tells_of_itself_and_feeds_its_watchdog() {
    let wharf = Wharf::start();
    let container = wharf.run([
        "--restart",
        "always",
        "--restart-delay",
        "0s",
        "--sdnotify=ready",
        "--watchdog",
        "5s",
        "--stop-timeout",
        "0",
        "wharf/demo",
    ]);
    assert!(!is_ready(&container), "it has not said so");
    let say = |lines: &[&str]| {
        let mut arguments = vec!["exec", container.id(), "/bin/demo", "notify"];
        arguments.extend(lines);
        wharf.ok(arguments)
    };
    say(&["READY=1", "STATUS=warming the cache"]);
    eventually(5, "it is ready", || is_ready(&container));
    assert_eq!(text(&container.inspect(), "status"), "warming the cache");
    assert!(wharf.ok(["ps"]).contains("warming the cache"));

    // A new wharfd goes on listening, and has not forgotten.
    wharf.kill_daemon();
    wharf.launch();
    assert!(is_ready(&container));
    let pid = container.pid();
    for _ in 0..14 {
        say(&["WATCHDOG=1"]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(container.pid(), pid, "a dog that is fed does not bite");
    eventually(20, "one that is not fed does", || container.pid() != pid && restarts(&container) == 1);
    assert!(!is_ready(&container));
    let unhealthy = wharf.ok(["events", "--no-stream", "--filter", "kind=unhealthy"]);
    assert!(unhealthy.contains("watchdog"), "{unhealthy}");
}

#[test]
fn mistakes_are_named_with_their_range() {
    let wharf = Wharf::shared();
    for (arguments, words) in [
        (&["--liveness", "grpc://:70000"][..], "a number from 1 to 65535"),
        (&["--liveness", "http://:0/"][..], "1 to 65535"),
        (&["--liveness", "http://:8080/", "--liveness-period", "0s"][..], "periodSeconds"),
        (&["--restart", "always", "--restart-factor", "0.5"][..], "factor"),
        (&["--restart", "always", "--restart-delay", "10s", "--restart-max-delay", "1s"][..], "max"),
        (&["--restart", "always", "--rm"][..], "remove"),
        (&["--restart", "sometimes"][..], "sometimes"),
    ] {
        let mut all = vec!["run", "-d"];
        all.extend(arguments);
        all.extend(["wharf/demo", "true"]);
        let output = wharf.output(&all);
        assert_ne!(output.status, 0, "{all:?}");
        assert!(output.stderr.contains(words), "{all:?}: {}", output.stderr);
    }
}
