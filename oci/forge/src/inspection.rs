//! A look from outside at a process that is about to become a container's program: is it confined as asked?
//!
//! The container library works on a tree and beside processes that may change under its hands (GHSA-3q8j-pf29-vwv8:
//! masked and read-only paths are applied by path). What the kernel says about the finished process is the proof.

use crate::capabilities::{Sets, status_mask};
use crate::cgroup::Cgroup;
use crate::tree;
use anyhow::{Context, Result, bail, ensure};
use libcontainer::oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

/// What a process must be.
pub struct Expected {
    /// User and group ids as the host sees them.
    pub uid: u32,
    /// Likewise.
    pub gid: u32,
    /// Capability sets; inheritable and ambient must be empty.
    pub capabilities: Sets,
    /// no_new_privs is set.
    pub no_new_privileges: bool,
    /// How many seccomp filters it has loaded itself.
    pub filters: usize,
}

/// Ids, capabilities, no_new_privs, seccomp, descriptors, working directory.
pub fn check_process(pid: i32, expected: &Expected) -> Result<()> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);

    for (name, id) in [("Uid:", expected.uid), ("Gid:", expected.gid)] {
        let ids = field(name).unwrap_or_default();
        // Real, effective, saved and file system id.
        ensure!(ids.split_whitespace().all(|found| found == id.to_string()), "{name} {ids} instead of {id}");
    }
    for (name, mask) in [
        ("CapBnd:", expected.capabilities.bounding),
        ("CapEff:", expected.capabilities.effective),
        ("CapPrm:", expected.capabilities.permitted),
        ("CapInh:", 0),
        ("CapAmb:", 0),
    ] {
        let found = status_mask(&status, name);
        ensure!(found == Some(mask), "{name} {found:x?} instead of {mask:x}");
    }
    if expected.no_new_privileges {
        ensure!(field("NoNewPrivs:") == Some("1"), "no_new_privs is not set");
    }
    if expected.filters > 0 {
        ensure!(field("Seccomp:") == Some("2"), "no seccomp filter is loaded");
        let own = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
        let own = own.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        let inherited: usize = own.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        // The count exists since Linux 5.9.
        if let Some(count) = field("Seccomp_filters:") {
            let wanted = inherited + expected.filters;
            ensure!(count == wanted.to_string(), "{count} seccomp filters instead of {wanted}");
        }
    }
    check_descriptors(pid)?;
    check_working_directory(pid)
}

/// Every descriptor above 2 must vanish with execve.
fn check_descriptors(pid: i32) -> Result<()> {
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in std::fs::read_dir(&directory).with_context(|| format!("reading {directory}"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if number <= 2 {
            continue;
        }
        // It may be closed by now.
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let flags =
            text.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim).unwrap_or_default();
        let flags = i32::from_str_radix(flags, 8).with_context(|| format!("flags of descriptor {number}"))?;
        ensure!(flags & libc::O_CLOEXEC != 0, "descriptor {number} would be inherited");
    }
    Ok(())
}

/// Is the process in the container's cgroup, in every hierarchy?
pub fn check_cgroup(pid: i32, cgroup: &Cgroup) -> Result<()> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let own = cgroup.path();
    let right = text.lines().filter(|line| line.splitn(3, ':').nth(2) == Some(&own)).count();
    ensure!(right >= cgroup.hierarchies(), "the container is not in cgroup {own} everywhere:\n{text}");
    Ok(())
}

/// Namespaces and paths of a container's init, as its spec has them. `host_mounts` is the host's mount namespace.
pub fn check_container(pid: i32, spec: &Spec, host_mounts: &OwnedFd) -> Result<()> {
    let Some(linux) = spec.linux() else { bail!("the spec has no linux section") };
    for namespace in linux.namespaces().iter().flatten() {
        let name = match namespace.typ() {
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::Cgroup => "cgroup",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Network => "net",
            LinuxNamespaceType::Time => "time",
        };
        let its = namespace_inode(&format!("/proc/{pid}/ns/{name}"))?;
        match namespace.path() {
            Some(path) => {
                ensure!(
                    its == namespace_inode(&path.display().to_string())?,
                    "{name} namespace is not the given one"
                );
            }
            None => {
                ensure!(
                    its != namespace_inode(&format!("/proc/self/ns/{name}"))?,
                    "{name} namespace is the host's"
                );
                if name == "mnt" {
                    ensure!(its != rustix::fs::fstat(host_mounts)?.st_ino, "mount namespace is the host's");
                }
            }
        }
    }

    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context("opening the container's root")?;
    for path in linux.masked_paths().iter().flatten() {
        check_masked(&root, Path::new(path))?;
    }
    for path in linux.readonly_paths().iter().flatten() {
        check_read_only(&root, Path::new(path))?;
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        ensure!(is_read_only(&root)?, "the root file system is writable");
    }
    check_system_mounts(pid, spec)
}

fn namespace_inode(path: &str) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("looking at {path}"))?.st_ino())
}

fn open(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>> {
    match tree::open(root, path, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("looking at {} in the container", path.display())),
    }
}

fn check_masked(root: &OwnedFd, path: &Path) -> Result<()> {
    let Some(found) = open(root, path)? else { return Ok(()) };
    let stat = rustix::fs::fstat(&found)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let masked = if kind == FileType::Directory {
        // An empty tmpfs of its own; its root directory has nobody's files.
        let files = rustix::fs::fstatfs(&found)?;
        files.f_type == libc::TMPFS_MAGIC && is_read_only(&found)? && is_empty(&found)?
    } else {
        kind == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
    };
    ensure!(masked, "{} is not masked", path.display());
    Ok(())
}

fn is_empty(directory: &OwnedFd) -> Result<bool> {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(std::fs::read_dir(path)?.next().is_none())
}

fn check_read_only(root: &OwnedFd, path: &Path) -> Result<()> {
    let Some(found) = open(root, path)? else { return Ok(()) };
    ensure!(is_read_only(&found)?, "{} is writable", path.display());
    Ok(())
}

/// Is the mount that it is on read-only?
fn is_read_only(found: &OwnedFd) -> Result<bool> {
    Ok(rustix::fs::fstatvfs(found)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A line of /proc/PID/mountinfo.
struct Entry<'a> {
    id: &'a str,
    root: &'a str,
    mount_point: &'a Path,
    file_system: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let id = fields.next()?;
        let root = fields.nth(2)?;
        let mount_point = Path::new(fields.next()?);
        Some(Self { id, root, mount_point, file_system: after.split(' ').next()? })
    }
}

/// Nothing but what the spec lists may be mounted on /proc, /sys or below, and each of it must be what it is to be:
/// a volume that ended up on a read-only path is no read-only path.
fn check_system_mounts(pid: i32, spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let listed = |paths: Option<&Vec<String>>, path: &Path| {
        paths.into_iter().flatten().any(|listed| path == Path::new(listed))
    };
    let table = read_table(pid)?;
    for entry in table.lines().filter_map(Entry::parse) {
        let path = entry.mount_point;
        let Some(top) = ["/proc", "/sys"].into_iter().find(|top| path.starts_with(top)) else { continue };
        let inside = path.strip_prefix(top).unwrap_or(path);
        let kernels = match top {
            "/proc" => entry.file_system == "proc",
            _ => entry.file_system == "sysfs",
        };
        let masked = listed(linux.and_then(|linux| linux.masked_paths().as_ref()), path)
            && (entry.file_system == "tmpfs" && entry.root == "/" || entry.root.ends_with("/null"));
        let read_only = listed(linux.and_then(|linux| linux.readonly_paths().as_ref()), path)
            && kernels
            && Path::new(entry.root) == Path::new("/").join(inside);
        // The host's own, with what is mounted there; or the container's cgroups.
        let given = spec.mounts().iter().flatten().any(|mount| {
            let destination = mount.destination();
            let whole = path == destination && (kernels || entry.file_system.starts_with("cgroup"));
            let part = path.starts_with(destination)
                && (destination == Path::new("/sys/fs/cgroup")
                    || mount.options().iter().flatten().any(|option| option == "rbind"));
            whole || part
        });
        if !(masked || read_only || given) {
            bail!("something is mounted on {}", path.display());
        }
    }
    Ok(())
}

/// The working directory must be on a mount of the container's. One that was reached through a descriptor of ours
/// (`/proc/self/fd/N`, CVE-2024-21626) is on another, even if its path looks as if it were inside.
fn check_working_directory(pid: i32) -> Result<()> {
    let stat = rustix::fs::statx(
        rustix::fs::CWD,
        format!("/proc/{pid}/cwd"),
        rustix::fs::AtFlags::empty(),
        rustix::fs::StatxFlags::MNT_ID,
    )
    .context("looking at the working directory")?;
    ensure!(stat.stx_mask & rustix::fs::StatxFlags::MNT_ID.bits() != 0, "the kernel tells no mount ids");
    let id = stat.stx_mnt_id.to_string();
    let table = read_table(pid)?;
    let inside = table.lines().filter_map(Entry::parse).any(|entry| entry.id == id);
    ensure!(inside, "the working directory is outside the container; choose another");
    Ok(())
}

fn read_table(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/mountinfo");
    std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::capabilities;
    use crate::sys::{self, Forked};
    use rustix::fd::RawFd;
    use serde_json::{Value, json};
    use std::io::Read;

    const KILL: u64 = 1 << 5;
    const CHOWN: u64 = 1;

    /// What a forked process does to itself before it is looked at.
    #[derive(Clone, Copy)]
    struct Process {
        uid: u32,
        gid: u32,
        capabilities: Sets,
        no_new_privileges: bool,
        filters: usize,
        /// Would be inherited.
        descriptor: Option<RawFd>,
        /// Namespaces of its own.
        namespaces: libc::c_int,
        /// Its working directory, of the time before it had a mount namespace.
        working_directory: Option<RawFd>,
        /// What it mounts a tmpfs on.
        mounted: Option<&'static std::ffi::CStr>,
    }

    const AS_ASKED: Process = Process {
        uid: 1000,
        gid: 100,
        capabilities: Sets { bounding: KILL, effective: KILL, permitted: KILL },
        no_new_privileges: true,
        filters: 1,
        descriptor: None,
        namespaces: 0,
        working_directory: None,
        mounted: None,
    };

    /// [`AS_ASKED`], as it is to be found.
    fn asked() -> Expected {
        Expected {
            uid: AS_ASKED.uid,
            gid: AS_ASKED.gid,
            capabilities: AS_ASKED.capabilities,
            no_new_privileges: AS_ASKED.no_new_privileges,
            filters: AS_ASKED.filters,
        }
    }

    #[test]
    fn process_as_asked_passes() {
        if !can_run() {
            return;
        }
        check_process(Child::new(AS_ASKED).pid, &asked()).unwrap();
        // What is more than asked for is no harm.
        let lax = Expected { no_new_privileges: false, filters: 0, ..asked() };
        check_process(Child::new(AS_ASKED).pid, &lax).unwrap();
    }

    #[test]
    fn process_of_another_user_or_group_is_refused() {
        if !can_run() {
            return;
        }
        assert_eq!(refusal(Process { uid: 0, ..AS_ASKED }), "Uid: 0\t0\t0\t0 instead of 1000");
        assert_eq!(refusal(Process { gid: 0, ..AS_ASKED }), "Gid: 0\t0\t0\t0 instead of 100");
    }

    #[test]
    fn process_with_other_capabilities_is_refused() {
        if !can_run() {
            return;
        }
        let with = |capabilities| refusal(Process { capabilities, ..AS_ASKED });
        let (one, two, none) = (KILL, KILL | CHOWN, 0);
        let sets = |bounding, effective, permitted| Sets { bounding, effective, permitted };
        for (capabilities, set) in [
            (sets(two, one, one), "CapBnd"),
            (sets(none, one, one), "CapBnd"),
            (sets(one, none, one), "CapEff"),
            (sets(one, two, two), "CapEff"),
            (sets(one, one, two), "CapPrm"),
        ] {
            let refusal = with(capabilities);
            assert!(refusal.starts_with(set), "{capabilities:?}: {refusal}");
        }
    }

    #[test]
    fn process_that_could_gain_privileges_is_refused() {
        if !can_run() {
            return;
        }
        assert_eq!(refusal(Process { no_new_privileges: false, ..AS_ASKED }), "no_new_privs is not set");
    }

    #[test]
    fn process_with_fewer_or_more_filters_is_refused() {
        if !can_run() {
            return;
        }
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        if own.contains("Seccomp:\t0") {
            assert_eq!(refusal(Process { filters: 0, ..AS_ASKED }), "no seccomp filter is loaded");
        }
        let refusal = refusal(Process { filters: 2, ..AS_ASKED });
        assert!(refusal.contains("seccomp filters instead of"), "{refusal}");
        let error = check_process(Child::new(AS_ASKED).pid, &Expected { filters: 2, ..asked() }).unwrap_err();
        assert!(error.to_string().contains("seccomp filters instead of"), "{error}");
    }

    #[test]
    fn descriptor_that_would_be_inherited_is_refused() {
        if !can_run() {
            return;
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        let refusal = refusal(Process { descriptor: Some(number), ..AS_ASKED });
        assert_eq!(refusal, format!("descriptor {number} would be inherited"));
    }

    #[test]
    fn working_directory_on_a_mount_of_the_host_is_refused() {
        if !can_run() {
            return;
        }
        let host = std::fs::File::open("/").unwrap();
        let process = Process { namespaces: libc::CLONE_NEWNS, ..AS_ASKED };
        check_process(Child::new(process).pid, &asked()).unwrap();
        let refusal = refusal(Process { working_directory: Some(host.as_raw_fd()), ..process });
        assert!(refusal.contains("the working directory is outside the container"), "{refusal}");
    }

    #[test]
    fn container_that_shares_a_namespace_of_the_host_is_refused() {
        if !can_run() {
            return;
        }
        let child = Child::new(AS_ASKED);
        for (kind, name) in [
            ("mount", "mnt"),
            ("cgroup", "cgroup"),
            ("uts", "uts"),
            ("ipc", "ipc"),
            ("user", "user"),
            ("pid", "pid"),
            ("network", "net"),
        ] {
            let error = child.check(&json!([{"type": kind}]), json!({})).unwrap_err();
            assert_eq!(error.to_string(), format!("{name} namespace is the host's"));
        }
        // And one that is not the one that was named.
        let other = Child::new(Process { namespaces: libc::CLONE_NEWUTS, ..AS_ASKED });
        let path = format!("/proc/{}/ns/uts", other.pid);
        let error = child.check(&json!([{"type": "uts", "path": path}]), json!({})).unwrap_err();
        assert_eq!(error.to_string(), "uts namespace is not the given one");
        other.check(&json!([{"type": "uts", "path": path}]), json!({})).unwrap();
        // The creator has left the host's mounts, so its own are not those to compare with.
        let mounts = Child::new(Process { namespaces: libc::CLONE_NEWNS, ..AS_ASKED });
        let host = std::fs::File::open(format!("/proc/{}/ns/mnt", mounts.pid)).unwrap().into();
        let spec = container(&json!([{"type": "mount"}]), &json!({}), &json!([]));
        let error = check_container(mounts.pid, &spec, &host).unwrap_err();
        assert_eq!(error.to_string(), "mount namespace is the host's");
    }

    #[test]
    fn container_outside_of_its_cgroup_is_refused() {
        if !can_run() {
            return;
        }
        let cgroup = Cgroup::at("/wharf-inspection/is-not-there").unwrap();
        let error = check_cgroup(Child::new(AS_ASKED).pid, &cgroup).unwrap_err();
        assert!(error.to_string().contains("is not in cgroup /wharf-inspection/is-not-there"), "{error}");
    }

    #[test]
    fn container_with_unguarded_paths_is_refused() {
        if !can_run() {
            return;
        }
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
        let own = json!([{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "cgroup"}]);
        let process = Process { namespaces, ..AS_ASKED };
        let child = Child::new(process);
        child.check(&own, json!({})).unwrap();
        child.check(&own, json!({"maskedPaths": ["/proc/is-not-there"]})).unwrap();

        let refusal = |paths| child.check(&own, paths).unwrap_err().to_string();
        assert_eq!(refusal(json!({"maskedPaths": ["/proc/version"]})), "/proc/version is not masked");
        assert_eq!(refusal(json!({"maskedPaths": ["/proc/fs"]})), "/proc/fs is not masked");
        assert_eq!(refusal(json!({"readonlyPaths": ["/tmp"]})), "/tmp is writable");

        // All that this host has there, but /proc itself without what may be mounted on it later.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(Entry::parse).map(|entry| entry.mount_point);
        let points = points.filter(|path| {
            *path != Path::new("/proc") && (path.starts_with("/proc") || path.starts_with("/sys"))
        });
        let mut mounts: Vec<Value> =
            points.map(|path| json!({"destination": path, "options": ["rbind"]})).collect();
        mounts.push(json!({"destination": "/proc", "type": "proc"}));
        let mut spec = container(&own, &json!({}), &mounts.into());
        check_container(child.pid, &spec, &host_mounts()).unwrap();
        // What covers a path must be what the spec says covers it.
        let covered = Child::new(Process { mounted: Some(c"/proc/fs"), ..process });
        let error = check_container(covered.pid, &spec, &host_mounts()).unwrap_err();
        assert_eq!(error.to_string(), "something is mounted on /proc/fs");

        spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
        let error = check_container(child.pid, &spec, &host_mounts()).unwrap_err();
        assert_eq!(error.to_string(), "the root file system is writable");
    }

    /// A process that has prepared itself and waits.
    struct Child {
        pid: i32,
    }

    impl Child {
        fn new(process: Process) -> Self {
            let (mut ready, said) = std::io::pipe().unwrap();
            // SAFETY: what the child does until it is killed are system calls only; no memory is allocated.
            match unsafe { sys::fork(0, None) }.unwrap() {
                Forked::Child => process.prepare(said.as_raw_fd()),
                Forked::Parent { pid, .. } => {
                    drop(said);
                    let child = Self { pid };
                    ready
                        .read_exact(&mut [0])
                        .unwrap_or_else(|_| panic!("the child could not prepare itself"));
                    child
                }
            }
        }

        /// With all of the host's mounts on /proc and /sys allowed.
        fn check(&self, namespaces: &Value, paths: Value) -> Result<()> {
            let mounts = json!([
                {"destination": "/proc", "type": "bind", "options": ["rbind"]},
                {"destination": "/sys", "type": "bind", "options": ["rbind"]}
            ]);
            check_container(self.pid, &container(namespaces, &paths, &mounts), &host_mounts())
        }
    }

    impl Drop for Child {
        fn drop(&mut self) {
            // SAFETY: a child of ours that nobody else waits for.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            sys::wait(self.pid).unwrap();
        }
    }

    impl Process {
        fn prepare(self, ready: RawFd) -> ! {
            let must = |done: bool| {
                if !done {
                    sys::exit(1);
                }
            };
            must(sys::close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint).is_ok());
            // SAFETY: system calls on plain values and constant strings; the filter lives until its call returns.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                must(libc::unshare(self.namespaces) == 0);
                if self.namespaces & libc::CLONE_NEWNS != 0 {
                    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
                    must(libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0);
                }
                if let Some(path) = self.mounted {
                    let (tmpfs, none) = (c"tmpfs".as_ptr(), std::ptr::null());
                    must(libc::mount(tmpfs, path.as_ptr(), tmpfs, libc::MS_RDONLY, none) == 0);
                }
                if let Some(directory) = self.working_directory {
                    must(libc::fchdir(directory) == 0);
                }
                if let Some(descriptor) = self.descriptor {
                    must(libc::fcntl(descriptor, libc::F_SETFD, 0) == 0);
                }
                must(capabilities::bound(self.capabilities.bounding).is_ok());
                if self.no_new_privileges {
                    must(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
                }
                for _ in 0..self.filters {
                    let mut allow = libc::sock_filter {
                        code: (libc::BPF_RET | libc::BPF_K) as u16,
                        jt: 0,
                        jf: 0,
                        k: libc::SECCOMP_RET_ALLOW,
                    };
                    let program = libc::sock_fprog { len: 1, filter: &raw mut allow };
                    let mode = libc::SECCOMP_MODE_FILTER;
                    must(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) == 0);
                }
                // libc's own would tell the other threads, which are not here.
                libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0);
                must(libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid) == 0);
                must(libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid) == 0);
                must(capabilities::set(self.capabilities.effective, self.capabilities.permitted).is_ok());
                must(libc::write(ready, [0u8].as_ptr().cast(), 1) == 1);
                loop {
                    libc::pause();
                }
            }
        }
    }

    fn refusal(process: Process) -> String {
        check_process(Child::new(process).pid, &asked()).unwrap_err().to_string()
    }

    fn container(namespaces: &Value, paths: &Value, mounts: &Value) -> Spec {
        let mut linux = paths.clone();
        linux["namespaces"] = namespaces.clone();
        for list in ["maskedPaths", "readonlyPaths"] {
            // Absent they are docker's.
            if linux[list].is_null() {
                linux[list] = json!([]);
            }
        }
        let document = json!({
            "ociVersion": "1.2.0", "root": {"path": "/", "readonly": false}, "mounts": mounts, "linux": linux
        });
        serde_json::from_value(document).unwrap()
    }

    fn host_mounts() -> OwnedFd {
        std::fs::File::open("/proc/self/ns/mnt").unwrap().into()
    }

    fn can_run() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }
}
