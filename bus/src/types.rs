//! Options and records as they travel: dictionaries `a{sv}` with fixed keys, so that fields can be added.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use zbus::Type;
use zbus::wire::OwnedFd;
use zbus::wire::as_variant::{self, optional};

/// Descriptors by name: `stdin` (write), `stdout`, `stderr` (read), or `terminal` (both ways).
pub type Streams = HashMap<String, OwnedFd>;

/// How to start, and what to connect before the first instruction runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct StartOptions {
    /// Return streams with the output from its first byte on.
    #[serde(with = "as_variant")]
    pub attach: bool,
    /// With `attach`: also return a stream for the input.
    #[serde(with = "as_variant")]
    pub stdin: bool,
    /// Initial size of the terminal, lines.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Initial size of the terminal, characters per line.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

/// How to attach to a running container.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AttachOptions {
    /// Return a stream for the input.
    #[serde(with = "as_variant")]
    pub stdin: bool,
}

/// How to remove a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    #[serde(with = "as_variant")]
    pub force: bool,
}

/// Which log lines to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LogOptions {
    /// Keep going until the container ends.
    #[serde(with = "as_variant")]
    pub follow: bool,
    /// Only the last so many lines.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only lines at or after this time, microseconds since 1970.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Only lines before this time, microseconds since 1970.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// One more process in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ExecOptions {
    /// Program and arguments.
    #[serde(with = "as_variant")]
    pub command: Vec<String>,
    /// Added to the container's own environment.
    #[serde(with = "as_variant")]
    pub env: HashMap<String, String>,
    /// As the image would write it; the container's user if absent.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute; the container's if absent.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// With a pseudo-terminal: one stream `terminal`, which is the pty's master.
    #[serde(with = "as_variant")]
    pub terminal: bool,
    /// With a stream for the input (without a terminal).
    #[serde(with = "as_variant")]
    pub stdin: bool,
    /// Without any streams: output goes nowhere, the call does not wait.
    #[serde(with = "as_variant")]
    pub detach: bool,
    /// Initial size of the terminal, lines.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Initial size of the terminal, characters per line.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub columns: Option<u16>,
}

/// How to load images from an archive or directory.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LoadOptions {
    /// The name to give to an archive's only image.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What to call the source in messages, such as the file's name.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An image in the store.
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// `sha256:…` of its config: the image's id.
    #[serde(with = "as_variant")]
    pub id: String,
    /// `sha256:…` of its manifest.
    #[serde(with = "as_variant")]
    pub digest: String,
    /// Its names, such as `docker.io/library/busybox:latest`; may be empty.
    #[serde(with = "as_variant")]
    pub names: Vec<String>,
    /// Bytes of its layers, unpacked.
    #[serde(with = "as_variant")]
    pub size: u64,
    /// When it was built, microseconds since 1970; 0 if it does not say.
    #[serde(with = "as_variant")]
    pub created: i64,
    /// `os/architecture[/variant]`.
    #[serde(with = "as_variant")]
    pub platform: String,
}

/// An image that has just been loaded: the dictionary of [`ImageInfo`] with one more key.
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
pub struct LoadedImage {
    /// What is in the store now.
    #[serde(flatten)]
    pub image: ImageInfo,
    /// What of its layers was left out or looks odd, in words for the user; absent if there is nothing to say. Layers
    /// that were in the store before are not looked at again; `InspectImage` has the notes on all of an image's layers.
    #[serde(with = "as_variant", default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A process of a container.
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(rename_all = "camelCase")]
pub struct ProcessInfo {
    /// Pid on the host.
    #[serde(with = "as_variant")]
    pub pid: u32,
    /// Parent's pid on the host.
    #[serde(with = "as_variant")]
    pub parent: u32,
    /// User id on the host.
    #[serde(with = "as_variant")]
    pub uid: u32,
    /// One letter as in ps(1).
    #[serde(with = "as_variant")]
    pub state: String,
    /// User and system time, microseconds.
    #[serde(with = "as_variant")]
    pub cpu_time: u64,
    /// Resident memory, bytes.
    #[serde(with = "as_variant")]
    pub resident: u64,
    /// When it started, microseconds since 1970.
    #[serde(with = "as_variant")]
    pub started: u64,
    /// Its arguments; of a kernel thread or zombie its name in brackets.
    #[serde(with = "as_variant")]
    pub command: Vec<String>,
}

/// What a container's cgroup says; a key that the kernel here does not offer is absent.
/// Times in microseconds, sizes in bytes, PSI in millionths of the last ten seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// CLOCK_BOOTTIME of the reading.
    #[serde(with = "as_variant")]
    pub time: u64,
    /// CPU time used.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_usage: Option<u64>,
    /// … in user mode.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_user: Option<u64>,
    /// … in the kernel.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_system: Option<u64>,
    /// Enforcement periods that have passed.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_periods: Option<u64>,
    /// … in which the group was throttled.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_periods: Option<u64>,
    /// Time spent throttled.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub cpu_throttled: Option<u64>,
    /// Memory used, page cache included.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<u64>,
    /// Memory used less inactive file cache: what the kernel cannot easily take back.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_working_set: Option<u64>,
    /// The limit; absent if unlimited.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// The highest use so far.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<u64>,
    /// Anonymous memory.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_anonymous: Option<u64>,
    /// Page cache.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_file: Option<u64>,
    /// Swap used.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<u64>,
    /// Processes killed for want of memory.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Processes and threads.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Their limit; absent if unlimited.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Read from block devices.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub io_read: Option<u64>,
    /// Written to block devices.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub io_written: Option<u64>,
    /// Some task waited for CPU.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub psi_cpu: Option<u64>,
    /// Some task waited for memory.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub psi_memory: Option<u64>,
    /// Some task waited for I/O.
    #[serde(with = "optional", skip_serializing_if = "Option::is_none")]
    pub psi_io: Option<u64>,
}

/// Something that happened to a container or image.
#[derive(Debug, Clone, Serialize, Deserialize, Type)]
#[zbus(signature = "a{sv}")]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// Counts up by one per event, from 1 at the daemon's start.
    #[serde(with = "as_variant")]
    pub sequence: u64,
    /// Microseconds since 1970.
    #[serde(with = "as_variant")]
    pub time: u64,
    /// `created`, `starting`, `started`, `start-failed`, `paused`, `unpaused`, `pause-failed`, `stopping`, `exited`,
    /// `oom` (the container ran out of memory, and the kernel killed one of its processes), `ready`, `unready`,
    /// `probe-failed`, `probe-succeeded`, `probe-warning`, `unhealthy`, `restarting`, `waiting`, `gave-up`, `status`,
    /// `hook-failed`, `updated`, `removed`, `image-loaded`, `image-removed`; later releases may have more.
    #[serde(with = "as_variant")]
    pub kind: String,
    /// The container's id; empty for an image.
    #[serde(with = "as_variant")]
    pub container: String,
    /// The container's or image's name.
    #[serde(with = "as_variant")]
    pub name: String,
    /// What belongs to this kind, such as `exitCode`, `signal`, `error`.
    #[serde(with = "as_variant")]
    pub details: HashMap<String, String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use zbus::wire::serialized::Context;
    use zbus::wire::{LE, to_bytes};

    fn image() -> ImageInfo {
        ImageInfo {
            id: "sha256:00".into(),
            digest: "sha256:01".into(),
            names: vec!["docker.io/library/busybox:latest".into(), "quay.io/x/y:1".into()],
            size: 4 << 20,
            created: -1,
            platform: "linux/amd64".into(),
        }
    }

    #[test]
    fn notes_of_a_loaded_image_are_one_more_key_that_either_side_may_not_know() {
        let context = Context::new(LE, 0);
        for notes in [vec!["2 device nodes skipped".to_owned()], Vec::new()] {
            let loaded = vec![LoadedImage { image: image(), notes: notes.clone() }];
            let sent = to_bytes(context, &loaded).unwrap();
            let (read, _): (Vec<LoadedImage>, _) = sent.deserialize().unwrap();
            assert_eq!(read[0].notes, notes);
            assert_eq!(format!("{:?}", read[0].image), format!("{:?}", image()));
            // A client of an earlier release.
            let (read, _): (Vec<ImageInfo>, _) = sent.deserialize().unwrap();
            assert_eq!(format!("{read:?}"), format!("{:?}", [image()]));
        }
        // A daemon of an earlier release.
        let sent = to_bytes(context, &vec![image()]).unwrap();
        let (read, _): (Vec<LoadedImage>, _) = sent.deserialize().unwrap();
        assert_eq!(read[0].notes, Vec::<String>::new());
        assert_eq!(read[0].image.size, 4 << 20);
    }
}
