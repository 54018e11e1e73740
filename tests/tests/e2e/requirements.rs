//! Containers that need each other.

use wharf_tests::e2e::{Container, Wharf, eventually, processes, text};

fn reason(container: &Container<'_>) -> String {
    text(&container.inspect(), "reason")
}

/// The names of containers in the order in which they had such an event.
fn order(wharf: &Wharf, kind: &str) -> Vec<String> {
    let filter = format!("kind={kind}");
    let lines = wharf.ok(["events", "--no-stream", "--filter", &filter, "--format", "{{.Name}}"]);
    lines.lines().map(str::to_owned).collect()
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
    assert!(reason(&web).contains("waits for db to be ready"), "{}", reason(&web));
    db.exec(["touch", "/tmp/ready"]);
    eventually(10, "web runs", || web.state() == "running");

    wharf.ok(["stop", "--all"]);
    assert_eq!(order(&wharf, "exited"), ["web", "db"], "those that require others stop first");

    let refused = wharf.output(["rm", "db"]);
    assert!(refused.stderr.contains("required by web"), "{}", refused.stderr);
    let refused = wharf.output(["run", "-d", "--requires", "nobody", wharf.busybox(), "true"]);
    assert!(refused.stderr.contains("there is no container nobody"), "{}", refused.stderr);
}

#[test]
fn start_of_one_starts_what_it_requires_first() {
    let wharf = Wharf::start();
    wharf.ok(["create", "--name", "db", "wharf/demo"]);
    wharf.ok(["create", "--name", "app", "--requires", "db", "wharf/demo"]);
    let web = wharf.run(["--name", "web", "--requires", "app:started", "wharf/demo"]);
    eventually(10, "web runs", || web.state() == "running");
    assert_eq!(order(&wharf, "started"), ["db", "app", "web"]);
}

#[test]
fn completed_is_an_end_with_zero_and_no_other() {
    let wharf = Wharf::shared();
    // Ends with the number that it is given.
    let script =
        "while [ ! -s /tmp/code ]; do sleep 0.05; done; code=$(cat /tmp/code); rm /tmp/code; exit $code";
    let migrate = wharf.run(["--name", "rq-migrate", wharf.busybox(), "sh", "-c", script]);
    let web = wharf.run(["--name", "rq-web", "--requires", "rq-migrate:completed", "wharf/demo"]);
    let end = |code: &str| {
        migrate.exec(["sh", "-c", &format!("echo {code} > /tmp/code")]);
        assert_eq!(migrate.wait().to_string(), code);
    };
    assert_eq!(web.state(), "waiting");
    assert!(reason(&web).contains("waits for rq-migrate to be completed"), "{}", reason(&web));
    end("1");
    // Far longer than a start takes that nothing holds back.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(web.state(), "waiting", "it has failed");
    wharf.ok(["start", "rq-migrate"]);
    assert_eq!(web.state(), "waiting");
    end("0");
    eventually(10, "web runs", || web.state() == "running");
}

#[test]
fn restart_with_follows_every_new_start_of_the_other_one() {
    let wharf = Wharf::shared();
    let db = wharf.run(["--name", "rw-db", "--restart", "always", "--restart-delay", "0s", "wharf/demo"]);
    let web = wharf.run(["--requires", "rw-db:started:restart-with", "wharf/demo"]);
    let other = wharf.run(["--requires", "rw-db:started", "wharf/demo"]);
    eventually(10, "all run", || [&db, &web, &other].iter().all(|container| container.state() == "running"));
    let unmoved = other.pid();
    let moves = |how: &str, act: &dyn Fn()| {
        let before = [db.pid(), web.pid()];
        act();
        let is_new = |container: &Container<'_>, before| ![0, before].contains(&container.pid());
        eventually(20, how, || is_new(&db, before[0]) && is_new(&web, before[1]));
        eventually(10, "web runs", || web.state() == "running");
    };
    moves("restarted by hand", &|| drop(wharf.ok(["restart", "rw-db"])));
    moves("crashed", &|| assert!(processes::kill(db.pid(), |process| process.name == "demo")));
    assert_eq!(other.pid(), unmoved, "who has not asked for it is left alone");
}

#[test]
fn requirement_is_waited_for_by_the_next_daemon_too() {
    let wharf = Wharf::start();
    let db = wharf.run([
        "--name",
        "db",
        "--readiness",
        "exec:test -e /tmp/ready",
        "--readiness-period",
        "100ms",
        wharf.busybox(),
        "sleep",
        "1000",
    ]);
    let web = wharf.run(["--name", "web", "--requires", "db:ready", "wharf/demo"]);
    assert_eq!(web.state(), "waiting");
    let pid = db.pid();
    wharf.kill_daemon();
    wharf.launch();
    // Far longer than a start takes that nothing holds back.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(web.state(), "waiting");
    assert!(reason(&web).contains("waits for db to be ready"), "{}", reason(&web));
    db.exec(["touch", "/tmp/ready"]);
    eventually(10, "web runs", || web.state() == "running");
    assert_eq!(order(&wharf, "started"), ["web"], "once, and db is the one that ran before");
    assert_eq!(db.pid(), pid);
}

#[test]
fn cycle_is_refused_and_spelled_out() {
    let wharf = Wharf::start();
    let create = |name: &str, requires: &[&str]| {
        let options = ["create", "--name", name];
        wharf.output(options.iter().chain(requires).chain(&["wharf/demo"]))
    };
    for (name, requires) in
        [("db", &[][..]), ("web", &["--requires", "db"]), ("front", &["--requires", "web:ready"])]
    {
        let created = create(name, requires);
        assert_eq!(created.status, 0, "{}", created.stderr);
    }
    // What is required has to exist first, so a cycle takes a second try.
    wharf.ok(["rm", "-f", "db"]);
    let refused = create("db", &["--requires", "front"]);
    assert_ne!(refused.status, 0);
    assert!(refused.stderr.contains("db -> front -> web -> db"), "{}", refused.stderr);
    assert_ne!(wharf.output(["inspect", "db"]).status, 0, "it does not exist");
    let refused = create("self", &["--requires", "self"]);
    assert!(refused.stderr.contains("cannot require itself"), "{}", refused.stderr);

    // They wait for the name until somebody has it again.
    wharf.ok(["start", "front"]);
    let waits = text(&wharf.inspect("web"), "reason");
    assert!(waits.contains("waits for db to be started (it is missing)"), "{waits}");
    let db = wharf.run(["--name", "db", "wharf/demo"]);
    eventually(10, "all run", || text(&wharf.inspect("front"), "state") == "running");
    assert_eq!(db.state(), "running");
}
