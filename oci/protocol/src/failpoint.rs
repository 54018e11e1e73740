//! Places where a test can kill the process that reaches them: exactly between two steps, where a random moment
//! seldom is. Only in builds with the feature `failpoints`; otherwise a point is nothing.
//!
//! A point is armed by making the file `fail.NAME` in the directory that [`watch`] was given. Whoever reaches it first
//! removes the file and is gone, so one point kills once, whichever process it is in and however that was started: the
//! forge and its children have no environment, and a creator has left the host's directories behind.

#[cfg(feature = "failpoints")]
static DIRECTORY: std::sync::OnceLock<rustix::fd::OwnedFd> = std::sync::OnceLock::new();

/// From now on points are armed in this directory.
#[cfg(feature = "failpoints")]
pub fn watch(directory: &std::path::Path) {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    if let Ok(directory) = rustix::fs::open(directory, flags, rustix::fs::Mode::empty()) {
        // After a second call the first still holds.
        let _ = DIRECTORY.set(directory);
    }
}

/// Die here if the point is armed.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    let Some(directory) = DIRECTORY.get() else { return };
    let file = format!("fail.{name}");
    if rustix::fs::unlinkat(directory, file, rustix::fs::AtFlags::empty()).is_ok() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// From now on points are armed in this directory.
#[cfg(not(feature = "failpoints"))]
pub fn watch(_directory: &std::path::Path) {}

/// Die here if the point is armed.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}
