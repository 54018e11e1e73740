//! The forge on the real kernel: containers made, entered, limited, frozen, killed and removed.
//!
//! Needs root, and busybox as a static program (Debian: busybox-static). Every test has a forge, a runtime directory
//! and a cgroup subtree of its own, and compares processes, mounts and cgroups before and after.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wharf_oci::forge::{Forge, ForgeError, Started};
use wharf_oci::{
    CreateFd, ExecFd, ExitRecord, FailureKind, Family, IdMap, Limits, Log, Rootfs, Stdin, TerminalSize, hands,
};
use wharf_protocol::{Create, Exec, Failure, VERSION};

const IDS: IdMap = IdMap { host: 1_000_000_000, size: 65_536 };
const CAPS: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
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
        let host = Self { dir, forge, pid: pid as i32, cgroup, before };
        host.rootfs("layer");
        Some(host)
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
        for applet in [
            "sh", "true", "cat", "id", "sleep", "touch", "mkdir", "grep", "tty", "stty", "head", "ls",
            "kill", "mount", "setsid", "echo", "env", "pwd", "ps", "dd",
        ] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n",
        )
        .unwrap();
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
                rootfs: Rootfs::Overlay {
                    lower: vec![empty, layer],
                    upper: dir.join("upper"),
                    work: dir.join("work"),
                    volatile: false,
                },
                id_map: Some(IDS),
                idmapped_mounts: Vec::new(),
                make_cwd: true,
                run_dir: dir.join("run"),
                record_dir: dir.join("record"),
                log: Log { dir: dir.join("log"), max_size: 1 << 20, max_files: 2 },
                terminal: None,
                stdin: Stdin::Null,
                cgroup: format!("{}/{}", self.cgroup, &id[48..]),
                limits: if has_controllers() {
                    Limits { pids_max: Some(64), memory_max: Some(64 << 20), ..Limits::default() }
                } else {
                    Limits::default()
                },
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
        if std::thread::panicking() {
            let _ = self.forge.remove_cgroup(&self.cgroup);
        }
        let pid = rustix::process::Pid::from_raw(self.pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        wait_until("the forge to end", || !lives(self.pid));
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

/// A process that the host's init has not reaped yet lives no more.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
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

/// False where the v2 hierarchy is all there is and has no controllers: a hybrid host that has put them into v1, seen
/// without its v1 hierarchies (`unshare -m`, then move `unified` over /sys/fs/cgroup).
fn has_controllers() -> bool {
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    v2.is_ok_and(|text| text.contains("memory")) || Path::new("/sys/fs/cgroup/memory").exists()
}

fn cgroup_file(cgroup: &str, controller: &str, v1: &str, v2: &str) -> String {
    let v1 = Path::new("/sys/fs/cgroup").join(controller).join(&cgroup[1..]).join(v1);
    let file = if v1.exists() { v1 } else { Path::new("/sys/fs/cgroup").join(&cgroup[1..]).join(v2) };
    std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .trim()
        .to_owned()
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
                let left: Vec<_> = std::fs::read_dir(self.dir.join("run"))
                    .unwrap()
                    .flatten()
                    .map(|entry| entry.path())
                    .collect();
                assert!(left.is_empty(), "{left:?} after {failure:?}");
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

    fn unified(&self) -> PathBuf {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
        Path::new(line.split(' ').nth(4).unwrap()).join(&self.create.cgroup[1..])
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
        let executing =
            self.host.forge.exec(exec, started.pidfd.as_fd(), &fds).unwrap_or_else(|e| panic!("{e:?}"));
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
        .flat_map(|(code, jt, jf, k)| code.to_ne_bytes().into_iter().chain([*jt, *jf]).chain(k.to_ne_bytes()))
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

/// Which file system a process has as its root, as MAJOR:MINOR.
fn root_device(pid: u32) -> String {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields[4] == "/").map(|fields| fields[2].to_owned()).next().unwrap()
}

#[test]
fn next_run_can_have_the_overlay_of_the_last_one() {
    let host = host!();
    let mut container = host.container(&["sh", "-c", "echo run >> /runs; cat /runs; exec sleep 1000"]);
    let mut devices = Vec::new();
    for run in 1..=4 {
        // The third brings none along.
        container.create.run = run;
        container.create.run_dir = container.dir.join(format!("run.{run}"));
        std::fs::create_dir(&container.create.run_dir).unwrap();
        let mut started = container.started();
        devices.push(root_device(started.pid));
        container.create.fds.clear();
        container.fds.clear();
        let overlay = started.rootfs.take().expect("an overlay");
        if run != 2 {
            container = container.fd(CreateFd::Rootfs, overlay);
        }
        let lines = (1..=run).sum::<u64>() as usize;
        wait_until("its output", || container.log().lines().count() == lines);
        container.remove();
        wait_until("its record", || container.dir.join(format!("record/exit.{run}")).exists());
    }
    assert_eq!(devices[0], devices[1], "the same overlay");
    assert_eq!(devices[2], devices[3], "again");
    assert_eq!(std::fs::read_to_string(container.dir.join("upper/runs")).unwrap(), "run\n".repeat(4));

    // What does not come to be leaves neither mount nor cgroup, and the next try does not need it.
    container.create.run_dir = container.dir.join("run");
    container.spec["process"]["args"] = json!(["/missing"]);
    container.refused();
    container.create.fds.clear();
    container.fds.clear();
    container.spec["process"]["args"] = json!(["cat", "/runs"]);
    assert!(container.started().rootfs.is_some());

    let mut volatile = host.container(&["true"]);
    if let Rootfs::Overlay { volatile, .. } = &mut volatile.create.rootfs {
        *volatile = true;
    }
    assert!(volatile.started().rootfs.is_none(), "nothing to wait for");
    volatile.record();
    volatile.remove();
    container.remove();
}

#[test]
fn ids_differ_on_both_sides_and_files_have_the_right_owner() {
    let host = host!();
    let script = "id -u; touch /tmp/mine /root/also; cat /proc/self/uid_map; echo changed >> /etc/passwd; ls -ln /bin/busybox";
    let container = host.container(&["sh", "-c", script]);
    let (code, log) = container.run();
    assert_eq!(code, 0, "{log}");
    assert!(log.starts_with("0\n"), "{log}");
    assert!(log.contains(&format!("{} {}", IDS.host, IDS.size)) || log.contains("1000000000"), "{log}");
    assert!(log.lines().last().unwrap().contains(" 0 "), "root's file of the image is root's inside: {log}");
    for file in ["tmp/mine", "root/also", "etc/passwd", ""] {
        let stat = std::fs::metadata(container.dir.join("upper").join(file)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (IDS.host, IDS.host), "{file:?}");
    }
    let lower = std::fs::metadata(host.path().join("layer/etc/passwd")).unwrap();
    assert_eq!(lower.uid(), 0, "the image is untouched");
}

#[test]
fn plain_directory_is_used_in_place_with_its_own_owners() {
    let host = host!();
    let root = host.rootfs("plain");
    let container = host.container(&["sh", "-c", "touch /made && id -u"]).directory_rootfs(root.clone());
    assert_eq!(container.run(), (0, "0\n".to_owned()));
    assert_eq!(
        std::fs::metadata(root.join("made")).unwrap().uid(),
        0,
        "the container's root is this directory's root"
    );
}

#[test]
fn volumes_are_translated_or_not_as_asked() {
    let host = host!();
    let source = host.path().join("volume");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "content\n").unwrap();
    let options = ["bind", "nosuid", "nodev"];
    let mut container = host
        .container(&[
            "sh",
            "-c",
            "cat /data/file /one && touch /data/new && (touch /ro/x 2>/dev/null || echo refused)",
        ])
        .mount(json!({"destination": "/data", "type": "bind", "source": source, "options": options}))
        .mount(json!({"destination": "/ro", "type": "bind", "source": source, "options": ["rbind", "ro"]}))
        .mount(
            json!({"destination": "/one", "type": "bind", "source": source.join("file"), "options": options}),
        );
    let first = container.spec["mounts"].as_array().unwrap().len() - 3;
    container.create.idmapped_mounts = vec![first, first + 1, first + 2];
    let (code, log) = container.run();
    assert_eq!(code, 0, "{log}");
    assert!(log.starts_with("content\ncontent\n") && log.ends_with("refused\n"), "{log}");
    assert_eq!(std::fs::metadata(source.join("new")).unwrap().uid(), 0);
    assert!(!source.join("x").exists());
}

#[test]
fn missing_and_unexecutable_commands_are_told_apart() {
    let host = host!();
    let missing = host.container(&["nothere"]).refused();
    assert_eq!(missing.kind, FailureKind::CommandNotFound);
    assert!(missing.message.contains("/usr/bin:/bin"), "{missing}");
    assert_eq!(host.container(&["/bin/nothere"]).refused().kind, FailureKind::CommandNotFound);
    let plain = host.container(&["/etc/passwd"]).refused();
    assert_eq!(plain.kind, FailureKind::CommandNotExecutable, "{plain}");
    assert_eq!(host.container(&["/etc"]).refused().kind, FailureKind::CommandNotExecutable);

    let root = host.rootfs("scripts");
    for (name, text) in [("noloader", "#!/nowhere/sh\n"), ("notext", "hello\n")] {
        std::fs::write(root.join("bin").join(name), text).unwrap();
        std::fs::set_permissions(root.join("bin").join(name), std::fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    let loader = host.container(&["noloader"]).directory_rootfs(root.clone()).refused();
    assert!(
        loader.kind == FailureKind::CommandNotFound && loader.message.contains("interpreter"),
        "{loader}"
    );
    let text = host.container(&["notext"]).directory_rootfs(root).refused();
    assert_eq!(text.kind, FailureKind::CommandNotExecutable, "{text}");
    let mut empty = host.container(&[""]);
    assert_eq!(empty.refused().kind, FailureKind::InvalidInput);
    empty.spec["process"]["env"] = json!(["=x"]);
    assert_eq!(empty.refused().kind, FailureKind::InvalidInput);
}

#[test]
fn image_with_a_link_for_a_system_directory_is_refused() {
    let host = host!();
    let canary = host.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("ptmx"), "").unwrap();
    for name in ["dev", "proc", "sys"] {
        let root = host.rootfs(&format!("hostile-{name}"));
        std::fs::remove_dir(root.join(name)).unwrap();
        symlink(&canary, root.join(name)).unwrap();
        for directory in [true, false] {
            let mut container = host.container(&["true"]);
            if directory {
                container = container.directory_rootfs(root.clone());
            } else if let Rootfs::Overlay { lower, .. } = &mut container.create.rootfs {
                *lower = vec![root.clone()];
            }
            let failure = container.refused();
            assert_eq!(failure.kind, FailureKind::RefusedImage, "{failure}");
            assert!(failure.message.contains(&format!("/{name}")), "{failure}");
        }
        std::fs::remove_file(root.join(name)).unwrap();
        std::fs::write(root.join(name), "").unwrap();
        let failure = host.container(&["true"]).directory_rootfs(root).refused();
        assert_eq!(failure.kind, FailureKind::RefusedImage, "{failure}");
    }
    assert_eq!(std::fs::read_dir(canary).unwrap().count(), 1);
}

#[test]
fn nothing_may_be_mounted_over_proc_or_sys() {
    let host = host!();
    let root = host.rootfs("links");
    symlink("/proc", root.join("toproc")).unwrap();
    symlink("../../proc/sys", root.join("data/up")).unwrap();
    for destination in [
        "/proc",
        "/proc/self",
        "//proc",
        "/x/../proc",
        "/toproc",
        "/toproc/1",
        "/data/up",
        "/sys/kernel",
        "/proc/sys/kernel/core_pattern",
        "/",
    ] {
        let failure = host
            .container(&["true"])
            .directory_rootfs(root.clone())
            .mount(json!({"destination": destination, "type": "bind", "source": host.path(), "options": ["bind"]}))
            .refused();
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{destination}: {failure}");
        assert!(failure.message.contains(destination), "{destination}: {failure}");
    }
}

#[test]
fn users_come_from_the_image() {
    let host = host!();
    let mut container = host.container(&[
        "sh",
        "-c",
        "id -u; id -g; id -G; echo $HOME; pwd; touch x && grep Cap /proc/self/status",
    ]);
    container.create.user = "app".into();
    container.create.groups = vec!["5".into()];
    container.spec["process"]["cwd"] = json!("/tmp");
    let (code, log) = container.run();
    assert_eq!(code, 0, "{log}");
    assert!(log.starts_with("1000\n100\n100 5 44\n/home/app\n/tmp\n"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000000"), "an ordinary user has no capabilities: {log}");

    for (user, kind) in [
        ("nobody", FailureKind::InvalidInput),
        ("4294967296", FailureKind::InvalidInput),
        ("65536", FailureKind::InvalidInput),
        ("app\n0", FailureKind::InvalidInput),
        ("app:nope", FailureKind::InvalidInput),
    ] {
        let mut container = host.container(&["true"]);
        container.create.user = user.into();
        let failure = container.refused();
        assert_eq!(failure.kind, kind, "{user:?}: {failure}");
    }
}

#[test]
fn working_directory_is_made_for_the_containers_root() {
    let host = host!();
    let mut container = host.container(&["sh", "-c", "pwd; touch here"]);
    container.spec["process"]["cwd"] = json!("/srv/app/new");
    assert_eq!(container.run(), (0, "/srv/app/new\n".into()));
    let stat = std::fs::metadata(container.dir.join("upper/srv/app/new")).unwrap();
    assert_eq!(stat.uid(), IDS.host);

    let mut container = host.container(&["true"]);
    container.spec["process"]["cwd"] = json!("/etc/passwd/x");
    assert_eq!(container.refused().kind, FailureKind::InvalidInput);
    for number in 3..20 {
        let mut container = host.container(&["true"]);
        container.create.make_cwd = false;
        container.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let started = container.start();
        assert!(started.is_err(), "{number}");
    }
}

#[test]
fn init_and_exec_are_confined_alike() {
    let host = host!();
    for no_new_privileges in [true, false] {
        let filter = filter();
        let mut container = host
            .container(&["sh", "-c", "mkdir /tmp/x 2>/dev/null || echo refused; grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls /proc/self/fd; sleep 1000"])
            .fd(CreateFd::Seccomp, filter.try_clone().unwrap());
        container.spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let started = container.started();
        wait_until("the output", || container.log().lines().count() >= 13);
        let log = container.log();
        let rest = log.split_once("refused\n").unwrap_or_else(|| panic!("{log}")).1;
        assert!(rest.contains("Seccomp:\t2\nSeccomp_filters:\t1\n"), "{rest}");

        let mut exec = container.exec(&[
            "sh",
            "-c",
            "mkdir /tmp/y 2>/dev/null; grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls /proc/self/fd",
        ]);
        exec.no_new_privileges = no_new_privileges;
        let (code, output) = container.execute(&started, exec, Some(&filter));
        assert_eq!(code, 0, "{output}");
        assert_eq!(output, rest, "exec as init");
        assert!(rest.ends_with("0\n1\n2\n3\n"), "no descriptor but ls' own: {rest}");
        assert!(rest.contains("CapInh:\t0000000000000000") && rest.contains("CapAmb:\t0000000000000000"));
        assert!(rest.contains(&format!("NoNewPrivs:\t{}", i32::from(no_new_privileges))));
        container.remove();
        assert_eq!(container.record().exit_code(), 137);
    }
}

#[test]
fn masked_paths_are_empty_and_readonly_paths_are_readonly() {
    let host = host!();
    let script = "head -c 10 /proc/kcore; cat /proc/keys /proc/timer_list; ls /sys/firmware; echo x > /proc/sys/kernel/hostname; echo $?; mount | grep -c wharf";
    let (_, log) = host.container(&["sh", "-c", &format!("({script}) 2>/dev/null")]).run();
    assert_eq!(log, "1\n0\n");
}

#[test]
fn exec_joins_all_namespaces_of_the_container() {
    let host = host!();
    let container = host.container(&["sleep", "1000"]);
    let started = container.started();
    let (code, output) = container.execute(&started, container.exec(&["sh", "-c", "for n in user mnt pid net ipc uts cgroup; do echo $(ls -l /proc/self/ns/$n /proc/1/ns/$n | grep -o '[^ ]*$'); done; id -u; echo $HOME; cat /proc/self/cgroup"]), None);
    assert_eq!(code, 0, "{output}");
    for line in output.lines().take(7) {
        let (own, init) = line.split_once(' ').unwrap();
        assert_eq!(own, init, "{output}");
    }
    assert!(output.contains("\n0\n/root\n"), "{output}");
    for line in output.lines().filter(|line| line.contains(":/") && !line.starts_with("0::")) {
        assert!(line.ends_with(":/"), "in the container's cgroup: {output}");
    }

    let mut exec = container.exec(&["sh", "-c", "id -u; id -G; pwd"]);
    exec.user = "app".into();
    exec.cwd = "/tmp".into();
    assert_eq!(container.execute(&started, exec, None), (0, "1000\n100 44\n/tmp\n".into()));

    let mut exec = container.exec(&["true"]);
    exec.cwd = "/nowhere".into();
    let failure = host.forge.exec(exec, started.pidfd.as_fd(), &[]).unwrap_err();
    assert!(
        matches!(&failure, ForgeError::Failed(failure) if failure.kind == FailureKind::InvalidInput),
        "{failure:?}"
    );
    for (args, kind) in
        [("nothere", FailureKind::CommandNotFound), ("/etc/passwd", FailureKind::CommandNotExecutable)]
    {
        let failure = host.forge.exec(container.exec(&[args]), started.pidfd.as_fd(), &[]).unwrap_err();
        assert!(matches!(&failure, ForgeError::Failed(failure) if failure.kind == kind), "{failure:?}");
    }
    let (code, _) = container.execute(&started, container.exec(&["sh", "-c", "kill -9 $$"]), None);
    assert_eq!(code, 137);

    container.remove();
    let failure = host.forge.exec(container.exec(&["true"]), started.pidfd.as_fd(), &[]).unwrap_err();
    assert!(
        matches!(&failure, ForgeError::Failed(failure) if failure.kind == FailureKind::NotRunning),
        "{failure:?}"
    );
}

#[test]
fn exec_gets_a_terminal_of_the_container() {
    let host = host!();
    let container = host.container(&["sleep", "1000"]);
    let started = container.started();
    let mut exec =
        container.exec(&["sh", "-c", "tty; stty size; read line; echo got $line; touch $(tty) && echo mine"]);
    exec.user = "app".into();
    exec.terminal = Some(TerminalSize { rows: 33, columns: 77 });
    let executing = host.forge.exec(exec, started.pidfd.as_fd(), &[]).unwrap();
    let mut terminal = std::fs::File::from(executing.terminal.as_ref().unwrap().try_clone().unwrap());
    terminal.write_all(b"input\n").unwrap();
    let mut output = Vec::new();
    // EIO at the end, when nobody has the other side open.
    let _ = terminal.read_to_end(&mut output);
    let output = String::from_utf8_lossy(&output);
    assert!(output.contains("/dev/pts/0"), "{output}");
    assert!(output.contains("33 77") && output.contains("got input") && output.contains("mine"), "{output}");
    assert_eq!(executing.wait().unwrap(), 0);
    container.remove();
}

#[test]
fn container_with_a_terminal_writes_it_to_the_log() {
    let host = host!();
    let mut container = host.container(&["sh", "-c", "tty; stty size"]);
    container.create.terminal = Some(TerminalSize { rows: 44, columns: 99 });
    let (code, log) = container.run();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("/dev/pts/0") && log.contains("44 99"), "{log}");
}

#[test]
fn exec_takes_with_it_what_it_has_started() {
    let host = host!();
    let container = host.container(&["sleep", "1000"]);
    let started = container.started();
    let count = || {
        let procs = Path::new("/sys/fs/cgroup/unified").join(&container.create.cgroup[1..]);
        let procs = if procs.exists() {
            procs
        } else {
            Path::new("/sys/fs/cgroup").join(&container.create.cgroup[1..])
        };
        std::fs::read_dir(procs).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count()
    };
    // Left in the background in a session of its own.
    let (code, _) = container.execute(
        &started,
        container.exec(&["sh", "-c", "setsid sleep 999 >/dev/null 2>&1 & exit 3"]),
        None,
    );
    assert_eq!(code, 3);
    assert_eq!(count(), 0, "the exec's cgroup is gone");
    let (_, processes) = container.execute(&started, container.exec(&["ps"]), None);
    assert!(!processes.contains("sleep 999"), "{processes}");

    // Whoever asked goes away.
    let mut exec = container.exec(&["sh", "-c", "sleep 998 & sleep 997"]);
    exec.kill_on_disconnect = true;
    let executing = host.forge.exec(exec, started.pidfd.as_fd(), &[]).unwrap();
    assert_eq!(count(), 1);
    drop(executing);
    wait_until("the exec to be killed", || count() == 0);

    // Killed by name.
    let exec = container.exec(&["sh", "-c", "sleep 996 & sleep 995"]);
    let name = format!("{}/{}", container.create.cgroup, exec.name);
    let executing = host.forge.exec(exec, started.pidfd.as_fd(), &[]).unwrap();
    host.forge.kill(&name).unwrap();
    assert_eq!(wharf_oci::exit_code(executing.wait().unwrap()), 137);

    // The container ends: so do its execs.
    let executing = host.forge.exec(container.exec(&["sleep", "994"]), started.pidfd.as_fd(), &[]).unwrap();
    host.forge.signal(started.pidfd.as_fd(), 9).unwrap();
    assert_eq!(wharf_oci::exit_code(executing.wait().unwrap()), 137);
    assert_eq!(container.record().exit_code(), 137);
    container.remove();
}

#[test]
fn sockets_are_those_of_the_containers_network() {
    let host = host!();
    // The same port on the host's loopback, served by someone else.
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let container =
        host.container(&["busybox", "nc", "-ll", "-p", &port.to_string(), "-e", "/bin/echo", "inside"]);
    let started = container.started();

    let sockets = host.forge.sockets(started.pidfd.as_fd(), Family::Ipv4, 16).unwrap();
    assert_eq!(sockets.len(), 16);
    for socket in &sockets {
        assert!(rustix::io::fcntl_getfd(socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert!(rustix::fs::fcntl_getfl(socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    }
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    let connected = sockets.into_iter().find_map(|socket| {
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => Some(std::net::TcpStream::from(socket)),
            // It does not listen yet.
            Err(rustix::io::Errno::CONNREFUSED) => {
                std::thread::sleep(Duration::from_millis(50));
                None
            }
            Err(error) => panic!("{error}"),
        }
    });
    let mut said = String::new();
    connected.expect("nobody listens inside").read_to_string(&mut said).unwrap();
    assert_eq!(said, "inside\n");
    outside.set_nonblocking(true).unwrap();
    assert_eq!(outside.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came here");

    let six = host.forge.sockets(started.pidfd.as_fd(), Family::Ipv6, 1).unwrap();
    assert_eq!(rustix::net::sockopt::socket_domain(&six[0]).unwrap(), rustix::net::AddressFamily::INET6);
    for count in [0, 17] {
        match host.forge.sockets(started.pidfd.as_fd(), Family::Ipv4, count) {
            Err(ForgeError::Failed(failure)) => assert!(failure.message.contains("1 to 16"), "{failure:?}"),
            other => panic!("{other:?}"),
        }
    }

    host.forge.signal(started.pidfd.as_fd(), 9).unwrap();
    container.record();
    match host.forge.sockets(started.pidfd.as_fd(), Family::Ipv4, 1) {
        Err(ForgeError::Failed(failure)) => assert_eq!(failure.kind, FailureKind::NotRunning),
        other => panic!("{other:?}"),
    }
    container.remove();
}

#[test]
fn cgroups_that_the_container_nested_are_removed() {
    let host = host!();
    let container = host.container(&["sleep", "1000"]);
    container.started();
    for mount in cgroup_mounts() {
        let mut dir = mount.join(&container.create.cgroup[1..]);
        for _ in 0..20 {
            dir.push("nested");
            std::fs::create_dir(&dir).unwrap();
        }
    }
    container.remove();
    host.forge.remove_cgroup(&container.create.cgroup).unwrap();
}

#[test]
fn limits_are_in_the_kernel_and_change_live() {
    let host = host!();
    if !has_controllers() {
        eprintln!("skipped: no controllers");
        return;
    }
    let mut container = host.container(&["sleep", "1000"]);
    container.create.limits = Limits {
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".into()),
        memory_max: Some(64 << 20),
        memory_swap_max: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        pids_max: Some(20),
        blkio_weight: Some(500),
        cpuset_mems: None,
    };
    let started = container.started();
    let cgroup = container.create.cgroup.clone();
    let v2 = !Path::new("/sys/fs/cgroup/memory").exists();
    let read = |controller, v1, v2| cgroup_file(&cgroup, controller, v1, v2);
    let warned = |what: &str| started.warnings.iter().any(|warning| warning.contains(what));
    // v1 limits the sum of memory and swap, v2 swap alone. Not every kernel counts swap, then it is said.
    let swap_is = |sum: i64, alone: i64| {
        let (file, limit) = if v2 {
            (container.unified().join("memory.swap.max"), alone)
        } else {
            let directory = Path::new("/sys/fs/cgroup/memory").join(&cgroup[1..]);
            (directory.join("memory.memsw.limit_in_bytes"), sum)
        };
        if !file.exists() {
            assert!(warned("the swap limit is ignored"), "{:?}", started.warnings);
            return;
        }
        let found = std::fs::read_to_string(&file).unwrap();
        match limit {
            // v1 says so with the largest number of whole pages.
            -1 => assert!(found == "max\n" || found.trim().parse::<i64>().unwrap() > 1 << 60, "{found}"),
            limit => assert_eq!(found.trim(), limit.to_string(), "{}", file.display()),
        }
    };
    // Only some schedulers know weights, under several names; without one it is said.
    let weight_is = |weight: u64, io_weight: u64| {
        let directory =
            if v2 { container.unified() } else { Path::new("/sys/fs/cgroup/blkio").join(&cgroup[1..]) };
        let files = [
            ("io.bfq.weight", weight),
            ("io.weight", io_weight),
            ("blkio.weight", weight),
            ("blkio.bfq.weight", weight),
        ];
        let Some((file, weight)) = files
            .map(|(name, weight)| (directory.join(name), weight))
            .into_iter()
            .find(|(file, _)| file.exists())
        else {
            assert!(warned("the blkio weight is ignored"), "{:?}", started.warnings);
            return;
        };
        // `500`, or `default 500`.
        let found = std::fs::read_to_string(&file).unwrap();
        let default = found.lines().next().and_then(|line| line.split(' ').next_back());
        assert_eq!(default, Some(weight.to_string().as_str()), "{}", file.display());
    };
    swap_is(64 << 20, 0);
    weight_is(500, 4950);
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (64u64 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "20");
    assert_eq!(read("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    if !v2 {
        assert_eq!(read("cpu", "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(read("cpu", "cpu.shares", ""), "512");
        assert_eq!(read("memory", "memory.soft_limit_in_bytes", ""), (32u64 << 20).to_string());
        assert!(
            read("devices", "devices.list", "").lines().all(|line| !line.starts_with("a ")),
            "devices are restricted"
        );
    }

    let change = |limits: Limits| host.forge.limit(&cgroup, limits);
    change(Limits {
        memory_max: Some(128 << 20),
        memory_swap_max: Some(-1),
        pids_max: Some(-1),
        ..Limits::default()
    })
    .unwrap();
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (128u64 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "max");
    swap_is(-1, -1);
    change(Limits { memory_max: Some(32 << 20), memory_swap_max: Some(48 << 20), ..Limits::default() })
        .unwrap();
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), (32u64 << 20).to_string());
    swap_is(48 << 20, 16 << 20);
    change(Limits { blkio_weight: Some(1000), ..Limits::default() }).unwrap();
    weight_is(1000, 10_000);
    change(Limits { cpu_quota_us: Some(-1), cpu_period_us: Some(50_000), ..Limits::default() }).unwrap();
    let quota = || read("cpu", "cpu.cfs_quota_us", "cpu.max");
    let before = quota();
    let bad = change(Limits {
        cpu_quota_us: Some(20_000),
        cpu_period_us: Some(100_000),
        cpuset_cpus: Some("0-4095".into()),
        ..Limits::default()
    })
    .unwrap_err();
    assert_eq!(quota(), before, "what was changed before the refusal is as it was");
    assert!(
        matches!(&bad, ForgeError::Failed(failure) if failure.kind == FailureKind::InvalidInput),
        "{bad:?}"
    );
    host.forge.signal(started.pidfd.as_fd(), 9).unwrap();
    container.remove();
    let gone = change(Limits { pids_max: Some(5), ..Limits::default() }).unwrap_err();
    assert!(
        matches!(&gone, ForgeError::Failed(failure) if failure.kind == FailureKind::NotRunning),
        "{gone:?}"
    );
}

#[test]
fn frozen_container_stands_still_and_can_be_killed() {
    let host = host!();
    let container = host.container(&["sh", "-c", "while :; do echo tick; sleep 0.01; done"]);
    let started = container.started();
    wait_until("ticks", || !container.log().is_empty());
    host.forge.freeze(&container.create.cgroup, true).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let stopped = container.log().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(container.log().len(), stopped);
    let paused = host.forge.exec(container.exec(&["true"]), started.pidfd.as_fd(), &[]).unwrap_err();
    assert!(paused.to_string().contains("paused"), "{paused}");
    host.forge.freeze(&container.create.cgroup, false).unwrap();
    wait_until("more ticks", || container.log().len() > stopped);
    host.forge.freeze(&container.create.cgroup, true).unwrap();
    host.forge.kill(&container.create.cgroup).unwrap();
    assert_eq!(container.record().exit_code(), 137);
    container.remove();
}

#[test]
fn failing_mount_is_named() {
    let host = host!();
    let missing = host
        .container(&["true"])
        .mount(
            json!({"destination": "/data", "type": "bind", "source": "/does/not/exist", "options": ["bind"]}),
        )
        .refused();
    assert_eq!(missing.kind, FailureKind::InvalidInput);
    assert!(missing.message.contains("/does/not/exist") && missing.message.contains("/data"), "{missing}");

    let bad = host
        .container(&["true"])
        .mount(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"]}))
        .refused();
    assert!(bad.message.contains("/scratch"), "{bad:?}");
    assert!(!bad.detail.is_empty());

    let source = host.path().join("somefile");
    std::fs::write(&source, "").unwrap();
    let over = host
        .container(&["true"])
        .mount(json!({"destination": "/etc/passwd/below", "type": "bind", "source": source, "options": ["bind"]}))
        .refused();
    assert!(over.message.contains("/etc/passwd/below"), "{over:?}");
}

#[test]
fn what_the_host_does_not_allow_is_clamped_with_a_warning() {
    let host = host!();
    let mut container = host.container(&["sh", "-c", "cat /proc/self/oom_score_adj; ulimit -n"]);
    container.create.oom_score_adj = Some(321);
    container.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    let started = container.started();
    assert!(started.warnings.is_empty(), "{:?}", started.warnings);
    assert_eq!(container.record().exit_code(), 0);
    assert_eq!(container.log(), "321\n100\n");
    container.remove();
    let keeper_or_forge = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", host.pid)).unwrap();
    assert_ne!(keeper_or_forge.trim(), "321");

    let mut container = host.container(&["true"]);
    container.spec["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 4_000_000_000u64, "hard": 4_000_000_000u64}]);
    let started = container.started();
    assert!(
        started.warnings.iter().any(|warning| warning.contains("RLIMIT_NOFILE")),
        "{:?}",
        started.warnings
    );
    container.remove();
}

#[test]
fn host_ids_work_without_a_user_namespace() {
    let host = host!();
    let mut container =
        host.container(&["sh", "-c", "cat /proc/self/uid_map; touch /tmp/x"]).fd(CreateFd::Seccomp, filter());
    container.create.id_map = None;
    container.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "user");
    let started = container.started();
    drop(started);
    assert_eq!(container.record().exit_code(), 0);
    assert!(container.log().contains("4294967295"), "{}", container.log());
    assert_eq!(std::fs::metadata(container.dir.join("upper/tmp/x")).unwrap().uid(), 0);
    container.remove();

    let mut mismatch = host.container(&["true"]);
    mismatch.create.id_map = None;
    mismatch.refused();
}

#[test]
fn standard_input_reaches_the_container() {
    let host = host!();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut container = host.container(&["cat"]).fd(CreateFd::Stdin, reader.into());
    container.create.stdin = Stdin::Pipe;
    container.started();
    container.fds.clear();
    writer.write_all(b"through the pipe\n").unwrap();
    drop(writer);
    assert_eq!(container.record().exit_code(), 0);
    assert_eq!(container.log(), "through the pipe\n");
    container.remove();
}

#[test]
fn standard_streams_can_be_opened_again_by_the_containers_user() {
    let host = host!();
    let mut container = host.container(&["sh", "-c", "echo out > /proc/self/fd/1"]);
    container.create.user = "app".into();
    assert_eq!(container.run(), (0, "out\n".into()));
}

#[test]
fn killed_creator_or_guard_leaves_nothing_after_the_cgroup_is_removed() {
    let host = host!();
    let mut random = 88_172_645_463_325_252u64;
    for round in 0..60 {
        let container = host.container(&["sleep", "1000"]);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let delay = Duration::from_micros(random % 30_000);
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| container.start());
            std::thread::sleep(delay);
            // The guard, the creator (then the guard has cleared up by the time that it answers), or both.
            let alone = round % 3 == 1;
            let guards = children(host.pid);
            let creators = guards.iter().flat_map(|guard| children(*guard));
            let victims: Vec<i32> = match round % 3 {
                0 => guards.clone(),
                1 => creators.collect(),
                _ => creators.chain(guards.iter().copied()).collect(),
            };
            for pid in victims {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            // Whatever it says, it says it soon.
            let at = Instant::now();
            let result = starting.join().unwrap();
            if alone && let Err(error) = &result {
                assert!(matches!(error, ForgeError::Failed(_)), "round {round}: {error:?}");
                for mount in cgroup_mounts() {
                    assert!(!mount.join(&container.create.cgroup[1..]).exists(), "round {round}");
                }
            }
            assert!(
                at.elapsed() < Duration::from_secs(5),
                "round {round} after {delay:?}: {:?}",
                at.elapsed()
            );
        });
        container.remove();
        std::fs::remove_dir_all(&container.dir).unwrap();
    }
}

#[test]
fn keeper_is_the_parent_of_init_and_outside_of_its_cgroup_and_mounts() {
    let host = host!();
    let container = host.container(&["sleep", "1000"]);
    let init = container.started().pid;
    let keeper = parent(init as i32);
    wait_until("the keeper", || {
        std::fs::read_to_string(format!("/proc/{keeper}/comm")).is_ok_and(|name| name == "wharf-keeper\n")
    });
    assert!(children(host.pid).contains(&keeper), "a child of the forge");
    let of_keeper = std::fs::read_to_string(format!("/proc/{keeper}/cgroup")).unwrap();
    assert!(!of_keeper.contains(&container.create.cgroup), "{of_keeper}");
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(namespace(keeper), namespace(host.pid));
    assert_ne!(namespace(keeper), namespace(init as i32));
    assert_eq!(children(keeper), [init as i32]);
    let procs = std::fs::read_to_string(container.unified().join("cgroup.procs")).unwrap();
    assert_eq!(procs, format!("{init}\n"), "the container has its cgroup for itself");
    container.remove();
    assert_eq!(container.record().exit_code(), 137);
}

#[test]
fn limit_of_processes_is_the_containers_own_from_its_first_moment() {
    let host = host!();
    if !has_controllers() {
        eprintln!("skipped: no pids controller");
        return;
    }
    for _ in 0..10 {
        let mut container = host.container(&["true"]);
        container.create.limits.pids_max = Some(1);
        assert_eq!(container.run(), (0, String::new()));
        // The shell's child is the second process, and comes at once.
        let mut container = host.container(&["sh", "-c", "/bin/true && echo forked"]);
        container.create.limits.pids_max = Some(2);
        assert_eq!(container.run(), (0, "forked\n".into()));
    }
}

#[test]
fn many_containers_at_once_come_and_go() {
    let host = host!();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let container = host.container(&["sh", "-c", "exit 7"]);
                    assert_eq!(container.run().0, 7);
                }
            });
        }
    });
}

#[test]
fn forge_serves_only_its_own_user_and_outlives_rude_peers() {
    let host = host!();
    let socket = host.forge.socket().to_owned();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    // Whoever gets past the modes is still asked who they are.
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(host.path(), 0o755);
    mode(&socket, 0o666);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let nobody = rustix::process::Uid::from_raw(65534);
            // Of this thread alone.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "the modes let it in");
            let refused = Forge::at(&socket).hello();
            assert!(matches!(refused, Err(ForgeError::Broken(_))), "{refused:?}");
        });
    });
    mode(&socket, 0o600);
    mode(host.path(), 0o700);

    for bytes in [&b""[..], b"\xff\xff\xff\xff", b"\x04\0\0\0nope", b"\x02\0\0\0{}"] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(bytes);
    }
    let again = hands::ensure(host.path()).unwrap();
    assert_eq!(again.hello().unwrap().1 as i32, host.pid, "the living one is used");
    let exe = std::fs::read_link(format!("/proc/{}/exe", host.pid)).unwrap();
    assert!(exe.to_string_lossy().contains("memfd:"), "{exe:?}");
    let environment = std::fs::read(format!("/proc/{}/environ", host.pid)).unwrap();
    assert!(environment.is_empty());
}

#[test]
fn containers_outlive_the_forge() {
    let host = host!();
    let container = host.container(&["sh", "-c", "sleep 0.3; echo alive; exit 5"]);
    container.started();
    let pid = rustix::process::Pid::from_raw(host.pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(container.record().exit_code(), 5);
    assert_eq!(container.log(), "alive\n");
    let forge = hands::ensure(host.path()).unwrap();
    forge.remove_cgroup(&container.create.cgroup).unwrap();
    let (_, pid) = forge.hello().unwrap();
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_until("the socket to be removed", || !forge.socket().exists());
}

fn parent(child: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn children(parent: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
