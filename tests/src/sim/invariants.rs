//! What must be true, whatever the world does. Each is a function of that name; what it returns says what was
//! seen instead.

use super::host::{Host, intends};
use super::runtime::{Life, Real, Runtime};
use std::time::Duration;
use wharf_supervisor::{
    Command, Container, Ending, ExitStatus, FailureKind, Goal, Id, Phase, Rejection, Run, State, Supervisor,
};

pub(super) type Check = Result<(), String>;
/// Everything that a command could change.
pub(super) type Overview = Vec<(Id, Goal, State)>;

/// The supervisor gives a start up after this.
const START_LIMIT: Duration = Duration::from_secs(120);

/// After every step: of the one container that it was about, or of all.
pub(super) fn always(host: &Host, touched: Option<Id>) -> Check {
    let Some(daemon) = &host.daemon else { return Ok(()) };
    let one = touched.and_then(|id| daemon.container(id));
    let all = daemon.containers().filter(|_| touched.is_none());
    for container in one.into_iter().chain(all) {
        at_most_one_run_alive(host, container)?;
        announced_state_is_the_state(host, container)?;
        stop_takes_no_longer_than_its_grace(host, container)?;
        started_is_the_truth(host, container)?;
        what_is_decided_is_durable(host, container)?;
        exit_status_never_invented_nor_lost(host, container)?;
        ended_leaves_no_remains(host, container)?;
    }
    Ok(())
}

/// When the calm is over and nothing is left to happen.
pub(super) fn at_the_end(host: &Host) -> Check {
    let daemon = host.daemon.as_ref().ok_or("there is no daemon at the end")?;
    for container in daemon.containers() {
        every_effect_has_an_outcome(container)?;
        goal_down_ends_down(host, container)?;
        goal_up_ends_up(host, container)?;
        frozen_only_when_wanted(host, container)?;
    }
    for id in host.store.keys() {
        if daemon.container(*id).is_none() {
            return Err(format!("removed_leaves_nothing: {id:?} is gone, but in the store"));
        }
    }
    for ((id, run), real) in &host.runtime.runs {
        if daemon.container(*id).is_none() && (real.life != Life::Over || real.remains) {
            return Err(format!("removed_leaves_nothing: {id:?} is gone, but run {run} left {real:?}"));
        }
    }
    Ok(())
}

fn at_most_one_run_alive(host: &Host, container: &Container) -> Check {
    match host.runtime.living(container.id()) {
        0 | 1 => Ok(()),
        living => Err(format!("at_most_one_run_alive: {living} of {container:?}")),
    }
}

fn announced_state_is_the_state(host: &Host, container: &Container) -> Check {
    let is = std::mem::discriminant(container.state());
    match host.announced.get(&container.id()) {
        Some(announced) if *announced == is => Ok(()),
        _ => Err(format!("announced_state_is_the_state: not told of {container:?}")),
    }
}

fn stop_takes_no_longer_than_its_grace(host: &Host, container: &Container) -> Check {
    let (State::Canceling { .. } | State::Stopping { .. }) = container.state() else { return Ok(()) };
    match host.may_be_killed.get(&container.id()) {
        Some(kill_at) if *kill_at >= host.now => Ok(()),
        kill_at => Err(format!("stop_takes_no_longer_than_its_grace: {kill_at:?} for {container:?}")),
    }
}

fn started_is_the_truth(host: &Host, container: &Container) -> Check {
    let Some(process) = container.state().process() else { return Ok(()) };
    let real = host.runtime.runs.get(&(container.id(), process.run));
    match real.and_then(|real| real.started) {
        Some(started) if container.started() == Some(started) => Ok(()),
        truth => Err(format!("started_is_the_truth: {truth:?} for {container:?}")),
    }
}

fn what_is_decided_is_durable(host: &Host, container: &Container) -> Check {
    let id = container.id();
    if host.unsaved.contains_key(&id) {
        return Ok(());
    }
    let Some((_, saved)) = host.store.get(&id) else {
        // Deleted, and the news is on its way; or it could not be saved in the first place.
        let going = matches!(container.state(), State::Removing { .. });
        return if going { Ok(()) } else { Err(format!("what_is_decided_is_durable: {container:?} is not")) };
    };
    if saved.goal != container.goal() || saved.started != container.started() {
        return Err(format!("what_is_decided_is_durable: {saved:?} of {container:?}"));
    }
    Ok(())
}

fn exit_status_never_invented_nor_lost(host: &Host, container: &Container) -> Check {
    let (Some(run), Some(ending)) = (container.state().run(), container.state().ending()) else {
        return Ok(());
    };
    let real = host.runtime.runs.get(&(container.id(), run));
    let truth = real.and_then(|real| real.exit);
    let right = match ending {
        Ending::Exited(exit) => match exit.status {
            ExitStatus::Code(_) | ExitStatus::Signal(_) => {
                truth.is_some_and(|truth| truth.status == exit.status)
            }
            // The record is there for as long as nobody has taken it over.
            ExitStatus::Unknown => truth.is_some() && real.is_some_and(|real| !real.record),
        },
        Ending::Failed(failure) => match failure.kind {
            // It may have run for a moment that nobody saw; the record would tell.
            FailureKind::Interrupted => real.is_none_or(|real| !real.record),
            FailureKind::CommandNotFound
            | FailureKind::CommandNotExecutable
            | FailureKind::InvalidInput
            | FailureKind::RefusedImage
            | FailureKind::Unsupported
            | FailureKind::NotSaved
            | FailureKind::Failed => real.is_none_or(|real| real.started.is_none()),
        },
    };
    if right { Ok(()) } else { Err(format!("exit_status_never_invented_nor_lost: {ending:?} of {real:?}")) }
}

fn ended_leaves_no_remains(host: &Host, container: &Container) -> Check {
    let State::Ended { .. } = container.state() else { return Ok(()) };
    match host.runtime.of(container.id()).find(|(_, real)| real.remains || real.life != Life::Over) {
        None => Ok(()),
        Some((run, real)) => Err(format!("ended_leaves_no_remains: run {run} left {real:?}")),
    }
}

pub(super) fn names_are_unique(host: &Host) -> Check {
    let Some(daemon) = &host.daemon else { return Ok(()) };
    let mut names: Vec<_> = daemon.containers().map(|container| &container.spec().name).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(format!("names_are_unique: two are called {}", pair[0])),
    }
}

pub(super) fn refusal_changes_nothing(host: &mut Host, why: &Rejection, before: Overview) -> Check {
    nothing_changed(host, before).map_err(|what| format!("refusal_changes_nothing: {why}; {what}"))
}

pub(super) fn already_changes_nothing(host: &mut Host, command: &Command, before: Overview) -> Check {
    nothing_changed(host, before).map_err(|what| format!("already_changes_nothing: {command:?}; {what}"))
}

fn nothing_changed(host: &mut Host, before: Overview) -> Check {
    let effects = host.daemon.as_mut().map(Supervisor::effects).unwrap_or_default();
    let after = host.overview();
    if after == before && effects.is_empty() { Ok(()) } else { Err(format!("{after:?}; {effects:?}")) }
}

pub(super) fn accepted_start_aims_at_a_new_run(host: &Host, command: &Command) -> Check {
    let (Command::Run { id, .. } | Command::Start { id } | Command::Restart { id, .. }) = command else {
        return Ok(());
    };
    let last = host.runtime.of(*id).map(|(run, _)| run).max();
    match host.daemon.as_ref().and_then(|daemon| daemon.container(*id)).map(Container::goal) {
        Some(Goal::Up { run, .. }) if Some(run) > last => Ok(()),
        goal => Err(format!("accepted_start_aims_at_a_new_run: {goal:?} after run {last:?}")),
    }
}

pub(super) fn save_before_start(host: &Host, id: Id, run: Run) -> Check {
    match host.store.get(&id) {
        Some((_, saved)) if intends(&saved.phase, run) => Ok(()),
        saved => Err(format!("save_before_start: run {run} of {id:?} starts, saved is {saved:?}")),
    }
}

pub(super) fn runs_count_up(host: &Host, id: Id, run: Run) -> Check {
    match host.runtime.of(id).map(|(earlier, _)| earlier).max() {
        Some(earlier) if earlier >= run => {
            Err(format!("runs_count_up: run {run} of {id:?} starts after run {earlier}"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn exit_is_saved_before_cleanup(host: &Host, id: Id, run: Run) -> Check {
    match host.store.get(&id).map(|(_, saved)| &saved.phase) {
        Some(Phase::CleaningUp { run: over, .. }) if *over == run => Ok(()),
        phase => Err(format!("exit_is_saved_before_cleanup: run {run} of {id:?}, saved is {phase:?}")),
    }
}

pub(super) fn only_the_dead_are_cleaned_up(host: &Host, id: Id) -> Check {
    match host.runtime.living(id) {
        0 => Ok(()),
        _ => Err(format!("only_the_dead_are_cleaned_up: a run of {id:?} lives")),
    }
}

pub(super) fn only_the_saved_run_is_alive(runtime: &Runtime, id: Id, phase: &Phase) -> Check {
    let stray = |(run, real): &(Run, &Real)| real.life != Life::Over && phase.living_run() != Some(*run);
    match runtime.of(id).find(stray) {
        None => Ok(()),
        Some((run, _)) => {
            Err(format!("only_the_saved_run_is_alive: run {run} of {id:?}, saved is {phase:?}"))
        }
    }
}

/// Somebody asked for its end and the grace is over, or its start took too long. The end of a daemon is no
/// reason.
pub(super) fn no_kill_without_a_reason(host: &Host, id: Id) -> Check {
    let asked = host.may_be_killed.get(&id).is_some_and(|at| *at <= host.now);
    let too_slow = host.begun.get(&id).is_some_and(|begun| *begun + START_LIMIT <= host.now);
    if asked || too_slow { Ok(()) } else { Err(format!("no_kill_without_a_reason: {id:?}")) }
}

pub(super) fn no_stop_without_a_reason(host: &Host, id: Id) -> Check {
    match host.may_be_killed.contains_key(&id) {
        true => Ok(()),
        false => Err(format!("no_stop_without_a_reason: {id:?}")),
    }
}

pub(super) fn removed_leaves_nothing(host: &Host, id: Id) -> Check {
    let left = host.runtime.of(id).find(|(_, real)| real.life != Life::Over || real.remains);
    match (left, host.store.get(&id)) {
        (None, None) => Ok(()),
        (left, saved) => Err(format!("removed_leaves_nothing: {id:?} left {left:?} and {saved:?}")),
    }
}

fn every_effect_has_an_outcome(container: &Container) -> Check {
    match container.state().deadline() {
        None if container.is_settled() => Ok(()),
        _ => Err(format!("every_effect_has_an_outcome: {container:?} waits")),
    }
}

fn goal_down_ends_down(host: &Host, container: &Container) -> Check {
    let Goal::Down = container.goal() else { return Ok(()) };
    match host.runtime.living(container.id()) {
        0 => Ok(()),
        _ => Err(format!("goal_down_ends_down: a run lives of {container:?}")),
    }
}

fn goal_up_ends_up(host: &Host, container: &Container) -> Check {
    let Goal::Up { run, .. } = container.goal() else { return Ok(()) };
    let alive = container.state().process().filter(|process| process.run >= run).is_some_and(|process| {
        let real = host.runtime.runs.get(&(container.id(), process.run));
        real.is_some_and(|real| real.life == Life::Alive)
    });
    if alive { Ok(()) } else { Err(format!("goal_up_ends_up: no such run lives of {container:?}")) }
}

fn frozen_only_when_wanted(host: &Host, container: &Container) -> Check {
    let Goal::Up { paused, .. } = container.goal() else { return Ok(()) };
    match host.runtime.of(container.id()).find(|(_, real)| real.life == Life::Alive) {
        Some((_, real)) if real.frozen != paused => {
            Err(format!("frozen_only_when_wanted: {real:?} of {container:?}"))
        }
        Some(_) | None => Ok(()),
    }
}
