//! `wharf.toml`: read once at the start; a bad file stops the start with its place and the fix.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::Path;

/// Where the file is looked for when none is named; it need not exist then.
pub const DEFAULT_PATH: &str = "/etc/wharf/wharf.toml";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The cgroup below which every container has its own, in each hierarchy; absolute.
    pub cgroup_root: String,
    /// The system bus.
    pub bus: Bus,
    /// The ids that are given to containers.
    pub ids: Ids,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Bounds against a flood.
    pub limits: Limits,
}

/// The system bus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// Serve `org.wharf1` there, if there is one. The private socket is always served.
    pub system: bool,
}

/// The ids that are given to containers, 65,536 to each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ids {
    /// The first id of the first range.
    pub start: u32,
    /// How many ranges there are: the most containers that can exist with ids of their own.
    pub ranges: u32,
}

/// Prometheus metrics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Serve `/metrics` over HTTP on the socket `metrics` in the runtime directory.
    pub socket: bool,
}

/// Bounds against a flood.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections to the private socket at a time.
    pub connections: usize,
    /// Containers, whatever their state.
    pub containers: usize,
    /// Starts under way at a time.
    pub starts: usize,
    /// Restarts by policy that may happen at once, on the whole host.
    pub restart_burst: u32,
    /// Beyond that, restarts per second.
    pub restarts_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cgroup_root: "/wharf".to_owned(),
            bus: Bus::default(),
            ids: Ids::default(),
            metrics: Metrics::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self { system: true }
    }
}

impl Default for Ids {
    /// From 1,879,048,192 (0x70000000) on, half a billion ids: above what shadow (useradd's subordinate ids from 100,000), systemd-nspawn
    /// (up to 0x6FFFFFFF) and dynamic users hand out.
    fn default() -> Self {
        Self { start: 0x7000_0000, ranges: 4096 }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { socket: true }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let core = wharf_supervisor::Limits::default();
        Self {
            connections: 64,
            containers: 4096,
            starts: core.starts,
            restart_burst: core.restart_burst,
            restarts_per_second: 20,
        }
    }
}

impl Config {
    /// Read the file at `path`; without a path the default one, if it exists.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let (path, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("in {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        let root = &config.cgroup_root;
        if !root.starts_with('/')
            || root.len() < 2
            || root.ends_with('/')
            || root.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..")
        {
            bail!("cgroup_root: {root:?} is not the path of a cgroup of its own, such as \"/wharf\"");
        }
        let Ids { start, ranges } = config.ids;
        let end = u64::from(start) + u64::from(ranges) * u64::from(crate::ids::RANGE_SIZE);
        if start < 65_536 || ranges == 0 || end > u64::from(u32::MAX) {
            bail!(
                "ids: start must be at least 65536, ranges at least 1, and start + ranges * 65536 below 2^32"
            );
        }
        if config.limits.connections == 0 || config.limits.containers == 0 {
            bail!("limits: connections and containers must be at least 1");
        }
        let Limits { starts, restart_burst, restarts_per_second, .. } = config.limits;
        if starts == 0 || restart_burst == 0 || !(1..=1000).contains(&restarts_per_second) {
            bail!("limits: starts and restart_burst must be at least 1, restarts_per_second from 1 to 1000");
        }
        Ok(config)
    }
}

impl Limits {
    /// Those that the supervisor sees to.
    pub fn core(&self) -> wharf_supervisor::Limits {
        wharf_supervisor::Limits {
            starts: self.starts,
            restart_burst: self.restart_burst,
            restart_every: std::time::Duration::from_secs(1) / self.restarts_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_file_is_the_default() {
        assert_eq!(Config::parse("").expect("an empty file"), Config::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("cgrop_root = '/x'", "cgrop_root"),
            ("cgroup_root = 'wharf'", "cgroup_root"),
            ("cgroup_root = '/a/../b'", "cgroup_root"),
            ("[ids]\nstart = 0", "ids"),
            ("[ids]\nstart = 4294901760\nranges = 2", "ids"),
            ("[bus]\nsystem = 'yes'", "system"),
            ("[limits]\nstarts = 0", "starts"),
            ("[limits]\nrestarts_per_second = 0", "restarts_per_second"),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
