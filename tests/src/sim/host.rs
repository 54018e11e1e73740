//! The daemon's driver and everything around it, simulated.

use super::invariants::{self, Check};
use super::ledger::Account;
use super::runtime::{Life, Nature, Runtime};
use super::{Chance, Violation, wishes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use wharf_supervisor::{
    Accepted, Change, Command, Effect, Exit, ExitStatus, Fact, Failure, FailureKind, Goal, Hold, Hook, Id,
    Limits, Observed, Phase, ProbeKind, ProbeResult, Run, Saved, Signal, Spec, Stamp, State, Supervisor,
    Time,
};

const STORM: Duration = Duration::from_secs(600);
/// Far more than any seed needs: whoever is not done by then never will be.
const CALM: Duration = Duration::from_secs(4 * 3600);
/// What rests for so long does not leave it again by itself.
const REST: Duration = Duration::from_secs(20);
const STORY: usize = 4000;
/// A storm takes a few hundred; more than this is two sides that keep each other busy.
const STEPS: usize = 100_000;
/// After a boot the clock starts at zero, and the daemon some seconds later.
const BOOT: Time = Time(3_000_000_000);
/// Twenty years.
const LONGEST_SLEEP: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Live through one seed. With `told`, the violation comes with what happened before it.
pub fn simulate(seed: u64, told: bool) -> Result<(), Violation> {
    let mut host = Host::new(seed, told);
    host.live().map_err(|what| Violation { seed, what, story: host.story.into() })
}

/// How bad this world is, in percent of the occasions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Temper {
    pub stalls: u64,
    pub fails: u64,
    pub repeats: u64,
    pub late: u64,
    pub loses: u64,
    pub ill: u64,
    unsaved: u64,
    kills_daemon: u64,
    /// Of a thousand.
    sleeps: u64,
    /// Of a thousand.
    reboots: u64,
}

impl Temper {
    const CALM: Self = Self {
        stalls: 0,
        fails: 0,
        repeats: 0,
        late: 0,
        loses: 0,
        ill: 0,
        unsaved: 0,
        kills_daemon: 0,
        sleeps: 0,
        reboots: 0,
    };

    /// Not every storm has everything, so that each trouble is also met alone.
    fn storm(chance: &mut Chance) -> Self {
        let mut percent = |most| if chance.percent(50) { chance.below(most) } else { 0 };
        Self {
            stalls: percent(20),
            fails: percent(40),
            repeats: percent(40),
            late: percent(60),
            loses: percent(30),
            ill: percent(70),
            unsaved: percent(15),
            kills_daemon: percent(6),
            sleeps: percent(20),
            reboots: percent(20),
        }
    }

    pub fn calm(&self) -> bool {
        let Self { stalls, fails, repeats, late, loses, ill, unsaved, kills_daemon, sleeps, reboots } = *self;
        stalls + fails + repeats + late + loses + ill + unsaved + kills_daemon + sleeps + reboots == 0
    }
}

#[derive(Debug, Clone)]
pub(super) enum Event {
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
    Probed {
        id: Id,
        run: Run,
        kind: ProbeKind,
        number: u64,
        result: ProbeResult,
    },
    HookEnds {
        id: Id,
        run: Run,
        hook: Hook,
        number: u64,
        fails: bool,
    },
    /// It says something of itself.
    Says {
        id: Id,
        run: Run,
    },
    /// It says that it can be used.
    SaysReady {
        id: Id,
        run: Run,
    },
    /// Its watchdog is due.
    Feeds {
        id: Id,
        run: Run,
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
    /// Goes on for as long as there is something to go on with.
    fn is_routine(&self) -> bool {
        matches!(self, Self::User | Self::Feeds { .. } | Self::Probed { .. })
    }
}

pub(super) struct Host {
    pub chance: Chance,
    pub temper: Temper,
    pub limits: Limits,
    pub now: Time,
    /// Without the time it slept, and before the last boot as well.
    pub age: Duration,
    /// What the clock on the wall shows: anything, since somebody sets it before every look.
    wall: Chance,
    pub boot: u64,
    /// Which daemon this is; work of an earlier one reports to nobody.
    generation: u64,
    pub daemon: Option<Supervisor>,
    /// With the boot in which it was saved.
    pub store: BTreeMap<Id, (Spec, Saved, u64)>,
    /// What of it would survive a power cut, where that is something older.
    durable: BTreeMap<Id, (Saved, u64)>,
    /// What could not be saved yet, and is tried again.
    pub unsaved: BTreeMap<Id, Saved>,
    pub specs: BTreeMap<Id, Spec>,
    pub runtime: Runtime,
    agenda: BTreeMap<(Time, u64), (u64, Event)>,
    sequence: u64,
    ids: u64,
    pub accounts: BTreeMap<Id, Account>,
    /// Places in the budget of restarts that this daemon has given away.
    pub places: VecDeque<Time>,
    pub numbers: u64,
    /// Until when the news of each container's frost are on their way.
    told_by: BTreeMap<Id, Time>,
    told: bool,
    story: VecDeque<String>,
}

impl Host {
    fn new(seed: u64, told: bool) -> Self {
        let mut chance = Chance::new(seed);
        let temper = Temper::storm(&mut chance);
        let limits = wishes::limits(&mut chance);
        Self {
            chance,
            temper,
            limits,
            now: BOOT,
            age: Duration::ZERO,
            wall: Chance::new(!seed),
            boot: 0,
            generation: 1,
            daemon: Some(Supervisor::new(limits)),
            store: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            specs: BTreeMap::new(),
            runtime: Runtime::default(),
            agenda: BTreeMap::new(),
            sequence: 0,
            ids: 0,
            accounts: BTreeMap::new(),
            places: VecDeque::new(),
            numbers: 0,
            told_by: BTreeMap::new(),
            told,
            story: VecDeque::new(),
        }
    }

    fn live(&mut self) -> Check {
        self.tell_story(|| "storm".to_owned());
        self.schedule(Duration::ZERO, Event::User);
        for _ in 0..STEPS {
            if !self.step(STORM)? {
                break;
            }
        }
        self.temper = Temper::CALM;
        self.tell_story(|| "calm".to_owned());
        if self.daemon.is_none() {
            self.start_daemon()?;
        }
        let (last, _) = self
            .agenda
            .iter()
            .filter(|(_, (_, event))| !event.is_routine())
            .map(|(at, _)| *at)
            .next_back()
            .unwrap_or_default();
        let end = self.age + CALM;
        let mut rests_since = None;
        for _ in 0..STEPS {
            let rests = if self.now > last { invariants::at_rest(self) } else { Err(String::new()) };
            match (rests, rests_since) {
                // It was but a pause: somebody had still to wait for another.
                (Err(_), _) => rests_since = None,
                (Ok(()), None) => rests_since = Some(self.age),
                (Ok(()), Some(since)) if self.age > since + REST => return invariants::at_the_end(self),
                (Ok(()), Some(_)) => {}
            }
            if !self.step(end)? {
                break;
            }
        }
        invariants::at_rest(self)?;
        invariants::at_the_end(self)
    }

    /// The next event or deadline before the host is of this age; false if there is none.
    fn step(&mut self, end: Duration) -> Result<bool, String> {
        let event_at = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.daemon.as_ref().and_then(Supervisor::next_deadline);
        let Some(next) = event_at.into_iter().chain(deadline).min() else { return Ok(false) };
        let passes = next.since(self.now);
        if self.age + passes >= end {
            return Ok(false);
        }
        self.age += passes;
        self.now = self.now.max(next);
        if event_at == Some(next) {
            if let Some((_, (generation, event))) = self.agenda.pop_first() {
                self.tell_story(|| format!("{event:?}"));
                self.happen(generation, event)?;
            }
        } else if let Some(daemon) = &mut self.daemon {
            daemon.tick(self.now);
            self.tell_story(|| "tick".to_owned());
            self.carry_out(None)?;
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
        if self.chance.below(1000) < self.temper.sleeps {
            self.sleep()?;
        }
        if self.chance.below(1000) < self.temper.reboots {
            self.reboot();
        }
        invariants::always(self)?;
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
            Event::Tell(fact) if reported => self.tell_now(fact)?,
            Event::Executed { id, run } => self.executed(id, run),
            Event::NotExecuted { id, run } => self.not_executed(id, run),
            Event::Oom { id, run } => self.tell(Fact::Oom { id, run }),
            Event::Ends { id, run, status } => self.ends(id, run, status),
            Event::KillLands { id, run } => self.kill_lands(id, run),
            Event::Frost { id, run, frozen } => self.frost(id, run, frozen),
            Event::CleanedUp { id, run } => self.cleaned_up(id, run),
            Event::Says { id, run } => self.says(id, run),
            Event::SaysReady { id, run } => self.says_ready(id, run),
            Event::Feeds { id, run } => self.feeds(id, run),
            // What is the daemon's own work ends with it.
            Event::Deleted { id } if reported => self.deleted(id),
            Event::Probed { id, run, kind, number, result } if reported => {
                self.probed(id, run, kind, number, result)?;
            }
            Event::HookEnds { id, run, hook, number, fails } if reported => {
                self.hook_ends(id, run, hook, number, fails)?;
            }
            Event::Tell(_) | Event::Deleted { .. } | Event::Probed { .. } | Event::HookEnds { .. } => {}
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
        let last = invariants::last_runs(self);
        let first = invariants::who_stops_first(self, &command);
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let answer = daemon.command(self.now, command.clone());
        self.tell_story(|| format!("{command:?}: {answer:?}"));
        match answer {
            Ok(Accepted::Underway) => {}
            Ok(Accepted::Already) => return invariants::already_changes_nothing(self, &command, before),
            Err(rejection) => return invariants::refusal_changes_nothing(self, &rejection, before),
        }
        let new = match &command {
            Command::Create { id, spec } | Command::Run { id, spec } => {
                self.specs.insert(*id, spec.clone());
                self.accounts.insert(*id, Account { down: true, ..Account::default() });
                Some(*id)
            }
            Command::Start { .. }
            | Command::Stop { .. }
            | Command::StopAll { .. }
            | Command::ResetFailed { .. }
            | Command::Kill { .. }
            | Command::Restart { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Update { .. }
            | Command::Remove { .. } => None,
        };
        self.note(&command, first);
        invariants::accepted_start_aims_at_a_new_run(self, &command, &last)?;
        invariants::stop_shortens(self, &command)?;
        invariants::names_are_unique(self)?;
        self.carry_out(new)
    }

    /// Everything that a command could change.
    pub fn overview(&self) -> invariants::Overview {
        let containers = self.daemon.iter().flat_map(Supervisor::containers);
        containers.map(|container| (container.id(), container.goal(), container.state().clone())).collect()
    }

    fn wish(&mut self) -> Command {
        let known: Vec<Id> = self.specs.keys().rev().take(5).copied().collect();
        if known.is_empty() || self.chance.percent(15) {
            self.ids += 1;
            let id = Id::from_bytes([self.ids as u8; 32]);
            let spec = wishes::spec(&mut self.chance);
            return if self.chance.percent(70) {
                Command::Run { id, spec }
            } else {
                Command::Create { id, spec }
            };
        }
        wishes::command(&mut self.chance, &known)
    }

    /// What was asked for says which starts and ends are no surprise.
    fn note(&mut self, command: &Command, first: BTreeMap<Id, BTreeSet<Id>>) {
        let now = self.now;
        let grace_of = |id: &Id, specs: &BTreeMap<Id, Spec>| specs.get(id).map(|spec| spec.stop.grace);
        match command {
            Command::Run { id, .. } | Command::Start { id } | Command::Restart { id, .. } => {
                for required in self.required_by(*id) {
                    let container = self.daemon.as_ref().and_then(|daemon| daemon.container(required));
                    if !container.is_some_and(|container| matches!(container.goal(), Goal::Up { .. })) {
                        continue;
                    }
                    let account = self.accounts.entry(required).or_default();
                    (account.asked, account.down) = (true, false);
                }
                let account = self.accounts.entry(*id).or_default();
                (account.asked, account.down) = (true, false);
                if let Command::Restart { id, grace } = command {
                    account.permit(now, grace.or(grace_of(id, &self.specs)).unwrap_or_default());
                }
                account.after.clear();
                // Who is to run again is not waited for.
                self.accounts.values_mut().for_each(|account| account.after.clear());
            }
            Command::Stop { id, grace } => {
                let grace = grace.or(grace_of(id, &self.specs)).unwrap_or_default();
                let account = self.accounts.entry(*id).or_default();
                account.permit(now, grace);
                (account.asked, account.down) = (false, true);
                if grace.is_zero() {
                    account.after.clear();
                }
            }
            Command::StopAll { grace } => {
                for (id, account) in &mut self.accounts {
                    let grace = grace.or(grace_of(id, &self.specs)).unwrap_or_default();
                    account.permit(now, grace);
                    (account.asked, account.down) = (false, true);
                    account.after = first.get(id).cloned().unwrap_or_default();
                }
            }
            Command::Kill { id, signal: Signal::KILL } | Command::Remove { id, .. } => {
                let account = self.accounts.entry(*id).or_default();
                account.permit(now, Duration::ZERO);
                (account.asked, account.down) = (false, true);
                account.after.clear();
            }
            Command::Create { .. }
            | Command::ResetFailed { .. }
            | Command::Kill { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Update { .. } => {}
        }
    }

    /// Everybody that it takes for this one to run.
    fn required_by(&self, id: Id) -> BTreeSet<Id> {
        let mut all = BTreeSet::new();
        let mut next = vec![id];
        while let Some(id) = next.pop() {
            let requires = self.specs.get(&id).map(|spec| spec.requires.clone()).unwrap_or_default();
            let ids = self.specs.iter().filter(|(_, spec)| requires.iter().any(|one| one.name == spec.name));
            next.extend(ids.filter(|(id, _)| all.insert(**id)).map(|(id, _)| *id));
        }
        all
    }

    /// What the daemon's driver does: in order, with the rules of [`Effect::Save`].
    fn carry_out(&mut self, new: Option<Id>) -> Check {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let mut void = None;
        for effect in daemon.effects() {
            self.tell_story(|| format!("    {effect:?}"));
            let id = effect.id();
            if void == Some(id) {
                continue;
            }
            match &effect {
                Effect::Save { id, saved } => {
                    self.accounts.entry(*id).or_default().intend(self.age, &saved.phase);
                    if self.chance.percent(self.temper.unsaved) {
                        self.tell_story(|| "    (not saved)".to_owned());
                        if new == Some(*id) && !self.store.contains_key(id) {
                            void = new;
                            continue;
                        }
                        self.unsaved.insert(*id, saved.clone());
                        let pause = self.chance.up_to(Duration::from_secs(5));
                        self.schedule(pause, Event::SaveAgain);
                    } else {
                        self.save(*id, saved.clone());
                    }
                }
                Effect::Start { run, .. } => self.start(id, *run)?,
                Effect::Cleanup { run, .. } if self.unsaved.contains_key(&id) => {
                    let fact = Fact::CleanupFailed { id, run: *run, reason: "not saved".into() };
                    self.schedule(Duration::ZERO, Event::Tell(fact));
                }
                Effect::Signal { run, .. } => self.signal(&effect, id, *run)?,
                Effect::Kill { run, .. } => {
                    invariants::no_kill_without_a_reason(self, id, *run)?;
                    self.kill(id, *run);
                }
                Effect::Freeze { run, .. } => self.freeze(id, *run, true),
                Effect::Thaw { run, .. } => self.freeze(id, *run, false),
                Effect::Limit { .. } => {
                    if !self.chance.percent(self.temper.fails) {
                        self.tell(Fact::Limited { id });
                    }
                }
                Effect::Probe { run, kind, timeout, .. } => self.probe(id, *run, *kind, *timeout)?,
                Effect::Hook { run, hook, timeout, .. } => self.hook(id, *run, *hook, *timeout)?,
                Effect::Cleanup { run, .. } => self.clean_up(id, *run)?,
                Effect::Delete { .. } => self.delete(id)?,
                Effect::Announce { change, .. } => self.announce(id, change)?,
            }
            if self.chance.percent(self.temper.kills_daemon) {
                self.kill_daemon();
                return Ok(());
            }
        }
        match (void, &mut self.daemon) {
            (Some(id), Some(daemon)) => {
                daemon.fact(self.now, Fact::CreateFailed { id });
                self.carry_out(None)
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    pub fn tell_now(&mut self, fact: Fact) -> Check {
        self.hear(&fact);
        if let Some(daemon) = &mut self.daemon {
            daemon.fact(self.now, fact);
        }
        self.carry_out(None)
    }

    fn save(&mut self, id: Id, saved: Saved) {
        self.unsaved.remove(&id);
        let Some(spec) = self.specs.get(&id) else { return };
        // That a run lives does not survive a power cut anyway, so nobody waits for the disk to say so.
        match (&saved.phase, self.store.get(&id)) {
            (Phase::Running { .. }, Some((_, earlier, boot))) => {
                self.durable.entry(id).or_insert((earlier.clone(), *boot));
            }
            (_, _) => {
                self.durable.remove(&id);
            }
        }
        self.store.insert(id, (spec.clone(), saved, self.boot));
    }

    fn save_again(&mut self) {
        for (id, saved) in std::mem::take(&mut self.unsaved) {
            self.save(id, saved);
        }
    }

    fn start(&mut self, id: Id, run: Run) -> Check {
        invariants::requirements_hold_at_start(self, id)?;
        invariants::restart_only_if_policy_says_so(self, id)?;
        invariants::starts_within_limit(self, id)?;
        invariants::restart_budget_kept(self, id)?;
        let spec = self.specs.get(&id).ok_or("a start of nobody")?;
        self.accounts.entry(id).or_default().begin(self.now, spec);
        if self.unsaved.contains_key(&id) {
            let failure = self.failure(FailureKind::NotSaved);
            self.schedule(Duration::ZERO, Event::Tell(Fact::StartFailed { id, run, failure }));
            return Ok(());
        }
        invariants::save_before_start(self, id, run)?;
        invariants::runs_count_up(self, id, run)?;
        let nature = Nature {
            stubborn: self.chance.percent(30),
            illness: *self.chance.of(&[
                0,
                self.temper.ill / 2,
                self.temper.ill,
                100.min(self.temper.ill * 100),
            ]),
            forgetful: if self.chance.percent(self.temper.ill) { 60 } else { 0 },
        };
        self.runtime.begin(id, run, nature);
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
        self.begins_to_speak(id, run);
        let status = match self.chance.below(4) {
            0 => ExitStatus::Code(0),
            1 => ExitStatus::Signal(Signal::new(11).expect("SIGSEGV")),
            2 => ExitStatus::Code(*self.chance.of(&[1, 42, 137, 143])),
            _ => ExitStatus::Code(self.chance.below(256) as u8),
        };
        if self.temper.calm() {
            return;
        }
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
        let failure =
            self.failure(*self.chance.clone().of(&[FailureKind::Failed, FailureKind::CommandNotFound]));
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
        invariants::no_stop_without_a_reason(self, id, run)?;
        invariants::dependants_stop_first(self, id)?;
        let Some(real) = self.runtime.get(id, run) else { return Ok(()) };
        if real.frozen {
            real.signalled = true;
        } else if obeys && !real.nature.stubborn {
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
        let signalled = !frozen && std::mem::take(&mut real.signalled) && !real.nature.stubborn;
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
        self.durable.remove(&id);
        self.tell(Fact::Deleted { id });
    }

    fn delete_runs(&mut self, id: Id) {
        for ((_, _), real) in self.runtime.runs.iter_mut().filter(|((of, _), _)| *of == id) {
            real.remains = false;
            real.record = false;
        }
    }

    fn announce(&mut self, id: Id, change: &Change) -> Check {
        let now = self.now;
        match change {
            Change::Added => self.accounts.entry(id).or_default().announce(now, &State::Created),
            Change::State(state) => {
                invariants::stop_has_the_grace_it_was_given(self, id, state)?;
                self.accounts.entry(id).or_default().announce(now, state);
            }
            Change::Ready(ready) => {
                invariants::post_start_before_ready(self, id, *ready)?;
                self.accounts.entry(id).or_default().ready = *ready;
            }
            Change::Probe(settled) => {
                self.accounts.entry(id).or_default().settled.insert(settled.kind, settled.success);
            }
            Change::Unhealthy(verdict) => {
                invariants::never_restart_a_healthy_container(self, id, *verdict)?;
                let grace = self.specs.get(&id).map(|spec| invariants::grace_after(spec, *verdict));
                let account = self.accounts.entry(id).or_default();
                account.unhealthy = true;
                account.permit(now, grace.unwrap_or_default());
            }
            Change::Restarting { at, delay, count } => {
                invariants::no_restart_beyond_a_limit(self, id, *count)?;
                invariants::restart_follows_an_end(self, id)?;
                invariants::back_off_never_shorter_than_policy(self, id, *at, *delay)?;
                self.accounts.entry(id).or_default().restarting = Some(*at);
            }
            Change::Held(hold) => {
                let container = self.daemon.as_ref().and_then(|daemon| daemon.container(id));
                let place = match container.map(wharf_supervisor::Container::state) {
                    Some(State::Waiting { start_at, hold: Some(Hold::Restarts), .. }) => Some(*start_at),
                    Some(_) | None => None,
                };
                let account = self.accounts.entry(id).or_default();
                match hold {
                    Hold::Requires { .. } => account.place = None,
                    Hold::Starts => account.place = account.place.or(Some(now)),
                    Hold::Restarts => account.place = place,
                }
            }
            Change::GaveUp(why) => {
                invariants::given_up_only_at_a_limit(self, id, *why)?;
                self.accounts.entry(id).or_default().down = true;
            }
            Change::Removed => {
                self.accounts.remove(&id);
                invariants::removed_leaves_nothing(self, id)?;
                self.specs.remove(&id);
            }
            Change::Goal(_)
            | Change::Oom(_)
            | Change::Updated
            | Change::StartTimedOut(_)
            | Change::Status(_)
            | Change::HookFailed { .. }
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
            let pause = self.chance.up_to(Duration::from_secs(30));
            self.schedule(pause, Event::DaemonStarts);
        }
    }

    /// Nothing happens for a long time, and nobody can do anything in it; but the clock goes on.
    fn sleep(&mut self) -> Check {
        let slept = self.chance.up_to(LONGEST_SLEEP);
        self.now = self.now + slept;
        self.tell_story(|| format!("slept for {slept:?}"));
        let agenda = std::mem::take(&mut self.agenda);
        self.agenda = agenda.into_iter().map(|((at, place), what)| ((at + slept, place), what)).collect();
        self.accounts.values_mut().for_each(|account| account.sleep(slept));
        self.told_by.values_mut().for_each(|at| *at = *at + slept);
        if let Some(daemon) = &mut self.daemon {
            daemon.slept(self.now, slept);
            self.carry_out(None)?;
        }
        Ok(())
    }

    /// Everything ends, and the clock begins anew.
    fn reboot(&mut self) {
        self.kill_daemon();
        self.tell_story(|| "the host is started anew".to_owned());
        let at = self.stamp();
        self.runtime.reboot(at);
        self.now = BOOT;
        self.boot += 1;
        self.agenda.clear();
        self.told_by.clear();
        self.places.clear();
        if self.chance.percent(50) {
            for (id, (saved, boot)) in std::mem::take(&mut self.durable) {
                if let Some(stored) = self.store.get_mut(&id) {
                    (stored.1, stored.2) = (saved, boot);
                }
            }
        }
        self.durable.clear();
        self.accounts.values_mut().for_each(Account::reboot);
        self.schedule(Duration::ZERO, Event::DaemonStarts);
        let pause = self.chance.up_to(Duration::from_secs(60));
        self.schedule(pause, Event::User);
    }

    fn start_daemon(&mut self) -> Check {
        self.generation += 1;
        self.tell_story(|| "a new daemon".to_owned());
        self.specs = self.store.iter().map(|(id, (spec, ..))| (*id, spec.clone())).collect();
        self.accounts.retain(|id, _| self.store.contains_key(id));
        self.places.clear();
        let mut daemon = Supervisor::new(self.limits);
        let mut observations = BTreeMap::new();
        for (id, (spec, saved, boot)) in &mut self.store {
            invariants::only_the_saved_run_is_alive(&self.runtime, *id, &saved.phase)?;
            let stamp = Stamp { boot: self.now, wall: wall(&mut self.wall) };
            let mut observed = self.runtime.observe(*id, saved.phase.living_run(), stamp);
            if *boot != self.boot {
                forget_times(saved);
                observed = Observed::Rebooted { at: stamp };
            }
            self.accounts.entry(*id).or_default().reopen(self.now, spec, saved, *boot != self.boot);
            daemon.adopt(self.now, *id, spec.clone(), saved.clone(), observed);
            observations.insert(*id, observed);
            if self.told {
                self.story.push_back(format!("    {id:?} {saved:?} {observed:?}"));
            }
        }
        invariants::counters_survive_the_daemon(self, &daemon, &observations)?;
        daemon.adopted(self.now);
        for (id, first) in invariants::who_stops_first_after_adoption(self, &observations) {
            self.accounts.entry(id).or_default().after = first;
        }
        self.daemon = Some(daemon);
        self.carry_out(None)
    }

    /// To the daemon that lives now; once or twice, at once or later.
    pub fn tell(&mut self, fact: Fact) {
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

    pub fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        // While there is no daemon, nobody listens.
        let generation = if self.daemon.is_some() { self.generation } else { 0 };
        self.agenda.insert((self.now + delay, self.sequence), (generation, event));
    }

    /// Up to `usual` seconds, or, in `percent` of the cases, up to `slow`.
    pub fn delay(&mut self, usual: u64, percent: u64, slow: u64) -> Duration {
        let longest = if self.chance.percent(percent) { slow } else { usual };
        self.chance.up_to(Duration::from_secs(longest))
    }

    fn stamp(&mut self) -> Stamp {
        Stamp { boot: self.now, wall: wall(&mut self.wall) }
    }

    fn failure(&mut self, kind: FailureKind) -> Failure {
        Failure { kind, message: "it broke".to_owned(), at: self.stamp() }
    }

    fn tell_story(&mut self, line: impl FnOnce() -> String) {
        if self.told {
            if self.story.is_empty() {
                self.story.push_back(format!("{:?} {:?}", self.temper, self.limits));
            }
            if self.story.len() == STORY {
                self.story.pop_front();
            }
            self.story.push_back(format!("{:>10.3} s  {}", self.now.0 as f64 / 1e9, line()));
        }
    }
}

/// Years before or after the last look, or at either end of what a clock can show.
fn wall(chance: &mut Chance) -> u64 {
    match chance.below(10) {
        0 => 0,
        1 => u64::MAX,
        _ => chance.below(u64::MAX),
    }
}

/// What the daemon does with what was saved in an earlier boot.
fn forget_times(saved: &mut Saved) {
    let forget = |time: &mut Time| *time = Time::default();
    match &mut saved.phase {
        Phase::Waiting { last, start_at, .. } => {
            forget(start_at);
            if let Some(last) = last {
                forget_ending(&mut last.ending);
            }
        }
        Phase::Canceling { kill_at, .. } | Phase::Stopping { kill_at, .. } => forget(kill_at),
        Phase::CleaningUp { ending, .. } | Phase::Ended { ending, .. } | Phase::GivenUp { ending, .. } => {
            forget_ending(ending);
        }
        Phase::Created
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Killing { .. }
        | Phase::Removing => {}
    }
    if let Some(started) = &mut saved.started {
        forget(&mut started.boot);
    }
    saved.restarts.decided_at.iter_mut().for_each(forget);
    saved.restarts.recent.iter_mut().for_each(forget);
    saved.restarts.limit_from.iter_mut().for_each(forget);
    saved.vitals.ready_since.iter_mut().for_each(forget);
}

fn forget_ending(ending: &mut wharf_supervisor::Ending) {
    match ending {
        wharf_supervisor::Ending::Exited(exit) => exit.at.boot = Time::default(),
        wharf_supervisor::Ending::Failed(failure) => failure.at.boot = Time::default(),
    }
}

/// Is this the run that was about to start?
pub(super) fn intends(phase: &Phase, run: Run) -> bool {
    matches!(phase, Phase::Starting { run: intended } if *intended == run)
}
