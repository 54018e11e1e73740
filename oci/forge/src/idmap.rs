//! A range of ids of the container's own: the user namespace that describes it, and mounts that translate by it.

use crate::sys::{self, Forked};
use anyhow::{Context, Result};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::path::Path;
use wharf_protocol::{Failure, FailureKind, IdMap};

/// A user namespace in which 0..size is `host`..`host + size`. It lives as long as the descriptor.
pub fn user_namespace(map: IdMap) -> Result<OwnedFd> {
    if map.size == 0 || map.host.checked_add(map.size).is_none() {
        let message = format!("the id range {}+{} is empty or too high", map.host, map.size);
        return Err(Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into());
    }
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the forge's children are single-threaded, and this one only waits for its end.
    let holder = match unsafe { sys::fork(libc::CLONE_NEWUSER, None) } {
        Ok(Forked::Parent { pid, pidfd }) => Holder { pid, pidfd },
        Ok(Forked::Child) => {
            // SAFETY: plain system calls. Without us nobody would end this process.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                loop {
                    libc::pause();
                }
            }
        }
        Err(error) => {
            let message = format!(
                "this host gives no user namespace ({error}; see user.max_user_namespaces in sysctl); \
                 --userns=host does without"
            );
            return Err(Failure { kind: FailureKind::Unsupported, message, detail: Vec::new() }.into());
        }
    };
    let line = format!("0 {} {}\n", map.host, map.size);
    for file in ["uid_map", "gid_map"] {
        let file = format!("/proc/{}/{file}", holder.pid);
        std::fs::write(&file, &line).with_context(|| format!("writing {file}"))?;
    }
    let path = format!("/proc/{}/ns/user", holder.pid);
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context("opening the user namespace")
}

/// The process that the namespace needs until it has a descriptor.
struct Holder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = sys::signal(&self.pidfd, libc::SIGKILL);
        let _ = sys::wait(self.pid);
    }
}

/// Make a detached mount translate ids by `user_namespace`. `path` is what the user calls it.
pub fn translate(mount: impl AsFd, user_namespace: impl AsFd, recursive: bool, path: &Path) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    sys::mount_setattr(mount, flags, &attributes).map_err(|error| unsupported(path, &error))
}

fn unsupported(path: &Path, error: &io::Error) -> anyhow::Error {
    let message = format!(
        "the file system of {} ({}) cannot translate ids for the container's own range: {error}; put it on another \
         file system (ext4, xfs, btrfs, tmpfs), or run with --userns=host, which gives up that protection",
        path.display(),
        file_system(path).unwrap_or_else(|| "unknown".into()),
    );
    Failure { kind: FailureKind::Unsupported, message, detail: Vec::new() }.into()
}

/// The file system's type as the mount table has it.
fn file_system(path: &Path) -> Option<String> {
    let stat = rustix::fs::statx(
        rustix::fs::CWD,
        path,
        rustix::fs::AtFlags::empty(),
        rustix::fs::StatxFlags::MNT_ID,
    )
    .ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let id = format!("{} ", stat.stx_mnt_id);
    let line = table.lines().find(|line| line.starts_with(&id))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}
