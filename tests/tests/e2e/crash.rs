//! The daemon dies; containers do not notice, and the next daemon knows everything about them.

use std::io::{BufRead, BufReader};
use std::time::Duration;
use wharf_tests::e2e::{Wharf, eventually, flag, number, status_of, text};

#[test]
fn killed_daemon_finds_its_container_its_log_and_its_exit() {
    let wharf = Wharf::start();
    let script = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 33";
    let container = wharf.run(["--name", "crash-log", wharf.busybox(), "sh", "-c", script]);
    eventually(10, "it writes", || container.logs().lines().count() > 5);
    let pid = container.pid();

    wharf.kill_daemon();
    // It goes on writing while nobody is there.
    std::thread::sleep(Duration::from_secs(1));
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container lives");
    wharf.launch();

    let state = container.inspect();
    assert_eq!(text(&state, "state"), "running");
    assert_eq!(number(&state, "pid"), i64::from(pid));
    assert_eq!(text(&state, "name"), "crash-log");
    let followed = wharf.ok(["logs", "-f", container.id()]);
    let expected: Vec<String> = (1..=150).map(|number| format!("line {number}")).collect();
    assert_eq!(followed.lines().collect::<Vec<_>>(), expected, "every line once and in order");
    assert_eq!(container.wait(), 33);
}

#[test]
fn exit_while_the_daemon_is_away_is_not_lost() {
    let wharf = Wharf::start();
    let code = wharf.run([wharf.busybox(), "sh", "-c", "sleep 1; echo last words; exit 21"]);
    let signal = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let pid = signal.pid();
    wharf.kill_daemon();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    wharf.launch();
    assert_eq!(code.wait(), 21);
    assert_eq!(code.state(), "exited");
    assert_eq!(code.logs(), "last words");
    assert_eq!(signal.wait(), 137);
    let finished = text(&code.inspect(), "finishedAt");
    assert!(finished.contains('T'), "with the time of its end: {finished}");
}

#[test]
fn found_container_can_do_everything() {
    let wharf = Wharf::start();
    let container = wharf.run(["--memory", "64m", wharf.busybox(), "sleep", "1000"]);
    wharf.kill_daemon();
    wharf.launch();
    assert_eq!(container.exec(["echo", "still", "here"]), "still here");
    assert!(wharf.ok(["stats", "--no-stream", container.id()]).contains("64MiB"));
    wharf.ok(["update", "--memory", "128m", container.id()]);
    wharf.ok(["pause", container.id()]);
    wharf.kill_daemon();
    wharf.launch();
    assert_eq!(container.state(), "paused");
    wharf.ok(["unpause", container.id()]);
    wharf.ok(["stop", "-t", "1", container.id()]);
    assert_eq!(container.state(), "exited");
    wharf.ok(["start", container.id()]);
    assert_eq!(container.state(), "running");
}

#[test]
fn terminated_daemon_leaves_its_containers_running() {
    let wharf = Wharf::start();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let pid = container.pid();
    assert_eq!(wharf.stop_daemon(), 0);
    assert!(!status_of(pid, "State").starts_with('Z'));
    wharf.launch();
    assert_eq!(container.pid(), pid);
}

#[test]
fn out_of_memory_kill_while_the_daemon_is_away_is_reported() {
    let wharf = Wharf::start();
    let script = "sleep 1; x=$(head -c 100000000 /dev/zero | tr '\\0' x)";
    let container = wharf.run(["--memory", "32m", wharf.busybox(), "sh", "-c", script]);
    wharf.kill_daemon();
    let procs = wharf.cgroup_file(
        &format!("/{}/{}", wharf.name(), container.id()),
        "pids",
        "pids.current",
        "pids.current",
    );
    eventually(20, "it has been killed", || {
        std::fs::read_to_string(&procs).map_or(true, |count| count.trim() == "0")
    });
    wharf.launch();
    assert_eq!(container.wait(), 137);
    assert!(flag(&container.inspect(), "oomKilled"));
}

#[test]
fn kill_at_any_moment_of_a_start_leaves_a_definite_state() {
    let wharf = Wharf::start();
    let image = wharf.busybox();
    for round in 0..12u32 {
        let name = format!("crash-{round}");
        let client = wharf.ctl(["run", "-d", "--name", &name, image, "sleep", "1000"]).spawn();
        std::thread::sleep(Duration::from_millis(u64::from(round) * 6));
        wharf.kill_daemon();
        drop(client);
        wharf.launch();
        let found = wharf.output(["inspect", &name]);
        if found.status == 0 {
            eventually(20, "its state is definite", || {
                ["running", "created", "exited", "failed"]
                    .contains(&text(&wharf.inspect(&name), "state").as_str())
            });
            wharf.ok(["rm", "-f", &name]);
        }
        let left = wharf_tests::e2e::Tool::with(
            "find",
            ["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{}/*", wharf.name())],
        );
        assert_eq!(left.ok(), "", "round {round}: no cgroup that no container owns");
    }
}

#[test]
fn follower_of_a_log_hears_that_the_daemon_has_gone() {
    let wharf = Wharf::start();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "echo first; sleep 1000"]);
    let mut follower = wharf.ctl(["logs", "-f", container.id()]).spawn();
    let mut line = String::new();
    let stdout = follower.child().stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    wharf.kill_daemon();
    // It must end rather than hang; what it says is its own business.
    follower.finish();
    wharf.launch();
}

/// The pid of the process that does this for a daemon's runtime directory. A guard answers just before it becomes
/// the keeper.
fn child_of_nobody(name: &str, argument: &str) -> i32 {
    let mut found = None;
    eventually(5, &format!("there is a {name} for {argument}"), || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        found = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &i32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split('\0');
            words.next() == Some(name) && words.any(|word| word.contains(argument))
        });
        found.is_some()
    });
    found.unwrap()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn killed_forge_is_replaced_and_its_containers_live() {
    let wharf = Wharf::start();
    let before = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let runtime = wharf.runtime_dir();
    let forge = child_of_nobody("wharf-forge", runtime.to_str().unwrap());
    kill(forge);
    eventually(5, "it is dead", || !std::path::Path::new(&format!("/proc/{forge}/exe")).exists());

    assert_eq!(before.state(), "running");
    assert_eq!(before.exec(["echo", "still", "here"]), "still here");
    let after = wharf.run([wharf.busybox(), "true"]);
    assert_eq!(after.wait(), 0);
    assert_ne!(child_of_nobody("wharf-forge", runtime.to_str().unwrap()), forge);
    wharf.ok(["stop", "-t", "0", before.id()]);
    assert_eq!(before.wait(), 137);
}

#[test]
fn killed_keeper_does_not_lose_the_exit_of_its_container() {
    let wharf = Wharf::start();
    let container =
        wharf.run([wharf.busybox(), "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"]);
    kill(child_of_nobody("wharf-keeper", container.id()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(container.state(), "running");
    assert_eq!(container.exec(["echo", "still", "here"]), "still here");
    wharf.ok(["stop", container.id()]);
    if kernel_remembers() {
        assert_eq!(container.wait(), 9);
    }
    assert_eq!(container.state(), "exited");
}

/// Since Linux 6.15 the kernel keeps the exit status for those who hold a pidfd; before, nobody can know it.
fn kernel_remembers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

#[test]
fn killed_keeper_takes_no_output_with_it() {
    let wharf = Wharf::start();
    let wait = "while [ ! -e /tmp/go ]; do sleep 0.05; done";
    let print = "i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.01";
    let script = &format!(
        "i=0; while [ $i -lt 20 ]; do {print}; done; {wait}; while [ $i -lt 100 ]; do {print}; done; exit 5"
    );
    let pipes = wharf.run([wharf.busybox(), "sh", "-c", script]);
    let print = "i=$((i+1)); echo line $i; sleep 0.01";
    let script = &format!(
        "i=0; while [ $i -lt 20 ]; do {print}; done; {wait}; while [ $i -lt 60 ]; do {print}; done; tty; exit 6"
    );
    let terminal = wharf.run(["-t", wharf.busybox(), "sh", "-c", script]);
    eventually(10, "they write", || pipes.logs().contains("line 20") && terminal.logs().contains("line 20"));
    // wharfd takes its copies of the streams a moment after the start.
    std::thread::sleep(Duration::from_secs(1));
    kill(child_of_nobody("wharf-keeper", pipes.id()));
    kill(child_of_nobody("wharf-keeper", terminal.id()));
    for container in [&pipes, &terminal] {
        container.exec(["touch", "/tmp/go"]);
    }

    let lines =
        |name: &str, last: u32| (1..=last).map(|number| format!("{name} {number}")).collect::<Vec<_>>();
    eventually(30, "they have written all", || {
        pipes.logs().contains("line 100") && terminal.logs().contains("/dev/pts")
    });
    assert_eq!(pipes.logs().lines().collect::<Vec<_>>(), lines("line", 100), "every line once and in order");
    let errors = wharf.output(["logs", pipes.id()]).stderr;
    assert_eq!(errors.lines().collect::<Vec<_>>(), lines("error", 100));
    assert_eq!(terminal.logs().lines().take(60).collect::<Vec<_>>(), lines("line", 60));
    eventually(10, "they have ended", || pipes.state() == "exited" && terminal.state() == "exited");
    if kernel_remembers() {
        assert_eq!((pipes.wait(), terminal.wait()), (5, 6));
    }
}
