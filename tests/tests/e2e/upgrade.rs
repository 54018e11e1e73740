//! Another build of wharfd takes over: containers, their counters and their readiness stay as they are.
//!
//! A real upgrade from an earlier release is `tests/upgrade`; here the other build is this one with another forge.

use rusqlite::Connection;
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use wharf_tests::e2e::{Container, Wharf, eventually, field, flag, number, project, text};

/// The pid of the forge that serves a daemon's runtime directory.
fn forge_of(wharf: &Wharf) -> u32 {
    let socket = wharf.runtime_dir().join("forge.sock");
    let socket = socket.to_str().unwrap();
    let mut found = None;
    eventually(5, "there is a forge", || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        found = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            words.get(1..3) == Some(&["--socket", socket])
        });
        found.is_some()
    });
    found.unwrap()
}

/// End the daemon's forge, and start one of another build in its place: as `name` calls itself.
fn replace_forge(wharf: &Wharf, name: impl Fn(&Path) -> String) -> Forge {
    let pid = forge_of(wharf);
    let mut program = std::fs::read(format!("/proc/{pid}/exe")).unwrap();
    // What follows the last section is nothing to the loader.
    program.extend_from_slice(b"another build");
    let path = wharf.scratch("forge").join("wharf-forge");
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let end = nix::sys::signal::Signal::SIGTERM;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), end).unwrap();
    let socket = wharf.runtime_dir().join("forge.sock");
    eventually(5, "the forge has gone", || !socket.exists());
    let child = Command::new(&path)
        .arg0(name(&path))
        .arg("--socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(5, "another forge serves", || socket.exists());
    Forge(child)
}

/// Ended with the test.
struct Forge(Child);

impl Drop for Forge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What must be the same before and after.
fn identity(container: &Container<'_>) -> Vec<Value> {
    let state = container.inspect();
    ["state", "pid", "startedAt", "restarts", "ready", "cgroup"]
        .iter()
        .map(|key| field(&state, key).clone())
        .collect()
}

fn kinds(container: &Container<'_>) -> Vec<String> {
    let lines = container.wharf().ok(["events", "--no-stream", "--format", "json"]);
    let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| text(event, "container") == container.id())
        .map(|event| text(&event, "kind"))
        .collect()
}

#[test]
fn another_build_takes_over_without_touching_anything() {
    let wharf = Wharf::start();
    let image = wharf.busybox();
    let probed = wharf.run([
        "--name",
        "upgrade-web",
        "--restart",
        "always",
        "--liveness",
        "http://:8080/healthz",
        "--liveness-period",
        "100ms",
        "--readiness",
        "http://:8080/readyz",
        "--readiness-period",
        "100ms",
        "--stop-timeout",
        "1",
        "wharf/demo",
    ]);
    let crashed = wharf.run([
        "--restart",
        "on-failure:5",
        "--restart-delay",
        "0s",
        image,
        "sh",
        "-c",
        "echo x >> /count; [ $(wc -l < /count) -gt 2 ] || exit 3; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done",
    ]);
    let given_up = wharf.run([
        "--restart",
        "on-failure:1",
        "--restart-delay",
        "0s",
        image,
        "sh",
        "-c",
        "sleep 0.1; exit 9",
    ]);
    let needy = wharf.run(["--requires", "upgrade-web:ready", image, "sleep", "1000"]);
    let frozen = wharf.run([image, "sleep", "1000"]);
    wharf.ok(["pause", frozen.id()]);
    eventually(20, "all are where they should be", || {
        flag(&probed.inspect(), "ready")
            && needy.state() == "running"
            && number(&crashed.inspect(), "restarts") == 2
            && crashed.logs().contains("line 3")
            && given_up.state() == "failed"
    });
    let all = [&probed, &crashed, &given_up, &needy, &frozen];
    let before = all.map(identity);

    wharf.kill_daemon();
    let mut old = replace_forge(&wharf, |_| "wharf-forge".to_owned());
    let old_pid = old.0.id();
    wharf.launch();
    assert_eq!(all.map(identity), before, "at the first question");
    eventually(5, "the forge of another build has ended", || old.0.try_wait().unwrap().is_some());
    assert_ne!(forge_of(&wharf), old_pid);

    // Everything works, with what was there before and what comes.
    assert_eq!(probed.exec(["/bin/demo", "echo", "hello"]), "hello");
    wharf.ok(["unpause", frozen.id()]);
    assert_eq!(frozen.exec(["echo", "still", "here"]), "still here");
    let fresh = wharf.run([image, "sh", "-c", "exit 4"]);
    assert_eq!(fresh.wait(), 4);
    let lines = crashed.logs().lines().count();
    eventually(10, "its log goes on", || crashed.logs().lines().count() > lines + 5);
    let expected: Vec<String> = (1..=lines).map(|number| format!("line {number}")).collect();
    assert_eq!(
        crashed.logs().lines().take(lines).collect::<Vec<_>>(),
        expected,
        "every line once and in order"
    );
    assert_eq!(
        all[..4].iter().map(|one| identity(one)).collect::<Vec<_>>(),
        before[..4],
        "and some time later"
    );
    let kinds = kinds(&probed);
    for kind in ["starting", "started", "ready", "unready", "probe-failed", "unhealthy", "restarting"] {
        assert!(!kinds.iter().any(|known| known == kind), "{kind} is among {kinds:?}");
    }

    // Probes go on from where they were: a hang is found, and the next restart is counted.
    let _ = wharf.output(["exec", probed.id(), "/bin/demo", "tell", "/control/hang"]);
    eventually(20, "it was restarted", || number(&probed.inspect(), "restarts") == 1);
    for container in [&crashed, &needy, &frozen] {
        wharf.ok(["stop", "-t", "0", container.id()]);
        assert_eq!(container.state(), "exited");
    }
}

#[test]
fn forge_of_a_service_manager_is_left_to_it() {
    let wharf = Wharf::start();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    wharf.kill_daemon();
    let mut forge = replace_forge(&wharf, |path| path.display().to_string());
    wharf.launch();
    assert!(wharf.daemon_log().contains("systemctl restart wharf-forge"), "{}", wharf.daemon_log());
    assert_eq!(container.exec(["echo", "works"]), "works");
    assert_eq!(forge_of(&wharf), forge.0.id());
    assert!(forge.0.try_wait().unwrap().is_none());
}

#[test]
fn state_of_the_first_release_is_taken_over() {
    let wharf = Wharf::start();
    assert_eq!(wharf.stop_daemon(), 0);
    let path = wharf.state_dir().join("wharf.db");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(wharf.state_dir().join(format!("wharf.db{end}")));
    }
    let sql = std::fs::read_to_string(fixture("wharf.sql")).unwrap();
    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    wharf.launch();

    let names = wharf.ok(["ps", "-a", "--format", "{{.Name}} {{.State}}"]);
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    // What ran has ended with the host that it ran on; nobody asked for a restart then.
    let expected = [
        "everything exited",
        "frozen exited",
        "input exited",
        "killed exited",
        "lines exited",
        "never created",
        "notfound exited",
        "notfound2 failed",
        "plain exited",
        "stopped exited",
        "volume exited",
    ];
    assert_eq!(names, expected, "and hostns was to be removed with its run");
    assert_eq!(number(&wharf.inspect("killed"), "exitCode"), 137);
    assert_eq!(number(&wharf.inspect("notfound"), "exitCode"), 2);
    let everything = wharf.inspect("everything");
    assert_eq!(text(field(&everything, "spec"), "user"), "1000:1000");
}

fn fixture(name: &str) -> PathBuf {
    project().join("tests/fixtures/0.1").join(name)
}
