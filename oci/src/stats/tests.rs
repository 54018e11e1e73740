//! The reader, on made-up trees of both kinds and on this machine's own cgroups.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

const PRESSURE: &str =
    "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";

#[test]
fn v2_files_become_numbers() {
    let root = tree(&[
        (
            "c/cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\n",
        ),
        ("c/memory.current", "1000\n"),
        ("c/memory.max", "max\n"),
        ("c/memory.stat", "anon 100\nfile 700\nanon_thp 5\ninactive_file 600\n"),
        ("c/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("c/memory.swap.current", "0\n"),
        ("c/pids.current", "3\n"),
        ("c/pids.max", "512\n"),
        (
            "c/io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=9\n259:70000 rbytes=10 wbytes=20 rios=30 wios=40\n7:0 \n",
        ),
        ("c/cpu.pressure", PRESSURE),
    ]);
    let mode = CgroupMode::Unified { root: root.path().into() };
    let stats = Reader::open_in(&mode, "/c").unwrap().read().unwrap();
    assert_eq!(
        stats.cpu,
        Cpu {
            usage_ns: Some(5000),
            user_ns: Some(3000),
            system_ns: Some(2000),
            periods: Some(9),
            throttled_periods: Some(4),
            throttled_ns: Some(7000),
        }
    );
    assert_eq!(
        stats.memory,
        Memory {
            usage: Some(1000),
            limit: None,
            working_set: Some(400),
            rss: Some(100),
            cache: Some(700),
            swap: Some(0),
            peak: None,
            limit_hits: Some(12),
            oom_kills: Some(2),
        }
    );
    assert_eq!(stats.pids, Pids { current: Some(3), limit: Some(512) });
    let io = Io {
        read_bytes: Some(11),
        write_bytes: Some(22),
        read_operations: Some(33),
        write_operations: Some(44),
    };
    assert_eq!(stats.io, io);
    let pressure = stats.pressure.cpu.unwrap();
    assert_eq!((pressure.some.avg10, pressure.some.total_us, pressure.full.total_us), (1.5, 1234, 7));
    assert_eq!(stats.pressure.io, None);
}

#[test]
fn v1_files_become_numbers() {
    let root = tree(&[
        ("cpu/c/cpuacct.usage", "5000\n"),
        ("cpu/c/cpuacct.usage_user", "3000\n"),
        ("cpu/c/cpuacct.usage_sys", "2000\n"),
        ("cpu/c/cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 7000\nnr_bursts 0\nburst_time 0\n"),
        ("memory/c/memory.usage_in_bytes", "1000\n"),
        ("memory/c/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/c/memory.max_usage_in_bytes", "2000\n"),
        ("memory/c/memory.failcnt", "12\n"),
        (
            "memory/c/memory.stat",
            "cache 1\nrss 1\ntotal_cache 700\ntotal_rss 100\ntotal_swap 5\ntotal_inactive_file 600\n",
        ),
        ("memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("memory/c/exec-1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        (
            "blkio/c/blkio.throttle.io_service_bytes",
            "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:16 Read 10\n8:16 Write 20\nTotal 33\n",
        ),
        ("unified/c/memory.pressure", PRESSURE),
        ("unified/c/cpu.stat", "usage_usec 999\n"),
    ]);
    let hierarchy = |controllers: &[&str], name: &str| Hierarchy {
        controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        mount_point: root.path().join(name),
    };
    let mode = CgroupMode::Hybrid {
        hierarchies: vec![
            hierarchy(&["cpu", "cpuacct"], "cpu"),
            hierarchy(&["memory"], "memory"),
            hierarchy(&["blkio"], "blkio"),
        ],
        unified: root.path().join("unified"),
    };
    let stats = Reader::open_in(&mode, "/c").unwrap().read().unwrap();
    assert_eq!((stats.cpu.usage_ns, stats.cpu.throttled_ns), (Some(5000), Some(7000)));
    assert_eq!(
        (stats.memory.limit, stats.memory.working_set, stats.memory.peak),
        (None, Some(400), Some(2000))
    );
    assert_eq!((stats.memory.rss, stats.memory.swap, stats.memory.oom_kills), (Some(100), Some(5), Some(3)));
    assert_eq!(
        (stats.io.read_bytes, stats.io.write_bytes, stats.io.read_operations),
        (Some(11), Some(22), None)
    );
    assert_eq!(stats.pids, Pids::default());
    assert!(stats.pressure.memory.is_some() && stats.pressure.cpu.is_none());
}

#[test]
fn cgroup_that_is_nowhere_is_an_error() {
    let kind = |error: io::Error| error.kind();
    let name = "/wharf-test-stats-nowhere";
    assert_eq!(kind(Reader::open(name).unwrap_err()), io::ErrorKind::NotFound);
    assert_eq!(kind(processes(name).unwrap_err()), io::ErrorKind::NotFound);
    assert_eq!(kind(oom_kills(name).unwrap_err()), io::ErrorKind::NotFound);
    assert_eq!(kind(OomWatch::open(name).unwrap_err()), io::ErrorKind::NotFound);
}

/// A child that does not outlive its test.
struct Running(Child);

impl Running {
    fn end(&mut self) -> std::process::ExitStatus {
        let _ = self.0.kill();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A cgroup of our own in every tree of this machine, removed at the end.
struct Cgroup {
    name: String,
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// `None` where we may not make one.
    fn make(name: &str) -> Option<Self> {
        let name = format!("/wharf-test-stats-{name}-{}", std::process::id());
        let directories = CgroupMode::current().directories(&name).unwrap();
        let cgroup = Self { name, directories };
        for directory in &cgroup.directories {
            fs::create_dir(directory).ok()?;
        }
        Some(cgroup)
    }

    fn start(&self, program: &str, args: &[&str]) -> Running {
        // Waits for its cgroups before it becomes the program.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read -r go; exec \"$@\"", "sh", program])
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        for directory in &self.directories {
            // A cpuset without CPUs takes nobody.
            let _ = fs::write(directory.join("cgroup.procs"), child.id().to_string());
        }
        io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        Running(child)
    }

    fn set_memory_limit(&self, bytes: u64) {
        for directory in &self.directories {
            for name in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"] {
                let path = directory.join(name);
                if path.exists() {
                    fs::write(path, bytes.to_string()).unwrap();
                }
            }
        }
    }

    fn remove(&self) {
        for directory in &self.directories {
            for _ in 0..100 {
                if fs::remove_dir(directory).is_ok() || !directory.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn busy_process_is_seen_and_a_removed_cgroup_is_an_error() {
    let Some(cgroup) = Cgroup::make("busy") else { return };
    let mut reader = Reader::open(&cgroup.name).unwrap();
    assert_eq!(processes(&cgroup.name).unwrap(), Vec::<u32>::new());
    let mut child = cgroup.start("/bin/sh", &["-c", "while :; do :; done"]);
    eventually("it is listed", || processes(&cgroup.name).unwrap() == [child.0.id()]);
    eventually("it uses a CPU", || reader.read().unwrap().cpu.usage_ns.unwrap() > 20_000_000);
    let stats = reader.read().unwrap();
    if CgroupMode::current().controller("memory").is_some() {
        assert!(stats.memory.usage.unwrap() > 0 && stats.memory.limit.is_none());
        assert_eq!((stats.memory.oom_kills, stats.pids.current), (Some(0), Some(1)));
    }
    child.end();
    cgroup.remove();
    assert_eq!(reader.read().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(Reader::open(&cgroup.name).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn kill_for_lack_of_memory_is_announced_and_counted() {
    let Some(cgroup) = Cgroup::make("oom") else { return };
    let watch = match OomWatch::open(&cgroup.name) {
        Ok(watch) => watch,
        // A v2 tree whose root does not hand the controller down.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(watch.check().unwrap(), 0);
    let announced = |timeout_ms: i32| {
        let events = match watch.is_priority() {
            true => nix::poll::PollFlags::POLLPRI,
            false => nix::poll::PollFlags::POLLIN,
        };
        let timeout = nix::poll::PollTimeout::try_from(timeout_ms).unwrap();
        nix::poll::poll(&mut [nix::poll::PollFd::new(watch.as_fd(), events)], timeout).unwrap() == 1
    };
    assert!(!announced(0));
    cgroup.set_memory_limit(8 << 20);
    let mut child = cgroup.start("/usr/bin/tail", &["/dev/zero"]);
    assert!(announced(20_000), "no event");
    eventually("the kill is counted", || watch.check().unwrap() == 1);
    assert!(!child.0.wait().unwrap().success());
    assert_eq!(oom_kills(&cgroup.name).unwrap(), Some(1));
    assert_eq!(Reader::open(&cgroup.name).unwrap().read().unwrap().memory.oom_kills, Some(1));
    // v2 also announces hits of the limit, which may still be under way.
    eventually("no further event", || !announced(0) || watch.check().is_err());
}
