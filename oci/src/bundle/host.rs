//! What a bundle must know about the host: how many CPUs, which memory nodes, what its kernel has.

use crate::stats::CgroupMode;
use std::fs;
use std::path::Path;

/// Facts about the host, gathered once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// CPUs that are online.
    pub cpus: CpuList,
    /// Memory nodes that are online.
    pub memory_nodes: CpuList,
    /// The highest capability that the kernel knows.
    pub last_capability: u32,
    /// How cgroups are mounted.
    pub cgroups: CgroupMode,
    /// The most open files that a process can have here without a right to more.
    pub open_files: u64,
    /// Paths with a number per CPU that are to be hidden.
    pub thermal_throttle: Vec<String>,
}

impl Host {
    /// Look at the machine that we run on. What cannot be read gets the value that allows least: one CPU.
    pub fn detect() -> Self {
        let list = |path: &str| {
            fs::read_to_string(path)
                .ok()
                .and_then(|text| CpuList::parse(text.trim()))
                .unwrap_or_else(|| CpuList(vec![(0, 0)]))
        };
        Self {
            cpus: list("/sys/devices/system/cpu/online"),
            memory_nodes: list("/sys/devices/system/node/online"),
            last_capability: fs::read_to_string("/proc/sys/kernel/cap_last_cap")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(40),
            cgroups: CgroupMode::detect(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .unwrap_or(u64::MAX),
            thermal_throttle: thermal_throttle(Path::new("/sys/devices/system/cpu")),
        }
    }

    /// A host with two CPUs, for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            cpus: CpuList(vec![(0, 1)]),
            memory_nodes: CpuList(vec![(0, 0)]),
            last_capability: 40,
            cgroups: CgroupMode::Unified { root: "/sys/fs/cgroup".into() },
            open_files: 1 << 20,
            thermal_throttle: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        }
    }
}

/// Timings of a CPU's temperature tell what other containers do (moby GHSA-6fw5-f8r9-fgfm).
fn thermal_throttle(cpus: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cpus) else { return Vec::new() };
    let mut found: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            let path = entry.path().join("thermal_throttle");
            path.is_dir().then(|| (number, path.display().to_string()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// A list such as `0-2,7`: ranges, both ends included, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<(u32, u32)>);

impl CpuList {
    /// `None` if it is no such list, or empty.
    pub fn parse(text: &str) -> Option<Self> {
        // More than any kernel has (CONFIG_NR_CPUS is at most 8192); keeps a range from being a bomb.
        const MOST: u32 = 1 << 16;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u32>().ok().filter(|number| *number < MOST),
            false => None,
        };
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return None;
            }
            ranges.push((first, last));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(previous) if first <= previous.1 + 1 => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Some(Self(merged))
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Is every one of `other` in this list?
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|range| self.0.iter().any(|own| own.0 <= range.0 && range.1 <= own.1))
    }
}

impl std::fmt::Display for CpuList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, shown, count) in
            [("0", "0", 1), ("0-3", "0-3", 4), ("7,0-2", "0-2,7", 4), ("0,1,2", "0-2", 3)]
        {
            let list = CpuList::parse(text).unwrap();
            assert_eq!((list.to_string().as_str(), list.count()), (shown, count));
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", ",", "a", "1-", "-1", "2-1", "0,,1", "+1", " 1", "0-99999999", "4294967296", "1-2-3"]
        {
            assert_eq!(CpuList::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn containment_is_by_member() {
        let host = CpuList::parse("0-3,8").unwrap();
        assert!(host.contains(&CpuList::parse("1,3,8").unwrap()));
        assert!(!host.contains(&CpuList::parse("3-4").unwrap()));
    }

    #[test]
    fn this_machine_has_cpus() {
        let host = Host::detect();
        assert!(host.cpus.count() >= 1 && host.last_capability >= 37);
    }
}
