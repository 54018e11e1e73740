//! A real daemon on this machine's kernel, for tests: started in directories and a cgroup of its own, asked through
//! `ctl`, and taken away with a check that nothing of it is left.
//!
//! Tests share one daemon per test program ([`Wharf::shared`]) unless they restart it or count what it leaves
//! ([`Wharf::start`]); names of containers are unique per test, so that tests run side by side.

pub mod command;
pub mod disk;
pub mod image;
pub mod processes;
pub mod snapshot;

pub use command::{Output, Tool, eventually};

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The binaries of this build: `WHARF_BIN_DIR`, or the directory above the test program's.
pub fn binary(name: &str) -> PathBuf {
    let directory = std::env::var_os("WHARF_BIN_DIR").map_or_else(
        || {
            let test = std::env::current_exe().expect("the test program has a path");
            test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned()
        },
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build` (or `make test`) first", path.display());
    path
}

/// The project's directory.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project")
}

/// A name that nothing else on this machine has, and that no other begins with; it marks directories, cgroups and
/// processes of a test.
fn unique_name() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let run = std::env::var("WHARF_TEST_RUN").unwrap_or_else(|_| "local".to_owned());
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("wharf-e2e-{run}-{}-{number:04}", std::process::id())
}

/// A daemon and everything it has. Dropped: containers removed, daemon ended, and the test fails if anything is
/// left.
#[derive(Debug)]
pub struct Wharf {
    name: String,
    directory: PathBuf,
    setup: Setup,
    disk: Option<disk::Disk>,
    daemon: Mutex<Option<Child>>,
}

/// How a daemon differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Another program than `wharfd`.
    pub program: Option<&'static str>,
    /// More lines at the end of its configuration.
    pub configuration: String,
    /// A file system of its own for the state, as large as this (MiB).
    pub disk: Option<u32>,
    /// Words in front of the command line: a program that sets something up and executes the rest.
    pub wrapper: Vec<std::ffi::OsString>,
}

impl Wharf {
    /// A daemon of the caller's own.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Likewise, with more lines at the end of its configuration.
    pub fn start_with(configuration: &str) -> Self {
        Self::start_as(Setup { configuration: configuration.to_owned(), ..Setup::default() })
    }

    /// Likewise, with whatever else is to be different.
    pub fn start_as(setup: Setup) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests of the real kernel need root: use `make test`");
        let name = unique_name();
        let directory = std::env::temp_dir().join(&name);
        for part in ["", "state", "run"] {
            std::fs::create_dir(directory.join(part)).expect("a directory for the test");
        }
        let text = format!("cgroup_root = \"/{name}\"\n[bus]\nsystem = false\n{}\n", setup.configuration);
        std::fs::write(directory.join("wharf.toml"), text).expect("a configuration for the test");
        let disk = setup.disk.map(|size| disk::Disk::make(&directory, size, &directory.join("state")));
        let wharf = Self { name, directory, setup, disk, daemon: Mutex::new(None) };
        wharf.launch();
        wharf
    }

    /// The daemon that the tests of one program share; it ends with the last of them.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Wharf>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let wharf = Arc::new(Self::start());
            *shared = Arc::downgrade(&wharf);
            wharf
        })
    }

    /// Start wharfd on the same directories, after [`Wharf::kill_daemon`] or [`Wharf::stop_daemon`].
    pub fn launch(&self) {
        self.launch_with(&[]);
    }

    /// Likewise with variables added to its environment.
    pub fn launch_with(&self, environment: &[(&str, &str)]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("wharfd.log"))
            .expect("the daemon's log");
        let program = binary(self.setup.program.unwrap_or("wharfd"));
        let mut words = self.setup.wrapper.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let child = Command::new(words.next().expect("at least wharfd"))
            .args(words)
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--runtime-dir")
            .arg(self.runtime_dir())
            .arg("--config")
            .arg(self.directory.join("wharf.toml"))
            // The forge would wait for the next daemon; of ours there is one only after a crash.
            .arg("--end-forge")
            .env("WHARF_TEST_RUN", &self.name)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the daemon's log"))
            .stderr(log)
            .spawn()
            .expect("wharfd starts");
        *self.lock() = Some(child);
        eventually(30, "wharfd answers", || {
            if let Some(status) = self.lock().as_mut().and_then(|child| child.try_wait().expect("a child")) {
                panic!("wharfd has ended: {status}\n{}", self.daemon_log());
            }
            self.socket().exists() && self.ctl(["version"]).output().status == 0
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL, and gone.
    pub fn kill_daemon(&self) {
        let mut child = self.lock().take().expect("the daemon runs");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// SIGTERM; its exit status.
    pub fn stop_daemon(&self) -> i32 {
        let child = self.lock().take().expect("the daemon runs");
        command::terminate(child, Duration::from_secs(20))
    }

    /// Is there one, dead or alive?
    pub fn is_launched(&self) -> bool {
        self.lock().is_some()
    }

    /// Has it ended by itself? It is still to be buried, by [`Wharf::kill_daemon`].
    pub fn has_died(&self) -> bool {
        self.lock().as_mut().is_some_and(|child| child.try_wait().expect("a child").is_some())
    }

    /// The file system of the state, if it has one of its own.
    pub fn disk(&self) -> &disk::Disk {
        self.disk.as_ref().expect("the setup asked for a disk")
    }

    /// The daemon's pid.
    pub fn daemon_pid(&self) -> u32 {
        self.lock().as_ref().expect("the daemon runs").id()
    }

    /// What the daemon has logged.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.directory.join("wharfd.log")).unwrap_or_default()
    }

    /// What marks everything of this daemon; the last part of its cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory that goes with the daemon; tests may put files there.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory.join("scratch").join(name);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        path
    }

    /// `--state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        // The root of a file system has a `lost+found`.
        self.directory.join(if self.setup.disk.is_some() { "state/wharf" } else { "state" })
    }

    /// `--runtime-dir`.
    pub fn runtime_dir(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The private socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime_dir().join("private")
    }

    /// The D-Bus address of the private socket.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// `gdbus call` of a method of this object, on the private socket, not yet run.
    pub fn gdbus(&self, path: &str, method: &str, arguments: &[&str]) -> Tool {
        let mut all = vec!["call", "--address"];
        let address = self.address();
        all.extend([address.as_str(), "--dest", "org.wharf1", "--object-path", path, "--method", method]);
        all.extend(arguments);
        Tool::with("gdbus", all)
    }

    /// `ctl` with these arguments, not yet run.
    pub fn ctl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Tool {
        let mut tool = Tool::new(binary("ctl"));
        tool.command().args(arguments).env("WHARF_SOCKET", self.socket()).env_remove("RUST_LOG");
        tool
    }

    /// Run `ctl`; it must succeed. Its standard output without the last newline.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        self.ctl(arguments).ok()
    }

    /// Run `ctl`; its exit status, standard output and standard error.
    pub fn output<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.ctl(arguments).output()
    }

    /// `ctl run -d` with these arguments: a container that is removed with the returned guard.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Container<'_> {
        let mut all: Vec<std::ffi::OsString> = vec!["run".into(), "-d".into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        Container { wharf: self, id: self.ok(all) }
    }

    /// `ctl inspect` of a container: its one object.
    pub fn inspect(&self, container: &str) -> Value {
        let text = self.ok(["inspect", container]);
        let value: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        match value {
            Value::Array(mut list) => {
                assert_eq!(list.len(), 1, "one container: {text}");
                list.remove(0)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => value,
        }
    }

    /// Load the busybox image ([`image::Busybox`]) unless this daemon has it; its name.
    pub fn busybox(&self) -> &'static str {
        static LOADING: Mutex<()> = Mutex::new(());
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let have = self.output(["image", "inspect", image::NAME]);
        if have.status != 0 {
            let image = image::Busybox::get();
            self.ok(["image".as_ref(), "load".as_ref(), image.oci_archive().as_os_str()]);
        }
        image::NAME
    }

    /// A file of a container's cgroup: its controller and name on v1, its name on v2.
    pub fn cgroup_file(&self, cgroup: &str, controller: &str, v1: &str, v2: &str) -> PathBuf {
        let relative = cgroup.trim_start_matches('/');
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut after = after.split(' ');
            let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
            let point = before.split(' ').nth(4).expect("a mount point");
            if kind == Some("cgroup") && options.split(',').any(|option| option == controller) {
                return Path::new(point).join(relative).join(v1);
            }
        }
        Path::new("/sys/fs/cgroup").join(relative).join(v2)
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            let log = self.daemon_log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("wharfd's log, last lines:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        let running = self.lock().is_some();
        let mut complaint = None;
        if running {
            let ids = self.output(["ps", "-aq"]);
            if !ids.stdout.trim().is_empty() {
                self.output(["rm", "-f"].into_iter().chain(ids.stdout.split_whitespace()));
            }
            match self.stop_daemon() {
                0 => {}
                status => complaint = Some(format!("wharfd ended with {status} on SIGTERM")),
            }
        }
        if let Some(disk) = &self.disk {
            disk.discard();
        }
        // Gone before the search, so that only what is wrong is found.
        let keep = panicking && std::env::var_os("WHARF_TEST_KEEP").is_some();
        if !keep {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
        remove_empty_cgroups(&self.name);
        let left = Command::new(project().join("scripts/sweep")).arg(&self.name).output();
        let left =
            left.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if !left.is_empty() {
            complaint = Some(format!("left behind:\n{left}"));
        }
        match complaint {
            Some(complaint) if panicking => eprintln!("{complaint}"),
            Some(complaint) => panic!("{complaint}"),
            None => {}
        }
    }
}

/// The daemon's own cgroup stays when it ends (its containers may live on); only that one is expected.
fn remove_empty_cgroups(name: &str) {
    let Ok(entries) = std::fs::read_dir("/sys/fs/cgroup") else { return };
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(name));
    for entry in entries.flatten() {
        let _ = std::fs::remove_dir(entry.path().join(name));
    }
}

/// A container that is removed, running or not, when the test is done with it.
#[derive(Debug)]
pub struct Container<'a> {
    wharf: &'a Wharf,
    id: String,
}

impl Container<'_> {
    /// Whose it is.
    pub fn wharf(&self) -> &Wharf {
        self.wharf
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `ctl inspect`.
    pub fn inspect(&self) -> Value {
        self.wharf.inspect(&self.id)
    }

    /// `.state` of `ctl inspect`.
    pub fn state(&self) -> String {
        text(&self.inspect(), "state")
    }

    /// The pid of its init on the host.
    pub fn pid(&self) -> u32 {
        number(&self.inspect(), "pid") as u32
    }

    /// Its cgroup's path in every hierarchy.
    pub fn cgroup(&self) -> String {
        text(&self.inspect(), "cgroup")
    }

    /// A file of its cgroup, as [`Wharf::cgroup_file`].
    pub fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> String {
        let path = self.wharf.cgroup_file(&self.cgroup(), controller, v1, v2);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// `ctl exec` with these arguments; it must succeed.
    pub fn exec<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let mut all: Vec<std::ffi::OsString> = vec!["exec".into(), self.id.clone().into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self.wharf.ok(all)
    }

    /// `ctl logs`; standard output only.
    pub fn logs(&self) -> String {
        self.wharf.ok(["logs", &self.id])
    }

    /// `ctl wait`: its exit code.
    pub fn wait(&self) -> i32 {
        self.wharf.ok(["wait", &self.id]).trim().parse().expect("wait prints a number")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.wharf.lock().is_some() {
            let output = self.wharf.output(["rm", "-f", &self.id]);
            // Tests may have removed it themselves.
            if output.status != 0 && !output.stderr.contains(&self.id[..12]) && !std::thread::panicking() {
                panic!("rm -f {}: {}", self.id, output.stderr);
            }
        }
    }
}

/// The value at a key of an object, whatever the key's case.
pub fn field<'a>(value: &'a Value, key: &str) -> &'a Value {
    value
        .as_object()
        .and_then(|fields| fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)))
        .map(|(_, value)| value)
        .unwrap_or_else(|| panic!("no {key:?} in {value:#}"))
}

/// The string at a key of an object.
pub fn text(value: &Value, key: &str) -> String {
    field(value, key).as_str().unwrap_or_else(|| panic!("no string {key:?} in {value:#}")).to_owned()
}

/// The number at a key of an object.
pub fn number(value: &Value, key: &str) -> i64 {
    field(value, key).as_i64().unwrap_or_else(|| panic!("no number {key:?} in {value:#}"))
}

/// The truth value at a key of an object.
pub fn flag(value: &Value, key: &str) -> bool {
    field(value, key).as_bool().unwrap_or_else(|| panic!("no truth value {key:?} in {value:#}"))
}

/// The value of a line `KEY:` in `/proc/PID/status`.
pub fn status_of(pid: u32, key: &str) -> String {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    status_line(&text, key)
}

/// The value of a line `KEY:` in text like `/proc/PID/status`.
pub fn status_line(text: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no line {key}: in\n{text}"))
        .trim()
        .to_owned()
}

/// Read everything from a stream that a thread can take along.
fn drain(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}
