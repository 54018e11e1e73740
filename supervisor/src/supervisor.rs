//! All containers of one host, and the way in and out.

use crate::container::{Container, Gate};
use crate::{
    Accepted, Change, Command, Effect, Fact, Goal, Hold, Id, Name, Observed, Rejection, Requirement, Saved,
    Spec, State, Time,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What all containers of a host may do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Starts under way at a time: enough to keep every core and the disk busy, few enough that a boot storm of
    /// hundreds of containers does not make each of them slow.
    pub starts: usize,
    /// Restarts by policy that may happen at once.
    pub restart_burst: u32,
    /// One more after this long.
    pub restart_every: Duration,
}

/// A start costs some 15 ms of CPU: restarts alone never take more than about a third of a core for long.
impl Default for Limits {
    fn default() -> Self {
        Self { starts: 16, restart_burst: 50, restart_every: Duration::from_millis(50) }
    }
}

/// All containers of one host. See the [crate] for how it is driven.
#[derive(Debug, Default)]
pub struct Supervisor {
    limits: Limits,
    containers: BTreeMap<Id, Container>,
    names: BTreeMap<Name, Id>,
    /// Who requires a name.
    dependants: BTreeMap<Name, BTreeSet<Id>>,
    deadlines: BTreeSet<(Time, Id)>,
    deadline_of: BTreeMap<Id, Time>,
    /// Who is being started, or made and not wanted any more.
    starting: BTreeSet<Id>,
    /// Who waits for one of these to finish, longest first.
    queue: BTreeSet<(u64, Id)>,
    queued: BTreeMap<Id, u64>,
    next_place: u64,
    /// Restarts are allowed from here on, less the burst.
    restarts_until: Time,
    /// Whose outline has changed.
    changed: BTreeSet<Id>,
    effects: Vec<Effect>,
}

impl Supervisor {
    /// One without containers.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Take over a container that an earlier supervisor saved, with what was found of its run. What was begun
    /// is finished: the effects say how. When all are taken over, call [`Supervisor::adopted`].
    pub fn adopt(&mut self, now: Time, id: Id, spec: Spec, saved: Saved, observed: Observed) {
        self.insert(id, spec);
        // Nobody is started, and nobody stopped before others, until it is known who else is there.
        let restart_at = self.restart_at(now);
        let closed = Gate { starts_taken: true, must_yield: true, restart_at, ..Gate::default() };
        self.through(now, id, closed, |container| container.adopt(now, saved, observed));
        self.changed.insert(id);
    }

    /// All have been taken over: those that may start now do.
    pub fn adopted(&mut self, now: Time) {
        let all: Vec<Id> = self.containers.keys().copied().collect();
        for id in all {
            self.touch(now, id, |container| container.look_around(now));
        }
        self.settle(now);
    }

    /// Somebody wants something. If it is refused, nothing has changed.
    pub fn command(&mut self, now: Time, command: Command) -> Result<Accepted, Rejection> {
        let target = command.id();
        let accepted = match command {
            Command::Create { id, spec } => {
                self.create(id, spec)?;
                self.touch(now, id, |_| Ok(Accepted::Underway))
            }
            Command::Run { id, spec } => {
                self.create(id, spec)?;
                self.start(now, id)
            }
            Command::Start { id } => self.start(now, id),
            Command::Stop { id, grace } => self.touch(now, id, |container| container.stop(now, grace)),
            Command::StopAll { grace } => Some(self.stop_all(now, grace)),
            Command::ResetFailed { id } => self.touch(now, id, |container| container.reset_failed(now)),
            Command::Kill { id, signal } => self.touch(now, id, |container| container.kill(now, signal)),
            Command::Restart { id, grace } => {
                let accepted = self.touch(now, id, |container| container.restart(now, grace));
                if let Some(Ok(_)) = accepted {
                    self.start_required(now, id);
                }
                accepted
            }
            Command::Pause { id } => self.touch(now, id, |container| container.pause(now)),
            Command::Unpause { id } => self.touch(now, id, |container| container.unpause(now)),
            Command::Update { id } => self.touch(now, id, Container::update),
            Command::Remove { id, force } => {
                self.may_remove(id, force)?;
                self.touch(now, id, |container| container.remove(now, force))
            }
        };
        self.settle(now);
        accepted.unwrap_or_else(|| {
            Err(Rejection::NoSuchContainer(target.map_or_else(String::new, |id| id.to_string())))
        })
    }

    fn start(&mut self, now: Time, id: Id) -> Option<Result<Accepted, Rejection>> {
        let accepted = self.touch(now, id, |container| container.start(now));
        let waits = matches!(self.containers.get(&id).map(Container::state), Some(State::Waiting { .. }));
        match accepted {
            Some(Ok(Accepted::Already)) if waits && self.start_required(now, id) => {
                Some(Ok(Accepted::Underway))
            }
            Some(Ok(Accepted::Underway)) => {
                self.start_required(now, id);
                accepted
            }
            Some(Ok(Accepted::Already) | Err(_)) | None => accepted,
        }
    }

    /// Who is to start needs those that it requires. Is any of them started for that?
    fn start_required(&mut self, now: Time, id: Id) -> bool {
        let mut any = false;
        let mut next = vec![id];
        let mut seen = BTreeSet::new();
        while let Some(id) = next.pop() {
            let Some(container) = self.containers.get(&id) else { continue };
            let required: Vec<Id> = container
                .spec()
                .requires
                .iter()
                .filter_map(|requirement| {
                    let required = self.names.get(&requirement.name)?;
                    let as_required = self.containers.get(required)?.is(requirement.condition);
                    (!as_required && seen.insert(*required)).then_some(*required)
                })
                .collect();
            for id in required {
                // One that is paused, or being removed, is not helped by this; it is shown as what is waited for.
                let started = self.touch(now, id, |container| container.start_as_required(now));
                any |= matches!(started, Some(Ok(Accepted::Underway)));
                next.push(id);
            }
        }
        any
    }

    fn stop_all(&mut self, now: Time, grace: Option<Duration>) -> Result<Accepted, Rejection> {
        let all: Vec<Id> = self.containers.keys().copied().collect();
        for id in &all {
            self.touch(now, *id, Container::intend_to_stop);
        }
        for id in all {
            // Those being removed go anyway.
            let _ = self.touch(now, id, |container| container.stop(now, grace));
        }
        Ok(Accepted::Underway)
    }

    fn may_remove(&self, id: Id, force: bool) -> Result<(), Rejection> {
        let Some(container) = self.containers.get(&id) else { return Ok(()) };
        let name = &container.spec().name;
        let by = self
            .dependants
            .get(name)
            .into_iter()
            .flatten()
            .filter_map(|by| self.containers.get(by))
            .find(|by| by.goal() != Goal::Removed);
        match by {
            Some(by) if !force && container.goal() != Goal::Removed => {
                Err(Rejection::Required { name: name.clone(), by: by.spec().name.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Something happened. What is about no container, or about a run that is over, is dropped: here, and
    /// nowhere else.
    pub fn fact(&mut self, now: Time, fact: Fact) {
        let Some(container) = self.containers.get(&fact.id()) else { return };
        if fact.run().is_some_and(|run| container.state().run() != Some(run)) {
            return;
        }
        if let (Fact::Deleted { id }, State::Removing { .. }) = (&fact, container.state()) {
            let id = *id;
            self.forget(now, id);
            self.effects.push(Effect::Announce { id, change: Change::Removed });
        } else {
            self.touch(now, fact.id(), |container| container.fact(now, fact));
        }
        self.settle(now);
    }

    /// Time has passed. Does nothing before [`Supervisor::next_deadline`].
    pub fn tick(&mut self, now: Time) {
        let due: Vec<Id> =
            self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.touch(now, id, |container| container.overdue(now));
        }
        self.settle(now);
    }

    /// The host was suspended for so long before now. Nobody could do anything in this time, so it is added to what
    /// runs, starts and hooks are given; back-offs and the times of probes have gone on.
    pub fn slept(&mut self, now: Time, slept: Duration) {
        let all: Vec<Id> = self.containers.keys().copied().collect();
        for id in all {
            self.touch(now, id, |container| container.slept(slept));
        }
        self.settle(now);
    }

    /// When [`Supervisor::tick`] has to be called if nothing happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Do something with a container that knows how the others are.
    fn touch<R>(&mut self, now: Time, id: Id, act: impl FnOnce(&mut Container) -> R) -> Option<R> {
        let gate = self.gate(now, id)?;
        self.through(now, id, gate, act)
    }

    /// The one way to a container: its effects are collected, and what others need to know of it is noted.
    fn through<R>(
        &mut self,
        now: Time,
        id: Id,
        gate: Gate,
        act: impl FnOnce(&mut Container) -> R,
    ) -> Option<R> {
        let container = self.containers.get_mut(&id)?;
        container.open(gate);
        let before = container.outline();
        let outcome = act(container);
        if container.has_taken_restart() {
            self.restarts_until = self.restarts_until.max(now) + self.limits.restart_every;
        }
        container.hand_out(&mut self.effects);
        if container.outline() != before {
            self.changed.insert(id);
        }
        self.index(id);
        Some(outcome)
    }

    fn gate(&self, now: Time, id: Id) -> Option<Gate> {
        let container = self.containers.get(&id)?;
        Some(Gate {
            requires: container.spec().requires.iter().find_map(|requirement| self.unmet(requirement)),
            starts_taken: self.starting.len() >= self.limits.starts,
            restart_at: self.restart_at(now),
            must_yield: self.dependants.get(&container.spec().name).into_iter().flatten().any(|by| {
                self.containers
                    .get(by)
                    .is_some_and(|by| by.is_alive() && !matches!(by.goal(), Goal::Up { .. }))
            }),
            restart_taken: false,
        })
    }

    /// When the host allows the next restart.
    fn restart_at(&self, now: Time) -> Time {
        let burst = self.limits.restart_every.saturating_mul(self.limits.restart_burst.saturating_sub(1));
        let early = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Time(self.restarts_until.0.saturating_sub(early)).max(now)
    }

    fn unmet(&self, requirement: &Requirement) -> Option<Hold> {
        let required = self.names.get(&requirement.name).and_then(|id| self.containers.get(id));
        let state = match required {
            Some(required) if required.is(requirement.condition) => return None,
            Some(required) => required.state().name(),
            None => "missing",
        };
        Some(Hold::Requires { name: requirement.name.clone(), condition: requirement.condition, state })
    }

    /// Whatever follows for others from what has changed, until nothing does.
    fn settle(&mut self, now: Time) {
        loop {
            if let Some(id) = self.changed.pop_first() {
                self.tell_others(now, id);
            } else if self.starting.len() < self.limits.starts
                && let Some((_, id)) = self.queue.first().copied()
            {
                self.touch(now, id, |container| container.look_around(now));
                // Whoever did not take the place has something else to wait for, and is not in the queue any more.
                if self.queue.first().is_some_and(|(_, first)| *first == id) {
                    return;
                }
            } else {
                return;
            }
        }
    }

    fn tell_others(&mut self, now: Time, id: Id) {
        let Some(container) = self.containers.get(&id) else { return };
        let name = container.spec().name.clone();
        let started = container.state().process().and(container.started()).map(|at| at.boot);
        let required = self.required(container.spec());
        for by in self.dependants(&name) {
            self.touch(now, by, |container| {
                if started.is_some_and(|started| container.is_older_than(&name, started)) {
                    container.restart_with(now);
                } else {
                    container.look_around(now);
                }
            });
        }
        for id in required {
            self.touch(now, id, |container| container.look_around(now));
        }
    }

    /// Who requires this name.
    fn dependants(&self, name: &Name) -> Vec<Id> {
        self.dependants.get(name).into_iter().flatten().copied().collect()
    }

    /// Whom this one requires, as far as they are there.
    fn required(&self, spec: &Spec) -> Vec<Id> {
        spec.requires.iter().filter_map(|requirement| self.names.get(&requirement.name).copied()).collect()
    }

    /// Note where a container belongs.
    fn index(&mut self, id: Id) {
        let container = self.containers.get(&id);
        let deadline = container.and_then(Container::deadline);
        if let Some(old) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
            self.deadline_of.insert(id, deadline);
        }
        let state = container.map(Container::state);
        if matches!(state, Some(State::Starting { .. } | State::Canceling { .. })) {
            self.starting.insert(id);
        } else {
            self.starting.remove(&id);
        }
        if matches!(state, Some(State::Waiting { hold: Some(Hold::Starts), .. })) {
            if !self.queued.contains_key(&id) {
                self.queued.insert(id, self.next_place);
                self.queue.insert((self.next_place, id));
                self.next_place += 1;
            }
        } else if let Some(place) = self.queued.remove(&id) {
            self.queue.remove(&(place, id));
        }
    }

    fn insert(&mut self, id: Id, spec: Spec) {
        self.names.insert(spec.name.clone(), id);
        for requirement in &spec.requires {
            self.dependants.entry(requirement.name.clone()).or_default().insert(id);
        }
        self.containers.insert(id, Container::new(id, spec));
    }

    fn forget(&mut self, now: Time, id: Id) {
        let Some(container) = self.containers.remove(&id) else { return };
        let spec = container.spec();
        self.names.remove(&spec.name);
        for requirement in &spec.requires {
            if let Some(dependants) = self.dependants.get_mut(&requirement.name) {
                dependants.remove(&id);
                if dependants.is_empty() {
                    self.dependants.remove(&requirement.name);
                }
            }
        }
        self.index(id);
        self.changed.remove(&id);
        // Who required it hears that it is missing; whom it required may stop now.
        for other in self.dependants(&spec.name).into_iter().chain(self.required(spec)) {
            self.touch(now, other, |container| container.look_around(now));
        }
    }

    /// What is to be done, in this order; handed out once.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The container with this id.
    pub fn container(&self, id: Id) -> Option<&Container> {
        self.containers.get(&id)
    }

    /// All, in the order of their ids.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.values()
    }

    /// Whom people mean: an id, a name, or the beginning of one id, in this order.
    pub fn resolve(&self, reference: &str) -> Result<&Container, Rejection> {
        let exact = reference.parse().ok().and_then(|id| self.container(id));
        if let Some(container) = exact.or_else(|| self.named(reference)) {
            return Ok(container);
        }
        let alike =
            || self.containers().filter(|container| container.id().to_string().starts_with(reference));
        match (alike().next(), alike().count()) {
            (Some(container), 1) if !reference.is_empty() => Ok(container),
            (Some(_), count) if !reference.is_empty() => {
                Err(Rejection::Ambiguous { reference: reference.to_owned(), count })
            }
            (Some(_) | None, _) => Err(Rejection::NoSuchContainer(reference.to_owned())),
        }
    }

    fn create(&mut self, id: Id, spec: Spec) -> Result<(), Rejection> {
        if let Some(holder) = self.names.get(&spec.name) {
            return Err(Rejection::NameTaken { name: spec.name, holder: *holder });
        }
        if self.containers.contains_key(&id) {
            return Err(Rejection::IdTaken(id));
        }
        self.may_require(&spec)?;
        self.insert(id, spec);
        if let Some(container) = self.containers.get_mut(&id) {
            container.announce_added();
        }
        self.changed.insert(id);
        Ok(())
    }

    /// Everybody who is required exists, and nobody waits for himself in the end. That can be when one that others
    /// still require has been removed by force.
    fn may_require(&self, spec: &Spec) -> Result<(), Rejection> {
        for requirement in &spec.requires {
            if requirement.name == spec.name {
                return Err(Rejection::Cycle(vec![spec.name.clone(), spec.name.clone()]));
            }
            if !self.names.contains_key(&requirement.name) {
                return Err(Rejection::UnknownRequirement(requirement.name.clone()));
            }
        }
        match self.way_to(&spec.name, &spec.requires, &mut BTreeSet::new()) {
            Some(mut way) => {
                way.push(spec.name.clone());
                way.reverse();
                Err(Rejection::Cycle(way))
            }
            None => Ok(()),
        }
    }

    /// How one gets to a name from these requirements, last step first.
    fn way_to(&self, name: &Name, from: &[Requirement], seen: &mut BTreeSet<Name>) -> Option<Vec<Name>> {
        for requirement in from {
            if requirement.name == *name {
                return Some(vec![name.clone()]);
            }
            if !seen.insert(requirement.name.clone()) {
                continue;
            }
            let next = self.names.get(&requirement.name).and_then(|id| self.containers.get(id));
            if let Some(next) = next
                && let Some(mut way) = self.way_to(name, &next.spec().requires, seen)
            {
                way.push(requirement.name.clone());
                return Some(way);
            }
        }
        None
    }

    fn named(&self, name: &str) -> Option<&Container> {
        self.names.get(name).and_then(|id| self.containers.get(id))
    }
}

#[cfg(test)]
mod tests;
