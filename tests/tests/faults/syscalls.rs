//! System calls fail: one call of one process with one error, while one thing is done. The answer is a clean error or
//! success, nothing is left, and the next try works.
//!
//! strace(1) lets the k-th call of a kind fail in each thread or process that it follows. It lets go of a process that
//! executes another program, so what fails is ours and not the container's.

use super::act::{ACTS, Act, Before, Scene};
use super::world::{Case, first_seed, size};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wharf_tests::e2e::{Output, Setup, eventually, processes};
use wharf_tests::sim::Chance;

/// As many as the issue of a release asks for; `make soak` does ten times as many.
const FAULTS: u64 = 2000;
const RESIDENTS: usize = 3;
/// Daemons whose calls fail at a time: most of the time is spent waiting for the kernel.
const LABS: u64 = 3;
/// What is called more often is not looked at beyond this.
const DEEPEST: u64 = 40;

/// Whose calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Daemon,
    /// Forge, guards, creators, and monitors of execs.
    Forge,
    /// The keeper of the container in question.
    Keeper,
}

/// What strace says behind a call that it let fail.
const INJECTED: &str = "(INJECTED)";

type Call = (&'static str, &'static [&'static str]);

const OPEN: &[&str] = &["EMFILE", "ENOMEM", "ENOSPC", "EIO", "EINTR"];
const MAKE: &[&str] = &["ENOSPC", "EIO", "ENOMEM"];
const FLUSH: &[&str] = &["EIO", "ENOSPC"];
const WRITE: &[&str] = &["ENOSPC", "EIO", "EINTR", "EAGAIN"];
const DESCRIPTOR: &[&str] = &["EMFILE", "ENOMEM"];
const PROCESS: &[&str] = &["EAGAIN", "ENOMEM"];
const MOUNT: &[&str] = &["ENOMEM", "ENOSPC", "EMFILE"];
const TALK: &[&str] = &["ENOMEM", "EINTR"];
const REMOVE: &[&str] = &["EIO", "ENOMEM"];
const WAIT: &[&str] = &["EINTR"];

const DAEMON: &[Call] = &[
    ("write", WRITE),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR"]),
    ("fsync", FLUSH),
    ("fdatasync", FLUSH),
    ("syncfs", FLUSH),
    ("ftruncate", FLUSH),
    ("openat", OPEN),
    ("openat2", OPEN),
    ("mkdir", MAKE),
    ("mkdirat", MAKE),
    ("rename", MAKE),
    ("renameat", MAKE),
    ("renameat2", MAKE),
    ("unlink", REMOVE),
    ("unlinkat", REMOVE),
    ("rmdir", REMOVE),
    ("symlinkat", MAKE),
    ("linkat", MAKE),
    ("fchown", &["EIO"]),
    ("fchmod", &["EIO"]),
    ("flock", &["EINTR", "ENOMEM"]),
    ("read", &["EIO", "EINTR"]),
    ("pread64", &["EIO", "EINTR"]),
    ("getdents64", &["EIO", "ENOMEM"]),
    ("statx", &["EIO", "ENOMEM"]),
    ("clone3", PROCESS),
    ("socket", DESCRIPTOR),
    ("connect", &["EAGAIN", "EINTR", "ENOMEM"]),
    ("accept4", &["EMFILE", "ENOMEM", "EINTR"]),
    ("sendmsg", TALK),
    ("recvmsg", TALK),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", WAIT),
    ("pipe2", DESCRIPTOR),
    ("memfd_create", DESCRIPTOR),
    ("fcntl", &["EMFILE"]),
    ("mmap", &["ENOMEM"]),
    ("inotify_add_watch", &["ENOSPC", "ENOMEM"]),
];

const FORGE: &[Call] = &[
    ("write", WRITE),
    ("read", &["EIO", "EINTR"]),
    ("openat", OPEN),
    ("openat2", OPEN),
    ("mkdir", MAKE),
    ("mkdirat", MAKE),
    ("unlink", REMOVE),
    ("unlinkat", REMOVE),
    ("rmdir", REMOVE),
    ("symlinkat", MAKE),
    ("mknodat", MAKE),
    ("fchown", &["EIO"]),
    ("fchmod", &["EIO"]),
    ("clone", PROCESS),
    ("clone3", PROCESS),
    ("unshare", &["ENOMEM", "ENOSPC"]),
    ("setns", &["ENOMEM"]),
    ("mount", MOUNT),
    ("umount2", &["ENOMEM"]),
    ("pivot_root", &["ENOMEM"]),
    ("fsopen", MOUNT),
    ("fsconfig", MOUNT),
    ("fsmount", MOUNT),
    ("move_mount", MOUNT),
    ("open_tree", MOUNT),
    ("mount_setattr", MOUNT),
    ("socketpair", DESCRIPTOR),
    ("socket", DESCRIPTOR),
    ("bind", &["ENOMEM", "ENOSPC"]),
    ("listen", &["ENOMEM"]),
    ("accept4", &["EMFILE", "ENOMEM", "EINTR"]),
    ("sendmsg", TALK),
    ("recvmsg", TALK),
    ("pipe2", DESCRIPTOR),
    ("memfd_create", DESCRIPTOR),
    ("pidfd_open", DESCRIPTOR),
    ("fcntl", &["EMFILE"]),
    ("dup3", &["EMFILE"]),
    ("poll", WAIT),
    ("wait4", WAIT),
    ("waitid", WAIT),
    ("mmap", &["ENOMEM"]),
    ("setsid", &["ENOMEM"]),
    ("prctl", &["ENOMEM"]),
    ("seccomp", &["ENOMEM"]),
    ("sethostname", &["ENOMEM"]),
    ("getdents64", &["EIO", "ENOMEM"]),
];

const KEEPER: &[Call] = &[
    ("openat", OPEN),
    ("write", WRITE),
    ("renameat", MAKE),
    ("fsync", FLUSH),
    ("sendmsg", TALK),
    ("recvmsg", TALK),
    ("accept4", &["EMFILE", "ENOMEM", "EINTR"]),
    ("ppoll", WAIT),
    ("wait4", WAIT),
    ("read", &["EINTR", "EAGAIN"]),
];

impl Whose {
    fn calls(self) -> &'static [Call] {
        match self {
            Self::Daemon => DAEMON,
            Self::Forge => FORGE,
            Self::Keeper => KEEPER,
        }
    }

    /// Who takes part in it?
    fn acts(self) -> Vec<Act> {
        ACTS.into_iter()
            .filter(|act| match (self, act) {
                (Self::Daemon, _) => true,
                (Self::Forge, Act::Create | Act::Load | Act::RemoveImage) => false,
                (Self::Forge, _) => true,
                (Self::Keeper, Act::Stop | Act::Exit | Act::Remove | Act::Exec) => true,
                (Self::Keeper, _) => false,
            })
            .collect()
    }
}

/// One fault, or one in each thread or process that comes that far.
#[derive(Debug, Clone)]
struct Fault {
    whose: Whose,
    act: Act,
    call: &'static str,
    error: &'static str,
    /// Which call of each, counted from 1.
    which: u64,
}

#[test]
fn failing_system_call_is_an_error_or_nothing_and_the_next_try_works() {
    let faults = size("WHARF_SYSCALL_FAULTS", FAULTS);
    let begin = Instant::now();
    let (count, attempts) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let labs: Vec<_> = (0..LABS.min(faults))
            .map(|lab| {
                let (count, attempts) = (&count, &attempts);
                scope.spawn(move || {
                    let mut chance = Chance::new(first_seed() * LABS + lab);
                    let mut lab = Lab::new();
                    while count.load(Ordering::Relaxed) < faults {
                        let Some(fault) = lab.choose(&mut chance) else { continue };
                        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
                        let failed = lab.inject(&fault, attempt);
                        count.fetch_add(failed, Ordering::Relaxed);
                        if std::env::var_os("WHARF_SHOW").is_some() {
                            eprintln!("{failed} {fault:?} {:.1?}", begin.elapsed());
                        }
                    }
                    lab.counts
                })
            })
            .collect();
        for lab in labs {
            for (name, failed) in lab.join().expect("a lab in which nothing went wrong") {
                *counts.entry(name).or_default() += failed;
            }
        }
    });
    let (count, attempts) = (count.into_inner(), attempts.into_inner());
    println!("{count} system calls failed in {attempts} attempts, {:.0?}: {counts:#?}", begin.elapsed());
}

struct Lab {
    scene: Scene,
    /// How many calls of a kind one thread or process makes at most.
    reach: BTreeMap<(Whose, Act, &'static str), u64>,
    counts: BTreeMap<String, u64>,
}

impl Lab {
    fn new() -> Self {
        let scene = Scene::new(Setup::default(), RESIDENTS);
        let mut lab = Self { scene, reach: BTreeMap::new(), counts: BTreeMap::new() };
        if std::env::var_os("WHARF_FAULT").is_none() {
            lab.measure();
        }
        lab
    }

    fn choose(&self, chance: &mut Chance) -> Option<Fault> {
        // WHARF_FAULT="Forge Start openat EMFILE 3"
        let given = std::env::var("WHARF_FAULT").unwrap_or_default();
        let given: Vec<&str> = given.split_whitespace().collect();
        let whose = match given.first() {
            Some(name) => [Whose::Daemon, Whose::Forge, Whose::Keeper]
                .into_iter()
                .find(|whose| format!("{whose:?}") == *name)
                .expect("whose call"),
            None => *chance.of(&[Whose::Daemon, Whose::Daemon, Whose::Forge, Whose::Forge, Whose::Keeper]),
        };
        if let [_, act, call, error, which] = given[..] {
            let act = ACTS.into_iter().find(|known| format!("{known:?}") == act).expect("an act");
            let (call, errors) = whose.calls().iter().find(|(name, _)| *name == call).expect("a call");
            let error = errors.iter().find(|name| **name == error).expect("an error");
            return Some(Fault { whose, act, call, error, which: which.parse().expect("a number") });
        }
        let act = *chance.of(&whose.acts());
        let (call, errors) = *chance.of(whose.calls());
        let error = chance.of(errors);
        let reach = self.reach.get(&(whose, act, call)).copied().unwrap_or(0);
        (reach > 0).then(|| Fault { whose, act, call, error, which: 1 + chance.below(reach.min(DEEPEST)) })
    }

    /// Do everything once and count the calls.
    fn measure(&mut self) {
        for whose in [Whose::Daemon, Whose::Forge, Whose::Keeper] {
            let calls: Vec<&str> = whose.calls().iter().map(|(call, _)| *call).collect();
            for act in whose.acts() {
                let name = format!("measured-{whose:?}-{act:?}");
                let (log, _) = self.watched(whose, act, &name, &[&format!("trace={}", calls.join(","))]);
                self.scene.clear(act, &name);
                let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
                for line in log.lines() {
                    let Some((pid, rest)) = line.split_once(' ') else { continue };
                    if let Some((call, _)) = rest.trim_start().split_once('(') {
                        *counts.entry((pid, call)).or_default() += 1;
                    }
                }
                for call in calls.iter().copied() {
                    let of_call = counts.iter().filter(|((_, counted), _)| *counted == call);
                    let most = of_call.map(|(_, count)| *count).max().unwrap_or(0);
                    self.reach.insert((whose, act, call), most);
                }
            }
        }
    }

    /// How many calls have failed.
    fn inject(&mut self, fault: &Fault, session: u64) -> u64 {
        let Fault { whose, act, call, error, which } = *fault;
        let _case = Case {
            repeat: format!("WHARF_SYSCALL_FAULTS=1 WHARF_FAULT='{whose:?} {act:?} {call} {error} {which}'"),
            shown: format!("{fault:?}"),
        };
        let mut chance = Chance::new(session);
        let name = format!("victim-{session}");
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:error={error}:when={which}"));
        let said = self.scene.wharf().daemon_log().len();
        let (log, (before, output)) = self.watched(whose, act, &name, &[&trace, &inject]);
        let failed = log.lines().filter(|line| line.contains(INJECTED)).count() as u64;

        // It may have ended for want of memory, or be about to; then there is another.
        let panicked = self.scene.wharf().daemon_log()[said..].contains("panicked at");
        if panicked || self.scene.wharf().output(["version"]).status != 0 {
            eventually(20, "a wharfd that does not answer has ended", || self.scene.wharf().has_died());
        }
        if self.scene.world.revive() {
            *self.counts.entry("wharfd ended".to_owned()).or_default() += 1;
        }
        self.scene.keeper_may_fail = whose == Whose::Forge;
        self.scene.record_may_be_late = whose == Whose::Keeper;
        self.scene.verify(act, &name, &before, output);
        self.scene.clear(act, &name);
        self.scene.do_again(act);
        self.scene.world.residents_live(&mut chance);
        self.scene.world.is_at_rest();
        *self.counts.entry(format!("{whose:?} {call}")).or_default() += failed;
        failed
    }

    /// Do it, under strace with these expressions; what strace has seen, and what came of it.
    fn watched(
        &self,
        whose: Whose,
        act: Act,
        name: &str,
        expressions: &[&str],
    ) -> (String, (Before, Option<Output>)) {
        let before = self.scene.prepare(act, name);
        // On a busy machine what ends by itself may have ended before anybody looked.
        let Some(target) = self.target(whose, &before) else { return (String::new(), (before, None)) };
        let log = self.scene.wharf().scratch("strace").join("log");
        let strace = Strace::attach(target, expressions, &log);
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            // Others would fail the same way, one after the other: the first is enough.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && !has_failed(&log) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                strace.let_go();
            });
            let output = self.scene.command(act, name).map(|words| self.scene.wharf().output(words));
            if act == Act::Exit {
                std::thread::sleep(Duration::from_millis(250));
            }
            done.store(true, Ordering::Relaxed);
            output
        });
        strace.end();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        std::fs::remove_file(&log).expect("a log of strace");
        (text, (before, output))
    }

    fn target(&self, whose: Whose, before: &Before) -> Option<u32> {
        let mark = self.scene.wharf().name();
        match whose {
            Whose::Daemon => Some(self.scene.wharf().daemon_pid()),
            Whose::Forge => processes::forge(mark),
            Whose::Keeper => processes::keeper(mark, &before.id),
        }
    }
}

/// strace, at work.
struct Strace {
    child: Child,
    target: u32,
}

impl Strace {
    fn attach(target: u32, expressions: &[&str], log: &Path) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-q", "-b", "execve", "-e", "signal=none"])
            .args(expressions.iter().flat_map(|expression| ["-e", expression]))
            .args(["-p", &target.to_string(), "-o"])
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is there: scripts/need test");
        let strace = Self { child, target };
        eventually(20, "strace follows every thread", || strace.follows_all());
        strace
    }

    fn follows_all(&self) -> bool {
        let tracer = format!("TracerPid:\t{}\n", self.child.id());
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.target)).into_iter().flatten().flatten();
        let followed: Vec<bool> = tasks
            .map(|task| {
                std::fs::read_to_string(task.path().join("status")).is_ok_and(|text| text.contains(&tracer))
            })
            .collect();
        // Without any it has ended.
        followed.into_iter().all(|followed| followed)
    }

    /// It detaches from all that live, and ends.
    fn let_go(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Nobody has waited for it, so the pid is still its own.
            let _ = kill_process(pid, Signal::INT);
        }
    }

    fn end(mut self) {
        self.child.wait().expect("our child");
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if self.child.try_wait().expect("our child").is_none() {
            self.let_go();
            let _ = self.child.wait();
        }
    }
}

fn has_failed(log: &Path) -> bool {
    std::fs::read_to_string(log).is_ok_and(|text| text.contains(INJECTED))
}
