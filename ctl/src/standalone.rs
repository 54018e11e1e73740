//! `ctl run --standalone`: a wharfd of one's own, for one container. It has its own directories, cgroups and ids,
//! so it disturbs no other, and nothing of it is left afterwards.

use crate::connection::Client;
use crate::output;
use anyhow::{Context, bail};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A cold start on a slow machine takes some seconds; the embedded image is written to the store.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// It has to remove the container and its own files.
const END: Duration = Duration::from_secs(20);

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
            // It ends with us, however we end: then the kernel closes the other end of its standard input.
            .arg("--ephemeral")
            .stdin(Stdio::piped())
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
        if self.daemon.id().is_none() {
            // It could not start; that has been said.
            return Ok(());
        }
        drop(self.daemon.stdin.take());
        match timeout(END, self.daemon.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => {
                output::say(&format!("the private wharfd has failed ({status}){}", self.last_words()));
            }
            Ok(Err(error)) => return Err(error).context("waiting for wharfd"),
            Err(_) => {
                output::say(&format!(
                    "the private wharfd did not end within {} s and is killed",
                    END.as_secs()
                ));
                self.daemon.kill().await.context("killing the private wharfd")?;
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
            // As a rule wharfd has removed them itself.
            if let Err(error) = std::fs::remove_dir_all(directory)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                output::say(&format!("{} is left behind: {error}", directory.display()));
            }
        }
    }
}

/// Of its directories and its cgroup.
fn name() -> String {
    format!("wharf-standalone-{}", std::process::id())
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
