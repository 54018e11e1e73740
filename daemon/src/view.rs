//! What the world sees of each container: one immutable snapshot, replaced by the driver at every change, so that
//! readers (D-Bus getters, metrics, those who wait for something) never meet the supervisor's lock.

use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};
use wharf_bus::types::EventRecord;
use wharf_bus::{Spec, spec};
use wharf_supervisor::Failure;

/// Notices that a subscriber may lag behind: more than a full boot's worth of state changes of 300 containers.
const NOTICES: usize = 4096;

/// A container as the world sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique.
    pub name: String,
    /// As asked for; empty with a rootfs directory.
    pub image: String,
    /// Of that image; empty with a rootfs directory.
    pub image_id: String,
    /// Program and arguments as they are run.
    pub command: Vec<String>,
    /// The document in force.
    pub spec: Arc<Spec>,
    /// `created`, `waiting`, `starting`, `running`, `paused`, `stopping`, `exited`, `failed`, `removing`;
    /// `damaged` (see `damaged.rs`).
    pub state: &'static str,
    /// `up`, `down`, `removed`.
    pub goal: &'static str,
    /// Which start it is; 0 before the first.
    pub run: u64,
    /// Is nothing being cleaned up or removed?
    pub settled: bool,
    /// Can it serve?
    pub ready: bool,
    /// What its health check or probes say: `none`, `starting`, `healthy`, `unhealthy`.
    pub health: &'static str,
    /// Its probes as JSON, once for every change.
    pub probes: String,
    /// What it says of itself (sd_notify).
    pub status: String,
    /// Starts by the restart policy since somebody started it.
    pub restarts: u32,
    /// When it is to be started next, microseconds since 1970; 0 if that is not settled, or not wanted.
    pub next_start: u64,
    /// Why it is what it is, where that is not plain: what it waits for, what was unhealthy, why it was given up.
    pub reason: String,
    /// Is another run wanted when this one ends?
    pub restarting: bool,
    /// Does it wait for somebody it requires?
    pub held: bool,
    /// Of the main process; 0 if there is none.
    pub pid: u32,
    /// How the last run ended; `None` if none has, or if nobody can know.
    pub exit_code: Option<i32>,
    /// Was a process of the current or last run killed for want of memory?
    pub oom_killed: bool,
    /// Why the last start failed.
    pub failure: Option<Failure>,
    /// Number of the signal that asks it to end.
    pub stop_signal: i32,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Microseconds since 1970.
    pub created_at: u64,
    /// Microseconds since 1970; 0 if never.
    pub started_at: u64,
    /// Microseconds since 1970; 0 if never.
    pub finished_at: u64,
    /// The health check in force.
    pub healthcheck: Option<spec::Healthcheck>,
    /// First id on the host and count; (0, 0) with the host's user namespace.
    pub id_map: (u32, u32),
    /// Of the current or last run, in every hierarchy.
    pub cgroup: String,
    /// Of its log files.
    pub log_directory: String,
}

impl View {
    /// Is there a process? (A paused one counts.)
    pub fn is_running(&self) -> bool {
        matches!(self.state, "running" | "paused" | "stopping")
    }

    /// Is its last run over, with none to follow by itself?
    pub fn is_over(&self) -> bool {
        matches!(self.state, "created" | "exited" | "failed" | "removing" | "damaged") && !self.restarting
    }
}

/// What subscribers are told, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A new container.
    Added(Arc<View>),
    /// It looks different.
    Changed {
        /// Before.
        old: Arc<View>,
        /// Now.
        new: Arc<View>,
    },
    /// Nothing of it is left.
    Removed(Arc<View>),
    /// Something for the log of events.
    Event(Arc<EventRecord>),
    /// How far a load has come.
    LoadProgress {
        /// As the caller named it.
        source: String,
        /// From 1.
        layer: u32,
        /// In all.
        layers: u32,
        /// Bytes read.
        done: u64,
        /// Of so many, or 0.
        size: u64,
    },
}

/// All snapshots.
#[derive(Debug)]
pub struct Views {
    containers: RwLock<HashMap<String, watch::Sender<Arc<View>>>>,
    notices: broadcast::Sender<Notice>,
}

impl Default for Views {
    fn default() -> Self {
        Self { containers: RwLock::default(), notices: broadcast::Sender::new(NOTICES) }
    }
}

/// Why a name does not lead to one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// Nothing fits.
    Unknown,
    /// These names fit.
    Ambiguous(Vec<String>),
}

impl Views {
    /// Everything from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Tell the subscribers. Nobody there is no error.
    pub fn announce(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// A new snapshot of a new or known container.
    pub fn publish(&self, view: View) {
        let view = Arc::new(view);
        let mut containers = self.containers.write();
        match containers.get(&view.id) {
            None => {
                containers.insert(view.id.clone(), watch::Sender::new(view.clone()));
                self.announce(Notice::Added(view));
            }
            Some(sender) => {
                let old = sender.send_replace(view.clone());
                if old != view {
                    self.announce(Notice::Changed { old, new: view });
                }
            }
        }
    }

    /// The container is gone. Those who watch it see the last snapshot and then the end.
    pub fn remove(&self, id: &str) {
        let removed = self.containers.write().remove(id);
        if let Some(sender) = removed {
            self.announce(Notice::Removed(sender.borrow().clone()));
        }
    }

    /// Every container now.
    pub fn all(&self) -> Vec<Arc<View>> {
        let containers = self.containers.read();
        containers.values().map(|sender| sender.borrow().clone()).collect()
    }

    /// One container now.
    pub fn get(&self, id: &str) -> Option<Arc<View>> {
        self.watch(id).map(|watch| watch.borrow().clone())
    }

    /// One container now and later.
    pub fn watch(&self, id: &str) -> Option<watch::Receiver<Arc<View>>> {
        let containers = self.containers.read();
        containers.get(id).map(watch::Sender::subscribe)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.containers.read().len()
    }

    /// The container with this name, this id, or the only one whose id begins so.
    pub fn find(&self, wanted: &str) -> Result<Arc<View>, LookupError> {
        let all = self.all();
        if let Some(exact) = all.iter().find(|view| view.name == wanted || view.id == wanted) {
            return Ok(exact.clone());
        }
        let mut fitting: Vec<_> =
            all.into_iter().filter(|view| !wanted.is_empty() && view.id.starts_with(wanted)).collect();
        match fitting.len() {
            0 => Err(LookupError::Unknown),
            1 => Ok(fitting.remove(0)),
            _ => Err(LookupError::Ambiguous(fitting.iter().map(|view| view.name.clone()).collect())),
        }
    }
}
