//! What the supervisor wants to be given back, as it is written down: the shell's own JSON beside its plain data,
//! so that the supervisor needs no serde and the format can be kept while the types move.
//!
//! Times since boot mean nothing after the next boot, so the boot is written down with them.

use crate::clock;
use serde::{Deserialize, Serialize};
use wharf_supervisor as core;
use wharf_supervisor::{Run, Stamp, Time};

/// One container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// The kernel's boot_id when this was written.
    boot: String,
    goal: Goal,
    phase: Phase,
    started: Option<When>,
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
    Starting { run: u64 },
    Canceling { run: u64, kill_at: u64 },
    Running { run: u64, pid: u32 },
    Stopping { run: u64, pid: u32, kill_at: u64 },
    Killing { run: u64 },
    CleaningUp { run: u64, ending: Ending },
    Ended { run: u64, ending: Ending },
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
            boot: clock::boot_id().to_owned(),
            goal: match saved.goal {
                core::Goal::Up { run, paused } => Goal::Up { run: run.0, paused },
                core::Goal::Down => Goal::Down,
                core::Goal::Removed => Goal::Removed,
            },
            phase: match &saved.phase {
                core::Phase::Created => Phase::Created,
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
                core::Phase::Removing => Phase::Removing,
            },
            started: saved.started.map(When::new),
        }
    }

    /// As JSON.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("no map with other keys than strings")
    }

    /// What the supervisor is to be given back.
    pub fn restore(self) -> anyhow::Result<core::Saved> {
        let same_boot = self.boot == clock::boot_id();
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
                Phase::Removing => core::Phase::Removing,
            },
            started: self.started.map(|when| when.restore(same_boot)),
        })
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
                let saved = core::Saved { goal, phase: phase.clone(), started: Some(at) };
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
        };
        let other = Saved { boot: "another".into(), ..Saved::new(&saved) };
        let restored = other.restore().expect("no signal in it");
        assert_eq!(restored.phase, core::Phase::Stopping { process, kill_at: Time(0) });
        assert_eq!(restored.started, Some(Stamp { boot: Time(0), wall: 7 }));
    }
}
