//! Paths of the kernel that a container does not see, or cannot write: the union of what Docker, podman and
//! containerd hide by default.

use super::{Config, Host, Invalid, mounts};
use crate::stats::CgroupMode;

const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the host has mounted below /sys comes along when /sys is the host's own.
const MASKED_IN_HOSTS_SYS: [&str; 7] = [
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/fs/pstore",
    "/sys/kernel/config",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// What to hide and what to make read-only.
#[derive(Debug)]
pub struct Paths {
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
}

pub fn paths(config: &Config, host: &Host) -> Result<Paths, Invalid> {
    let own = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let mut masked = own(&MASKED);
    masked.extend(host.thermal_throttle.iter().cloned());
    let mut readonly = own(&READONLY);

    let unmask = &config.security.unmask;
    if unmask.iter().any(|path| path.eq_ignore_ascii_case("all")) {
        masked.clear();
        readonly.clear();
    }
    for (index, path) in unmask.iter().enumerate().filter(|(_, path)| !path.eq_ignore_ascii_case("all")) {
        let path = mounts::clean(&format!("security.unmask[{index}]"), path)?;
        let is_named = |hidden: &String| *hidden == path || hidden.starts_with(&format!("{path}/"));
        masked.retain(|hidden| !is_named(hidden));
        readonly.retain(|hidden| !is_named(hidden));
    }

    if mounts::binds_hosts_sys(config) {
        let needed = |path: &&&str| !(config.cgroup_mount && **path == "/sys/fs/cgroup");
        masked.extend(MASKED_IN_HOSTS_SYS.iter().filter(needed).map(|path| (*path).to_owned()));
    }
    if config.cgroup_mount {
        readonly.extend(cgroup_directories(&host.cgroups));
    }
    for (index, path) in config.security.mask.iter().enumerate() {
        let field = format!("security.mask[{index}]");
        let cleaned = mounts::clean(&field, path)?;
        if matches!(cleaned.as_str(), "/" | "/proc" | "/dev" | "/sys") {
            return Err(Invalid::new(field, path, "cannot be hidden as a whole", "name paths below it"));
        }
        if !masked.contains(&cleaned) {
            masked.push(cleaned);
        }
    }
    Ok(Paths { masked, readonly })
}

/// libcontainer mounts v1 hierarchies writable whatever the options say; a writable one has led to root on the
/// host (CVE-2022-0492).
fn cgroup_directories(cgroups: &CgroupMode) -> Vec<String> {
    match cgroups {
        CgroupMode::Unified { .. } => vec!["/sys/fs/cgroup".to_owned()],
        CgroupMode::Hybrid { hierarchies, .. } | CgroupMode::Legacy { hierarchies } => hierarchies
            .iter()
            .filter_map(|hierarchy| hierarchy.mount_point.file_name()?.to_str())
            .map(|name| format!("/sys/fs/cgroup/{name}"))
            .chain(["/sys/fs/cgroup".to_owned()])
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bundle::config::{Network, Security};
    use wharf_protocol::IdMap;

    fn with(security: Security) -> Result<Paths, Invalid> {
        let config =
            Config { security, ..Config::new("0".repeat(64), Some(IdMap { host: 100_000, size: 65_536 })) };
        paths(&config, &Host::example())
    }

    #[test]
    fn union_of_others_defaults_is_hidden() {
        let paths = with(Security::default()).unwrap();
        assert_eq!((paths.masked.len(), paths.readonly.len()), (15, 6));
        assert!(paths.masked.contains(&"/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()));
    }

    #[test]
    fn unmask_opens_a_path_all_below_it_or_everything() {
        let unmask = |path: &str| with(Security { unmask: vec![path.into()], ..Security::default() });
        let one = unmask("/proc/kcore/").unwrap();
        assert_eq!((one.masked.len(), one.readonly.len()), (14, 6));
        let both = unmask("/proc").unwrap();
        assert_eq!((both.masked.len(), both.readonly.len()), (5, 0));
        let all = unmask("ALL").unwrap();
        assert!(all.masked.is_empty() && all.readonly.is_empty());
        assert_eq!(unmask("proc").unwrap_err().field, "security.unmask[0]");
    }

    #[test]
    fn mask_adds_a_path() {
        let mask = |path: &str| with(Security { mask: vec![path.into()], ..Security::default() });
        assert!(mask("/proc/meminfo").unwrap().masked.contains(&"/proc/meminfo".to_owned()));
        for path in ["/", "/proc", "/proc/..", "relative", "/x\0"] {
            assert_eq!(mask(path).unwrap_err().field, "security.mask[0]", "{path}");
        }
    }

    #[test]
    fn hosts_sys_comes_without_its_mounts() {
        let id_map = Some(IdMap { host: 100_000, size: 65_536 });
        let config = Config { network: Network::Host, ..Config::new("0".repeat(64), id_map) };
        let paths = paths(&config, &Host::example()).unwrap();
        assert!(paths.masked.contains(&"/sys/fs/cgroup".to_owned()));
    }
}
