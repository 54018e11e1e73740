//! The one loop around the supervisor: commands, facts and the next deadline in; effects out, in order.
//!
//! ```text
//! api ──command──┐                       ┌─► store (one transaction for all saves of a round)
//! runtime ─fact──┼─► Supervisor ─effects─┼─► runtime (tasks)
//! clock ──tick───┘                       └─► views, events, log
//! ```
//!
//! It waits for nothing but the disk: whatever came in while a commit was under way shares the next one.

use crate::clock::{self, Alarm};
use crate::config::{self, Ids};
use crate::damaged::Damaged;
use crate::definition::Definition;
use crate::events::Events;
use crate::ids::{self, RANGE_SIZE};
use crate::probe::{Handler, Outcome};
use crate::runtime::{Asked, Found, Runtime, Start, Stdio};
use crate::saved::Saved;
use crate::store::{Change, Durable, Record, Store};
use crate::supervision::probe::Handlers;
use crate::view::{View, Views};
use anyhow::{Context, bail};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use wharf_bus::Error;
use wharf_bus::spec::Resources;
use wharf_oci::Limits;
use wharf_supervisor as core;
use wharf_supervisor::{
    Accepted, Command, Effect, Ending, Fact, Id, Observed, State, Supervisor, Time, Wait,
};

/// Commands that wait for the loop; more would only wait elsewhere.
pub const COMMANDS: usize = 256;
/// Facts that wait for the loop: a few of each of a thousand containers.
pub const FACTS: usize = 4096;
/// What one commit takes with it at most, so that the first of a flood does not wait for the last.
const ROUND: usize = 256;
/// The two clocks are not read at the same moment; a suspend takes longer than this.
const SUSPEND: Duration = Duration::from_millis(500);
/// After a failed commit, the next attempt for what has to be written all the same.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Granted, Error>>;

/// A wish on its way to the supervisor.
#[derive(Debug)]
pub struct Wish {
    /// What is wanted.
    pub command: Command,
    /// What the supervisor does not need to know.
    pub with: With,
    /// Where the answer goes.
    pub reply: Reply,
}

/// What comes along with a command.
#[derive(Debug)]
pub enum With {
    /// Nothing.
    Nothing,
    /// With Create and Run: the definition, and how its probes are carried out; with Run perhaps what to connect.
    Definition(Box<(Definition, Handlers)>, Option<Stdio>),
    /// With Start: perhaps what to connect.
    Stdio(Option<Stdio>),
    /// With Update: the definition with the new limits, and these.
    Limits(Box<Definition>, Limits),
}

/// A wish that was accepted.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    /// Was it so already?
    pub accepted: Accepted,
    /// The run that the goal asks for now, if it asks for one.
    pub run: Option<u64>,
}

/// The shell's half of a container.
#[derive(Debug)]
struct Held {
    definition: Arc<Definition>,
    handlers: Handlers,
    first_id: Option<u32>,
    stdio: Option<Stdio>,
    update: Option<Update>,
    oom_killed: bool,
    /// The state that the log has named last.
    logged: &'static str,
    /// What was odd about each probe that was carried out last.
    remarks: HashMap<&'static str, String>,
    /// Has a probe said something when it was carried out last?
    restless: bool,
}

impl Held {
    fn new(definition: Definition, handlers: Handlers, first_id: Option<u32>, stdio: Option<Stdio>) -> Self {
        let definition = Arc::new(definition);
        let (remarks, restless) = (HashMap::new(), false);
        let (update, oom_killed, logged) = (None, false, "");
        Self { definition, handlers, first_id, stdio, update, oom_killed, logged, remarks, restless }
    }
}

/// Limits on their way.
#[derive(Debug)]
struct Update {
    definition: Definition,
    limits: Limits,
    reply: Reply,
}

/// What a task of the driver has to say.
#[derive(Debug)]
enum Done {
    /// Work that reports by facts, or not at all.
    Work,
    /// All files of a container are gone, or not.
    Deleted(Id, anyhow::Result<()>),
    /// A probe was carried out: what is odd about it.
    Probed(Id, core::ProbeKind, Option<String>),
    /// Limits are in force, or not.
    Limited(Id, anyhow::Result<()>),
    /// All that a damaged container had is gone, or not; and who waits for that.
    Cleared(Id, Reply, anyhow::Result<()>),
}

/// The loop and what belongs to it alone.
#[derive(Debug)]
pub struct Driver {
    supervisor: Supervisor,
    store: Store,
    ids: Ids,
    taken: BTreeSet<u32>,
    bound: usize,
    held: HashMap<Id, Held>,
    damaged: HashMap<Id, Damaged>,
    runtime: Arc<Runtime>,
    views: Arc<Views>,
    events: Arc<Events>,
    tasks: JoinSet<Done>,
    alarm: Alarm,
    /// Saves that could not be written.
    unsaved: HashMap<Id, core::Saved>,
    /// New containers that are not in the store yet, and who waits for them.
    new: HashMap<Id, Reply>,
    /// Those that are, to be answered as soon as the world can see them.
    born: Vec<(Reply, Granted)>,
}

impl Driver {
    /// Take over what the store knows. Facts of runs that live begin to flow.
    pub async fn new(
        store: Store,
        ids: Ids,
        limits: &config::Limits,
        runtime: Arc<Runtime>,
        views: Arc<Views>,
        events: Arc<Events>,
    ) -> anyhow::Result<Self> {
        let taken = store.ranges()?;
        let mut driver = Self {
            supervisor: Supervisor::new(limits.core()),
            store,
            ids,
            taken,
            bound: limits.containers,
            held: HashMap::new(),
            damaged: HashMap::new(),
            runtime,
            views,
            events,
            tasks: JoinSet::new(),
            alarm: Alarm::new().context("an alarm")?,
            unsaved: HashMap::new(),
            new: HashMap::new(),
            born: Vec::new(),
        };
        driver.recover().await?;
        Ok(driver)
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        let records = self.store.containers()?;
        let mut observations = JoinSet::new();
        let mut unfinished = Vec::new();
        let mut ids = HashSet::new();
        let mut runs = HashSet::new();
        let mut spared = HashSet::new();
        let mut nameless = false;
        for record in records {
            ids.insert(record.id.clone());
            match understood(&record) {
                Ok(Understood { id, mut definition, spec, handlers, saved, same_boot, first_id }) => {
                    unfinished.extend(definition.updating.take().map(|limits| (id, limits)));
                    runs.extend(saved.phase.living_run().map(|run| format!("{id}.{run}")));
                    let runtime = self.runtime.clone();
                    observations.spawn(async move {
                        let (observed, living) = runtime.observe(id, saved.phase.living_run()).await;
                        if !same_boot && let Err(error) = runtime.forget_records(id, saved.phase.living_run()) {
                            tracing::error!(container = %spec.name, error = %format!("{error:#}"), "old exit records, ignoring");
                        }
                        let observed = match observed {
                            Observed::Nothing { at } if !same_boot => Observed::Rebooted { at },
                            Observed::Nothing { .. }
                            | Observed::Rebooted { .. }
                            | Observed::Starting
                            | Observed::Alive { .. }
                            | Observed::Exited(_) => observed,
                        };
                        let held = Held::new(definition, handlers, first_id, None);
                        (id, held, spec, saved, (observed, living))
                    });
                }
                // One damaged record must not keep the others from being looked after.
                Err(error) => {
                    tracing::error!(
                        container = %record.name,
                        id = %record.id,
                        error = %format!("{error:#}"),
                        "what was saved of a container cannot be used, leaving it alone"
                    );
                    match record.id.parse::<Id>() {
                        Ok(id) => {
                            spared.insert(record.id.clone());
                            self.damaged.insert(id, Damaged::new(id, record, &error));
                        }
                        Err(_) => nameless = true,
                    }
                }
            }
        }
        if nameless {
            tracing::warn!("nothing is swept away: it is unclear whose it is");
        } else {
            let runtime = self.runtime.clone();
            let swept = tokio::task::spawn_blocking(move || runtime.sweep(&ids, &runs, &spared)).await?;
            if let Err(error) = swept {
                tracing::warn!(error = %format!("{error:#}"), "something that nobody owns is left, ignoring");
            }
        }
        let mut found = Vec::new();
        while let Some(observed) = observations.join_next().await {
            found.push(observed.context("looking for living runs")?);
        }
        let now = clock::now();
        for (id, held, spec, saved, (observed, living)) in found {
            self.held.insert(id, held);
            tracing::info!(container = %spec.name, ?observed, "taken over");
            let ran = matches!(saved.phase, core::Phase::Running { .. });
            self.supervisor.adopt(now, id, spec, saved, observed);
            if ran {
                // Seen before it is announced: that it runs is no news.
                self.publish(id);
            }
            self.adopt_run(id, living);
        }
        self.supervisor.adopted(now);
        for (id, limits) in unfinished {
            self.finish_update(now, id, limits);
        }
        self.carry_out();
        let all: Vec<Id> = self.held.keys().copied().collect();
        for id in all {
            self.publish(id);
        }
        for damaged in self.damaged.values() {
            self.views.publish(damaged.view(&self.runtime.paths));
        }
        Ok(())
    }

    /// An earlier wharfd has begun to change limits, and nobody knows which of them are in force.
    fn finish_update(&mut self, now: Time, id: Id, limits: Resources) {
        let Some(held) = self.held.get(&id) else { return };
        // Nobody waits for the answer.
        let (reply, _) = oneshot::channel();
        match held.definition.with_resources(id, limits, &self.runtime.host) {
            Ok((definition, limits)) => {
                let with = With::Limits(Box::new(definition), limits);
                self.wish(now, Wish { command: Command::Update { id }, with, reply }, &mut Vec::new());
            }
            Err(error) => {
                tracing::warn!(container = ?id, %error, "limits that cannot be set any more, ignoring")
            }
        }
        if !self.is_updating(id) {
            self.forget_update(id);
        }
    }

    /// There are no other limits to come.
    fn forget_update(&mut self, id: Id) {
        let Some(held) = self.held.get(&id) else { return };
        let definition = held.definition.clone();
        if let Err(error) = self.write_definition(id, &definition, Durable::AfterCrash) {
            tracing::warn!(container = ?id, error = %format!("{error:#}"), "limits that were not set will be tried again by the next wharfd");
        }
    }

    fn adopt_run(&mut self, id: Id, living: Option<Found>) {
        if let Some(found) = living {
            let runtime = self.runtime.clone();
            let speaks = self.held.get(&id).is_some_and(|held| held.definition.spec.notify.is_some());
            // A stop that an earlier wharfd began is carried on at once, and finds the run.
            let adopted = runtime.adopt(id, found, speaks);
            self.tasks.spawn(async move {
                adopted.await;
                Done::Work
            });
        }
    }

    /// The loop; ends when nobody can wish for anything any more.
    pub async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, mut facts: mpsc::Receiver<Fact>) {
        let mut next_wishes = Vec::new();
        let mut next_facts = Vec::new();
        let mut suspended = clock::suspended();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                count = wishes.recv_many(&mut next_wishes, ROUND) => {
                    if count == 0 {
                        return;
                    }
                }
                _ = facts.recv_many(&mut next_facts, ROUND) => {}
                Some(done) = self.tasks.join_next() => self.done(done),
                rung = self.alarm.at(deadline) => if let Err(error) = rung {
                    tracing::error!(%error, "setting the alarm, looking again in a while");
                    tokio::time::sleep(SAVE_AGAIN).await;
                },
            }
            // What has come in the meantime shares the round.
            while next_facts.len() < ROUND
                && let Ok(fact) = facts.try_recv()
            {
                next_facts.push(fact);
            }
            while next_wishes.len() < ROUND
                && let Ok(wish) = wishes.try_recv()
            {
                next_wishes.push(wish);
            }
            let now = clock::now();
            let all = clock::suspended();
            if let Some(slept) = all.checked_sub(suspended).filter(|slept| *slept > SUSPEND) {
                tracing::info!(?slept, "the host was suspended");
                self.supervisor.slept(now, slept);
                suspended = all;
            }
            let mut restless = BTreeSet::new();
            for fact in next_facts.drain(..) {
                let probed = if let Fact::Probed { id, .. } = &fact { Some(*id) } else { None };
                self.supervisor.fact(now, fact);
                restless.extend(probed.filter(|id| self.is_restless(*id)));
            }
            let mut granted = Vec::new();
            for wish in next_wishes.drain(..) {
                self.wish(now, wish, &mut granted);
            }
            self.supervisor.tick(now);
            self.carry_out();
            for id in restless {
                self.publish(id);
            }
            for (reply, answer) in granted {
                // Who asked may have gone.
                let _ = reply.send(answer);
            }
        }
    }

    /// Have its probes anything to say, or had they? Steady successes change nothing that anybody sees.
    fn is_restless(&mut self, id: Id) -> bool {
        let (Some(container), Some(held)) = (self.supervisor.container(id), self.held.get_mut(&id)) else {
            return false;
        };
        let restless = container.vitals().health().checks().any(|check| check.message.is_some());
        std::mem::replace(&mut held.restless, restless) || restless
    }

    fn deadline(&self) -> Option<Time> {
        let next = self.supervisor.next_deadline().map(clock::rounded_up);
        if self.unsaved.is_empty() {
            return next;
        }
        let again = clock::now() + SAVE_AGAIN;
        Some(next.map_or(again, |next| next.min(again)))
    }

    fn wish(&mut self, now: Time, wish: Wish, granted: &mut Vec<(Reply, Result<Granted, Error>)>) {
        let Wish { command, with, reply } = wish;
        let Some(id) = command.id() else {
            let accepted = self.supervisor.command(now, command).map_err(refused);
            granted.push((reply, accepted.map(|accepted| Granted { accepted, run: None })));
            return;
        };
        if let Some(damaged) = self.damaged.get(&id) {
            match damaged.check(&command) {
                Ok(()) => {
                    let runtime = self.runtime.clone();
                    self.tasks.spawn(async move { Done::Cleared(id, reply, runtime.clear(id).await) });
                }
                Err(error) => granted.push((reply, Err(error))),
            }
            return;
        }
        if matches!(command, Command::Create { .. } | Command::Run { .. } | Command::Start { .. })
            && let Err(error) = self.store.room()
        {
            granted.push((reply, Err(Error::LimitReached(format!("{error:#}")))));
            return;
        }
        let accepted = match (&command, with) {
            (Command::Create { .. } | Command::Run { .. }, With::Definition(new, stdio)) => {
                match self.create(now, id, command, *new, stdio) {
                    Ok(()) => {
                        self.new.insert(id, reply);
                        return;
                    }
                    Err(error) => Err(error),
                }
            }
            (Command::Update { .. }, With::Limits(..)) if self.is_updating(id) => {
                Err(Error::WrongState("another update of this container is under way; try again".into()))
            }
            (Command::Update { .. }, With::Limits(definition, limits)) => {
                match self.supervisor.command(now, command) {
                    Ok(_) => {
                        if let Some(held) = self.held.get_mut(&id) {
                            held.update = Some(Update { definition: *definition, limits, reply });
                        }
                        return;
                    }
                    Err(rejection) => Err(refused(rejection)),
                }
            }
            (_, with) => {
                let accepted = self.supervisor.command(now, command).map_err(refused);
                if let (Ok(Accepted::Underway), With::Stdio(stdio), Some(held)) =
                    (&accepted, with, self.held.get_mut(&id))
                {
                    held.stdio = stdio;
                }
                accepted
            }
        };
        let answer = accepted.map(|accepted| Granted { accepted, run: self.wanted_run(id) });
        granted.push((reply, answer));
    }

    fn create(
        &mut self,
        now: Time,
        id: Id,
        command: Command,
        (definition, handlers): (Definition, Handlers),
        stdio: Option<Stdio>,
    ) -> Result<(), Error> {
        if self.held.len() + self.damaged.len() >= self.bound {
            return Err(Error::LimitReached(format!(
                "there are {} containers already; remove some, or raise limits.containers in wharf.toml",
                self.bound
            )));
        }
        let name = definition.spec.name.as_deref().unwrap_or_default();
        if self.damaged.values().any(|damaged| damaged.name() == name) {
            return Err(Error::NameTaken(format!(
                "the name {name} belongs to a damaged container; `ctl rm -f {name}` removes it"
            )));
        }
        let first_id = match definition.private_ids {
            false => None,
            true => Some(ids::free_range(&self.ids, &self.taken).ok_or_else(|| {
                Error::LimitReached(
                    "every range of ids is in use; remove containers, or raise ids.ranges in wharf.toml"
                        .into(),
                )
            })?),
        };
        self.supervisor.command(now, command).map_err(refused)?;
        self.taken.extend(first_id);
        self.held.insert(id, Held::new(definition, handlers, first_id, stdio));
        Ok(())
    }

    fn is_updating(&self, id: Id) -> bool {
        self.held.get(&id).is_some_and(|held| held.update.is_some())
    }

    fn wanted_run(&self, id: Id) -> Option<u64> {
        match self.supervisor.container(id)?.goal() {
            core::Goal::Up { run, .. } => Some(run.0),
            core::Goal::Down | core::Goal::Removed => None,
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = clock::now();
        match done {
            Ok(Done::Work) => {}
            Ok(Done::Deleted(id, removed)) => {
                let durable = match self.held.get(&id) {
                    // After a power cut it would be removed again.
                    Some(held) if held.definition.spec.remove => Durable::AfterCrash,
                    Some(_) | None => Durable::AfterPowerCut,
                };
                let delete = [Change::Delete { id: id.to_string() }];
                let written = removed.and_then(|()| self.commit(&delete, durable));
                let fact = match written {
                    Ok(()) => Fact::Deleted { id },
                    Err(error) => Fact::DeleteFailed { id, reason: format!("{error:#}") },
                };
                self.supervisor.fact(now, fact);
            }
            Ok(Done::Probed(id, kind, remark)) => self.remark(id, kind, remark),
            Ok(Done::Limited(id, Ok(()))) => self.supervisor.fact(now, Fact::Limited { id }),
            Ok(Done::Limited(id, Err(error))) => {
                if let Some(update) = self.held.get_mut(&id).and_then(|held| held.update.take()) {
                    self.forget_update(id);
                    let _ = update.reply.send(Err(Error::Failed(format!("{error:#}"))));
                }
            }
            Ok(Done::Cleared(id, reply, cleared)) => {
                let answer = self.cleared(id, cleared).map_err(|error| Error::Failed(format!("{error:#}")));
                let _ = reply.send(answer.map(|()| Granted { accepted: Accepted::Underway, run: None }));
            }
            Err(error) => tracing::error!(%error, "a task of the driver ended badly"),
        }
    }

    /// What is odd about a probe is said once, and again when it is something else.
    fn remark(&mut self, id: Id, kind: core::ProbeKind, remark: Option<String>) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(message) = remark else {
            held.remarks.remove(kind.name());
            return;
        };
        if held.remarks.get(kind.name()) != Some(&message) {
            let name = held.definition.spec.name.clone().unwrap_or_default();
            tracing::warn!(container = %name, probe = kind.name(), %message, "probed");
            let details = [("probe", kind.name().to_owned()), ("message", message.clone())];
            self.events.add("probe-warning", &id.to_string(), &name, &details);
            held.remarks.insert(kind.name(), message);
        }
    }

    /// A damaged container has nothing any more: now its record may go.
    fn cleared(&mut self, id: Id, cleared: anyhow::Result<()>) -> anyhow::Result<()> {
        cleared?;
        self.commit(&[Change::Delete { id: id.to_string() }], Durable::AfterPowerCut)?;
        // Somebody else may have wanted the same.
        if let Some(damaged) = self.damaged.remove(&id) {
            if let Some(first) = damaged.first_id() {
                self.taken.remove(&first);
            }
            tracing::info!(container = %damaged.name(), "removed");
            self.events.add("removed", &id.to_string(), damaged.name(), &[]);
            self.views.remove(&id.to_string());
        }
        Ok(())
    }

    /// Effects until there are none: those of facts that arise here come after those that were there before.
    fn carry_out(&mut self) {
        loop {
            let effects = self.supervisor.effects();
            if effects.is_empty() && self.unsaved.is_empty() {
                return;
            }
            let last = effects.is_empty();
            let failed = self.save(&effects);
            let mut touched = BTreeSet::new();
            for effect in effects {
                // Nobody sees from the outside that a probe is under way.
                if !matches!(effect, Effect::Probe { .. }) {
                    touched.insert(effect.id());
                }
                self.effect(effect, failed.as_deref());
            }
            for id in touched {
                self.publish(id);
            }
            for (reply, granted) in self.born.drain(..) {
                let _ = reply.send(Ok(granted));
            }
            if last {
                return;
            }
        }
    }

    /// Others go on while the disk is waited for.
    fn commit(&mut self, changes: &[Change], durable: Durable) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| self.store.commit(changes, durable))
    }

    /// Write every save of this round at once. Returns why it did not work.
    fn save(&mut self, effects: &[Effect]) -> Option<String> {
        let mut newest: HashMap<Id, core::Saved> = std::mem::take(&mut self.unsaved);
        for effect in effects {
            if let Effect::Save { id, saved } = effect {
                newest.insert(*id, saved.clone());
            }
        }
        let changes: Vec<Change> = newest
            .iter()
            .map(|(id, saved)| match (self.new.contains_key(id), self.held.get(id)) {
                (true, Some(held)) => Change::Put(record(*id, held, saved)),
                (_, Some(_) | None) => {
                    Change::Saved { id: id.to_string(), saved: Saved::new(saved).to_json() }
                }
            })
            .collect();
        if changes.is_empty() {
            return None;
        }
        let durable = newest.iter().map(|(id, saved)| self.needed(*id, saved)).max();
        let written = self.commit(&changes, durable.unwrap_or(Durable::AfterPowerCut));
        match written {
            Ok(()) => {
                for id in newest.keys() {
                    if let Some(reply) = self.new.remove(id) {
                        let run = self.wanted_run(*id);
                        self.born.push((reply, Granted { accepted: Accepted::Underway, run }));
                    }
                }
                None
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(error = %reason, "state could not be written");
                let now = clock::now();
                for (id, saved) in newest {
                    if let Some(reply) = self.new.remove(&id) {
                        let _ = reply
                            .send(Err(Error::Failed(format!("the state could not be written: {reason}"))));
                        self.supervisor.fact(now, Fact::CreateFailed { id });
                    } else {
                        self.unsaved.insert(id, saved);
                    }
                }
                Some(reason)
            }
        }
    }

    /// What of a container has to survive a power cut? Not that a run lives, since it does not survive one; of a
    /// container that is removed with its run, only that it must be; and not how the policy got from one run to the next,
    /// since it is to be started again anyway.
    fn needed(&self, id: Id, saved: &core::Saved) -> Durable {
        let removed = self.held.get(&id).is_some_and(|held| held.definition.spec.remove);
        let lives = matches!(saved.phase, core::Phase::Running { .. });
        if !self.new.contains_key(&id) && (removed || lives || self.is_between_runs(id, saved)) {
            return Durable::AfterCrash;
        }
        Durable::AfterPowerCut
    }

    /// Is the next run, or the decision about it, the restart policy's? That there is none is another phase.
    fn is_between_runs(&self, id: Id, saved: &core::Saved) -> bool {
        if !matches!(saved.goal, core::Goal::Up { .. }) {
            return false;
        }
        match &saved.phase {
            core::Phase::CleaningUp { .. } => self
                .supervisor
                .container(id)
                .is_some_and(|container| container.spec().restart.ever_restarts()),
            core::Phase::Waiting { wait: Wait::BackOff { .. }, .. } => true,
            // By hand, the count begins anew.
            core::Phase::Starting { .. } => saved.restarts.count > 0,
            core::Phase::Waiting { wait: Wait::Asked, .. }
            | core::Phase::Created
            | core::Phase::Canceling { .. }
            | core::Phase::Running { .. }
            | core::Phase::Stopping { .. }
            | core::Phase::Killing { .. }
            | core::Phase::Ended { .. }
            | core::Phase::GivenUp { .. }
            | core::Phase::Removing => false,
        }
    }

    fn effect(&mut self, effect: Effect, unwritten: Option<&str>) {
        let now = clock::now();
        let runtime = self.runtime.clone();
        match effect {
            Effect::Save { .. } => {}
            Effect::Start { id, run } => {
                if let Some(reason) = unwritten {
                    let message = format!("the intent to start could not be written: {reason}");
                    let failure =
                        core::Failure { kind: core::FailureKind::NotSaved, message, at: clock::stamp() };
                    self.supervisor.fact(now, Fact::StartFailed { id, run, failure });
                    return;
                }
                let Some(held) = self.held.get_mut(&id) else { return };
                held.oom_killed = false;
                let start = Start {
                    id,
                    run,
                    definition: held.definition.clone(),
                    first_id: held.first_id,
                    stdio: held.stdio.take(),
                };
                self.work(runtime.start(start));
            }
            Effect::Signal { id, run, signal } => self.work(runtime.signal(id, run, signal)),
            Effect::Kill { id, run } => self.work(runtime.kill(id, run)),
            Effect::Freeze { id, run } => self.work(runtime.freeze(id, run, true)),
            Effect::Thaw { id, run } => self.work(runtime.freeze(id, run, false)),
            Effect::Limit { id, run } => {
                let Some(held) = self.held.get(&id) else { return };
                let Some(Update { definition, limits, .. }) = &held.update else { return };
                let (limits, updating) = (limits.clone(), Some(definition.spec.resources.clone()));
                let intent = Definition { updating, ..Definition::clone(&held.definition) };
                // A power cut ends the run, and its limits with it.
                let written = self.write_definition(id, &intent, Durable::AfterCrash);
                self.tasks.spawn(async move {
                    let limited = match written {
                        Ok(()) => runtime.limit(id, run, limits).await,
                        Err(error) => Err(error.context("the intent could not be written")),
                    };
                    Done::Limited(id, limited)
                });
            }
            Effect::Probe { id, run, kind, timeout } => {
                let Some(asked) = self.asked(id, run, timeout, |handlers| handlers.of(kind).cloned()) else {
                    return;
                };
                // A HEALTHCHECK expects the image's working directory, a probe of Kubernetes `/`.
                let at_home = kind == core::ProbeKind::Health;
                self.tasks.spawn(async move {
                    let Some(outcome) = runtime.ask(asked, at_home).await else { return Done::Work };
                    let (result, remark) = match outcome {
                        Outcome::Success { warning } => (core::ProbeResult::Success, warning),
                        Outcome::Failure(why) => (core::ProbeResult::Failure(why), None),
                        Outcome::Unknown(why) => (core::ProbeResult::Unknown(why.clone()), Some(why)),
                    };
                    runtime.tell(Fact::Probed { id, run, kind, result }).await;
                    Done::Probed(id, kind, remark)
                });
            }
            Effect::Hook { id, run, hook, timeout } => {
                let handler = |handlers: &Handlers| match hook {
                    core::Hook::PostStart => handlers.post_start.clone(),
                    core::Hook::PreStop => handlers.pre_stop.clone(),
                };
                let Some(asked) = self.asked(id, run, timeout, handler) else { return };
                self.work(async move {
                    let failure = match runtime.ask(asked, false).await {
                        Some(Outcome::Success { .. }) | None => None,
                        Some(Outcome::Failure(why) | Outcome::Unknown(why)) => Some(why),
                    };
                    runtime.tell(Fact::HookEnded { id, run, hook, failure }).await;
                });
            }
            Effect::Cleanup { id, run } => match unwritten {
                Some(reason) => {
                    let reason = format!("the exit could not be written: {reason}");
                    self.supervisor.fact(now, Fact::CleanupFailed { id, run, reason });
                }
                None => self.work(runtime.cleanup(id, run)),
            },
            Effect::Delete { id } => {
                self.tasks.spawn(async move { Done::Deleted(id, runtime.delete(id).await) });
            }
            Effect::Announce { id, change } => self.announce(id, &change),
        }
    }

    /// What a probe or hook asks, if there is such a one.
    fn asked(
        &self,
        id: Id,
        run: core::Run,
        timeout: Duration,
        handler: impl FnOnce(&Handlers) -> Option<Handler>,
    ) -> Option<Asked> {
        let held = self.held.get(&id)?;
        let handler = handler(&held.handlers)?;
        let (definition, first_id) = (held.definition.clone(), held.first_id);
        let run_programs = held.handlers.run_programs();
        Some(Asked { id, run, definition, first_id, run_programs, handler, timeout })
    }

    fn work(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            work.await;
            Done::Work
        });
    }

    /// What happened becomes an event and a line of the log, here and nowhere else.
    fn announce(&mut self, id: Id, change: &core::Change) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let name = held.definition.spec.name.clone().unwrap_or_default();
        let container = id.to_string();
        let events = self.events.clone();
        let tell = |kind: &str, details: &[(&str, String)]| {
            events.add(kind, &container, &name, details);
        };
        match change {
            core::Change::Added => {
                tracing::debug!(container = %name, "known");
                tell("created", &[("image", held.definition.spec.image.clone().unwrap_or_default())]);
            }
            core::Change::Goal(goal) => tracing::debug!(container = %name, goal = goal.name(), "goal"),
            core::Change::State(state) => {
                // Several states have one name: who has exited is cleaned up after. An operator sees the name.
                // Almost always the next one follows at once; if not, `Held` or `Restarting` is in the log.
                let passing = matches!(state, State::Waiting { .. });
                if passing || held.logged == state.name() {
                    tracing::debug!(container = %name, ?state, "state");
                } else {
                    tracing::info!(container = %name, state = state.name(), "state");
                }
                if !passing {
                    held.logged = state.name();
                }
                self.announce_state(id, state);
                // Many only pass through it to the next run.
                let now = self.supervisor.container(id).map(core::Container::state);
                if matches!(now, Some(State::Ended { .. } | State::GivenUp { .. })) {
                    self.work(self.runtime.clone().rest(id));
                }
            }
            core::Change::Oom(run) => {
                tracing::warn!(container = %name, "the kernel killed a process for want of memory");
                held.oom_killed = true;
                let limit = held.definition.spec.resources.memory;
                let limit = limit.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
                tell("oom", &[("run", run.to_string()), ("limit", limit)]);
            }
            core::Change::Updated => self.updated(id),
            core::Change::StartTimedOut(run) => {
                tracing::error!(container = %name, %run, "the start took too long and is killed");
            }
            core::Change::Ready(ready) => {
                tracing::debug!(container = %name, ready, "readiness");
                tell(if *ready { "ready" } else { "unready" }, &[]);
            }
            core::Change::Probe(settled) => {
                let kind = settled.kind.name();
                let message = settled.message.clone().unwrap_or_default();
                if settled.success {
                    tracing::info!(container = %name, probe = kind, "the probe succeeds");
                } else {
                    tracing::warn!(container = %name, probe = kind, %message, "the probe fails");
                }
                let event = if settled.success { "probe-succeeded" } else { "probe-failed" };
                tell(event, &[("probe", kind.to_owned()), ("message", message)]);
            }
            core::Change::Unhealthy(verdict) => {
                tracing::warn!(container = %name, reason = %verdict, "unhealthy, it is stopped");
                tell("unhealthy", &[("reason", verdict.to_string())]);
            }
            core::Change::Restarting { delay, count, .. } => {
                tracing::info!(container = %name, ?delay, count, "to be restarted");
                let delay = Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
                tell("restarting", &[("delay", format!("{delay:?}")), ("count", count.to_string())]);
            }
            core::Change::Held(hold) => {
                tracing::info!(container = %name, reason = %hold, "waiting");
                tell("waiting", &[("reason", hold.to_string())]);
            }
            core::Change::GaveUp(why) => {
                tracing::error!(container = %name, reason = %why, "given up");
                tell("gave-up", &[("reason", why.to_string())]);
            }
            core::Change::Status(status) => tell("status", &[("status", status.clone())]),
            core::Change::HookFailed { hook, reason } => {
                tracing::warn!(container = %name, hook = hook.name(), %reason, "the hook failed");
                tell("hook-failed", &[("hook", hook.name().to_owned()), ("error", reason.clone())]);
            }
            core::Change::PauseFailed { reason } => {
                tracing::warn!(container = %name, %reason, "freezing failed");
                tell("pause-failed", &[("error", reason.clone())]);
            }
            core::Change::StepFailed { step, attempt, reason } => {
                tracing::warn!(container = %name, ?step, attempt, %reason, "failed, to be tried again");
            }
            core::Change::Retrying { step, attempt } => {
                tracing::warn!(container = %name, ?step, attempt, "trying again");
            }
            core::Change::Removed => {
                tracing::info!(container = %name, "removed");
                tell("removed", &[]);
                if let Some(first) = self.held.remove(&id).and_then(|held| held.first_id) {
                    self.taken.remove(&first);
                }
                self.unsaved.remove(&id);
                self.views.remove(&container);
            }
        }
    }

    fn announce_state(&self, id: Id, state: &State) {
        let Some(held) = self.held.get(&id) else { return };
        let name = held.definition.spec.name.clone().unwrap_or_default();
        let container = id.to_string();
        let tell = |kind: &str, details: &[(&str, String)]| self.events.add(kind, &container, &name, details);
        match state {
            State::Starting { run, .. } => tell("starting", &[("run", run.to_string())]),
            // Again running after a pause is not started.
            State::Running { process } if !self.shown_pid(&container, process.pid) => {
                let details = [("run", process.run.to_string()), ("pid", process.pid.to_string())];
                tell("started", &details);
            }
            State::Paused { .. } => tell("paused", &[]),
            State::Resuming { .. } => tell("unpaused", &[]),
            State::Stopping { .. } | State::Canceling { .. } => tell("stopping", &[]),
            State::CleaningUp { run, ending: Ending::Exited(exit), .. } => {
                let code = exit.code().map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                let oom = exit.oom_killed.to_string();
                tell("exited", &[("run", run.to_string()), ("exitCode", code), ("oomKilled", oom)]);
            }
            State::CleaningUp { run, ending: Ending::Failed(failure), .. } => {
                let details = [("run", run.to_string()), ("error", failure.message.clone())];
                tell("start-failed", &details);
            }
            State::Created
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Pausing { .. }
            | State::Yielding { .. }
            | State::Killing { .. }
            | State::Ended { .. }
            | State::GivenUp { .. }
            | State::Removing { .. } => {}
        }
    }

    /// Has the world been shown this process already?
    fn shown_pid(&self, container: &str, pid: u32) -> bool {
        self.views.get(container).is_some_and(|view| view.pid == pid)
    }

    /// New limits are in force: from now on the definition says so.
    fn updated(&mut self, id: Id) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(update) = held.update.take() else { return };
        let warnings = held.definition.warnings.clone();
        held.definition = Arc::new(Definition { warnings, ..update.definition });
        let name = held.definition.spec.name.clone().unwrap_or_default();
        let definition = held.definition.clone();
        let written = self.write_definition(id, &definition, Durable::AfterPowerCut);
        let answer = match written {
            Ok(()) => Ok(Granted { accepted: Accepted::Underway, run: None }),
            Err(error) => Err(Error::Failed(format!(
                "the limits are in force, but could not be written down for later starts: {error:#}"
            ))),
        };
        let _ = update.reply.send(answer);
        self.events.add("updated", &id.to_string(), &name, &[]);
    }

    fn write_definition(&mut self, id: Id, definition: &Definition, durable: Durable) -> anyhow::Result<()> {
        self.commit(&[Change::Definition { id: id.to_string(), definition: definition.to_json() }], durable)
    }

    /// Show what a container looks like now.
    fn publish(&self, id: Id) {
        let (Some(container), Some(held)) = (self.supervisor.container(id), self.held.get(&id)) else {
            return;
        };
        let before = self.views.get(&id.to_string());
        let state = container.state();
        let micros = |stamp: core::Stamp| stamp.wall / 1000;
        // A removal keeps showing how the last run ended.
        let (exit_code, exit_oom, finished, failure) = match state.ending() {
            Some(Ending::Exited(exit)) => (exit.code(), exit.oom_killed, micros(exit.at), None),
            Some(Ending::Failed(failure)) => (None, false, micros(failure.at), Some(failure.clone())),
            None => match (&before, state) {
                (Some(before), State::Removing { .. }) => {
                    (before.exit_code, before.oom_killed, before.finished_at, before.failure.clone())
                }
                (Some(before), _) if state.run().is_some() => {
                    (before.exit_code, false, before.finished_at, None)
                }
                (_, _) => (None, false, 0, None),
            },
        };
        let run = state.run().map_or_else(|| before.as_ref().map_or(0, |before| before.run), |run| run.0);
        let definition = &held.definition;
        let spec = match &before {
            // The same document is shown as the same.
            Some(before) if *before.spec == definition.spec => before.spec.clone(),
            _ => Arc::new(definition.spec.clone()),
        };
        self.views.publish(View {
            id: id.to_string(),
            name: container.spec().name.to_string(),
            image: definition.spec.image.clone().unwrap_or_default(),
            image_id: definition.image_id.clone().unwrap_or_default(),
            command: definition.command.clone(),
            spec,
            state: state.name(),
            goal: container.goal().name(),
            run,
            settled: !matches!(state, State::CleaningUp { attempt: 0..=1, .. } | State::Removing { .. }),
            ready: container.is_ready(),
            health: container.vitals().health().status().name(),
            probes: probes(container.vitals().health()),
            status: container.vitals().status().to_owned(),
            restarts: container.restarts().count,
            // Where something else is in the way, the time says nothing.
            next_start: if let State::Waiting { start_at, hold: None | Some(core::Hold::Restarts), .. } =
                state
            {
                micros(clock::stamp_of(*start_at))
            } else {
                0
            },
            reason: reason(container),
            restarting: container.spec().restart.ever_restarts()
                && matches!(container.goal(), core::Goal::Up { .. }),
            held: matches!(state, State::Waiting { hold: Some(core::Hold::Requires { .. }), .. }),
            pid: state.process().map_or(0, |process| process.pid),
            exit_code,
            oom_killed: held.oom_killed || exit_oom,
            failure,
            stop_signal: definition.stop_signal,
            healthcheck: definition.healthcheck.clone(),
            warnings: self.warnings(id, definition, before.as_deref()),
            created_at: definition.created_at,
            started_at: container.started().map_or(0, micros),
            finished_at: finished,
            id_map: held.first_id.map_or((0, 0), |first| (first, RANGE_SIZE)),
            cgroup: self.runtime.paths.cgroup(id, core::Run(run)),
            log_directory: self.runtime.paths.log(id).display().to_string(),
        });
    }
}

impl Driver {
    /// Those of the definition, and those of the run.
    fn warnings(&self, id: Id, definition: &Definition, before: Option<&View>) -> Vec<String> {
        match (self.runtime.live(id), before) {
            (Some(live), _) => definition.warnings.iter().cloned().chain(live.warnings).collect(),
            // Those of a run that is over are still of interest.
            (None, Some(before)) => before.warnings.clone(),
            (None, None) => definition.warnings.clone(),
        }
    }
}

fn record(id: Id, held: &Held, saved: &core::Saved) -> Record {
    Record {
        id: id.to_string(),
        name: held.definition.spec.name.clone().unwrap_or_default(),
        definition: held.definition.to_json(),
        saved: Saved::new(saved).to_json(),
        first_id: held.first_id,
    }
}

struct Understood {
    id: Id,
    definition: Definition,
    spec: core::Spec,
    handlers: Handlers,
    saved: core::Saved,
    same_boot: bool,
    first_id: Option<u32>,
}

fn understood(record: &Record) -> anyhow::Result<Understood> {
    let id: Id = record.id.parse()?;
    let definition = Definition::parse(&record.definition)?;
    let (spec, handlers) = definition.plan()?;
    // Two places for one thing: if they differ, one of them was damaged.
    if spec.name.as_str() != record.name {
        bail!("its definition is that of a container called {}", spec.name);
    }
    if definition.private_ids != record.first_id.is_some() {
        bail!("its definition and its range of ids do not fit together");
    }
    let saved = Saved::parse(&record.saved)?;
    let same_boot = saved.is_of_this_boot();
    let (saved, first_id) = (saved.restore()?, record.first_id);
    Ok(Understood { id, definition, spec, handlers, saved, same_boot, first_id })
}

/// Why a container is what it is, where that is not plain.
fn reason(container: &core::Container) -> String {
    match container.state() {
        State::Waiting { hold: Some(hold), .. } => hold.to_string(),
        State::Waiting { last: Some(last), wait: Wait::BackOff { delay }, hold: None, .. } => {
            let how = match (&last.ending, container.vitals().verdict()) {
                (Ending::Exited(_), Some(verdict)) => verdict.to_string(),
                (Ending::Exited(exit), None) => match exit.code() {
                    Some(code) if exit.oom_killed => format!("it ran out of memory and exited with {code}"),
                    Some(code) => format!("it exited with {code}"),
                    None => "nobody saw how it ended".to_owned(),
                },
                (Ending::Failed(failure), _) => failure.message.clone(),
            };
            let count = container.restarts().count;
            format!("back-off of {delay:?} before restart {count}: {how}")
        }
        State::GivenUp { why, .. } => why.to_string(),
        State::Yielding { .. } => "those that require it stop first".to_owned(),
        State::Stopping { .. } | State::Killing { .. } | State::CleaningUp { .. } | State::Ended { .. } => {
            container.vitals().verdict().map(|verdict| verdict.to_string()).unwrap_or_default()
        }
        State::Created
        | State::Waiting { .. }
        | State::Starting { .. }
        | State::Canceling { .. }
        | State::Running { .. }
        | State::Pausing { .. }
        | State::Paused { .. }
        | State::Resuming { .. }
        | State::Removing { .. } => String::new(),
    }
}

/// How the probes stand, for `inspect`.
fn probes(health: &core::Health) -> String {
    let probes: Vec<_> = health
        .checks()
        .map(|check| {
            serde_json::json!({
                "kind": check.kind.name(),
                "settled": check.settled,
                "last": check.last,
                "streak": check.streak,
                "message": check.message,
            })
        })
        .collect();
    serde_json::Value::Array(probes).to_string()
}

fn refused(rejection: core::Rejection) -> Error {
    let message = rejection.to_string();
    match rejection {
        core::Rejection::NameTaken { .. } | core::Rejection::IdTaken(_) => Error::NameTaken(message),
        core::Rejection::NoSuchContainer(_) => Error::NoSuchContainer(message),
        core::Rejection::Ambiguous { .. } => Error::Ambiguous(message),
        core::Rejection::NotRunning { .. } => Error::NotRunning(message),
        core::Rejection::Running { .. } => Error::Running(message),
        core::Rejection::UnknownRequirement(_) | core::Rejection::Cycle(_) => Error::InvalidSpec(message),
        core::Rejection::Starting(_)
        | core::Rejection::Paused(_)
        | core::Rejection::StartLimit { .. }
        | core::Rejection::Required { .. }
        | core::Rejection::BeingRemoved(_) => Error::WrongState(message),
    }
}
