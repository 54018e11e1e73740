//! What is mounted in a container, in order: the kernel's file systems, then /etc files, then what the user asks
//! for, shallow before deep.
//!
//! Destinations are checked as text only. Whether an image has a symlink at one of them is seen by the
//! creator, which has the root file system before it.

use super::config::{Network, Tmpfs, Volume};
use super::etc::{Entry, EtcFile};
use super::{Config, Invalid, nearest};
use serde_json::{Value, json};
use std::path::Path;

/// The program that `init` asks for. In /dev, which is ours: no image and no volume can be in its way.
pub const INIT: &str = "/dev/init";

/// Where [`super::Bundle::offer`] mounts its directory, likewise.
pub const OFFER: &str = "/dev/wharf";

/// Names in /dev that the container library and we make.
const DEVICES: [&str; 18] = [
    "console", "core", "fd", "full", "init", "kcore", "mqueue", "null", "ptmx", "pts", "random", "stderr",
    "stdin", "stdout", "tty", "urandom", "wharf", "zero",
];

/// The mounts of a spec.
#[derive(Debug)]
pub struct Mounts {
    pub spec: Vec<Value>,
    pub idmapped: Vec<usize>,
    pub etc: Vec<Entry>,
}

/// A mount that the user asks for, checked.
struct Wish {
    field: String,
    target: String,
    is_volume: bool,
    value: Value,
}

pub fn mounts(config: &Config, warnings: &mut Vec<String>) -> Result<Mounts, Invalid> {
    let mut wishes = Vec::with_capacity(config.volumes.len() + config.tmpfs.len());
    for (index, volume) in config.volumes.iter().enumerate() {
        wishes.push(volume_mount(&format!("volumes[{index}]"), volume, warnings)?);
    }
    for (index, tmpfs) in config.tmpfs.iter().enumerate() {
        wishes.push(tmpfs_mount(&format!("tmpfs[{index}]"), tmpfs)?);
    }
    for (index, wish) in wishes.iter().enumerate() {
        if let Some(earlier) = wishes[..index].iter().find(|earlier| earlier.target == wish.target) {
            return Err(Invalid::new(
                format!("{}.target", wish.field),
                &wish.target,
                format!("is also the target of {}", earlier.field),
                "give each mount its own target",
            ));
        }
    }
    let is_wished = |target: &str| wishes.iter().any(|wish| wish.target == target);

    let mut spec = kernel_mounts(config);
    if !is_wished("/dev/shm") {
        spec.push(shm(config.shm_size)?);
    }
    if let Some(init) = &config.init {
        spec.push(json!({
            "destination": INIT, "type": "bind", "source": init, "options": ["bind", "ro", "nosuid", "nodev"],
        }));
    }
    let mut etc = Vec::new();
    // Who brings an /etc brings its files: binding ours into it would write to a directory of the host.
    if !is_wished("/etc") {
        for file in EtcFile::of(config.network).iter().filter(|file| !is_wished(file.target())) {
            etc.push(Entry { file: *file, network: config.network, mount: spec.len() });
            spec.push(json!({
                "destination": file.target(), "type": "bind", "source": "",
                "options": ["bind", "nosuid", "nodev", "noexec"],
            }));
        }
    }
    wishes.sort_by_key(|wish| wish.target.matches('/').count());
    let mut idmapped = Vec::new();
    for wish in wishes {
        if wish.is_volume && config.id_map.is_some() {
            idmapped.push(spec.len());
        }
        spec.push(wish.value);
    }
    Ok(Mounts { spec, idmapped, etc })
}

/// A new user namespace may only mount sysfs if the network is its own as well, since sysfs shows it. Otherwise
/// the host's is bound, read-only.
pub fn binds_hosts_sys(config: &Config) -> bool {
    config.network == Network::Host && config.id_map.is_some()
}

fn kernel_mounts(config: &Config) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let sys = match binds_hosts_sys(config) {
        true => {
            let options = ["rbind", "ro", "rro", "nosuid", "rnosuid", "nodev", "rnodev", "noexec", "rnoexec"];
            mount("/sys", "bind", "/sys", &options)
        }
        false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    };
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
    ];
    if config.cgroup_mount {
        let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }
    mounts
}

fn shm(size: Option<u64>) -> Result<Value, Invalid> {
    const DEFAULT: u64 = 64 << 20;
    if size == Some(0) {
        let fix = "give a number of bytes, or leave it out for 64 MiB";
        return Err(Invalid::new("shmSize", 0, "would be without limit", fix));
    }
    let size = format!("size={}", size.unwrap_or(DEFAULT));
    Ok(json!({
        "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", size],
    }))
}

fn volume_mount(field: &str, volume: &Volume, warnings: &mut Vec<String>) -> Result<Wish, Invalid> {
    let source_field = format!("{field}.source");
    let source = clean(&source_field, &volume.source)?;
    let (problem, fix) = match Path::new(&source).metadata() {
        Ok(_) => {
            let target = target(&format!("{field}.target"), &volume.target)?;
            let options = Options::parse(field, &volume.options, true)?;
            if options.relabel {
                warnings
                    .push(format!("{field}: option z or Z has no effect, SELinux labels are not changed"));
            }
            let value = json!({
                "destination": target, "type": "bind", "source": source, "options": options.for_bind(),
            });
            return Ok(Wish { field: field.to_owned(), target, is_volume: true, value });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            ("does not exist on the host".to_owned(), "make it first, or correct the path")
        }
        Err(error) => (format!("cannot be read: {error}"), "choose a path that can be read"),
    };
    Err(Invalid::new(source_field, &volume.source, problem, fix))
}

fn tmpfs_mount(field: &str, tmpfs: &Tmpfs) -> Result<Wish, Invalid> {
    let target = target(&format!("{field}.target"), &tmpfs.target)?;
    let mut options = Options::parse(field, &tmpfs.options, false)?.flags();
    let mode = tmpfs.mode.as_deref().unwrap_or("1777");
    let is_octal = (1..=4).contains(&mode.len()) && mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if !is_octal {
        let fix = "write one to four octal digits, such as 1777";
        return Err(Invalid::new(format!("{field}.mode"), mode, "is no file mode", fix));
    }
    options.push(format!("mode={mode}"));
    match tmpfs.size {
        // To tmpfs, 0 is no limit at all.
        Some(0) => {
            let fix = "give a number of bytes, or leave it out for half of the memory";
            return Err(Invalid::new(format!("{field}.size"), 0, "would be without limit", fix));
        }
        Some(size) => options.push(format!("size={size}")),
        None => {}
    }
    let value = json!({ "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options });
    Ok(Wish { field: field.to_owned(), target, is_volume: false, value })
}

/// The flags of a mount that the user asks for. What is said last is refused if it contradicts, since nobody
/// means both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    read_only: bool,
    suid: bool,
    dev: bool,
    exec: bool,
    recursive: bool,
    relabel: bool,
}

impl Options {
    fn parse(field: &str, words: &[String], is_volume: bool) -> Result<Self, Invalid> {
        const COMMON: [&str; 8] = ["ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec"];
        const VOLUME: [&str; 6] = ["bind", "rbind", "private", "rprivate", "z", "Z"];
        let known = || COMMON.into_iter().chain(VOLUME.into_iter().filter(|_| is_volume));
        let said = |word: &str| words.iter().any(|said| said == word);

        for (index, word) in words.iter().enumerate() {
            if known().any(|known| known == word) {
                continue;
            }
            let fix = match (nearest(word, known()), word.trim_start_matches('r')) {
                (_, "shared" | "slave" | "unbindable") => "leave it out: mounts never propagate".to_owned(),
                (Some(near), _) => format!("did you mean {near}?"),
                (None, _) => format!("use {}", known().collect::<Vec<_>>().join(", ")),
            };
            let field = format!("{field}.options[{index}]");
            return Err(Invalid::new(field, word, "is no option of such a mount", fix));
        }
        for pair in
            [["ro", "rw"], ["suid", "nosuid"], ["dev", "nodev"], ["exec", "noexec"], ["bind", "rbind"]]
        {
            if pair.iter().all(|word| said(word)) {
                return Err(Invalid::new(
                    format!("{field}.options"),
                    words.join(","),
                    format!("has both {} and {}", pair[0], pair[1]),
                    "give one of them",
                ));
            }
        }
        Ok(Self {
            read_only: said("ro"),
            suid: said("suid"),
            dev: said("dev"),
            // Programs in volumes are common; in memory they are rare, and a favourite of intruders.
            exec: said("exec") || (is_volume && !said("noexec")),
            recursive: !said("bind"),
            relabel: said("z") || said("Z"),
        })
    }

    fn flags(self) -> Vec<String> {
        [(self.read_only, "ro"), (!self.suid, "nosuid"), (!self.dev, "nodev"), (!self.exec, "noexec")]
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, word)| word.to_owned())
            .collect()
    }

    /// With `rbind`, what is mounted below the source comes along, and must not be writable or setuid when the
    /// volume is not.
    fn for_bind(self) -> Vec<String> {
        let flags = self.flags();
        match self.recursive {
            false => ["bind".to_owned()].into_iter().chain(flags).collect(),
            true => {
                let below = flags.iter().map(|flag| format!("r{flag}")).collect::<Vec<_>>();
                ["rbind".to_owned()].into_iter().chain(flags).chain(below).collect()
            }
        }
    }
}

/// A place in the container where something may be mounted.
fn target(field: &str, path: &str) -> Result<String, Invalid> {
    let target = clean(field, path)?;
    let is_at_or_below =
        |top: &str| target.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let refuse = |problem: &str, fix: &str| Err(Invalid::new(field, path, problem, fix));
    if target == "/" {
        return refuse("is the root file system itself", "mount below it, or run the directory with rootfs");
    }
    for top in ["/proc", "/sys"] {
        if is_at_or_below(top) {
            return refuse(
                "would cover a file system of the kernel",
                "choose a target outside /proc and /sys",
            );
        }
    }
    if target == "/dev" {
        return refuse("would cover the container's devices", "choose a target below or outside /dev");
    }
    if let Some(rest) = target.strip_prefix("/dev/") {
        let name = rest.split('/').next().unwrap_or_default();
        if DEVICES.contains(&name) {
            return refuse("would cover a device of the container", "choose another name below /dev");
        }
    }
    Ok(target)
}

/// An absolute path without `.`, `..`, double or trailing slashes. `..` is resolved as text: in a container a path
/// with `..` that meant something else would be a trap.
pub fn clean(field: &str, path: &str) -> Result<String, Invalid> {
    if path.contains('\0') {
        return Err(Invalid::new(field, path, "contains a NUL byte", "remove it"));
    }
    if path.chars().any(char::is_control) {
        return Err(Invalid::new(field, path, "contains a control character", "remove it"));
    }
    if !path.starts_with('/') {
        return Err(Invalid::new(field, path, "is not absolute", "write the whole path, beginning with /"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let cleaned = format!("/{}", parts.join("/"));
    // PATH_MAX and NAME_MAX, the NUL counted.
    if cleaned.len() > 4095 || parts.iter().any(|part| part.len() > 255) {
        return Err(Invalid::new(field, path, "is longer than a path can be", "choose a shorter one"));
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use wharf_protocol::IdMap;

    fn config() -> Config {
        Config::new("0".repeat(64), Some(IdMap { host: 100_000, size: 65_536 }))
    }

    fn with(volumes: &[(&str, &str, &str)]) -> Result<Mounts, Invalid> {
        let volumes = volumes
            .iter()
            .map(|(source, target, options)| Volume {
                source: (*source).to_owned(),
                target: (*target).to_owned(),
                options: options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            })
            .collect();
        mounts(&Config { volumes, ..config() }, &mut Vec::new())
    }

    fn last_options(mounts: &Mounts) -> Vec<String> {
        serde_json::from_value(mounts.spec.last().unwrap()["options"].clone()).unwrap()
    }

    #[test]
    fn volume_is_recursive_nosuid_nodev_and_idmapped() {
        let mounts = with(&[("/tmp", "/data", "")]).unwrap();
        assert_eq!(last_options(&mounts), ["rbind", "nosuid", "nodev", "rnosuid", "rnodev"]);
        assert_eq!(mounts.idmapped, [mounts.spec.len() - 1]);
        let mounts = with(&[("/tmp/", "//data/./x/", "bind,ro,suid,dev,noexec")]).unwrap();
        assert_eq!(last_options(&mounts), ["bind", "ro", "noexec"]);
        assert_eq!(mounts.spec.last().unwrap()["destination"], "/data/x");
    }

    #[test]
    fn volume_without_user_namespace_is_not_idmapped() {
        let volume = Volume { source: "/tmp".into(), target: "/data".into(), options: vec![] };
        let config = Config { volumes: vec![volume], ..Config::new("0".repeat(64), None) };
        assert!(mounts(&config, &mut Vec::new()).unwrap().idmapped.is_empty());
    }

    /// T08 and T20, as far as text can tell.
    #[test]
    fn hostile_targets_are_refused() {
        for target in [
            "",
            "data",
            "./data",
            "/",
            "//",
            "/.",
            "/..",
            "/data/..",
            "/../..",
            "/proc",
            "//proc",
            "/proc/",
            "/proc/self",
            "/x/../proc",
            "/x/../../proc/sys",
            "/sys",
            "/sys/fs/cgroup",
            "/./sys",
            "/dev",
            "/dev/",
            "/dev/null",
            "/dev/pts",
            "/dev/pts/0",
            "/dev/fd",
            "/dev/init",
            "/dev/urandom",
            "/a\0b",
            "/a\nb",
        ] {
            let field = with(&[("/tmp", target, "")]).err().map(|error| error.field);
            assert_eq!(field.as_deref(), Some("volumes[0].target"), "{target:?}");
        }
        for target in ["/processes", "/system", "/devices", "/dev/shm", "/dev/kvm", "/etc", "/var/lib/x"] {
            assert!(with(&[("/tmp", target, "")]).is_ok(), "{target}");
        }
    }

    #[test]
    fn sources_are_absolute_and_exist() {
        for source in ["", "tmp", "./x", "/no/such/thing", "/tmp\0", "~"] {
            assert_eq!(with(&[(source, "/data", "")]).unwrap_err().field, "volumes[0].source", "{source:?}");
        }
    }

    #[test]
    fn unknown_and_contradicting_options_are_refused() {
        let error = with(&[("/tmp", "/data", "ro,nosudi")]).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.fix.as_str()),
            ("volumes[0].options[1]", "did you mean nosuid?")
        );
        assert_eq!(with(&[("/tmp", "/data", "ro,rw")]).unwrap_err().field, "volumes[0].options");
        for word in ["shared", "rshared", "rslave", "idmap", "remount", "size=5"] {
            assert!(with(&[("/tmp", "/data", word)]).is_err(), "{word}");
        }
    }

    #[test]
    fn same_target_twice_is_refused_however_it_is_written() {
        let error = with(&[("/tmp", "/data", ""), ("/tmp", "/x/../data/", "")]).unwrap_err();
        assert_eq!(error.problem, "is also the target of volumes[0]");
    }

    #[test]
    fn deep_targets_come_after_shallow_ones() {
        let mounts = with(&[("/tmp", "/a/b/c", ""), ("/tmp", "/a", ""), ("/tmp", "/a/b", "")]).unwrap();
        let targets: Vec<_> =
            mounts.spec.iter().rev().take(3).rev().map(|m| m["destination"].clone()).collect();
        assert_eq!(targets, ["/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn tmpfs_has_size_and_mode_and_no_programs() {
        let tmpfs = |size, mode: Option<&str>, options: &[&str]| {
            let options = options.iter().map(|word| (*word).to_owned()).collect();
            let wish = Tmpfs { target: "/run".into(), size, mode: mode.map(str::to_owned), options };
            mounts(&Config { tmpfs: vec![wish], ..config() }, &mut Vec::new())
        };
        let default = tmpfs(None, None, &[]).unwrap();
        assert_eq!(last_options(&default), ["nosuid", "nodev", "noexec", "mode=1777"]);
        let sized = tmpfs(Some(4096), Some("755"), &["exec"]).unwrap();
        assert_eq!(last_options(&sized), ["nosuid", "nodev", "mode=755", "size=4096"]);
        assert_eq!(tmpfs(Some(0), None, &[]).unwrap_err().field, "tmpfs[0].size");
        for mode in ["", "888", "17777", "0x1", "1,uid=0"] {
            assert_eq!(tmpfs(None, Some(mode), &[]).unwrap_err().field, "tmpfs[0].mode", "{mode}");
        }
        assert_eq!(tmpfs(None, None, &["rbind"]).unwrap_err().field, "tmpfs[0].options[0]");
    }

    #[test]
    fn own_shm_and_etc_replace_ours() {
        let mounts = with(&[("/tmp", "/dev/shm", ""), ("/tmp", "/etc/hosts", "")]).unwrap();
        let count = |target: &str| mounts.spec.iter().filter(|mount| mount["destination"] == target).count();
        assert_eq!((count("/dev/shm"), count("/etc/hosts"), count("/etc/hostname")), (1, 1, 1));
        let mounts = with(&[("/tmp", "/etc", "")]).unwrap();
        assert!(mounts.etc.is_empty());
    }

    #[test]
    fn sys_is_bound_only_where_it_cannot_be_mounted() {
        let kind = |network, id_map| {
            let config = Config { network, id_map, ..config() };
            let mounts = mounts(&config, &mut Vec::new()).unwrap();
            mounts.spec.iter().find(|mount| mount["destination"] == "/sys").unwrap()["type"].clone()
        };
        assert_eq!(kind(Network::None, config().id_map), "sysfs");
        assert_eq!(kind(Network::Host, config().id_map), "bind");
        assert_eq!(kind(Network::Host, None), "sysfs");
    }
}
