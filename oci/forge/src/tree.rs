//! Reading and changing a tree that a container controls: every path is resolved by the kernel inside that tree.

use anyhow::{Context, Result};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// User databases above this are refused.
const MAX_FILE: u64 = 10 << 20;

/// Open `path` as if `root` were `/`; symbolic links stay inside, procfs' magic links are not followed.
pub fn open(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, ResolveFlags::empty())
}

/// As [`open`], but any symbolic link on the way is an error (ELOOP).
pub fn open_without_links(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, ResolveFlags::NO_SYMLINKS)
}

fn open_with(root: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel saw a rename somewhere while it followed `..` and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What a file in a container's tree turned out to be.
pub enum Content {
    /// There is no such file.
    Missing,
    /// Its text.
    Text(String),
    /// Not a regular file, or too large; in words.
    Refused(String),
}

/// Read a regular file of bounded size. Never blocks on a FIFO and never opens a device.
pub fn read(root: impl AsFd, path: &Path) -> Result<Content> {
    let found = match open(root, path, OFlags::PATH) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Content::Missing),
        Err(error) => return Ok(Content::Refused(format!("it cannot be opened: {error}"))),
    };
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Content::Refused("it is not a regular file".into()));
    }
    if stat.st_size as u64 > MAX_FILE {
        return Ok(Content::Refused(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    // Reopening the descriptor gives the very file that was looked at.
    let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
        .with_context(|| format!("opening {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(Content::Text(String::from_utf8_lossy(&bytes).into_owned()))
}

/// `path` without `.`, `..` and doubled slashes, always absolute. `..` at the top stays at the top.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Where `path` leads inside `root` once symbolic links are followed. What does not exist is kept as it is, also
/// behind a link: it may exist by the time that somebody mounts there.
pub fn resolve(root: impl AsFd, path: &Path) -> Result<PathBuf> {
    /// As many as the kernel follows.
    const MAX_LINKS: usize = 40;
    let mut links = 0;
    let mut done = PathBuf::from("/");
    let mut todo = components(path);
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        // No links before the last component, so nothing is followed.
        let found = match open(root.as_fd(), &next, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                done = next;
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("looking up {}", path.display())),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Symlink {
            done = next;
            continue;
        }
        links += 1;
        anyhow::ensure!(links <= MAX_LINKS, "too many symbolic links in {}", path.display());
        let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
        let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        todo.extend(components(target));
    }
    Ok(done)
}

/// Names and `..`, the first one last.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// Make the directory `path` and those above it, 0755, inside `root`. True if anything was made.
pub fn make_directories(root: impl AsFd, path: &Path) -> Result<bool, Errno> {
    let mut at = open(root.as_fd(), Path::new("/"), OFlags::PATH | OFlags::DIRECTORY)?;
    let mut so_far = PathBuf::from("/");
    let mut made = false;
    for component in normal(path).components() {
        let Component::Normal(name) = component else { continue };
        so_far.push(name);
        at = match open(root.as_fd(), &so_far, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                // One component below a directory that the kernel resolved: nothing to follow, nothing to escape.
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => made = true,
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
                open(root.as_fd(), &so_far, OFlags::PATH | OFlags::DIRECTORY)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn normal_paths_have_no_dots() {
        for (from, to) in [
            ("//proc", "/proc"),
            ("/x/../proc", "/proc"),
            ("/../../proc/./self", "/proc/self"),
            ("data", "/data"),
            ("/", "/"),
        ] {
            assert_eq!(normal(Path::new(from)), Path::new(to));
        }
    }

    #[test]
    fn links_are_resolved_inside_the_tree() {
        let dir = std::env::temp_dir().join(format!("wharf-tree-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("proc")).unwrap();
        let _ = std::os::unix::fs::symlink("/proc", dir.join("link"));
        let _ = std::os::unix::fs::symlink("../../../proc", dir.join("up"));
        let _ = std::os::unix::fs::symlink("link/../proc/sys/x", dir.join("dangling"));
        let _ = std::os::unix::fs::symlink("loop", dir.join("loop"));
        let root = rustix::fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let at = |path: &str| resolve(&root, Path::new(path)).unwrap();
        assert_eq!(at("/link/sys"), Path::new("/proc/sys"));
        assert_eq!(at("/up"), Path::new("/proc"));
        assert_eq!(at("/dangling"), Path::new("/proc/sys/x"));
        assert_eq!(at("/dangling/y/../z"), Path::new("/proc/sys/x/z"));
        assert!(resolve(&root, Path::new("/loop")).is_err());
        assert_eq!(at("/missing/../data/x"), Path::new("/data/x"));
        assert!(make_directories(&root, Path::new("/link/a/b")).unwrap());
        assert!(dir.join("proc/a/b").is_dir());
        assert!(!make_directories(&root, Path::new("/link/a/b")).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
