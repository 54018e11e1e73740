//! The forge on the real kernel: containers made, entered, limited, frozen, killed and removed.
//!
//! Needs root, and busybox as a static program (Debian: busybox-static). Every test has a forge, a runtime directory
//! and a cgroup subtree of its own, and compares processes, mounts and cgroups before and after.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wharf_oci::forge::{Forge, ForgeError, Started};
use wharf_oci::{CreateFd, ExecFd, ExitRecord, FailureKind, IdMap, Limits, Log, Rootfs, Stdin, TerminalSize, hands};
use wharf_protocol::{Create, Exec, Failure, VERSION};

const IDS: IdMap = IdMap { host: 1_000_000_000, size: 65_536 };
const CAPS: [&str; 11] = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP",
    "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
];
const MASKED: [&str; 6] =
    ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware"];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

// ---- what tests run with -------------------------------------------------------------------------------------

/// One forge in a directory of its own.
struct Host {
    dir: tempfile::TempDir,
    forge: Forge,
    pid: i32,
    cgroup: String,
    before: Snapshot,
}

impl Host {
    /// `None`, with a reason on standard error, where these tests cannot run.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs /bin/busybox (Debian: busybox-static)");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/wharf-test-forge-{}-{number}", std::process::id());
        let dir = tempfile::Builder::new().prefix("wharf-forge-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let before = Snapshot::take(&cgroup);
        let forge = hands::ensure(dir.path()).unwrap();
        let (_, pid) = forge.hello().unwrap();
        Some(Self { dir, forge, pid: pid as i32, cgroup, before })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A root file system of busybox.
    fn rootfs(&self, name: &str) -> PathBuf {
        let root = self.path().join(name);
        for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "data"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in ["sh", "true", "cat", "id", "sleep", "touch", "mkdir", "grep", "tty", "stty", "head", "ls", "kill", "mount", "setsid", "echo", "env", "pwd", "ps", "dd"]
        {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nvideo:x:44:app\n").unwrap();
        root
    }

    fn container(&self, args: &[&str]) -> Container<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{:064x}", 0xf0_0000 + NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = self.path().join(&id[56..]);
        for name in ["run", "record", "log"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let layer = self.path().join("layer");
        if !layer.exists() {
            self.rootfs("layer");
        }
        let empty = self.path().join("empty");
        std::fs::create_dir_all(&empty).unwrap();
        Container {
            host: self,
            spec: spec(args),
            create: Create {
                version: VERSION,
                id: id.clone(),
                run: 1,
                spec: String::new(),
                user: String::new(),
                groups: Vec::new(),
                rootfs: Rootfs::Overlay { lower: vec![empty, layer], upper: dir.join("upper"), work: dir.join("work") },
                id_map: Some(IDS),
                idmapped_mounts: Vec::new(),
                make_cwd: true,
                run_dir: dir.join("run"),
                record_dir: dir.join("record"),
                log: Log { dir: dir.join("log"), max_size: 1 << 20, max_files: 2 },
                terminal: None,
                stdin: Stdin::Null,
                cgroup: format!("{}/{}", self.cgroup, &id[48..]),
                limits: Limits { pids_max: Some(64), memory_max: Some(64 << 20), ..Limits::default() },
                oom_score_adj: None,
                fds: Vec::new(),
            },
            fds: Vec::new(),
            dir,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_until("the forge to end", || !Path::new(&format!("/proc/{}", self.pid)).exists());
        for mount in cgroup_mounts() {
            let _ = std::fs::remove_dir(mount.join(&self.cgroup[1..]));
        }
        if !std::thread::panicking() {
            wait_until("nothing to be left behind", || Snapshot::take(&self.cgroup) == self.before);
            let after = Snapshot::take(&self.cgroup);
            assert_eq!(after, self.before, "something was left behind");
        }
    }
}

/// What could be left behind, as far as it is ours.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    processes: BTreeSet<String>,
}

impl Snapshot {
    fn take(cgroup: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains("wharf")).map(str::to_owned).collect();
        let mut cgroups = BTreeSet::new();
        for mount in cgroup_mounts() {
            let dir = mount.join(&cgroup[1..]);
            if dir.exists() {
                cgroups.insert(dir);
            }
        }
        let own = format!("wharf-forge-{}", std::process::id());
        let mut processes = BTreeSet::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(text) = std::fs::read_to_string(entry.path().join("cgroup")) else { continue };
            if text.contains(cgroup) || text.contains(&own) {
                processes.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Self { mounts, cgroups, processes }
    }
}

fn cgroup_mounts() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .collect()
}

fn cgroup_file(cgroup: &str, controller: &str, v1: &str, v2: &str) -> String {
    let v1 = Path::new("/sys/fs/cgroup").join(controller).join(&cgroup[1..]).join(v1);
    let file = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup").join(&cgroup[1..]).join(v2) };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

struct Container<'h> {
    host: &'h Host,
    spec: Value,
    create: Create,
    fds: Vec<OwnedFd>,
    dir: PathBuf,
}

impl Container<'_> {
    fn directory_rootfs(mut self, path: PathBuf) -> Self {
        self.create.rootfs = Rootfs::Directory { path };
        self
    }

    fn fd(mut self, what: CreateFd, fd: OwnedFd) -> Self {
        self.create.fds.push(what);
        self.fds.push(fd);
        self
    }

    fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    fn start(&self) -> Result<Started, ForgeError> {
        let mut create = self.create.clone();
        create.spec = self.spec.to_string();
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        self.host.forge.create(create, &fds)
    }

    fn started(&self) -> Started {
        self.start().unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn refused(&self) -> Failure {
        match self.start() {
            Err(ForgeError::Failed(failure)) => {
                assert_eq!(std::fs::read_dir(self.dir.join("run")).unwrap().count(), 0, "the run's directory");
                for mount in cgroup_mounts() {
                    assert!(!mount.join(&self.create.cgroup[1..]).exists(), "cgroup in {}", mount.display());
                }
                failure
            }
            other => panic!("{other:?}"),
        }
    }

    fn record(&self) -> ExitRecord {
        let file = self.dir.join("record/exit.1");
        wait_until("the exit record", || file.exists());
        ExitRecord::parse(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log/log")).unwrap_or_default();
        // `<time> stdout F line`
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    fn remove(&self) {
        self.host.forge.remove_cgroup(&self.create.cgroup).unwrap();
        for mount in cgroup_mounts() {
            assert!(!mount.join(&self.create.cgroup[1..]).exists(), "cgroup in {}", mount.display());
        }
    }

    /// Start, wait for the end, remove: exit code and output.
    fn run(&self) -> (i32, String) {
        self.started();
        let record = self.record();
        self.remove();
        (record.exit_code(), self.log())
    }

    fn exec(&self, args: &[&str]) -> Exec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Exec {
            version: VERSION,
            cgroup: self.create.cgroup.clone(),
            name: format!("exec-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            capabilities: CAPS.iter().map(|cap| (*cap).to_owned()).collect(),
            no_new_privileges: true,
            id_map: self.create.id_map,
            terminal: None,
            rlimits: Vec::new(),
            kill_on_disconnect: false,
            fds: Vec::new(),
        }
    }

    /// Run to the end with standard output in a pipe, and the same filters as init if asked for.
    fn execute(&self, started: &Started, mut exec: Exec, filter: Option<&OwnedFd>) -> (i32, String) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let mut fds = vec![writer.as_fd(), writer.as_fd()];
        exec.fds = vec![ExecFd::Stdout, ExecFd::Stderr];
        if let Some(filter) = filter {
            exec.fds.push(ExecFd::Seccomp);
            fds.push(filter.as_fd());
        }
        let executing = self.host.forge.exec(exec, started.pidfd.as_fd(), &fds).unwrap_or_else(|e| panic!("{e:?}"));
        drop(fds);
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        (wharf_oci::exit_code(executing.wait().unwrap()), output)
    }
}

fn spec(args: &[&str]) -> Value {
    let device = |kind: &str, major: i64, minor: i64| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm"});
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args,
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"], "cwd": "/",
            "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS, "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}, {"type": "cgroup"}],
            "resources": {"devices": [
                {"allow": false, "access": "rwm"},
                device("c", 1, 3), device("c", 1, 5), device("c", 1, 7), device("c", 1, 8), device("c", 1, 9),
                device("c", 5, 0), device("c", 5, 2), {"allow": true, "type": "c", "major": 136, "access": "rwm"}
            ]},
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY
        }
    })
}

/// A filter that forbids mkdir(2) and mkdirat(2) with EPERM: x86-64 only, like everything here.
fn filter() -> OwnedFd {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let program: [(u16, u8, u8, u32); 5] = [
        (LOAD, 0, 0, 0),
        (EQUAL, 1, 0, 83),
        (EQUAL, 0, 1, 258),
        (RETURN, 0, 0, 0x0005_0001),
        (RETURN, 0, 0, 0x7fff_0000),
    ];
    let bytes: Vec<u8> = program
        .iter()
        .flat_map(|(code, jt, jf, k)| {
            code.to_ne_bytes().into_iter().chain([*jt, *jf]).chain(k.to_ne_bytes())
        })
        .collect();
    let memfd = rustix::fs::memfd_create("filter", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&memfd, &bytes).unwrap(), bytes.len());
    memfd
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < deadline, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

macro_rules! host {
    () => {
        match Host::new() {
            Some(host) => host,
            None => return,
        }
    };
}

// ---- tests ----------------------------------------------------------------------------------------------------

#[test]
fn container_of_layers_runs_and_its_exit_is_recorded() {
    let host = host!();
    let container = host.container(&["sh", "-c", "echo hello; echo $HOME; exit 42"]);
    let (code, log) = container.run();
    assert_eq!((code, log.as_str()), (42, "hello\n/root\n"));
}
