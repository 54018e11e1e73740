//! What is done while a fault happens, and what has to be true afterwards whether it was answered or not.

use super::world::{Answer, OBEDIENT, World, find, is_whole, settled, small_image};
use std::path::PathBuf;
use wharf_tests::e2e::{Output, Setup, Wharf, eventually, field, number, processes, text};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Make a container.
    Create,
    /// Make and start one.
    Run,
    /// Start one that was made.
    Start,
    /// Run one more process in one.
    Exec,
    /// End one that ends when it is told to.
    Stop,
    /// Nothing: one ends by itself.
    Exit,
    /// Remove one that runs.
    Remove,
    /// Change the limits of one.
    Update,
    /// Bring an image in.
    Load,
    /// Remove it.
    RemoveImage,
}

/// All of them.
pub const ACTS: [Act; 10] = [
    Act::Create,
    Act::Run,
    Act::Start,
    Act::Exec,
    Act::Stop,
    Act::Exit,
    Act::Remove,
    Act::Update,
    Act::Load,
    Act::RemoveImage,
];

/// Where it is done.
pub struct Scene {
    /// The daemon and its residents.
    pub world: World,
    /// A guard that cannot become the keeper, for want of a descriptor or of memory, kills the container that it has
    /// just answered for.
    pub keeper_may_fail: bool,
    /// The keeper may have to try again to write its record.
    pub record_may_be_late: bool,
    archive: PathBuf,
    small: &'static str,
}

impl Scene {
    /// Where everything has been done once: what is made on the first occasion stays.
    pub fn new(setup: Setup, residents: usize) -> Self {
        Self::with_watched(setup, residents, 0)
    }

    /// So many of the residents are restarted and probed.
    pub fn with_watched(setup: Setup, residents: usize, watched: usize) -> Self {
        let mut world = World::new(setup, residents, watched);
        let (archive, small) = small_image(&world.wharf.scratch("small"));
        world.wharf.ok(["image".as_ref(), "load".as_ref(), archive.as_os_str()]);
        world.wharf.ok(["image", "rm", small]);
        world.wharf.ok(["run", "--rm", world.image, "true"]);
        world.rest();
        Self { world, keeper_may_fail: false, record_may_be_late: false, archive, small }
    }

    /// The daemon.
    pub fn wharf(&self) -> &Wharf {
        &self.world.wharf
    }

    /// What is there before it begins.
    pub fn prepare(&self, act: Act, name: &str) -> Before {
        let image = self.world.image;
        let run = |script: &str| {
            let id =
                self.wharf().ok(["run", "-d", "--name", name, "--memory", "64m", image, "sh", "-c", script]);
            let pid = number(&self.wharf().inspect(name), "pid");
            Before { id, pid }
        };
        match act {
            Act::Create | Act::Run => Before::default(),
            Act::Start => {
                let id = self.wharf().ok(["create", "--name", name, image, "sh", "-c", OBEDIENT]);
                Before { id, pid: 0 }
            }
            Act::Stop => {
                let before = run(OBEDIENT);
                eventually(10, "it obeys", || self.wharf().ok(["logs", name]).contains("obeys"));
                before
            }
            Act::Exec | Act::Remove | Act::Update => run(OBEDIENT),
            Act::Exit => run("sleep 0.15; exit 7"),
            Act::Load => Before::default(),
            Act::RemoveImage => {
                self.wharf().ok(["image".as_ref(), "load".as_ref(), self.archive.as_os_str()]);
                Before::default()
            }
        }
    }

    /// The words for `ctl`, if anything has to be asked for.
    pub fn command(&self, act: Act, name: &str) -> Option<Vec<String>> {
        let image = self.world.image;
        let archive = self.archive.display().to_string();
        let words: Vec<&str> = match act {
            Act::Create => vec!["create", "--name", name, image, "sh", "-c", OBEDIENT],
            Act::Run => vec!["run", "-d", "--name", name, image, "sh", "-c", OBEDIENT],
            Act::Start => vec!["start", name],
            Act::Exec => vec!["exec", name, "sh", "-c", "echo out; exit 5"],
            Act::Stop => vec!["stop", name],
            Act::Exit => return None,
            Act::Remove => vec!["rm", "-f", name],
            Act::Update => vec!["update", "--memory", "96m", name],
            Act::Load => vec!["image", "load", &archive],
            Act::RemoveImage => vec!["image", "rm", self.small],
        };
        Some(words.into_iter().map(str::to_owned).collect())
    }

    /// Take away what is left of it by asking for it.
    pub fn clear(&self, act: Act, name: &str) {
        match act {
            Act::Load | Act::RemoveImage => {
                self.wharf().output(["image", "rm", self.small]);
            }
            Act::Create
            | Act::Run
            | Act::Start
            | Act::Exec
            | Act::Stop
            | Act::Exit
            | Act::Remove
            | Act::Update => {
                self.wharf().ok(["rm", "-f", name]);
                assert!(find(self.wharf(), name).is_none(), "{name} is removed");
            }
        }
    }

    /// Done once more without a fault: what a failed removal has left is removed by the next.
    pub fn do_again(&self, act: Act) {
        if matches!(act, Act::Load | Act::RemoveImage) {
            self.wharf().ok(["image".as_ref(), "load".as_ref(), self.archive.as_os_str()]);
            self.wharf().ok(["image", "rm", self.small]);
        }
    }

    /// Everything that was answered is so, and nothing else than what was asked for.
    pub fn verify(&self, act: Act, name: &str, before: &Before, output: Option<Output>) {
        let answer = output.map(|output| {
            Answer::of(output, |output| match act {
                Act::Exec => output.status == 5,
                Act::Create
                | Act::Run
                | Act::Start
                | Act::Stop
                | Act::Exit
                | Act::Remove
                | Act::Update
                | Act::Load
                | Act::RemoveImage => output.status == 0,
            })
        });
        let done = answer.as_ref().is_some_and(Answer::is_done);
        let state = |wanted: &[&str]| {
            let found = settled(self.wharf(), name);
            let found = found.unwrap_or_else(|| panic!("{name} is there: {answer:?}"));
            let state = text(&found, "state");
            assert!(wanted.contains(&state.as_str()), "{state} is none of {wanted:?}: {answer:?}\n{found:#}");
            found
        };
        match act {
            Act::Create if done => drop(state(&["created"])),
            Act::Run | Act::Start if done && self.keeper_may_fail => {
                let found = state(&["running", "exited"]);
                if text(&found, "state") == "exited" {
                    self.has_ended(&found, 137);
                }
            }
            Act::Run | Act::Start if done => drop(state(&["running"])),
            Act::Create | Act::Run => {
                // Then it has not been begun, or it has been finished.
                if let Some(found) = settled(self.wharf(), name) {
                    self.is_definite(&found);
                }
            }
            Act::Start => self.is_definite(&state(&["created", "running", "exited", "failed"])),
            Act::Exec => {
                if let Some(Answer::Done(output)) = &answer {
                    assert_eq!(output.stdout, "out\n");
                }
                assert_eq!(number(&state(&["running"]), "pid"), before.pid);
            }
            Act::Stop if done => self.has_ended(&state(&["exited"]), 9),
            Act::Stop => {
                let found = state(&["running", "exited"]);
                if text(&found, "state") == "exited" {
                    self.has_ended(&found, 9);
                } else {
                    assert_eq!(number(&found, "pid"), before.pid);
                }
            }
            Act::Exit => {
                let code = self.wharf().ok(["wait", name]);
                assert_eq!(code, "7");
                self.has_ended(&state(&["exited"]), 7);
            }
            Act::Remove => {
                if let Some(found) = settled(self.wharf(), name) {
                    assert!(!done, "it was removed: {found:#}");
                }
            }
            Act::Update => {
                let found = state(&["running"]);
                assert_eq!(number(&found, "pid"), before.pid);
                let cgroup = text(&found, "cgroup");
                let file = self.wharf().cgroup_file(&cgroup, "memory", "memory.limit_in_bytes", "memory.max");
                // What another wharfd began is finished by this one.
                eventually(5, "what is shown is in force", || {
                    let found = self.wharf().inspect(name);
                    let resources = field(field(&found, "spec"), "resources");
                    let limit = std::fs::read_to_string(&file).expect("the limit");
                    let limit: u64 = limit.trim().parse().expect("bytes");
                    assert!(limit == 96 << 20 || !done && limit == 64 << 20, "{limit}");
                    field(resources, "memory").as_u64() == Some(limit)
                });
            }
            Act::Load => {
                let found = self.wharf().output(["image", "inspect", self.small]);
                assert!(found.status == 0 || !done, "{found:?}");
                if found.status == 0 {
                    is_whole(self.wharf(), self.small);
                }
            }
            Act::RemoveImage => {
                let found = self.wharf().output(["image", "inspect", self.small]);
                assert!(found.status != 0 || !done, "{found:?}");
                if found.status == 0 {
                    is_whole(self.wharf(), self.small);
                }
            }
        }
    }

    /// It runs, or it is said why not.
    fn is_definite(&self, found: &serde_json::Value) {
        match text(found, "state").as_str() {
            "running" => {
                let pid = number(found, "pid") as u32;
                assert!(processes::Process::of(pid).is_some_and(|process| !process.zombie), "{found:#}");
            }
            "failed" => assert_ne!(text(found, "error"), "", "{found:#}"),
            _ => {}
        }
    }

    /// With this code, as everybody knows now; and nothing of the run is left.
    fn has_ended(&self, found: &serde_json::Value, code: i64) {
        assert_eq!(number(found, "exitCode"), code, "{found:#}");
        let directory = self.wharf().state_dir().join("containers").join(text(found, "id"));
        let records = || {
            let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"exit.")).count()
        };
        // A cleanup that failed is tried again. A keeper that could not write the record at once does so later, when
        // wharfd has been told and looks for it no more; then it goes with the container.
        if !self.record_may_be_late {
            eventually(20, "the record that has been read is gone", || records() == 0);
        }
    }
}

/// What was there before an act began.
#[derive(Default)]
pub struct Before {
    /// The container.
    pub id: String,
    /// Its first process.
    pub pid: i64,
}
