//! How long a container takes from nothing to nothing, beside `crun run`: interleaved rounds, medians.
//!
//! `start_speed [ROUNDS]`, as root, with busybox-static and crun installed. Prints milliseconds.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use rustix::fd::AsFd;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use wharf_oci::{IdMap, Limits, Log, Rootfs, Stdin, hands};
use wharf_protocol::{Create, Exec, VERSION};

const IDS: IdMap = IdMap { host: 1_000_000_000, size: 65_536 };

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(50);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layer");
    for name in ["bin", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let bundle = dir.path().join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::os::unix::fs::symlink(&root, bundle.join("rootfs")).unwrap();
    let mut plain = spec(&["/bin/true"], false);
    plain["root"]["path"] = json!(root);
    plain["linux"]["cgroupsPath"] = json!(format!("/wharf-speed-{}/crun", std::process::id()));
    std::fs::write(bundle.join("config.json"), plain.to_string()).unwrap();

    // crun refuses hybrid hosts whose v2 hierarchy has any controller; it gets mounts without that one.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; echo; exec sleep 1000";
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(&mut holder.stdout.take().unwrap(), &mut [0]).unwrap();
    let mounts = std::fs::File::open(format!("/proc/{}/ns/mnt", holder.id())).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();

    let forge = hands::ensure(dir.path()).unwrap();
    let mut times: [Vec<Duration>; 5] = Default::default();
    for round in 0..rounds {
        for (index, mapped) in [(0, true), (1, false)] {
            let (create, total) =
                container(&forge, dir.path(), &root, round * 2 + index, mapped, &["/bin/true"]);
            if mapped {
                times[0].push(create);
                times[1].push(total);
            } else {
                times[2].push(total);
            }
        }
        let start = Instant::now();
        let mut crun = std::process::Command::new("crun");
        // SAFETY: one system call between fork and execve.
        unsafe {
            let mounts = mounts.try_clone().unwrap();
            std::os::unix::process::CommandExt::pre_exec(&mut crun, move || {
                rustix::thread::move_into_link_name_space(mounts.as_fd(), None)?;
                Ok(())
            });
        }
        let status = crun
            .stderr(std::process::Stdio::null())
            .args(["--root", dir.path().join("crun").to_str().unwrap(), "run", "--bundle"])
            .arg(&bundle)
            .arg(format!("speed-{round}"))
            .status()
            .unwrap();
        assert!(status.success());
        times[3].push(start.elapsed());
    }

    let request = request(dir.path(), &root, 1_000_000, true, &["/bin/sleep", "1000"]);
    let cgroup = request.cgroup.clone();
    let started = forge.create(request, &[]).unwrap();
    for round in 0..rounds {
        let exec = Exec {
            version: VERSION,
            cgroup: cgroup.clone(),
            name: format!("exec-{round}"),
            args: vec!["/bin/true".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            capabilities: Vec::new(),
            no_new_privileges: true,
            id_map: Some(IDS),
            terminal: None,
            rlimits: Vec::new(),
            kill_on_disconnect: false,
            fds: Vec::new(),
        };
        let start = Instant::now();
        assert_eq!(forge.exec(exec, started.pidfd.as_fd(), &[]).unwrap().wait().unwrap(), 0);
        times[4].push(start.elapsed());
    }
    forge.remove_cgroup(&cgroup).unwrap();
    forge.remove_cgroup(&format!("/wharf-speed-{}", std::process::id())).unwrap();

    let names = [
        "wharf: create until the program runs",
        "wharf: create, start, exit, record, remove",
        "  the same with the host's ids",
        "crun run (no ids of its own)",
        "wharf: exec until its end",
    ];
    println!("{:44} {:>8} {:>8} {:>8}", "milliseconds", "min", "median", "p90");
    for (name, mut times) in names.into_iter().zip(times) {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
        println!("{name:44} {:8.2} {:8.2} {:8.2}", at(0), at(50), at(90));
    }
    let (_, pid) = forge.hello().unwrap();
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn container(
    forge: &wharf_oci::forge::Forge,
    dir: &Path,
    root: &Path,
    number: usize,
    mapped: bool,
    args: &[&str],
) -> (Duration, Duration) {
    let request = request(dir, root, number, mapped, args);
    let (cgroup, record) = (request.cgroup.clone(), request.record_dir.join("exit.1"));
    let start = Instant::now();
    forge.create(request, &[]).unwrap_or_else(|error| panic!("{error:?}"));
    let created = start.elapsed();
    while !record.exists() {
        std::thread::sleep(Duration::from_micros(100));
    }
    forge.remove_cgroup(&cgroup).unwrap();
    (created, start.elapsed())
}

fn request(dir: &Path, root: &Path, number: usize, mapped: bool, args: &[&str]) -> Create {
    let id = format!("{number:064x}");
    let own = dir.join(number.to_string());
    for name in ["run", "record", "log"] {
        std::fs::create_dir_all(own.join(name)).unwrap();
    }
    Create {
        version: VERSION,
        id: id.clone(),
        run: 1,
        spec: spec(args, mapped).to_string(),
        user: String::new(),
        groups: Vec::new(),
        rootfs: Rootfs::Overlay {
            lower: vec![root.to_owned()],
            upper: own.join("upper"),
            work: own.join("work"),
            volatile: false,
        },
        id_map: mapped.then_some(IDS),
        idmapped_mounts: Vec::new(),
        make_cwd: true,
        run_dir: own.join("run"),
        record_dir: own.join("record"),
        log: Log { dir: own.join("log"), max_size: 1 << 20, max_files: 2 },
        terminal: None,
        stdin: Stdin::Null,
        cgroup: format!("/wharf-speed-{}/{number}", std::process::id()),
        limits: Limits { pids_max: Some(512), memory_max: Some(64 << 20), ..Limits::default() },
        oom_score_adj: None,
        fds: Vec::new(),
    }
}

fn spec(args: &[&str], mapped: bool) -> Value {
    let caps = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    if mapped {
        namespaces.push("user");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin", "HOME=/"], "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "speed",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": namespaces,
            "resources": {
                "memory": {"limit": 64 << 20}, "pids": {"limit": 512},
                "devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 136, "access": "rwm"}
                ]
            },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
