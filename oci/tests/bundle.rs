//! Bundles on the real kernel: what the library and the kernel make of our specs, defaults and options alike.
//!
//! Needs root, and busybox as a static program (Debian: busybox-static).

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

use rustix::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wharf_oci::bundle::config::{Network, Resources, Seccomp, Security, Tmpfs, Volume};
use wharf_oci::bundle::{self, Bundle, Config, Placement};
use wharf_oci::forge::Forge;
use wharf_oci::{ExitRecord, IdMap, Log, Rootfs, Stdin, TerminalSize, hands, stats};

const IDS: Option<IdMap> = Some(IdMap { host: 1_100_000_000, size: 65_536 });

/// A forge, and what containers of it share.
struct Host {
    dir: tempfile::TempDir,
    forge: Forge,
    pid: i32,
    cgroup: String,
}

impl Host {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox (Debian: busybox-static)");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/wharf-test-bundle-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("wharf-bundle-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let layer = dir.path().join("layer");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            std::fs::create_dir_all(layer.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "id", "touch", "grep", "stat", "ls", "tail", "hostname", "sleep", "mkdir"]
        {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/:/bin/sh\n")
            .unwrap();
        std::fs::write(layer.join("etc/group"), "root:x:0:\nusers:x:100:\n").unwrap();
        let forge = hands::ensure(dir.path()).unwrap();
        let (_, pid) = forge.hello().unwrap();
        Some(Self { dir, forge, pid: pid as i32, cgroup })
    }

    fn config(&self, script: &str) -> Config {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{:064x}", 0xb0_0000 + NUMBER.fetch_add(1, Ordering::Relaxed));
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Config { command, ..Config::new(id, IDS) }
    }

    /// Run to the end: exit code and output.
    fn run(&self, config: &Config) -> (i32, String) {
        self.run_beside(config, |_| {})
    }

    fn run_beside(&self, config: &Config, beside: impl FnOnce(&str)) -> (i32, String) {
        let bundle: Bundle = bundle::build(config, None, &bundle::Host::detect()).unwrap();
        let dir: PathBuf = self.dir.path().join(&config.id[56..]);
        for name in ["run", "record", "log", "upper", "work"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::remove_dir(dir.join("upper")).unwrap();
        let cgroup = format!("{}/{}", self.cgroup, &config.id[48..]);
        let (create, fds) = bundle
            .create(Placement {
                run: 1,
                rootfs: Rootfs::Overlay {
                    lower: vec![self.dir.path().join("layer")],
                    upper: dir.join("upper"),
                    work: dir.join("work"),
                    volatile: false,
                },
                run_dir: dir.join("run"),
                record_dir: dir.join("record"),
                log: Log { dir: dir.join("log"), max_size: 1 << 20, max_files: 2 },
                stdin: Stdin::Null,
                cgroup: cgroup.clone(),
                fds: Vec::new(),
            })
            .unwrap();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let started = self.forge.create(create, &fds).unwrap_or_else(|error| panic!("{error:?}"));
        beside(&cgroup);
        drop(started);
        let record = dir.join("record/exit.1");
        wait_until("the exit record", || record.exists());
        self.forge.remove_cgroup(&cgroup).unwrap();
        let record = ExitRecord::parse(&std::fs::read_to_string(record).unwrap()).unwrap();
        let log = std::fs::read_to_string(dir.join("log/log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        (record.exit_code(), lines.map(|line| format!("{line}\n")).collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.forge.remove_cgroup(&self.cgroup);
        let pid = rustix::process::Pid::from_raw(self.pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let gone = || !Path::new(&format!("/proc/{}", self.pid)).exists();
        let start = Instant::now();
        while !gone() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn defaults_confine_and_still_let_programs_run() {
    let Some(host) = Host::new() else { return };
    let script = "
        grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
        cat /etc/hostname; hostname; grep -c . /etc/hosts; ls /etc/resolv.conf 2>&1
        echo more >> /etc/hosts && echo writable
        stat -c '%u %a' /etc/hosts
        ls /sys/class/net; ls /sys/fs/cgroup
        cat /proc/kcore; touch /proc/sysrq-trigger 2>&1
        ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/uid_map
    ";
    let config = host.config(script);
    let short = &config.id[..12];
    let (code, output) = host.run(&config);
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    assert_eq!(code, 0, "{output}");
    for expected in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000800405fb",
        "CapEff:\t00000000800405fb",
        "CapBnd:\t00000000800405fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        short,
        "writable",
        "0 644",
        "lo",
        "1024",
    ] {
        assert!(lines.contains(&expected), "{expected:?} is missing in\n{output}");
    }
    // Standard error comes by another pipe, so nothing is said about the order.
    let words = |line: &&str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(lines.iter().any(|line| words(line) == ["0", "1100000000", "65536"]), "{output}");
    assert_eq!(lines.iter().filter(|line| **line == short).count(), 2);
}

#[test]
fn user_other_than_root_has_no_capabilities_but_the_bounding_set() {
    let Some(host) = Host::new() else { return };
    let config = Config {
        user: Some("app".into()),
        ..host.config("id -u; grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status")
    };
    let (code, output) = host.run(&config);
    assert_eq!(code, 0, "{output}");
    let zero = "0000000000000000";
    let expected =
        format!("1000\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t00000000800405fb\nCapAmb:\t{zero}\n");
    assert_eq!(output, expected);
}

#[test]
fn network_of_the_host_comes_with_its_names_and_without_its_mounts() {
    let Some(host) = Host::new() else { return };
    let script = "ls /sys/class/net | grep -c .; cat /etc/resolv.conf >/dev/null && echo names; ls /sys/fs/cgroup | grep -c .;
        touch /sys/kernel/x 2>/dev/null || echo sealed; mkdir /sys/fs/cgroup/x 2>/dev/null || echo sealed";
    for id_map in [IDS, None] {
        let config = Config { network: Network::Host, id_map, ..host.config(script) };
        let (_, output) = host.run(&config);
        let lines: Vec<&str> = output.lines().collect();
        let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count().to_string();
        assert_eq!(lines, [interfaces.as_str(), "names", "0", "sealed", "sealed"], "{id_map:?}");
    }
}

#[test]
fn read_only_root_with_volumes_and_memory() {
    let Some(host) = Host::new() else { return };
    let shared = host.dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("given"), "given\n").unwrap();
    let volume = |target: &str, options: &[&str]| Volume {
        source: shared.display().to_string(),
        target: target.into(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
    };
    let script = "touch /x 2>/dev/null || echo sealed; cat /data/given; touch /data/made && echo made;
        touch /sealed/x 2>/dev/null || echo sealed; touch /memory/x && echo memory; stat -c '%a' /memory; id -u";
    let config = Config {
        read_only: true,
        volumes: vec![volume("/data", &[]), volume("/sealed", &["ro"])],
        tmpfs: vec![Tmpfs {
            target: "/memory".into(),
            size: Some(1 << 20),
            mode: Some("700".into()),
            ..Tmpfs::default()
        }],
        ..host.config(script)
    };
    let (_, output) = host.run(&config);
    assert_eq!(output, "sealed\ngiven\nmade\nsealed\nmemory\n700\n0\n");
    let made = std::os::unix::fs::MetadataExt::uid(&shared.join("made").metadata().unwrap());
    assert_eq!(made, 0, "root of the container is root on an idmapped volume");
}

#[test]
fn own_cgroup_can_be_seen_and_not_changed() {
    let Some(host) = Host::new() else { return };
    let script = "ls /sys/fs/cgroup | grep -c . >/dev/null && echo seen
        for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x 2>/dev/null && echo WRITABLE $d; done; true";
    for id_map in [IDS, None] {
        let config = Config { cgroup_mount: true, id_map, ..host.config(script) };
        assert_eq!(host.run(&config).1, "seen\n", "{id_map:?}");
    }
}

#[test]
fn init_and_sysctls_and_a_terminal() {
    let Some(host) = Host::new() else { return };
    // A stand-in: what counts is where it is and what it is given.
    let init = host.dir.path().join("init");
    std::fs::write(&init, "#!/bin/sh\necho init\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = Config {
        init: Some(init),
        sysctls: vec![
            ("net.core.somaxconn".into(), "77".into()),
            ("kernel.shm_rmid_forced".into(), "1".into()),
        ],
        terminal: Some(TerminalSize { rows: 33, columns: 99 }),
        ..host.config(
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced; test -t 1 && echo $TERM",
        )
    };
    let (code, output) = host.run(&config);
    let output = output.replace('\r', "");
    assert_eq!((code, output.as_str()), (0, "init\n77\n1\nxterm\n"));
}

#[test]
fn new_privileges_and_capabilities_as_asked() {
    let Some(host) = Host::new() else { return };
    let script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status";
    let security = Security {
        cap_drop: vec!["ALL".into()],
        cap_add: vec!["NET_ADMIN".into()],
        new_privileges: true,
        ..Security::default()
    };
    let (_, output) = host.run(&Config { security, ..host.config(script) });
    assert_eq!(output, "CapEff:\t0000000000001000\nNoNewPrivs:\t0\nSeccomp:\t2\n");
    let security = Security {
        seccomp: Seccomp::Unconfined,
        cap_add: vec!["ALL".into()],
        unmask: vec!["ALL".into()],
        ..Security::default()
    };
    let (_, output) = host.run(&Config { security, ..host.config(script) });
    assert!(output.ends_with("NoNewPrivs:\t1\nSeccomp:\t0\n"), "{output}");
}

#[test]
fn statistics_and_memory_kills_of_a_container() {
    let Some(host) = Host::new() else { return };
    let resources =
        Resources { memory: Some(16 << 20), cpus: Some(0.5), pids_limit: Some(20), ..Resources::default() };
    let config = Config { resources, ..host.config("tail /dev/zero; echo killed $?; sleep 0.2") };
    let mut seen = None;
    let (_, output) = host.run_beside(&config, |cgroup| {
        let watch = stats::OomWatch::open(cgroup).unwrap();
        let mut reader = stats::Reader::open(cgroup).unwrap();
        wait_until("the kill", || watch.check().unwrap() == 1);
        let stats = reader.read().unwrap();
        assert_eq!((stats.memory.limit, stats.memory.oom_kills), (Some(16 << 20), Some(1)));
        assert_eq!(stats.pids.limit, Some(20));
        assert!(!stats::processes(cgroup).unwrap().is_empty());
        seen = Some(cgroup.to_owned());
    });
    assert!(output.contains("killed 137\n"), "{output}");
    let gone = stats::Reader::open(&seen.unwrap()).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}
