//! `ctl run --standalone`: a wharfd of one's own, for one container. It has its own directories, cgroups and ids,
//! so it disturbs no other, and nothing of it is left afterwards.

use crate::connection::Client;
use crate::output;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use wharf_bus::names::CONTAINER_INTERFACE;
use wharf_bus::types::RemoveOptions;

/// A cold start on a slow machine takes some seconds; the embedded image is written to the store.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
const CGROUP_ATTEMPTS: u32 = 100;
/// It has nothing left to do but to end its forge.
const END: Duration = Duration::from_secs(10);

/// Ids of standalone instances: below those of the installed daemon (0x7000_0000), above what hands out ids by
/// the ten thousand. One range each, by pid: two that run at once differ unless their pids do by a multiple of 4096.
const FIRST_ID: u32 = 0x6000_0000;
const RANGES: u32 = 4096;
const RANGE: u32 = 65_536;

/// A private wharfd.
#[derive(Debug)]
pub struct Standalone {
    daemon: Child,
    directories: Directories,
    socket: PathBuf,
}

/// What is removed at the end, whatever comes before.
#[derive(Debug)]
struct Directories {
    runtime: PathBuf,
    state: PathBuf,
}

impl Standalone {
    /// Start one.
    pub fn start() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("--standalone needs root, as wharfd does; try `sudo ctl run --standalone …`");
        }
        let program = find()?;
        let directories = Directories::make()?;
        let id = std::process::id();
        let config = directories.runtime.join("wharf.toml");
        let text = format!(
            "cgroup_root = \"/{}\"\n[bus]\nsystem = false\n[metrics]\nsocket = false\n[ids]\nstart = {}\nranges = 1\n",
            name(),
            FIRST_ID + id % RANGES * RANGE
        );
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let log = directories.log();
        let stderr = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let daemon = Command::new(&program)
            .arg("--state-dir")
            .arg(&directories.state)
            .arg("--runtime-dir")
            .arg(&directories.runtime)
            .arg("--config")
            .arg(&config)
            .arg("--end-forge")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Not in the terminal's foreground group: ctrl-c is for the container.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let socket = directories.runtime.join("private");
        Ok(Self { daemon, directories, socket })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Return when it can be talked to.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = self.daemon.try_wait().context("waiting for wharfd")? {
                bail!("the private wharfd could not start ({status}){}", self.last_words());
            }
            if self.socket.exists() && Client::connect(&self.socket).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the private wharfd was not ready within {} s{}", START.as_secs(), self.last_words());
            }
            sleep(LOOK).await;
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.directories.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().map(|line| format!("\n  {line}")).collect()
    }

    /// End it, and the container if it is still there.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        if self.socket.exists()
            && let Err(error) = self.remove_containers().await
        {
            output::say(&format!("ending the private wharfd: {}", crate::failure::message(&error)));
        }
        // None if it has ended, and was waited for, already.
        if let Some(pid) = self.daemon.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Our own child that nobody has waited for yet: the number is still its own.
            kill_process(pid, Signal::TERM).context("ending the private wharfd")?;
        }
        if timeout(END, self.daemon.wait()).await.is_err() {
            output::say(&format!("the private wharfd did not end within {} s and is killed", END.as_secs()));
            self.daemon.kill().await.context("killing the private wharfd")?;
        }
        remove_cgroups(Path::new("/sys/fs/cgroup"));
        Ok(())
    }

    async fn remove_containers(&self) -> anyhow::Result<()> {
        let client = Client::connect(&self.socket).await?;
        for (path, interfaces) in client.objects().await? {
            if !interfaces.contains_key(CONTAINER_INTERFACE) {
                continue;
            }
            match client.container_at(path).await?.remove(RemoveOptions { force: true }).await {
                Ok(()) => {}
                // With --rm it goes by itself.
                Err(error) if crate::failure::is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Directories {
    fn make() -> anyhow::Result<Self> {
        let name = name();
        let runtime = make_in(&["/run".into(), std::env::temp_dir()], &name)?;
        match make_in(&["/var/lib".into(), std::env::temp_dir()], &format!("{name}-state")) {
            Ok(state) => Ok(Self { runtime, state }),
            Err(error) => {
                // Empty, and ours.
                let _ = std::fs::remove_dir(&runtime);
                Err(error)
            }
        }
    }

    fn log(&self) -> PathBuf {
        self.runtime.join("wharfd.log")
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        for directory in [&self.runtime, &self.state] {
            if let Err(error) = std::fs::remove_dir_all(directory) {
                output::say(&format!("{} is left behind: {error}", directory.display()));
            }
        }
    }
}

/// Of its directories and its cgroup.
fn name() -> String {
    format!("wharf-standalone-{}", std::process::id())
}

/// The cgroup that its containers were in, in each hierarchy; empty by now. A kernel that still counts a dead
/// process there needs a moment.
fn remove_cgroups(mounts: &Path) {
    let hierarchies = std::fs::read_dir(mounts).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([mounts.to_owned()]) {
        let cgroup = hierarchy.join(name());
        // Controllers that are mounted together have a second name: a symbolic link, done already.
        if !cgroup.is_dir() {
            continue;
        }
        if let Err(error) = remove_tree(&cgroup) {
            output::say(&format!("the cgroup {} is left behind: {error}", cgroup.display()));
        }
    }
}

/// Files of a cgroup cannot be removed, and need not be.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    let mut left = CGROUP_ATTEMPTS;
    loop {
        match std::fs::remove_dir(cgroup) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && left > 0 => {
                left -= 1;
                std::thread::sleep(LOOK);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

/// A new directory for us alone, in the first of these places that takes it.
fn make_in(places: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    let mut last = None;
    for place in places {
        let path = place.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = Some((path, error)),
        }
    }
    match last {
        Some((path, error)) => Err(error).with_context(|| format!("making {}", path.display())),
        None => bail!("there is no place for a directory"),
    }
}

/// wharfd beside ctl, or in PATH.
fn find() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|ctl| Some(ctl.parent()?.join("wharfd")));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&in_path).map(|directory| directory.join("wharfd")))
        .find(|program| program.is_file())
        .context("there is no wharfd beside ctl or in PATH; install it, or add its directory to PATH")
}
