//! Writes down what follows from everything that can happen in every state, and compares it with
//! `transitions.txt`, so that a change of behaviour is seen as one.
//!
//! `UPDATE_TRANSITIONS=1 cargo test -p wharf-supervisor transitions` writes the file anew.

use crate::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

const WEB: Id = Id::from_bytes([7; 32]);
const RUN: Run = Run::FIRST;
const GRACE: Duration = Duration::from_secs(10);
/// When everything in the page happens, but for deadlines.
const NOW: Time = Time(1_000_000_000);
const AT: Stamp = Stamp { boot: NOW, wall: 0 };

const HEAD: &str = "\
What follows from everything that can happen to a container, in every state. Written by the test `transitions`;
after a change of behaviour: UPDATE_TRANSITIONS=1 cargo test -p wharf-supervisor transitions

A situation is its state and its goal. A line below is: what happens -> the state (and when something has to be
done if nothing else happens), the goal, and the effects in order. `=` is: as before. Every change of state and
goal is announced; `tell` are the other announcements. All is about run 1; facts about other runs are dropped.
The grace is 10 s, the stop signal 15. With --restart the policy is `always` with the default back-off, with --retry 0
times `on-failure`, with --probes every probe settles at its first result, with --hooks there are both hooks.
";

#[test]
#[expect(clippy::disallowed_methods, reason = "the page is a file, and regenerated on request")]
fn transitions_are_as_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/transitions.txt");
    let page = page();
    if std::env::var_os("UPDATE_TRANSITIONS").is_some() {
        std::fs::write(path, &page).expect("transitions.txt can be written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    for (number, (is, was)) in page.lines().zip(committed.lines()).enumerate() {
        assert_eq!(is, was, "line {} of transitions.txt; if that is meant, see its head", number + 1);
    }
    assert_eq!(page.lines().count(), committed.lines().count(), "lines of transitions.txt; see its head");
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for situation in situations() {
        describe(&situation, &mut page).expect("a string takes everything");
    }
    adoptions(&mut page).expect("a string takes everything");
    page
}

struct Situation {
    options: Vec<&'static str>,
    inputs: Vec<Input>,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few dozen of them")]
enum Input {
    Command(&'static str, Command),
    Fact(&'static str, Fact),
    /// What is due now.
    Tick,
    Deadline,
}

fn situations() -> Vec<Situation> {
    let situation = |words: &[&'static str]| Situation {
        options: words.iter().filter(|word| word.starts_with("--")).copied().collect(),
        inputs: words.iter().filter(|word| !word.starts_with("--")).map(|word| input(word)).collect(),
    };
    [
        &[][..],
        &["start"],
        &["start", "stop"],
        &["start", "started"],
        &["start", "started", "pause"],
        &["start", "started", "pause", "frozen"],
        &["start", "started", "pause", "frozen", "unpause"],
        &["start", "started", "stop"],
        &["start", "started", "restart"],
        &["start", "started", "kill 9"],
        &["start", "started", "remove -f"],
        &["start", "started", "exited"],
        &["start", "started", "exited", "start"],
        &["--rm", "start", "started", "exited"],
        &["start", "started", "exited", "cleaned up"],
        &["start", "start failed", "cleaned up"],
        &["remove"],
        &["--restart", "start", "started", "exited"],
        &["--restart", "start", "started", "exited", "cleaned up", "started 2", "exited 2", "cleaned up 2"],
        &["--restart", "start", "start failed"],
        &["--retry", "start", "started", "exited", "cleaned up"],
        &["--probes", "start", "started", "tick"],
        &["--probes", "start", "started", "tick", "startup succeeded", "tick"],
        &["--probes", "start", "started", "tick", "startup succeeded", "tick", "readiness succeeded"],
        &["--probes", "start", "started", "tick", "startup succeeded", "tick", "liveness failed"],
        &["--hooks", "start", "started"],
        &["--hooks", "start", "started", "post-start ended"],
        &["--hooks", "start", "started", "post-start ended", "stop"],
    ]
    .into_iter()
    .map(situation)
    .collect()
}

fn input(word: &str) -> Input {
    // Of the second run, to get to where it leads.
    let run = RUN.next();
    let exit = Exit { status: ExitStatus::Code(3), oom_killed: false, at: AT };
    match word {
        "started 2" => return Input::Fact("started 2", Fact::Started { id: WEB, run, pid: 200, at: AT }),
        "exited 2" => return Input::Fact("exited 2", Fact::Exited { id: WEB, run, exit }),
        "tick" => return Input::Tick,
        "cleaned up 2" => return Input::Fact("cleaned up 2", Fact::CleanedUp { id: WEB, run }),
        _ => {}
    }
    inputs()
        .into_iter()
        .find(|input| input.name() == word)
        .unwrap_or_else(|| panic!("{word:?} is none of the inputs"))
}

fn inputs() -> Vec<Input> {
    let id = WEB;
    let run = RUN;
    let probed = |kind, success| {
        let result = if success { ProbeResult::Success } else { ProbeResult::Failure("refused".into()) };
        Fact::Probed { id, run, kind, result }
    };
    let trigger = Notification { trigger: true, ..Notification::default() };
    let reason = || "it broke".to_owned();
    let usr1 = Signal::new(10).expect("SIGUSR1");
    let exit = Exit { status: ExitStatus::Code(3), oom_killed: false, at: AT };
    let failure = Failure { kind: FailureKind::CommandNotFound, message: "no such file".into(), at: AT };
    vec![
        Input::Command("start", Command::Start { id }),
        Input::Command("stop", Command::Stop { id, grace: None }),
        Input::Command("stop -t 3", Command::Stop { id, grace: Some(Duration::from_secs(3)) }),
        Input::Command("restart", Command::Restart { id, grace: None }),
        Input::Command("kill 9", Command::Kill { id, signal: Signal::KILL }),
        Input::Command("kill 10", Command::Kill { id, signal: usr1 }),
        Input::Command("pause", Command::Pause { id }),
        Input::Command("unpause", Command::Unpause { id }),
        Input::Command("update", Command::Update { id }),
        Input::Command("remove", Command::Remove { id, force: false }),
        Input::Command("remove -f", Command::Remove { id, force: true }),
        Input::Command("reset-failed", Command::ResetFailed { id }),
        Input::Fact("create failed", Fact::CreateFailed { id }),
        Input::Fact("started", Fact::Started { id, run, pid: 100, at: AT }),
        Input::Fact("start failed", Fact::StartFailed { id, run, failure }),
        Input::Fact("exited", Fact::Exited { id, run, exit }),
        Input::Fact("startup succeeded", probed(ProbeKind::Startup, true)),
        Input::Fact("startup failed", probed(ProbeKind::Startup, false)),
        Input::Fact("liveness failed", probed(ProbeKind::Liveness, false)),
        Input::Fact("readiness succeeded", probed(ProbeKind::Readiness, true)),
        Input::Fact("readiness failed", probed(ProbeKind::Readiness, false)),
        Input::Fact("post-start ended", Fact::HookEnded { id, run, hook: Hook::PostStart, failure: None }),
        Input::Fact(
            "post-start failed",
            Fact::HookEnded { id, run, hook: Hook::PostStart, failure: Some(reason()) },
        ),
        Input::Fact("pre-stop ended", Fact::HookEnded { id, run, hook: Hook::PreStop, failure: None }),
        Input::Fact("watchdog trigger", Fact::Notified { id, run, notification: trigger }),
        Input::Fact("oom", Fact::Oom { id, run }),
        Input::Fact("frozen", Fact::Frozen { id, run }),
        Input::Fact("freeze failed", Fact::FreezeFailed { id, run, reason: reason() }),
        Input::Fact("thawed", Fact::Thawed { id, run }),
        Input::Fact("thaw failed", Fact::ThawFailed { id, run, reason: reason() }),
        Input::Fact("limited", Fact::Limited { id }),
        Input::Fact("cleaned up", Fact::CleanedUp { id, run }),
        Input::Fact("cleanup failed", Fact::CleanupFailed { id, run, reason: reason() }),
        Input::Fact("deleted", Fact::Deleted { id }),
        Input::Fact("delete failed", Fact::DeleteFailed { id, reason: reason() }),
        Input::Deadline,
    ]
}

impl Input {
    fn name(&self) -> &'static str {
        match self {
            Self::Command(name, _) | Self::Fact(name, _) => name,
            Self::Tick => "tick",
            Self::Deadline => "(deadline)",
        }
    }

    fn happen(self, supervisor: &mut Supervisor) -> Result<Accepted, Rejection> {
        match self {
            Self::Command(_, command) => supervisor.command(NOW, command),
            Self::Fact(_, fact) => {
                supervisor.fact(NOW, fact);
                Ok(Accepted::Underway)
            }
            Self::Tick => {
                supervisor.tick(NOW);
                Ok(Accepted::Underway)
            }
            Self::Deadline => {
                supervisor.tick(Time::NEVER);
                Ok(Accepted::Underway)
            }
        }
    }
}

impl Situation {
    fn arrange(&self) -> Supervisor {
        let mut supervisor = Supervisor::new(Limits::default());
        let create = Command::Create { id: WEB, spec: spec(&self.options) };
        supervisor.command(NOW, create).expect("created");
        for input in &self.inputs {
            input.clone().happen(&mut supervisor).expect("accepted");
        }
        supervisor.effects();
        supervisor
    }
}

fn spec(options: &[&str]) -> Spec {
    let stop = Stop { signal: Signal::TERM, grace: GRACE };
    let mut spec = Spec::new("web".parse().expect("a name"), stop);
    let probe = Probe { failure_threshold: 1, ..Probe::default() };
    for option in options {
        match *option {
            "--rm" => spec.auto_remove = true,
            "--restart" => spec.restart.policy = Policy::Always,
            "--retry" => spec.restart.policy = Policy::OnFailure { max: Some(0) },
            "--probes" => {
                let (startup, liveness, readiness) = (Some(probe), Some(probe), Some(probe));
                spec.probes = Probes { startup, liveness, readiness, ..Probes::default() };
            }
            "--hooks" => spec.hooks = Hooks { post_start: true, pre_stop: true },
            other => panic!("{other:?} is none of the options"),
        }
    }
    spec
}

fn describe(situation: &Situation, page: &mut String) -> std::fmt::Result {
    let before = situation.arrange();
    let (state, goal) = describe_container(&before, NOW);
    let options: String = situation.options.iter().map(|option| format!(", {option}")).collect();
    let words: Vec<_> = situation.inputs.iter().map(Input::name).collect();
    let way = if words.is_empty() { String::new() } else { format!("   after: {}", words.join(", ")) };
    writeln!(page, "\n{state}, goal {goal}{options}{way}")?;

    let (mut nothing, mut already) = (Vec::new(), Vec::new());
    let mut refused = BTreeMap::<_, Vec<_>>::new();
    for input in inputs() {
        let mut supervisor = situation.arrange();
        let name = input.name();
        let now = match input {
            Input::Command(..) | Input::Fact(..) | Input::Tick => NOW,
            Input::Deadline => Time::NEVER,
        };
        match input.happen(&mut supervisor) {
            Ok(Accepted::Underway) => {}
            Ok(Accepted::Already) => {
                already.push(name);
                continue;
            }
            Err(rejection) => {
                refused.entry(reason_of(&rejection)).or_default().push(name);
                continue;
            }
        }
        let effects = describe_effects(supervisor.effects());
        let (after_state, after_goal) = describe_container(&supervisor, now);
        if effects.is_empty() && (&after_state, &after_goal) == (&state, &goal) {
            nothing.push(name);
            continue;
        }
        let same = |after: String, before: &str| if after == before { "=".to_owned() } else { after };
        let (state, goal) = (same(after_state, &state), same(after_goal, &goal));
        write_line(page, name, &state, &goal, &effects)?;
    }
    let mut rest = vec![("already so".to_owned(), already)];
    rest.extend(refused.into_iter().map(|(reason, names)| (format!("refused, {reason}"), names)));
    rest.push(("nothing follows from".to_owned(), nothing));
    for (what, names) in rest.into_iter().filter(|(_, names)| !names.is_empty()) {
        writeln!(page, "{}", wrapped(&format!("{what}: {}", names.join(", "))))?;
    }
    Ok(())
}

fn adoptions(page: &mut String) -> std::fmt::Result {
    let process = Process { run: RUN, pid: 100 };
    let kill_at = NOW + Duration::from_secs(4);
    let exit = Exit { status: ExitStatus::Code(3), oom_killed: false, at: AT };
    let phases = [
        (Goal::Up { run: RUN, paused: false }, Phase::Starting { run: RUN }),
        (Goal::Down, Phase::Canceling { run: RUN, kill_at }),
        (Goal::Up { run: RUN, paused: false }, Phase::Running { process }),
        (Goal::Up { run: RUN, paused: true }, Phase::Running { process }),
        (Goal::Down, Phase::Stopping { process, kill_at }),
        (Goal::Up { run: RUN.next(), paused: false }, Phase::Stopping { process, kill_at }),
        (Goal::Down, Phase::Killing { run: RUN }),
        (Goal::Removed, Phase::Killing { run: RUN }),
        (Goal::Down, Phase::CleaningUp { run: RUN, ending: Ending::Exited(exit) }),
        (Goal::Down, Phase::Ended { run: RUN, ending: Ending::Exited(exit) }),
        (Goal::Down, Phase::Created),
        (Goal::Removed, Phase::Removing),
    ];
    let alive = |frozen| Observed::Alive { pid: 100, started: AT, frozen };
    let observations = [
        ("still starting", Observed::Starting),
        ("alive", alive(false)),
        ("alive, frozen", alive(true)),
        ("exit record", Observed::Exited(exit)),
        ("nothing", Observed::Nothing { at: AT }),
        ("rebooted", Observed::Rebooted { at: AT }),
    ];
    writeln!(page, "\nA new supervisor adopts what an earlier one saved, with what is found of the run:")?;
    for (goal, phase) in phases {
        let name = variant(&format!("{phase:?}"));
        writeln!(page, "\nsaved as {name}, goal {}", describe_goal(goal))?;
        let searched = phase.living_run().is_some();
        for (found, observed) in observations.iter().filter(|(found, _)| searched || *found == "nothing") {
            let ran = matches!(phase, Phase::Running { .. } | Phase::Stopping { .. } | Phase::Killing { .. });
            let saved = Saved {
                goal,
                phase: phase.clone(),
                started: ran.then_some(AT),
                restarts: Restarts::default(),
                vitals: SavedVitals::default(),
            };
            let mut supervisor = Supervisor::new(Limits::default());
            supervisor.adopt(NOW, WEB, spec(&[]), saved, *observed);
            supervisor.adopted(NOW);
            let effects = describe_effects(supervisor.effects());
            let (after_state, after_goal) = describe_container(&supervisor, NOW);
            write_line(page, found, &after_state, &after_goal, &effects)?;
        }
    }
    Ok(())
}

fn write_line(
    page: &mut String,
    what: &str,
    state: &str,
    goal: &str,
    effects: &[String],
) -> std::fmt::Result {
    let after = format!("{what:<20}-> {state:<17} {goal}");
    writeln!(page, "{}", format!("  {after:<54}{}", effects.join(", ")).trim_end())
}

fn describe_container(supervisor: &Supervisor, now: Time) -> (String, String) {
    let Some(container) = supervisor.container(WEB) else { return ("gone".into(), String::new()) };
    let state = variant(&format!("{:?}", container.state()));
    let ending = if let State::Ended { ending, .. } = container.state() {
        format!(" {}", variant(&format!("{ending:?}")).to_lowercase())
    } else {
        String::new()
    };
    let deadline = match container.deadline() {
        Some(at) if now != Time::NEVER => format!(" {}s", at.since(now).as_secs()),
        Some(_) | None => String::new(),
    };
    (format!("{state}{ending}{deadline}"), describe_goal(container.goal()))
}

fn describe_goal(goal: Goal) -> String {
    match goal {
        Goal::Up { run, paused: false } => format!("up {run}"),
        Goal::Up { run, paused: true } => format!("up {run} paused"),
        Goal::Down => "down".to_owned(),
        Goal::Removed => "removed".to_owned(),
    }
}

fn describe_effects(effects: Vec<Effect>) -> Vec<String> {
    effects.into_iter().filter_map(describe_effect).collect()
}

fn describe_effect(effect: Effect) -> Option<String> {
    Some(match effect {
        Effect::Save { .. } => "save".to_owned(),
        Effect::Start { run, .. } => format!("start run {run}"),
        Effect::Signal { signal, .. } => format!("signal {signal}"),
        Effect::Kill { .. } => "kill".to_owned(),
        Effect::Freeze { .. } => "freeze".to_owned(),
        Effect::Thaw { .. } => "thaw".to_owned(),
        Effect::Limit { .. } => "limit".to_owned(),
        Effect::Probe { kind, .. } => format!("probe {}", kind.name()),
        Effect::Hook { hook, .. } => format!("hook {}", hook.name()),
        Effect::Cleanup { .. } => "clean up".to_owned(),
        Effect::Delete { .. } => "delete".to_owned(),
        Effect::Announce { change, .. } => match change {
            Change::Added | Change::Goal(_) | Change::State(_) => return None,
            Change::Oom(_) => "tell oom".to_owned(),
            Change::Updated => "tell updated".to_owned(),
            Change::StartTimedOut(_) => "tell start timed out".to_owned(),
            Change::Ready(true) => "tell ready".to_owned(),
            Change::Ready(false) => "tell not ready".to_owned(),
            Change::Probe(settled) => {
                format!(
                    "tell {} {}",
                    settled.kind.name(),
                    if settled.success { "succeeded" } else { "failed" }
                )
            }
            Change::Unhealthy(_) => "tell unhealthy".to_owned(),
            Change::Restarting { delay, .. } => format!("tell restart after {delay:?}"),
            Change::Held(hold) => format!("tell: {hold}"),
            Change::GaveUp(_) => "tell gave up".to_owned(),
            Change::Status(_) => "tell status".to_owned(),
            Change::HookFailed { hook, .. } => format!("tell {} failed", hook.name()),
            Change::PauseFailed { .. } => "tell pause failed".to_owned(),
            Change::StepFailed { step, attempt, .. } => {
                format!("tell {} {attempt} failed", format!("{step:?}").to_lowercase())
            }
            Change::Retrying { step, attempt } => {
                format!("tell {} {attempt}", format!("{step:?}").to_lowercase())
            }
            Change::Removed => "tell removed".to_owned(),
        },
    })
}

fn reason_of(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::NameTaken { .. } => "name taken",
        Rejection::IdTaken(_) => "id taken",
        Rejection::NoSuchContainer(_) => "no such container",
        Rejection::Ambiguous { .. } => "ambiguous",
        Rejection::NotRunning { .. } => "not running",
        Rejection::Running { .. } => "running",
        Rejection::Starting(_) => "starting",
        Rejection::Paused(_) => "paused",
        Rejection::StartLimit { .. } => "start limit",
        Rejection::UnknownRequirement(_) => "unknown requirement",
        Rejection::Cycle(_) => "cycle",
        Rejection::Required { .. } => "required",
        Rejection::BeingRemoved(_) => "being removed",
    }
}

/// `Stopping` of `Stopping { process: … }`.
fn variant(debug: &str) -> String {
    debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the beginning");
        if last.len() + 1 + word.len() > 112 {
            lines.push(format!("      {word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}
