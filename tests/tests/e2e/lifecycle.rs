//! From create to remove, and the exit statuses on the way.

use nix::sys::signal::Signal;
use wharf_tests::e2e::{Wharf, eventually, number, text};

#[test]
fn demo_image_runs_without_any_other_image() {
    let wharf = Wharf::start();
    let container = wharf.run(["--name", "web", "--memory", "64m", "--cpus", "0.5", "wharf/demo"]);
    assert_eq!(container.id().len(), 64, "{}", container.id());
    eventually(10, "the demo logs something", || !container.logs().is_empty());
    let list = wharf.ok(["ps"]);
    assert!(list.contains("web") && list.contains("wharf/demo") && list.contains("running"), "{list}");
    let stats = wharf.ok(["stats", "--no-stream", "web"]);
    assert!(stats.contains("web"), "{stats}");
    wharf.ok(["stop", "web"]);
    assert_eq!(container.state(), "exited");
    wharf.ok(["rm", "web"]);
    assert_eq!(wharf.ok(["ps", "-aq"]), "");
}

#[test]
fn exit_status_of_the_container_is_ctls() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 5", 5),
        ("exit 255", 255),
        // A shell as pid 1 ignores its own signals; its child does not.
        ("sleep 1000 & kill -9 $!; wait $!", 137),
        ("sleep 1000 & kill -TERM $!; wait $!", 143),
    ] {
        let output = wharf.output(["run", "--rm", image, "sh", "-c", script]);
        assert_eq!(output.status, expected, "{script}: {}", output.stderr);
    }
    let crashed = wharf.output(["run", "--rm", "wharf/demo", "crash"]);
    assert!([134, 139].contains(&crashed.status), "{} {}", crashed.status, crashed.stderr);
}

#[test]
fn container_killed_in_the_foreground_is_137() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let client = wharf.ctl(["run", "--rm", "--name", "lc-killed", image, "sleep", "1000"]).spawn();
    eventually(10, "it runs", || wharf.ok(["ps", "-q", "--filter", "name=lc-killed"]).len() == 12);
    eventually(10, "it runs", || text(&wharf.inspect("lc-killed"), "state") == "running");
    wharf.ok(["kill", "lc-killed"]);
    let output = client.finish();
    assert_eq!(output.status, 137, "{}", output.stderr);
}

#[test]
fn ctrl_c_in_the_foreground_reaches_the_container() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let mut client = wharf.ctl(["run", "--rm", "--name", "lc-int", image, "sh", "-c", script]).spawn();
    eventually(10, "its trap is set", || wharf.output(["logs", "lc-int"]).stdout.contains("ready"));
    client.signal(Signal::SIGINT);
    let output = client.finish();
    assert_eq!(output.status, 9, "{}", output.stderr);
    assert!(output.stdout.contains("caught"), "{}", output.stdout);
}

#[test]
fn missing_command_is_127_and_file_without_permission_126() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let missing = wharf.output(["run", "--rm", "--name", "lc-missing", image, "no-such-program"]);
    assert_eq!(missing.status, 127, "{}", missing.stderr);
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    assert!(missing.stderr.contains("/bin"), "the path that was searched: {}", missing.stderr);
    let text = wharf.output(["run", "--rm", "--name", "lc-text", image, "/bin/text"]);
    assert_eq!(text.status, 126, "{}", text.stderr);
    assert!(text.stderr.contains("/bin/text"), "{}", text.stderr);
    let directory = wharf.output(["run", "--rm", image, "/etc"]);
    assert_eq!(directory.status, 126, "{}", directory.stderr);
    let list = wharf.ok(["ps", "-a"]);
    assert!(!list.contains("lc-missing") && !list.contains("lc-text"), "nothing half-created: {list}");
}

#[test]
fn container_is_created_started_stopped_restarted_and_removed() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let id = wharf.ok([
        "create",
        "--name",
        "lc-steps",
        image,
        "sh",
        "-c",
        "trap 'exit 3' TERM; sleep 1000 & wait",
    ]);
    assert_eq!(text(&wharf.inspect("lc-steps"), "state"), "created");
    wharf.ok(["start", "lc-steps"]);
    let first = wharf.inspect("lc-steps");
    assert_eq!(text(&first, "state"), "running");
    assert_eq!(text(&first, "id"), id);
    assert!(number(&first, "pid") > 0);

    let refused = wharf.output(["rm", "lc-steps"]);
    assert_eq!(refused.status, 1, "rm of a running container: {}", refused.stderr);
    assert!(refused.stderr.contains("force"), "how to do it all the same: {}", refused.stderr);

    wharf.ok(["restart", "lc-steps"]);
    let second = wharf.inspect("lc-steps");
    assert_eq!(text(&second, "state"), "running");
    assert_ne!(number(&second, "pid"), number(&first, "pid"));

    // The shell needs a moment before its trap is set.
    eventually(5, "the trap is set", || {
        wharf_tests::e2e::status_of(number(&wharf.inspect("lc-steps"), "pid") as u32, "SigCgt")
            != "0000000000000000"
    });
    wharf.ok(["stop", "lc-steps"]);
    let stopped = wharf.inspect("lc-steps");
    assert_eq!(text(&stopped, "state"), "exited");
    assert_eq!(number(&stopped, "exitCode"), 3, "its own answer to SIGTERM");
    wharf.ok(["stop", "lc-steps"]);
    wharf.ok(["rm", "lc-steps"]);
    let gone = wharf.output(["inspect", "lc-steps"]);
    assert_eq!(gone.status, 1, "{}", gone.stderr);
    assert!(gone.stderr.contains("lc-steps"), "{}", gone.stderr);
}

#[test]
fn container_that_ignores_the_stop_signal_is_killed_after_the_grace_period() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let container =
        wharf.run(["--stop-timeout", "1", image, "sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    let begin = std::time::Instant::now();
    wharf.ok(["stop", container.id()]);
    let took = begin.elapsed().as_secs_f64();
    assert!((1.0..8.0).contains(&took), "{took} s");
    assert_eq!(number(&container.inspect(), "exitCode"), 137);
}

#[test]
fn stop_signal_is_the_one_asked_for() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    let container = wharf.run(["--stop-signal", "SIGUSR1", image, "sh", "-c", script]);
    eventually(10, "the trap is set", || container.logs().contains("ready"));
    wharf.ok(["stop", container.id()]);
    assert_eq!(number(&container.inspect(), "exitCode"), 7);
}

#[test]
fn kill_sends_any_signal() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let script = "trap 'echo usr2' USR2; echo ready; while :; do sleep 0.1; done";
    let container = wharf.run([image, "sh", "-c", script]);
    eventually(10, "the trap is set", || container.logs().contains("ready"));
    wharf.ok(["kill", "-s", "USR2", container.id()]);
    eventually(10, "the signal arrives", || container.logs().contains("usr2"));
    assert_eq!(container.state(), "running");
    wharf.ok(["kill", container.id()]);
    assert_eq!(container.wait(), 137);
    let again = wharf.output(["kill", container.id()]);
    assert_eq!(again.status, 1, "not running: {}", again.stderr);
}

#[test]
fn wait_prints_the_exit_code() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let container = wharf.run([image, "sh", "-c", "sleep 0.5; exit 42"]);
    assert_eq!(container.wait(), 42);
    assert_eq!(container.wait(), 42, "of a container that has ended");
}

#[test]
fn rm_leaves_nothing_of_a_container_that_removes_itself() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let id = wharf.ok(["run", "-d", "--rm", image, "sleep", "0.3"]);
    eventually(20, "it is gone", || wharf.output(["inspect", &id]).status != 0);
    for root in [wharf.state_dir(), wharf.runtime_dir(), "/sys/fs/cgroup".into()] {
        let left = wharf_tests::e2e::Tool::with(
            "find",
            [root.as_os_str(), "-name".as_ref(), format!("*{id}*").as_ref()],
        )
        .ok();
        assert_eq!(left, "");
    }
}

#[test]
fn names_and_prefixes_find_a_container() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let container = wharf.run(["--name", "lc-names", image, "sleep", "1000"]);
    for name in ["lc-names", container.id(), &container.id()[..12]] {
        assert_eq!(text(&wharf.inspect(name), "id"), container.id(), "{name}");
    }
    let taken = wharf.output(["create", "--name", "lc-names", image]);
    assert_eq!(taken.status, 125);
    assert!(
        taken.stderr.contains("lc-names") && taken.stderr.contains(&container.id()[..12]),
        "who holds it: {}",
        taken.stderr
    );
}

#[test]
fn paused_container_stands_still() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let container = wharf.run([image, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]);
    eventually(10, "it counts", || !container.logs().is_empty());
    wharf.ok(["pause", container.id()]);
    assert_eq!(container.state(), "paused");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = container.logs();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(container.logs(), before);
    let exec = wharf.output(["exec", container.id(), "true"]);
    assert_eq!(exec.status, 125, "exec in a paused container: {}", exec.stderr);
    wharf.ok(["unpause", container.id()]);
    assert_eq!(container.state(), "running");
    eventually(10, "it counts again", || container.logs().len() > before.len());
    wharf.ok(["pause", container.id()]);
    wharf.ok(["rm", "-f", container.id()]);
}

#[test]
fn processes_of_a_container_are_listed() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let container = wharf.run([image, "sh", "-c", "sleep 1001 & sleep 1002"]);
    eventually(10, "both children are there", || {
        let top = wharf.ok(["top", container.id()]);
        top.contains("sleep 1001") && top.contains("sleep 1002")
    });
}

#[test]
fn events_tell_a_containers_life() {
    let wharf = Wharf::start();
    let image = wharf.busybox();
    let mut events = wharf.ctl(["events", "--format", "json"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(500));
    wharf.ok(["run", "--rm", "--name", "lc-events", image, "true"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    events.signal(Signal::SIGTERM);
    let output = events.finish();
    let mut rest = output.stdout.as_str();
    for kind in ["created", "started", "exited", "removed"] {
        let place =
            rest.find(&format!("\"{kind}\"")).unwrap_or_else(|| panic!("no {kind} in\n{}", output.stdout));
        rest = &rest[place..];
    }
}

#[test]
fn listing_can_be_filtered_and_formatted() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let one = wharf.run(["--name", "lc-list-1", "--label", "test=listing", image, "sleep", "1000"]);
    let two = wharf.run(["--name", "lc-list-2", "--label", "test=listing", image, "true"]);
    two.wait();
    eventually(5, "it is known to have ended", || two.state() == "exited");
    let ids = |arguments: &[&str]| {
        let mut ids: Vec<String> = wharf.ok(arguments).lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let short = |id: &str| id[..12].to_owned();
    let mut both = vec![short(one.id()), short(two.id())];
    both.sort();
    assert_eq!(ids(&["ps", "-aq", "--filter", "label=test=listing"]), both);
    assert_eq!(ids(&["ps", "-q", "--filter", "label=test=listing"]), [short(one.id())]);
    assert_eq!(
        ids(&["ps", "-aq", "--filter", "label=test=listing", "--filter", "state=exited"]),
        [short(two.id())]
    );
    assert_eq!(
        wharf.ok(["ps", "-a", "--filter", "name=lc-list-2", "--format", "{{.Name}} {{.State}}"]),
        "lc-list-2 exited"
    );
    let json: serde_json::Value =
        serde_json::from_str(&wharf.ok(["ps", "-a", "--filter", "name=lc-list-1", "--format", "json"]))
            .unwrap();
    assert_eq!(text(&json[0], "name"), "lc-list-1");
}

#[test]
fn info_and_version_say_what_runs() {
    let wharf = Wharf::shared();
    assert!(wharf.ok(["version"]).contains(env!("CARGO_PKG_VERSION")));
    let info = wharf.ok(["info"]);
    assert!(info.to_lowercase().contains("cgroup"), "{info}");
    assert!(info.contains(&wharf.state_dir().display().to_string()), "{info}");
}

#[test]
fn without_a_daemon_ctl_says_how_to_start_one() {
    let mut tool = wharf_tests::e2e::Tool::new(wharf_tests::e2e::binary("ctl"));
    tool.command().args(["ps"]).env("WHARF_SOCKET", "/nonexistent/wharf/private");
    let output = tool.output();
    assert_eq!(output.status, 1, "{}", output.stderr);
    assert!(output.stderr.contains("/nonexistent/wharf/private"), "{}", output.stderr);
    assert!(output.stderr.contains("wharfd"), "{}", output.stderr);
}

#[test]
fn socket_given_as_an_option_wins_over_the_environment() {
    let wharf = Wharf::shared();
    let socket = wharf.socket().display().to_string();
    let given = |path: &str, variable: &str| {
        let mut tool = wharf_tests::e2e::Tool::new(wharf_tests::e2e::binary("ctl"));
        tool.command().args(["--socket", path, "info"]).env("WHARF_SOCKET", variable);
        tool.output()
    };
    let right = given(&socket, "/nonexistent/wharf/private");
    assert_eq!(right.status, 0, "{}", right.stderr);
    assert!(right.stdout.contains(&wharf.state_dir().display().to_string()), "{}", right.stdout);
    let wrong = given("/nonexistent/wharf/private", &socket);
    assert_eq!(wrong.status, 1, "{}", wrong.stdout);
}

#[test]
fn standalone_run_brings_its_own_daemon_and_leaves_none() {
    let wharf = Wharf::shared();
    let scratch = wharf.scratch("standalone");
    let mut tool = wharf_tests::e2e::Tool::new(wharf_tests::e2e::binary("ctl"));
    tool.command()
        .args(["run", "--standalone", "--rm", "wharf/demo", "print", "1"])
        .env("TMPDIR", &scratch)
        .env("WHARF_TEST_RUN", wharf.name())
        .env_remove("WHARF_SOCKET");
    let output = tool.output();
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(!output.stdout.is_empty());
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing is left in its directory");
}

#[test]
fn standalone_daemon_ends_with_a_ctl_that_is_killed() {
    let wharf = Wharf::shared();
    let mut tool = wharf_tests::e2e::Tool::new(wharf_tests::e2e::binary("ctl"));
    tool.command()
        .args(["run", "--standalone", "wharf/demo", "hang"])
        .env("WHARF_TEST_RUN", wharf.name())
        .env_remove("WHARF_SOCKET");
    let mut ctl = tool.spawn();
    let name = format!("wharf-standalone-{}", ctl.child().id());
    let runtime = std::path::Path::new("/run").join(&name);
    let cgroups = || {
        let arguments = ["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{name}/*")];
        wharf_tests::e2e::Tool::with("find", arguments).output().stdout
    };
    eventually(30, "the container runs", || !cgroups().is_empty());
    ctl.signal(Signal::SIGKILL);
    assert_eq!(ctl.finish().status, 128 + 9);
    eventually(30, "its directories go", || {
        !runtime.exists() && !std::path::Path::new("/var/lib").join(format!("{name}-state")).exists()
    });
    let processes = wharf_tests::e2e::Tool::with("pgrep", ["-f", &name]).output().stdout;
    assert_eq!((cgroups(), processes), (String::new(), String::new()), "nothing outlives it");
}
