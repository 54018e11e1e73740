//! The disk is full: what runs goes on and can be stopped, new work is refused at once and says why, and everything works
//! again as soon as there is room.

use super::world::{OBEDIENT, find, small_image};
use std::time::{Duration, Instant};
use wharf_tests::e2e::{Setup, Wharf, eventually, field, number, processes, text};

#[test]
fn full_disk_stops_new_work_only_and_only_while_it_is_full() {
    let wharf = Wharf::start_as(Setup { disk: Some(96), ..Setup::default() });
    let image = wharf.busybox();
    let (archive, small) = small_image(&wharf.scratch("small"));
    let lines = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let writer = wharf.run(["--name", "writer", image, "sh", "-c", lines]);
    let obedient = wharf.run(["--name", "obedient", image, "sh", "-c", OBEDIENT]);
    let killed = wharf.run(["--name", "killed", image, "sleep", "1000"]);
    let removed = wharf.run(["--name", "removed", image, "sleep", "1000"]);
    let idle = wharf.ok(["create", "--name", "idle", image, "true"]);
    let pid = writer.pid();
    let kept = wharf.run([
        "--name",
        "kept",
        "--restart",
        "always",
        "--restart-delay",
        "0s",
        "--readiness",
        "http://:8080/readyz",
        "--readiness-period",
        "100ms",
        "--readiness-failures",
        "1",
        "wharf/demo",
    ]);
    let is_ready = || field(&kept.inspect(), "ready").as_bool() == Some(true);
    eventually(10, "it is ready", is_ready);

    let filler = wharf.disk().fill();

    // New work is refused at once.
    for words in [
        vec!["run", "-d", "--name", "new", image, "sleep", "1000"],
        vec!["create", "--name", "new", image, "sleep", "1000"],
        vec!["image", "load", archive.to_str().unwrap()],
        vec!["start", "idle"],
    ] {
        let begin = Instant::now();
        let output = wharf.output(&words);
        assert_ne!(output.status, 0, "{words:?} needs room: {output:?}");
        let says = ["full", "space"].iter().any(|word| output.stderr.to_lowercase().contains(word));
        assert!(says, "{words:?} says why: {output:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{words:?} took {:?}", begin.elapsed());
    }
    assert!(find(&wharf, "new").is_none(), "what was refused is not there");

    // Who crashes comes back, again and again, on the same overlay, since another would need room; and probes go on.
    let device = root_device(kept.pid());
    for restarts in 1..=30 {
        let pid = kept.pid();
        let first = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually(10, "another run", || ![0, pid].contains(&kept.pid()));
        assert_eq!(number(&kept.inspect(), "restarts"), restarts);
        assert_eq!(root_device(kept.pid()), device);
    }
    eventually(10, "it is ready again", is_ready);
    let _ = wharf.output(["exec", "kept", "/bin/demo", "tell", "/control/unready"]);
    eventually(10, "it is not ready", || !is_ready());

    // What runs goes on, and can be asked, executed in, stopped and killed.
    assert_eq!(writer.exec(["echo", "here"]), "here");
    assert!(wharf.ok(["ps"]).contains("writer"));
    let begin = Instant::now();
    wharf.ok(["stop", "-t", "5", "obedient"]);
    wharf.ok(["kill", "killed"]);
    eventually(5, "it is dead", || text(&killed.inspect(), "state") == "exited");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(text(&obedient.inspect(), "state"), "exited");
    assert_eq!(number(&obedient.inspect(), "exitCode"), 9);
    assert!(processes::Process::of(pid).is_some_and(|process| !process.zombie), "the writer lives");

    // Then there is room.
    std::fs::remove_file(filler).unwrap();
    eventually(10, "new work is done", || wharf.output(["run", "--rm", image, "true"]).status == 0);
    wharf.ok(["start", "idle"]);
    assert_eq!(wharf.ok(["wait", "idle"]), "0");
    wharf.ok(["image".as_ref(), "load".as_ref(), archive.as_os_str()]);
    super::world::is_whole(&wharf, small);
    wharf.ok(["rm", "-f", removed.id()]);
    assert_eq!(writer.pid(), pid);
    let before = writer.logs().lines().count();
    eventually(10, "the writer's lines are kept again", || writer.logs().lines().count() > before + 2);

    // What happened meanwhile is on the disk now.
    let run = (kept.pid(), number(&kept.inspect(), "restarts"));
    wharf.kill_daemon();
    wharf.launch();
    assert_eq!((kept.pid(), number(&kept.inspect(), "restarts")), run);
    assert_eq!((obedient.state(), obedient.wait()), ("exited".to_owned(), 9));
    assert_eq!((killed.state(), killed.wait()), ("exited".to_owned(), 137));
    assert_eq!(writer.pid(), pid);
    wharf.ok(["rm", &idle]);
}

/// Which file system a process has as its root, as MAJOR:MINOR.
fn root_device(pid: u32) -> String {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut root = table.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    root.next().and_then(|line| line.split(' ').nth(2)).expect("it has a root").to_owned()
}
