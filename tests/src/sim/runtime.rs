//! What is really there: runs, their processes and what they leave behind.

use std::collections::BTreeMap;
use wharf_supervisor::{Exit, ExitStatus, Id, Observed, Run, Stamp};

/// A run as it really is.
#[derive(Debug, Clone)]
pub(super) struct Real {
    pub life: Life,
    /// When it was executed, if it was.
    pub started: Option<Stamp>,
    /// How it ended, if it was executed and has ended: the truth, whoever knows it.
    pub exit: Option<Exit>,
    /// The exit record is on disk.
    pub record: bool,
    /// A cgroup, directories, mounts.
    pub remains: bool,
    pub frozen: bool,
    pub nature: Nature,
    /// Waits for the end of the frost.
    pub signalled: bool,
}

/// What kind of program it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nature {
    /// Does not mind the stop signal.
    pub stubborn: bool,
    /// How many of a hundred probes fail.
    pub illness: u64,
    /// Forgets to feed its watchdog so often.
    pub forgetful: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// A creator is at work.
    Making,
    Alive,
    Over,
}

/// All runs that ever were.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    pub runs: BTreeMap<(Id, Run), Real>,
}

impl Runtime {
    pub fn of(&self, id: Id) -> impl DoubleEndedIterator<Item = (Run, &Real)> {
        self.runs.range((id, Run(0))..=(id, Run(u64::MAX))).map(|((_, run), real)| (*run, real))
    }

    pub fn get(&mut self, id: Id, run: Run) -> Option<&mut Real> {
        self.runs.get_mut(&(id, run))
    }

    /// One that can do something.
    pub fn awake(&mut self, id: Id, run: Run) -> Option<&mut Real> {
        self.get(id, run).filter(|real| real.life == Life::Alive && !real.frozen)
    }

    pub fn begin(&mut self, id: Id, run: Run, nature: Nature) {
        let real = Real {
            life: Life::Making,
            started: None,
            exit: None,
            record: false,
            remains: true,
            frozen: false,
            nature,
            signalled: false,
        };
        self.runs.insert((id, run), real);
    }

    pub fn living(&self, id: Id) -> usize {
        self.of(id).filter(|(_, real)| real.life != Life::Over).count()
    }

    /// The host goes down: nothing lives, and what was kept in memory is lost.
    pub fn reboot(&mut self, now: Stamp) {
        for real in self.runs.values_mut() {
            if real.life == Life::Alive {
                real.exit = Some(Exit { status: ExitStatus::Unknown, oom_killed: false, at: now });
            }
            real.life = Life::Over;
            real.record = false;
        }
    }

    /// What a new daemon finds of a run.
    pub fn observe(&self, id: Id, run: Option<Run>, now: Stamp) -> Observed {
        let nothing = Observed::Nothing { at: now };
        let Some(real) = run.and_then(|run| self.runs.get(&(id, run))) else { return nothing };
        match (real.life, real.exit) {
            (Life::Making, _) => Observed::Starting,
            (Life::Alive, _) => {
                Observed::Alive { pid: 1000, started: real.started.unwrap_or(now), frozen: real.frozen }
            }
            (Life::Over, Some(exit)) if real.record => Observed::Exited(exit),
            (Life::Over, Some(_) | None) => nothing,
        }
    }
}

impl Real {
    /// What is said of its end: the record if there is one, else that nobody knows.
    pub fn told_exit(&self, now: Stamp) -> Exit {
        match self.exit {
            Some(exit) if self.record => exit,
            Some(_) | None => Exit { status: ExitStatus::Unknown, oom_killed: false, at: now },
        }
    }
}
