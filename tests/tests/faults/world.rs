//! A daemon with containers that nothing may disturb, and what has to be true between two faults.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wharf_tests::e2e::snapshot::{Snapshot, adopt_orphans};
use wharf_tests::e2e::{Output, Setup, Tool, Wharf, eventually, field, flag, number, processes, text};
use wharf_tests::sim::Chance;

/// Ends with 9 when it is told to, as soon as it has said that it will; until then it waits.
pub const OBEDIENT: &str = "trap 'exit 9' TERM; echo obeys; sleep 10000 & wait";
/// How long the machine may take until nothing of a fault is left; the kernel is slow with cgroups and namespaces.
const SETTLING: Duration = Duration::from_secs(20);

/// Sockets that wharfd has for one probe: a batch from the forge, and the one in use.
const MOST_PREPARED: usize = 17;

/// How many faults there are to be.
pub fn size(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// The first seed.
pub fn first_seed() -> u64 {
    size("WHARF_SEED", 1)
}

/// Says which fault it was, should the test end in its midst.
pub struct Case {
    /// What repeats it.
    pub repeat: String,
    /// What it is.
    pub shown: String,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}\nrepeat with {}", self.shown, self.repeat);
        }
    }
}

/// A container that is not to notice anything, and what is known of it.
struct Resident {
    name: String,
    pid: i64,
    restarts: i64,
    ready: bool,
    is_watched: bool,
}

/// With a restart policy and a probe that asks whether it is ready, often enough that one is made while a fault happens.
const WATCHED: [&str; 7] =
    ["--restart", "always", "--readiness", "tcp://:8080", "--readiness-period", "500ms", "wharf/demo"];

/// The daemon, its residents, and how the machine looks when there is nothing but them.
pub struct World {
    /// The daemon.
    pub wharf: Wharf,
    /// The image of everything in it.
    pub image: &'static str,
    residents: Vec<Resident>,
    rest: Option<Snapshot>,
}

impl World {
    /// With so many residents, so many of them restarted and probed.
    pub fn new(setup: Setup, residents: usize, watched: usize) -> Self {
        adopt_orphans();
        let wharf = Wharf::start_as(setup);
        let image = wharf.busybox();
        let mut world = Self { wharf, image, residents: Vec::new(), rest: None };
        for index in 0..residents {
            let name = format!("resident-{index}");
            let is_watched = index >= residents - watched;
            let plain = [image, "sleep", "100000"];
            let what = if is_watched { &WATCHED[..] } else { &plain };
            world.wharf.ok(["run", "-d", "--name", &name].iter().chain(what));
            if is_watched {
                world.crash_once(&name);
            }
            let found = world.wharf.inspect(&name);
            world.residents.push(Resident {
                pid: number(&found, "pid"),
                restarts: number(&found, "restarts"),
                ready: flag(&found, "ready"),
                is_watched,
                name,
            });
        }
        world.rest();
        world
    }

    /// Without a restart, a count that was forgotten would look like one that was kept.
    fn crash_once(&self, name: &str) {
        let first = number(&self.wharf.inspect(name), "pid");
        assert!(processes::kill(first as u32, |process| process.name == "demo"), "{name} had a process");
        eventually(20, &format!("{name} is restarted and ready"), || {
            let found = self.wharf.inspect(name);
            number(&found, "restarts") == 1 && text(&found, "state") == "running" && flag(&found, "ready")
        });
    }

    /// How it is now, is how it has to be after each fault.
    pub fn rest(&mut self) {
        // As after most of them: what a daemon opens on the first occasion only is not there yet.
        self.wharf.kill_daemon();
        self.wharf.launch();
        self.wharf.ok(["exec", &self.residents[0].name, "true"]);
        let deadline = Instant::now() + SETTLING;
        let mut before = self.snapshot();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.snapshot();
            if now == before || Instant::now() >= deadline {
                self.rest = Some(now);
                return;
            }
            before = now;
        }
    }

    /// If wharfd has died, there is another. True if it had.
    pub fn revive(&self) -> bool {
        let died = self.wharf.has_died();
        if died {
            self.wharf.kill_daemon();
            self.wharf.launch();
        }
        died
    }

    /// Nobody has disturbed the residents, and one more thing can be done with one of them.
    pub fn residents_live(&self, chance: &mut Chance) {
        let names = self.residents.iter().map(|resident| resident.name.as_str());
        let list: Value = serde_json::from_str(&self.wharf.ok(["inspect"].into_iter().chain(names)))
            .expect("inspect prints JSON");
        for (resident, found) in self.residents.iter().zip(list.as_array().expect("a list")) {
            assert_eq!(text(found, "state"), "running", "{}", resident.name);
            assert_eq!(number(found, "pid"), resident.pid, "{} lives on", resident.name);
            assert_eq!(number(found, "restarts"), resident.restarts, "{} has this count", resident.name);
            // At once: a new wharfd has been told by the store and need not probe first.
            assert_eq!(flag(found, "ready"), resident.ready, "{} is as ready as it was", resident.name);
            let process = processes::Process::of(resident.pid as u32);
            assert!(process.is_some_and(|process| !process.zombie), "{} is there", resident.name);
        }
        let resident = chance.of(&self.residents);
        let program: &[&str] = if resident.is_watched { &["/bin/demo", "echo"] } else { &["echo"] };
        assert_eq!(self.wharf.ok(["exec", &resident.name].iter().chain(program).chain(&["here"])), "here");
    }

    /// Without the sockets that wharfd has prepared for probes: each takes one.
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::of(&self.wharf);
        let watched = self.residents.iter().filter(|resident| resident.is_watched).count();
        if watched > 0 {
            let prepared = foreign_sockets(self.wharf.daemon_pid());
            assert!(prepared <= watched * MOST_PREPARED, "{prepared} sockets for {watched} probes");
            snapshot.descriptors = snapshot.descriptors.saturating_sub(prepared);
        }
        snapshot
    }

    /// Nothing of the fault is left.
    pub fn is_at_rest(&self) {
        let rest = self.rest.as_ref().expect("the world has been at rest");
        let deadline = Instant::now() + SETTLING;
        loop {
            let difference = self.snapshot().difference(rest);
            if difference.is_empty() {
                return;
            }
            let lines: Vec<&str> = difference.lines().take(20).collect();
            assert!(Instant::now() < deadline, "after the fault:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How many sockets of a process are in the network of a container: those that are not its own network's.
fn foreign_sockets(pid: u32) -> usize {
    let own: BTreeSet<String> = ["unix", "netlink"]
        .iter()
        .flat_map(|kind| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
            text.split_whitespace().map(|word| format!("socket:[{word}]")).collect::<Vec<_>>()
        })
        .collect();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .filter(|link| link.starts_with("socket:") && !own.contains(link))
        .count()
}

/// A container's description, if there is such a container.
pub fn find(wharf: &Wharf, name: &str) -> Option<Value> {
    let output = wharf.output(["inspect", name]);
    if output.status == 0 {
        let list: Value = serde_json::from_str(&output.stdout).expect("inspect prints JSON");
        return Some(list.as_array().map_or(list.clone(), |list| list[0].clone()));
    }
    // It may go between two questions of ctl.
    let gone = ["no container", "removed meanwhile"].iter().any(|words| output.stderr.contains(words));
    assert!(gone, "asking for {name}: {output:?}");
    None
}

/// The same once nothing is under way.
pub fn settled(wharf: &Wharf, name: &str) -> Option<Value> {
    let mut found = None;
    let rests = ["created", "running", "paused", "exited", "failed"];
    eventually(30, &format!("{name} comes to rest"), || {
        found = find(wharf, name);
        found.as_ref().is_none_or(|value| rests.contains(&text(value, "state").as_str()))
    });
    found
}

/// What somebody was told who asked for something.
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Done(Output),
    /// It is not, or nobody knows; the reason was given.
    Failed,
}

impl Answer {
    /// From the end of `ctl`: its own failures have a word for the user.
    pub fn of(output: Output, is_done: impl Fn(&Output) -> bool) -> Self {
        if is_done(&output) {
            return Self::Done(output);
        }
        // Who was killed in place of an exec's program says nothing more.
        assert!(output.status == 137 || !output.stderr.trim().is_empty(), "a failure says why: {output:?}");
        Self::Failed
    }

    /// Was it said that it is done?
    pub fn is_done(&self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Failed => false,
        }
    }
}

/// The files of each of the two layers of [`small_image`].
fn small_file(layer: usize, file: usize) -> String {
    format!("layer {layer}, file {file}\n").repeat(200)
}

/// [`small_image`] is in the store, with everything that was in it.
pub fn is_whole(wharf: &Wharf, name: &str) {
    let text = wharf.ok(["image", "inspect", name]);
    let list: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    let image = list.as_array().map_or(&list, |list| &list[0]);
    let layers = field(image, "layers").as_array().expect("layers");
    assert_eq!(layers.len(), 2);
    for (at, path) in layers.iter().rev().enumerate() {
        let path = Path::new(path.as_str().expect("a path"));
        for file in 0..30 {
            let content = std::fs::read_to_string(path.join(format!("{}-{file}", at + 1)));
            assert_eq!(content.expect("a file of the image"), small_file(at + 1, file));
        }
    }
}

/// An image of its own, small, as an archive for `ctl image load`; with its name.
pub fn small_image(directory: &Path) -> (PathBuf, &'static str) {
    const NAME: &str = "localhost/small:test";
    let archive = directory.join("small.tar");
    let umoci = |arguments: &[&str]| {
        let mut tool = Tool::with("umoci", arguments);
        tool.command().current_dir(directory);
        tool.ok()
    };
    umoci(&["init", "--layout", "small"]);
    umoci(&["new", "--image", "small:test"]);
    for layer in 1..=2 {
        umoci(&["unpack", "--image", "small:test", "bundle"]);
        let root = directory.join("bundle/rootfs");
        for file in 0..30 {
            let path = root.join(format!("{layer}-{file}"));
            std::fs::write(path, small_file(layer, file)).expect("a file of the image");
        }
        umoci(&["repack", "--image", "small:test", "bundle"]);
        std::fs::remove_dir_all(directory.join("bundle")).expect("removed");
    }
    umoci(&["config", "--image", "small:test", "--config.cmd", "/none"]);
    let to = format!("oci-archive:{}:{NAME}", archive.display());
    let from = format!("oci:{}:test", directory.join("small").display());
    Tool::with("skopeo", ["--insecure-policy", "copy", "-q", &from, &to]).ok();
    std::fs::remove_dir_all(directory.join("small")).expect("removed");
    (archive, NAME)
}
