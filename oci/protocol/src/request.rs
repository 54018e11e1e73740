//! The requests that a forge carries out, and its answers.
//!
//! The order of descriptors beside a message is part of its meaning and stands at each variant.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What wharfd asks of the forge: one per connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? Answered with [`Reply::Hello`].
    Hello,
    /// Make and start a container. Descriptors: those named by [`Create::fds`], in its order.
    /// Answered with [`Reply::Started`] or [`Reply::Failed`]; the process that answers becomes the keeper.
    Create(Box<Create>),
    /// Run one more process in a container. Descriptors: the container's pidfd, then those named by
    /// [`Exec::fds`]. Answered with [`Reply::ExecStarted`], later [`Reply::ExecExited`] on the same
    /// connection; or with [`Reply::Failed`].
    Exec(Box<Exec>),
    /// Signal the process behind a pidfd. Descriptors: the pidfd. Answered with [`Reply::Done`].
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// Change the limits of a cgroup that [`Create`] made. Answered with [`Reply::Done`].
    Limit {
        /// The cgroup, as in [`Create::cgroup`].
        cgroup: String,
        /// What to change; a `None` field stays as it is.
        limits: Limits,
    },
    /// Freeze or thaw every process of a cgroup. Answered with [`Reply::Done`] once the kernel says so.
    Freeze {
        /// The cgroup, as in [`Create::cgroup`].
        cgroup: String,
        /// Freeze (true) or thaw (false).
        frozen: bool,
    },
    /// Kill every process of a cgroup and of those below it, at once. A frozen one too. Answered with
    /// [`Reply::Done`] when the kernel has taken the order; the processes may take a moment more to die.
    Kill {
        /// The cgroup, as in [`Create::cgroup`]; or one below it.
        cgroup: String,
    },
    /// Kill what is left in a cgroup, wait for it to be empty (bounded), and remove it in every hierarchy,
    /// bottom-up. A cgroup that does not exist is no error. Answered with [`Reply::Done`].
    RemoveCgroup {
        /// The cgroup, as in [`Create::cgroup`]; or one below it.
        cgroup: String,
    },
    /// Make TCP sockets inside a container's network namespace. Descriptors: the container's pidfd. Answered with
    /// [`Reply::Sockets`].
    Sockets {
        /// How many: 1 to [`crate::frame::MAX_FDS`].
        count: u8,
        /// Of which kind.
        family: Family,
    },
}

/// What comes back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// [`crate::VERSION`] of the forge.
        version: u32,
        /// The forge's own pid.
        pid: u32,
    },
    /// The container's process has been executed. Descriptors: its pidfd; with an overlay that is not volatile perhaps
    /// another mount of it, detached, for [`CreateFd::Rootfs`] of the next run.
    Started {
        /// The pid of the container's init in the host's pid namespace.
        pid: u32,
        /// CLOCK_BOOTTIME when it was released, nanoseconds.
        started_boottime_ns: u64,
        /// What had to be clamped or left out, in words for the user.
        warnings: Vec<String>,
    },
    /// The exec's process has been executed. Descriptors: its pidfd; with a terminal also the pty master.
    ExecStarted {
        /// Its pid in the host's pid namespace.
        pid: u32,
    },
    /// The exec's process is gone.
    ExecExited {
        /// As waitpid(2) gives it.
        wait_status: i32,
    },
    /// Fresh TCP sockets, neither bound nor connected, non-blocking. Descriptors: the sockets.
    Sockets,
    /// The order was carried out.
    Done,
    /// It was not, and nothing of it is left.
    Failed(Failure),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which kind, for exit codes and error names.
    pub kind: FailureKind,
    /// One sentence: what went wrong and what to do about it.
    pub message: String,
    /// The last lines that the container library logged, oldest first; for `inspect` and the log.
    pub detail: Vec<String>,
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The command does not exist in the image (exit code 127).
    CommandNotFound,
    /// The command is there but cannot be executed (exit code 126).
    CommandNotExecutable,
    /// The user's input does not fit this image or host (unknown user, mount over /proc, missing source).
    InvalidInput,
    /// The image tries something hostile (a symlink where /proc should be, …).
    RefusedImage,
    /// What the kernel or file system here cannot do (idmapped mounts, cgroup controllers).
    Unsupported,
    /// The container is no longer running.
    NotRunning,
    /// Everything else, also what a later release has a kind of its own for.
    #[serde(other)]
    Failed,
}

/// Make and start a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Create {
    /// [`crate::VERSION`] of the sender.
    pub version: u32,
    /// The container's id: 64 hexadecimal digits.
    pub id: String,
    /// Which start of this container it is, counted from 1; part of the exit record's name.
    pub run: u64,
    /// The OCI runtime spec (config.json). The creator fills in what can only be known with the root file
    /// system mounted: `root.path`, `process.user`, HOME, and the sources of bind mounts, each of which it brings
    /// to a place that the container's mapped root can reach (the original may lie below a 0700 directory).
    pub spec: String,
    /// The user as the image or the caller wrote it (`name`, `uid`, `name:group`, `uid:gid`; empty is root),
    /// resolved by the creator with the rootfs' own /etc/passwd and /etc/group.
    pub user: String,
    /// Further group names or ids.
    pub groups: Vec<String>,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// The container's own range of ids, or none with `--userns=host`.
    pub id_map: Option<IdMap>,
    /// Indices into `spec.mounts`: bind mounts whose source is to be idmapped like the rootfs.
    pub idmapped_mounts: Vec<usize>,
    /// Make the working directory if it is missing (as Docker does for WORKDIR and `-w`).
    pub make_cwd: bool,
    /// A directory of our own for this run on the host, 0700, existing: sockets and mount points.
    pub run_dir: PathBuf,
    /// An existing directory, 0700, into which the keeper writes `exit.<run>`.
    pub record_dir: PathBuf,
    /// Where the output goes.
    pub log: Log,
    /// A pseudo-terminal instead of pipes.
    pub terminal: Option<TerminalSize>,
    /// What happens with the container's standard input.
    pub stdin: Stdin,
    /// The cgroup's absolute path in every hierarchy, such as `/wharf/0123…`; made by the forge.
    pub cgroup: String,
    /// Limits, set before anything runs in the cgroup.
    pub limits: Limits,
    /// oom_score_adj for the container; clamped (with a warning) to what the forge may set.
    pub oom_score_adj: Option<i32>,
    /// Which descriptors come along, in order.
    pub fds: Vec<CreateFd>,
}

/// A descriptor beside [`Request::Create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateFd {
    /// A seccomp filter to load just before execve: an array of `struct sock_filter` in a file. May come more
    /// than once; loaded in order.
    Seccomp,
    /// The read end of a pipe for the container's standard input (only with [`Stdin::Pipe`]).
    Stdin,
    /// The write end of a pipe to which the keeper copies standard output from the first byte on.
    AttachStdout,
    /// Likewise for standard error.
    AttachStderr,
    /// With a terminal: one end of a stream socket pair that the keeper connects with the pty, both ways.
    AttachTerminal,
    /// The overlay as the last run had it (see [`Reply::Started`]), to be used instead of mounting one from the same
    /// [`Rootfs::Overlay`]. It is used up also if the start fails.
    Rootfs,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay of image layers.
    Overlay {
        /// Read-only directories, topmost first; at least one.
        lower: Vec<PathBuf>,
        /// The container's own changes; made by the forge if missing, owned by the mapped root.
        upper: PathBuf,
        /// overlayfs' work directory, on the same file system.
        work: PathBuf,
        /// What is written will not be needed when the container has ended, so nothing brings it to the disk:
        /// fsync(2) in the container does nothing, and its end does not wait for the file system.
        #[serde(default)]
        volatile: bool,
    },
    /// A plain directory (`ctl run --rootfs DIR`), used in place, idmapped where ids are mapped.
    Directory {
        /// Its path.
        path: PathBuf,
    },
}

/// A contiguous range of ids: 0..size inside is `host`..`host + size` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Where a container's output goes: CRI-format lines, rotated by the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// An existing directory, 0700. The current file is `log`, older ones `log.1` (youngest) … `log.N`.
    pub dir: PathBuf,
    /// A file larger than this, in bytes, is rotated.
    pub max_size: u64,
    /// How many files are kept, the current one included. At least 1.
    pub max_files: u32,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// What happens with standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// /dev/null. With a terminal: the terminal, which nobody types into until someone attaches.
    Null,
    /// The pipe in [`CreateFd::Stdin`]; whoever holds its write end decides when it ends.
    Pipe,
    /// A pipe whose write end the keeper keeps for those who attach later (`-d -i`).
    Kept,
}

/// Which internet protocol a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// AF_INET.
    Ipv4,
    /// AF_INET6.
    Ipv6,
}

/// cgroup limits in docker's meaning; `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time per period, microseconds; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// The period, microseconds.
    pub cpu_period_us: Option<u64>,
    /// Relative weight, 2..=262144, 1024 is normal (on cgroup v2 converted to cpu.weight).
    pub cpu_shares: Option<u64>,
    /// CPUs as a list such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, likewise.
    pub cpuset_mems: Option<String>,
    /// Bytes; -1 is unlimited.
    pub memory_max: Option<i64>,
    /// Memory plus swap, bytes, as docker's --memory-swap; -1 is unlimited.
    pub memory_swap_max: Option<i64>,
    /// Soft limit, bytes.
    pub memory_reservation: Option<i64>,
    /// Processes; -1 is unlimited.
    pub pids_max: Option<i64>,
    /// Relative weight of block I/O, 10..=1000.
    pub blkio_weight: Option<u16>,
}

/// Run one more process in a container: with its namespaces, ids, cgroup and filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// [`crate::VERSION`] of the sender.
    pub version: u32,
    /// The container's cgroup, as in [`Create::cgroup`].
    pub cgroup: String,
    /// The name of the sub-cgroup for this exec, unique in the container, such as `exec-7`; it can be killed
    /// as a whole, and is removed when the process has ended.
    pub name: String,
    /// Program and arguments; a program without `/` is searched in PATH of `env`, inside the container.
    pub args: Vec<String>,
    /// `KEY=value`, complete but for HOME, which is resolved like the user if it is missing.
    pub env: Vec<String>,
    /// Absolute, inside the container.
    pub cwd: String,
    /// As in [`Create::user`].
    pub user: String,
    /// As in [`Create::groups`].
    pub groups: Vec<String>,
    /// Names such as `CAP_CHOWN`: bounding, effective and permitted. Inheritable and ambient stay empty.
    pub capabilities: Vec<String>,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// Does the container have ids of its own (then its user namespace is joined)?
    pub id_map: Option<IdMap>,
    /// A pseudo-terminal from the container's own devpts; its master comes back with [`Reply::ExecStarted`].
    pub terminal: Option<TerminalSize>,
    /// Resource limits as in the runtime spec: (name such as `RLIMIT_NOFILE`, soft, hard).
    pub rlimits: Vec<(String, u64, u64)>,
    /// Kill the process and all it started when the asker closes the connection (probes).
    pub kill_on_disconnect: bool,
    /// Which descriptors come along after the pidfd, in order.
    pub fds: Vec<ExecFd>,
}

/// A descriptor beside [`Request::Exec`]. Standard streams that are not given are /dev/null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecFd {
    /// As [`CreateFd::Seccomp`].
    Seccomp,
    /// Becomes descriptor 0.
    Stdin,
    /// Becomes descriptor 1.
    Stdout,
    /// Becomes descriptor 2.
    Stderr,
}
