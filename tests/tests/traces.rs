//! Nothing of a container is left: the machine after twenty of them is the machine before. Alone in its test
//! program, since everything on the machine is compared.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};
use wharf_tests::e2e::snapshot::{Snapshot, adopt_orphans};
use wharf_tests::e2e::{Wharf, eventually, text};

#[test]
fn twenty_containers_leave_the_machine_as_it_was() {
    adopt_orphans();
    let wharf = Wharf::start();
    let image = wharf.busybox();
    let volume = wharf.scratch("volume");
    let volume = format!("{}:/vol", volume.display());
    // Once around first: directories that are made on first use are no traces.
    cycle(&wharf, image, &volume, 0);
    let is_ours = |path: &str| {
        let names_a_container = path
            .split(|letter: char| !letter.is_ascii_hexdigit())
            .any(|word| word.len() == 64 || word.len() == 12 && word.parse::<u64>().is_err());
        path.contains(wharf.name())
            || names_a_container
            || path.contains("libcontainer")
            || path.contains("youki")
    };
    let take = || Snapshot::take(wharf.daemon_pid(), &wharf.state_dir(), &wharf.runtime_dir(), is_ours);
    let before = settled(take);

    for number in 1..=20 {
        cycle(&wharf, image, &volume, number);
    }

    // The kernel takes its time with namespaces and dead cgroups.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let after = take();
        let difference = after.difference(&before);
        if difference.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{difference}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A container's life, with more or less of everything.
fn cycle(wharf: &Wharf, image: &str, volume: &str, number: u32) {
    let name = format!("trace-{number}");
    let mut arguments =
        vec!["create", "--name", &name, "-v", volume, "--tmpfs", "/scratch", "--memory", "64m"];
    match number % 4 {
        0 => arguments.extend(["--init", "--read-only"]),
        1 => arguments.extend(["--userns", "host"]),
        2 => arguments.extend(["-i", "--network", "host"]),
        _ => arguments.extend(["--cpus", "0.5", "--pids-limit", "50"]),
    }
    // Some make files, children and nested directories; one in five dies by itself.
    let script = "mkdir -p /a/b/c; echo x > /a/b/c/d; sleep 1000 & sleep 1000";
    let script = if number % 5 == 4 { "exit 3" } else { script };
    arguments.extend([image, "sh", "-c", script]);
    wharf.ok(&arguments);
    wharf.ok(["start", &name]);
    if number % 5 == 4 {
        assert_eq!(wharf.ok(["wait", &name]), "3");
    } else {
        eventually(10, "it runs", || text(&wharf.inspect(&name), "state") == "running");
        assert_eq!(wharf.ok(["exec", &name, "echo", "here"]), "here");
        if number.is_multiple_of(3) {
            wharf.ok(["restart", "-t", "0", &name]);
        }
        wharf.ok(["stop", "-t", "0", &name]);
    }
    wharf.ok(["rm", &name]);
    let failed = wharf.output(["run", "--rm", image, "no-such-program"]);
    assert_eq!(failed.status, 127);
}

/// Two equal snapshots in a row.
fn settled(take: impl Fn() -> Snapshot) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut before = take();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = take();
        if now == before || Instant::now() >= deadline {
            return now;
        }
        before = now;
    }
}
