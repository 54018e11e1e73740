//! Damaged state: one container's damage stays its own, and a state that cannot be used as a whole is left as it is.

use rusqlite::Connection;
use std::path::Path;
use wharf_tests::e2e::{Container, Output, Tool, Wharf, binary, eventually, text};

/// Change the state of a daemon that does not run.
fn change(wharf: &Wharf, sql: &str) {
    let database = Connection::open(wharf.state_dir().join("wharf.db")).unwrap();
    database.execute_batch(sql).unwrap();
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

/// Start wharfd, which is expected to refuse.
fn refused(wharf: &Wharf) -> Output {
    let mut tool = Tool::new(binary("wharfd"));
    tool.command()
        .arg("--state-dir")
        .arg(wharf.state_dir())
        .arg("--runtime-dir")
        .arg(wharf.runtime_dir())
        .arg("--config")
        .arg(wharf.directory().join("wharf.toml"));
    let output = tool.output();
    assert_ne!(output.status, 0, "{}", output.stderr);
    output
}

/// `state` of `ctl inspect` is `damaged`, with a reason that names the way on.
fn is_damaged(container: &Container<'_>) -> bool {
    let state = container.inspect();
    text(&state, "state") == "damaged" && text(&state, "reason").contains("ctl rm -f")
}

#[test]
fn damaged_record_costs_its_container_only_which_is_left_alone_until_it_is_removed() {
    let wharf = Wharf::start();
    let image = wharf.busybox();
    let good = wharf.run(["--restart", "always", "--name", "damage-good", image, "sleep", "1000"]);
    let bad = wharf.run(["--name", "damage-bad", image, "sh", "-c", "echo words; sleep 1000"]);
    let later = wharf.run(["--name", "damage-later", image, "sleep", "1000"]);
    eventually(10, "it has spoken", || bad.logs() == "words");
    let (good_pid, bad_pid, later_pid) = (good.pid(), bad.pid(), later.pid());
    wharf.kill_daemon();
    let set = |id: &str, column: &str, old: &str, new: &str| {
        format!("UPDATE container SET {column} = replace({column}, '{old}', '{new}') WHERE id = '{id}';")
    };
    change(&wharf, &set(bad.id(), "saved", "\"running\"", "\"ruining\""));
    change(&wharf, &set(later.id(), "definition", "{\"version\":1", "{\"version\":1000"));
    // Twice: finding it damaged changes nothing.
    for _ in 0..2 {
        wharf.launch();
        assert_eq!((good.state(), good.pid()), ("running".to_owned(), good_pid));
        assert!(is_damaged(&bad) && is_damaged(&later));
        assert!(lives(bad_pid) && lives(later_pid));
        wharf.kill_daemon();
    }
    wharf.launch();

    assert!(text(&bad.inspect(), "reason").contains("ruining"), "what is wrong with it");
    assert!(text(&later.inspect(), "reason").contains("later wharfd"));
    let ps = wharf.ok(["ps"]);
    let line = ps.lines().find(|line| line.contains("damage-bad")).expect("it is listed without -a");
    assert!(line.contains("damaged"), "{line}");
    assert_eq!(bad.logs(), "words");
    for refused in [
        ["stop", "damage-bad"],
        ["start", "damage-bad"],
        ["kill", "damage-bad"],
        ["pause", "damage-bad"],
        ["rm", "damage-bad"],
    ] {
        let output = wharf.output(refused);
        assert_ne!(output.status, 0, "{refused:?}");
        assert!(output.stderr.contains("ctl rm -f"), "{refused:?}: {}", output.stderr);
    }
    assert!(wharf.output(["exec", "damage-bad", "true"]).stderr.contains("damaged"));
    let twin = wharf.output(["run", "-d", "--name", "damage-bad", image, "true"]);
    assert!(twin.status != 0 && twin.stderr.contains("damaged"), "{}", twin.stderr);
    assert!(lives(bad_pid) && lives(later_pid));

    wharf.ok(["rm", "-f", "damage-bad"]);
    assert!(!lives(bad_pid));
    assert!(!wharf.state_dir().join("containers").join(bad.id()).exists());
    let again = wharf.run(["--name", "damage-bad", image, "true"]);
    assert_eq!(again.wait(), 0);
    assert_eq!((good.state(), good.pid()), ("running".to_owned(), good_pid));

    // With the wharfd that knows it (or a backup of the row) it is as before.
    wharf.kill_daemon();
    change(&wharf, &set(later.id(), "definition", "{\"version\":1000", "{\"version\":1"));
    wharf.launch();
    assert_eq!((later.state(), later.pid()), ("running".to_owned(), later_pid));
}

#[test]
fn flipped_bytes_in_the_file_cost_their_container_only() {
    let wharf = Wharf::start();
    let image = wharf.busybox();
    let good = wharf.run([image, "sleep", "1000"]);
    let bad = wharf.run(["--env", "FLIP=flip-me-here", image, "sleep", "1000"]);
    let pids = (good.pid(), bad.pid());
    wharf.kill_daemon();
    // Everything into the one file.
    change(&wharf, "PRAGMA wal_checkpoint(TRUNCATE);");
    let path = wharf.state_dir().join("wharf.db");
    let mut file = std::fs::read(&path).unwrap();
    let at = file.windows(12).position(|bytes| bytes == b"flip-me-here").expect("the text is in the file");
    file[at..at + 4].copy_from_slice(b"\xff\"\0\xfe");
    std::fs::write(&path, file).unwrap();
    wharf.launch();
    assert_eq!((good.state(), good.pid()), ("running".to_owned(), pids.0));
    assert!(is_damaged(&bad) && lives(pids.1));
    wharf.ok(["rm", "-f", bad.id()]);
    assert!(!lives(pids.1));
}

#[test]
fn state_that_is_no_database_is_refused_and_containers_live() {
    let wharf = Wharf::start();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let pid = container.pid();
    wharf.kill_daemon();
    change(&wharf, "PRAGMA wal_checkpoint(TRUNCATE);");
    let path = wharf.state_dir().join("wharf.db");
    let whole = std::fs::read(&path).unwrap();

    let mut broken = whole.clone();
    broken[..4096].fill(0xa5);
    for content in [broken, whole[..4096].to_vec(), Vec::new()] {
        for log in ["wharf.db-wal", "wharf.db-shm"] {
            let _ = std::fs::remove_file(wharf.state_dir().join(log));
        }
        std::fs::write(&path, &content).unwrap();
        let said = refused(&wharf).stderr;
        assert!(said.contains("is damaged") && said.contains(".recover"), "{said}");
        assert!(std::fs::read(&path).unwrap() == content, "it was left as it was");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(refused(&wharf).stderr.contains("there are containers"));
    assert!(lives(pid));

    for log in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(wharf.state_dir().join(format!("wharf.db{log}")));
    }
    std::fs::write(&path, whole).unwrap();
    wharf.launch();
    assert_eq!((container.state(), container.pid()), ("running".to_owned(), pid));
}

#[test]
fn second_wharfd_with_the_same_state_is_told_about_the_first() {
    let wharf = Wharf::start();
    let said = refused(&wharf).stderr;
    assert!(said.contains("is another wharfd running"), "{said}");
}
