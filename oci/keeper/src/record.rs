//! How the container ended, as `exit.<run>`: complete, or absent.
//!
//! In place comes first, on the disk second: a killed wharfd or keeper loses nothing that has been renamed, and only
//! a power cut needs the disk, so nobody waits for it. wharfd writes down what it was told before it tells others.

use linux_raw_sys::errno;
use linux_raw_sys::general::{O_CREAT, O_DIRECTORY, O_TRUNC, O_WRONLY};
use wharf_keeper::{fd::RECORD_DIR, kind, size};

use crate::failpoint;
use crate::sys::{self, Errno};
use crate::text::Text;

/// How the container ended.
pub struct Exit {
    /// As wait4(2) gives it.
    pub status: i32,
    /// When, on CLOCK_REALTIME.
    pub realtime_ns: u64,
    /// When, on CLOCK_BOOTTIME.
    pub boottime_ns: u64,
}

impl Exit {
    /// The message EXITED.
    pub fn message(&self, dropped: u64) -> [u8; size::EXITED] {
        let mut message = [kind::EXITED; size::EXITED];
        message[1..5].copy_from_slice(&self.status.to_le_bytes());
        message[5..13].copy_from_slice(&self.realtime_ns.to_le_bytes());
        message[13..21].copy_from_slice(&self.boottime_ns.to_le_bytes());
        message[21..].copy_from_slice(&dropped.to_le_bytes());
        message
    }

    /// Put the record in place. `false`: try again later. A directory that was removed is not worth another try:
    /// nobody is left who would read it.
    pub fn is_recorded(&self, run: u64, dropped: u64) -> bool {
        match self.write(run, dropped) {
            Ok(()) | Err(Errno(errno::ENOENT)) => true,
            Err(_) => false,
        }
    }

    fn write(&self, run: u64, dropped: u64) -> sys::Result<()> {
        let text = Text::<160>::new().put(b"version 1\nstatus ").number(u64::from(self.status as u32));
        let text = text.put(b"\nrealtime_ns ").number(self.realtime_ns);
        let text = text.put(b"\nboottime_ns ").number(self.boottime_ns);
        let text = text.put(b"\ndropped_bytes ").number(dropped).put(b"\n");
        let name = Text::<40>::new().put(b"exit.").number(run);
        let fresh = Text::<40>::new().put(name.bytes()).put(b".tmp");

        let file = sys::open_at(RECORD_DIR, fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC)?;
        // A regular file takes a few bytes whole, or the disk is full.
        if sys::write(file.raw(), text.bytes())? != text.bytes().len() {
            return Err(Errno(errno::ENOSPC));
        }
        failpoint::reach(c"fail.keeper.written");
        sys::rename_at(RECORD_DIR, fresh.c_str(), name.c_str())
    }

    /// Bring the record to the disk, as far as that is possible: it may have been read and removed by now.
    pub fn sync(run: u64) {
        let name = Text::<40>::new().put(b"exit.").number(run);
        let synced = |name: &core::ffi::CStr, flags| match sys::open_at(RECORD_DIR, name, flags) {
            Ok(file) => sys::sync(file.raw()),
            Err(error) => Err(error),
        };
        let _ = synced(name.c_str(), 0);
        // Not RECORD_DIR itself: it may have been opened with O_PATH.
        let _ = synced(c".", O_DIRECTORY);
    }
}
