//! What a machine has at one moment, as far as containers could leave something there.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Wharf, processes};

/// Sets of lines that are compared before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Processes below this test program, `name` only: pids differ, what there is must not.
    pub processes: Vec<String>,
    /// Lines of mountinfo without their numbers.
    pub mounts: Vec<String>,
    /// Directories below every cgroup hierarchy.
    pub cgroups: BTreeSet<String>,
    /// Namespaces: of one daemon all that its processes are in, of a machine those for the network.
    pub namespaces: BTreeSet<String>,
    /// Files below the daemon's directories, and names in the directories where programs leave things.
    pub files: BTreeSet<String>,
    /// Open descriptors of the daemon and of every process below it.
    pub descriptors: usize,
}

impl Snapshot {
    /// Of this machine now. Orphans must be this program's children ([`adopt_orphans`]).
    ///
    /// Other programs come and go meanwhile: of cgroups outside the daemon's, those at the top and those named
    /// after a container count; of directories that everybody uses, what `is_ours` says.
    pub fn take(daemon: u32, state: &Path, runtime: &Path, is_ours: impl Fn(&str) -> bool) -> Self {
        processes::reap_orphans();
        let family = descendants(std::process::id());
        let mut processes: Vec<String> =
            family.iter().map(|pid| format!("{} {}", name_of(*pid), state_of(*pid))).collect();
        processes.sort();
        let mut mounts: Vec<String> = std::fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .lines()
            .map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" "))
            .collect();
        mounts.sort();
        let mut cgroups = BTreeSet::new();
        walk(Path::new("/sys/fs/cgroup"), &mut |path, is_dir| {
            let text = path.to_string_lossy();
            // /sys/fs/cgroup/NAME on v2, /sys/fs/cgroup/CONTROLLER/NAME on v1.
            let top = text.matches('/').count() <= 5;
            if is_dir && (top || is_ours(&text)) {
                cgroups.insert(text.into_owned());
            }
        });
        let mut files = BTreeSet::new();
        for directory in [state, runtime] {
            walk(directory, &mut |path, _| {
                files.extend(Some(path.display().to_string()).filter(|name| !is_of_database(name)));
            });
        }
        for directory in ["/run", "/tmp", "/dev/shm", "/var/lib", "/run/netns", "/"] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path().display().to_string();
                if is_ours(&path) {
                    files.insert(path);
                }
            }
        }
        let descriptors = descendants(daemon)
            .into_iter()
            .chain([daemon])
            .map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
            .sum();
        Self { processes, mounts, cgroups, namespaces: network_namespaces(), files, descriptors }
    }

    /// Of one daemon and what carries its name, while others run beside it. Orphans must be this program's children.
    pub fn of(wharf: &Wharf) -> Self {
        processes::reap_orphans();
        let family = processes::family(wharf.name());
        let mut names: Vec<String> = family
            .iter()
            .map(|process| format!("{} {}", process.name, if process.zombie { "zombie" } else { "" }))
            .collect();
        names.sort();
        let is_ours = |text: &str| text.contains(wharf.name());
        let mut mounts: Vec<String> = std::fs::read_to_string("/proc/self/mountinfo")
            .expect("mountinfo")
            .lines()
            .filter(|line| is_ours(line))
            .map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" "))
            .collect();
        mounts.sort();
        let mut cgroups = BTreeSet::new();
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for top in hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
            walk(&top.join(wharf.name()), &mut |path, is_dir| {
                if is_dir {
                    cgroups.insert(path.display().to_string());
                }
            });
        }
        let mut namespaces = BTreeSet::new();
        for process in &family {
            for name in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
                let link = std::fs::read_link(format!("/proc/{}/ns/{name}", process.pid));
                namespaces.extend(link.map(|link| link.display().to_string()));
            }
        }
        let mut files = BTreeSet::new();
        for directory in [wharf.state_dir(), wharf.runtime_dir()] {
            walk(&directory, &mut |path, _| {
                files.extend(Some(path.display().to_string()).filter(|name| !is_of_database(name)));
            });
        }
        let descriptors = family
            .iter()
            .map(|process| std::fs::read_dir(format!("/proc/{}/fd", process.pid)).map_or(0, Iterator::count))
            .sum();
        Self { processes: names, mounts, cgroups, namespaces, files, descriptors }
    }

    /// What `self` has and `before` had not, or the other way round; empty when they are equal.
    pub fn difference(&self, before: &Self) -> String {
        let mut text = String::new();
        list(&mut text, "processes", &before.processes, &self.processes);
        list(&mut text, "mounts", &before.mounts, &self.mounts);
        list(&mut text, "cgroups", &before.cgroups, &self.cgroups);
        list(&mut text, "namespaces", &before.namespaces, &self.namespaces);
        list(&mut text, "files", &before.files, &self.files);
        if before.descriptors != self.descriptors {
            text += &format!("descriptors: {} before, {} after\n", before.descriptors, self.descriptors);
        }
        text
    }
}

fn list<'a, T>(text: &mut String, what: &str, before: T, after: T)
where
    T: IntoIterator<Item = &'a String> + Copy,
{
    for line in after {
        if !before.into_iter().any(|other| other == line) {
            *text += &format!("{what}: + {line}\n");
        }
    }
    for line in before {
        if !after.into_iter().any(|other| other == line) {
            *text += &format!("{what}: - {line}\n");
        }
    }
    let (before, after) = (before.into_iter().count(), after.into_iter().count());
    if before != after {
        *text += &format!("{what}: {before} before, {after} after\n");
    }
}

/// SQLite's own; they come and go with its checkpoints.
fn is_of_database(name: &str) -> bool {
    ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end))
}

/// Make this process the parent of what its descendants leave without one, so that a snapshot finds it.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("allowed to everybody");
}

/// Every process below this one.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Some(fields) = stat(pid) else { continue };
        let Some(parent) = fields.split(' ').nth(1).and_then(|text| text.parse::<u32>().ok()) else {
            continue;
        };
        parents.push((pid, parent));
    }
    let mut family = BTreeSet::from([ancestor]);
    loop {
        let size = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == size {
            break;
        }
    }
    family.remove(&ancestor);
    family.into_iter().collect()
}

/// `/proc/PID/stat` after the name: state, parent, ….
fn stat(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

fn state_of(pid: u32) -> String {
    // Running or sleeping is chance; a zombie is a fact.
    match stat(pid).as_deref().and_then(|fields| fields.chars().next()) {
        Some('Z') => "zombie".to_owned(),
        Some(_) => String::new(),
        None => "gone".to_owned(),
    }
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn network_namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(link) = std::fs::read_link(entry.path().join("ns/net")) {
            found.insert(link.display().to_string());
        }
    }
    found
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path, bool)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        visit(&entry.path(), is_dir);
        if is_dir {
            walk(&entry.path(), visit);
        }
    }
}
