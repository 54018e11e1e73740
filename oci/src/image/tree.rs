//! Removing directory trees whose content is not ours.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Open a directory beneath another, following no symbolic link.
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

/// Remove `name` in `parent`, whatever it is; nothing there is fine.
///
/// A tree of a layer can be deeper than a path or a stack may be long, so nothing here recurses or builds paths:
/// a subdirectory that is not empty is first moved up into `trash`, a directory of ours on the same file
/// system, and emptied there.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &CStr, trash: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let mut serial = 0_u64;
    let mut waiting = vec![discard(parent, name, trash, &mut serial)?];
    while let Some(name) = waiting.pop() {
        let dir = open_dir(trash, &name)?;
        for child in entries(dir.as_fd())? {
            match rustix::fs::unlinkat(&dir, &child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
            match rustix::fs::unlinkat(&dir, &child, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    waiting.push(discard(dir.as_fd(), &child, trash, &mut serial)?);
                }
                Err(error) => return Err(error),
            }
        }
        rustix::fs::unlinkat(trash, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Empty a directory of ours. Its subtrees are emptied inside itself.
pub(super) fn clear(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in entries(dir)? {
        remove(dir, &name, dir)?;
    }
    Ok(())
}

/// Empty and remove a directory of ours by its path.
pub(super) fn remove_dir(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    clear(dir.as_fd())?;
    rustix::fs::rmdir(path)
}

/// The names in a directory.
pub(super) fn entries(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Move a directory into the trash under a name that nothing there has.
#[expect(clippy::expect_used, reason = "impossible, as the text says")]
fn discard(
    parent: BorrowedFd<'_>,
    name: &CStr,
    trash: BorrowedFd<'_>,
    serial: &mut u64,
) -> Result<CString, Errno> {
    loop {
        *serial += 1;
        let new = CString::new(format!(".discarded-{serial}")).expect("no NUL in it");
        match rustix::fs::renameat_with(parent, name, trash, &new, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn trees_deeper_than_any_path_are_removed_without_following_links() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let ours = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(ours.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut dir = top.try_clone().unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&dir, c"dir", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(outside.path(), &dir, c"link").unwrap();
            dir = open_dir(dir.as_fd(), c"dir").unwrap();
        }
        std::fs::write(ours.path().join("file"), "x").unwrap();
        drop(dir);
        clear(top.as_fd()).unwrap();
        assert_eq!(entries(top.as_fd()).unwrap().len(), 0);
        assert!(outside.path().join("kept").exists());
        remove_dir(ours.path()).unwrap();
        assert!(!ours.path().exists());
    }
}
