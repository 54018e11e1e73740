//! From wishes to a bundle: what the container library needs to know about one container, as an OCI runtime
//! spec and the rest of a [`Create`] request.
//!
//! ```text
//! Config (wishes) ─┐
//! image's config  ─┼─► build ─► Bundle ─► create(Placement) ─► Create + descriptors ─► forge
//! Host (facts)    ─┘   checks and decides; touches            writes /etc files
//!                      nothing but to look at volumes
//! ```
//!
//! Every default that protects the host stands here: namespaces, capabilities, hidden paths, the system call
//! filter, limits. What can only be known with the root file system mounted (users, HOME, symlinks in the
//! image) is left to the creator.

mod capabilities;
pub mod config;
mod etc;
mod hidden;
mod host;
mod invalid;
pub mod limits;
mod mounts;
mod process;
mod sysctl;

pub use config::Config;
pub use host::{CpuList, Host};
pub use invalid::Invalid;
pub(crate) use invalid::nearest;
pub use mounts::OFFER;
pub use process::Process;

use crate::seccomp::{self, Filter};
use config::{Network, Seccomp};
use oci_spec::image::Config as ImageConfig;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::{fmt, io};
use wharf_protocol::{Create, CreateFd, IdMap, Limits, Log, Rootfs, Stdin, TerminalSize};

/// Everything about a container that does not change from start to start.
#[derive(Clone)]
pub struct Bundle {
    id: String,
    /// The runtime spec without what [`Bundle::create`] fills in: cgroup and sources of /etc files.
    spec: Value,
    etc: Vec<etc::Entry>,
    idmapped_mounts: Vec<usize>,
    make_cwd: bool,
    /// What runs, and as whom; also what an exec starts from.
    pub process: Process,
    /// The container's host name.
    pub hostname: String,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
    /// Its own range of ids.
    pub id_map: Option<IdMap>,
    /// A pseudo-terminal of this size instead of pipes.
    pub terminal: Option<TerminalSize>,
    /// Its cgroup limits.
    pub limits: Limits,
    /// How readily the kernel's out-of-memory killer picks it.
    pub oom_score_adj: Option<i32>,
    /// The system call filter for it and for every exec in it.
    pub filter: Option<Filter>,
    /// What weakens its isolation and what of the image was ignored, in words for `inspect`.
    pub warnings: Vec<String>,
}

/// Where one start of a container takes place.
#[derive(Debug)]
pub struct Placement {
    /// Which start it is, counted from 1.
    pub run: u64,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// A directory of our own for this run, 0700, existing.
    pub run_dir: PathBuf,
    /// Where the exit record goes.
    pub record_dir: PathBuf,
    /// Where the output goes.
    pub log: Log,
    /// What happens with standard input.
    pub stdin: Stdin,
    /// The cgroup's absolute path in every hierarchy.
    pub cgroup: String,
    /// Further descriptors, in order.
    pub fds: Vec<(CreateFd, OwnedFd)>,
}

/// Check `config` and decide everything that does not depend on one start. The error names the first field
/// that cannot be used.
pub fn build(config: &Config, image: Option<&ImageConfig>, host: &Host) -> Result<Bundle, Invalid> {
    let mut warnings = Vec::new();
    let hostname = process::hostname(config)?;
    let granted = capabilities::granted(&config.security, host)?;
    let mut process = process::process(config, image, &hostname, &granted, &mut warnings)?;
    process.fit_open_files(&config.ulimits, host.open_files);
    let stop_signal = process::stop_signal(config, image)?;
    let mounts = mounts::mounts(config, &mut warnings)?;
    let hidden = hidden::paths(config, host)?;
    let sysctls = sysctl::checked(config)?;
    let limits = limits::limits(&config.resources, host)?;
    let oom_score_adj = limits::oom_score_adj(config.oom_score_adj)?;
    let filter = match &config.security.seccomp {
        Seccomp::Default => Some(seccomp::default_filter(&granted)?),
        Seccomp::Profile(profile) => Some(seccomp::compile(&profile.to_string(), &granted)?),
        Seccomp::Unconfined => None,
    };
    warn_of_weakened_isolation(config, &granted, &mut warnings);

    let mut linux = json!({
        "namespaces": namespaces(config),
        "resources": { "devices": device_rules() },
        "rootfsPropagation": "private",
        "maskedPaths": hidden.masked,
        "readonlyPaths": hidden.readonly,
    });
    if let Some(map) = config.id_map {
        let mapping = json!([{ "containerID": 0, "hostID": map.host, "size": map.size }]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    if !sysctls.is_empty() {
        linux["sysctl"] = json!(sysctls);
    }
    let spec = json!({
        "ociVersion": "1.2.0",
        "hostname": hostname,
        "root": { "path": "rootfs", "readonly": config.read_only },
        "process": process.to_spec(config.terminal),
        "mounts": mounts.spec,
        "linux": linux,
    });

    Ok(Bundle {
        id: config.id.clone(),
        spec,
        etc: mounts.etc,
        idmapped_mounts: mounts.idmapped,
        make_cwd: process.cwd != "/",
        process,
        hostname,
        stop_signal,
        id_map: config.id_map,
        terminal: config.terminal,
        limits,
        oom_score_adj,
        filter,
        warnings,
    })
}

impl Bundle {
    /// Mount a directory of the host read-only at [`OFFER`]; who looks into it needs no rights but those of others.
    pub fn offer(&mut self, directory: &std::path::Path) {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.push(serde_json::json!({
                "destination": OFFER, "type": "bind", "source": directory,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }));
        }
    }

    /// The request for one start, and the descriptors that go with it. Writes the container's /etc files into
    /// the run's directory.
    pub fn create(&self, at: Placement) -> io::Result<(Create, Vec<OwnedFd>)> {
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = json!(at.cgroup);
        for entry in &self.etc {
            let path = entry.write(&at.run_dir, &self.hostname, self.id_map)?;
            spec["mounts"][entry.mount]["source"] = json!(path);
        }

        let mut kinds = Vec::with_capacity(at.fds.len() + 1);
        let mut fds = Vec::with_capacity(at.fds.len() + 1);
        if let Some(filter) = &self.filter {
            kinds.push(CreateFd::Seccomp);
            fds.push(seccomp::as_memfd(filter)?);
        }
        for (kind, fd) in at.fds {
            kinds.push(kind);
            fds.push(fd);
        }
        let create = Create {
            version: wharf_protocol::VERSION,
            id: self.id.clone(),
            run: at.run,
            spec: spec.to_string(),
            user: self.process.user.clone(),
            groups: self.process.groups.clone(),
            rootfs: at.rootfs,
            id_map: self.id_map,
            idmapped_mounts: self.idmapped_mounts.clone(),
            make_cwd: self.make_cwd,
            run_dir: at.run_dir,
            record_dir: at.record_dir,
            log: at.log,
            terminal: self.terminal,
            stdin: at.stdin,
            cgroup: at.cgroup,
            limits: self.limits.clone(),
            oom_score_adj: self.oom_score_adj,
            fds: kinds,
        };
        Ok((create, fds))
    }

    /// The runtime spec as far as it is known before a start, for `inspect`.
    pub fn spec(&self) -> &Value {
        &self.spec
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("id", &self.id).field("process", &self.process).finish_non_exhaustive()
    }
}

/// No time namespace: without offsets it isolates nothing, and reading the clock becomes slower in it.
fn namespaces(config: &Config) -> Value {
    let mut types = vec!["pid", "mount", "ipc", "uts", "cgroup"];
    if config.network == Network::None {
        types.push("network");
    }
    if config.id_map.is_some() {
        types.push("user");
    }
    types.into_iter().map(|name| json!({ "type": name })).collect()
}

/// The devices of every container: (type, major, minor or all). libcontainer only adds to what the cgroup
/// allows already, so nothing may be taken for granted: first everything is denied.
fn device_rules() -> Value {
    const ALLOWED: [(&str, u32, Option<u32>); 9] = [
        ("c", 1, Some(3)), // null
        ("c", 1, Some(5)), // zero
        ("c", 1, Some(7)), // full
        ("c", 1, Some(8)), // random
        ("c", 1, Some(9)), // urandom
        ("c", 5, Some(0)), // tty
        ("c", 5, Some(1)), // console
        ("c", 5, Some(2)), // ptmx
        ("c", 136, None),  // pts/*
    ];
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for (kind, major, minor) in ALLOWED {
        let mut rule = json!({ "allow": true, "type": kind, "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rules.push(rule);
    }
    Value::Array(rules)
}

fn warn_of_weakened_isolation(config: &Config, granted: &[String], warnings: &mut Vec<String>) {
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if config.id_map.is_none() {
        warn("user namespace of the host: root in the container is root on the host");
    }
    if config.network == Network::Host {
        warn("network of the host: every port and abstract socket of the host can be reached");
    }
    if config.security.new_privileges {
        warn("new privileges: setuid programs and file capabilities take effect");
    }
    match &config.security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => warn("seccomp unconfined: every system call is allowed"),
        Seccomp::Profile(_) => warn("seccomp: a profile of the user's own replaces the default"),
    }
    if !config.security.unmask.is_empty() {
        warn("unmask: paths of the kernel that are hidden or read-only by default are open");
    }
    for name in granted.iter().filter(|name| capabilities::is_as_good_as_root(name)) {
        let scope = if config.id_map.is_some() { "in its user namespace" } else { "on the host" };
        warn(&format!("{name} is as good as root {scope}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use oci_spec::runtime::Spec;
    use std::os::unix::fs::MetadataExt;

    fn config() -> Config {
        let id_map = Some(IdMap { host: 1_000_000, size: 65_536 });
        Config { command: vec!["/demo".into()], ..Config::new("0123456789abcdef".repeat(4), id_map) }
    }

    fn placement(run_dir: &std::path::Path) -> Placement {
        Placement {
            run: 1,
            rootfs: Rootfs::Directory { path: "/rootfs".into() },
            run_dir: run_dir.into(),
            record_dir: "/records".into(),
            log: Log { dir: "/logs".into(), max_size: 1, max_files: 1 },
            stdin: Stdin::Null,
            cgroup: "/wharf/0123".into(),
            fds: Vec::new(),
        }
    }

    /// A change of a default is a change of this file. `WHARF_UPDATE=1` writes it anew.
    #[test]
    fn default_spec_is_the_committed_one() {
        let bundle = build(&config(), None, &Host::example()).unwrap();
        let spec = serde_json::to_string_pretty(bundle.spec()).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/default-spec.json");
        if std::env::var_os("WHARF_UPDATE").is_some() {
            std::fs::write(path, &spec).unwrap();
        }
        assert_eq!(spec, std::fs::read_to_string(path).unwrap(), "set WHARF_UPDATE=1 if this is meant");
    }

    #[test]
    fn every_spec_is_one_to_the_container_library() {
        let everything = Config {
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
            init: Some("/usr/lib/wharf/wharf-init".into()),
            read_only: true,
            volumes: vec![config::Volume {
                source: "/tmp".into(),
                target: "/data".into(),
                options: vec!["ro".into()],
            }],
            tmpfs: vec![config::Tmpfs { target: "/run".into(), ..config::Tmpfs::default() }],
            sysctls: vec![("net.core.somaxconn".into(), "99".into())],
            cgroup_mount: true,
            security: config::Security { new_privileges: true, ..config::Security::default() },
            ..config()
        };
        let hosts = Config { network: Network::Host, ..config() };
        for config in [config(), everything, hosts, Config { id_map: None, ..config() }] {
            let bundle = build(&config, None, &Host::example()).unwrap();
            let spec: Spec = serde_json::from_value(bundle.spec().clone()).unwrap();
            let process = spec.process().as_ref().unwrap();
            let capabilities = process.capabilities().as_ref().unwrap();
            assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 11);
            assert_eq!(capabilities.inheritable().as_ref().unwrap().len(), 0);
            assert_eq!(capabilities.ambient().as_ref().unwrap().len(), 0);
            let no_new_privileges = (!config.security.new_privileges).then_some(true);
            assert_eq!(process.no_new_privileges(), no_new_privileges);
            assert_eq!(
                spec.mounts().as_ref().unwrap().len(),
                bundle.spec["mounts"].as_array().unwrap().len()
            );
        }
    }

    #[test]
    fn request_names_this_start() {
        let run_dir = tempfile::tempdir().unwrap();
        // Only root can give the files to the container's root.
        let mine = run_dir.path().metadata().unwrap().uid();
        let host = if mine == 0 { 1_000_000 } else { mine };
        let config = Config { id_map: Some(IdMap { host, size: 65_536 }), ..config() };
        let bundle = build(&config, None, &Host::example()).unwrap();
        let (create, fds) = bundle.create(placement(run_dir.path())).unwrap();
        let spec: Value = serde_json::from_str(&create.spec).unwrap();
        assert_eq!(spec["linux"]["cgroupsPath"], "/wharf/0123");
        assert_eq!((create.fds.as_slice(), fds.len()), (&[CreateFd::Seccomp][..], 1));
        let hosts =
            spec["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/etc/hosts").unwrap();
        assert_eq!(hosts["source"], run_dir.path().join("hosts").to_str().unwrap());
        assert_eq!(create.limits.pids_max, Some(512));
    }

    #[test]
    fn weakened_isolation_is_told() {
        let config = Config {
            id_map: None,
            network: Network::Host,
            security: config::Security {
                cap_add: vec!["SYS_ADMIN".into()],
                new_privileges: true,
                seccomp: Seccomp::Unconfined,
                unmask: vec!["ALL".into()],
                ..config::Security::default()
            },
            ..config()
        };
        let bundle = build(&config, None, &Host::example()).unwrap();
        assert_eq!(bundle.warnings.len(), 6, "{:?}", bundle.warnings);
        assert!(bundle.filter.is_none());
        assert!(build(&self::config(), None, &Host::example()).unwrap().warnings.is_empty());
    }
}
