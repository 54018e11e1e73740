//! The spec document: everything that can be said about a container, as one JSON object.
//!
//! Sizes are bytes, times are seconds unless the name says otherwise. An absent field means the default; an
//! unknown one is refused, so that a typing error cannot pass for a wish. wharfd checks the values; this module
//! only knows their shapes.

mod probe;
mod restart;

pub use probe::{
    Condition, Exec, Grpc, Healthcheck, Hook, HttpGet, HttpHeader, Lifecycle, Notify, Probe, Probes,
    Requirement, Scheme, Sleep, TcpSocket,
};
pub use restart::{
    ExitCodes, ExitRule, Operator, Restart, RestartPolicy, RestartPreset, RuleAction, StartLimit,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Spec {
    /// Unique on this host: letters, digits, `_`, `.` and `-`, not beginning with a sign, at most 128. Made up
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image to run: a name with tag or digest, or an id. Either this or `rootfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A directory on the host to run instead of an image, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Replaces the image's ENTRYPOINT (and drops its CMD).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's CMD.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Added to the image's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute; made if missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`, resolved in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Further groups, by name or id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// At most 64 characters; the first twelve digits of the id if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Free keys and values, shown and filtered on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A pseudo-terminal instead of pipes.
    #[serde(skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// Keep standard input open.
    #[serde(skip_serializing_if = "is_false")]
    pub stdin: bool,
    /// Remove the container when it has ended.
    #[serde(skip_serializing_if = "is_false")]
    pub remove: bool,
    /// Run a small init as pid 1 that reaps orphans and passes signals on.
    #[serde(skip_serializing_if = "is_false")]
    pub init: bool,
    /// Mount the root file system read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// How it is asked to end: a name such as `SIGTERM` or `TERM`, or a number. The image's STOPSIGNAL or SIGTERM
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds from the stop signal to the kill; 10 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<f64>,
    /// When it is started again by itself.
    #[serde(skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// How it is asked whether it works.
    #[serde(skip_serializing_if = "Probes::is_default")]
    pub probes: Probes,
    /// Instead of the image's HEALTHCHECK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What is done at the edges of a run.
    #[serde(skip_serializing_if = "Lifecycle::is_default")]
    pub lifecycle: Lifecycle,
    /// Containers that it needs; they are stopped after it. Their names are looked up when it is to start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Offer it a socket for sd_notify(3), named by `NOTIFY_SOCKET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// Its user namespace.
    pub user_namespace: UserNamespace,
    /// Its network.
    pub network: Network,
    /// Directories and files of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Directories in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// cgroup limits.
    pub resources: Resources,
    /// What it may do.
    pub security: Security,
    /// Resource limits of its processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of its own namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Size of /dev/shm, bytes; 64 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// How readily the kernel's out-of-memory killer picks it: -1000..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Mount its own cgroup, read-only, at /sys/fs/cgroup.
    #[serde(skip_serializing_if = "is_false")]
    pub cgroup_mount: bool,
    /// How its output is kept.
    pub log: Log,
}

/// A user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UserNamespace {
    /// Its own, with a range of 65,536 ids of its own.
    #[default]
    Private,
    /// The host's: root inside is root outside.
    Host,
}

/// A network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// The host's interfaces.
    Host,
}

/// A directory or file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Volume {
    /// Absolute, existing, on the host.
    pub source: String,
    /// Absolute, in the container.
    pub target: String,
    /// `ro`, `rw`, `bind`, `rbind`, `suid`, `nosuid`, `dev`, `nodev`, `exec`, `noexec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A directory in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tmpfs {
    /// Absolute, in the container.
    pub target: String,
    /// Bytes; half of the memory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permissions such as `1777` (octal), the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `ro`, `rw`, `exec`, `noexec`, `suid`, `nosuid`, `dev`, `nodev`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// cgroup limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Resources {
    /// CPUs' worth of time, such as 0.5; at most the host's number, 0 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Relative weight, 2 to 262,144; 1,024 is normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// CPUs it may run on, such as `0-2,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Bytes, at least 6 MiB; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Memory and swap together, bytes; -1 is unlimited swap. Twice `memory` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// Bytes to which it is pushed back when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Processes and threads; 512 if absent, -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight: Option<u16>,
}

/// What a container may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Security {
    /// Capabilities beyond the default, with or without `CAP_`; `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Capabilities to take away; `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// May programs gain rights through setuid and file capabilities?
    #[serde(skip_serializing_if = "is_false")]
    pub new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Further paths to hide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// Paths not to hide or make read-only; `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmask: Vec<String>,
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// The list of moby's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(serde_json::Value),
}

/// A resource limit of every process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ulimit {
    /// As in setrlimit(2) without `RLIMIT_`, small: `nofile`, `core`, `nproc`, ….
    pub name: String,
    /// -1 is unlimited.
    pub soft: i64,
    /// -1 is unlimited.
    pub hard: i64,
}

/// How output is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Log {
    /// A file larger than this, in bytes, is rotated; 10 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Files kept, the current one included; 5 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
}

impl Spec {
    /// Read a document; the error names the field and its place in the text.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The document's JSON Schema, as published in `docs/spec.schema.json`.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_document_is_all_defaults_and_comes_back_the_same() {
        let spec = Spec::parse("{}").expect("an empty object");
        assert_eq!(spec, Spec::default());
        let text = serde_json::to_string(&spec).expect("serialised");
        assert_eq!(Spec::parse(&text).expect("its own output"), spec);
    }

    #[test]
    fn unknown_field_is_named() {
        let error = Spec::parse(r#"{"image":"x","memroy":5}"#).expect_err("a typing error");
        assert!(error.to_string().contains("memroy"), "{error}");
    }
}
