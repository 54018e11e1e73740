//! Kills for lack of memory: how many there were, and a descriptor that tells of the next.

use super::{CgroupMode, Directory, children, gone, text, value};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many processes of `cgroup` and below the kernel has killed for lack of memory. `None` if it does not say;
/// `NotFound` if the cgroup has gone.
///
/// On v1 each cgroup counts for itself, so the kills in a sub-cgroup are forgotten with it.
pub fn oom_kills(cgroup: &str) -> io::Result<Option<u64>> {
    oom_kills_in(CgroupMode::current(), cgroup)
}

fn oom_kills_in(mode: &CgroupMode, cgroup: &str) -> io::Result<Option<u64>> {
    Counter::open(mode, cgroup)?.read()
}

/// Tells when the kernel kills in a cgroup for lack of memory.
///
/// Wait for [`OomWatch::is_priority`]: a priority event (POLLPRI) on v2, readability on v1; then ask
/// [`OomWatch::check`]. On v1 the event comes just before the kill, and also when the cgroup is removed: if the number
/// has not grown, ask again a moment later, and once more when the container has ended.
#[derive(Debug)]
pub struct OomWatch {
    counter: Counter,
    /// On v1, what the kernel writes to.
    event: Option<OwnedFd>,
}

impl OomWatch {
    /// Watch `cgroup`. `NotFound` if it has gone, `Unsupported` if no memory controller watches it.
    pub fn open(cgroup: &str) -> io::Result<Self> {
        Self::open_in(CgroupMode::current(), cgroup)
    }

    /// Likewise with hierarchies mounted as `mode` says.
    pub fn open_in(mode: &CgroupMode, cgroup: &str) -> io::Result<Self> {
        let counter = Counter::open(mode, cgroup)?;
        let event = match &counter {
            Counter::V1(v1) => Some(v1.event()?),
            Counter::V2(_) => None,
            Counter::None => {
                let message = format!("no memory controller watches the cgroup {cgroup}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
        };
        let watch = Self { counter, event };
        // v2 announces changes since the last read.
        watch.check()?;
        Ok(watch)
    }

    /// Is the event of [`AsFd::as_fd`] a priority event (v2), not readability (v1)?
    pub fn is_priority(&self) -> bool {
        self.event.is_none()
    }

    /// Acknowledge the event; how many were killed since the cgroup was made.
    pub fn check(&self) -> io::Result<u64> {
        if let Some(event) = &self.event {
            match rustix::io::read(event, &mut [0; 8]) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.counter.read()?.unwrap_or(0))
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match (&self.event, &self.counter) {
            (Some(event), _) => event.as_fd(),
            (None, Counter::V2(events)) => events.as_fd(),
            (None, Counter::V1(v1)) => v1.file.as_fd(),
            (None, Counter::None) => unreachable!("a watch has a counter"),
        }
    }
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

#[derive(Debug)]
enum Counter {
    V1(V1Counter),
    /// memory.events, which counts for all below.
    V2(OwnedFd),
    None,
}

impl Counter {
    fn open(mode: &CgroupMode, cgroup: &str) -> io::Result<Self> {
        if let Some(directory) = Directory::open(mode.directory("memory", cgroup)?)? {
            return Ok(V1Counter::open(&directory)?.map_or(Self::None, Self::V1));
        }
        match Directory::open(mode.unified_directory(cgroup)?)? {
            Some(directory) => Ok(directory.file("memory.events")?.map_or(Self::None, Self::V2)),
            None => Err(gone(cgroup)),
        }
    }

    fn read(&self) -> io::Result<Option<u64>> {
        let mut buffer = Vec::with_capacity(256);
        match self {
            Self::V1(v1) => v1.read(&mut buffer),
            Self::V2(events) => {
                Ok(text(&mut buffer, Some(events.as_fd()))?.and_then(|text| value(text, "oom_kill")))
            }
            Self::None => Ok(None),
        }
    }
}

/// v1's memory.oom_control, and those of the cgroups below.
#[derive(Debug)]
pub(super) struct V1Counter {
    file: OwnedFd,
    directory: OwnedFd,
    path: PathBuf,
}

impl V1Counter {
    pub fn open(directory: &Directory) -> io::Result<Option<Self>> {
        let Some(file) = directory.file("memory.oom_control")? else { return Ok(None) };
        Ok(Some(Self { file, directory: directory.fd.try_clone()?, path: directory.path.clone() }))
    }

    pub fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
        let own = text(buffer, Some(self.file.as_fd()))?.and_then(|text| value(text, "oom_kill"));
        let Some(own) = own else { return Ok(None) };
        // Two links without sub-cgroups, which is nearly always.
        let below = match rustix::fs::fstat(&self.directory)?.st_nlink {
            0..=2 => 0,
            _ => kills_below(&self.path)?,
        };
        Ok(Some(own + below))
    }

    /// An eventfd that becomes readable when the cgroup runs out of memory.
    fn event(&self) -> io::Result<OwnedFd> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let line = format!("{} {}", event.as_raw_fd(), self.file.as_raw_fd());
        let path = self.path.join("cgroup.event_control");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut control| io::Write::write_all(&mut control, line.as_bytes()))
            .map_err(|error| io::Error::new(error.kind(), format!("writing {}: {error}", path.display())))?;
        Ok(event)
    }
}

fn kills_below(path: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for child in children(path)? {
        let text = match std::fs::read_to_string(child.join("memory.oom_control")) {
            Ok(text) => text,
            // It has just gone.
            Err(_) => continue,
        };
        sum += value(&text, "oom_kill").unwrap_or(0) + kills_below(&child)?;
    }
    Ok(sum)
}
