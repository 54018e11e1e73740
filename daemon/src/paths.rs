//! Where everything of one wharfd is.

use anyhow::Context;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use wharf_supervisor::{Id, Run};

/// The directories and cgroups of one wharfd. State survives a reboot, runtime need not.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Definitions, images, root file systems, logs, exit records; 0700.
    pub state: PathBuf,
    /// Sockets and what belongs to single runs; 0700.
    pub runtime: PathBuf,
    /// The cgroup below which every container has its own.
    pub cgroup_root: String,
}

impl Paths {
    /// Make the directories; they and what is in them belong to us alone.
    pub fn prepare(&self) -> anyhow::Result<()> {
        for dir in [&self.state, &self.runtime] {
            own_directory(dir)?;
        }
        for dir in [self.containers(), self.runtime.join("containers")] {
            own_directory(&dir)?;
        }
        Ok(())
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("wharf.db")
    }

    /// Where every container that was ever started has its files.
    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// The private socket.
    pub fn private_socket(&self) -> PathBuf {
        self.runtime.join("private")
    }

    /// The metrics socket.
    pub fn metrics_socket(&self) -> PathBuf {
        self.runtime.join("metrics")
    }

    /// Everything of a container that outlives a run; exit records are directly in it.
    pub fn container(&self, id: Id) -> PathBuf {
        self.containers().join(id.to_string())
    }

    /// Its log files.
    pub fn log(&self, id: Id) -> PathBuf {
        self.container(id).join("log")
    }

    /// What one run needs while it lives.
    pub fn run(&self, id: Id, run: Run) -> PathBuf {
        self.runtime.join("containers").join(format!("{id}.{run}"))
    }

    /// A run's cgroup in every hierarchy. Each run has its own, so that a late kill of one cannot hit the next.
    pub fn cgroup(&self, id: Id, run: Run) -> String {
        format!("{}/{id}.{run}", self.cgroup_root)
    }
}

/// An existing or new directory, 0700, of our own user.
pub fn own_directory(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making {}", path.display()))?;
    let metadata = path.symlink_metadata().with_context(|| format!("looking at {}", path.display()))?;
    if !metadata.is_dir() {
        anyhow::bail!("{} is no directory", path.display());
    }
    let own = nix::unistd::geteuid().as_raw();
    if metadata.uid() != own {
        anyhow::bail!("{} belongs to uid {}, not to us (uid {own})", path.display(), metadata.uid());
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("closing {} to others", path.display()))?;
    }
    Ok(())
}
