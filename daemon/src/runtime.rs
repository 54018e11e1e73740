//! Carries out what the supervisor decided: each effect is a task of its own that ends in a fact. What must not
//! wait for anything (a kill while a start is under way) therefore does not.
//!
//! ```text
//! Start ─► directories ─► bundle ─► forge: create ─► Started ─► watch the keeper ─► Exited
//! Kill, Signal, Freeze, Thaw, Limit, Cleanup ─► forge ─► fact
//! ```

use crate::clock;
use crate::definition::Definition;
use crate::notify::{self, Notify};
use crate::paths::{Paths, own_directory};
use crate::probe::{self, Confinement, Handler, Means, Outcome};
use crate::substitute;
use anyhow::Context;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wharf_oci::bundle::{Host, Placement};
use wharf_oci::forge::{Forge, ForgeError, Started};
use wharf_oci::image::Store;
use wharf_oci::keeper::{Ended, Keeper, Spare};
use wharf_oci::{CreateFd, ExitRecord, FailureKind, Limits, Log, Rootfs, Stdin, TerminalSize, WaitStatus};
use wharf_oci::{readiness, stats};
use wharf_supervisor as core;
use wharf_supervisor::{Exit, ExitStatus, Fact, Failure, Id, Observed, Run, Stamp, Time};

/// Containers whose cgroup files are kept open; with some twenty descriptors each this stays far below the usual hard
/// limit of half a million, and within the smallest one that we have met (20,000).
const READERS: usize = 512;
/// Docker's defaults are without any bound, which fills disks; these are podman's and kubelet's order of size.
const LOG_MAX_SIZE: u64 = 10 << 20;
const LOG_MAX_FILES: u32 = 5;
/// Most runs that are over by then had nothing to lose, and should not pay for it.
const SETTLED: Duration = Duration::from_millis(200);
/// After the end of a container without a keeper, for what is left of its output.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How long a keeper whose container has gone may take to write the record (it waits for slow readers of the
/// output) before the kernel's own word is taken.
const RECORD_PATIENCE: Duration = Duration::from_secs(30);

/// What to connect with a run before its first instruction.
#[derive(Debug)]
pub struct Stdio {
    /// Where standard input comes from.
    pub stdin: Stdin,
    /// Descriptors for the creator.
    pub fds: Vec<(CreateFd, OwnedFd)>,
    /// The terminal's size, if there is one.
    pub size: Option<TerminalSize>,
}

/// A run that lives, as far as the shell is concerned.
#[derive(Debug, Clone)]
pub struct Live {
    /// Which.
    pub run: Run,
    /// Its first process.
    pub pidfd: Arc<OwnedFd>,
    /// What could not be done as asked.
    pub warnings: Vec<String>,
}

/// The means to act.
#[derive(Debug)]
pub struct Runtime {
    /// Where everything is.
    pub paths: Paths,
    /// Facts about this host.
    pub host: Host,
    /// The images.
    pub images: Arc<Store>,
    /// The privileged hands.
    pub forge: Forge,
    /// The program for `init`.
    pub init: PathBuf,
    facts: mpsc::Sender<Fact>,
    live: Mutex<HashMap<Id, Live>>,
    /// The overlays of those that have run, mounted once more: their ends need not wait for the file system, and the
    /// next run need not mount it.
    rootfs: Mutex<HashMap<Id, OwnedFd>>,
    /// The last thing that was said about each run, for a kill that came too late.
    last_words: Mutex<HashMap<Id, (Run, Fact)>>,
    /// Open files of the cgroups that somebody asked about.
    readers: Mutex<HashMap<Id, (Run, stats::Reader)>>,
    /// What it takes to probe the runs that are probed; true for those at home in the image's working directory.
    means: Mutex<MeansByHome>,
}

type MeansByHome = HashMap<(Id, bool), (Run, Arc<Means>)>;

/// A probe or hook to be carried out.
#[derive(Debug)]
pub struct Asked {
    /// Of whom.
    pub id: Id,
    /// Which.
    pub run: Run,
    /// What it is.
    pub definition: Arc<Definition>,
    /// The first of its own ids.
    pub first_id: Option<u32>,
    /// Is any of its probes or hooks a program in the container?
    pub run_programs: bool,
    /// How to ask.
    pub handler: Handler,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a start needs beside the definition.
#[derive(Debug)]
pub struct Start {
    /// Of whom.
    pub id: Id,
    /// Which.
    pub run: Run,
    /// What it is.
    pub definition: Arc<Definition>,
    /// The first of its own ids.
    pub first_id: Option<u32>,
    /// What to connect.
    pub stdio: Option<Stdio>,
}

impl Runtime {
    /// `facts` is where the outcomes go.
    pub fn new(
        paths: Paths,
        host: Host,
        images: Arc<Store>,
        forge: Forge,
        init: PathBuf,
        facts: mpsc::Sender<Fact>,
    ) -> Self {
        Self {
            paths,
            host,
            images,
            forge,
            init,
            facts,
            live: Mutex::default(),
            last_words: Mutex::default(),
            rootfs: Mutex::default(),
            readers: Mutex::default(),
            means: Mutex::default(),
        }
    }

    /// The living run of a container.
    pub fn live(&self, id: Id) -> Option<Live> {
        self.live.lock().get(&id).cloned()
    }

    /// What the cgroup of a living run says. Its files stay open for the next time.
    pub fn stats(&self, id: Id, run: Run) -> io::Result<stats::Stats> {
        let kept = self.readers.lock().remove(&id);
        let mut reader = match kept {
            Some((of, reader)) if of == run => reader,
            Some(_) | None => stats::Reader::open(&self.paths.cgroup(id, run))?,
        };
        let stats = reader.read()?;
        let mut readers = self.readers.lock();
        // Looked at under the lock: `watch` first forgets the run and then its reader.
        if readers.len() < READERS && self.live(id).is_some_and(|live| live.run == run) {
            readers.insert(id, (run, reader));
        }
        Ok(stats)
    }

    /// Carry out a probe or hook; nothing comes of it once the run is over.
    pub async fn ask(self: &Arc<Self>, asked: Asked, at_home: bool) -> Option<Outcome> {
        let means = match self.means(&asked, at_home).await? {
            Ok(means) => means,
            Err(error) => return Some(Outcome::Unknown(error)),
        };
        let begin = Instant::now();
        let outcome = probe::carry_out(&means, &asked.handler, asked.timeout).await;
        tracing::trace!(container = ?asked.id, micros = begin.elapsed().as_micros(), "asked");
        // What it found then may be the end of the run.
        self.live(asked.id).filter(|live| live.run == asked.run).map(|_| outcome)
    }

    async fn means(self: &Arc<Self>, asked: &Asked, at_home: bool) -> Option<Result<Arc<Means>, String>> {
        let (id, run) = (asked.id, asked.run);
        if let Some((of, means)) = self.means.lock().get(&(id, at_home))
            && *of == run
        {
            return Some(Ok(means.clone()));
        }
        let live = self.live(id).filter(|live| live.run == run)?;
        let mut means = match asked.definition.spec.network {
            wharf_bus::spec::Network::Host => Means::in_host_network(),
            wharf_bus::spec::Network::None => Means::new(self.forge.clone(), live.pidfd.clone()),
        };
        if asked.run_programs {
            let (runtime, definition, first_id) = (self.clone(), asked.definition.clone(), asked.first_id);
            let bundle = tokio::task::spawn_blocking(move || {
                let (init, images, host) = (&runtime.init, &runtime.images, &runtime.host);
                definition.bundle(id, first_id, None, init, images, host)
            });
            let bundle = match bundle.await {
                Ok(Ok((bundle, _))) => bundle,
                Ok(Err(error)) => return Some(Err(message(&error))),
                Err(error) => return Some(Err(error.to_string())),
            };
            let cgroup = self.paths.cgroup(id, run);
            let confinement = Confinement::new(self.forge.clone(), live.pidfd, &bundle, cgroup);
            means = means.with_exec(match at_home {
                true => confinement.in_directory(bundle.process.cwd.clone()),
                false => confinement,
            });
        }
        let means = Arc::new(means);
        let mut all = self.means.lock();
        // Looked at under the lock: `watch` first forgets the run and then its means.
        if self.live(id).is_some_and(|live| live.run == run) {
            all.insert((id, at_home), (run, means.clone()));
        }
        Some(Ok(means))
    }

    /// Say what happened.
    pub async fn tell(&self, fact: Fact) {
        if let (Fact::Exited { id, run, .. } | Fact::StartFailed { id, run, .. }, fact) = (&fact, &fact) {
            let mut last = self.last_words.lock();
            last.insert(*id, (*run, fact.clone()));
        }
        // The driver lives as long as the process.
        let _ = self.facts.send(fact).await;
    }

    /// Make and start a run, and stay with it to its end.
    pub async fn start(self: Arc<Self>, start: Start) {
        let (id, run) = (start.id, start.run);
        match self.clone().create(start).await {
            Ok(Made { started, keeper, notify }) => {
                for warning in &started.warnings {
                    tracing::warn!(container = ?id, %warning, "started with less than was asked for");
                }
                let at = clock::stamp_of(Time(started.started_boottime_ns));
                let pidfd = Arc::new(started.pidfd);
                self.enter(id, run, pidfd.clone(), started.warnings);
                self.tell(Fact::Started { id, run, pid: started.pid, at }).await;
                self.watch(id, run, keeper, pidfd, notify, 0).await;
            }
            Err(failure) => {
                tracing::info!(container = ?id, %run, error = %failure.message, "the start failed");
                self.tell(Fact::StartFailed { id, run, failure }).await;
            }
        }
    }

    async fn create(self: Arc<Self>, start: Start) -> Result<Made, Failure> {
        let runtime = self.clone();
        let created = tokio::task::spawn_blocking(move || {
            let run_dir = runtime.paths.run(start.id, start.run);
            let made = runtime.create_blocking(&start, &run_dir);
            made.map(|(started, notify)| (started, notify, run_dir))
        });
        let (started, notify, run_dir) = created.await.map_err(|error| failed(error.to_string()))??;
        let keeper = Keeper::connect(&run_dir).with_context(|| format!("keeper in {}", run_dir.display()));
        Ok(Made { started, keeper, notify })
    }

    fn create_blocking(&self, start: &Start, run_dir: &Path) -> Result<(Started, Option<Notify>), Failure> {
        let Start { id, run, definition, first_id, stdio } = start;
        let (id, run) = (*id, *run);
        let begin = Instant::now();
        let container = self.paths.container(id);
        let log = self.paths.log(id);
        (|| {
            own_directory(&container)?;
            own_directory(&log)?;
            own_directory(run_dir)
        })()
        .map_err(|error: anyhow::Error| failed(format!("{error:#}")))?;

        let size = stdio.as_ref().and_then(|stdio| stdio.size);
        let (mut bundle, image) = definition
            .bundle(id, *first_id, size, &self.init, &self.images, &self.host)
            .map_err(|error| Failure {
                kind: core::FailureKind::InvalidInput,
                message: message(&error),
                at: clock::stamp(),
            })?;
        let notify = match definition.spec.notify {
            Some(_) => {
                let notify = Notify::bind(run_dir).map_err(|error| failed(format!("{error:#}")))?;
                bundle.offer(&notify::directory(run_dir));
                Some(notify)
            }
            None => None,
        };
        let rootfs = match (&definition.spec.rootfs, image) {
            (Some(path), _) => Rootfs::Directory { path: path.into() },
            (None, Some(image)) => Rootfs::Overlay {
                lower: image.layers,
                upper: container.join("upper"),
                work: container.join("work"),
                volatile: definition.spec.remove,
            },
            (None, None) => return Err(failed("neither image nor rootfs".to_owned())),
        };
        let mut fds = match stdio {
            Some(stdio) => stdio
                .fds
                .iter()
                .map(|(kind, fd)| Ok((*kind, fd.try_clone()?)))
                .collect::<io::Result<Vec<_>>>()
                .map_err(|error| failed(format!("descriptors of the caller: {error}")))?,
            None => Vec::new(),
        };
        fds.extend(self.rootfs.lock().remove(&id).map(|overlay| (CreateFd::Rootfs, overlay)));
        let stdin = match (stdio, definition.spec.stdin) {
            (Some(stdio), _) => stdio.stdin,
            (None, true) => Stdin::Kept,
            (None, false) => Stdin::Null,
        };
        let (create, fds) = bundle
            .create(Placement {
                run: run.0,
                rootfs,
                run_dir: run_dir.to_owned(),
                record_dir: container,
                log: Log {
                    dir: log,
                    max_size: definition.spec.log.max_size.unwrap_or(LOG_MAX_SIZE),
                    max_files: definition.spec.log.max_files.unwrap_or(LOG_MAX_FILES),
                },
                stdin,
                cgroup: self.paths.cgroup(id, run),
                fds,
            })
            .map_err(|error| failed(format!("preparing {}: {error}", run_dir.display())))?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let prepared = begin.elapsed();
        let created = self.forge.create(create, &fds).map_err(start_failure);
        tracing::debug!(container = ?id, ?prepared, forged = ?(begin.elapsed() - prepared), "created");
        let mut started = created?;
        if let Some(overlay) = started.rootfs.take() {
            self.rootfs.lock().insert(id, overlay);
        }
        Ok((started, notify))
    }

    fn enter(&self, id: Id, run: Run, pidfd: Arc<OwnedFd>, warnings: Vec<String>) {
        self.live.lock().insert(id, Live { run, pidfd, warnings });
    }

    /// Stay with a run to its end. `oom_told` kills for want of memory are no news.
    async fn watch(
        self: &Arc<Self>,
        id: Id,
        run: Run,
        keeper: anyhow::Result<Keeper>,
        pidfd: Arc<OwnedFd>,
        notify: Option<Notify>,
        oom_told: u64,
    ) {
        let oom_told = Arc::new(AtomicU64::new(oom_told));
        let oom = tokio::spawn(self.clone().watch_oom(id, run, oom_told.clone()));
        let listener = notify.map(|notify| tokio::spawn(self.clone().listen(id, run, notify)));
        let spare = tokio::spawn(self.clone().spare(id, run));
        let record = match &keeper {
            Ok(keeper) => match keeper.ended().await {
                Ended::Exited(record) => Some(record),
                Ended::Lost => None,
            },
            Err(error) => {
                tracing::debug!(container = ?id, error = %format!("{error:#}"), "no keeper to listen to");
                None
            }
        };
        let (status, at) = match record {
            Some(record) => {
                spare.abort();
                (status(record.wait_status), stamp(&record))
            }
            None => self.ending_without_word(id, run, &pidfd, spare).await,
        };
        oom.abort();
        listener.inspect(|listener| listener.abort());
        let oom_kills = self.oom_kills(id, run);
        let oom_killed = oom_kills > 0;
        if oom_kills > oom_told.load(Ordering::Relaxed) {
            // The end was quicker than the word of it.
            self.tell(Fact::Oom { id, run }).await;
        }
        self.live.lock().remove(&id);
        self.readers.lock().remove(&id);
        self.means.lock().retain(|(of, _), _| *of != id);
        self.tell(Fact::Exited { id, run, exit: Exit { status, oom_killed, at } }).await;
    }

    /// Pass on what the container says of itself.
    async fn listen(self: Arc<Self>, id: Id, run: Run, mut notify: Notify) {
        loop {
            match notify.receive().await {
                Ok(message) => {
                    if message.malformed > 0 {
                        tracing::debug!(container = ?id, lines = message.malformed, "not understood (sd_notify)");
                    }
                    self.tell(Fact::Notified { id, run, notification: message.said }).await;
                }
                Err(error) => {
                    tracing::warn!(container = ?id, %error, "listening to what it says of itself, giving up");
                    return;
                }
            }
        }
    }

    /// The keeper has gone, or never spoke: its record, otherwise the kernel, knows how the run ended.
    async fn ending_without_word(
        &self,
        id: Id,
        run: Run,
        pidfd: &OwnedFd,
        spare: JoinHandle<io::Result<Spare>>,
    ) -> (ExitStatus, Stamp) {
        if let Some(exit) = self.recorded(id, run) {
            return exit;
        }
        tracing::warn!(container = ?id, %run, "the keeper has gone, the container is watched without it");
        let substitute = tokio::spawn(stand_in(id, spare, self.paths.log(id)));
        let gone = match pidfd.try_clone().and_then(|fd| readiness::watch(fd, Interest::READABLE)) {
            Ok(pidfd) => pidfd.readable().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            tracing::error!(container = ?id, %error, "watching the process, taking it for dead");
        }
        // What is still in the pipes; somebody else may hold them open.
        let _ = tokio::time::timeout(LAST_OUTPUT, substitute).await;
        // Whoever reaps it may take a moment, and until then the kernel does not tell.
        for _ in 0..100 {
            if let Some(exit) = self.recorded(id, run) {
                return exit;
            }
            if let Some(wait_status) = exit_info(pidfd) {
                return (status(wait_status), clock::stamp());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (ExitStatus::Unknown, clock::stamp())
    }

    /// What there has to be if the keeper is killed.
    async fn spare(self: Arc<Self>, id: Id, run: Run) -> io::Result<Spare> {
        tokio::time::sleep(SETTLED).await;
        let keeper = Keeper::connect(&self.paths.run(id, run))?;
        keeper.status().await?;
        keeper.spare()
    }

    /// What the keeper wrote down about a run.
    fn recorded(&self, id: Id, run: Run) -> Option<(ExitStatus, Stamp)> {
        let path = self.paths.container(id).join(ExitRecord::file_name(run.0));
        let text = std::fs::read_to_string(&path).ok()?;
        match ExitRecord::parse(&text) {
            Ok(record) => Some((status(record.wait_status), stamp(&record))),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a bad exit record, ignoring it");
                None
            }
        }
    }

    fn oom_kills(&self, id: Id, run: Run) -> u64 {
        stats::oom_kills(&self.paths.cgroup(id, run)).ok().flatten().unwrap_or(0)
    }

    /// Tell of every process of the run that the kernel kills for want of memory.
    async fn watch_oom(self: Arc<Self>, id: Id, run: Run, told: Arc<AtomicU64>) {
        let watching = async {
            let watch = stats::OomWatch::open(&self.paths.cgroup(id, run))?;
            let interest = if watch.is_priority() { Interest::PRIORITY } else { Interest::READABLE };
            let ready = readiness::watch(watch.as_fd().try_clone_to_owned()?, interest)?;
            loop {
                let known = told.load(Ordering::Relaxed);
                let mut guard = ready.ready(interest).await?;
                guard.clear_ready();
                let mut kills = watch.check()?;
                // On v1 the event comes just before the kill.
                for _ in 0..5 {
                    if kills > known {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    kills = watch.check()?;
                }
                if kills > known {
                    self.tell(Fact::Oom { id, run }).await;
                    told.store(kills, Ordering::Relaxed);
                }
            }
        };
        let outcome: io::Result<()> = watching.await;
        if let Err(error) = outcome {
            tracing::debug!(container = ?id, %error, "no word of memory kills until the end of the run");
        }
    }

    /// Signal the first process.
    pub async fn signal(self: Arc<Self>, id: Id, run: Run, signal: core::Signal) {
        let Some(live) = self.live(id).filter(|live| live.run == run) else { return };
        let runtime = self.clone();
        let sent = blocking(move || runtime.forge.signal(live.pidfd.as_fd(), signal.number())).await;
        if let Err(error) = sent {
            tracing::warn!(container = ?id, %signal, error = %format!("{error:#}"), "sending a signal, ignoring");
        }
    }

    /// End everything of a run.
    pub async fn kill(self: Arc<Self>, id: Id, run: Run) {
        let last = {
            let last_words = self.last_words.lock();
            last_words.get(&id).filter(|(of, _)| *of == run).map(|(_, fact)| fact.clone())
        };
        if let Some(fact) = last {
            self.tell(fact).await;
            return;
        }
        let (runtime, cgroup) = (self.clone(), self.paths.cgroup(id, run));
        if let Err(error) = blocking(move || runtime.forge.kill(&cgroup)).await {
            tracing::warn!(container = ?id, error = %format!("{error:#}"), "killing, to be tried again");
        }
    }

    /// Freeze or thaw every process of a run.
    pub async fn freeze(self: Arc<Self>, id: Id, run: Run, frozen: bool) {
        let (runtime, cgroup) = (self.clone(), self.paths.cgroup(id, run));
        let done = blocking(move || runtime.forge.freeze(&cgroup, frozen)).await;
        self.tell(match (done, frozen) {
            (Ok(()), true) => Fact::Frozen { id, run },
            (Ok(()), false) => Fact::Thawed { id, run },
            (Err(error), true) => Fact::FreezeFailed { id, run, reason: format!("{error:#}") },
            (Err(error), false) => Fact::ThawFailed { id, run, reason: format!("{error:#}") },
        })
        .await;
    }

    /// Apply limits.
    pub async fn limit(&self, id: Id, run: Run, limits: Limits) -> anyhow::Result<()> {
        let (forge, cgroup) = (self.forge.clone(), self.paths.cgroup(id, run));
        blocking(move || forge.limit(&cgroup, limits)).await
    }

    /// Remove what is left of a run that is over.
    pub async fn cleanup(self: Arc<Self>, id: Id, run: Run) {
        let runtime = self.clone();
        let done = tokio::task::spawn_blocking(move || runtime.cleanup_blocking(id, run)).await;
        self.tell(match done.map_err(anyhow::Error::from).and_then(|done| done) {
            Ok(()) => Fact::CleanedUp { id, run },
            Err(error) => Fact::CleanupFailed { id, run, reason: format!("{error:#}") },
        })
        .await;
    }

    fn cleanup_blocking(&self, id: Id, run: Run) -> anyhow::Result<()> {
        let cgroup = self.paths.cgroup(id, run);
        let begin = Instant::now();
        self.forge.remove_cgroup(&cgroup).with_context(|| format!("removing cgroup {cgroup}"))?;
        tracing::debug!(container = ?id, took = ?begin.elapsed(), "cgroup removed");
        remove_tree(&self.paths.run(id, run))?;
        // The second, of a keeper that was killed just before it put the record in place.
        let record = ExitRecord::file_name(run.0);
        for name in [format!("{record}.tmp"), record] {
            let path = self.paths.container(id).join(name);
            gone(std::fs::remove_file(&path)).with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// No run of it follows for now.
    pub async fn rest(self: Arc<Self>, id: Id) {
        let Some(overlay) = self.rootfs.lock().remove(&id) else { return };
        // This brings what it has written to the disk.
        let unmounted = tokio::task::spawn_blocking(move || drop(overlay)).await;
        if let Err(error) = unmounted {
            tracing::error!(container = ?id, %error, "unmounting");
        }
    }

    /// Remove all files of a container.
    pub async fn delete(self: Arc<Self>, id: Id) -> anyhow::Result<()> {
        self.last_words.lock().remove(&id);
        self.clone().rest(id).await;
        tokio::task::spawn_blocking(move || remove_tree(&self.paths.container(id))).await?
    }

    /// Remove what no definition owns: runs that are not in `runs`, files of containers that are not in `ids`. What an
    /// earlier wharfd began when it was killed ends here. All runs of those in `spared` stay.
    pub fn sweep(
        &self,
        ids: &HashSet<String>,
        runs: &HashSet<String>,
        spared: &HashSet<String>,
    ) -> anyhow::Result<()> {
        let is_spared = |run: &String| run.split_once('.').is_some_and(|(id, _)| spared.contains(id));
        for run in self.runs()?.difference(runs).filter(|run| !is_spared(run)) {
            tracing::info!(%run, "a run that nobody owns, removing it");
            self.remove_run(run)?;
        }
        let containers = self.paths.state.join("containers");
        for id in names(&containers)?.iter().filter(|id| !ids.contains(*id)) {
            tracing::info!(container = %id, "files that nobody owns, removing them");
            remove_tree(&containers.join(id))?;
        }
        Ok(())
    }

    /// After a power cut the store may know less than the disk: runs that are to begin again must not find the records of
    /// those that bore their numbers. `but` is the one that the store knows to have lived.
    pub fn forget_records(&self, id: Id, but: Option<Run>) -> anyhow::Result<()> {
        remove_records(&self.paths.container(id), but)
    }

    /// End and remove all that a container has, whatever it is.
    pub async fn clear(self: Arc<Self>, id: Id) -> anyhow::Result<()> {
        let cleared = tokio::task::spawn_blocking(move || {
            let own = format!("{id}.");
            for run in self.runs()?.iter().filter(|run| run.starts_with(&own)) {
                self.remove_run(run)?;
            }
            remove_tree(&self.paths.container(id))
        });
        cleared.await?
    }

    /// Every run that has a cgroup or a directory, as ID.RUN.
    fn runs(&self) -> anyhow::Result<HashSet<String>> {
        let cgroups = stats::CgroupMode::current().directories(&self.paths.cgroup_root).unwrap_or_default();
        let mut found: HashSet<String> = names(&self.paths.runtime.join("containers"))?.into_iter().collect();
        for directory in cgroups {
            let is_run = |name: &String| name.split_once('.').is_some_and(|(id, _)| id.parse::<Id>().is_ok());
            found.extend(names(&directory).unwrap_or_default().into_iter().filter(is_run));
        }
        Ok(found)
    }

    fn remove_run(&self, run: &str) -> anyhow::Result<()> {
        let cgroup = format!("{}/{run}", self.paths.cgroup_root);
        self.forge.remove_cgroup(&cgroup).with_context(|| format!("removing cgroup {cgroup}"))?;
        remove_tree(&self.paths.runtime.join("containers").join(run))
    }

    /// After a restart of wharfd: what became of the run that was saved?
    pub async fn observe(&self, id: Id, run: Option<Run>) -> (Observed, Option<Found>) {
        let nothing = (Observed::Nothing { at: clock::stamp() }, None);
        let Some(run) = run else { return nothing };
        let run_dir = self.paths.run(id, run);
        if let Ok(keeper) = Keeper::connect(&run_dir) {
            match tokio::time::timeout(RECORD_PATIENCE, keeper.status()).await {
                Ok(Ok(status)) if status.run == run.0 => {
                    let started = started_at(status.pid);
                    let frozen = is_frozen(&self.paths.cgroup(id, run));
                    let alive = Observed::Alive { pid: status.pid, started, frozen };
                    return (alive, Some(Found { run, keeper: Ok(keeper), pidfd: status.pidfd }));
                }
                Ok(Ok(status)) => {
                    tracing::error!(container = ?id, run = status.run, "a keeper of another run, ignoring it");
                }
                Ok(Err(error)) => tracing::debug!(container = ?id, %error, "the keeper is ending"),
                Err(_) => tracing::error!(container = ?id, "the keeper does not answer"),
            }
        }
        // The keeper has just ended, or long ago: then there is a record.
        if let Some((status, at)) = self.recorded(id, run) {
            let oom_killed = self.oom_kills(id, run) > 0;
            return (Observed::Exited(Exit { status, oom_killed, at }), None);
        }
        // A container whose keeper was killed lives on.
        if let Some((pid, pidfd)) = self.first_process(id, run) {
            let started = started_at(pid);
            let frozen = is_frozen(&self.paths.cgroup(id, run));
            let keeper = Err(anyhow::anyhow!("the keeper was killed"));
            return (Observed::Alive { pid, started, frozen }, Some(Found { run, keeper, pidfd }));
        }
        nothing
    }

    /// The process of the cgroup that is pid 1 of its own pid namespace.
    fn first_process(&self, id: Id, run: Run) -> Option<(u32, OwnedFd)> {
        let pids = stats::processes(&self.paths.cgroup(id, run)).ok()?;
        pids.into_iter().find_map(|pid| {
            let pidfd = rustix::process::pidfd_open(
                rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?,
                rustix::process::PidfdFlags::NONBLOCK,
            )
            .ok()?;
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let inner = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            let numbers: Vec<&str> = inner.split_whitespace().collect();
            // Still in the cgroup now, so the pid was not given to a stranger before the pidfd was opened.
            let still = stats::processes(&self.paths.cgroup(id, run)).ok()?.contains(&pid);
            (numbers.len() > 1 && numbers.last() == Some(&"1") && still).then_some((pid, pidfd))
        })
    }

    /// Take over a run that was found alive; `speaks` if it may tell of itself. It can be signalled from now on, also
    /// before the returned future, which stays with it, is polled.
    pub fn adopt(self: Arc<Self>, id: Id, found: Found, speaks: bool) -> impl Future<Output = ()> {
        let pidfd = Arc::new(found.pidfd);
        self.enter(id, found.run, pidfd.clone(), Vec::new());
        let notify = speaks.then(|| Notify::bind(&self.paths.run(id, found.run))).and_then(|bound| {
            bound
                .inspect_err(
                    |error| tracing::error!(container = ?id, error = %format!("{error:#}"), "deaf to it"),
                )
                .ok()
        });
        let oom_told = self.oom_kills(id, found.run);
        async move { self.watch(id, found.run, found.keeper, pidfd, notify, oom_told).await }
    }
}

/// A run that has just been started.
struct Made {
    started: Started,
    keeper: anyhow::Result<Keeper>,
    notify: Option<Notify>,
}

/// A run that was found alive.
#[derive(Debug)]
pub struct Found {
    run: Run,
    keeper: anyhow::Result<Keeper>,
    pidfd: OwnedFd,
}

/// Take the place of a keeper that has gone, as far as that is possible.
async fn stand_in(id: Id, spare: JoinHandle<io::Result<Spare>>, log: PathBuf) {
    let taken = match spare.await {
        Ok(Ok(spare)) => substitute::stand_in(spare, log).await,
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = taken {
        tracing::warn!(container = ?id, error = %format!("{error:#}"), "its output is lost without the keeper");
    }
}

async fn blocking(act: impl FnOnce() -> Result<(), ForgeError> + Send + 'static) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(act).await??)
}

fn failed(message: String) -> Failure {
    Failure { kind: core::FailureKind::Failed, message, at: clock::stamp() }
}

/// The message of an error that carries nothing else.
fn message(error: &wharf_bus::Error) -> String {
    use zbus::DBusError;
    error.description().map_or_else(|| error.to_string(), str::to_owned)
}

fn start_failure(error: ForgeError) -> Failure {
    match error {
        ForgeError::Failed(failure) => {
            for line in &failure.detail {
                tracing::debug!(%line, "from the creator");
            }
            let kind = match failure.kind {
                FailureKind::CommandNotFound => core::FailureKind::CommandNotFound,
                FailureKind::CommandNotExecutable => core::FailureKind::CommandNotExecutable,
                FailureKind::InvalidInput => core::FailureKind::InvalidInput,
                FailureKind::RefusedImage => core::FailureKind::RefusedImage,
                FailureKind::Unsupported => core::FailureKind::Unsupported,
                FailureKind::NotRunning | FailureKind::Failed => core::FailureKind::Failed,
            };
            Failure { kind, message: failure.message, at: clock::stamp() }
        }
        other @ (ForgeError::Unreachable { .. } | ForgeError::Broken(_) | ForgeError::Unexpected) => {
            failed(format!("{:#}", anyhow::Error::from(other)))
        }
    }
}

fn status(wait_status: i32) -> ExitStatus {
    match wait_status.into() {
        WaitStatus::Code(code) => ExitStatus::Code(code),
        WaitStatus::Signal(number) => {
            core::Signal::new(number).map_or(ExitStatus::Unknown, ExitStatus::Signal)
        }
    }
}

fn stamp(record: &ExitRecord) -> Stamp {
    Stamp { boot: Time(record.finished_boottime_ns), wall: record.finished_realtime_ns }
}

/// When a process was started, from the kernel; now, if it is gone.
fn started_at(pid: u32) -> Stamp {
    let ticks = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| {
        // The name may contain anything, also blanks and brackets: fields are counted from its end.
        let rest = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
        rest.parse::<u64>().ok()
    });
    // USER_HZ is 100 on every architecture of today (proc_pid_stat(5) counts in it).
    ticks.map_or_else(clock::stamp, |ticks| clock::stamp_of(Time(ticks * 10_000_000)))
}

/// How the process behind a pidfd ended, from the kernel (6.15 and later), once it has been reaped.
fn exit_info(pidfd: &OwnedFd) -> Option<i32> {
    /// `struct pidfd_info` up to `exit_code`.
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        pid: u32,
        tgid: u32,
        ppid: u32,
        ids: [u32; 8],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const SIZE: libc::c_ulong = size_of::<PidfdInfo>() as libc::c_ulong;
    const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (SIZE << 16) | (0xFF << 8) | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request writes at most the size that is part of its number into `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Are the processes of a cgroup frozen, as far as the kernel says? Either freezer may have been used.
fn is_frozen(cgroup: &str) -> bool {
    let mode = stats::CgroupMode::current();
    let says = |directory: io::Result<Option<PathBuf>>, file: &str, words: &[&str]| {
        let path = directory.ok().flatten().map(|directory| directory.join(file));
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        words.contains(&text.trim())
    };
    says(mode.unified_directory(cgroup), "cgroup.freeze", &["1"])
        || says(mode.directory("freezer", cgroup), "freezer.state", &["FROZEN", "FREEZING"])
}

/// The exit records of all runs but this one.
fn remove_records(directory: &Path, but: Option<Run>) -> anyhow::Result<()> {
    let kept = but.map(|run| ExitRecord::file_name(run.0));
    let entries = match std::fs::read_dir(directory) {
        // It has never run.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with("exit.") && kept.as_ref() != Some(&name) {
            let path = entry.path();
            gone(std::fs::remove_file(&path)).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a directory of ours.
fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

/// Remove a directory of ours with all that containers have put in it. `remove_dir_all` follows no symbolic link.
pub fn remove_tree(path: &Path) -> anyhow::Result<()> {
    gone(std::fs::remove_dir_all(path)).with_context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_forgotten_runs_go() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["exit.4", "exit.5", "exit.6", "exit.7.new", "log"] {
            std::fs::write(directory.path().join(name), "").expect("a file");
        }
        let left = || {
            let entries = std::fs::read_dir(directory.path()).expect("listed");
            let mut names: Vec<_> = entries
                .map(|entry| entry.expect("listed").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names
        };
        remove_records(directory.path(), Some(Run(5))).expect("removed");
        assert_eq!(left(), ["exit.5", "log"]);
        remove_records(directory.path(), None).expect("removed");
        assert_eq!(left(), ["log"]);
        remove_records(&directory.path().join("none"), None).expect("nothing to remove");
    }
}
