//! All containers of one host, and the way in and out.

use crate::container::Container;
use crate::{
    Accepted, Change, Command, Effect, Fact, Id, Name, Observed, Rejection, Saved, Spec, State, Time,
};
use std::collections::BTreeMap;

/// All containers of one host. See the [crate] for how it is driven.
#[derive(Debug, Default)]
pub struct Supervisor {
    containers: BTreeMap<Id, Container>,
    effects: Vec<Effect>,
}

impl Supervisor {
    /// One without containers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take over a container that an earlier supervisor saved, with what was found of its run. What was begun
    /// is finished: the effects say how.
    pub fn adopt(&mut self, now: Time, id: Id, spec: Spec, saved: Saved, observed: Observed) {
        let container = self.containers.entry(id).or_insert_with(|| Container::new(id, spec));
        container.adopt(now, saved, observed);
        container.hand_out(&mut self.effects);
    }

    /// Somebody wants something. If it is refused, nothing has changed.
    pub fn command(&mut self, now: Time, command: Command) -> Result<Accepted, Rejection> {
        let (id, accepted) = match command {
            Command::Create { id, spec } => {
                self.create(id, spec)?;
                (id, Accepted::Underway)
            }
            Command::Run { id, spec } => (id, self.create(id, spec)?.start(now)?),
            Command::Start { id } => (id, self.of(id)?.start(now)?),
            Command::Stop { id, grace } => (id, self.of(id)?.stop(now, grace)?),
            Command::Kill { id, signal } => (id, self.of(id)?.kill(now, signal)?),
            Command::Restart { id, grace } => (id, self.of(id)?.restart(now, grace)?),
            Command::Pause { id } => (id, self.of(id)?.pause(now)?),
            Command::Unpause { id } => (id, self.of(id)?.unpause(now)?),
            Command::Update { id } => (id, self.of(id)?.update()?),
            Command::Remove { id, force } => (id, self.of(id)?.remove(now, force)?),
        };
        if let Some(container) = self.containers.get_mut(&id) {
            container.hand_out(&mut self.effects);
        }
        Ok(accepted)
    }

    /// Something happened. What is about no container, or about a run that is over, is dropped: here, and
    /// nowhere else.
    pub fn fact(&mut self, now: Time, fact: Fact) {
        let Some(container) = self.containers.get_mut(&fact.id()) else { return };
        if fact.run().is_some_and(|run| container.state().run() != Some(run)) {
            return;
        }
        if let (Fact::Deleted { id }, State::Removing { .. }) = (&fact, container.state()) {
            self.containers.remove(id);
            self.effects.push(Effect::Announce { id: *id, change: Change::Removed });
            return;
        }
        container.fact(now, fact);
        container.hand_out(&mut self.effects);
    }

    /// Time has passed. Does nothing before [`Supervisor::next_deadline`].
    pub fn tick(&mut self, now: Time) {
        for container in self.containers.values_mut() {
            if container.state().deadline().is_some_and(|deadline| deadline <= now) {
                container.overdue(now);
                container.hand_out(&mut self.effects);
            }
        }
    }

    /// When [`Supervisor::tick`] has to be called if nothing happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        self.containers.values().filter_map(|container| container.state().deadline()).min()
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

    fn create(&mut self, id: Id, spec: Spec) -> Result<&mut Container, Rejection> {
        self.name_is_free(&spec.name)?;
        match self.containers.entry(id) {
            std::collections::btree_map::Entry::Occupied(_) => Err(Rejection::IdTaken(id)),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let container = vacant.insert(Container::new(id, spec));
                container.announce_added();
                Ok(container)
            }
        }
    }

    fn name_is_free(&self, name: &Name) -> Result<(), Rejection> {
        match self.named(name.as_str()) {
            Some(holder) => Err(Rejection::NameTaken { name: name.clone(), holder: holder.id() }),
            None => Ok(()),
        }
    }

    fn named(&self, name: &str) -> Option<&Container> {
        self.containers().find(|container| container.spec().name.as_str() == name)
    }

    fn of(&mut self, id: Id) -> Result<&mut Container, Rejection> {
        self.containers.get_mut(&id).ok_or_else(|| Rejection::NoSuchContainer(id.to_string()))
    }
}
