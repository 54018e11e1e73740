//! Everything that can be asked of wharfd, as plain calls: the D-Bus objects are a face of this, and another face
//! could stand beside them. A call that wants something waits until it is so, or says why it is not.

use crate::clock;
use crate::definition::{self, Definition};
use crate::driver::{Granted, Wish, With};
use crate::events::Events;
use crate::logs;
use crate::nickname::{Nickname, Nicknames};
use crate::paths::Paths;
use crate::processes;
use crate::runtime::{Runtime, Stdio};
use crate::view::{LookupError, Notice, View, Views};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use wharf_bus::types::{
    AttachOptions, ExecOptions, ImageInfo, LoadOptions, LoadedImage, LogOptions, ProcessInfo, StartOptions,
    Stats, Streams,
};
use wharf_bus::{Error, Spec, spec};
use wharf_oci::bundle::config::ExecConfig;
use wharf_oci::forge::{Executing, ForgeError};
use wharf_oci::image::{
    self, ImageId, LoadError, LoadSource, Progress, Reference, ReferenceError, RemoveError, Store,
};
use wharf_oci::keeper::{Attach, Keeper};
use wharf_oci::{CreateFd, Exec, ExecFd, FailureKind, Stdin, TerminalSize, readiness, seccomp, stats};
use wharf_supervisor as core;
use wharf_supervisor::{Accepted, Command, Id, Run, Signal};

/// Larger documents are nobody's wish: a seccomp profile has some 20 KiB.
const MAX_SPEC: usize = 1 << 20;
/// Exit codes of execs that nobody has asked for yet.
const EXECS_KEPT: usize = 1024;

/// What wharfd can do.
#[derive(Debug)]
pub struct Api {
    /// What the world sees.
    pub views: Arc<Views>,
    /// What happened lately.
    pub events: Arc<Events>,
    /// Where everything is.
    pub paths: Paths,
    runtime: Arc<Runtime>,
    images: Arc<Store>,
    wishes: mpsc::Sender<Wish>,
    nicknames: Nicknames,
    execs: Mutex<Execs>,
    next_exec: AtomicU64,
    /// Readers of logs and waits for execs; they end by themselves, or with wharfd.
    tasks: Mutex<JoinSet<()>>,
}

/// Execs by number; those that ended stay until they are pushed out, so that a late question finds the answer.
#[derive(Debug, Default)]
struct Execs {
    running: HashMap<u64, watch::Receiver<Option<i32>>>,
    order: std::collections::VecDeque<u64>,
}

impl Api {
    /// `wishes` leads to the driver.
    pub fn new(
        views: Arc<Views>,
        events: Arc<Events>,
        runtime: Arc<Runtime>,
        wishes: mpsc::Sender<Wish>,
    ) -> Self {
        Self {
            views,
            events,
            paths: runtime.paths.clone(),
            images: runtime.images.clone(),
            runtime,
            wishes,
            nicknames: Nicknames::default(),
            execs: Mutex::default(),
            // Unique also among sub-cgroups that an earlier wharfd left: in this boot nobody had a later number.
            next_exec: AtomicU64::new(clock::now().0 / 1000),
            tasks: Mutex::default(),
        }
    }

    /// The container that is meant.
    pub fn find(&self, wanted: &str) -> Result<Arc<View>, Error> {
        self.views.find(wanted).map_err(|error| match error {
            LookupError::Unknown => {
                Error::NoSuchContainer(format!("no container is called {wanted:?}; see `ctl ps -a`"))
            }
            LookupError::Ambiguous(names) => {
                Error::Ambiguous(format!("{wanted:?} fits {}; give more of the id", names.join(", ")))
            }
        })
    }

    /// Create a container.
    pub async fn create(&self, spec: &str) -> Result<String, Error> {
        let (id, definition, _nickname) = self.define(spec).await?;
        let (spec, handlers) = definition.plan()?;
        let with = With::Definition(Box::new((definition, handlers)), None);
        self.wish(Command::Create { id, spec }, with).await?;
        Ok(id.to_string())
    }

    /// Create a container and start it.
    pub async fn run(&self, spec: &str, options: StartOptions) -> Result<(String, Streams), Error> {
        let (id, definition, _nickname) = self.define(spec).await?;
        let (stdio, streams) = connect(&definition.spec, &options)?;
        let (spec, handlers) = definition.plan()?;
        let with = With::Definition(Box::new((definition, handlers)), stdio);
        let granted = self.wish(Command::Run { id, spec }, with).await?;
        self.until_started(&id.to_string(), granted).await?;
        Ok((id.to_string(), streams))
    }

    /// The name that was made up, if one was, is kept for it as long as the last part lives.
    async fn define(&self, spec: &str) -> Result<(Id, Definition, Option<Nickname<'_>>), Error> {
        if spec.len() > MAX_SPEC {
            return Err(Error::InvalidSpec(format!("the document has more than {MAX_SPEC} bytes")));
        }
        let mut spec =
            Spec::parse(spec).map_err(|error| Error::InvalidSpec(format!("the spec document: {error}")))?;
        let id = random_id()?;
        let mut nickname = None;
        if spec.name.is_none() {
            spec.name = Some(nickname.insert(self.nicknames.pick(id, &self.views)).name.clone());
        }
        let runtime = self.runtime.clone();
        let now = clock::wall_micros();
        let definition = tokio::task::spawn_blocking(move || {
            Definition::new(id, spec, &runtime.images, &runtime.host, now)
        });
        let definition = definition.await.map_err(failed)??;
        Ok((id, definition, nickname))
    }

    /// Start a container.
    pub async fn start(&self, id: &str, options: StartOptions) -> Result<Streams, Error> {
        let view = self.view(id)?;
        let (stdio, streams) = connect(&view.spec, &options)?;
        let granted = self.wish(Command::Start { id: parse(id)? }, With::Stdio(stdio)).await?;
        if granted.accepted == Accepted::Already && options.attach {
            return Err(Error::Running(format!("container {} runs already; use attach", view.name)));
        }
        self.until_started(id, granted).await?;
        Ok(streams)
    }

    /// Wait until the run that was asked for has a process, or will never have one.
    async fn until_started(&self, id: &str, granted: Granted) -> Result<(), Error> {
        let Some(wanted) = granted.run else { return Ok(()) };
        let Some(mut watch) = self.views.watch(id) else { return Ok(()) };
        let outcome = watch
            .wait_for(|view| {
                let over = matches!(view.state, "created" | "waiting" | "exited" | "failed" | "removing");
                let given_up = view.goal == "down" && over;
                view.run > wanted || view.held || given_up || (view.run == wanted && (view.pid != 0 || over))
            })
            .await
            .map(|view| view.clone());
        // The container may be gone already (`remove`): then the last snapshot tells how it went.
        let view = outcome.unwrap_or_else(|_| watch.borrow().clone());
        let Some(failure) = view.failure.clone().filter(|_| view.run == wanted) else { return Ok(()) };
        if view.spec.remove {
            until_gone(watch).await;
        }
        Err(match failure.kind {
            core::FailureKind::CommandNotFound => Error::CommandNotFound(failure.message),
            core::FailureKind::CommandNotExecutable => Error::CommandNotExecutable(failure.message),
            core::FailureKind::InvalidInput => Error::InvalidSpec(failure.message),
            core::FailureKind::RefusedImage => Error::BadImage(failure.message),
            core::FailureKind::Unsupported => Error::Unsupported(failure.message),
            core::FailureKind::NotSaved | core::FailureKind::Interrupted | core::FailureKind::Failed => {
                Error::Failed(failure.message)
            }
        })
    }

    /// Stop a container; `timeout` in milliseconds, -1 for the definition's.
    pub async fn stop(&self, id: &str, timeout: i64) -> Result<(), Error> {
        let watch = self.watch(id)?;
        self.wish(Command::Stop { id: parse(id)?, grace: grace(timeout)? }, With::Nothing).await?;
        until(watch, has_stopped).await;
        Ok(())
    }

    /// Signal a container's first process.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), Error> {
        let signal = Signal::new(signal).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        self.wish(Command::Kill { id: parse(id)?, signal }, With::Nothing).await.map(drop)
    }

    /// Stop and start a container.
    pub async fn restart(&self, id: &str, timeout: i64) -> Result<(), Error> {
        let command = Command::Restart { id: parse(id)?, grace: grace(timeout)? };
        let granted = self.wish(command, With::Nothing).await?;
        self.until_started(id, granted).await
    }

    /// Remove a container.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), Error> {
        let watch = self.watch(id)?;
        self.wish(Command::Remove { id: parse(id)?, force }, With::Nothing).await?;
        until_gone(watch).await;
        Ok(())
    }

    /// Stop every container, in the order in which they require each other.
    pub async fn stop_all(&self, timeout: i64) -> Result<(), Error> {
        let grace = grace(timeout)?;
        let watches: Vec<_> = self.views.all().iter().filter_map(|view| self.views.watch(&view.id)).collect();
        self.wish(Command::StopAll { grace }, With::Nothing).await?;
        for watch in watches {
            until(watch, has_stopped).await;
        }
        Ok(())
    }

    /// Forget earlier failures of a container.
    pub async fn reset_failed(&self, id: &str) -> Result<(), Error> {
        self.wish(Command::ResetFailed { id: parse(id)? }, With::Nothing).await.map(drop)
    }

    /// Wait for the end of a run that no other one follows by itself; with `remove` also for the end of the container.
    pub async fn wait(&self, id: &str) -> Result<i32, Error> {
        let mut watch = self.watch(id)?;
        let outcome = watch.wait_for(|view| view.is_over()).await.map(|view| view.clone());
        let view = outcome.unwrap_or_else(|_| watch.borrow().clone());
        if view.spec.remove {
            until_gone(watch).await;
        }
        match (&view.exit_code, &view.failure) {
            (Some(code), _) => Ok(*code),
            (None, Some(failure)) => Ok(failure.kind.exit_code()),
            (None, None) if view.state == "created" => {
                Err(Error::NotRunning(format!("container {} was never started", view.name)))
            }
            (None, None) => Err(Error::Failed(format!("nobody saw how container {} ended", view.name))),
        }
    }

    /// Freeze a container.
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        let watch = self.watch(id)?;
        let granted = self.wish(Command::Pause { id: parse(id)? }, With::Nothing).await?;
        if granted.accepted == Accepted::Already {
            return Err(Error::WrongState(format!("container {} is paused already", self.view(id)?.name)));
        }
        let name = watch.borrow().name.clone();
        // Frozen, or the goal was given up because it did not work.
        let view = until(watch, |view| view.state == "paused" || view.goal != "paused").await;
        match view {
            Some(view) if view.state == "paused" => Ok(()),
            _ => Err(Error::Failed(format!("container {name} could not be frozen; see the daemon's log"))),
        }
    }

    /// Thaw a container.
    pub async fn unpause(&self, id: &str) -> Result<(), Error> {
        let watch = self.watch(id)?;
        let granted = self.wish(Command::Unpause { id: parse(id)? }, With::Nothing).await?;
        if granted.accepted == Accepted::Already {
            return Err(Error::WrongState(format!("container {} is not paused", self.view(id)?.name)));
        }
        until(watch, |view| view.state != "paused").await;
        Ok(())
    }

    /// Change limits; `resources` is JSON.
    pub async fn update(&self, id: &str, resources: &str) -> Result<(), Error> {
        let changes: spec::Resources = serde_json::from_str(resources)
            .map_err(|error| Error::InvalidArgument(format!("resources: {error}")))?;
        let view = self.view(id)?;
        let definition = Definition::of(&view);
        let (definition, limits) = definition.with_resources(parse(id)?, changes, &self.runtime.host)?;
        let with = With::Limits(Box::new(definition), limits);
        self.wish(Command::Update { id: parse(id)? }, with).await.map(drop)
    }

    /// Connect with a container's output, and perhaps its input.
    pub async fn attach(&self, id: &str, options: AttachOptions) -> Result<Streams, Error> {
        let view = self.running(id)?;
        let keeper = self.keeper(&view)?;
        let gone = |error| Error::NotRunning(format!("attaching to container {}: {error}", view.name));
        if view.spec.terminal {
            let (ours, theirs) = UnixStream::pair().map_err(failed)?;
            keeper.attach(Attach::Terminal(theirs.as_fd())).await.map_err(gone)?;
            return Ok(streams([("terminal", ours.into())]));
        }
        let (stdout, keep_stdout) = std::io::pipe().map_err(failed)?;
        let (stderr, keep_stderr) = std::io::pipe().map_err(failed)?;
        let attach =
            Attach::Pipes { stdout: keep_stdout.as_fd(), stderr: keep_stderr.as_fd(), stdin: options.stdin };
        let stdin = keeper.attach(attach).await.map_err(gone)?;
        let mut all = streams([("stdout", stdout.into()), ("stderr", stderr.into())]);
        if let Some(stdin) = stdin {
            all.insert("stdin".to_owned(), stdin.into());
        }
        Ok(all)
    }

    /// Set the size of a container's terminal.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let view = self.running(id)?;
        if !view.spec.terminal {
            return Err(Error::WrongState(format!("container {} has no terminal", view.name)));
        }
        let resized = self.keeper(&view)?.resize(rows, columns).await;
        resized.map_err(|error| Error::NotRunning(format!("resizing container {}: {error}", view.name)))
    }

    fn keeper(&self, view: &View) -> Result<Keeper, Error> {
        Keeper::connect(&self.paths.run(parse(&view.id)?, Run(view.run)))
            .map_err(|error| Error::NotRunning(format!("the keeper of container {}: {error}", view.name)))
    }

    /// Run one more process.
    pub async fn exec(&self, id: &str, options: ExecOptions) -> Result<(u64, u32, Streams), Error> {
        let view = self.running(id)?;
        if view.state == "paused" {
            return Err(Error::WrongState(format!("container {} is paused; unpause it first", view.name)));
        }
        let core_id = parse(id)?;
        let not_running = || Error::NotRunning(format!("container {} is not running", view.name));
        let live = self.runtime.live(core_id).ok_or_else(not_running)?;
        let number = self.next_exec.fetch_add(1, Ordering::Relaxed);

        let mut fds = Vec::new();
        let mut streams = Streams::new();
        if !options.terminal && !options.detach {
            let (stdout, theirs) = std::io::pipe().map_err(failed)?;
            fds.push((ExecFd::Stdout, theirs.into()));
            streams.insert("stdout".into(), OwnedFd::from(stdout).into());
            let (stderr, theirs) = std::io::pipe().map_err(failed)?;
            fds.push((ExecFd::Stderr, theirs.into()));
            streams.insert("stderr".into(), OwnedFd::from(stderr).into());
            if options.stdin {
                let (theirs, stdin) = std::io::pipe().map_err(failed)?;
                fds.push((ExecFd::Stdin, theirs.into()));
                streams.insert("stdin".into(), OwnedFd::from(stdin).into());
            }
        }
        let (runtime, shown) = (self.runtime.clone(), view.clone());
        let definition = Definition::of(&view);
        let started = tokio::task::spawn_blocking(move || -> Result<_, Error> {
            let first_id = (shown.id_map.1 > 0).then_some(shown.id_map.0);
            let (bundle, _) =
                definition.bundle(core_id, first_id, None, &runtime.init, &runtime.images, &runtime.host)?;
            let config = ExecConfig {
                command: options.command,
                env: options.env.into_iter().collect(),
                working_directory: options.working_directory,
                user: options.user,
                groups: Vec::new(),
                terminal: options.terminal,
            };
            let size = options.terminal.then(|| TerminalSize {
                rows: options.rows.unwrap_or(24),
                columns: options.columns.unwrap_or(80),
            });
            let process = bundle.process.exec(&config, bundle.id_map).map_err(definition::invalid)?;
            if let Some(filter) = &bundle.filter {
                fds.push((ExecFd::Seccomp, seccomp::as_memfd(filter).map_err(failed)?));
            }
            let request = Exec {
                version: wharf_oci::PROTOCOL_VERSION,
                cgroup: shown.cgroup.clone(),
                name: format!("exec-{number}"),
                args: process.args,
                env: process.env,
                cwd: process.cwd,
                user: process.user,
                groups: process.groups,
                capabilities: process.capabilities,
                no_new_privileges: process.no_new_privileges,
                id_map: bundle.id_map,
                terminal: size,
                rlimits: process.rlimits,
                kill_on_disconnect: false,
                fds: fds.iter().map(|(kind, _)| *kind).collect(),
            };
            let fds: Vec<_> = fds.iter().map(|(_, fd)| fd.as_fd()).collect();
            runtime.forge.exec(request, live.pidfd.as_fd(), &fds).map_err(exec_failure)
        });
        let mut started = started.await.map_err(failed)??;
        if let Some(terminal) = started.terminal.take() {
            streams.insert("terminal".into(), terminal.into());
        }
        let pid = started.pid;
        self.follow_exec(number, started);
        Ok((number, pid, streams))
    }

    /// Keep the exit code of an exec for who asks.
    fn follow_exec(&self, number: u64, started: Executing) {
        let (sender, receiver) = watch::channel(None);
        {
            let mut execs = self.execs.lock();
            execs.running.insert(number, receiver);
            execs.order.push_back(number);
            if execs.order.len() > EXECS_KEPT
                && let Some(oldest) = execs.order.pop_front()
            {
                execs.running.remove(&oldest);
            }
        }
        self.spawn(async move {
            match wait_exec(started).await {
                Ok(wait_status) => drop(sender.send_replace(Some(wharf_oci::exit_code(wait_status)))),
                Err(error) => {
                    tracing::debug!(exec = number, error = %format!("{error:#}"), "an exec ended unseen");
                }
            }
        });
    }

    /// Wait for the end of an exec.
    pub async fn wait_exec(&self, id: &str, exec: u64) -> Result<i32, Error> {
        self.view(id)?;
        let unknown = || Error::InvalidArgument(format!("exec: there is no exec {exec}, or it is long over"));
        let mut watch = {
            let execs = self.execs.lock();
            execs.running.get(&exec).cloned().ok_or_else(unknown)?
        };
        let code = watch.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        code.ok_or_else(|| Error::Failed(format!("nobody saw how exec {exec} ended")))
    }

    /// A pipe with log lines.
    pub fn logs(&self, id: &str, options: LogOptions) -> Result<OwnedFd, Error> {
        let mut watch = self.watch(id)?;
        let dir = self.paths.log(parse(id)?);
        crate::paths::own_directory(&self.paths.container(parse(id)?)).map_err(failed)?;
        crate::paths::own_directory(&dir).map_err(failed)?;
        let (source, sink) = std::io::pipe().map_err(failed)?;
        let alive = |view: &View| view.is_running() || view.state == "starting";
        let (sender, running) = watch::channel(alive(&watch.borrow_and_update()));
        self.spawn(async move {
            let follow = async {
                while watch.changed().await.is_ok() {
                    let now = alive(&watch.borrow_and_update());
                    sender.send_if_modified(|before| std::mem::replace(before, now) != now);
                }
                sender.send_replace(false);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                copied = logs::copy(dir, options, running, sink.into()) => {
                    if let Err(error) = copied {
                        tracing::warn!(error = %format!("{error:#}"), "reading a log");
                    }
                }
                () = follow => {}
            }
        });
        Ok(source.into())
    }

    /// A container's processes.
    pub async fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>, Error> {
        let view = self.running(id)?;
        tokio::task::spawn_blocking(move || processes::of_cgroup(&view.cgroup))
            .await
            .map_err(failed)?
            .map_err(failed)
    }

    /// What a container's cgroup says.
    pub async fn stats(&self, id: &str) -> Result<Stats, Error> {
        let view = self.running(id)?;
        let (id, runtime) = (parse(id)?, self.runtime.clone());
        let read = tokio::task::spawn_blocking(move || runtime.stats(id, Run(view.run)));
        Ok(as_stats(&read.await.map_err(failed)?.map_err(failed)?))
    }

    /// What a container's cgroup says, for one scrape; nothing if it has none. Blocks for some file reads.
    pub fn stats_now(&self, view: &View) -> Option<Stats> {
        let id = view.id.parse().ok()?;
        view.is_running().then(|| self.runtime.stats(id, Run(view.run)).ok())?.as_ref().map(as_stats)
    }

    /// Load images.
    pub async fn load_image(&self, source: OwnedFd, options: LoadOptions) -> Result<Vec<LoadedImage>, Error> {
        let (images, views) = (self.images.clone(), self.views.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let name = options
                .name
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|error: ReferenceError| Error::InvalidArgument(format!("name: {error}")))?;
            let what = options.source.clone().unwrap_or_else(|| "the archive".to_owned());
            let mut progress = |progress: Progress| {
                let (layer, layers, done, size) = match progress {
                    Progress::Reading { bytes } => (0, 0, bytes, 0),
                    Progress::Layer { layer, layers, bytes, total } => (layer, layers, bytes, total),
                    Progress::Known { layer, layers } => (layer, layers, 1, 1),
                    Progress::Storing => return,
                };
                views.announce(Notice::LoadProgress {
                    source: what.clone(),
                    layer: u32::try_from(layer).unwrap_or(u32::MAX),
                    layers: u32::try_from(layers).unwrap_or(u32::MAX),
                    done,
                    size,
                });
            };
            let options = image::LoadOptions { name, source: options.source, cancel: None };
            let source = LoadSource::File(std::fs::File::from(source));
            let loaded = images.load(source, &options, &mut progress);
            loaded.map_err(|error| load_error(&what, error))
        });
        let loaded = loaded.await.map_err(failed)??;
        for image in &loaded {
            let name = image.info.names.first().map(Reference::familiar).unwrap_or_default();
            for note in &image.notes {
                tracing::info!(image = %name, %note, "loaded");
            }
            self.events.add("image-loaded", "", &name, &[("id", image.info.id.to_string())]);
        }
        let answer =
            |loaded: image::Loaded| LoadedImage { image: image_info(&loaded.info), notes: loaded.notes };
        Ok(loaded.into_iter().map(answer).collect())
    }

    /// Every image.
    pub async fn list_images(&self) -> Result<Vec<ImageInfo>, Error> {
        let images = self.images.clone();
        let list = tokio::task::spawn_blocking(move || images.list());
        let list = list.await.map_err(failed)?.map_err(chain)?;
        Ok(list.iter().map(image_info).collect())
    }

    /// An image as JSON.
    pub async fn inspect_image(&self, name: &str) -> Result<String, Error> {
        let (images, name) = (self.images.clone(), name.to_owned());
        let inspected = tokio::task::spawn_blocking(move || images.inspect(&name));
        match inspected.await.map_err(failed)? {
            Ok(document) => Ok(document.to_string()),
            Err(error) => Err(definition::no_such_image(error)),
        }
    }

    /// Remove an image's name, or the image.
    pub async fn remove_image(&self, name: &str, force: bool) -> Result<Vec<String>, Error> {
        let (images, views, name) = (self.images.clone(), self.views.clone(), name.to_owned());
        let removed = tokio::task::spawn_blocking(move || {
            let holder = |image: &ImageId| {
                let image = image.to_string();
                views.all().into_iter().find(|view| view.image_id == image).map(|view| view.name.clone())
            };
            images.remove(&name, force, &holder).map_err(remove_error)
        });
        let removed = removed.await.map_err(failed)??;
        for name in &removed.untagged {
            self.events.add("image-removed", "", name, &[]);
        }
        Ok(removed.untagged.into_iter().chain(removed.deleted.iter().map(ImageId::to_string)).collect())
    }

    /// Give an image one more name.
    pub async fn tag_image(&self, name: &str, new_name: &str) -> Result<(), Error> {
        let (images, name, new_name) = (self.images.clone(), name.to_owned(), new_name.to_owned());
        let tagged = tokio::task::spawn_blocking(move || {
            let reference = new_name
                .parse()
                .map_err(|error: ReferenceError| Error::InvalidArgument(format!("name: {error}")))?;
            images.tag(&name, &reference).map(drop).map_err(definition::no_such_image)
        });
        tagged.await.map_err(failed)?
    }

    /// What we run on.
    pub fn info(&self) -> HashMap<String, String> {
        let system = nix::sys::utsname::uname();
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        let mut info = HashMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("containers".to_owned(), self.views.count().to_string()),
            ("running".to_owned(), self.views.all().iter().filter(|v| v.is_running()).count().to_string()),
            ("cgroupMode".to_owned(), cgroup_mode(&self.runtime.host.cgroups).to_owned()),
            ("cgroupRoot".to_owned(), self.paths.cgroup_root.clone()),
            ("stateDirectory".to_owned(), self.paths.state.display().to_string()),
            ("runtimeDirectory".to_owned(), self.paths.runtime.display().to_string()),
            ("cpus".to_owned(), self.runtime.host.cpus.count().to_string()),
            ("pid".to_owned(), std::process::id().to_string()),
        ]);
        if let Ok(system) = system {
            info.insert("kernel".to_owned(), text(system.release()));
            info.insert("architecture".to_owned(), text(system.machine()));
        }
        if let Ok(memory) = std::fs::read_to_string("/proc/meminfo") {
            let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let kib = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
            info.extend(kib.map(|kib| ("memory".to_owned(), (kib * 1024).to_string())));
        }
        info
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    async fn wish(&self, command: Command, with: With) -> Result<Granted, Error> {
        let (reply, answer) = oneshot::channel();
        let ending = || Error::Failed("wharfd is ending".to_owned());
        self.wishes.send(Wish { command, with, reply }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    fn view(&self, id: &str) -> Result<Arc<View>, Error> {
        self.views.get(id).ok_or_else(|| removed(id))
    }

    fn watch(&self, id: &str) -> Result<watch::Receiver<Arc<View>>, Error> {
        self.views.watch(id).ok_or_else(|| removed(id))
    }

    fn running(&self, id: &str) -> Result<Arc<View>, Error> {
        let view = self.view(id)?;
        if view.is_running() && view.pid != 0 {
            return Ok(view);
        }
        Err(Error::NotRunning(format!(
            "container {} is not running (it is {}); start it first",
            view.name, view.state
        )))
    }
}

fn removed(id: &str) -> Error {
    Error::NoSuchContainer(format!("container {id} has been removed"))
}

/// Wait for a condition, or for the container to be gone. Returns the view that fulfils it.
async fn until(
    mut watch: watch::Receiver<Arc<View>>,
    condition: impl Fn(&View) -> bool,
) -> Option<Arc<View>> {
    watch.wait_for(|view| condition(view)).await.ok().map(|view| view.clone())
}

fn has_stopped(view: &View) -> bool {
    !view.is_running() && view.state != "starting" && view.settled
}

async fn until_gone(mut watch: watch::Receiver<Arc<View>>) {
    while watch.changed().await.is_ok() {}
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("{error:#}"))
}

fn parse(id: &str) -> Result<Id, Error> {
    id.parse().map_err(|error: core::BadId| Error::InvalidArgument(error.to_string()))
}

fn random_id() -> Result<Id, Error> {
    let mut bytes = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").map_err(failed)?;
    random.read_exact(&mut bytes).map_err(failed)?;
    Ok(Id::from_bytes(bytes))
}

/// Milliseconds, -1 for the definition's own.
fn grace(timeout: i64) -> Result<Option<Duration>, Error> {
    match timeout {
        -1 => Ok(None),
        0.. => Ok(Some(Duration::from_millis(timeout.unsigned_abs()))),
        _ => {
            Err(Error::InvalidArgument("timeout: give milliseconds from 0 on, or -1 for the default".into()))
        }
    }
}

fn streams<const N: usize>(all: [(&str, OwnedFd); N]) -> Streams {
    all.into_iter().map(|(name, fd)| (name.to_owned(), fd.into())).collect()
}

/// What a start is connected with: the creator's ends and the caller's.
fn connect(spec: &Spec, options: &StartOptions) -> Result<(Option<Stdio>, Streams), Error> {
    let size = match (options.rows, options.columns) {
        (Some(rows), Some(columns)) => Some(TerminalSize { rows, columns }),
        (_, _) => None,
    };
    let kept = if spec.stdin { Stdin::Kept } else { Stdin::Null };
    if !options.attach {
        return Ok((Some(Stdio { stdin: kept, fds: Vec::new(), size }), Streams::new()));
    }
    if spec.terminal {
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let fds = vec![(CreateFd::AttachTerminal, theirs.into())];
        return Ok((Some(Stdio { stdin: kept, fds, size }), streams([("terminal", ours.into())])));
    }
    let (stdout, keep_stdout) = std::io::pipe().map_err(failed)?;
    let (stderr, keep_stderr) = std::io::pipe().map_err(failed)?;
    let mut all = streams([("stdout", stdout.into()), ("stderr", stderr.into())]);
    let mut fds =
        vec![(CreateFd::AttachStdout, keep_stdout.into()), (CreateFd::AttachStderr, keep_stderr.into())];
    let mut stdin = kept;
    if options.stdin && spec.stdin {
        // The caller alone decides when the input ends, as with a pipe in a shell.
        let (theirs, ours) = std::io::pipe().map_err(failed)?;
        fds.push((CreateFd::Stdin, theirs.into()));
        all.insert("stdin".to_owned(), OwnedFd::from(ours).into());
        stdin = Stdin::Pipe;
    }
    Ok((Some(Stdio { stdin, fds, size }), all))
}

/// Wait without a thread: only when the answer is there is it read.
async fn wait_exec(started: Executing) -> anyhow::Result<i32> {
    let ready = readiness::watch(started.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    ready.readable().await?.retain_ready();
    Ok(tokio::task::spawn_blocking(move || started.wait()).await??)
}

fn exec_failure(error: ForgeError) -> Error {
    match error {
        ForgeError::Failed(failure) => match failure.kind {
            FailureKind::CommandNotFound => Error::CommandNotFound(failure.message),
            FailureKind::CommandNotExecutable => Error::CommandNotExecutable(failure.message),
            FailureKind::InvalidInput => Error::InvalidArgument(failure.message),
            FailureKind::Unsupported => Error::Unsupported(failure.message),
            FailureKind::NotRunning => Error::NotRunning(failure.message),
            FailureKind::RefusedImage | FailureKind::Failed => Error::Failed(failure.message),
        },
        other @ (ForgeError::Unreachable { .. } | ForgeError::Broken(_) | ForgeError::Unexpected) => {
            failed(format!("{:#}", anyhow::Error::from(other)))
        }
    }
}

fn load_error(source: &str, error: LoadError) -> Error {
    let full = matches!(error, LoadError::StorageFull { .. });
    let bad = error.is_bad_image();
    let text = format!("{source}: {:#}", anyhow::Error::from(error));
    match (full, bad) {
        (true, _) => Error::LimitReached(text),
        (false, true) => Error::BadImage(text),
        (false, false) => Error::Failed(text),
    }
}

fn remove_error(error: RemoveError) -> Error {
    match error {
        RemoveError::NotFound(error) => definition::no_such_image(error),
        RemoveError::InUse { .. } | RemoveError::SeveralNames { .. } => Error::ImageInUse(error.to_string()),
        RemoveError::Store(error) => chain(error),
    }
}

/// With all its causes.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Failed(format!("{:#}", anyhow::Error::from(error)))
}

fn image_info(image: &image::ImageInfo) -> ImageInfo {
    ImageInfo {
        id: image.id.to_string(),
        digest: image.digest.to_string(),
        names: image.names.iter().map(Reference::familiar).collect(),
        size: image.size,
        created: image.created_us.unwrap_or(0),
        platform: image.platform.to_string(),
    }
}

fn as_stats(stats: &stats::Stats) -> Stats {
    let micros = |nanoseconds: Option<u64>| nanoseconds.map(|nanoseconds| nanoseconds / 1000);
    // Percent with two digits after the point become millionths.
    let pressure = |pressure: &Option<stats::Pressure>| {
        pressure.as_ref().map(|pressure| (pressure.some.avg10 * 10_000.0) as u64)
    };
    Stats {
        time: clock::now().0 / 1000,
        cpu_usage: micros(stats.cpu.usage_ns),
        cpu_user: micros(stats.cpu.user_ns),
        cpu_system: micros(stats.cpu.system_ns),
        cpu_periods: stats.cpu.periods,
        cpu_throttled_periods: stats.cpu.throttled_periods,
        cpu_throttled: micros(stats.cpu.throttled_ns),
        memory_usage: stats.memory.usage,
        memory_working_set: stats.memory.working_set,
        memory_limit: stats.memory.limit,
        memory_peak: stats.memory.peak,
        memory_anonymous: stats.memory.rss,
        memory_file: stats.memory.cache,
        memory_swap: stats.memory.swap,
        oom_kills: stats.memory.oom_kills,
        pids: stats.pids.current,
        pids_limit: stats.pids.limit,
        io_read: stats.io.read_bytes,
        io_written: stats.io.write_bytes,
        psi_cpu: pressure(&stats.pressure.cpu),
        psi_memory: pressure(&stats.pressure.memory),
        psi_io: pressure(&stats.pressure.io),
    }
}

fn cgroup_mode(mode: &stats::CgroupMode) -> &'static str {
    match mode {
        stats::CgroupMode::Unified { .. } => "v2",
        stats::CgroupMode::Hybrid { .. } => "hybrid",
        stats::CgroupMode::Legacy { .. } => "v1",
    }
}
