//! `org.wharf1.Container`.

use crate::api::Api;
use crate::bus::authorise;
use crate::view::View;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use wharf_bus::types::{
    AttachOptions, ExecOptions, LogOptions, ProcessInfo, RemoveOptions, StartOptions, Stats, Streams,
};
use wharf_bus::{Error, names};
use zbus::message::Header;
use zbus::wire::{OwnedFd, OwnedObjectPath, Variant};
use zbus::{Connection, interface};

/// The object at `/org/wharf1/container/ID`.
#[derive(Debug)]
pub struct ContainerObject {
    api: Arc<Api>,
    id: String,
    /// Keeps the last snapshot beyond the removal: a property that cannot be read would fail whatever else is
    /// read with it, such as a listing of all objects.
    views: watch::Receiver<Arc<View>>,
}

impl ContainerObject {
    /// The face of one container, if there is one with this id.
    pub fn new(api: &Arc<Api>, id: &str) -> Option<Self> {
        Some(Self { api: api.clone(), id: id.to_owned(), views: api.views.watch(id)? })
    }

    /// Those of all containers, and where they are.
    pub fn all(api: &Arc<Api>) -> impl Iterator<Item = (OwnedObjectPath, Self)> {
        let views = api.views.all().into_iter();
        views.filter_map(|view| Some((names::container_path(&view.id), Self::new(api, &view.id)?)))
    }

    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }
}

#[interface(name = "org.wharf1.Container")]
impl ContainerObject {
    /// Start it. Returns when its process runs.
    #[zbus(out_args("streams"))]
    async fn start(
        &self,
        options: StartOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Streams, Error> {
        authorise(connection, &header).await?;
        self.api.start(&self.id, options).await
    }

    /// Stop signal, grace period (milliseconds, -1 for the spec's own), then kill. Returns when it has ended.
    async fn stop(
        &self,
        timeout: i64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.stop(&self.id, timeout).await
    }

    /// Send a signal to the main process.
    async fn kill(
        &self,
        signal: i32,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.kill(&self.id, signal).await
    }

    /// Stop if it runs, then start.
    async fn restart(
        &self,
        timeout: i64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.restart(&self.id, timeout).await
    }

    /// Forget earlier failures: one that was given up is merely ended, and back-off begins anew.
    async fn reset_failed(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.reset_failed(&self.id).await
    }

    /// Remove it and all that belongs to it. Returns when nothing is left.
    async fn remove(
        &self,
        options: RemoveOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.remove(&self.id, options.force).await
    }

    /// Wait for the end of the current or last run.
    #[zbus(out_args("exit_code"))]
    async fn wait(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<i32, Error> {
        authorise(connection, &header).await?;
        self.api.wait(&self.id).await
    }

    /// Freeze every process.
    async fn pause(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.pause(&self.id).await
    }

    /// Thaw them.
    async fn unpause(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.unpause(&self.id).await
    }

    /// Change limits while it runs: a JSON document like `resources` of the spec.
    async fn update(
        &self,
        resources: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.update(&self.id, resources).await
    }

    /// Streams with the output from now on.
    #[zbus(out_args("streams"))]
    async fn attach(
        &self,
        options: AttachOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Streams, Error> {
        authorise(connection, &header).await?;
        self.api.attach(&self.id, options).await
    }

    /// Set the size of the container's terminal.
    async fn resize(
        &self,
        rows: u16,
        columns: u16,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.resize(&self.id, rows, columns).await
    }

    /// Run one more process.
    #[zbus(out_args("exec", "pid", "streams"))]
    async fn exec(
        &self,
        options: ExecOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(u64, u32, Streams), Error> {
        authorise(connection, &header).await?;
        self.api.exec(&self.id, options).await
    }

    /// Wait for the end of an exec.
    #[zbus(out_args("exit_code"))]
    async fn wait_exec(
        &self,
        exec: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<i32, Error> {
        authorise(connection, &header).await?;
        self.api.wait_exec(&self.id, exec).await
    }

    /// Log lines in CRI format, through a pipe.
    #[zbus(out_args("lines"))]
    async fn logs(
        &self,
        options: LogOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedFd, Error> {
        authorise(connection, &header).await?;
        self.api.logs(&self.id, options).map(OwnedFd::from)
    }

    /// Its processes.
    #[zbus(out_args("processes"))]
    async fn processes(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<ProcessInfo>, Error> {
        authorise(connection, &header).await?;
        self.api.processes(&self.id).await
    }

    /// What its cgroup says now.
    #[zbus(out_args("stats"))]
    async fn stats(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Stats, Error> {
        authorise(connection, &header).await?;
        self.api.stats(&self.id).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.view().name.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> String {
        self.view().image.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn image_id(&self) -> String {
        self.view().image_id.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> Vec<String> {
        self.view().command.clone()
    }

    #[zbus(property)]
    fn spec(&self) -> String {
        spec(&self.view())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn labels(&self) -> HashMap<String, String> {
        self.view().spec.labels.clone().into_iter().collect()
    }

    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.view().state
    }

    #[zbus(property)]
    fn goal(&self) -> &'static str {
        self.view().goal
    }

    #[zbus(property)]
    fn ready(&self) -> bool {
        self.view().ready
    }

    #[zbus(property)]
    fn health(&self) -> &'static str {
        self.view().health
    }

    #[zbus(property)]
    fn probes(&self) -> String {
        self.view().probes.clone()
    }

    #[zbus(property)]
    fn status(&self) -> String {
        self.view().status.clone()
    }

    #[zbus(property)]
    fn next_start(&self) -> u64 {
        self.view().next_start
    }

    #[zbus(property)]
    fn reason(&self) -> String {
        self.view().reason.clone()
    }

    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.view().restarts
    }

    #[zbus(property)]
    fn pid(&self) -> u32 {
        self.view().pid
    }

    #[zbus(property)]
    fn exit_code(&self) -> i32 {
        exit_code(&self.view())
    }

    #[zbus(property)]
    fn oom_killed(&self) -> bool {
        self.view().oom_killed
    }

    #[zbus(property)]
    fn error(&self) -> String {
        error(&self.view())
    }

    #[zbus(property)]
    fn warnings(&self) -> Vec<String> {
        self.view().warnings.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.view().created_at
    }

    #[zbus(property)]
    fn started_at(&self) -> u64 {
        self.view().started_at
    }

    #[zbus(property)]
    fn finished_at(&self) -> u64 {
        self.view().finished_at
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id_map(&self) -> (u32, u32) {
        self.view().id_map
    }

    #[zbus(property)]
    fn cgroup(&self) -> String {
        self.view().cgroup.clone()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn log_directory(&self) -> String {
        self.view().log_directory.clone()
    }
}

#[expect(clippy::expect_used, reason = "impossible, as the text says")]
fn spec(view: &View) -> String {
    serde_json::to_string(&*view.spec).expect("a spec has string keys only")
}

fn exit_code(view: &View) -> i32 {
    view.exit_code.unwrap_or(-1)
}

fn error(view: &View) -> String {
    match &view.failure {
        Some(failure) => failure.message.clone(),
        // Given up after runs that did start.
        None if view.state == "failed" => view.reason.clone(),
        None => String::new(),
    }
}

/// The properties that differ between two snapshots, by name. Those that never change are left out.
pub fn changed(old: &View, new: &View) -> HashMap<&'static str, Variant<'static>> {
    let mut changed = HashMap::new();
    fn compare<T: PartialEq + Into<Variant<'static>>>(
        changed: &mut HashMap<&'static str, Variant<'static>>,
        name: &'static str,
        (old, new): (T, T),
    ) {
        if old != new {
            changed.insert(name, new.into());
        }
    }
    if old.spec != new.spec {
        changed.insert("Spec", spec(new).into());
    }
    if old.warnings != new.warnings {
        changed.insert("Warnings", new.warnings.clone().into());
    }
    compare(&mut changed, "State", (old.state, new.state));
    compare(&mut changed, "Goal", (old.goal, new.goal));
    compare(&mut changed, "Ready", (old.ready, new.ready));
    compare(&mut changed, "Health", (old.health, new.health));
    compare(&mut changed, "NextStart", (old.next_start, new.next_start));
    for (name, old, new) in [
        ("Probes", &old.probes, &new.probes),
        ("Status", &old.status, &new.status),
        ("Reason", &old.reason, &new.reason),
    ] {
        if old != new {
            changed.insert(name, new.clone().into());
        }
    }
    compare(&mut changed, "Restarts", (old.restarts, new.restarts));
    compare(&mut changed, "Pid", (old.pid, new.pid));
    compare(&mut changed, "ExitCode", (exit_code(old), exit_code(new)));
    compare(&mut changed, "OomKilled", (old.oom_killed, new.oom_killed));
    compare(&mut changed, "Error", (error(old), error(new)));
    if old.cgroup != new.cgroup {
        changed.insert("Cgroup", new.cgroup.clone().into());
    }
    compare(&mut changed, "StartedAt", (old.started_at, new.started_at));
    compare(&mut changed, "FinishedAt", (old.finished_at, new.finished_at));
    changed
}
