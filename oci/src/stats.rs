//! What a container uses: a reader of its cgroup files, on cgroup v1, hybrid and v2 hosts alike.
//!
//! ```text
//! CgroupMode: where hierarchies are mounted     (mode)
//! Reader:     kept descriptors ─► Stats         (here)
//! OomWatch, oom_kills: kills for lack of memory (oom)
//! processes: who is in it                       (here)
//! ```
//!
//! Files are opened once and read with pread(2), some twenty microseconds for all of them together. Every number is
//! optional, since kernels and hierarchies differ; a cgroup that has gone is an error, never zeros, which
//! would look like a counter that was reset. Nothing here changes a cgroup.

mod mode;
mod oom;

pub use mode::{CgroupMode, Hierarchy};
pub use oom::{OomWatch, oom_kills};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a cgroup and all below it use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Time on CPUs.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub io: Io,
    /// How long it waited for lack of something; `None` where the kernel keeps no account (PSI).
    pub pressure: Pressures,
}

/// Time on CPUs; all counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Nanoseconds in all.
    pub usage_ns: Option<u64>,
    /// Nanoseconds outside the kernel.
    pub user_ns: Option<u64>,
    /// Nanoseconds in the kernel.
    pub system_ns: Option<u64>,
    /// Periods of the quota that have passed.
    pub periods: Option<u64>,
    /// Periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Nanoseconds that threads were held back.
    pub throttled_ns: Option<u64>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged, page cache included.
    pub usage: Option<u64>,
    /// The hard limit; `None` if there is none.
    pub limit: Option<u64>,
    /// Usage without page cache that could go at once: what Kubernetes compares with the limit.
    pub working_set: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// Page cache.
    pub cache: Option<u64>,
    /// Swap in use.
    pub swap: Option<u64>,
    /// The highest usage so far.
    pub peak: Option<u64>,
    /// How often the limit was hit; a counter.
    pub limit_hits: Option<u64>,
    /// Processes killed for lack of memory; a counter.
    pub oom_kills: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pids {
    /// Now.
    pub current: Option<u64>,
    /// At most; `None` if there is no limit.
    pub limit: Option<u64>,
}

/// Block devices, all together; all counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub read_operations: Option<u64>,
    /// Write operations.
    pub write_operations: Option<u64>,
}

/// Pressure stall information.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pressures {
    /// Waiting for a CPU.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for block devices.
    pub io: Option<Pressure>,
}

/// Waiting for one kind of thing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All tasks waited at once.
    pub full: Stall,
}

/// Shares of time, in percent, and the time itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Over the last 10 seconds.
    pub avg10: f64,
    /// Over the last minute.
    pub avg60: f64,
    /// Over the last five minutes.
    pub avg300: f64,
    /// Microseconds in all; a counter.
    pub total_us: u64,
}

/// Reads one cgroup again and again.
#[derive(Debug)]
pub struct Reader {
    cpu: CpuFiles,
    memory: MemoryFiles,
    pids: [Option<OwnedFd>; 2],
    io: IoFiles,
    pressure: [Option<OwnedFd>; 3],
    buffer: Vec<u8>,
}

/// v2's cpu.stat has everything but, on hybrid hosts, the quota.
#[derive(Debug)]
struct CpuFiles {
    v1_usage: Option<OwnedFd>,
    v1_user: Option<OwnedFd>,
    v1_system: Option<OwnedFd>,
    v1_stat: Option<OwnedFd>,
    v2_stat: Option<OwnedFd>,
}

#[derive(Debug)]
enum MemoryFiles {
    V1 {
        usage: Option<OwnedFd>,
        limit: Option<OwnedFd>,
        stat: Option<OwnedFd>,
        peak: Option<OwnedFd>,
        failcnt: Option<OwnedFd>,
        oom: Option<oom::V1Counter>,
    },
    V2 {
        current: Option<OwnedFd>,
        max: Option<OwnedFd>,
        stat: Option<OwnedFd>,
        peak: Option<OwnedFd>,
        swap: Option<OwnedFd>,
        events: Option<OwnedFd>,
    },
    None,
}

#[derive(Debug)]
enum IoFiles {
    V1 { bytes: Option<OwnedFd>, operations: Option<OwnedFd> },
    V2 { stat: Option<OwnedFd> },
    None,
}

impl Reader {
    /// Open the files of `cgroup`, such as `/wharf/0123…`, in every hierarchy of this host. `NotFound` if it is in
    /// none.
    pub fn open(cgroup: &str) -> io::Result<Self> {
        Self::open_in(CgroupMode::current(), cgroup)
    }

    /// Likewise with hierarchies mounted as `mode` says.
    pub fn open_in(mode: &CgroupMode, cgroup: &str) -> io::Result<Self> {
        let mut found = false;
        let mut controller = |name: &str| -> io::Result<Option<Directory>> {
            let directory = Directory::open(mode.directory(name, cgroup)?)?;
            found |= directory.is_some();
            Ok(directory)
        };
        let (cpuacct, cpu) = (controller("cpuacct")?, controller("cpu")?);
        let (memory, pids, blkio) = (controller("memory")?, controller("pids")?, controller("blkio")?);
        let unified = Directory::open(mode.unified_directory(cgroup)?)?;
        if !found && unified.is_none() {
            return Err(gone(cgroup));
        }

        let open = |directory: &Option<Directory>, name: &str| match directory {
            Some(directory) => directory.file(name),
            None => Ok(None),
        };
        // On a hybrid host a controller is in one world or the other.
        let v2_only = |v1: &Option<Directory>| if v1.is_some() { &None } else { &unified };
        Ok(Self {
            cpu: CpuFiles {
                v1_usage: open(&cpuacct, "cpuacct.usage")?,
                v1_user: open(&cpuacct, "cpuacct.usage_user")?,
                v1_system: open(&cpuacct, "cpuacct.usage_sys")?,
                v1_stat: open(&cpu, "cpu.stat")?,
                v2_stat: if cpuacct.is_some() && cpu.is_some() { None } else { open(&unified, "cpu.stat")? },
            },
            memory: match (&memory, &unified) {
                (Some(v1), _) => MemoryFiles::V1 {
                    usage: v1.file("memory.usage_in_bytes")?,
                    limit: v1.file("memory.limit_in_bytes")?,
                    stat: v1.file("memory.stat")?,
                    peak: v1.file("memory.max_usage_in_bytes")?,
                    failcnt: v1.file("memory.failcnt")?,
                    oom: oom::V1Counter::open(v1)?,
                },
                (None, Some(v2)) => MemoryFiles::V2 {
                    current: v2.file("memory.current")?,
                    max: v2.file("memory.max")?,
                    stat: v2.file("memory.stat")?,
                    peak: v2.file("memory.peak")?,
                    swap: v2.file("memory.swap.current")?,
                    events: v2.file("memory.events")?,
                },
                (None, None) => MemoryFiles::None,
            },
            pids: {
                let directory = if pids.is_some() { &pids } else { &unified };
                [open(directory, "pids.current")?, open(directory, "pids.max")?]
            },
            io: match (&blkio, v2_only(&blkio)) {
                (Some(v1), _) => IoFiles::V1 {
                    bytes: match v1.file("blkio.throttle.io_service_bytes_recursive")? {
                        Some(file) => Some(file),
                        None => v1.file("blkio.throttle.io_service_bytes")?,
                    },
                    operations: match v1.file("blkio.throttle.io_serviced_recursive")? {
                        Some(file) => Some(file),
                        None => v1.file("blkio.throttle.io_serviced")?,
                    },
                },
                (None, Some(v2)) => IoFiles::V2 { stat: v2.file("io.stat")? },
                (None, None) => IoFiles::None,
            },
            pressure: [
                open(&unified, "cpu.pressure")?,
                open(&unified, "memory.pressure")?,
                open(&unified, "io.pressure")?,
            ],
            buffer: Vec::with_capacity(4096),
        })
    }

    /// What the cgroup uses now. `NotFound` if it has gone.
    pub fn read(&mut self) -> io::Result<Stats> {
        let buffer = &mut self.buffer;
        let mut cpu = Cpu {
            usage_ns: number(buffer, &self.cpu.v1_usage)?,
            user_ns: number(buffer, &self.cpu.v1_user)?,
            system_ns: number(buffer, &self.cpu.v1_system)?,
            ..Cpu::default()
        };
        if let Some(text) = text(buffer, as_fd(&self.cpu.v1_stat))? {
            cpu.periods = value(text, "nr_periods");
            cpu.throttled_periods = value(text, "nr_throttled");
            cpu.throttled_ns = value(text, "throttled_time");
        }
        if let Some(text) = text(buffer, as_fd(&self.cpu.v2_stat))? {
            let ns = |key| value(text, key).map(|us| us.saturating_mul(1000));
            cpu.usage_ns = cpu.usage_ns.or(ns("usage_usec"));
            cpu.user_ns = cpu.user_ns.or(ns("user_usec"));
            cpu.system_ns = cpu.system_ns.or(ns("system_usec"));
            cpu.periods = cpu.periods.or(value(text, "nr_periods"));
            cpu.throttled_periods = cpu.throttled_periods.or(value(text, "nr_throttled"));
            cpu.throttled_ns = cpu.throttled_ns.or(ns("throttled_usec"));
        }
        Ok(Stats {
            cpu,
            memory: self.memory.read(buffer)?,
            pids: Pids { current: number(buffer, &self.pids[0])?, limit: number(buffer, &self.pids[1])? },
            io: self.io.read(buffer)?,
            pressure: Pressures {
                cpu: pressure(buffer, &self.pressure[0])?,
                memory: pressure(buffer, &self.pressure[1])?,
                io: pressure(buffer, &self.pressure[2])?,
            },
        })
    }
}

impl MemoryFiles {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Memory> {
        /// "No limit" on v1 is the largest number of whole pages; nobody has this much.
        const UNLIMITED: u64 = 1 << 62;
        match self {
            Self::V1 { usage, limit, stat, peak, failcnt, oom } => {
                let mut memory = Memory {
                    usage: number(buffer, usage)?,
                    limit: number(buffer, limit)?.filter(|bytes| *bytes < UNLIMITED),
                    peak: number(buffer, peak)?,
                    limit_hits: number(buffer, failcnt)?,
                    oom_kills: oom.as_ref().map(|oom| oom.read(buffer)).transpose()?.flatten(),
                    ..Memory::default()
                };
                if let Some(text) = text(buffer, as_fd(stat))? {
                    memory.rss = value(text, "total_rss");
                    memory.cache = value(text, "total_cache");
                    memory.swap = value(text, "total_swap");
                    memory.set_working_set(value(text, "total_inactive_file"));
                }
                Ok(memory)
            }
            Self::V2 { current, max, stat, peak, swap, events } => {
                let mut memory = Memory {
                    usage: number(buffer, current)?,
                    limit: number(buffer, max)?,
                    peak: number(buffer, peak)?,
                    swap: number(buffer, swap)?,
                    ..Memory::default()
                };
                if let Some(text) = text(buffer, as_fd(stat))? {
                    memory.rss = value(text, "anon");
                    memory.cache = value(text, "file");
                    memory.set_working_set(value(text, "inactive_file"));
                }
                if let Some(text) = text(buffer, as_fd(events))? {
                    memory.limit_hits = value(text, "max");
                    memory.oom_kills = value(text, "oom_kill");
                }
                Ok(memory)
            }
            Self::None => Ok(Memory::default()),
        }
    }
}

impl Memory {
    fn set_working_set(&mut self, inactive_file: Option<u64>) {
        // The two were not read at the same moment, so the difference may be negative.
        self.working_set =
            self.usage.zip(inactive_file).map(|(usage, inactive)| usage.saturating_sub(inactive));
    }
}

impl IoFiles {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Io> {
        match self {
            Self::V1 { bytes, operations } => {
                let bytes = text(buffer, as_fd(bytes))?.map(v1_io).unwrap_or_default();
                let operations = text(buffer, as_fd(operations))?.map(v1_io).unwrap_or_default();
                Ok(Io {
                    read_bytes: bytes.0,
                    write_bytes: bytes.1,
                    read_operations: operations.0,
                    write_operations: operations.1,
                })
            }
            Self::V2 { stat } => Ok(text(buffer, as_fd(stat))?.map(v2_io).unwrap_or_default()),
            Self::None => Ok(Io::default()),
        }
    }
}

/// The processes in `cgroup` and below, ascending. `NotFound` if it has gone.
pub fn processes(cgroup: &str) -> io::Result<Vec<u32>> {
    processes_in(CgroupMode::current(), cgroup)
}

/// Likewise with hierarchies mounted as `mode` says.
pub fn processes_in(mode: &CgroupMode, cgroup: &str) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    let mut found = false;
    // The unified cgroup of a hybrid host may be there and empty, if only v1 cgroups were joined.
    for directory in mode.directories(cgroup)? {
        if !directory.is_dir() {
            continue;
        }
        found = true;
        collect_processes(&directory, &mut pids)?;
        if !pids.is_empty() {
            break;
        }
    }
    if !found {
        return Err(gone(cgroup));
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect_processes(directory: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    match std::fs::read_to_string(directory.join("cgroup.procs")) {
        // 0 is a process outside our pid namespace.
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0))
        }
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            // It has just gone, or is a threaded one, whose processes its parent lists.
            Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
            _ => return Err(error),
        },
    }
    for child in children(directory)? {
        collect_processes(&child, pids)?;
    }
    Ok(())
}

/// The cgroups directly below one.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let is_directory = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.flatten().filter(is_directory).map(|entry| entry.path()).collect())
}

fn gone(cgroup: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the cgroup {cgroup} does not exist (any more)"))
}

/// A cgroup in one hierarchy.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    fn open(path: Option<PathBuf>) -> io::Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A file, unless this kernel has none of the name.
    fn file(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            // PSI that is switched off says EOPNOTSUPP.
            Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The whole of a file. `None` if there is no such file, or what is in it cannot be had.
fn text<'a>(buffer: &'a mut Vec<u8>, file: Option<BorrowedFd<'_>>) -> io::Result<Option<&'a str>> {
    /// Above any cgroup file; io.stat has a line per device.
    const MOST: usize = 1 << 20;
    let Some(file) = file else { return Ok(None) };
    const STEP: usize = 4096;
    buffer.clear();
    while buffer.len() < MOST {
        let length = buffer.len();
        buffer.resize(length + STEP, 0);
        let read = rustix::io::pread(file, &mut buffer[length..], length as u64);
        buffer.truncate(length + read.unwrap_or(0));
        match read {
            // These files are written in one piece: less than what was asked for is the end.
            Ok(STEP) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(Errno::NODEV) => return Err(gone("that was opened")),
            Err(Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(std::str::from_utf8(buffer).ok())
}

fn as_fd(file: &Option<OwnedFd>) -> Option<BorrowedFd<'_>> {
    file.as_ref().map(AsFd::as_fd)
}

/// A file with one number; `max` is none.
fn number(buffer: &mut Vec<u8>, file: &Option<OwnedFd>) -> io::Result<Option<u64>> {
    Ok(text(buffer, as_fd(file))?.and_then(|text| text.trim().parse().ok()))
}

/// The number behind a key, as in `cpu.stat` and `memory.stat`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Sums of the lines `8:0 Read 4096` and `8:0 Write 0` over all devices.
fn v1_io(text: &str) -> (Option<u64>, Option<u64>) {
    let sum = |kind: &str| {
        let of_line = |line: &str| -> Option<u64> {
            let mut words = line.split_ascii_whitespace().skip(1);
            (words.next()? == kind).then(|| words.next()?.parse().ok()).flatten()
        };
        Some(text.lines().filter_map(of_line).fold(0, u64::saturating_add))
    };
    (sum("Read"), sum("Write"))
}

/// Sums of the lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0` over all devices.
fn v2_io(text: &str) -> Io {
    let sum = |key: &str| {
        let numbers = text
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, number)| (name == key).then(|| number.parse().ok()).flatten());
        Some(numbers.fold(0, u64::saturating_add))
    };
    Io {
        read_bytes: sum("rbytes"),
        write_bytes: sum("wbytes"),
        read_operations: sum("rios"),
        write_operations: sum("wios"),
    }
}

fn pressure(buffer: &mut Vec<u8>, file: &Option<OwnedFd>) -> io::Result<Option<Pressure>> {
    Ok(text(buffer, as_fd(file))?.and_then(parse_pressure))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`, which older kernels lack for CPU.
fn parse_pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| -> Option<Stall> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field = |key: &str| {
            line.split(' ')
                .find_map(|word| word.split_once('=').filter(|(name, _)| *name == key))
                .map(|(_, v)| v)
        };
        let share = |key| field(key)?.parse().ok();
        Some(Stall {
            avg10: share("avg10")?,
            avg60: share("avg60")?,
            avg300: share("avg300")?,
            total_us: field("total")?.trim().parse().ok()?,
        })
    };
    Some(Pressure { some: stall("some")?, full: stall("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests;
