//! The interfaces as a client sees them.

use crate::error::Error;
use crate::types::{
    AttachOptions, EventRecord, ExecOptions, ImageInfo, LoadOptions, LoadedImage, LogOptions, ProcessInfo,
    RemoveOptions, StartOptions, Stats, Streams,
};
use std::collections::HashMap;
use zbus::wire::{Fd, OwnedFd, OwnedObjectPath};
use zbus::{OwnedVariant, proxy};

/// `org.wharf1.Manager` at `/org/wharf1`.
#[proxy(interface = "org.wharf1.Manager", default_service = "org.wharf1", default_path = "/org/wharf1")]
pub trait Manager {
    /// Create a container from a spec document (JSON) and start it. Returns when its process runs, or with
    /// the reason why it does not; then nothing of it is left if the spec says `remove`.
    fn run(&self, spec: &str, options: StartOptions) -> Result<(OwnedObjectPath, Streams), Error>;

    /// Create a container from a spec document (JSON).
    fn create(&self, spec: &str) -> Result<OwnedObjectPath, Error>;

    /// The container with this name, id, or unique prefix of an id.
    fn get_container(&self, name: &str) -> Result<OwnedObjectPath, Error>;

    /// Every container with these of its properties, or with all if none is named.
    fn list_containers(
        &self,
        properties: &[&str],
    ) -> Result<Vec<(OwnedObjectPath, HashMap<String, OwnedVariant>)>, Error>;

    /// Load images from an OCI layout (directory, or tar) or a docker-archive. `source` is a file, a pipe or a
    /// directory. Progress comes as `LoadProgress` signals. Returns what was loaded.
    fn load_image(&self, source: Fd<'_>, options: LoadOptions) -> Result<Vec<LoadedImage>, Error>;

    /// Every image in the store.
    fn list_images(&self) -> Result<Vec<ImageInfo>, Error>;

    /// Config, manifest and more of an image, as JSON.
    fn inspect_image(&self, name: &str) -> Result<String, Error>;

    /// Remove a name, and the image with its last name. Returns what was removed. `force` takes all names.
    fn remove_image(&self, name: &str, force: bool) -> Result<Vec<String>, Error>;

    /// Give an image one more name.
    fn tag_image(&self, name: &str, new_name: &str) -> Result<(), Error>;

    /// The events kept since this sequence number (exclusive), oldest first.
    fn events_since(&self, sequence: u64) -> Result<Vec<EventRecord>, Error>;

    /// Stop every container, those that require others before these. `timeout` as in `Container.Stop`. Returns when
    /// all have ended.
    fn stop_all(&self, timeout: i64) -> Result<(), Error>;

    /// What the daemon runs on: `version`, `cgroupMode`, `kernel`, `stateDirectory`, `cpus`, `memory`, ….
    fn info(&self) -> Result<HashMap<String, String>, Error>;

    /// Something happened; the event's `kind` says what. A kill for want of memory is the kind `oom`.
    #[zbus(signal)]
    fn event(&self, event: EventRecord) -> zbus::Result<()>;

    /// How far a load has come: the source as the caller named it, layer number from 1, layers in all,
    /// bytes read of this layer, its size if known or 0. Layer 0 of 0 is the source that is read through.
    #[zbus(signal)]
    fn load_progress(
        &self,
        source: String,
        layer: u32,
        layers: u32,
        done: u64,
        size: u64,
    ) -> zbus::Result<()>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// How many containers there are.
    #[zbus(property(emits_changed_signal = "false"))]
    fn containers(&self) -> zbus::Result<u32>;
}

/// `org.wharf1.Container` at `/org/wharf1/container/ID`.
#[proxy(interface = "org.wharf1.Container", default_service = "org.wharf1")]
pub trait Container {
    /// Start it. Returns when its process runs.
    fn start(&self, options: StartOptions) -> Result<Streams, Error>;

    /// Stop signal, grace period, then kill. `timeout` in milliseconds, -1 for the spec's own. Returns when it
    /// has ended. No error if it has already.
    fn stop(&self, timeout: i64) -> Result<(), Error>;

    /// Send a signal to the main process.
    fn kill(&self, signal: i32) -> Result<(), Error>;

    /// Stop (as [`stop`](Self::stop)) if it runs, then start.
    fn restart(&self, timeout: i64) -> Result<(), Error>;

    /// Forget the restarts and starts that count for its limits. Does not start it.
    fn reset_failed(&self) -> Result<(), Error>;

    /// Remove it and all that belongs to it. Returns when nothing is left.
    fn remove(&self, options: RemoveOptions) -> Result<(), Error>;

    /// Wait for the end of the current run, or of the last one if it does not run. Returns the exit code as a
    /// shell would show it.
    fn wait(&self) -> Result<i32, Error>;

    /// Freeze every process.
    fn pause(&self) -> Result<(), Error>;

    /// Thaw them.
    fn unpause(&self) -> Result<(), Error>;

    /// Change limits while it runs: a JSON document like `resources` of the spec; absent fields stay.
    fn update(&self, resources: &str) -> Result<(), Error>;

    /// Streams with the output from now on.
    fn attach(&self, options: AttachOptions) -> Result<Streams, Error>;

    /// Set the size of the container's terminal.
    fn resize(&self, rows: u16, columns: u16) -> Result<(), Error>;

    /// Run one more process. Returns the exec's number, the process's pid on the host, and its streams.
    fn exec(&self, options: ExecOptions) -> Result<(u64, u32, Streams), Error>;

    /// Wait for the end of an exec. Returns its exit code.
    fn wait_exec(&self, exec: u64) -> Result<i32, Error>;

    /// Log lines in CRI format, through a pipe.
    fn logs(&self, options: LogOptions) -> Result<OwnedFd, Error>;

    /// Its processes.
    fn processes(&self) -> Result<Vec<ProcessInfo>, Error>;

    /// What its cgroup says now.
    fn stats(&self) -> Result<Stats, Error>;

    /// 64 hexadecimal digits.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;
    /// Unique.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;
    /// The image as it was asked for; empty with a rootfs directory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> zbus::Result<String>;
    /// The id of that image.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image_id(&self) -> zbus::Result<String>;
    /// Program and arguments as they are run.
    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> zbus::Result<Vec<String>>;
    /// The spec document as it is in force, JSON.
    #[zbus(property)]
    fn spec(&self) -> zbus::Result<String>;
    /// From the spec.
    #[zbus(property(emits_changed_signal = "const"))]
    fn labels(&self) -> zbus::Result<HashMap<String, String>>;
    /// `created`, `waiting`, `starting`, `running`, `paused`, `stopping`, `exited`, `failed` or `removing`; `damaged`
    /// if what was saved of it cannot be used, until it is removed.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// What it is meant to be: `up`, `down` or `removed`.
    #[zbus(property)]
    fn goal(&self) -> zbus::Result<String>;
    /// Can it serve? What its readiness probe says; without one, whether it runs.
    #[zbus(property)]
    fn ready(&self) -> zbus::Result<bool>;
    /// What its health check or probes say: `none`, `starting`, `healthy` or `unhealthy`.
    #[zbus(property)]
    fn health(&self) -> zbus::Result<String>;
    /// Its probes, a JSON array of objects: `kind`, `settled` (true, false or null), `last` likewise, `streak` (so
    /// many equal results in a row, up to the threshold), `message` of the last failure.
    #[zbus(property)]
    fn probes(&self) -> zbus::Result<String>;
    /// What it says of itself (sd_notify `STATUS=`).
    #[zbus(property)]
    fn status(&self) -> zbus::Result<String>;
    /// Starts by the restart policy since somebody started it by hand.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;
    /// When it is to be started next, microseconds since 1970; 0 if it is not, or if that depends on others.
    #[zbus(property)]
    fn next_start(&self) -> zbus::Result<u64>;
    /// Why it is in its state, where that is not plain: what it waits for, which probe failed, why it was given up.
    #[zbus(property)]
    fn reason(&self) -> zbus::Result<String>;
    /// The main process on the host, 0 if there is none.
    #[zbus(property)]
    fn pid(&self) -> zbus::Result<u32>;
    /// Of the last run as a shell would show it; -1 if it never ended.
    #[zbus(property)]
    fn exit_code(&self) -> zbus::Result<i32>;
    /// Was a process of the last run killed for want of memory?
    #[zbus(property)]
    fn oom_killed(&self) -> zbus::Result<bool>;
    /// Why the last start failed, or what else went wrong; empty if nothing did.
    #[zbus(property)]
    fn error(&self) -> zbus::Result<String>;
    /// What the user should know: clamped limits, a shared user namespace.
    #[zbus(property)]
    fn warnings(&self) -> zbus::Result<Vec<String>>;
    /// Microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> zbus::Result<u64>;
    /// Microseconds since 1970; 0 if never.
    #[zbus(property)]
    fn started_at(&self) -> zbus::Result<u64>;
    /// Microseconds since 1970; 0 if never.
    #[zbus(property)]
    fn finished_at(&self) -> zbus::Result<u64>;
    /// First id on the host and count of the container's own range; (0, 0) with the host's user namespace.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id_map(&self) -> zbus::Result<(u32, u32)>;
    /// The current or last run's path in every cgroup hierarchy.
    #[zbus(property)]
    fn cgroup(&self) -> zbus::Result<String>;
    /// The directory of its log files.
    #[zbus(property(emits_changed_signal = "const"))]
    fn log_directory(&self) -> zbus::Result<String>;
}
