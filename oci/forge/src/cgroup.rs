//! The cgroup of a container: made, limited, frozen, killed and removed, in every hierarchy of the host.
//!
//! | host | limits | `cgroup.kill`, freezing, PSI |
//! |---|---|---|
//! | cgroup v2 | the one hierarchy, controllers enabled from its root down | the same |
//! | hybrid | one v1 hierarchy per controller | a cgroup of the same path in `unified`, without controllers |
//!
//! cgroups-rs makes the cgroups, sets limits and freezes; where its order of writes or its units are not docker's
//! the files are written here. A cgroup is named by its absolute path, the same in every hierarchy.

use crate::devices;
use anyhow::{Context, Result, bail};
use cgroups_rs::blkio::BlkIoController;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::freezer::FreezerController;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::{Controller, Controllers, MaxValue};
use libcontainer::oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wharf_protocol::{Failure, FailureKind, Limits};

/// Processes that the kernel has killed are gone within milliseconds, unless one sits in an uninterruptible
/// sleep; then whoever asked should hear of it.
const REMOVAL: Duration = Duration::from_secs(8);
/// Freezing waits for system calls that cannot be interrupted.
const FREEZING: Duration = Duration::from_secs(8);

/// The cgroup file systems of this host.
pub struct Hierarchies {
    /// Mount points of v1 hierarchies; empty on a pure v2 host.
    v1: Vec<PathBuf>,
    /// Mount point of the v2 hierarchy.
    unified: PathBuf,
}

impl Hierarchies {
    /// Look at the mount table.
    pub fn find() -> Result<Self> {
        let table =
            std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        let mut v1 = Vec::new();
        let mut unified = None;
        for line in table.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
            match after.split(' ').next() {
                Some("cgroup") => v1.push(mount_point),
                Some("cgroup2") if unified.is_none() => unified = Some(mount_point),
                _ => {}
            }
        }
        let Some(unified) = unified else {
            return Err(unsupported(
                "this host has no cgroup v2 hierarchy mounted, not even beside v1; mount one with \
                 `mount -t cgroup2 none /sys/fs/cgroup/unified`"
                    .into(),
            ));
        };
        Ok(Self { v1, unified })
    }

    fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        // The unified one first: with it gone or killed, nothing can be started in the others.
        std::iter::once(&self.unified).chain(&self.v1)
    }
}

/// The files that [`Cgroup::limit`] may change, of cgroup v1 and v2.
const LIMITS: [&str; 18] = [
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.shares",
    "cpu.max",
    "cpu.weight",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "pids.max",
    "blkio.bfq.weight",
    "blkio.weight",
    "io.bfq.weight",
    "io.weight",
];

/// A container's cgroup, or one below it.
pub struct Cgroup {
    hierarchies: Hierarchies,
    /// Without the leading slash, so that it can be joined.
    path: String,
}

impl Cgroup {
    /// The cgroup with this absolute path, whether it exists or not.
    pub fn at(path: &str) -> Result<Self> {
        let relative = path.strip_prefix('/').unwrap_or_default();
        let proper = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['\0', '\n']);
        if !relative.split('/').all(proper) {
            return Err(invalid(format!("cgroup {path:?} is not an absolute path below the root cgroup")));
        }
        Ok(Self { hierarchies: Hierarchies::find()?, path: relative.to_owned() })
    }

    /// The cgroup `name` below this one.
    pub fn below(&self, name: &str) -> Result<Self> {
        Self::at(&format!("/{}/{name}", self.path))
    }

    /// The absolute path, the same in every hierarchy.
    pub fn path(&self) -> String {
        format!("/{}", self.path)
    }

    /// Its directory in the v2 hierarchy.
    pub fn unified(&self) -> PathBuf {
        self.hierarchies.unified.join(&self.path)
    }

    /// Make it in every hierarchy. It must not exist: a cgroup is the identity of one container.
    pub fn make(&self) -> Result<()> {
        if let Some(found) = self.directories().find(|directory| directory.exists()) {
            bail!("cgroup {} exists already ({}); remove it first", self.path(), found.display());
        }
        for directory in self.directories() {
            // Made beforehand, since two creators may meet here and cgroups-rs takes "exists" for an error.
            if let Some(parent) = directory.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("making cgroup {}", parent.display()))?;
            }
        }
        cgroups_rs::Cgroup::new(self.hierarchy(), &self.path)
            .map_err(|error| with_cause(&error))
            .with_context(|| format!("making cgroup {}", self.path()))?;
        for directory in self.directories() {
            // The unified one on a hybrid host, and v1 hierarchies that cgroups-rs does not know.
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("making cgroup {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its directory in the v2 hierarchy, for clone(2).
    pub fn open_unified(&self) -> Result<OwnedFd> {
        let directory = self.unified();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&directory, flags, Mode::empty())
            .with_context(|| format!("opening cgroup {}", directory.display()))
    }

    /// Join the v1 hierarchies: this process, which must be single-threaded.
    pub fn join_v1(&self) -> Result<()> {
        for mut tasks in self.v1_tasks()? {
            tasks.write_all(b"0").with_context(|| format!("joining cgroup {}", self.path()))?;
        }
        Ok(())
    }

    /// In how many hierarchies it is.
    pub fn hierarchies(&self) -> usize {
        1 + self.hierarchies.v1.len()
    }

    /// Where the v2 hierarchy is mounted, for a container library that shall see no other.
    pub fn unified_mount_point(&self) -> &Path {
        &self.hierarchies.unified
    }

    /// The path without the leading slash.
    pub fn relative_path(&self) -> &str {
        &self.path
    }

    /// Limits that would hinder those who make a container; to be set when it is made.
    pub fn late(&self, limits: &Limits, rules: &[LinuxDeviceCgroup]) -> Result<Late> {
        let controller = |controller| -> Option<PathBuf> {
            let mount_point = cgroups_rs::hierarchies::V1::new().get_mount_point(controller)?;
            Some(mount_point.join(&self.path))
        };
        let open = |path: PathBuf| {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.with_context(|| format!("opening {}", path.display()))
        };
        let v2 = self.hierarchies.is_v2();
        let pids = match limits.pids_max {
            Some(max) => {
                let directory = if v2 { Some(self.unified()) } else { controller(Controllers::Pids) };
                let directory = directory.ok_or_else(|| self.no_controller("pids"))?;
                let file = open(directory.join("pids.max")).map_err(|_| self.no_controller("pids"))?;
                let max = if max < 0 { MaxValue::Max } else { MaxValue::Value(max) };
                Some((file, max.to_string()))
            }
            None => None,
        };
        let devices = match controller(Controllers::Devices).filter(|_| !v2) {
            Some(directory) => DeviceGuard::Files {
                deny: open(directory.join("devices.deny"))?,
                allow: open(directory.join("devices.allow"))?,
                rules: rules.to_vec(),
            },
            None => DeviceGuard::Program { cgroup: self.open_unified()?, rules: rules.to_vec() },
        };
        Ok(Late { pids, devices })
    }

    /// Make it in the v2 hierarchy only, without controllers: a handle to kill what one exec started.
    pub fn make_unified(&self) -> Result<OwnedFd> {
        let directory = self.unified();
        std::fs::create_dir(&directory).with_context(|| format!("making cgroup {}", directory.display()))?;
        self.open_unified()
    }

    /// The `tasks` files through which a single-threaded process joins the v1 hierarchies: writing 0 there takes no
    /// global lock, unlike `cgroup.procs`.
    pub fn v1_tasks(&self) -> Result<Vec<std::fs::File>> {
        let open = |mount_point: &PathBuf| {
            let file = mount_point.join(&self.path).join("tasks");
            std::fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .with_context(|| format!("opening {}", file.display()))
        };
        self.hierarchies.v1.iter().map(open).collect()
    }

    /// Set what is set in `limits`; warnings for the user about what this host cannot do.
    pub fn limit(&self, limits: &Limits) -> Result<Vec<String>> {
        let cgroup = cgroups_rs::Cgroup::load(self.hierarchy(), &self.path);
        let v2 = self.hierarchies.is_v2();
        let mut warnings = Vec::new();

        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() || limits.cpu_shares.is_some() {
            let cpu: &CpuController = cgroup.controller_of().ok_or_else(|| self.no_controller("cpu"))?;
            self.limit_cpu(cpu, limits)?;
        }
        if limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some() {
            let cpuset: &CpuSetController =
                cgroup.controller_of().ok_or_else(|| self.no_controller("cpuset"))?;
            self.check(cpuset, "cpuset")?;
            if let Some(cpus) = &limits.cpuset_cpus {
                cpuset.set_cpus(cpus).map_err(|error| refused(&error, format!("cpus {cpus:?}")))?;
            }
            if let Some(mems) = &limits.cpuset_mems {
                cpuset.set_mems(mems).map_err(|error| refused(&error, format!("memory nodes {mems:?}")))?;
            }
        }
        if limits.memory_max.is_some()
            || limits.memory_swap_max.is_some()
            || limits.memory_reservation.is_some()
        {
            let memory: &MemController =
                cgroup.controller_of().ok_or_else(|| self.no_controller("memory"))?;
            self.check(memory, "memory")?;
            if v2 {
                limit_memory_v2(memory, limits, &mut warnings)?;
            } else {
                limit_memory_v1(memory, limits, &mut warnings)?;
            }
        }
        if let Some(max) = limits.pids_max {
            let pids: &PidController = cgroup.controller_of().ok_or_else(|| self.no_controller("pids"))?;
            self.check(pids, "pids")?;
            let value = if max < 0 { MaxValue::Max } else { MaxValue::Value(max) };
            pids.set_pid_max(value).map_err(|error| refused(&error, format!("pids limit {max}")))?;
        }
        if let Some(weight) = limits.blkio_weight {
            let controller: Option<&BlkIoController> = cgroup.controller_of();
            match controller {
                Some(blkio) => limit_blkio(blkio.path(), v2, weight, &mut warnings)?,
                None => warnings.push("this host has no io controller; the blkio weight is ignored".into()),
            }
        }
        Ok(warnings)
    }

    /// The same while it runs: all of them, or none. What was changed before a refusal is set back.
    pub fn relimit(&self, limits: &Limits) -> Result<()> {
        let before: Vec<(PathBuf, String)> = self
            .directories()
            .flat_map(|directory| LIMITS.map(|name| directory.join(name)))
            .filter_map(|file| std::fs::read_to_string(&file).ok().map(|value| (file, value)))
            .collect();
        self.limit(limits).map(drop).inspect_err(|_| {
            // Some are refused before another one is as it was.
            for _ in 0..2 {
                for (file, value) in &before {
                    if std::fs::read_to_string(file).is_ok_and(|now| now != *value) {
                        let _ = std::fs::write(file, value);
                    }
                }
            }
        })
    }

    fn limit_cpu(&self, cpu: &CpuController, limits: &Limits) -> Result<()> {
        self.check(cpu, "cpu")?;
        let (quota, period) = (limits.cpu_quota_us, limits.cpu_period_us);
        let bad = |error: &cgroups_rs::error::Error| {
            refused(error, format!("cpu quota {quota:?} µs in a period of {period:?} µs"))
        };
        if self.hierarchies.is_v2() {
            if quota.is_some() || period.is_some() {
                cpu.set_cfs_quota_and_period(quota, period).map_err(|error| bad(&error))?;
            }
        } else {
            // Each file is checked against the other's present value: what is refused before may do after.
            let period_first = period.map_or(Ok(()), |period| cpu.set_cfs_period(period));
            if let Some(quota) = quota {
                cpu.set_cfs_quota(quota).map_err(|error| bad(&error))?;
            }
            if let (Err(_), Some(period)) = (period_first, period) {
                cpu.set_cfs_period(period).map_err(|error| bad(&error))?;
            }
        }
        if let Some(shares) = limits.cpu_shares {
            let value = if self.hierarchies.is_v2() { weight_of_shares(shares) } else { shares };
            cpu.set_shares(value).map_err(|error| refused(&error, format!("cpu shares {shares}")))?;
        }
        Ok(())
    }

    /// Freeze or thaw, and wait until the kernel says so. The v2 freezer, since what it froze can still be killed.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let directory = self.unified();
        let freezer = FreezerController::new(directory.clone(), true);
        let order = if frozen { freezer.freeze() } else { freezer.thaw() };
        order.map_err(|error| gone_or(error, self))?;
        let deadline = Instant::now() + FREEZING;
        while self.event("frozen")? != frozen {
            if Instant::now() >= deadline {
                // Half frozen is the worst of both.
                let _ = freezer.thaw();
                bail!("the processes of {} did not freeze within {} s", self.path(), FREEZING.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Is it frozen, or about to be?
    pub fn is_frozen(&self) -> Result<bool> {
        let text =
            std::fs::read_to_string(self.unified().join("cgroup.freeze")).map_err(|_| not_running(self))?;
        Ok(text.trim() == "1")
    }

    /// Kill everything in it and below, at once.
    pub fn kill(&self) -> Result<()> {
        match std::fs::write(self.unified().join("cgroup.kill"), "1") {
            Ok(()) => {}
            // Before Linux 5.14 there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                kill_listed(&self.unified())?;
            }
            Err(error) => return Err(error).with_context(|| format!("killing cgroup {}", self.path())),
        }
        // A creator that died early may have left a process that had joined v1 only.
        for mount_point in &self.hierarchies.v1 {
            kill_listed(&mount_point.join(&self.path))?;
        }
        Ok(())
    }

    /// Kill what is left and remove it in every hierarchy, with everything that the container made below it.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVAL;
        let mut pause = Duration::from_micros(500);
        loop {
            let mut left = None;
            for directory in self.directories() {
                match remove_tree(&directory) {
                    Ok(()) => {}
                    Err(error) => left = Some((directory, error)),
                }
            }
            let Some((directory, error)) = left else { return Ok(()) };
            if error != Errno::BUSY || Instant::now() >= deadline {
                return Err(error).with_context(|| format!("removing cgroup {}", directory.display()));
            }
            self.kill()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn event(&self, name: &str) -> Result<bool> {
        let file = self.unified().join("cgroup.events");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running(self)),
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        Ok(text.lines().any(|line| line.split_once(' ') == Some((name, "1"))))
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.all().map(|mount_point| mount_point.join(&self.path))
    }

    fn hierarchy(&self) -> Box<dyn cgroups_rs::Hierarchy> {
        if self.hierarchies.is_v2() {
            Box::new(cgroups_rs::hierarchies::V2::new())
        } else {
            Box::new(cgroups_rs::hierarchies::V1::new())
        }
    }

    /// Is the controller enabled for this cgroup? On v2 its parents decide, and one that has processes of its own
    /// cannot hand controllers down.
    fn check(&self, controller: &impl Controller, name: &str) -> Result<()> {
        if !controller.path().exists() {
            return Err(not_running(self));
        }
        if self.hierarchies.is_v2() {
            let file = self.unified().join("cgroup.controllers");
            let enabled =
                std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            if !enabled.split_whitespace().any(|enabled| enabled == name) {
                return Err(self.no_controller(name));
            }
        }
        Ok(())
    }

    fn no_controller(&self, name: &str) -> anyhow::Error {
        unsupported(format!(
            "the cgroup controller {name:?} is not available for {}; enable it in the cgroups above (with systemd: \
             Delegate=yes for the forge's unit)",
            self.path()
        ))
    }
}

/// See [`Cgroup::late`]. Open files, since it is set where the v1 hierarchies are out of sight.
pub struct Late {
    pids: Option<(std::fs::File, String)>,
    devices: DeviceGuard,
}

/// What enforces the rules about devices: the v1 controller, or a program in the v2 hierarchy.
enum DeviceGuard {
    Files { deny: std::fs::File, allow: std::fs::File, rules: Vec<LinuxDeviceCgroup> },
    Program { cgroup: OwnedFd, rules: Vec<LinuxDeviceCgroup> },
}

impl Late {
    /// Set them.
    pub fn set(&mut self) -> Result<()> {
        if let Some((file, max)) = &mut self.pids {
            file.write_all(max.as_bytes()).with_context(|| format!("setting the pids limit to {max}"))?;
        }
        Ok(())
    }

    /// Let it reach the devices that its rules name, and no others.
    pub fn guard_devices(&mut self) -> Result<()> {
        match &mut self.devices {
            DeviceGuard::Files { deny, allow, rules } => {
                for rule in rules {
                    let file = if rule.allow() { &mut *allow } else { &mut *deny };
                    file.write_all(rule.to_string().as_bytes())
                        .with_context(|| format!("setting the device rule \"{rule}\""))?;
                }
                Ok(())
            }
            DeviceGuard::Program { cgroup, rules } => devices::restrict(cgroup.as_fd(), rules),
        }
    }
}

/// The v1 order: memory+swap is never below memory, so the one that grows goes first.
fn limit_memory_v1(memory: &MemController, limits: &Limits, warnings: &mut Vec<String>) -> Result<()> {
    let path = memory.path().to_owned();
    let set_max = || match limits.memory_max {
        Some(max) => memory.set_limit(max).map_err(|error| refused(&error, format!("memory limit {max}"))),
        None => Ok(()),
    };
    match limits.memory_swap_max {
        Some(_) if !path.join("memory.memsw.limit_in_bytes").exists() => {
            warnings.push("this kernel does not account swap; the swap limit is ignored".into());
            set_max()?;
        }
        Some(swap) => {
            let set_swap = || {
                memory
                    .set_memswap_limit(swap)
                    .map_err(|error| refused(&error, format!("memory and swap limit {swap}")))
            };
            let current = number(&path.join("memory.memsw.limit_in_bytes"))?;
            if swap < 0 || swap as u64 > current {
                set_swap()?;
                set_max()?;
            } else {
                set_max()?;
                set_swap()?;
            }
        }
        None => set_max()?,
    }
    if let Some(reservation) = limits.memory_reservation {
        memory
            .set_soft_limit(reservation)
            .map_err(|error| refused(&error, format!("memory reservation {reservation}")))?;
    }
    Ok(())
}

/// On v2 swap has a limit of its own: docker's sum less the memory.
fn limit_memory_v2(memory: &MemController, limits: &Limits, warnings: &mut Vec<String>) -> Result<()> {
    let path = memory.path().to_owned();
    if let Some(max) = limits.memory_max {
        memory.set_limit(max).map_err(|error| refused(&error, format!("memory limit {max}")))?;
    }
    if let Some(sum) = limits.memory_swap_max {
        let max = match limits.memory_max {
            Some(max) => max,
            None => std::fs::read_to_string(path.join("memory.max"))?.trim().parse().unwrap_or(-1),
        };
        let swap = match (sum, max) {
            (-1, _) | (_, -1) => -1,
            (sum, max) if sum < max => {
                return Err(invalid(format!(
                    "the memory and swap limit {sum} is below the memory limit {max}; it is the sum of both"
                )));
            }
            (sum, max) => sum - max,
        };
        if path.join("memory.swap.max").exists() {
            memory.set_memswap_limit(swap).map_err(|error| refused(&error, format!("swap limit {swap}")))?;
        } else {
            warnings.push("this kernel does not account swap; the swap limit is ignored".into());
        }
    }
    if let Some(reservation) = limits.memory_reservation {
        memory
            .set_soft_limit(reservation.max(0))
            .map_err(|error| refused(&error, format!("memory reservation {reservation}")))?;
    }
    Ok(())
}

/// Block I/O weights exist only with the schedulers that honour them, under several names.
fn limit_blkio(path: &Path, v2: bool, weight: u16, warnings: &mut Vec<String>) -> Result<()> {
    let weight = u64::from(weight);
    let io_weight = 1 + (weight.saturating_sub(10)) * 9999 / 990;
    let candidates: &[(&str, u64)] = if v2 {
        &[("io.bfq.weight", weight), ("io.weight", io_weight)]
    } else {
        &[("blkio.weight", weight), ("blkio.bfq.weight", weight)]
    };
    for (name, value) in candidates {
        let file = path.join(name);
        if file.exists() {
            return std::fs::write(&file, value.to_string())
                .with_context(|| format!("setting {} to {value}", file.display()));
        }
    }
    warnings.push("no I/O scheduler of this host honours weights; the blkio weight is ignored".into());
    Ok(())
}

/// cpu.weight of docker's cpu shares: 2 → 1, 1024 → 100, 262144 → 10000, as runc and crun do since 2025; the
/// older straight line made the default of 1024 a weight of 39.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let log = (shares as f64).log2();
    let exponent = log * (log + 125.0) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn number(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    text.trim().parse().with_context(|| format!("reading {}", file.display()))
}

/// Kill the processes listed in a cgroup directory and below, by pidfd and only while they are still in it.
fn kill_listed(directory: &Path) -> Result<()> {
    let text = match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        Err(_) => return Ok(()),
    };
    for pid in
        text.lines().filter_map(|line| line.parse::<i32>().ok()).filter_map(rustix::process::Pid::from_raw)
    {
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        // The pid may have been reused before we had the pidfd, not after.
        let listed = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        if listed.lines().any(|line| line == pid.as_raw_nonzero().to_string()) {
            let _ = crate::sys::signal(&pidfd, libc::SIGKILL);
        }
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        kill_listed(&entry.path())?;
    }
    Ok(())
}

/// Remove a cgroup directory bottom-up, by descriptors: the container may have nested deeper than a path can say.
fn remove_tree(directory: &Path) -> Result<(), Errno> {
    match rustix::fs::unlinkat(rustix::fs::CWD, directory, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(open) => remove_below(&open)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(rustix::fs::CWD, directory, AtFlags::REMOVEDIR) {
        Err(error) if error != Errno::NOENT => Err(error),
        _ => Ok(()),
    }
}

fn remove_below(directory: &OwnedFd) -> Result<(), Errno> {
    let mut result = Ok(());
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_type() != rustix::fs::FileType::Directory
            || matches!(entry.file_name().to_bytes(), b"." | b"..")
        {
            continue;
        }
        let name = entry.file_name();
        if let Err(Errno::BUSY | Errno::NOTEMPTY) = rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            if let Err(error) = remove_below(&below) {
                result = Err(error);
            }
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => result = Err(error),
            }
        }
    }
    result
}

/// cgroups-rs says what it was doing, and in its cause what the kernel said.
fn with_cause(error: &cgroups_rs::error::Error) -> anyhow::Error {
    match std::error::Error::source(error) {
        Some(cause) => anyhow::anyhow!("{error}: {cause}"),
        None => anyhow::anyhow!("{error}"),
    }
}

fn errno_of(error: &cgroups_rs::error::Error) -> Option<i32> {
    std::error::Error::source(error)?.downcast_ref::<io::Error>()?.raw_os_error()
}

/// The kernel did not take a limit: in most cases because of its value.
fn refused(error: &cgroups_rs::error::Error, what: String) -> anyhow::Error {
    match errno_of(error) {
        Some(libc::EINVAL | libc::ERANGE | libc::EACCES | libc::ENOSPC) => {
            invalid(format!("{what} is not possible on this host: {}", with_cause(error)))
        }
        Some(libc::EBUSY) => invalid(format!("{what} is below what is in use now: {}", with_cause(error))),
        _ => with_cause(error).context(format!("setting {what}")),
    }
}

fn gone_or(error: cgroups_rs::error::Error, cgroup: &Cgroup) -> anyhow::Error {
    match errno_of(&error) {
        Some(libc::ENOENT | libc::ENODEV) => not_running(cgroup),
        _ => with_cause(&error),
    }
}

fn not_running(cgroup: &Cgroup) -> anyhow::Error {
    let message = format!("the container is not running: it has no cgroup {}", cgroup.path());
    Failure { kind: FailureKind::NotRunning, message, detail: Vec::new() }.into()
}

fn invalid(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into()
}

fn unsupported(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::Unsupported, message, detail: Vec::new() }.into()
}

/// Move ourselves out of a cgroup that systemd delegated to us, into a leaf of its own: on v2 a cgroup with
/// processes cannot hand controllers down to the containers' cgroups beside us.
pub fn make_room() -> Result<()> {
    let hierarchies = match Hierarchies::find() {
        Ok(hierarchies) if hierarchies.is_v2() => hierarchies,
        _ => return Ok(()),
    };
    let own = std::fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())
    else {
        return Ok(());
    };
    let directory = hierarchies.unified.join(path);
    let mut value = [0; 8];
    let delegated = ["trusted.delegate", "user.delegate"].iter().any(|name| {
        rustix::fs::getxattr(&directory, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    });
    if delegated {
        let leaf = directory.join("forge");
        std::fs::create_dir_all(&leaf).with_context(|| format!("making cgroup {}", leaf.display()))?;
        std::fs::write(leaf.join("cgroup.procs"), "0")
            .with_context(|| format!("moving to {}", leaf.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn normal_shares_are_the_normal_weight() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 100);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(weight_of_shares(0), 1);
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }

    #[test]
    fn cgroups_outside_or_above_are_refused() {
        for path in ["", "/", "wharf/x", "/wharf/../x", "/wharf//x", "/wharf/", "/wharf/./x", "/a\nb"] {
            assert!(Cgroup::at(path).is_err(), "{path:?}");
        }
    }
}
