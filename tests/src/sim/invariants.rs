//! What must be true, whatever the world does. Each is a function of that name; what it returns says what was
//! seen instead.

use super::host::{Host, intends};
use super::ledger::Account;
use super::reference;
use super::runtime::{Life, Real, Runtime};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wharf_supervisor::{
    Command, Condition, Container, Ending, ExitStatus, FailureKind, GaveUp, Goal, Hold, Id, Name, Observed,
    Phase, Policy, ProbeKind, Rejection, Requirement, Run, Spec, State, Supervisor, Time, Verdict,
};

pub(super) type Check = Result<(), String>;
/// Everything that a command could change.
pub(super) type Overview = Vec<(Id, Goal, State)>;

/// The supervisor gives a start up after this, and a hook after it.
pub(super) const START_LIMIT: Duration = Duration::from_secs(120);
/// What is left for the stop signal, however long the hook before it took.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(2);

/// After every step.
pub(super) fn always(host: &Host) -> Check {
    let Some(daemon) = &host.daemon else { return Ok(()) };
    for container in daemon.containers() {
        at_most_one_run_alive(host, container)?;
        announced_state_is_the_state(host, container)?;
        ready_only_while_running(host, container)?;
        stop_takes_no_longer_than_its_grace(host, container)?;
        started_is_the_truth(host, container)?;
        what_is_decided_is_durable(host, container)?;
        exit_status_never_invented_nor_lost(host, container)?;
        ended_leaves_no_remains(host, container)?;
    }
    Ok(())
}

/// In the calm: is what is wanted, as far as it can be?
pub(super) fn at_rest(host: &Host) -> Check {
    let daemon = host.daemon.as_ref().ok_or("there is no daemon in the calm")?;
    for container in daemon.containers() {
        every_effect_has_an_outcome(host, container)?;
        goal_down_ends_down(host, container)?;
        goal_up_ends_up(host, container)?;
        calm_ends_ready(container)?;
        calm_ends_healthy(host, container)?;
        frozen_only_when_wanted(host, container)?;
    }
    Ok(())
}

/// When the calm is over.
pub(super) fn at_the_end(host: &Host) -> Check {
    let daemon = host.daemon.as_ref().ok_or("there is no daemon at the end")?;
    for container in daemon.containers() {
        policy_is_kept(host, container)?;
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
    let account = host.accounts.get(&container.id());
    match account.and_then(|account| account.state.as_ref()) {
        Some(announced) if std::mem::discriminant(announced) == is => Ok(()),
        _ => Err(format!("announced_state_is_the_state: not told of {container:?}")),
    }
}

fn ready_only_while_running(host: &Host, container: &Container) -> Check {
    let announced = host.accounts.get(&container.id()).is_some_and(|account| account.ready);
    let lives = matches!((container.goal(), container.state()), (Goal::Up { .. }, State::Running { .. }));
    match container.is_ready() {
        ready if ready == announced && (lives || !ready) => Ok(()),
        ready => Err(format!("ready_only_while_running: {ready}, announced {announced}, of {container:?}")),
    }
}

fn stop_takes_no_longer_than_its_grace(host: &Host, container: &Container) -> Check {
    let (State::Canceling { kill_at, .. } | State::Stopping { kill_at, .. }) = container.state() else {
        return Ok(());
    };
    let account = host.accounts.get(&container.id());
    // After a hook there is always a moment left for the stop signal.
    let hook = container.spec().hooks.pre_stop.then_some(host.now + LEAST_GRACE);
    match account.and_then(|account| account.kill_at).max(hook) {
        Some(latest) if *kill_at <= latest && *kill_at >= host.now => Ok(()),
        latest => Err(format!("stop_takes_no_longer_than_its_grace: {latest:?} for {container:?}")),
    }
}

pub(super) fn stop_has_the_grace_it_was_given(host: &Host, id: Id, state: &State) -> Check {
    let (State::Canceling { kill_at, .. } | State::Stopping { kill_at, .. }) = state else { return Ok(()) };
    let account = host.accounts.get(&id);
    let spec = host.specs.get(&id).map(|spec| spec.stop.grace);
    let longest = account.map(|account| account.longest_grace).max(spec).unwrap_or_default();
    let earlier = account.and_then(|account| account.kill_at);
    match *kill_at <= host.now + longest || Some(*kill_at) <= earlier {
        true => Ok(()),
        false => Err(format!("stop_has_the_grace_it_was_given: {longest:?}, but {state:?}")),
    }
}

/// A stop under way ends no later than a new one asks for.
pub(super) fn stop_shortens(host: &Host, command: &Command) -> Check {
    let (Command::Stop { id, grace: Some(grace) } | Command::Restart { id, grace: Some(grace) }) = command
    else {
        return Ok(());
    };
    let container = host.daemon.as_ref().and_then(|daemon| daemon.container(*id));
    match container.map(Container::state) {
        Some(State::Canceling { kill_at, .. } | State::Stopping { kill_at, .. })
            if *kill_at > host.now + *grace =>
        {
            Err(format!("stop_shortens: {command:?} at {:?}, {container:?}", host.now))
        }
        Some(_) | None => Ok(()),
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
    let Some((_, saved, _)) = host.store.get(&id) else {
        // Deleted, and the news is on its way; or it could not be saved in the first place.
        let going = matches!(container.state(), State::Removing { .. });
        return if going { Ok(()) } else { Err(format!("what_is_decided_is_durable: {container:?} is not")) };
    };
    let health = container.vitals().health().to_save();
    // What is to be removed needs no memory.
    if saved.goal == Goal::Removed && container.goal() == Goal::Removed {
        return Ok(());
    }
    if saved.goal != container.goal()
        || saved.started != container.started()
        || saved.restarts != *container.restarts()
        || saved.vitals.health != health
        || saved.vitals.ready_since.is_some() != container.is_ready()
    {
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
    let (State::Ended { .. } | State::GivenUp { .. }) = container.state() else { return Ok(()) };
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

/// The last run of each container.
pub(super) fn last_runs(host: &Host) -> BTreeMap<Id, Run> {
    host.runtime.runs.keys().copied().collect()
}

pub(super) fn accepted_start_aims_at_a_new_run(
    host: &Host,
    command: &Command,
    last: &BTreeMap<Id, Run>,
) -> Check {
    let (Command::Run { id, .. } | Command::Start { id } | Command::Restart { id, .. }) = command else {
        return Ok(());
    };
    let last = last.get(id).copied();
    let Some(container) = host.daemon.as_ref().and_then(|daemon| daemon.container(*id)) else {
        return Ok(());
    };
    match (container.goal(), container.state()) {
        (Goal::Up { run, .. }, _) if Some(run) > last => Ok(()),
        // It would be one too many in its time.
        (Goal::Down, State::GivenUp { why: GaveUp::StartLimit { .. }, .. }) => Ok(()),
        // Whoever asked again did so for the sake of those that it requires.
        (Goal::Up { .. }, State::Running { .. } | State::Starting { .. })
            if matches!(command, Command::Start { .. }) =>
        {
            Ok(())
        }
        _ => Err(format!("accepted_start_aims_at_a_new_run: {container:?} after run {last:?}")),
    }
}

pub(super) fn save_before_start(host: &Host, id: Id, run: Run) -> Check {
    match host.store.get(&id) {
        Some((_, saved, _)) if intends(&saved.phase, run) => Ok(()),
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
    match host.store.get(&id).map(|(_, saved, _)| &saved.phase) {
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

/// Somebody asked for its end and the grace is over, or its start took too long, or it is unhealthy, or it is to be
/// restarted with another. The end of a daemon is no reason.
pub(super) fn no_kill_without_a_reason(host: &Host, id: Id, run: Run) -> Check {
    let Some(account) = host.accounts.get(&id) else {
        return Err(format!("no_kill_without_a_reason: {id:?}"));
    };
    let asked = account.may_be_killed.is_some_and(|at| at <= host.now);
    let at_once = host.specs.get(&id).is_some_and(|spec| spec.stop.grace.is_zero());
    if asked || account.start_gave_up || at_once && is_older_than_required(host, id, run) {
        return Ok(());
    }
    Err(format!("no_kill_without_a_reason: {id:?}, {account:?}"))
}

pub(super) fn no_stop_without_a_reason(host: &mut Host, id: Id, run: Run) -> Check {
    let older = is_older_than_required(host, id, run);
    let grace = host.specs.get(&id).map(|spec| spec.stop.grace).unwrap_or_default();
    let account = host.accounts.entry(id).or_default();
    match account.may_be_stopped {
        true => Ok(()),
        false if older => {
            account.permit(host.now, grace);
            Ok(())
        }
        false => Err(format!("no_stop_without_a_reason: {id:?}, {account:?}")),
    }
}

/// Somebody that it is to be restarted with has started after it.
fn is_older_than_required(host: &Host, id: Id, run: Run) -> bool {
    let Some(own) = host.runtime.runs.get(&(id, run)).and_then(|real| real.started) else { return false };
    let Some(spec) = host.specs.get(&id) else { return false };
    spec.requires.iter().filter(|requirement| requirement.restart_with).any(|requirement| {
        let required = host.specs.iter().filter(|(_, spec)| spec.name == requirement.name);
        required
            .flat_map(|(id, _)| host.runtime.of(*id))
            .any(|(_, real)| real.started.is_some_and(|started| started.boot > own.boot))
    })
}

pub(super) fn removed_leaves_nothing(host: &Host, id: Id) -> Check {
    let left = host.runtime.of(id).find(|(_, real)| real.life != Life::Over || real.remains);
    match (left, host.store.get(&id)) {
        (None, None) => Ok(()),
        (left, saved) => Err(format!("removed_leaves_nothing: {id:?} left {left:?} and {saved:?}")),
    }
}

pub(super) fn requirements_hold_at_start(host: &Host, id: Id) -> Check {
    let Some(spec) = host.specs.get(&id) else { return Ok(()) };
    match spec.requires.iter().find(|requirement| !is_met(host, requirement)) {
        None => Ok(()),
        Some(requirement) => {
            Err(format!("requirements_hold_at_start: {id:?} starts without {requirement:?}"))
        }
    }
}

/// As far as has been announced.
fn is_met(host: &Host, requirement: &Requirement) -> bool {
    let Some((id, spec)) = host.specs.iter().find(|(_, spec)| spec.name == requirement.name) else {
        return false;
    };
    let Some(account) = host.accounts.get(id) else { return false };
    let Account { state: Some(state), ready, .. } = account else { return false };
    let runs = matches!(
        state,
        State::Running { .. } | State::Pausing { .. } | State::Paused { .. } | State::Resuming { .. }
    );
    match requirement.condition {
        Condition::Started => runs,
        Condition::Healthy => runs && is_healthy(spec, account),
        Condition::Ready => runs && *ready,
        Condition::Completed => {
            matches!(state.ending(), Some(Ending::Exited(exit)) if exit.status == ExitStatus::Code(0))
        }
    }
}

/// Every probe that says whether it is healthy has settled on it, the hook after the start has ended, and nothing
/// is against it. A liveness probe speaks up only when it is against it.
fn is_healthy(spec: &Spec, account: &Account) -> bool {
    let says_so = |kind| spec.probes.get(kind).is_none() || account.settled.get(&kind) == Some(&true);
    says_so(ProbeKind::Startup)
        && says_so(ProbeKind::Health)
        && (!spec.hooks.post_start || account.post_start == Some(true))
        && !account.is_doomed()
}

/// Nobody is started but by somebody's wish, by the restart policy after its back-off, or with another.
pub(super) fn restart_only_if_policy_says_so(host: &Host, id: Id) -> Check {
    let account = host.accounts.get(&id).ok_or("restart_only_if_policy_says_so: a start of nobody")?;
    let last = host.runtime.of(id).map(|(run, _)| run).next_back();
    let rebooted = host.specs.get(&id).is_some_and(|spec| spec.restart.policy == Policy::Always);
    match account.restarting {
        _ if account.asked => Ok(()),
        Some(at) if at <= host.now && !account.down => Ok(()),
        None if last.is_some_and(|last| is_older_than_required(host, id, last)) => Ok(()),
        None if rebooted && host.boot > 0 => Ok(()),
        _ => Err(format!("restart_only_if_policy_says_so: at {:?} {id:?} {account:?}", host.now)),
    }
}

/// When the policy's decision is announced, it is about the end that was announced before, and as it should be.
pub(super) fn restart_follows_an_end(host: &Host, id: Id) -> Check {
    let (Some(spec), Some(account)) = (host.specs.get(&id), host.accounts.get(&id)) else { return Ok(()) };
    let ending = account.state.as_ref().and_then(State::ending);
    // It may have ended by itself before it could be ended for that.
    let nearly = account.triggered || account.post_start == Some(false);
    let wanted = |ending: &Ending| {
        reference::wants(&spec.restart, ending, account.unhealthy)
            || nearly && reference::wants(&spec.restart, ending, true)
    };
    match ending {
        Some(ending) if !account.down && wanted(ending) => Ok(()),
        _ => Err(format!("restart_only_if_policy_says_so: {:?} after {account:?}", spec.restart)),
    }
}

pub(super) fn back_off_never_shorter_than_policy(host: &Host, id: Id, at: Time, delay: Duration) -> Check {
    let container = host.daemon.as_ref().and_then(|daemon| daemon.container(id));
    let (Some(container), Some(account)) = (container, host.accounts.get(&id)) else { return Ok(()) };
    let earlier = container.restarts().streak.saturating_sub(1);
    let least = reference::delay(&container.spec().restart.back_off, earlier);
    let ended = match account.state.as_ref().and_then(State::ending) {
        Some(Ending::Exited(exit)) => exit.at.boot,
        Some(Ending::Failed(failure)) => failure.at.boot,
        None => return Err(format!("back_off_never_shorter_than_policy: no end of {id:?}")),
    };
    // Of a float only so many digits are right.
    if delay + Duration::from_micros(1) >= least && at >= ended + delay {
        return Ok(());
    }
    Err(format!(
        "back_off_never_shorter_than_policy: {delay:?} of {least:?} from {ended:?} to {at:?}, {id:?}"
    ))
}

/// Counted with this one.
pub(super) fn no_restart_beyond_a_limit(host: &Host, id: Id, count: u32) -> Check {
    let Some(restart) = host.specs.get(&id).map(|spec| &spec.restart) else { return Ok(()) };
    let retries = match restart.policy {
        Policy::OnFailure { max } => max,
        Policy::No | Policy::Always | Policy::UnlessStopped => None,
    };
    let attempts = restart.attempts.filter(|attempts| attempts.window.is_none()).map(|attempts| attempts.max);
    match retries.into_iter().chain(attempts).min() {
        Some(most) if count > most => Err(format!("no_restart_beyond_a_limit: {count} of {most}, {id:?}")),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn given_up_only_at_a_limit(host: &Host, id: Id, why: GaveUp) -> Check {
    let container = host.daemon.as_ref().and_then(|daemon| daemon.container(id));
    let (Some(container), Some(account)) = (container, host.accounts.get(&id)) else { return Ok(()) };
    let (restart, restarts) = (&container.spec().restart, container.restarts());
    let reached = match why {
        GaveUp::Retries { max } => {
            restart.policy == Policy::OnFailure { max: Some(max) } && restarts.count >= max
        }
        GaveUp::Attempts { max, window: None } => restarts.count >= max,
        GaveUp::Attempts { max, window: Some(_) } => {
            restarts.count >= max && restarts.recent.len() >= max as usize
        }
        GaveUp::StartLimit { burst, interval } => {
            let lately = account.starts.iter().filter(|at| **at + interval >= host.age).count();
            lately >= burst as usize
        }
    };
    if reached {
        Ok(())
    } else {
        Err(format!("given_up_only_at_a_limit: {why:?}, {account:?} of {container:?}"))
    }
}

/// This start included.
pub(super) fn starts_within_limit(host: &Host, id: Id) -> Check {
    let is_being_started =
        |account: &&Account| matches!(account.state, Some(State::Starting { .. } | State::Canceling { .. }));
    match host.accounts.values().filter(is_being_started).count() {
        starts if starts <= host.limits.starts => Ok(()),
        starts => Err(format!("starts_within_limit: {starts} with that of {id:?}")),
    }
}

/// In no time there are more restarts by policy than the burst and what the time adds to it.
pub(super) fn restart_budget_kept(host: &mut Host, id: Id) -> Check {
    let Some(account) = host.accounts.get(&id) else { return Ok(()) };
    if account.asked || account.restarting.is_none() {
        return Ok(());
    }
    host.places.push_back(account.place.unwrap_or(host.now));
    host.places.make_contiguous().sort();
    if host.places.len() > 50 {
        host.places.pop_front();
    }
    let wharf_supervisor::Limits { restart_burst, restart_every, .. } = host.limits;
    for (first, from) in host.places.iter().enumerate() {
        for (last, to) in host.places.iter().enumerate().skip(first + restart_burst as usize) {
            let most = (last - first + 1) as u32 - restart_burst;
            // Of the places before the last, one could be anywhere between.
            if restart_every * most > to.since(*from) + Duration::from_micros(1) {
                return Err(format!("restart_budget_kept: {:?} at {:?}", host.places, host.now));
            }
        }
    }
    Ok(())
}

/// Who has to have stopped before whom, if this is to stop all.
pub(super) fn who_stops_first(host: &Host, command: &Command) -> BTreeMap<Id, BTreeSet<Id>> {
    let Command::StopAll { grace } = command else { return BTreeMap::new() };
    let Some(daemon) = &host.daemon else { return BTreeMap::new() };
    let waits = |container: &&Container| {
        let grace = grace.unwrap_or(container.spec().stop.grace);
        let runs = matches!((container.goal(), container.state()), (Goal::Up { .. }, State::Running { .. }));
        runs && !grace.is_zero()
    };
    let before = |container: &Container| {
        let name = &container.spec().name;
        let others = daemon.containers().filter(|by| requires(by.spec(), name) && is_alive(by.state()));
        (container.id(), others.map(Container::id).collect())
    };
    daemon.containers().filter(waits).map(before).collect()
}

/// Likewise when a new daemon goes on with what an earlier one was asked for.
pub(super) fn who_stops_first_after_adoption(
    host: &Host,
    observations: &BTreeMap<Id, Observed>,
) -> BTreeMap<Id, BTreeSet<Id>> {
    let lives = |id: &Id| matches!(observations.get(id), Some(Observed::Alive { .. } | Observed::Starting));
    let frozen = |id: &Id| matches!(observations.get(id), Some(Observed::Alive { frozen: true, .. }));
    let mut first = BTreeMap::new();
    for (id, (spec, saved, _)) in &host.store {
        let runs = matches!(saved.phase, Phase::Running { .. }) && saved.goal == Goal::Down;
        if !runs || !lives(id) || frozen(id) || spec.stop.grace.is_zero() {
            continue;
        }
        let others = host.store.iter().filter(|(by, (other, saved, _))| {
            requires(other, &spec.name) && lives(by) && !matches!(saved.goal, Goal::Up { .. })
        });
        first.insert(*id, others.map(|(by, _)| *by).collect());
    }
    first
}

fn requires(spec: &Spec, name: &Name) -> bool {
    spec.requires.iter().any(|requirement| requirement.name == *name)
}

fn is_alive(state: &State) -> bool {
    state.process().is_some()
        || matches!(state, State::Starting { .. } | State::Canceling { .. } | State::Killing { .. })
}

pub(super) fn dependants_stop_first(host: &Host, id: Id) -> Check {
    let Some(account) = host.accounts.get(&id) else { return Ok(()) };
    let alive = |by: &&Id| {
        // A new daemon has not spoken of each yet.
        host.accounts.get(by).is_some_and(|account| account.state.as_ref().is_none_or(is_alive))
    };
    match account.after.iter().find(alive) {
        None => Ok(()),
        Some(by) => Err(format!("dependants_stop_first: {id:?} is stopped while {by:?} lives")),
    }
}

pub(super) fn probes_only_while_running(host: &Host, id: Id, run: Run) -> Check {
    match host.accounts.get(&id).and_then(|account| account.state.as_ref()) {
        Some(State::Running { process }) if process.run == run => Ok(()),
        state => Err(format!("probes_only_while_running: run {run} of {id:?} is probed in {state:?}")),
    }
}

pub(super) fn probe_never_in_flight_twice(host: &Host, id: Id, run: Run, kind: ProbeKind) -> Check {
    let account = host.accounts.get(&id);
    match account.and_then(|account| account.probes.get(&kind)) {
        Some(probe) if probe.run == run && !probe.excused && host.now < probe.lost_at => {
            Err(format!("probe_never_in_flight_twice: {kind:?} of {id:?}: {probe:?} at {:?}", host.now))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn post_start_before_ready(host: &Host, id: Id, ready: bool) -> Check {
    let waits = host.specs.get(&id).is_some_and(|spec| spec.hooks.post_start);
    match host.accounts.get(&id).and_then(|account| account.post_start) {
        Some(true) => Ok(()),
        _ if !ready || !waits => Ok(()),
        hook => Err(format!("post_start_before_ready: {id:?} is ready, its hook is {hook:?}")),
    }
}

/// Only a run that said, or was said, to be ill is ended for it.
pub(super) fn never_restart_a_healthy_container(host: &Host, id: Id, verdict: Verdict) -> Check {
    let (Some(spec), Some(account)) = (host.specs.get(&id), host.accounts.get(&id)) else { return Ok(()) };
    let ill = match verdict {
        Verdict::Probe(kind) => {
            let enough = spec.probes.get(kind).map_or(u32::MAX, |probe| probe.failure_threshold);
            account.failures.get(&kind).is_some_and(|failures| *failures >= enough)
        }
        Verdict::Watchdog => {
            let starved = account.watchdog.is_some_and(|period| account.heard + period <= host.now);
            starved || account.triggered
        }
        Verdict::PostStart => {
            let too_slow = account.patience_from.is_some_and(|from| from + START_LIMIT <= host.now);
            account.post_start == Some(false) || too_slow
        }
    };
    if ill {
        Ok(())
    } else {
        Err(format!("never_restart_a_healthy_container: {verdict:?} of {id:?}, {account:?}"))
    }
}

pub(super) fn grace_after(spec: &Spec, verdict: Verdict) -> Duration {
    let own = match verdict {
        Verdict::Probe(kind) => spec.probes.get(kind).and_then(|probe| probe.grace),
        Verdict::Watchdog | Verdict::PostStart => None,
    };
    own.unwrap_or(spec.stop.grace)
}

/// What was counted and believed before is so afterwards, as long as nothing has happened in between.
pub(super) fn counters_survive_the_daemon(
    host: &Host,
    daemon: &Supervisor,
    observations: &BTreeMap<Id, Observed>,
) -> Check {
    for container in daemon.containers() {
        let Some((_, saved, _)) = host.store.get(&container.id()) else { continue };
        let observed = observations.get(&container.id());
        let rebooted = matches!(observed, Some(Observed::Rebooted { .. }));
        let restarts = container.restarts();
        let same = restarts.count == saved.restarts.count && restarts.streak == saved.restarts.streak;
        let wanted = matches!((saved.goal, &saved.phase),
            (Goal::Up { paused: false, run }, Phase::Running { process }) if process.run == run);
        let lives = wanted && matches!(observed, Some(Observed::Alive { frozen: false, .. }));
        let health = container.vitals().health().to_save() == saved.vitals.health;
        // One that was frozen was not ready, and may be now.
        let ready = container.is_ready() || saved.vitals.ready_since.is_none();
        if !rebooted && !same || lives && !(health && ready) {
            return Err(format!("counters_survive_the_daemon: {saved:?} became {container:?}"));
        }
    }
    Ok(())
}

/// What is under way comes to an end; what waits, waits for somebody who is not as required.
fn every_effect_has_an_outcome(host: &Host, container: &Container) -> Check {
    let unmet = |hold: &Option<Hold>| match hold {
        Some(Hold::Requires { name, condition, .. }) => {
            !is_met(host, &Requirement { name: name.clone(), condition: *condition, restart_with: false })
        }
        Some(Hold::Starts | Hold::Restarts) | None => false,
    };
    let waits = matches!(container.state(), State::Waiting { hold, .. } if unmet(hold));
    match waits || container.is_settled() {
        true => Ok(()),
        false => Err(format!("every_effect_has_an_outcome: {container:?} waits")),
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
    if let State::Waiting { hold: Some(Hold::Requires { .. }), .. } = container.state() {
        return Ok(());
    }
    let alive = container.state().process().filter(|process| process.run >= run).is_some_and(|process| {
        let real = host.runtime.runs.get(&(container.id(), process.run));
        real.is_some_and(|real| real.life == Life::Alive)
    });
    if alive { Ok(()) } else { Err(format!("goal_up_ends_up: no such run lives of {container:?}")) }
}

/// A run that has no reason not to be ready is.
fn calm_ends_ready(container: &Container) -> Check {
    let speaks = container.spec().notify.is_some();
    let runs = matches!(container.state(), State::Running { .. });
    match runs && !speaks && !container.is_ready() {
        false => Ok(()),
        true => Err(format!("calm_ends_ready: {container:?} is not")),
    }
}

/// What is ill is not left running.
fn calm_ends_healthy(host: &Host, container: &Container) -> Check {
    let State::Running { .. } = container.state() else { return Ok(()) };
    match host.accounts.get(&container.id()) {
        Some(account) if is_healthy(container.spec(), account) => Ok(()),
        account => Err(format!("calm_ends_healthy: {account:?} of {container:?}")),
    }
}

/// What the restart policy wants and no limit forbids is done, unless somebody wanted it otherwise.
fn policy_is_kept(host: &Host, container: &Container) -> Check {
    let (Goal::Down, State::Ended { run, ending }) = (container.goal(), container.state()) else {
        return Ok(());
    };
    if host.accounts.get(&container.id()).is_none_or(|account| account.down) {
        return Ok(());
    }
    let hopeless = match ending {
        Ending::Failed(failure) => failure.kind == FailureKind::CommandNotFound && *run == Run::FIRST,
        Ending::Exited(_) => false,
    };
    let unhealthy = container.vitals().verdict().is_some();
    if hopeless || !reference::wants(&container.spec().restart, ending, unhealthy) {
        return Ok(());
    }
    Err(format!("policy_is_kept: {container:?} is not started again"))
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
