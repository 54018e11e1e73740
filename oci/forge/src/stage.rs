//! The place where a container is put together: a mount namespace of the creator's own, with a root that holds
//! only what the container library needs.
//!
//! ```text
//! /            tmpfs, readable for all: the container's mapped root walks through it to its rootfs
//! ├ rootfs     the container's root file system
//! ├ m/0…       the sources of its bind mounts, translated or not
//! ├ l/0…       image layers, translated
//! ├ bundle     config.json        state    the library's own files
//! └ proc sys dev                  the host's
//! ```
//! Nothing here can be left behind: it goes with the last process in the namespace. And since the host's mounts are
//! not in it, the library's many readings of the mount table do not slow down with their number.

use crate::cgroup::Cgroup;
use crate::{idmap, tree};
use anyhow::{Context, Result, bail};
use libcontainer::oci_spec::runtime::{Mount, Spec};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::path::{Path, PathBuf};
use wharf_protocol::{Create, Failure, FailureKind, IdMap, Rootfs};

/// Where the root file system is on the stage.
pub const ROOTFS: &str = "/rootfs";
/// Where config.json is.
pub const BUNDLE: &str = "/bundle";
/// The directory in the run's directory that the stage covers while it is being set.
pub const POINT: &str = "stage";
/// The library's state directory.
pub const STATE: &str = "/state";

/// We are on it.
pub struct Stage {
    /// The container's root directory.
    pub rootfs: OwnedFd,
    /// The namespace that we came from.
    home: OwnedFd,
    /// Another mount of an overlay that the next run can have.
    pub keep: Option<OwnedFd>,
    /// What bind mounts were called before their sources were replaced: (on the stage, as given).
    pub sources: Vec<(String, PathBuf)>,
}

impl Stage {
    /// Leave the host's mount namespace, mount the root file system (`kept` is that of the last run) and the sources of
    /// bind mounts, and adapt `spec` to where they are now.
    pub fn enter(
        request: &Create,
        run_dir: &OwnedFd,
        cgroup: &Cgroup,
        spec: &mut Spec,
        user_namespace: Option<&OwnedFd>,
        kept: Option<OwnedFd>,
    ) -> Result<Self> {
        let home = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context("opening the mount namespace")?;

        // SAFETY: a mount namespace only; the process is single-threaded and shares nothing.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .context("making a mount namespace")?;
        rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .context("making the mounts private")?;
        let upper = if kept.is_none() { UpperDirectories::open(request)? } else { None };
        // Some are in the run's directory, which the stage covers.
        let sources = open_sources(request, spec, user_namespace)?;

        let base = mount_base(&request.run_dir)?;
        rustix::process::fchdir(&base).context("entering the stage")?;
        for name in ["proc", "sys", "dev", "rootfs", "bundle", "state", "l", "m"] {
            make_directory(name)?;
        }
        match &kept {
            Some(overlay) => place(overlay, "rootfs")?,
            None => mount_rootfs(request, upper.as_ref(), user_namespace)?,
        }
        let keep = match &request.rootfs {
            Rootfs::Overlay { volatile: false, .. } => Some(clone(Path::new("rootfs"), false)?),
            Rootfs::Overlay { volatile: true, .. } | Rootfs::Directory { .. } => None,
        };
        place(&clone(Path::new("/proc"), false)?, "proc")?;
        place(&clone(Path::new("/sys"), false)?, "sys")?;
        place_cgroup(cgroup)?;
        place(&clone(Path::new("/dev"), true)?, "dev")?;
        let sources = place_sources(sources, spec)?;

        // The old root ends up on top of the new one and is then taken off, with all of the host's mounts.
        rustix::process::pivot_root(".", ".")
            .context("changing the root (is the host's root an initramfs?)")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).context("leaving the host's mounts")?;
        rustix::process::chdir("/").context("entering the stage")?;
        // Nothing is mounted there any more, here or on the host.
        let _ = rustix::fs::unlinkat(run_dir, POINT, rustix::fs::AtFlags::REMOVEDIR);

        let rootfs =
            rustix::fs::open(ROOTFS, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .context("opening the root file system")?;
        let stage = Self { rootfs, home, keep, sources };
        stage.guard()?;
        stage.check_destinations(spec)?;
        Ok(stage)
    }

    /// The host's mount namespace, to compare with.
    pub fn home(&self) -> &OwnedFd {
        &self.home
    }

    /// The container library works on `dev`, `proc` and `sys` by path, before it has changed the root: where one of
    /// them is a symbolic link it would work on the host (CVE-2026-41579).
    fn guard(&self) -> Result<()> {
        for name in ["dev", "proc", "sys"] {
            let found =
                tree::open_without_links(&self.rootfs, Path::new(name), OFlags::PATH | OFlags::NOFOLLOW);
            let is = match found {
                Err(Errno::NOENT) => continue,
                Err(Errno::LOOP) => "a symbolic link",
                Err(error) => return Err(error).with_context(|| format!("looking at /{name} in the image")),
                Ok(found) => {
                    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
                    if kind == FileType::Directory {
                        continue;
                    }
                    if kind == FileType::Symlink { "a symbolic link" } else { "no directory" }
                }
            };
            return Err(refused_image(format!(
                "/{name} in the image is {is}; it must be a directory or missing"
            )));
        }
        Ok(())
    }

    /// No mount may cover procfs or sysfs, or parts of them, but those that are procfs, sysfs and cgroups themselves.
    fn check_destinations(&self, spec: &mut Spec) -> Result<()> {
        for mount in spec.mounts_mut().iter_mut().flatten() {
            let given = mount.destination().clone();
            if !given.is_absolute() || given.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(invalid(format!(
                    "mount destination {} is not an absolute path",
                    given.display()
                )));
            }
            let normal = tree::normal(&given);
            let resolved = tree::resolve(&self.rootfs, &normal)
                .with_context(|| format!("looking up the mount destination {}", given.display()))?;
            if resolved == Path::new("/") {
                return Err(invalid(format!("mount destination {} is the root directory", given.display())));
            }
            let system = ["/proc", "/sys"].iter().any(|top| resolved.starts_with(top));
            if system && !may_cover_system(mount, &normal, &resolved, &self.sources) {
                let leads =
                    if resolved == normal { String::new() } else { format!(" ({})", resolved.display()) };
                return Err(invalid(format!(
                    "mount destination {}{leads} is in /proc or /sys, which nothing may cover; choose another",
                    given.display()
                )));
            }
            mount.set_destination(normal);
        }
        Ok(())
    }
}

/// What a spec of ours itself puts there, at exactly that place.
fn may_cover_system(mount: &Mount, normal: &Path, resolved: &Path, sources: &[(String, PathBuf)]) -> bool {
    if normal != resolved {
        return false;
    }
    let expected: &[&str] = match mount.typ().as_deref() {
        Some("proc") => &["/proc"],
        Some("sysfs") => &["/sys"],
        Some("cgroup" | "cgroup2") => &["/sys/fs/cgroup"],
        // Without namespaces of its own a container gets the host's, bound as they are.
        _ => {
            let source = mount.source().as_deref().and_then(Path::to_str).unwrap_or_default();
            let given = sources.iter().find(|(staged, _)| staged == source).map(|(_, given)| given.as_path());
            return given == Some(normal) && (normal == Path::new("/proc") || normal == Path::new("/sys"));
        }
    };
    expected.iter().any(|path| normal == Path::new(path))
}

/// The upper and work directories of an overlay, made if they are missing. Both on the same mount of our own
/// namespace, as overlayfs wants them.
struct UpperDirectories {
    upper: OwnedFd,
    work: OwnedFd,
}

impl UpperDirectories {
    fn open(request: &Create) -> Result<Option<Self>> {
        let Rootfs::Overlay { lower, upper, work, .. } = &request.rootfs else { return Ok(None) };
        let top = lower.first().ok_or_else(|| invalid("an overlay needs at least one layer".into()))?;
        let made = match std::fs::create_dir(upper) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(|| format!("making {}", upper.display())),
        };
        // Scratch space; a volatile mount leaves a mark in it that would forbid the next one.
        match std::fs::remove_dir_all(work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("clearing {}", work.display()));
            }
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir(work).with_context(|| format!("making {}", work.display()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |path: &Path| {
            rustix::fs::open(path, flags, Mode::empty())
                .with_context(|| format!("opening {}", path.display()))
        };
        let directories = Self { upper: open(upper)?, work: open(work)? };
        if made {
            // The merged root directory is the upper one, so it takes owner and mode from the image's.
            let stat = rustix::fs::stat(top).with_context(|| format!("opening layer {}", top.display()))?;
            let host = |id: u32| match request.id_map {
                Some(map) if id < map.size => map.host + id,
                Some(map) => map.host,
                None => id,
            };
            rustix::fs::fchown(
                &directories.upper,
                Some(rustix::fs::Uid::from_raw(host(stat.st_uid))),
                Some(rustix::fs::Gid::from_raw(host(stat.st_gid))),
            )
            .with_context(|| format!("giving {} to the container's root", upper.display()))?;
            rustix::fs::fchmod(&directories.upper, Mode::from_raw_mode(stat.st_mode & 0o7777))
                .with_context(|| format!("setting the mode of {}", upper.display()))?;
        }
        Ok(Some(directories))
    }
}

/// The stage covers a directory of its own: what else is in the run's directory may be the source of a mount.
fn mount_base(run_dir: &Path) -> Result<OwnedFd> {
    let doing = "mounting the stage";
    let point = run_dir.join(POINT);
    match rustix::fs::mkdir(&point, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("making {}", point.display())),
    }
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context(doing)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755").context(doing)?;
    rustix::mount::fsconfig_set_string(&context, "size", "8m").context(doing)?;
    rustix::mount::fsconfig_create(&context).context(doing)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let base = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).context(doing)?;
    rustix::mount::move_mount(base.as_fd(), "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("{doing} on {}", point.display()))?;
    Ok(base)
}

fn mount_rootfs(
    request: &Create,
    upper: Option<&UpperDirectories>,
    user_namespace: Option<&OwnedFd>,
) -> Result<()> {
    match (&request.rootfs, upper) {
        (Rootfs::Directory { path }, _) => {
            let stat = rustix::fs::stat(path).map_err(|error| {
                invalid(format!("root file system {} cannot be used: {error}", path.display()))
            })?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(invalid(format!("root file system {} is not a directory", path.display())));
            }
            let tree = clone(path, true)?;
            if let Some(user_namespace) = user_namespace {
                idmap::translate(&tree, user_namespace, true, path)?;
            }
            place(&tree, "rootfs")
        }
        (Rootfs::Overlay { lower, volatile, .. }, Some(upper)) => {
            let mut layers = Vec::with_capacity(lower.len());
            for (index, path) in lower.iter().enumerate() {
                let layer = clone(path, false).with_context(|| format!("image layer {}", path.display()))?;
                if let Some(user_namespace) = user_namespace {
                    idmap::translate(&layer, user_namespace, false, path)?;
                }
                let target = format!("l/{index}");
                make_directory(&target)?;
                place(&layer, &target)?;
                layers.push(target);
            }
            // Short relative names keep many layers within the page that mount(2) takes, and the container's mount
            // table free of the host's paths. Attached layers, since older kernels refuse detached ones.
            let options = format!(
                "lowerdir={},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{},index=off,metacopy=off{}",
                layers.join(":"),
                upper.upper.as_raw_fd(),
                upper.work.as_raw_fd(),
                if *volatile { ",volatile" } else { "" },
            );
            let options = std::ffi::CString::new(options).context("overlay options")?;
            rustix::mount::mount("overlay", "rootfs", "overlay", MountFlags::empty(), options.as_c_str())
                .with_context(|| format!("mounting an overlay of {} layers", layers.len()))
        }
        (Rootfs::Overlay { .. }, None) => bail!("the overlay has no upper directory"),
    }
}

/// The source of a bind mount, ready to be mounted elsewhere.
struct Source {
    /// Its mount in the spec.
    index: usize,
    given: PathBuf,
    tree: OwnedFd,
    is_directory: bool,
}

/// Open the sources of bind mounts, translated where asked for.
fn open_sources(request: &Create, spec: &Spec, user_namespace: Option<&OwnedFd>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let has = |option: &str| mount.options().iter().flatten().any(|given| given == option);
        let recursive = has("rbind");
        if mount.typ().as_deref() != Some("bind") && !recursive && !has("bind") {
            continue;
        }
        let destination = mount.destination().display().to_string();
        let Some(given) = mount.source().clone().filter(|source| source.is_absolute()) else {
            return Err(invalid(format!("the volume at {destination} has no absolute source")));
        };
        let stat = rustix::fs::stat(&given).map_err(|error| {
            invalid(format!(
                "the source {} of the volume at {destination} cannot be used: {error}",
                given.display()
            ))
        })?;
        let tree = clone(&given, recursive)?;
        if let Some(user_namespace) = user_namespace.filter(|_| request.idmapped_mounts.contains(&index)) {
            idmap::translate(&tree, user_namespace, recursive, &given)?;
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        sources.push(Source { index, given, tree, is_directory });
    }
    Ok(sources)
}

/// Take the sources of bind mounts along: the container's root may not walk to them on the host, and translated
/// mounts are more than the library can do.
fn place_sources(sources: Vec<Source>, spec: &mut Spec) -> Result<Vec<(String, PathBuf)>> {
    let mut placed = Vec::with_capacity(sources.len());
    for Source { index, given, tree, is_directory } in sources {
        let target = format!("m/{index}");
        if is_directory {
            make_directory(&target)?;
        } else {
            std::fs::File::create(&target).with_context(|| format!("making {target}"))?;
        }
        place(&tree, &target)?;
        if let Some(mount) = spec.mounts_mut().as_mut().and_then(|mounts| mounts.get_mut(index)) {
            mount.set_source(Some(PathBuf::from(format!("/{target}"))));
        }
        placed.push((format!("/{target}"), given));
    }
    Ok(placed)
}

/// Show the container library a host that has nothing but cgroup v2, and let it put its processes into their cgroup
/// and kill those in it without effect: they are born there, as is the creator. A write to `cgroup.procs` would wait
/// for an RCU grace period, some 10 ms; and its manager for v1 takes as long to read the mount table 24 times.
fn place_cgroup(cgroup: &Cgroup) -> Result<()> {
    place(&clone(cgroup.unified_mount_point(), false)?, "sys/fs/cgroup")?;
    for name in ["cgroup.procs", "cgroup.kill"] {
        let at = format!("sys/fs/cgroup/{}/{name}", cgroup.relative_path());
        match place(&clone(Path::new("/dev/null"), false)?, &at) {
            // cgroup.kill came with Linux 5.14.
            Err(_) if !Path::new(&at).exists() => {}
            result => result?,
        }
    }
    Ok(())
}

fn clone(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags).with_context(|| format!("opening {}", path.display()))
}

fn place(tree: &OwnedFd, at: &str) -> Result<()> {
    rustix::mount::move_mount(tree.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("mounting {at} on the stage"))
}

fn make_directory(name: &str) -> Result<()> {
    rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)).with_context(|| format!("making {name} on the stage"))
}

/// Make the working directory, as the container's root: its ids own it and its rights limit it.
pub fn make_working_directory(rootfs: &OwnedFd, cwd: &Path, user_namespace: Option<&OwnedFd>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let failed = |error: Errno| {
        invalid(format!("the working directory {} cannot be made in the image: {error}", cwd.display()))
    };
    match tree::open(rootfs, cwd, flags) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error)),
    }
    let Some(user_namespace) = user_namespace else {
        return tree::make_directories(rootfs, cwd).map(|_| ()).map_err(failed);
    };
    // SAFETY: the process is single-threaded; the child makes directories and leaves with _exit.
    match unsafe { crate::sys::fork(0, None) }.context("making a process")? {
        crate::sys::Forked::Parent { pid, .. } => {
            let status = crate::sys::wait(pid).context("waiting for a child")?;
            match wharf_protocol::exit::exit_code(status) {
                0 => Ok(()),
                code => Err(failed(Errno::from_raw_os_error(code))),
            }
        }
        crate::sys::Forked::Child => {
            let made = become_root_of(user_namespace).and_then(|()| tree::make_directories(rootfs, cwd));
            crate::sys::exit(made.err().map_or(0, |error| error.raw_os_error()));
        }
    }
}

fn become_root_of(user_namespace: &OwnedFd) -> Result<(), Errno> {
    use rustix::thread::{Gid, LinkNameSpaceType, Uid};
    rustix::thread::move_into_link_name_space(user_namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// The id on the host of an id in the container.
pub fn host_id(map: Option<IdMap>, id: u32) -> u32 {
    map.map_or(id, |map| map.host + id)
}

fn invalid(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into()
}

fn refused_image(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::RefusedImage, message, detail: Vec::new() }.into()
}
