//! Containers that crash, hang and are not ready.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wharf_tests::e2e::image::Busybox;
use wharf_tests::e2e::{Container, Wharf, eventually, field, flag, number, processes, text};

/// Probes every 100 ms that settle at once.
const QUICK: [&str; 6] =
    ["--liveness-period", "100ms", "--liveness-failures", "1", "--liveness-timeout", "500ms"];

fn restarts(container: &Container<'_>) -> i64 {
    number(&container.inspect(), "restarts")
}

fn is_ready(container: &Container<'_>) -> bool {
    flag(&container.inspect(), "ready")
}

/// What the readiness probe had to say last; nothing after a success.
fn readiness_says(container: &Container<'_>) -> String {
    let state = container.inspect();
    let probes = field(&state, "probes").as_array().unwrap();
    let readiness = probes.iter().find(|probe| text(probe, "kind") == "readiness").unwrap();
    field(readiness, "message").as_str().unwrap_or_default().to_owned()
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
        // Where it is slow to come up, that is no failure.
        "--startup",
        "tcp://:8080",
        "--startup-period",
        "100ms",
        "--startup-failures",
        "100",
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
    assert!(readiness_says(&container).contains("503"));
    assert_eq!(container.pid(), first, "and goes on running");
    tell(&container, "/control/ready");
    eventually(10, "it is ready again", || is_ready(&container));
    assert_eq!(readiness_says(&container), "");

    tell(&container, "/control/unready");
    eventually(10, "it is not ready", || !is_ready(&container));
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

/// The one probe of a container, as `ctl inspect` shows it.
fn probe(container: &Container<'_>) -> Value {
    let state = container.inspect();
    let probes = field(&state, "probes").as_array().expect("a list").clone();
    assert_eq!(probes.len(), 1, "{state:#}");
    probes[0].clone()
}

/// Why its one probe has failed, once it has.
fn complaint(container: &Container<'_>) -> String {
    eventually(20, "the probe has failed", || field(&probe(container), "settled") == false);
    text(&probe(container), "message")
}

#[test]
fn probe_that_times_out_is_killed_with_everything_it_started() {
    let wharf = Wharf::shared();
    let directory = wharf.scratch("probe-timeout");
    // One that has left the session and its parent, one that stays; neither ends for being asked to.
    let script = "#!/bin/sh
        trap '' TERM HUP
        (setsid sh -c 'echo orphan; sleep 4242' &)
        sh -c 'echo child; sleep 4242' &
        sleep 4242";
    std::fs::write(directory.join("probe"), script).unwrap();
    let container = wharf.run([
        "-v",
        &format!("{}:/probe:ro", directory.display()),
        "--readiness",
        "exec:sh /probe/probe",
        "--readiness-period",
        "1m",
        "--readiness-timeout",
        "1s",
        "--readiness-failures",
        "1",
        wharf.busybox(),
        "sleep",
        "1000",
    ]);
    let why = complaint(&container);
    for word in ["timeout", "orphan", "child"] {
        assert!(why.contains(word), "{word} is in {why}");
    }
    // Whatever it does to hide, it stays in the namespace of the container's processes.
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(container.pid());
    assert!(own.is_some());
    let left: Vec<_> = processes::all()
        .into_iter()
        .filter(|process| !process.zombie && process.pid != container.pid() && namespace(process.pid) == own)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(container.state(), "running");
}

#[test]
fn probes_are_made_in_the_network_of_the_container() {
    let wharf = Wharf::shared();
    let quick = ["--readiness-period", "100ms", "--readiness-failures", "1"];
    let run = |network: &str, url: &str| {
        let options = ["--network", network, "--readiness", url];
        let port_of_its_own = ["wharf/demo", "serve", "--port", "0"];
        let command = if network == "host" { &port_of_its_own[..] } else { &port_of_its_own[..1] };
        wharf.run(options.iter().chain(&quick).chain(command))
    };
    let inside = run("none", "tcp://:8080");
    eventually(10, "a port inside is found", || is_ready(&inside));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://:{}", listener.local_addr().unwrap().port());
    let outside = run("none", &url);
    let why = complaint(&outside);
    assert!(why.contains("Connection refused"), "{why}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody has asked the host");
    assert!(!is_ready(&outside));
    let host = run("host", &url);
    eventually(10, "who shares the host's network finds its port", || is_ready(&host));
}

#[test]
fn probe_in_a_language_that_is_not_spoken_fails_and_names_it() {
    let wharf = Wharf::shared();
    for (url, word) in [("https://:8080/healthz", "TLS: "), ("grpc://:8080", "no gRPC ")] {
        let container = wharf.run([
            "--readiness",
            url,
            // It may not listen yet, and that would be another reason.
            "--startup",
            "tcp://:8080",
            "--startup-period",
            "100ms",
            "--startup-failures",
            "100",
            "--readiness-failures",
            "1",
            "wharf/demo",
        ]);
        eventually(10, word, || readiness_says(&container).contains(word));
        assert!(!is_ready(&container), "{url}");
        assert_eq!(container.state(), "running");
    }
}

#[test]
fn probe_that_cannot_be_made_changes_nothing() {
    let wharf = Wharf::shared();
    let readiness = wharf.run([
        "--readiness",
        "exec:/tmp/probe",
        "--readiness-period",
        "100ms",
        "--readiness-failures",
        "1",
        wharf.busybox(),
        "sleep",
        "1000",
    ]);
    let mut arguments = vec!["--restart", "always", "--liveness", "exec:/no/such"];
    arguments.extend(QUICK);
    arguments.extend([wharf.busybox(), "sleep", "1000"]);
    let liveness = wharf.run(arguments);
    let warnings =
        |container: &Container<'_>| kinds(container).iter().filter(|kind| *kind == "probe-warning").count();
    eventually(10, "neither can be probed", || [&readiness, &liveness].iter().all(|one| warnings(one) == 1));
    let some_more_probes = Duration::from_millis(400);
    std::thread::sleep(some_more_probes);
    for container in [&readiness, &liveness] {
        assert_eq!(*field(&probe(container), "settled"), Value::Null);
        assert_eq!(number(&probe(container), "streak"), 0);
        assert_eq!(container.state(), "running");
        assert_eq!(restarts(container), 0);
        assert_eq!(warnings(container), 1, "it is said once");
    }
    assert!(!is_ready(&readiness), "nothing has succeeded");
    assert!(is_ready(&liveness), "nothing has failed");

    // Never half there.
    let install = |code: &str| {
        let script = format!(
            "printf '#!/bin/sh\nexit {code}\n' > /tmp/new; chmod 755 /tmp/new; mv /tmp/new /tmp/probe"
        );
        readiness.exec(["sh", "-c", &script]);
    };
    install("0");
    eventually(10, "it succeeds", || is_ready(&readiness));
    readiness.exec(["rm", "/tmp/probe"]);
    eventually(10, "it cannot be probed again", || warnings(&readiness) == 2);
    std::thread::sleep(some_more_probes);
    assert!(is_ready(&readiness), "one failure would be enough, and this is none");
    install("1");
    eventually(10, "it fails", || !is_ready(&readiness));
}

#[test]
fn probe_may_print_more_than_is_kept() {
    let wharf = Wharf::shared();
    let run = |command: &str| {
        wharf.run([
            "--readiness",
            &format!("exec:sh -c '{command}'"),
            "--readiness-period",
            "1m",
            "--readiness-timeout",
            "10s",
            "--readiness-failures",
            "1",
            wharf.busybox(),
            "sleep",
            "1000",
        ])
    };
    // More than is kept, and more than a pipe holds that nobody reads.
    let good = ["11264", "300000"].map(|size| run(&format!("yes | head -c {size} && touch /tmp/printed")));
    let bad = run("yes | head -c 11264; exit 3");
    for container in &good {
        eventually(10, "it succeeds", || is_ready(container));
        container.exec(["test", "-e", "/tmp/printed"]);
    }
    let why = complaint(&bad);
    assert!(why.starts_with("exit code 3: y\ny\n"), "{why}");
    let kept = "exit code 3: ".len() + (10 << 10);
    assert!((kept - 2..=kept).contains(&why.len()), "{} bytes are kept", why.len());
}

#[test]
fn probes_that_succeed_leave_no_line_in_the_log() {
    let wharf = Wharf::start();
    let quick = ["--readiness-period", "100ms"];
    let run = |probe: &str, command: &[&str]| {
        let options = ["--readiness", probe];
        wharf.run(options.iter().chain(&quick).chain(command))
    };
    let http = run("http://:8080/readyz", &["wharf/demo"]);
    let exec = run("exec:sh -c 'echo >> /tmp/probes'", &[wharf.busybox(), "sleep", "1000"]);
    eventually(10, "both are ready", || is_ready(&http) && is_ready(&exec));
    let served = || -> usize {
        let stats = http.exec(["/bin/demo", "tell", "/stats"]);
        let digits = stats.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
        digits.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{stats}"))
    };
    let run =
        || -> usize { exec.exec(["wc", "-l", "/tmp/probes"]).split(' ').next().unwrap().parse().unwrap() };
    let before = (served(), run());
    let log = wharf.daemon_log();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(wharf.daemon_log(), log);
    let after = (served(), run());
    assert!(after.0 >= before.0 + 5 && after.1 >= before.1 + 5, "{before:?}, {after:?}");
}

#[test]
fn readiness_is_in_the_metrics_and_on_the_bus() {
    let wharf = Wharf::shared();
    let container = wharf.run([
        "--readiness",
        "http://:8080/readyz",
        "--readiness-period",
        "100ms",
        "--readiness-failures",
        "1",
        "wharf/demo",
    ]);
    let metric = || {
        let mut stream = UnixStream::connect(wharf.runtime_dir().join("metrics")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let is_ours =
            |line: &&str| line.starts_with("wharf_container_ready{") && line.contains(container.id());
        let lines: Vec<&str> = answer.lines().filter(is_ours).collect();
        assert_eq!(lines.len(), 1, "{answer}");
        lines[0].rsplit(' ').next().unwrap().to_owned()
    };
    let property = || {
        let path = format!("/org/wharf1/container/{}", container.id());
        let method = "org.freedesktop.DBus.Properties.Get";
        wharf.gdbus(&path, method, &["org.wharf1.Container", "Ready"]).ok()
    };
    eventually(10, "it is ready", || is_ready(&container));
    assert_eq!((metric().as_str(), property().as_str()), ("1", "(<true>,)"));
    tell(&container, "/control/unready");
    eventually(10, "it is not ready", || !is_ready(&container));
    assert_eq!((metric().as_str(), property().as_str()), ("0", "(<false>,)"));
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
fn healthcheck_of_an_image_restarts_unless_told_otherwise() {
    let wharf = Wharf::shared();
    let name = "localhost/busybox:checked";
    let check = serde_json::json!({
        "Test": ["CMD-SHELL", "test ! -e /tmp/ill"],
        "Interval": 100_000_000,
        "Retries": 2,
    });
    let layout = Busybox::get().with_healthcheck(&wharf.scratch("checked"), &check);
    wharf.ok(["image".as_ref(), "load".as_ref(), "--name".as_ref(), name.as_ref(), layout.as_os_str()]);
    let run = |options: &[&str]| {
        let common = ["--restart", "always", "--restart-delay", "0s", "--stop-timeout", "0"];
        let program = [name, "sh", "-c", "rm -f /tmp/ill; exec sleep 1000"];
        wharf.run(common.iter().chain(options).chain(&program))
    };
    let (restarted, shown, unchecked) = (run(&[]), run(&["--no-health-restart"]), run(&["--no-healthcheck"]));
    let health = |container: &Container<'_>| text(&container.inspect(), "health");
    eventually(10, "two are healthy", || health(&restarted) == "healthy" && health(&shown) == "healthy");
    assert_eq!(health(&unchecked), "none");
    assert!(is_ready(&unchecked));
    let pids = [&shown, &unchecked].map(Container::pid);
    for container in [&restarted, &shown, &unchecked] {
        container.exec(["touch", "/tmp/ill"]);
    }
    eventually(10, "one was restarted and is well", || {
        restarts(&restarted) == 1 && health(&restarted) == "healthy"
    });
    assert!(kinds(&restarted).iter().any(|kind| kind == "unhealthy"));
    eventually(10, "one is only shown as unhealthy", || health(&shown) == "unhealthy");
    assert!(!is_ready(&shown));
    // As long as it took the other one to be restarted.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!([&shown, &unchecked].map(Container::pid), pids);
    assert_eq!((restarts(&shown), restarts(&unchecked)), (0, 0));
    assert!(is_ready(&unchecked), "nobody asks how it is");
}

#[test]
fn start_limit_holds_until_it_is_reset() {
    let wharf = Wharf::shared();
    let starts =
        |container: &Container<'_>| kinds(container).iter().filter(|kind| *kind == "started").count();
    let refused = |container: &Container<'_>| {
        let output = wharf.output(["start", container.id()]);
        assert_ne!(output.status, 0, "{}", output.stdout);
        assert!(output.stderr.contains("no more than 2 starts within 60s"), "{}", output.stderr);
        assert!(output.stderr.contains("reset-failed"), "{}", output.stderr);
    };
    let options = ["--start-limit", "2/1m", "--restart-delay", "0s"];
    let run = |policy: &str| {
        let policy = ["--restart", policy];
        let program = [wharf.busybox(), "sh", "-c", "exit 3"];
        wharf.run(options.iter().chain(&policy).chain(&program))
    };
    let looping = run("always");
    eventually(10, "it is given up", || looping.state() == "failed");
    assert_eq!(starts(&looping), 2);
    assert!(text(&looping.inspect(), "reason").contains("no more than 2 starts within 60s"));
    refused(&looping);
    assert_eq!((starts(&looping), looping.state().as_str()), (2, "failed"));
    wharf.ok(["reset-failed", looping.id()]);
    wharf.ok(["start", looping.id()]);
    eventually(10, "it is given up once more", || looping.state() == "failed" && starts(&looping) == 4);

    // Starts by hand count too.
    let single = run("no");
    assert_eq!(single.wait(), 3);
    wharf.ok(["start", single.id()]);
    eventually(10, "it has ended again", || starts(&single) == 2 && single.state() == "exited");
    refused(&single);
    wharf.ok(["reset-failed", single.id()]);
    wharf.ok(["start", single.id()]);
    eventually(10, "it was started a third time", || starts(&single) == 3);
}

#[test]
fn start_revives_what_was_given_up_and_counts_anew() {
    let wharf = Wharf::shared();
    let directory = wharf.scratch("mended");
    let container = wharf.run([
        "-v",
        &format!("{}:/mnt:ro", directory.display()),
        "--restart",
        "on-failure:1",
        "--restart-delay",
        "0s",
        wharf.busybox(),
        "sh",
        "-c",
        "test -e /mnt/mended || exit 7; exec sleep 1000",
    ]);
    eventually(10, "it is given up", || container.state() == "failed");
    assert_eq!(restarts(&container), 1);
    std::fs::write(directory.join("mended"), "").unwrap();
    wharf.ok(["start", container.id()]);
    eventually(5, "it runs", || container.state() == "running");
    assert_eq!(restarts(&container), 0);
    // So it may fail once again.
    let first = container.pid();
    assert!(processes::kill(first, |_| true));
    eventually(10, "it was restarted", || container.pid() != 0 && container.pid() != first);
    assert_eq!(restarts(&container), 1);
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
