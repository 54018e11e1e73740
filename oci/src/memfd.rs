//! Files in memory that nobody can change any more.

use rustix::fs::SealFlags;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The kernel may hold a page for a moment after it was written (it looks through memory, or moves it); it waits some
/// 150 ms for that itself, and then says EBUSY.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Forbid every change of the file, for ever.
pub fn seal(memfd: impl AsFd) -> io::Result<()> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    for _ in 1..ATTEMPTS {
        match rustix::fs::fcntl_add_seals(&memfd, seals) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            sealed => return Ok(sealed?),
        }
    }
    Ok(rustix::fs::fcntl_add_seals(&memfd, seals)?)
}
