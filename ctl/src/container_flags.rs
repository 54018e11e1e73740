//! What `run` and `create` can say about a container, and the spec document that it becomes.

// The comments at the flags are their help texts, where brackets mean what they mean on a command line.
#![allow(rustdoc::broken_intra_doc_links)]

use crate::assignments;
use crate::lifecycle_flags::LifecycleFlags;
use crate::mounts::{self, Mount};
use crate::probe_flags::ProbeFlags;
use crate::quantity;
use crate::restart_flags::RestartFlags;
use crate::signal;
use anyhow::{Context, bail};
use clap::{ArgAction, Args, ValueEnum};
use std::path::{Path, PathBuf};
use wharf_bus::spec::{
    Log, Network, Resources, Seccomp, Security, Spec, Tmpfs, Ulimit, UserNamespace, Volume,
};

/// Limits that can be set at the start and changed while a container runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct ResourceFlags {
    /// CPUs' worth of time, such as 0.5 or 2; 0 is unlimited [default: unlimited]
    #[arg(long, value_name = "NUMBER", value_parser = quantity::cpus, allow_negative_numbers = true)]
    pub cpus: Option<f64>,
    /// Weight against other containers when CPU is short, 2 to 262144 [default: 1024]
    #[arg(short = 'c', long, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    pub cpu_shares: Option<u64>,
    /// CPUs it may run on, such as 0-2,7 [default: all]
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory (NUMA) nodes it may use, such as 0,1 [default: all]
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory in bytes or with suffix k, m, g, at least 6m; -1 is unlimited [default: unlimited]
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::bytes_or_unlimited, allow_negative_numbers = true)]
    pub memory: Option<i64>,
    /// Memory and swap together, same units; -1 is unlimited swap [default: twice --memory]
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes_or_unlimited, allow_negative_numbers = true)]
    pub memory_swap: Option<i64>,
    /// Memory to which it is pushed back when the host runs short, same units [default: none]
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes_or_unlimited, allow_negative_numbers = true)]
    pub memory_reservation: Option<i64>,
    /// Number of processes and threads; -1 is unlimited [default: 512]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub pids_limit: Option<i64>,
    /// Weight of its block I/O against others, 10 to 1000 [default: the kernel's]
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u16).range(10..=1000))]
    pub blkio_weight: Option<u16>,
}

impl ResourceFlags {
    /// As the spec has them.
    pub fn resources(&self) -> Resources {
        Resources {
            cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            // docker's 0 and -1 are both «unlimited».
            pids_limit: self.pids_limit.map(|limit| if limit == 0 { -1 } else { limit }),
            blkio_weight: self.blkio_weight,
        }
    }
}

/// A container in flags.
#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// Print help
    // `-h` is the host name, as in docker.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Its name: letters, digits, _ . - [default: made up]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove the container, its files and its logs when it has ended
    #[arg(long)]
    rm: bool,
    /// Keep standard input open, and pass ctl's own on to it
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable; KEY alone takes the value from ctl's environment
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one KEY=VALUE or KEY a line, # begins a comment
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file, one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Working directory, absolute [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and group, by name or id, resolved in the image [default: the image's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group, by name or id
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Host name inside [default: first 12 digits of the id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Program to run instead of the image's entrypoint: a path, or a JSON list with arguments; "" for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run a small init as pid 1 that reaps orphans and passes signals on
    #[arg(long)]
    init: bool,
    /// Signal that asks it to end, a name or number [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal::checked)]
    stop_signal: Option<String>,
    /// Seconds from the stop signal to the kill, also 0.5 or 1m [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = quantity::duration)]
    stop_timeout: Option<std::time::Duration>,
    /// Run this directory of the host instead of an image; all arguments are then the command
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,

    /// Mount a directory or file of the host; OPTIONS are ro, rw, bind, rbind, exec, noexec, … [default: rw,rbind,nosuid,nodev]
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]", value_parser = mounts::volume, help_heading = "Files")]
    volume: Vec<Volume>,
    /// The same in words: type=bind,source=DIR,target=DIR[,readonly] or type=tmpfs,target=DIR[,tmpfs-size=SIZE]
    #[arg(long, value_name = "FIELDS", value_parser = mounts::mount, help_heading = "Files")]
    mount: Vec<Mount>,
    /// Mount a directory in memory; OPTIONS are size=SIZE, mode=OCTAL, ro, noexec, … [default: mode=1777, half of the memory]
    #[arg(long, value_name = "TARGET[:OPTIONS]", value_parser = mounts::tmpfs, help_heading = "Files")]
    tmpfs: Vec<Tmpfs>,
    /// Mount the root file system read-only
    #[arg(long, help_heading = "Files")]
    read_only: bool,
    /// Size of /dev/shm in bytes or with suffix k, m, g [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes, help_heading = "Files")]
    shm_size: Option<u64>,
    /// Mount its own cgroup, read-only, at /sys/fs/cgroup
    #[arg(long, help_heading = "Files")]
    cgroup_mount: bool,

    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    probes: ProbeFlags,
    #[command(flatten)]
    lifecycle: LifecycleFlags,

    #[command(flatten)]
    resources: ResourceFlags,
    /// Limit of each process as in ulimit(1), such as nofile=1024:4096; -1 is unlimited [default: the daemon's]
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit, help_heading = "Limits")]
    ulimit: Vec<Ulimit>,
    /// How readily the kernel kills it when memory runs out, -1000 to 1000 [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Limits",
        value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,

    /// Network: none (loopback only) or host (its interfaces)
    #[arg(
        long,
        visible_alias = "net",
        value_enum,
        default_value_t,
        value_name = "MODE",
        help_heading = "Isolation"
    )]
    network: NetworkMode,
    /// User namespace: private (65536 ids of its own) or host (root inside is root outside)
    #[arg(long, value_enum, default_value_t, value_name = "MODE", help_heading = "Isolation")]
    userns: UserNamespaceMode,
    /// Add a capability, with or without CAP_; ALL for all
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_add: Vec<String>,
    /// Take a capability away; ALL for all
    #[arg(long, value_name = "CAPABILITY", help_heading = "Isolation")]
    cap_drop: Vec<String>,
    /// no-new-privileges[:false], seccomp=unconfined|FILE, mask=PATH[:PATH], unmask=ALL|PATH[:PATH] [default: no-new-privileges and the built-in seccomp list]
    #[arg(long, value_name = "OPTION", help_heading = "Isolation")]
    security_opt: Vec<String>,
    /// Set a kernel parameter of its own namespaces, such as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignments::pair, help_heading = "Isolation")]
    sysctl: Vec<(String, String)>,

    /// max-size=SIZE of a log file before it is rotated, max-file=NUMBER of files kept [default: 10m, 5]
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignments::pair, help_heading = "Log")]
    log_opt: Vec<(String, String)>,

    /// Image to run (none with --rootfs), then the command and its arguments [default: the image's]
    // One list: whatever follows its first word belongs to the container, even if ctl knows the flag.
    #[arg(value_name = "IMAGE", help_heading = None, required_unless_present = "rootfs", trailing_var_arg = true)]
    image_and_command: Vec<String>,
}

/// `--network`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum NetworkMode {
    // Loopback only.
    #[default]
    None,
    // The host's interfaces.
    Host,
}

/// `--userns`.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum UserNamespaceMode {
    // 65,536 ids of its own.
    #[default]
    Private,
    // The host's.
    Host,
}

impl ContainerFlags {
    /// The spec document.
    pub fn spec(self) -> anyhow::Result<Spec> {
        let (image, rootfs, command) = match self.rootfs {
            Some(directory) => (None, Some(absolute(&directory)?), self.image_and_command),
            None => {
                let mut words = self.image_and_command.into_iter();
                (words.next(), None, words.collect())
            }
        };
        let mut volumes = self.volume;
        let mut tmpfs = self.tmpfs;
        for mount in self.mount {
            match mount {
                Mount::Volume(volume) => volumes.push(volume),
                Mount::Tmpfs(one) => tmpfs.push(one),
            }
        }
        let mut security = Security { cap_add: self.cap_add, cap_drop: self.cap_drop, ..Security::default() };
        for option in &self.security_opt {
            secure(&mut security, option)
                .with_context(|| format!("--security-opt '{}'", option.escape_debug()))?;
        }
        let mut log = Log::default();
        for (key, value) in &self.log_opt {
            match key.as_str() {
                "max-size" => {
                    log.max_size = Some(
                        quantity::bytes(value).map_err(anyhow::Error::msg).context("--log-opt max-size")?,
                    )
                }
                "max-file" => {
                    log.max_files =
                        Some(value.parse().with_context(|| {
                            format!("--log-opt max-file: a number of files; got '{value}'")
                        })?)
                }
                _ => bail!("--log-opt '{key}' is unknown; known are max-size and max-file"),
            }
        }
        Ok(Spec {
            name: self.name,
            image,
            rootfs,
            entrypoint: self.entrypoint.as_deref().map(entrypoint).transpose()?,
            command,
            env: assignments::environment(&self.env_file, &self.env)?,
            working_directory: self.workdir,
            user: self.user,
            groups: self.group_add,
            hostname: self.hostname,
            labels: assignments::labels(&self.label_file, &self.label)?,
            terminal: self.tty,
            stdin: self.interactive,
            remove: self.rm,
            init: self.init,
            read_only: self.read_only,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout.map(|span| span.as_secs_f64()),
            restart: self.restart.restart()?,
            probes: self.probes.probes(),
            healthcheck: self.probes.healthcheck()?,
            lifecycle: self.lifecycle.lifecycle(),
            requires: self.lifecycle.requires(),
            notify: self.lifecycle.notify(),
            user_namespace: match self.userns {
                UserNamespaceMode::Private => UserNamespace::Private,
                UserNamespaceMode::Host => UserNamespace::Host,
            },
            network: match self.network {
                NetworkMode::None => Network::None,
                NetworkMode::Host => Network::Host,
            },
            volumes,
            tmpfs,
            resources: self.resources.resources(),
            security,
            ulimits: self.ulimit,
            sysctls: self.sysctl.into_iter().collect(),
            shm_size: self.shm_size,
            oom_score_adj: self.oom_score_adj,
            cgroup_mount: self.cgroup_mount,
            log,
        })
    }
}

fn absolute(directory: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(directory).with_context(|| format!("--rootfs {}", directory.display()))?;
    match path.into_os_string().into_string() {
        Ok(path) => Ok(path),
        Err(path) => bail!("--rootfs {} is not UTF-8", path.display()),
    }
}

/// docker's is one word, podman's may also be a JSON list; an empty one drops the image's.
fn entrypoint(text: &str) -> anyhow::Result<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .with_context(|| format!("--entrypoint '{text}' is no JSON list of strings"));
    }
    Ok(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
}

fn secure(security: &mut Security, option: &str) -> anyhow::Result<()> {
    let (key, value) = match option.find(['=', ':']) {
        Some(at) => (&option[..at], Some(&option[at + 1..])),
        None => (option, None),
    };
    let paths =
        |list: &str| list.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => security.new_privileges = false,
        ("no-new-privileges", Some("false")) => security.new_privileges = true,
        ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
        ("seccomp", Some("default" | "builtin")) => security.seccomp = Seccomp::Default,
        ("seccomp", Some(file)) if !file.is_empty() => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("reading the profile {file}"))?;
            let profile = serde_json::from_str(&text).with_context(|| format!("{file} is no JSON"))?;
            security.seccomp = Seccomp::Profile(profile);
        }
        ("mask", Some(list)) => security.mask.extend(paths(list)),
        ("unmask", Some(list)) => security.unmask.extend(paths(list)),
        ("apparmor" | "label", _) => {
            bail!("wharf does not set AppArmor profiles or SELinux labels; leave it out")
        }
        _ => bail!(
            "unknown; known are no-new-privileges[:false], seccomp=unconfined|FILE, mask=PATH[:PATH] and unmask=ALL|PATH[:PATH]"
        ),
    }
    Ok(())
}

fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("it must be NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096; got '{text}'");
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(-1),
        text => text.parse::<i64>().ok().filter(|value| *value >= 0).ok_or_else(wrong),
    };
    let (name, values) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("the soft limit is above the hard one; got '{text}'"));
    }
    Ok(Ulimit { name: name.to_ascii_lowercase(), soft, hard })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        flags: ContainerFlags,
    }

    fn spec(words: &[&str]) -> anyhow::Result<Spec> {
        Line::try_parse_from(std::iter::once(&"run").chain(words))?.flags.spec()
    }

    #[test]
    fn image_alone_is_all_defaults() {
        assert_eq!(spec(&["web"]).unwrap(), Spec { image: Some("web".into()), ..Spec::default() });
    }

    #[test]
    fn whatever_follows_the_image_is_the_command() {
        let found = spec(&["-it", "web", "-d", "--rm", "-e", "A=1", "--", "--memory", "10x"]).unwrap();
        assert_eq!(found.image.as_deref(), Some("web"));
        assert_eq!(found.command, ["-d", "--rm", "-e", "A=1", "--", "--memory", "10x"]);
        assert!(found.terminal && found.stdin && !found.remove && found.env.is_empty());
    }

    #[test]
    fn with_a_rootfs_every_argument_is_the_command() {
        let found = spec(&["--rootfs", "/srv/root", "sh", "-c", "ls"]).unwrap();
        assert_eq!((found.image, found.rootfs.as_deref()), (None, Some("/srv/root")));
        assert_eq!(found.command, ["sh", "-c", "ls"]);
        assert!(spec(&["--rootfs", "/srv/root"]).unwrap().command.is_empty());
    }

    #[test]
    fn flags_of_docker_users_become_the_spec() {
        let found = spec(&[
            "--name",
            "web",
            "--rm",
            "-m",
            "64m",
            "--memory-swap=-1",
            "--cpus",
            ".5",
            "--pids-limit",
            "-1",
            "-h",
            "inside",
            "-v",
            "/a:/b:ro",
            "--tmpfs",
            "/run:size=1m",
            "--mount",
            "type=tmpfs,dst=/x",
            "--ulimit",
            "nofile=10:20",
            "--sysctl",
            "net.core.somaxconn=5",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges:false",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt=unmask=/proc/acpi:/sys/firmware",
            "--network=host",
            "--userns",
            "host",
            "--stop-timeout",
            "1.5",
            "--stop-signal",
            "INT",
            "--log-opt",
            "max-size=1m",
            "--log-opt",
            "max-file=2",
            "--entrypoint",
            "",
            "--label",
            "a=b",
            "--shm-size",
            "1g",
            "--oom-score-adj",
            "-5",
            "web",
        ])
        .unwrap();
        assert_eq!(found.resources.memory, Some(64 << 20));
        assert_eq!(found.resources.memory_swap, Some(-1));
        assert_eq!(found.resources.cpus, Some(0.5));
        assert_eq!(found.resources.pids_limit, Some(-1));
        assert_eq!(found.hostname.as_deref(), Some("inside"));
        assert_eq!((found.volumes.len(), found.tmpfs.len()), (1, 2));
        assert_eq!(found.ulimits, [Ulimit { name: "nofile".into(), soft: 10, hard: 20 }]);
        assert!(found.security.new_privileges);
        assert_eq!(found.security.seccomp, Seccomp::Unconfined);
        assert_eq!(found.security.unmask, ["/proc/acpi", "/sys/firmware"]);
        assert_eq!((found.network, found.user_namespace), (Network::Host, UserNamespace::Host));
        assert_eq!(found.stop_timeout, Some(1.5));
        assert_eq!(found.log, Log { max_size: Some(1 << 20), max_files: Some(2) });
        assert_eq!(found.entrypoint, Some(vec![]));
        assert_eq!(found.oom_score_adj, Some(-5));
    }

    #[test]
    fn errors_name_the_flag_and_the_fix() {
        for (words, flag, fix) in [
            (&["-m", "10x", "web"][..], "--memory", "64m"),
            (&["--cpus", "two", "web"], "--cpus", "0.5"),
            (&["-v", "data:/data", "web"], "--volume", "./data"),
            (&["--stop-signal", "FOO", "web"], "--stop-signal", "SIGTERM"),
            (&["--security-opt", "label=disable", "web"], "--security-opt", "SELinux"),
            (&["--log-opt", "tag=x", "web"], "--log-opt", "max-size"),
            (&["--memroy", "64m", "web"], "--memroy", "--memory"),
            (&["--network", "bridge", "web"], "--network", "host"),
            (&["--ulimit", "nofile=20:10", "web"], "--ulimit", "above"),
            (&["--name", "web"], "IMAGE", "IMAGE"),
        ] {
            let error = format!("{:#}", spec(words).unwrap_err());
            assert!(error.contains(flag) && error.contains(fix), "{words:?}: {error}");
        }
    }

    #[test]
    fn entrypoint_may_be_a_list() {
        assert_eq!(
            spec(&["--entrypoint", "[\"/bin/sh\",\"-c\"]", "web"]).unwrap().entrypoint.unwrap(),
            ["/bin/sh", "-c"]
        );
        assert_eq!(spec(&["--entrypoint", "/bin/sh", "web"]).unwrap().entrypoint.unwrap(), ["/bin/sh"]);
        assert!(spec(&["--entrypoint", "[1]", "web"]).is_err());
    }
}
