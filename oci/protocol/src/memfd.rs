//! Files in memory that nobody can change any more: programs, so that no container can write to the one that made it
//! (CVE-2019-5736), and filters.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The kernel may hold a page for a moment after it was written (it looks through memory, or moves it); it waits some
/// 150 ms for that itself, and then says EBUSY.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A file with `content`, to be read.
pub fn sealed(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    fill(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?, content)
}

/// A file with `content`, to be executed.
pub fn sealed_program(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd was executable and nobody knew the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    fill(memfd, content)
}

/// Its position stays at the beginning.
fn fill(memfd: OwnedFd, content: &[u8]) -> io::Result<OwnedFd> {
    let mut written = 0;
    while written < content.len() {
        written += rustix::io::pwrite(&memfd, &content[written..], written as u64)?;
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    for _ in 1..ATTEMPTS {
        match rustix::fs::fcntl_add_seals(&memfd, seals) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            sealing => return Ok(sealing.map(|()| memfd)?),
        }
    }
    rustix::fs::fcntl_add_seals(&memfd, seals)?;
    Ok(memfd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn content_is_read_from_the_beginning_and_cannot_be_changed() {
        for make in [sealed, sealed_program] {
            let memfd = make(c"test", b"content").expect("a file in memory");
            assert_eq!(rustix::io::pwrite(&memfd, b"x", 0), Err(Errno::PERM));
            assert_eq!(rustix::fs::ftruncate(&memfd, 0), Err(Errno::PERM));
            let mut text = String::new();
            std::fs::File::from(memfd).read_to_string(&mut text).expect("read");
            assert_eq!(text, "content");
        }
    }
}
