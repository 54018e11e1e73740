//! The kill matrix: wharfd, forge, guards, creators and keepers are killed while something is done, at chosen points
//! and at any moment. What was answered holds, what lived lives, and nothing is left.

use super::act::{ACTS, Act, Before, Scene};
use super::world::{Case, first_seed, size};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wharf_tests::e2e::{Setup, Wharf, eventually, processes};
use wharf_tests::sim::Chance;

/// As many as the issue of a release asks for; `make soak` does ten times as many.
const KILLS: u64 = 1000;
const RESIDENTS: usize = 20;
/// So many of them are restarted and probed, and neither may begin or count anew when wharfd does.
const WATCHED: usize = 4;

/// Who is killed, and when.
#[derive(Debug, Clone, Copy)]
enum Strike {
    /// Whoever reaches this point.
    Point(&'static str),
    /// The keeper that reaches this point.
    Keeper(&'static str),
    /// This one, so long after the beginning.
    After(Who, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Daemon,
    Forge,
    /// A guard, a creator, or the monitor of an exec.
    Worker,
    Keeper,
}

const STORE: [&str; 2] = ["store.committing", "store.committed"];
const ASK: [&str; 5] = ["ask.connected", "ask.sent", "ask.answered", "forge.accepted", "forge.forked"];
const MAKE: [&str; 9] = [
    "guard.cgroup-made",
    "guard.creator-forked",
    "creator.staged",
    "creator.cloned",
    "creator.checked",
    "creator.handed",
    "guard.container-made",
    "guard.released",
    "guard.answered",
];
const EXEC: [&str; 4] = ["forge.accepted", "forge.forked", "exec.started", "exec.ended"];
const LOAD: [&str; 5] = [
    "image.flushed",
    "image.blobs-moved",
    "image.layers-moved",
    "image.index-written",
    "image.index-renamed",
];
const UNTAG: [&str; 3] = ["image.index-written", "image.index-renamed", "image.removed"];
const KEEPER: [&str; 4] = ["keeper.recording", "keeper.written", "keeper.recorded", "keeper.announced"];

impl Act {
    /// The points that it passes.
    fn points(self) -> Vec<Strike> {
        let point = |names: &[&'static str]| names.iter().map(|name| Strike::Point(name)).collect::<Vec<_>>();
        let keeper = || KEEPER.map(Strike::Keeper).to_vec();
        match self {
            Self::Create => point(&STORE),
            Self::Run => [point(&STORE), point(&ASK), point(&MAKE)].concat(),
            Self::Start => {
                [point(&STORE), point(&ASK), point(&MAKE), vec![Strike::Keeper("keeper.started")]].concat()
            }
            Self::Exec => point(&EXEC),
            Self::Stop | Self::Remove => [point(&STORE), point(&ASK), keeper()].concat(),
            // The cgroup of what has ended is removed by the forge.
            Self::Exit => [point(&STORE), point(&ASK), keeper()].concat(),
            Self::Update => [point(&STORE), point(&ASK)].concat(),
            Self::Load => point(&LOAD),
            Self::RemoveImage => point(&UNTAG),
        }
    }

    /// Who takes part in it.
    fn who(self) -> &'static [Who] {
        match self {
            Self::Create | Self::Load | Self::RemoveImage => &[Who::Daemon],
            Self::Run | Self::Start | Self::Stop | Self::Exit | Self::Remove => {
                &[Who::Daemon, Who::Forge, Who::Worker, Who::Keeper]
            }
            Self::Exec | Self::Update => &[Who::Daemon, Who::Forge, Who::Worker],
        }
    }

    /// About how long it takes.
    fn span(self) -> Duration {
        Duration::from_millis(match self {
            Self::Create | Self::RemoveImage => 25,
            Self::Update | Self::Exec => 60,
            Self::Run | Self::Start | Self::Load | Self::Stop | Self::Remove => 90,
            Self::Exit => 250,
        })
    }
}

/// The seeds begin with every point of every act, so that a short run visits most of them.
fn choose(seed: u64, chance: &mut Chance) -> (Act, Strike) {
    let points: Vec<(Act, Strike)> =
        ACTS.iter().flat_map(|act| act.points().into_iter().map(|point| (*act, point))).collect();
    // Every second seed is a point.
    if seed.is_multiple_of(2) {
        return points[(seed / 2) as usize % points.len()];
    }
    let act = *chance.of(&ACTS);
    (
        act,
        Strike::After(
            *chance.of(act.who()),
            Duration::from_micros(chance.below(act.span().as_micros() as u64)),
        ),
    )
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_is_left() {
    let kills = size("WHARF_KILLS", KILLS);
    let mut matrix = Matrix::new();
    let begin = Instant::now();
    let mut seed = first_seed();
    while matrix.killed.values().sum::<u64>() < kills {
        matrix.strike(seed);
        seed += 1;
    }
    let count: u64 = matrix.killed.values().sum();
    println!(
        "{count} kills in {} attempts, {:.0?}: {:#?}",
        seed - first_seed(),
        begin.elapsed(),
        matrix.killed
    );
    let points: usize = ACTS.iter().map(|act| act.points().len()).sum();
    if kills >= 4 * points as u64 {
        let of = |strike: &Strike| match strike {
            Strike::Point(name) | Strike::Keeper(name) => Some(*name),
            Strike::After(..) => None,
        };
        for name in ACTS.iter().flat_map(|act| act.points()).filter_map(|strike| of(&strike)) {
            assert!(matrix.killed.contains_key(name), "nobody was killed at {name}");
        }
    }
}

struct Matrix {
    scene: Scene,
    /// How many were killed at which point, or who at a chosen moment.
    killed: BTreeMap<String, u64>,
}

impl Matrix {
    fn new() -> Self {
        let setup = Setup { program: Some("wharfd-failpoints"), ..Setup::default() };
        Self { scene: Scene::with_watched(setup, RESIDENTS, WATCHED), killed: BTreeMap::new() }
    }

    fn wharf(&self) -> &Wharf {
        self.scene.wharf()
    }

    /// One kill, if it hits, and everything that has to be true afterwards.
    fn strike(&mut self, seed: u64) {
        let mut chance = Chance::new(seed);
        let (act, strike) = choose(seed, &mut chance);
        let _case = Case {
            repeat: format!("WHARF_KILLS=1 WHARF_SEED={seed}"),
            shown: format!("seed {seed}: {act:?} struck by {strike:?}"),
        };
        let begin = Instant::now();
        let name = format!("victim-{seed}");
        let before = self.scene.prepare(act, &name);
        let armed = self.arm(strike, &before);
        let prepared = begin.elapsed();

        let client = self.scene.command(act, &name).map(|words| self.wharf().ctl(words).spawn());
        let mut hit = None;
        if let Strike::After(who, delay) = strike {
            hit = self.kill(who, delay, &before).then(|| format!("{who:?} at any moment"));
        }
        // Without a client the container ends by itself; an answer that waits for a dead daemon comes at once.
        let output = client.map(|client| client.finish());
        if act == Act::Exit {
            std::thread::sleep(Duration::from_millis(250));
        }
        if let Some(file) = armed {
            // The last of it may come after the answer.
            if !self.is_gone_soon(&file) {
                std::fs::remove_file(&file).ok();
            } else if let Strike::Point(name) | Strike::Keeper(name) = strike {
                hit = Some(name.to_owned());
            }
        }
        let acted = begin.elapsed();
        self.bury(hit.as_deref());
        let revived = begin.elapsed();
        self.scene.verify(act, &name, &before, output);
        let verified = begin.elapsed();

        self.scene.clear(act, &name);
        self.scene.world.residents_live(&mut chance);
        self.scene.world.is_at_rest();
        if std::env::var_os("WHARF_SHOW").is_some() {
            let times = [prepared, acted, revived, verified, begin.elapsed()];
            eprintln!("seed {seed}: {act:?} {strike:?} hit={hit:?} {times:.0?}");
        }
        if let Some(hit) = hit {
            *self.killed.entry(hit).or_default() += 1;
        }
    }

    fn arm(&self, strike: Strike, before: &Before) -> Option<PathBuf> {
        let file = match strike {
            Strike::Point(name) => self.wharf().runtime_dir().join(format!("fail.{name}")),
            Strike::Keeper(name) => {
                use std::os::unix::fs::DirBuilderExt;
                let directory = self.wharf().state_dir().join("containers").join(&before.id);
                // Before the first start there is none.
                let _ = std::fs::DirBuilder::new().mode(0o700).create(&directory);
                directory.join(format!("fail.{name}"))
            }
            Strike::After(..) => return None,
        };
        std::fs::write(&file, "").expect("a file that arms a point");
        Some(file)
    }

    fn is_gone_soon(&self, file: &std::path::Path) -> bool {
        let deadline = Instant::now() + Duration::from_millis(150);
        while file.exists() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Was there one to kill?
    fn kill(&self, who: Who, delay: Duration, before: &Before) -> bool {
        let mark = self.wharf().name();
        let forge = processes::forge(mark);
        let end = Instant::now() + delay;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200).min(delay));
        }
        let is = |name: &'static str| move |process: &processes::Process| process.name == name;
        match who {
            Who::Daemon => {
                self.wharf().kill_daemon();
                true
            }
            Who::Forge => forge.is_some_and(|forge| processes::kill(forge, is("wharf-forge"))),
            Who::Worker => {
                // It lives for some milliseconds: take the first that comes.
                let deadline = Instant::now() + Duration::from_millis(60);
                while let Some(forge) = forge
                    && Instant::now() < deadline
                {
                    for child in processes::children(forge) {
                        // Keepers are children of the forge as well.
                        let is_worker =
                            |pid| processes::Process::of(pid).is_some_and(|it| it.name == "wharf-forge");
                        let creator = processes::children(child).into_iter().find(|pid| is_worker(*pid));
                        let pid =
                            if delay.subsec_nanos() & 1024 == 0 { creator.unwrap_or(child) } else { child };
                        if is_worker(pid) && processes::kill(pid, is("wharf-forge")) {
                            return true;
                        }
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
                false
            }
            Who::Keeper => {
                let keeper = processes::keeper(mark, &before.id);
                keeper.is_some_and(|keeper| processes::kill(keeper, is("wharf-keeper")))
            }
        }
    }

    /// There is a daemon again, whoever was killed.
    fn bury(&self, hit: Option<&str>) {
        let is_daemons =
            |point: &str| ["store.", "ask.", "image."].iter().any(|whose| point.starts_with(whose));
        if hit.is_some_and(is_daemons) {
            // A process that has been sent SIGKILL is not gone at once.
            eventually(10, "wharfd is dead", || self.wharf().has_died());
        }
        if self.wharf().is_launched() {
            self.scene.world.revive();
        } else {
            self.wharf().launch();
        }
    }
}
