//! The power is cut while containers are made, changed and removed and images loaded: the disk keeps what it was told
//! to make durable and nothing else, all processes are gone, and the next boot has another id. What was answered is
//! there.

use super::world::{Case, OBEDIENT, find, first_seed, is_whole, settled, size, small_image};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wharf_tests::e2e::snapshot::adopt_orphans;
use wharf_tests::e2e::{Setup, Wharf, eventually, field, number, processes, text};
use wharf_tests::sim::Chance;

/// As many as the issue of a release asks for; `make soak` does ten times as many.
const CUTS: u64 = 200;
/// Clients at a time, each with containers of its own.
const CLIENTS: usize = 3;
/// Until the power is cut: some have done much, some nothing.
const LONGEST: Duration = Duration::from_millis(700);

/// What was last answered about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Absent,
    Created,
    Running,
    /// With this code.
    Ended(i64),
}

/// What is known about a container from the answers.
#[derive(Debug, Clone)]
struct Known {
    told: Told,
    memory: u64,
    /// What was asked for and not answered: it may have been done.
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Create,
    Run,
    Start,
    Stop,
    Remove,
    Update(u64),
}

/// What is known about the image that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    Absent,
    Loaded,
    Unknown,
}

#[test]
fn power_cut_loses_nothing_that_was_answered() {
    let cuts = size("WHARF_POWER_CUTS", CUTS);
    adopt_orphans();
    let mut host = Host::new();
    let begin = Instant::now();
    for seed in first_seed()..first_seed() + cuts {
        let _case = Case {
            repeat: format!("WHARF_POWER_CUTS=1 WHARF_SEED={seed}"),
            shown: format!("power cut with seed {seed}"),
        };
        host.live_until_the_power_is_cut(seed);
        host.boot(seed);
        host.compare();
        if std::env::var_os("WHARF_SHOW").is_some() {
            eprintln!("cut {seed}: {:.1?}", begin.elapsed());
        }
    }
    println!("{cuts} power cuts in {:.0?}: {} answers held", begin.elapsed(), host.answers);
    assert!(host.answers > cuts, "much was answered before the power was cut");
}

struct Host {
    wharf: Wharf,
    image: &'static str,
    archive: PathBuf,
    small: &'static str,
    known: BTreeMap<String, Known>,
    loaded: Image,
    answers: u64,
    boot: tempfile::TempPath,
}

impl Host {
    fn new() -> Self {
        // The kernel's word for which boot this is comes from a file that every cut writes anew.
        let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let boot = tempfile::NamedTempFile::new().expect("a file with a boot's id").into_temp_path();
        next_boot(&boot, 0);
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
        let mut wrapper: Vec<_> = words.iter().map(std::ffi::OsString::from).collect();
        wrapper.push(boot.to_path_buf().into());
        let wharf = Wharf::start_as(Setup { disk: Some(96), wrapper, ..Setup::default() });
        let image = wharf.busybox();
        let (archive, small) = small_image(&wharf.scratch("small"));
        Self { wharf, image, archive, small, known: BTreeMap::new(), loaded: Image::Absent, answers: 0, boot }
    }

    fn live_until_the_power_is_cut(&mut self, seed: u64) {
        let mut chance = Chance::new(seed);
        let moment = Duration::from_micros(chance.below(LONGEST.as_micros() as u64));
        let cut = AtomicBool::new(false);
        let (wharf, image, cut) = (&self.wharf, self.image, &cut);
        let (archive, small, loaded) = (&self.archive, self.small, self.loaded);
        let mut known: Vec<BTreeMap<String, Known>> = vec![BTreeMap::new(); CLIENTS];
        for (index, (name, of)) in std::mem::take(&mut self.known).into_iter().enumerate() {
            known[index % CLIENTS].insert(name, of);
        }
        std::thread::scope(|scope| {
            let clients: Vec<_> = known
                .into_iter()
                .enumerate()
                .map(|(index, known)| {
                    let chance = Chance::new(seed * 1000 + index as u64);
                    let client = Client { wharf, image, cut, chance, known, answers: 0 };
                    scope.spawn(move || client.live(&format!("c{seed}-{index}")))
                })
                .collect();
            let loader = scope.spawn(move || load(wharf, archive, small, loaded, cut));
            std::thread::sleep(moment);
            cut.store(true, Ordering::Relaxed);
            wharf.disk().cut_power();
            wharf.kill_daemon();
            let everything = || processes::family(wharf.name());
            eventually(20, "every process is gone", || {
                for process in everything() {
                    processes::kill(process.pid, |_| true);
                }
                processes::reap_orphans();
                everything().is_empty()
            });
            for client in clients {
                let (known, answers) = client.join().expect("a client");
                self.known.extend(known);
                self.answers += answers;
            }
            self.loaded = loader.join().expect("a client");
        });
        // What only lives in memory.
        let _ = std::fs::remove_dir_all(self.wharf.runtime_dir());
        std::fs::create_dir(self.wharf.runtime_dir()).expect("a directory for the test");
        remove_cgroups(self.wharf.name());
        self.wharf.disk().unmount();
    }

    fn boot(&self, number: u64) {
        next_boot(&self.boot, number);
        // What was in the journal is done by the first mount.
        self.wharf.disk().mount();
        self.wharf.disk().unmount();
        self.wharf.disk().check();
        self.wharf.disk().mount();
        self.wharf.launch();
    }

    /// Everything that was answered is so; then some of it goes.
    fn compare(&mut self) {
        for (name, known) in &self.known {
            let found = settled(&self.wharf, name);
            let state = found.as_ref().map(|found| text(found, "state"));
            let state = state.as_deref();
            let ended = |code: i64| {
                state == Some("exited")
                    && found.as_ref().is_some_and(|found| number(found, "exitCode") == code)
            };
            // A run does not survive, and nobody knows how it ended; it is not forgotten that there was one.
            let was_running = || matches!(state, Some("exited" | "failed"));
            let holds = match &known.told {
                Told::Absent => state.is_none(),
                Told::Created => state == Some("created"),
                Told::Running => was_running(),
                Told::Ended(code) => ended(*code),
            };
            let done = match known.asked {
                None | Some(Asked::Update(_)) => false,
                Some(Asked::Create) => state == Some("created"),
                Some(Asked::Run | Asked::Start) => was_running(),
                Some(Asked::Stop) => ended(9) || was_running(),
                Some(Asked::Remove) => state.is_none(),
            };
            assert!(holds || done, "{name} is {state:?} after {known:?}\n{found:#?}");
            let Some(found) = found else { continue };
            let resources = field(field(&found, "spec"), "resources");
            let memory = field(resources, "memory").as_u64().expect("bytes");
            let asked = known.asked == Some(Asked::Update(memory));
            assert!(memory == known.memory || asked, "{name} may take {memory} after {known:?}");
        }
        let inspected = self.wharf.output(["image", "inspect", self.small]);
        match self.loaded {
            Image::Absent => assert_ne!(inspected.status, 0, "the image was removed"),
            Image::Loaded => assert_eq!(inspected.status, 0, "the image was loaded: {inspected:?}"),
            Image::Unknown => {}
        }
        self.loaded = if inspected.status == 0 { Image::Loaded } else { Image::Absent };
        if inspected.status == 0 {
            is_whole(&self.wharf, self.small);
        }
        // Whoever was there before can be started again, all of its image being there.
        if let Some(name) = self.known.keys().find(|name| find(&self.wharf, name).is_some()) {
            self.wharf.ok(["start", name]);
        }
        let all = self.wharf.ok(["ps", "-aq"]);
        let expected = self.known.len();
        assert!(all.lines().count() <= expected, "nobody asked for more than {expected}: {all}");
        if !all.is_empty() {
            self.wharf.ok(["rm", "-f"].into_iter().chain(all.lines()));
        }
        self.known.clear();
        // And what was made now outlives the next cut.
        for index in 0..2 {
            let name = format!("old-{index}");
            self.wharf.ok(["create", "--memory", "64m", "--name", &name, self.image, "sh", "-c", OBEDIENT]);
            self.known.insert(name, Known { told: Told::Created, memory: 64 << 20, asked: None });
        }
    }
}

/// Somebody with containers.
struct Client<'a> {
    wharf: &'a Wharf,
    image: &'static str,
    cut: &'a AtomicBool,
    chance: Chance,
    known: BTreeMap<String, Known>,
    answers: u64,
}

impl Client<'_> {
    fn live(mut self, prefix: &str) -> (BTreeMap<String, Known>, u64) {
        let mut number = 0;
        while !self.cut.load(Ordering::Relaxed) {
            let names: Vec<String> = self.known.keys().cloned().collect();
            let name = if names.is_empty() || self.chance.percent(35) {
                number += 1;
                format!("{prefix}-{number}")
            } else {
                self.chance.of(&names).clone()
            };
            if !self.step(&name) {
                break;
            }
        }
        (self.known, self.answers)
    }

    /// One wish. False when nobody answers any more.
    fn step(&mut self, name: &str) -> bool {
        let absent = Known { told: Told::Absent, memory: 64 << 20, asked: None };
        let known = self.known.entry(name.to_owned()).or_insert(absent);
        let more = 64 + self.chance.below(64);
        let (asked, told) = match known.told {
            Told::Absent if self.chance.percent(30) => (Asked::Create, Told::Created),
            Told::Absent => (Asked::Run, Told::Running),
            Told::Created | Told::Ended(_) if self.chance.percent(30) => (Asked::Remove, Told::Absent),
            Told::Created | Told::Ended(_) => (Asked::Start, Told::Running),
            Told::Running if self.chance.percent(25) => (Asked::Remove, Told::Absent),
            Told::Running if self.chance.percent(35) => (Asked::Update(more << 20), Told::Running),
            Told::Running => (Asked::Stop, Told::Ended(9)),
        };
        known.asked = Some(asked);
        let memory = format!("{more}m");
        let make = ["--memory", "64m", "--name", name, self.image, "sh", "-c", OBEDIENT];
        let words: Vec<&str> = match asked {
            Asked::Create => ["create"].into_iter().chain(make).collect(),
            Asked::Run => ["run", "-d"].into_iter().chain(make).collect(),
            Asked::Start => vec!["start", name],
            Asked::Stop => vec!["stop", name],
            Asked::Remove => vec!["rm", "-f", name],
            Asked::Update(_) => vec!["update", "--memory", &memory, name],
        };
        let output = self.wharf.output(words);
        if output.status != 0 {
            assert!(self.cut.load(Ordering::Relaxed), "{asked:?} {name}: {output:?}");
            return false;
        }
        // Said after the cut, it was never said.
        if self.cut.load(Ordering::Relaxed) {
            return false;
        }
        self.answers += 1;
        match asked {
            Asked::Update(memory) => known.memory = memory,
            // The next one of this name begins anew.
            Asked::Remove => known.memory = 64 << 20,
            Asked::Create | Asked::Run | Asked::Start | Asked::Stop => {}
        }
        known.told = told;
        known.asked = None;
        true
    }
}

/// Load and remove an image, over and over.
fn load(wharf: &Wharf, archive: &Path, name: &str, mut image: Image, cut: &AtomicBool) -> Image {
    while !cut.load(Ordering::Relaxed) {
        let (next, output) = match image {
            Image::Absent => {
                let words = ["image".as_ref(), "load".as_ref(), archive.as_os_str()];
                (Image::Loaded, wharf.output(words))
            }
            Image::Loaded => (Image::Absent, wharf.output(["image", "rm", name])),
            Image::Unknown => return image,
        };
        if output.status != 0 {
            assert!(cut.load(Ordering::Relaxed), "with power: {output:?}");
            return Image::Unknown;
        }
        if cut.load(Ordering::Relaxed) {
            return Image::Unknown;
        }
        image = next;
    }
    image
}

fn next_boot(file: &Path, number: u64) {
    std::fs::write(file, format!("00000000-0000-4000-8000-{number:012x}\n"))
        .expect("a file with a boot's id");
}

/// Their processes are gone.
fn remove_cgroups(name: &str) {
    let tops = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for top in tops.chain(["/sys/fs/cgroup".into()]) {
        let top = top.join(name);
        eventually(20, "cgroups can be removed", || {
            remove_below(&top);
            !top.exists()
        });
    }
}

fn remove_below(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(directory);
}
