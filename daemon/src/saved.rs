//! What the supervisor wants to be given back, as it is written down: the shell's own JSON beside its plain data,
//! so that the supervisor needs no serde and the format can be kept while the types move.
//!
//! Times since boot mean nothing after the next boot, so the boot is written down with them.

use crate::clock;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wharf_supervisor as core;
use wharf_supervisor::{Run, Stamp, Time};

/// The format of what is written down. It changes when an older wharfd would misunderstand it: fields that may be
/// missed have a default instead, and a state that is not known is an error anyhow.
const VERSION: u32 = 1;

/// One container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Of the format; the first release did not write it.
    #[serde(default = "first_version")]
    version: u32,
    /// The kernel's boot_id when this was written.
    boot: String,
    goal: Goal,
    phase: Phase,
    started: Option<When>,
    /// Missing in what the first release wrote, as are the vitals.
    #[serde(default, skip_serializing_if = "is_default")]
    restarts: Restarts,
    #[serde(default, skip_serializing_if = "is_default")]
    vitals: Vitals,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Restarts {
    count: u32,
    streak: u32,
    decided_at: Option<u64>,
    recent: Vec<u64>,
    limit_from: Option<u64>,
    starts: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Vitals {
    startup: Option<Probe>,
    liveness: Option<Probe>,
    readiness: Option<Probe>,
    health: Option<Probe>,
    post_start: bool,
    notified: bool,
    leaving: bool,
    status: String,
    watchdog: Option<Duration>,
    ready_since: Option<u64>,
    ready_for: Duration,
    verdict: Option<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Probe {
    settled: Option<bool>,
    last: Option<bool>,
    streak: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Startup,
    Liveness,
    Readiness,
    Health,
    Watchdog,
    PostStart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum GaveUp {
    Retries { max: u32 },
    Attempts { max: u32, window: Option<Duration> },
    StartLimit { burst: u32, interval: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    run: u64,
    ending: Ending,
}

fn first_version() -> u32 {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Goal {
    Up { run: u64, paused: bool },
    Down,
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Phase {
    Created,
    /// With a delay where the restart policy wants it.
    Waiting {
        last: Option<Last>,
        start_at: u64,
        delay: Option<Duration>,
    },
    Starting {
        run: u64,
    },
    Canceling {
        run: u64,
        kill_at: u64,
    },
    Running {
        run: u64,
        pid: u32,
    },
    Stopping {
        run: u64,
        pid: u32,
        kill_at: u64,
    },
    Killing {
        run: u64,
    },
    CleaningUp {
        run: u64,
        ending: Ending,
    },
    Ended {
        run: u64,
        ending: Ending,
    },
    GivenUp {
        run: u64,
        ending: Ending,
        why: GaveUp,
    },
    Removing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Ending {
    Exited { status: Status, oom_killed: bool, at: When },
    Failed { kind: String, message: String, at: When },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Code(u8),
    Signal(i32),
    Unknown,
}

/// Nanoseconds since boot and since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct When {
    boot: u64,
    wall: u64,
}

/// Kinds of failure by the names in the file.
const KINDS: [(core::FailureKind, &str); 8] = [
    (core::FailureKind::CommandNotFound, "commandNotFound"),
    (core::FailureKind::CommandNotExecutable, "commandNotExecutable"),
    (core::FailureKind::InvalidInput, "invalidInput"),
    (core::FailureKind::RefusedImage, "refusedImage"),
    (core::FailureKind::Unsupported, "unsupported"),
    (core::FailureKind::NotSaved, "notSaved"),
    (core::FailureKind::Interrupted, "interrupted"),
    (core::FailureKind::Failed, "failed"),
];

impl Saved {
    /// As it is to be written.
    pub fn new(saved: &core::Saved) -> Self {
        Self {
            version: VERSION,
            boot: clock::boot_id().to_owned(),
            goal: match saved.goal {
                core::Goal::Up { run, paused } => Goal::Up { run: run.0, paused },
                core::Goal::Down => Goal::Down,
                core::Goal::Removed => Goal::Removed,
            },
            phase: match &saved.phase {
                core::Phase::Created => Phase::Created,
                core::Phase::Waiting { last, start_at, wait } => Phase::Waiting {
                    last: last
                        .as_ref()
                        .map(|last| Last { run: last.run.0, ending: Ending::new(&last.ending) }),
                    start_at: start_at.0,
                    delay: match wait {
                        core::Wait::Asked => None,
                        core::Wait::BackOff { delay } => Some(*delay),
                    },
                },
                core::Phase::Starting { run } => Phase::Starting { run: run.0 },
                core::Phase::Canceling { run, kill_at } => {
                    Phase::Canceling { run: run.0, kill_at: kill_at.0 }
                }
                core::Phase::Running { process } => Phase::Running { run: process.run.0, pid: process.pid },
                core::Phase::Stopping { process, kill_at } => {
                    Phase::Stopping { run: process.run.0, pid: process.pid, kill_at: kill_at.0 }
                }
                core::Phase::Killing { run } => Phase::Killing { run: run.0 },
                core::Phase::CleaningUp { run, ending } => {
                    Phase::CleaningUp { run: run.0, ending: Ending::new(ending) }
                }
                core::Phase::Ended { run, ending } => {
                    Phase::Ended { run: run.0, ending: Ending::new(ending) }
                }
                core::Phase::GivenUp { run, ending, why } => {
                    Phase::GivenUp { run: run.0, ending: Ending::new(ending), why: GaveUp::new(*why) }
                }
                core::Phase::Removing => Phase::Removing,
            },
            started: saved.started.map(When::new),
            restarts: Restarts::new(&saved.restarts),
            vitals: Vitals::new(&saved.vitals),
        }
    }

    /// As it was written down.
    pub fn parse(json: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default = "first_version")]
            version: u32,
        }
        // First of all, since what follows may look like damage otherwise.
        let Head { version } = serde_json::from_str(json).context("its saved state")?;
        if version > VERSION {
            anyhow::bail!(
                "its saved state is of a later wharfd (version {version}, known up to {VERSION}): install that again"
            );
        }
        serde_json::from_str(json).context("its saved state")
    }

    /// As JSON.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("no map with other keys than strings")
    }

    /// Was it written since the host was started?
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == clock::boot_id()
    }

    /// What the supervisor is to be given back.
    pub fn restore(self) -> anyhow::Result<core::Saved> {
        let same_boot = self.is_of_this_boot();
        let time = |time: u64| if same_boot { Time(time) } else { Time(0) };
        let ending = |ending: Ending| ending.restore(same_boot);
        Ok(core::Saved {
            goal: match self.goal {
                Goal::Up { run, paused } => core::Goal::Up { run: Run(run), paused },
                Goal::Down => core::Goal::Down,
                Goal::Removed => core::Goal::Removed,
            },
            phase: match self.phase {
                Phase::Created => core::Phase::Created,
                Phase::Waiting { last, start_at, delay } => core::Phase::Waiting {
                    last: last
                        .map(|last| {
                            anyhow::Ok(core::Last { run: Run(last.run), ending: ending(last.ending)? })
                        })
                        .transpose()?,
                    start_at: time(start_at),
                    wait: delay.map_or(core::Wait::Asked, |delay| core::Wait::BackOff { delay }),
                },
                Phase::Starting { run } => core::Phase::Starting { run: Run(run) },
                Phase::Canceling { run, kill_at } => {
                    core::Phase::Canceling { run: Run(run), kill_at: time(kill_at) }
                }
                Phase::Running { run, pid } => {
                    core::Phase::Running { process: core::Process { run: Run(run), pid } }
                }
                Phase::Stopping { run, pid, kill_at } => core::Phase::Stopping {
                    process: core::Process { run: Run(run), pid },
                    kill_at: time(kill_at),
                },
                Phase::Killing { run } => core::Phase::Killing { run: Run(run) },
                Phase::CleaningUp { run, ending: how } => {
                    core::Phase::CleaningUp { run: Run(run), ending: ending(how)? }
                }
                Phase::Ended { run, ending: how } => {
                    core::Phase::Ended { run: Run(run), ending: ending(how)? }
                }
                Phase::GivenUp { run, ending: how, why } => {
                    core::Phase::GivenUp { run: Run(run), ending: ending(how)?, why: why.restore() }
                }
                Phase::Removing => core::Phase::Removing,
            },
            started: self.started.map(|when| when.restore(same_boot)),
            restarts: self.restarts.restore(time),
            vitals: self.vitals.restore(time),
        })
    }
}

impl Restarts {
    fn new(restarts: &core::Restarts) -> Self {
        Self {
            count: restarts.count,
            streak: restarts.streak,
            decided_at: restarts.decided_at.map(|at| at.0),
            recent: restarts.recent.iter().map(|at| at.0).collect(),
            limit_from: restarts.limit_from.map(|at| at.0),
            starts: restarts.starts,
        }
    }

    fn restore(self, time: impl Fn(u64) -> Time) -> core::Restarts {
        core::Restarts {
            count: self.count,
            streak: self.streak,
            decided_at: self.decided_at.map(&time),
            recent: self.recent.into_iter().map(&time).collect(),
            limit_from: self.limit_from.map(&time),
            starts: self.starts,
        }
    }
}

impl Vitals {
    fn new(vitals: &core::SavedVitals) -> Self {
        let probe = |probe: Option<core::SavedProbe>| {
            probe.map(|core::SavedProbe { settled, last, streak }| Probe { settled, last, streak })
        };
        Self {
            startup: probe(vitals.health.startup),
            liveness: probe(vitals.health.liveness),
            readiness: probe(vitals.health.readiness),
            health: probe(vitals.health.health),
            post_start: vitals.post_start,
            notified: vitals.notified,
            leaving: vitals.leaving,
            status: vitals.status.clone(),
            watchdog: vitals.watchdog,
            ready_since: vitals.ready_since.map(|at| at.0),
            ready_for: vitals.ready_for,
            verdict: vitals.verdict.map(|verdict| match verdict {
                core::Verdict::Probe(core::ProbeKind::Startup) => Verdict::Startup,
                core::Verdict::Probe(core::ProbeKind::Liveness) => Verdict::Liveness,
                core::Verdict::Probe(core::ProbeKind::Readiness) => Verdict::Readiness,
                core::Verdict::Probe(core::ProbeKind::Health) => Verdict::Health,
                core::Verdict::Watchdog => Verdict::Watchdog,
                core::Verdict::PostStart => Verdict::PostStart,
            }),
        }
    }

    fn restore(self, time: impl Fn(u64) -> Time) -> core::SavedVitals {
        let probe = |probe: Option<Probe>| {
            probe.map(|Probe { settled, last, streak }| core::SavedProbe { settled, last, streak })
        };
        core::SavedVitals {
            health: core::SavedHealth {
                startup: probe(self.startup),
                liveness: probe(self.liveness),
                readiness: probe(self.readiness),
                health: probe(self.health),
            },
            post_start: self.post_start,
            notified: self.notified,
            leaving: self.leaving,
            status: self.status,
            watchdog: self.watchdog,
            ready_since: self.ready_since.map(time),
            ready_for: self.ready_for,
            verdict: self.verdict.map(|verdict| match verdict {
                Verdict::Startup => core::Verdict::Probe(core::ProbeKind::Startup),
                Verdict::Liveness => core::Verdict::Probe(core::ProbeKind::Liveness),
                Verdict::Readiness => core::Verdict::Probe(core::ProbeKind::Readiness),
                Verdict::Health => core::Verdict::Probe(core::ProbeKind::Health),
                Verdict::Watchdog => core::Verdict::Watchdog,
                Verdict::PostStart => core::Verdict::PostStart,
            }),
        }
    }
}

impl GaveUp {
    fn new(why: core::GaveUp) -> Self {
        match why {
            core::GaveUp::Retries { max } => Self::Retries { max },
            core::GaveUp::Attempts { max, window } => Self::Attempts { max, window },
            core::GaveUp::StartLimit { burst, interval } => Self::StartLimit { burst, interval },
        }
    }

    fn restore(self) -> core::GaveUp {
        match self {
            Self::Retries { max } => core::GaveUp::Retries { max },
            Self::Attempts { max, window } => core::GaveUp::Attempts { max, window },
            Self::StartLimit { burst, interval } => core::GaveUp::StartLimit { burst, interval },
        }
    }
}

impl Ending {
    fn new(ending: &core::Ending) -> Self {
        match ending {
            core::Ending::Exited(exit) => Self::Exited {
                status: match exit.status {
                    core::ExitStatus::Code(code) => Status::Code(code),
                    core::ExitStatus::Signal(signal) => Status::Signal(signal.number()),
                    core::ExitStatus::Unknown => Status::Unknown,
                },
                oom_killed: exit.oom_killed,
                at: When::new(exit.at),
            },
            core::Ending::Failed(failure) => Self::Failed {
                kind: KINDS
                    .iter()
                    .find(|(kind, _)| *kind == failure.kind)
                    .map_or("failed", |(_, name)| name)
                    .to_owned(),
                message: failure.message.clone(),
                at: When::new(failure.at),
            },
        }
    }

    fn restore(self, same_boot: bool) -> anyhow::Result<core::Ending> {
        Ok(match self {
            Self::Exited { status, oom_killed, at } => core::Ending::Exited(core::Exit {
                status: match status {
                    Status::Code(code) => core::ExitStatus::Code(code),
                    Status::Signal(number) => core::ExitStatus::Signal(core::Signal::new(number)?),
                    Status::Unknown => core::ExitStatus::Unknown,
                },
                oom_killed,
                at: at.restore(same_boot),
            }),
            Self::Failed { kind, message, at } => core::Ending::Failed(core::Failure {
                kind: KINDS
                    .iter()
                    .find(|(_, name)| *name == kind)
                    .map_or(core::FailureKind::Failed, |(kind, _)| *kind),
                message,
                at: at.restore(same_boot),
            }),
        })
    }
}

impl When {
    fn new(stamp: Stamp) -> Self {
        Self { boot: stamp.boot.0, wall: stamp.wall }
    }

    fn restore(self, same_boot: bool) -> Stamp {
        Stamp { boot: Time(if same_boot { self.boot } else { 0 }), wall: self.wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(saved: &core::Saved) -> core::Saved {
        let text = Saved::new(saved).to_json();
        serde_json::from_str::<Saved>(&text).expect("our own output").restore().expect("a signal that exists")
    }

    #[test]
    fn what_is_written_comes_back_the_same() {
        let at = Stamp { boot: Time(5), wall: 7 };
        let killed = core::Ending::Exited(core::Exit {
            status: core::ExitStatus::Signal(core::Signal::KILL),
            oom_killed: true,
            at,
        });
        let failed = core::Ending::Failed(core::Failure {
            kind: core::FailureKind::CommandNotFound,
            message: "no such file".into(),
            at,
        });
        let process = core::Process { run: Run(3), pid: 42 };
        for phase in [
            core::Phase::Created,
            core::Phase::Waiting { last: None, start_at: Time(3), wait: core::Wait::Asked },
            core::Phase::Waiting {
                last: Some(core::Last { run: Run(1), ending: killed.clone() }),
                start_at: Time(3),
                wait: core::Wait::BackOff { delay: Duration::from_millis(100) },
            },
            core::Phase::GivenUp {
                run: Run(2),
                ending: killed.clone(),
                why: core::GaveUp::Attempts { max: 3, window: Some(Duration::from_secs(9)) },
            },
            core::Phase::Starting { run: Run(1) },
            core::Phase::Canceling { run: Run(1), kill_at: Time::NEVER },
            core::Phase::Running { process },
            core::Phase::Stopping { process, kill_at: Time(9) },
            core::Phase::Killing { run: Run(1) },
            core::Phase::CleaningUp { run: Run(2), ending: killed },
            core::Phase::Ended { run: Run(2), ending: failed },
            core::Phase::Removing,
        ] {
            for goal in [core::Goal::Up { run: Run(2), paused: true }, core::Goal::Down, core::Goal::Removed]
            {
                let (restarts, vitals) = (restarts(), vitals());
                let saved = core::Saved { goal, phase: phase.clone(), started: Some(at), restarts, vitals };
                assert_eq!(round_trip(&saved), saved);
            }
        }
    }

    #[test]
    fn times_of_another_boot_are_void() {
        let process = core::Process { run: Run(3), pid: 42 };
        let saved = core::Saved {
            goal: core::Goal::Down,
            phase: core::Phase::Stopping { process, kill_at: Time(9) },
            started: Some(Stamp { boot: Time(5), wall: 7 }),
            restarts: restarts(),
            vitals: vitals(),
        };
        let other = Saved { boot: "another".into(), ..Saved::new(&saved) };
        let restored = other.restore().expect("no signal in it");
        assert_eq!(restored.phase, core::Phase::Stopping { process, kill_at: Time(0) });
        assert_eq!(restored.started, Some(Stamp { boot: Time(0), wall: 7 }));
        assert_eq!(restored.restarts.decided_at, Some(Time(0)));
        assert_eq!(restored.restarts.count, 3);
        assert_eq!(restored.vitals.ready_since, Some(Time(0)));
    }

    #[test]
    fn what_the_first_release_wrote_is_understood_and_it_would_understand_ours() {
        for record in crate::store::tests::of_the_first_release() {
            let saved = Saved::parse(&record.saved).expect("the old format");
            let written = serde_json::from_str(&saved.to_json()).expect("JSON");
            let old = serde_json::from_str(&record.saved).expect("JSON");
            crate::store::tests::assert_contains(&written, &old);
            let restored = saved.restore().expect("nothing wrong in it");
            assert_eq!(restored.restarts, core::Restarts::default());
            assert_eq!(restored.vitals, core::SavedVitals::default());
        }
    }

    #[test]
    fn what_a_later_release_wrote_is_refused_whole() {
        let known = Saved::new(&core::Saved {
            goal: core::Goal::Down,
            phase: core::Phase::Created,
            started: None,
            restarts: restarts(),
            vitals: vitals(),
        });
        let known = known.to_json();
        let error = |text: String| format!("{:#}", Saved::parse(&text).expect_err("from the future"));
        let later = known
            .replace(r#""version":1"#, r#""version":2"#)
            .replace(r#""goal":"down""#, r#""goal":"sideways""#);
        assert!(error(later).contains("later wharfd"));
        assert!(error(known.replace(r#""created""#, r#""dreaming""#)).contains("dreaming"));
        // What may be missed is.
        let more = known.replacen('{', r#"{"colour":"red","#, 1);
        assert_eq!(Saved::parse(&more).expect("one more field").to_json(), known);
    }

    fn restarts() -> core::Restarts {
        core::Restarts {
            count: 3,
            streak: 2,
            decided_at: Some(Time(4)),
            recent: vec![Time(1), Time(4)],
            limit_from: Some(Time(1)),
            starts: 2,
        }
    }

    fn vitals() -> core::SavedVitals {
        let probe = core::SavedProbe { settled: Some(true), last: Some(false), streak: 2 };
        core::SavedVitals {
            health: core::SavedHealth { liveness: Some(probe), ..core::SavedHealth::default() },
            post_start: true,
            notified: true,
            leaving: false,
            status: "warming up".into(),
            watchdog: Some(Duration::from_secs(3)),
            ready_since: Some(Time(5)),
            ready_for: Duration::from_secs(8),
            verdict: Some(core::Verdict::Probe(core::ProbeKind::Liveness)),
        }
    }
}
