//! An ext4 of a daemon's own in a file: it can be full, and its power can be cut.

use super::{Tool, eventually};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

mod request {
    // Linux, include/uapi/linux/fs.h: _IOR('X', 125, __u32); ext4 has had it as EXT4_IOC_SHUTDOWN since 4.10.
    nix::ioctl_read!(shutdown, b'X', 125, u32);
    /// Nothing of the journal's that is in memory reaches the disk any more.
    pub const NO_LOG_FLUSH: u32 = 2;
}

/// The file system, mounted.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Make one of `size` MiB in a file in `directory` and mount it at `point`.
    pub fn make(directory: &Path, size: u32, point: &Path) -> Self {
        let disk = Self { image: directory.join("disk.img"), point: point.to_owned() };
        let file = File::create(&disk.image).expect("a file for the disk");
        file.set_len(u64::from(size) << 20).expect("its size");
        // Everything is there for root too, and nothing is put off that would be written later.
        let mut tool = Tool::with("mke2fs", ["-q", "-t", "ext4", "-m", "0"]);
        tool.command().args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&disk.image);
        tool.ok();
        disk.mount();
        disk
    }

    /// Mount it; what is in the journal is done first.
    pub fn mount(&self) {
        Tool::with("mount", ["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.point.as_os_str()])
            .ok();
    }

    /// Unmount it. Whoever used it has ended, but the kernel may still be busy with them.
    pub fn unmount(&self) {
        let unmount = || Tool::with("umount", [&self.point]).output();
        eventually(20, "the disk can be unmounted", || unmount().status == 0);
        // As long as the loop device is there, mounting the file again would give the same, broken file system.
        eventually(20, "the loop device is free", || !self.is_attached());
    }

    /// Whatever is still there of it goes; for drops.
    pub fn discard(&self) {
        if Tool::with("umount", [&self.point]).output().status != 0 {
            Tool::with("umount", ["-l".as_ref(), self.point.as_os_str()]).output();
        }
    }

    fn is_attached(&self) -> bool {
        !Tool::with("losetup", ["-j".as_ref(), self.image.as_os_str()]).output().stdout.trim().is_empty()
    }

    /// From now on nothing reaches the disk, whatever the file system says; what it has been told to make durable
    /// must be there after the next mount.
    pub fn cut_power(&self) {
        let root = File::open(&self.point).expect("the disk is mounted");
        let mut how = request::NO_LOG_FLUSH;
        // SAFETY: the request reads a number from there.
        unsafe { request::shutdown(root.as_raw_fd(), &raw mut how) }.expect("ext4 can be shut down");
    }

    /// Is it in order? It must not be mounted, and its journal must be empty.
    pub fn check(&self) {
        Tool::with("e2fsck", ["-f".as_ref(), "-n".as_ref(), self.image.as_os_str()]).ok();
    }

    /// Take all that is free. Returns the file to remove.
    pub fn fill(&self) -> PathBuf {
        let path = self.point.join("full");
        let mut file = File::create(&path).expect("a file on the disk");
        for size in [1 << 20, 4096, 512] {
            let block = vec![b'x'; size];
            while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
        }
        path
    }
}
