//! The daemon's driver and everything around it, simulated.

use super::invariants::{self, Check};
use super::runtime::{Life, Runtime};
use super::{Chance, Violation};
use std::collections::{BTreeMap, VecDeque};
use std::mem::{Discriminant, discriminant};
use std::time::Duration;
use wharf_supervisor::{
    Accepted, Change, Command, Effect, Exit, ExitStatus, Fact, Failure, FailureKind, Id, Phase, Run, Saved,
    Signal, Spec, Stamp, State, Stop, Supervisor, Time,
};

const STORM: Duration = Duration::from_secs(600);
/// Far more than any seed needs: whoever is not done by then never will be.
const CALM: Duration = Duration::from_secs(4 * 3600);
const STORY: usize = 4000;
/// A storm takes a few hundred; more than this is two sides that keep each other busy.
const STEPS: usize = 20_000;

/// Live through one seed. With `told`, the violation comes with what happened before it.
pub fn simulate(seed: u64, told: bool) -> Result<(), Violation> {
    let mut host = Host::new(seed, told);
    host.live().map_err(|what| Violation { seed, what, story: host.story.into() })
}

/// How bad this world is, in percent of the occasions.
#[derive(Debug, Clone, Copy)]
struct Temper {
    stalls: u64,
    fails: u64,
    repeats: u64,
    late: u64,
    loses: u64,
    unsaved: u64,
    kills_daemon: u64,
}

impl Temper {
    const CALM: Self =
        Self { stalls: 0, fails: 0, repeats: 0, late: 0, loses: 0, unsaved: 0, kills_daemon: 0 };

    /// Not every storm has everything, so that each trouble is also met alone.
    fn storm(chance: &mut Chance) -> Self {
        let mut percent = |most| if chance.percent(50) { chance.below(most) } else { 0 };
        Self {
            stalls: percent(20),
            fails: percent(40),
            repeats: percent(40),
            late: percent(60),
            loses: percent(30),
            unsaved: percent(15),
            kills_daemon: percent(6),
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    User,
    DaemonStarts,
    SaveAgain,
    Tell(Fact),
    /// A creator is done.
    Executed {
        id: Id,
        run: Run,
    },
    /// A creator has given up.
    NotExecuted {
        id: Id,
        run: Run,
    },
    Oom {
        id: Id,
        run: Run,
    },
    Ends {
        id: Id,
        run: Run,
        status: ExitStatus,
    },
    KillLands {
        id: Id,
        run: Run,
    },
    Frost {
        id: Id,
        run: Run,
        frozen: bool,
    },
    CleanedUp {
        id: Id,
        run: Run,
    },
    Deleted {
        id: Id,
    },
}

impl Event {
    /// Whom it is about, if it is about one.
    fn id(&self) -> Option<Id> {
        match self {
            Self::User | Self::DaemonStarts | Self::SaveAgain => None,
            Self::Tell(fact) => Some(fact.id()),
            Self::Executed { id, .. }
            | Self::NotExecuted { id, .. }
            | Self::Oom { id, .. }
            | Self::Ends { id, .. }
            | Self::KillLands { id, .. }
            | Self::Frost { id, .. }
            | Self::CleanedUp { id, .. }
            | Self::Deleted { id } => Some(*id),
        }
    }
}

pub(super) struct Host {
    chance: Chance,
    temper: Temper,
    pub now: Time,
    /// Which daemon this is; work of an earlier one reports to nobody.
    generation: u64,
    pub daemon: Option<Supervisor>,
    pub store: BTreeMap<Id, (Spec, Saved)>,
    /// What could not be saved yet, and is tried again.
    pub unsaved: BTreeMap<Id, Saved>,
    specs: BTreeMap<Id, Spec>,
    pub runtime: Runtime,
    agenda: BTreeMap<(Time, u64), (u64, Event)>,
    sequence: u64,
    ids: u64,
    /// Since when a container may be killed, by what was asked for.
    pub may_be_killed: BTreeMap<Id, Time>,
    pub begun: BTreeMap<Id, Time>,
    /// The last state that was announced.
    pub announced: BTreeMap<Id, Discriminant<State>>,
    /// Until when the news of each container's frost are on their way.
    told_by: BTreeMap<Id, Time>,
    told: bool,
    story: VecDeque<String>,
}

impl Host {
    fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let temper = Temper::storm(&mut chance);
        Self {
            chance,
            temper,
            now: Time(1_000_000_000),
            generation: 1,
            daemon: Some(Supervisor::new()),
            store: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            specs: BTreeMap::new(),
            runtime: Runtime::default(),
            agenda: BTreeMap::new(),
            sequence: 0,
            ids: 0,
            may_be_killed: BTreeMap::new(),
            begun: BTreeMap::new(),
            announced: BTreeMap::new(),
            told_by: BTreeMap::new(),
            told,
            story: VecDeque::new(),
        }
    }

    fn live(&mut self) -> Check {
        self.schedule(Duration::ZERO, Event::User);
        let end_of_storm = self.now + STORM;
        for _ in 0..STEPS {
            if !self.step(end_of_storm)? {
                break;
            }
        }
        self.temper = Temper::CALM;
        self.tell_story(|| "calm".to_owned());
        if self.daemon.is_none() {
            self.start_daemon()?;
        }
        let end_of_calm = self.now + CALM;
        for _ in 0..STEPS {
            if !self.step(end_of_calm)? {
                return invariants::at_the_end(self);
            }
        }
        Err("every_effect_has_an_outcome: the host never comes to rest".to_owned())
    }

    /// The next event or deadline before `end`; false if there is none.
    fn step(&mut self, end: Time) -> Result<bool, String> {
        let event_at = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.daemon.as_ref().and_then(Supervisor::next_deadline);
        let Some(next) = event_at.into_iter().chain(deadline).min().filter(|next| *next < end) else {
            return Ok(false);
        };
        self.now = self.now.max(next);
        let mut touched = None;
        if event_at == Some(next) {
            if let Some((_, (generation, event))) = self.agenda.pop_first() {
                self.tell_story(|| format!("{event:?}"));
                touched = event.id();
                self.happen(generation, event)?;
            }
        } else if let Some(daemon) = &mut self.daemon {
            daemon.tick(self.now);
            self.tell_story(|| "tick".to_owned());
            self.carry_out(false)?;
            if let Some(daemon) = &self.daemon {
                let overdue = daemon.next_deadline().is_some_and(|deadline| deadline <= self.now);
                if overdue {
                    return Err("tick_moves_on: a deadline that has passed is still one".to_owned());
                }
            }
        }
        if self.chance.percent(self.temper.kills_daemon) {
            self.kill_daemon();
        }
        invariants::always(self, touched)?;
        Ok(true)
    }

    fn happen(&mut self, generation: u64, event: Event) -> Check {
        let reported = generation == self.generation && self.daemon.is_some();
        match event {
            Event::User => self.user()?,
            Event::DaemonStarts => {
                if self.daemon.is_none() {
                    self.start_daemon()?;
                }
            }
            Event::SaveAgain => self.save_again(),
            Event::Tell(fact) => {
                if reported && let Some(daemon) = &mut self.daemon {
                    daemon.fact(self.now, fact);
                    self.carry_out(false)?;
                }
            }
            Event::Executed { id, run } => self.executed(id, run),
            Event::NotExecuted { id, run } => self.not_executed(id, run),
            Event::Oom { id, run } => self.tell(Fact::Oom { id, run }),
            Event::Ends { id, run, status } => self.ends(id, run, status),
            Event::KillLands { id, run } => self.kill_lands(id, run),
            Event::Frost { id, run, frozen } => self.frost(id, run, frozen),
            Event::CleanedUp { id, run } => self.cleaned_up(id, run),
            // Deleting is the daemon's own work and ends with it.
            Event::Deleted { id } if reported => self.deleted(id),
            Event::Deleted { .. } => {}
        }
        Ok(())
    }

    fn user(&mut self) -> Check {
        let pause = self.chance.up_to(Duration::from_secs(60));
        if self.temper.calm() {
            return Ok(());
        }
        self.schedule(pause, Event::User);
        let command = self.wish();
        let before = self.overview();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let answer = daemon.command(self.now, command.clone());
        self.tell_story(|| format!("{command:?}: {answer:?}"));
        match answer {
            Ok(Accepted::Underway) => {}
            Ok(Accepted::Already) => return invariants::already_changes_nothing(self, &command, before),
            Err(rejection) => return invariants::refusal_changes_nothing(self, &rejection, before),
        }
        if let Command::Create { id, spec } | Command::Run { id, spec } = &command {
            self.specs.insert(*id, spec.clone());
        }
        self.note_permission(&command);
        invariants::accepted_start_aims_at_a_new_run(self, &command)?;
        invariants::names_are_unique(self)?;
        let defines = matches!(command, Command::Create { .. } | Command::Run { .. });
        self.carry_out(defines)
    }

    /// Everything that a command could change.
    pub fn overview(&self) -> invariants::Overview {
        let containers = self.daemon.iter().flat_map(Supervisor::containers);
        containers.map(|container| (container.id(), container.goal(), container.state().clone())).collect()
    }

    fn wish(&mut self) -> Command {
        let known: Vec<Id> = self.specs.keys().rev().take(5).copied().collect();
        let new = known.is_empty() || self.chance.percent(15);
        let grace = match self.chance.below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(self.chance.up_to(Duration::from_secs(100))),
            _ => None,
        };
        if new {
            self.ids += 1;
            let id = Id::from_bytes([self.ids as u8; 32]);
            let spec = Spec {
                name: self.chance.of(&["web", "db", "queue", "cache"]).parse().expect("a name"),
                stop: Stop { signal: Signal::TERM, grace: self.chance.up_to(Duration::from_secs(60)) },
                auto_remove: self.chance.percent(30),
            };
            return if self.chance.percent(70) {
                Command::Run { id, spec }
            } else {
                Command::Create { id, spec }
            };
        }
        let id = *self.chance.of(&known);
        match self.chance.below(20) {
            0..=4 => Command::Start { id },
            5..=7 => Command::Stop { id, grace },
            8..=10 => Command::Restart { id, grace },
            11 => Command::Kill { id, signal: Signal::KILL },
            12 => Command::Kill { id, signal: Signal::new(10).expect("SIGUSR1") },
            13..=14 => Command::Pause { id },
            15..=16 => Command::Unpause { id },
            17 => Command::Update { id },
            18 => Command::Remove { id, force: false },
            _ => Command::Remove { id, force: self.chance.percent(50) },
        }
    }

    /// What was asked for says from when on a kill is no surprise.
    fn note_permission(&mut self, command: &Command) {
        let (id, at) = match command {
            Command::Stop { id, grace } | Command::Restart { id, grace } => {
                let grace = grace.or_else(|| self.specs.get(id).map(|spec| spec.stop.grace));
                (id, self.now + grace.unwrap_or_default())
            }
            Command::Kill { id, signal: Signal::KILL } | Command::Remove { id, force: true } => {
                (id, self.now)
            }
            Command::Create { .. }
            | Command::Run { .. }
            | Command::Start { .. }
            | Command::Kill { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Update { .. }
            | Command::Remove { .. } => return,
        };
        let earliest = self.may_be_killed.entry(*id).or_insert(at);
        *earliest = at.min(*earliest);
    }

    /// What the daemon's driver does: in order, with the rules of [`Effect::Save`].
    fn carry_out(&mut self, defines: bool) -> Check {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        for effect in daemon.effects() {
            self.tell_story(|| format!("    {effect:?}"));
            let id = effect.id();
            match &effect {
                Effect::Save { id, saved } => {
                    if self.chance.percent(self.temper.unsaved) {
                        self.tell_story(|| "    (not saved)".to_owned());
                        if defines {
                            self.tell_now(Fact::CreateFailed { id: *id })?;
                            return Ok(());
                        }
                        self.unsaved.insert(*id, saved.clone());
                        let pause = self.chance.up_to(Duration::from_secs(5));
                        self.schedule(pause, Event::SaveAgain);
                    } else {
                        self.save(*id, saved.clone());
                    }
                }
                Effect::Start { run, .. } if self.unsaved.contains_key(&id) => {
                    let failure = self.failure(FailureKind::NotSaved);
                    self.begun.insert(id, self.now);
                    self.schedule(Duration::ZERO, Event::Tell(Fact::StartFailed { id, run: *run, failure }));
                }
                Effect::Cleanup { run, .. } if self.unsaved.contains_key(&id) => {
                    let fact = Fact::CleanupFailed { id, run: *run, reason: "not saved".into() };
                    self.schedule(Duration::ZERO, Event::Tell(fact));
                }
                Effect::Start { run, .. } => self.start(id, *run)?,
                Effect::Signal { run, .. } => self.signal(&effect, id, *run)?,
                Effect::Kill { run, .. } => {
                    invariants::no_kill_without_a_reason(self, id)?;
                    self.kill(id, *run);
                }
                Effect::Freeze { run, .. } => self.freeze(id, *run, true),
                Effect::Thaw { run, .. } => self.freeze(id, *run, false),
                Effect::Limit { .. } => {
                    if !self.chance.percent(self.temper.fails) {
                        self.tell(Fact::Limited { id });
                    }
                }
                Effect::Cleanup { run, .. } => self.clean_up(id, *run)?,
                Effect::Delete { .. } => self.delete(id)?,
                Effect::Announce { change, .. } => self.announce(id, change)?,
            }
            if self.chance.percent(self.temper.kills_daemon) {
                self.kill_daemon();
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell_now(&mut self, fact: Fact) -> Check {
        if let Some(daemon) = &mut self.daemon {
            daemon.fact(self.now, fact);
        }
        self.carry_out(false)
    }

    fn save(&mut self, id: Id, saved: Saved) {
        self.unsaved.remove(&id);
        if let Some(spec) = self.specs.get(&id) {
            self.store.insert(id, (spec.clone(), saved));
        }
    }

    fn save_again(&mut self) {
        for (id, saved) in std::mem::take(&mut self.unsaved) {
            self.save(id, saved);
        }
    }

    fn start(&mut self, id: Id, run: Run) -> Check {
        invariants::save_before_start(self, id, run)?;
        invariants::runs_count_up(self, id, run)?;
        self.begun.insert(id, self.now);
        self.may_be_killed.remove(&id);
        let stubborn = self.chance.percent(30);
        self.runtime.begin(id, run, stubborn);
        if self.chance.percent(self.temper.stalls) {
            return Ok(());
        }
        let delay = self.delay(2, 10, 200);
        let fails = self.chance.percent(self.temper.fails);
        let outcome = if fails { Event::NotExecuted { id, run } } else { Event::Executed { id, run } };
        self.schedule(delay, outcome);
        Ok(())
    }

    fn executed(&mut self, id: Id, run: Run) {
        let at = self.stamp();
        let Some(real) = self.runtime.get(id, run).filter(|real| real.life == Life::Making) else { return };
        real.life = Life::Alive;
        real.started = Some(at);
        self.tell(Fact::Started { id, run, pid: 1000, at });
        let status = match self.chance.below(4) {
            0 => ExitStatus::Code(0),
            1 => ExitStatus::Signal(Signal::new(11).expect("SIGSEGV")),
            _ => ExitStatus::Code(self.chance.below(256) as u8),
        };
        if self.chance.percent(60) {
            let life = self.chance.up_to(Duration::from_secs(300));
            self.schedule(life, Event::Ends { id, run, status });
        }
        if self.chance.percent(20) {
            let life = self.chance.up_to(Duration::from_secs(300));
            self.schedule(life, Event::Oom { id, run });
        }
    }

    fn not_executed(&mut self, id: Id, run: Run) {
        let failure = self.failure(FailureKind::Failed);
        let Some(real) = self.runtime.get(id, run).filter(|real| real.life == Life::Making) else { return };
        real.life = Life::Over;
        self.tell(Fact::StartFailed { id, run, failure });
    }

    /// An end leaves a record, unless the keeper was killed as well.
    fn ends(&mut self, id: Id, run: Run, status: ExitStatus) {
        let now = self.stamp();
        let recorded = !self.chance.percent(self.temper.loses / 3);
        let Some(real) = self.runtime.get(id, run).filter(|real| real.life == Life::Alive) else { return };
        real.life = Life::Over;
        real.exit = Some(Exit { status, oom_killed: false, at: now });
        real.record = recorded;
        let exit = real.told_exit(now);
        self.tell(Fact::Exited { id, run, exit });
    }

    fn signal(&mut self, effect: &Effect, id: Id, run: Run) -> Check {
        let obeys = !self.chance.percent(self.temper.loses);
        let delay = self.delay(20, 0, 0);
        if *effect != (Effect::Signal { id, run, signal: Signal::TERM }) {
            return Ok(());
        }
        invariants::no_stop_without_a_reason(self, id)?;
        let Some(real) = self.runtime.get(id, run) else { return Ok(()) };
        if real.frozen {
            real.signalled = true;
        } else if obeys && !real.stubborn {
            self.schedule(delay, Event::Ends { id, run, status: ExitStatus::Code(0) });
        }
        Ok(())
    }

    fn kill(&mut self, id: Id, run: Run) {
        if self.chance.percent(self.temper.loses) {
            return;
        }
        let delay = self.delay(1, self.temper.stalls, 100);
        self.schedule(delay, Event::KillLands { id, run });
    }

    fn kill_lands(&mut self, id: Id, run: Run) {
        let now = self.stamp();
        let too_early = self.chance.percent(self.temper.loses);
        let Some(real) = self.runtime.get(id, run) else {
            // Its start was never begun.
            let failure = self.failure(FailureKind::Failed);
            self.tell(Fact::StartFailed { id, run, failure });
            return;
        };
        match (real.life, real.started) {
            (Life::Alive, _) => self.ends(id, run, ExitStatus::Signal(Signal::KILL)),
            // There was nothing to kill yet; the creator goes on.
            (Life::Making, _) if too_early => {}
            (Life::Making, _) => self.not_executed(id, run),
            (Life::Over, Some(_)) => {
                let exit = real.told_exit(now);
                self.tell(Fact::Exited { id, run, exit });
            }
            (Life::Over, None) => {
                let failure = self.failure(FailureKind::Failed);
                self.tell(Fact::StartFailed { id, run, failure });
            }
        }
    }

    fn freeze(&mut self, id: Id, run: Run, frozen: bool) {
        if self.chance.percent(self.temper.fails) {
            let reason = "it broke".to_owned();
            return self.tell(match frozen {
                true => Fact::FreezeFailed { id, run, reason },
                false => Fact::ThawFailed { id, run, reason },
            });
        }
        if self.chance.percent(self.temper.loses) {
            return;
        }
        let delay = self.delay(1, self.temper.stalls, 60);
        self.schedule(delay, Event::Frost { id, run, frozen });
    }

    fn frost(&mut self, id: Id, run: Run, frozen: bool) {
        let Some(real) = self.runtime.get(id, run).filter(|real| real.life == Life::Alive) else { return };
        real.frozen = frozen;
        let signalled = !frozen && std::mem::take(&mut real.signalled) && !real.stubborn;
        self.tell_in_order(if frozen { Fact::Frozen { id, run } } else { Fact::Thawed { id, run } });
        if signalled {
            self.schedule(Duration::ZERO, Event::Ends { id, run, status: ExitStatus::Code(0) });
        }
    }

    fn clean_up(&mut self, id: Id, run: Run) -> Check {
        invariants::exit_is_saved_before_cleanup(self, id, run)?;
        invariants::only_the_dead_are_cleaned_up(self, id)?;
        if self.chance.percent(self.temper.fails) {
            self.tell(Fact::CleanupFailed { id, run, reason: "busy".into() });
        } else if !self.chance.percent(self.temper.stalls) {
            let delay = self.delay(1, 5, 100);
            self.schedule(delay, Event::CleanedUp { id, run });
        }
        Ok(())
    }

    fn cleaned_up(&mut self, id: Id, run: Run) {
        if let Some(real) = self.runtime.get(id, run) {
            real.remains = false;
            real.record = false;
        }
        self.tell(Fact::CleanedUp { id, run });
    }

    fn delete(&mut self, id: Id) -> Check {
        invariants::only_the_dead_are_cleaned_up(self, id)?;
        if self.chance.percent(50) {
            // Whatever becomes of it, half of it is done.
            self.delete_runs(id);
        }
        if self.chance.percent(self.temper.fails) {
            self.tell(Fact::DeleteFailed { id, reason: "busy".into() });
        } else if !self.chance.percent(self.temper.stalls) {
            let delay = self.delay(1, 5, 100);
            self.schedule(delay, Event::Deleted { id });
        }
        Ok(())
    }

    fn deleted(&mut self, id: Id) {
        self.delete_runs(id);
        self.unsaved.remove(&id);
        self.store.remove(&id);
        self.tell(Fact::Deleted { id });
    }

    fn delete_runs(&mut self, id: Id) {
        for ((_, _), real) in self.runtime.runs.iter_mut().filter(|((of, _), _)| *of == id) {
            real.remains = false;
            real.record = false;
        }
    }

    fn announce(&mut self, id: Id, change: &Change) -> Check {
        match change {
            Change::Added => {
                self.announced.insert(id, discriminant(&State::Created));
            }
            Change::State(state) => {
                self.announced.insert(id, discriminant(state));
            }
            Change::Removed => {
                self.announced.remove(&id);
                invariants::removed_leaves_nothing(self, id)?;
                self.specs.remove(&id);
            }
            Change::Goal(_)
            | Change::Oom(_)
            | Change::Updated
            | Change::StartTimedOut(_)
            | Change::PauseFailed { .. }
            | Change::StepFailed { .. }
            | Change::Retrying { .. } => {}
        }
        Ok(())
    }

    fn kill_daemon(&mut self) {
        if self.daemon.take().is_some() {
            self.tell_story(|| "the daemon is killed".to_owned());
            self.unsaved.clear();
            self.announced.clear();
            let pause = self.chance.up_to(Duration::from_secs(30));
            self.schedule(pause, Event::DaemonStarts);
        }
    }

    fn start_daemon(&mut self) -> Check {
        self.generation += 1;
        self.tell_story(|| "a new daemon".to_owned());
        self.specs = self.store.iter().map(|(id, (spec, _))| (*id, spec.clone())).collect();
        let mut daemon = Supervisor::new();
        for (id, (spec, saved)) in &self.store {
            invariants::only_the_saved_run_is_alive(&self.runtime, *id, &saved.phase)?;
            let observed = self.runtime.observe(*id, saved.phase.living_run(), self.stamp());
            // A wish that was lost before it was durable is no reason any more.
            match saved.phase {
                Phase::Canceling { kill_at, .. } | Phase::Stopping { kill_at, .. } => {
                    self.may_be_killed.insert(*id, kill_at);
                }
                Phase::Starting { .. } | Phase::Running { .. } => {
                    self.may_be_killed.remove(id);
                }
                Phase::Created
                | Phase::Killing { .. }
                | Phase::CleaningUp { .. }
                | Phase::Ended { .. }
                | Phase::Removing => {}
            }
            daemon.adopt(self.now, *id, spec.clone(), saved.clone(), observed);
            if self.told {
                self.story.push_back(format!("    {id:?} {saved:?} {observed:?}"));
            }
        }
        self.daemon = Some(daemon);
        self.carry_out(false)
    }

    /// To the daemon that lives now; once or twice, at once or later.
    fn tell(&mut self, fact: Fact) {
        let delay = if self.chance.percent(self.temper.late) {
            self.chance.up_to(Duration::from_secs(30))
        } else {
            Duration::ZERO
        };
        self.schedule(delay, Event::Tell(fact.clone()));
        if self.chance.percent(self.temper.repeats) {
            let delay = self.chance.up_to(Duration::from_secs(100));
            self.schedule(delay, Event::Tell(fact));
        }
    }

    /// Later perhaps, twice perhaps, but never before what happened earlier.
    fn tell_in_order(&mut self, fact: Fact) {
        let delay = self.delay(0, self.temper.late, 30);
        let told_by = self.told_by.entry(fact.id()).or_default();
        *told_by = (self.now + delay).max(*told_by);
        let delay = told_by.since(self.now);
        self.schedule(delay, Event::Tell(fact.clone()));
        if self.chance.percent(self.temper.repeats) {
            self.schedule(delay, Event::Tell(fact));
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        // While there is no daemon, nobody listens.
        let generation = if self.daemon.is_some() { self.generation } else { 0 };
        self.agenda.insert((self.now + delay, self.sequence), (generation, event));
    }

    /// Up to `usual` seconds, or, in `percent` of the cases, up to `slow`.
    fn delay(&mut self, usual: u64, percent: u64, slow: u64) -> Duration {
        let longest = if self.chance.percent(percent) { slow } else { usual };
        self.chance.up_to(Duration::from_secs(longest))
    }

    fn stamp(&self) -> Stamp {
        Stamp { boot: self.now, wall: self.now.0 }
    }

    fn failure(&self, kind: FailureKind) -> Failure {
        Failure { kind, message: "it broke".to_owned(), at: self.stamp() }
    }

    fn tell_story(&mut self, line: impl FnOnce() -> String) {
        if self.told {
            if self.story.len() == STORY {
                self.story.pop_front();
            }
            self.story.push_back(format!("{:>10.3} s  {}", self.now.0 as f64 / 1e9, line()));
        }
    }
}

impl Temper {
    fn calm(&self) -> bool {
        let Self { stalls, fails, repeats, late, loses, unsaved, kills_daemon } = *self;
        stalls + fails + repeats + late + loses + unsaved + kills_daemon == 0
    }
}

/// Is this the run that was about to start?
pub(super) fn intends(phase: &Phase, run: Run) -> bool {
    matches!(phase, Phase::Starting { run: intended } if *intended == run)
}
