//! What a container wrote, read later.

use wharf_tests::e2e::{Wharf, eventually, processes};

#[test]
fn logs_have_every_line_once_and_in_order() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "seq 5000"]);
    assert_eq!(container.wait(), 0);
    let expected: Vec<String> = (1..=5000).map(|number: u32| number.to_string()).collect();
    assert_eq!(container.logs().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn stderr_is_kept_apart() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "echo out; echo err >&2"]);
    container.wait();
    let output = wharf.output(["logs", container.id()]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn tail_since_and_timestamps_choose_and_show() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "seq 10; sleep 2; seq 11 12"]);
    container.wait();
    let id = container.id();
    assert_eq!(wharf.ok(["logs", "--tail", "3", id]), "10\n11\n12");
    assert_eq!(wharf.ok(["logs", "--tail", "0", id]), "");
    let stamped = wharf.ok(["logs", "--timestamps", id]);
    let eleventh = stamped.lines().nth(10).expect("eleven lines");
    let (stamp, line) = eleventh.split_once(' ').expect("a time and a line");
    assert_eq!(line, "11");
    assert!(stamp.contains('T') && (stamp.ends_with('Z') || stamp.contains('+')), "RFC 3339: {stamp}");
    assert_eq!(wharf.ok(["logs", "--since", stamp, id]), "11\n12");
    assert_eq!(wharf.ok(["logs", "--since", "1h", id]).lines().count(), 12);
}

#[test]
fn following_ends_with_the_container_and_misses_nothing() {
    let wharf = Wharf::shared();
    let container =
        wharf.run([wharf.busybox(), "sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.05; done"]);
    let followed = wharf.ok(["logs", "-f", container.id()]);
    let expected: Vec<String> = (1..=40).map(|number: u32| number.to_string()).collect();
    assert_eq!(followed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn long_lines_and_missing_newlines_come_back_as_they_were() {
    let wharf = Wharf::shared();
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; printf end";
    let container = wharf.run([wharf.busybox(), "sh", "-c", script]);
    container.wait();
    let output = wharf.output(["logs", container.id()]).stdout;
    assert_eq!(output.len(), 100_000 + 1 + 3, "{}", &output[output.len().saturating_sub(20)..]);
    assert!(output.ends_with("x\nend"));
}

#[test]
fn log_files_are_in_cri_format_and_rotate() {
    let wharf = Wharf::start();
    let spec = r#"{"name":"logs-rotate","image":"wharf/demo","command":["print","20000"],"log":{"maxSize":65536,"maxFiles":3}}"#;
    wharf.gdbus("/org/wharf1", "org.wharf1.Manager.Run", &[spec, "{}"]).ok();
    wharf.ok(["wait", "logs-rotate"]);
    let directory = wharf_tests::e2e::text(&wharf.inspect("logs-rotate"), "logDirectory");
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let fields: Vec<&str> = first.splitn(4, ' ').collect();
        assert!(
            fields[0].contains('T')
                && ["stdout", "stderr"].contains(&fields[1])
                && ["F", "P"].contains(&fields[2]),
            "{first}"
        );
        sizes.push(text.len());
    }
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    // A file is closed by the write that goes beyond its size.
    assert!(sizes.iter().all(|size| *size <= 65_536 + 65_536), "{sizes:?}");
    let lines = wharf.ok(["logs", "logs-rotate"]);
    assert!(lines.lines().count() > 500 && lines.lines().count() < 20_000);
}

#[test]
fn log_rotates_at_10_mib_and_keeps_five_files_unless_said_otherwise() {
    let wharf = Wharf::shared();
    let container = wharf.run(["wharf/demo", "sleep", "1000"]);
    let keeper = processes::keeper(wharf.name(), container.id()).expect("its keeper");
    let line = std::fs::read_to_string(format!("/proc/{keeper}/cmdline")).unwrap();
    let words: Vec<&str> = line.split_terminator('\0').collect();
    // ID RUN PID LOG_MAX_SIZE LOG_MAX_FILES; `log_files_are_in_cri_format_and_rotate` shows what it makes of them.
    assert_eq!(words[4..], ["10485760", "5"], "{words:?}");
}

#[test]
fn logs_of_a_running_container_do_not_wait_for_its_end() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sh", "-c", "echo now; sleep 1000"]);
    eventually(10, "the line is there", || container.logs() == "now");
}
