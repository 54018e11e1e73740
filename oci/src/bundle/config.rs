//! What a container's bundle is made from: the wishes of whoever runs it, as plain values. Field names are
//! those of the spec document, so that an [`Invalid`](super::Invalid) names what the user wrote.

use serde_json::Value;
use std::path::PathBuf;
use wharf_protocol::{IdMap, TerminalSize};

/// A container's wishes. [`Config::new`] gives every default; the image's configuration stands beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Replaces the image's ENTRYPOINT and drops its CMD. An empty list, or one empty string, clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's CMD; empty leaves it.
    pub command: Vec<String>,
    /// Added to the image's environment; the last of several with one name wins.
    pub env: Vec<(String, String)>,
    /// Absolute; the image's, or `/`, if absent.
    pub working_directory: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; the image's, or root, if absent.
    pub user: Option<String>,
    /// Further groups, by name or id.
    pub groups: Vec<String>,
    /// The first twelve digits of the id if absent.
    pub hostname: Option<String>,
    /// A pseudo-terminal of this size instead of pipes.
    pub terminal: Option<TerminalSize>,
    /// The program on the host to run as pid 1 in front of the command, as `PROGRAM COMMAND…`.
    pub init: Option<PathBuf>,
    /// Mount the root file system read-only.
    pub read_only: bool,
    /// A name such as `SIGTERM` or `TERM`, or a number; the image's, or SIGTERM, if absent.
    pub stop_signal: Option<String>,
    /// Its network.
    pub network: Network,
    /// Its own range of ids; `None` is the host's user namespace.
    pub id_map: Option<IdMap>,
    /// Directories and files of the host.
    pub volumes: Vec<Volume>,
    /// Directories in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// cgroup limits.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// Resource limits of its processes, on top of the defaults.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Size of /dev/shm in bytes; 64 MiB if absent.
    pub shm_size: Option<u64>,
    /// -1000..=1000.
    pub oom_score_adj: Option<i32>,
    /// Mount its own cgroup, read-only, at /sys/fs/cgroup.
    pub cgroup_mount: bool,
}

impl Config {
    /// All defaults. With a user namespace unless `id_map` is `None`.
    pub fn new(id: impl Into<String>, id_map: Option<IdMap>) -> Self {
        Self {
            id: id.into(),
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            working_directory: None,
            user: None,
            groups: Vec::new(),
            hostname: None,
            terminal: None,
            init: None,
            read_only: false,
            stop_signal: None,
            network: Network::None,
            id_map,
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            ulimits: Vec::new(),
            sysctls: Vec::new(),
            shm_size: None,
            oom_score_adj: None,
            cgroup_mount: false,
        }
    }
}

/// A network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// A new network namespace with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A directory or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Absolute, existing, on the host.
    pub source: String,
    /// Absolute, in the container.
    pub target: String,
    /// `ro`, `rw`, `bind`, `rbind`, `suid`, `nosuid`, `dev`, `nodev`, `exec`, `noexec`.
    pub options: Vec<String>,
}

/// A directory in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute, in the container.
    pub target: String,
    /// Bytes; the kernel's default, half of the memory, if absent.
    pub size: Option<u64>,
    /// Octal digits; `1777` if absent.
    pub mode: Option<String>,
    /// `ro`, `rw`, `exec`, `noexec`, `suid`, `nosuid`, `dev`, `nodev`.
    pub options: Vec<String>,
}

/// cgroup limits in docker's meaning. Absent fields have the defaults of [`super::limits`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// CPUs' worth of time; 0 is unlimited.
    pub cpus: Option<f64>,
    /// Relative weight, 2..=262144.
    pub cpu_shares: Option<u64>,
    /// CPUs it may run on, such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, likewise.
    pub cpuset_mems: Option<String>,
    /// Bytes, at least 6 MiB; -1 is unlimited.
    pub memory: Option<i64>,
    /// Memory and swap together, bytes; -1 is unlimited swap; twice `memory` if absent.
    pub memory_swap: Option<i64>,
    /// Bytes; -1 is none.
    pub memory_reservation: Option<i64>,
    /// Processes and threads; 512 if absent, -1 or 0 is unlimited.
    pub pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10..=1000.
    pub blkio_weight: Option<u16>,
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Security {
    /// Capabilities beyond the default, with or without `CAP_`; `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take away; `ALL`.
    pub cap_drop: Vec<String>,
    /// May programs gain rights through setuid and file capabilities?
    pub new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Further paths to hide.
    pub mask: Vec<String>,
    /// Paths neither to hide nor to make read-only; `ALL`.
    pub unmask: Vec<String>,
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seccomp {
    /// [`crate::seccomp::DEFAULT_PROFILE`].
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(Value),
}

/// A resource limit of every process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// As in setrlimit(2) without `RLIMIT_`, in small letters: `nofile`.
    pub name: String,
    /// -1 is unlimited.
    pub soft: i64,
    /// -1 is unlimited.
    pub hard: i64,
}

/// One more process in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<(String, String)>,
    /// Absolute; the container's if absent.
    pub working_directory: Option<String>,
    /// The container's if absent.
    pub user: Option<String>,
    /// Further groups; the container's, if neither user nor groups are given.
    pub groups: Vec<String>,
    /// Will it have a terminal?
    pub terminal: bool,
}
