//! /etc/hosts, /etc/hostname and /etc/resolv.conf: files of our own in the run's directory, bound into the
//! container. They belong to the container's root, so it may change them, and each start begins afresh.
//!
//! The files are given to the mapped root with chown(2) rather than idmapped: the run's directory is usually on
//! a tmpfs, which older kernels (before 6.3) cannot idmap.

use super::config::Network;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use wharf_protocol::IdMap;

/// One of the files, and the index of its mount in the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub file: EtcFile,
    pub network: Network,
    pub mount: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcFile {
    Hosts,
    Hostname,
    ResolvConf,
}

impl EtcFile {
    /// What a container with this network gets. Without a network there is nobody to ask for names.
    pub fn of(network: Network) -> &'static [Self] {
        match network {
            Network::None => &[Self::Hosts, Self::Hostname],
            Network::Host => &[Self::Hosts, Self::Hostname, Self::ResolvConf],
        }
    }

    /// Its place in the container.
    pub fn target(self) -> &'static str {
        match self {
            Self::Hosts => "/etc/hosts",
            Self::Hostname => "/etc/hostname",
            Self::ResolvConf => "/etc/resolv.conf",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Hostname => "hostname",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

impl Entry {
    /// Write the file into `directory`, which is ours alone.
    pub fn write(&self, directory: &Path, hostname: &str, id_map: Option<IdMap>) -> io::Result<PathBuf> {
        let text = match (self.file, self.network) {
            (EtcFile::Hosts, Network::None) => own_hosts(hostname),
            (EtcFile::Hosts, Network::Host) => hosts_of_host(&of_host("/etc/hosts")?, hostname),
            (EtcFile::Hostname, _) => format!("{hostname}\n"),
            (EtcFile::ResolvConf, _) => of_host("/etc/resolv.conf")?,
        };
        let path = directory.join(self.file.name());
        let doing =
            |error: io::Error| io::Error::new(error.kind(), format!("writing {}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(doing)?;
        file.write_all(text.as_bytes()).map_err(doing)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(0o644)).map_err(doing)?;
        if let Some(map) = id_map {
            std::os::unix::fs::fchown(&file, Some(map.host), Some(map.host)).map_err(doing)?;
        }
        Ok(path)
    }
}

/// A name for oneself, as many programs look it up at their start.
fn own_hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n")
}

fn hosts_of_host(hosts: &str, hostname: &str) -> String {
    let is_there = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .any(|line| line.split_whitespace().skip(1).any(|name| name == hostname));
    match is_there {
        true => hosts.to_owned(),
        false => format!("{}\n127.0.1.1 {hostname}\n", hosts.trim_end()),
    }
}

/// A file of the host, empty if there is none. Bounded, since it goes into memory.
fn of_host(path: &str) -> io::Result<String> {
    const MOST: u64 = 1 << 20;
    let doing =
        |error: io::Error| io::Error::new(error.kind(), format!("reading {path} of the host: {error}"));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(doing(error)),
    };
    if !fs::metadata(path).map_err(doing)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).map_err(doing)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn files_belong_to_the_containers_root() {
        let directory = tempfile::tempdir().unwrap();
        let entry = Entry { file: EtcFile::Hosts, network: Network::None, mount: 0 };
        let mine = fs::metadata(directory.path()).unwrap().uid();
        // Only root can give a file away.
        let owner = if mine == 0 { 100_000 } else { mine };
        let map = Some(IdMap { host: owner, size: 65_536 });
        let path = entry.write(directory.path(), "box", map).unwrap();
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777), (owner, 0o644));
        assert!(fs::read_to_string(path).unwrap().contains("127.0.1.1 box"));
    }

    #[test]
    fn symlink_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("hostname")).unwrap();
        let entry = Entry { file: EtcFile::Hostname, network: Network::None, mount: 0 };
        let error = entry.write(directory.path(), "box", None).unwrap_err();
        assert!(error.to_string().contains("hostname"), "{error}");
        assert_eq!(fs::read_to_string(victim).unwrap(), "kept");
    }

    #[test]
    fn own_name_is_added_to_the_hosts_file_once() {
        let hosts = "127.0.0.1 localhost # box\n";
        let with = hosts_of_host(hosts, "box");
        assert!(with.ends_with("127.0.1.1 box\n"));
        assert_eq!(hosts_of_host(&with, "box"), with);
    }
}
