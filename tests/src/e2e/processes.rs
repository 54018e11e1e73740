//! The processes of one daemon: itself, forge, keepers, containers, and what any of them has started.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;

/// One process, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// What the kernel calls it.
    pub name: String,
    /// Ended, but nobody has waited for it.
    pub zombie: bool,
}

impl Process {
    /// The process with this pid, if there is one.
    pub fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = text.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = after.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self { pid, parent: number(1)?, session: number(3)?, name, zombie: fields[0] == "Z" })
    }
}

/// Every process of this machine.
pub fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The processes that carry `mark`, which is in the names of a daemon's directories and cgroups, and all below them;
/// but neither the test nor what it has started to ask the daemon.
pub fn family(mark: &str) -> Vec<Process> {
    let all = all();
    let own = std::process::id();
    let asks = |process: &Process| process.parent == own && process.name == "ctl";
    let mut pids: BTreeSet<u32> = all
        .iter()
        .filter(|process| process.pid != own && !asks(process) && is_marked(process.pid, mark))
        .map(|process| process.pid)
        .collect();
    loop {
        let size = pids.len();
        for process in &all {
            if pids.contains(&process.parent) {
                pids.insert(process.pid);
            }
        }
        if pids.len() == size {
            break;
        }
    }
    all.into_iter().filter(|process| pids.contains(&process.pid)).collect()
}

/// By its command line (daemon, forge), its cgroup (containers, creators), or the directory of its records (keepers).
fn is_marked(pid: u32, mark: &str) -> bool {
    let contains = |file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    let record = || std::fs::read_link(format!("/proc/{pid}/fd/5"));
    contains("cmdline")
        || contains("cgroup")
        || record().is_ok_and(|path| path.display().to_string().contains(mark))
}

/// The forge of the daemon with this mark.
pub fn forge(mark: &str) -> Option<u32> {
    let forges: Vec<Process> =
        family(mark).into_iter().filter(|process| process.name == "wharf-forge").collect();
    // Its children at work have the same name.
    let is_child = |process: &Process| forges.iter().any(|other| other.pid == process.parent);
    forges.iter().find(|process| !process.zombie && !is_child(process)).map(|process| process.pid)
}

/// The keeper of a container of the daemon with this mark.
pub fn keeper(mark: &str, container: &str) -> Option<u32> {
    let of_container = |pid: u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !container.is_empty() && line.contains(container)
    };
    let family = family(mark).into_iter();
    let mut keepers = family.filter(|process| process.name == "wharf-keeper" && of_container(process.pid));
    keepers.next().map(|process| process.pid)
}

/// The living children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// SIGKILL, if the process is still what `is` says once it cannot become another. True if it was sent.
pub fn kill(pid: u32, is: impl Fn(&Process) -> bool) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    Process::of(pid).is_some_and(|process| !process.zombie && is(&process))
        && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

/// Wait for what was left to this process by its descendants ([`super::snapshot::adopt_orphans`]). What it has
/// started itself is in its own session and has somebody who waits for it.
pub fn reap_orphans() {
    let own = Process::of(std::process::id()).expect("this process");
    for process in all() {
        if process.zombie && process.parent == own.pid && process.session != own.session {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(process.pid as i32), None);
        }
    }
}
