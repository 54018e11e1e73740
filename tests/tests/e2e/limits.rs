//! Limits that hold, measured by what they do.

use std::time::{Duration, Instant};
use wharf_tests::e2e::{Container, Wharf, eventually, field, flag, number, status_of, text};

const MIB: i64 = 1 << 20;

#[test]
fn memory_limit_kills_and_is_reported() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--memory", "32m", "--name", "limits-oom", "wharf/demo", "leak", "200"]);
    assert_eq!(container.wait(), 137);
    let state = container.inspect();
    assert!(flag(&state, "oomKilled"), "{state:#}");
    let told = events(&container, "oom");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(text(field(&told[0], "details"), "limit"), (32 << 20).to_string());
    let exited = events(&container, "exited");
    assert_eq!(exited.len(), 1, "{exited:#?}");
    assert_eq!(text(field(&exited[0], "details"), "oomKilled"), "true");
    let list = wharf.ok(["ps", "-a", "--filter", "name=limits-oom"]);
    assert!(list.contains("out of memory"), "{list}");
}

#[test]
fn killed_child_is_reported_though_init_lives_on() {
    let wharf = Wharf::shared();
    // The child takes memory, init does not.
    let script = "sh -c 'x=$(head -c 100000000 /dev/zero | tr \"\\0\" x)'; echo status $?; sleep 1000";
    let container = wharf.run(["--memory", "32m", wharf.busybox(), "sh", "-c", script]);
    eventually(20, "the child is killed", || container.logs().contains("status 137"));
    eventually(5, "it is reported", || flag(&container.inspect(), "oomKilled"));
    assert_eq!(container.state(), "running");
    let told = events(&container, "oom");
    assert!(!told.is_empty(), "it is told");
    for event in told {
        assert_eq!(text(field(&event, "details"), "limit"), (32 * MIB).to_string(), "{event:#}");
    }
}

/// The events of this kind that the daemon knows of the container.
fn events(container: &Container<'_>, kind: &str) -> Vec<serde_json::Value> {
    let (kind, id) = (format!("kind={kind}"), format!("container={}", container.id()));
    let arguments = ["events", "--no-stream", "--format", "json", "--filter", &kind, "--filter", &id];
    let text = container.wharf().ok(arguments);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn exit_137_without_memory_trouble_is_not_called_oom() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--memory", "64m", wharf.busybox(), "sleep", "1000"]);
    wharf.ok(["kill", container.id()]);
    assert_eq!(container.wait(), 137);
    assert!(!flag(&container.inspect(), "oomKilled"));
}

#[test]
fn cpu_limit_throttles() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--cpus", "0.2", wharf.busybox(), "sh", "-c", "while :; do :; done"]);
    let usage = || {
        let stats: serde_json::Value =
            serde_json::from_str(&wharf.ok(["stats", "--no-stream", "--format", "json", container.id()]))
                .unwrap();
        number(&stats, "cpuUsage") as f64 / 1e6
    };
    std::thread::sleep(Duration::from_millis(500));
    let (begin, before) = (Instant::now(), usage());
    std::thread::sleep(Duration::from_secs(3));
    let (used, passed) = (usage() - before, begin.elapsed().as_secs_f64());
    let share = used / passed;
    // A busy machine gives less; a limit that does not hold gives about 1.
    assert!((0.02..0.3).contains(&share), "{share:.3} of a processor");
    let throttled = container.cgroup_file("cpu", "cpu.stat", "cpu.stat");
    let count: u64 = throttled
        .lines()
        .find_map(|line| line.strip_prefix("nr_throttled "))
        .and_then(|text| text.parse().ok())
        .expect("nr_throttled");
    assert!(count > 5, "{throttled}");
}

#[test]
fn pids_limit_stops_a_fork_bomb() {
    let wharf = Wharf::shared();
    // The shell that cannot fork ends; the first one stays.
    let script = "(i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done) 2>/dev/null; exec sleep 1000";
    let container = wharf.run(["--pids-limit", "20", wharf.busybox(), "sh", "-c", script]);
    let current =
        || -> u32 { container.cgroup_file("pids", "pids.current", "pids.current").trim().parse().unwrap() };
    let top = || wharf.ok(["top", container.id()]);
    let refusals = || container.cgroup_file("pids", "pids.events", "pids.events");
    eventually(20, "a fork is refused", || !refusals().contains("max 0"));
    // All places are the container's own, and the shell that took the last one has ended.
    eventually(20, "the shell that filled it has ended", || current() == 19);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(current(), 19, "{}", top());
    assert_eq!(container.state(), "running");
    let begin = Instant::now();
    wharf.ok(["rm", "-f", container.id()]);
    assert!(begin.elapsed() < Duration::from_secs(15), "removed within {:?}", begin.elapsed());
}

#[test]
fn pids_limit_is_512_unless_said_otherwise() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    assert_eq!(container.cgroup_file("pids", "pids.max", "pids.max").trim(), "512");
    let unlimited = wharf.run(["--pids-limit", "-1", wharf.busybox(), "sleep", "1000"]);
    assert_eq!(unlimited.cgroup_file("pids", "pids.max", "pids.max").trim(), "max");
}

#[test]
fn limits_are_written_as_asked() {
    let wharf = Wharf::shared();
    #[rustfmt::skip]
    let container = wharf.run([
        "--memory", "64m", "--memory-reservation", "32m", "--cpu-shares", "512", "--cpus", "0.5",
        "--cpuset-cpus", "0", wharf.busybox(), "sleep", "1000",
    ]);
    let read = |controller, v1, v2| container.cgroup_file(controller, v1, v2).trim().to_owned();
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (64 * MIB).to_string());
    assert_eq!(read("memory", "memory.soft_limit_in_bytes", "memory.low"), (32 * MIB).to_string());
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    let shares = read("cpu", "cpu.shares", "cpu.weight");
    assert!(shares == "512" || shares == "59", "{shares}");
}

#[test]
fn limits_change_while_it_runs() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--memory", "64m", "--cpus", "0.5", wharf.busybox(), "sleep", "1000"]);
    let pid = container.pid();
    let memory = || container.cgroup_file("memory", "memory.limit_in_bytes", "memory.max").trim().to_owned();
    for size in ["128m", "32m", "256m"] {
        wharf.ok(["update", "--memory", size, container.id()]);
        let expected = size.trim_end_matches('m').parse::<i64>().unwrap() * MIB;
        assert_eq!(memory(), expected.to_string());
    }
    wharf.ok(["update", "--cpus", "0.25", "--pids-limit", "77", container.id()]);
    let quota = container.cgroup_file("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("25000"), "{quota}");
    assert_eq!(container.cgroup_file("pids", "pids.max", "pids.max").trim(), "77");
    assert_eq!(container.pid(), pid, "the same process");
    let state = container.inspect();
    assert_eq!(
        number(field(field(&state, "spec"), "resources"), "memory"),
        256 * MIB,
        "kept for the next start: {state:#}"
    );
    let refused = wharf.output(["update", "--memory", "10x", container.id()]);
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    wharf.ok(["restart", "-t", "1", container.id()]);
    assert_eq!(memory(), (256 * MIB).to_string());
}

#[test]
fn processors_shares_and_reservation_change_while_it_runs() {
    let wharf = Wharf::shared();
    #[rustfmt::skip]
    let container = wharf.run([
        "--memory-reservation", "32m", "--cpu-shares", "512", "--cpuset-cpus", "0", wharf.busybox(), "sleep", "1000",
    ]);
    let pid = container.pid();
    // With a single processor there is no other set to change to.
    let last = std::thread::available_parallelism().map_or(0, |count| count.get() - 1).to_string();
    let id = container.id();
    wharf.ok(["update", "--cpuset-cpus", &last, id]);
    wharf.ok(["update", "--cpu-shares", "2048", "--memory-reservation", "16m", id]);
    let read = |controller, v1, v2| container.cgroup_file(controller, v1, v2).trim().to_owned();
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), last);
    assert_eq!(status_of(pid, "Cpus_allowed_list"), last, "for the process that runs");
    assert_eq!(read("memory", "memory.soft_limit_in_bytes", "memory.low"), (16 * MIB).to_string());
    let shares = read("cpu", "cpu.shares", "cpu.weight");
    assert!(shares == "2048" || shares == "174", "{shares}");
    assert_eq!(container.pid(), pid, "the same process");
}

#[test]
fn blkio_weight_is_set_or_said_to_be_ignored() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--blkio-weight", "200", "wharf/demo", "sleep", "1000"]);
    let warnings = field(&container.inspect(), "warnings").to_string();
    let file = |v1, v2| std::fs::read_to_string(wharf.cgroup_file(&container.cgroup(), "blkio", v1, v2)).ok();
    // Without a scheduler that honours weights the kernel has neither file.
    match file("blkio.weight", "io.bfq.weight").or_else(|| file("blkio.bfq.weight", "io.weight")) {
        Some(text) => {
            // BFQ on v2 says `default 200`; io.weight goes from 1 to 10000 instead of 10 to 1000.
            let weight = text.lines().next().unwrap_or_default().trim_start_matches("default ");
            assert!(weight == "200" || weight == "1920", "{text}");
            assert!(!warnings.contains("blkio"), "{warnings}");
        }
        None => assert!(warnings.contains("the blkio weight is ignored"), "{warnings}"),
    }
}

#[test]
fn ulimits_are_set() {
    let wharf = Wharf::shared();
    let output = wharf.ok([
        "run",
        "--rm",
        "--ulimit",
        "nofile=100:200",
        wharf.busybox(),
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn",
    ]);
    assert_eq!(output, "100\n200");
}

#[test]
fn stats_count_memory_and_processes() {
    let wharf = Wharf::shared();
    let container =
        wharf.run(["--memory", "64m", wharf.busybox(), "sh", "-c", "sleep 1000 & exec sleep 1000"]);
    eventually(10, "both run", || {
        let text = wharf.ok(["stats", "--no-stream", "--format", "json", container.id()]);
        let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
        number(&stats, "memoryLimit") == 64 * MIB
            && (1..64 * MIB).contains(&number(&stats, "memoryUsage"))
            && number(&stats, "pids") == 2
    });
}
