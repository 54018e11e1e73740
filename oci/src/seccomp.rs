//! System call filters: from a profile in Docker's JSON format to what the kernel loads.
//!
//! ```text
//! profile + capabilities ─► rules that apply ─► libseccomp ─► BPF ─► + prologue ─► memfd ─► creator
//! ```
//!
//! Compiling takes libseccomp some 20 ms, which would be the largest part of a start; filters are kept by
//! profile and capabilities, so that it happens once.
//!
//! The prologue is ours. libseccomp knows only the system calls of its own day; a newer one that the profile
//! names is decided here by its number. And a call newer than everything the profile knows fails with ENOSYS
//! instead of EPERM, since C libraries try new calls first and fall back only then.

mod bpf;
mod profile;

pub use profile::DEFAULT_PROFILE;

use crate::bundle::Invalid;
use rustix::fs::{MemfdFlags, SeekFrom};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled filter: an array of `struct sock_filter`.
pub type Filter = Arc<[u8]>;

/// The filter of [`DEFAULT_PROFILE`] for a container with these capabilities (`CAP_CHOWN`, …).
pub fn default_filter(capabilities: &[String]) -> Result<Filter, Invalid> {
    compile(DEFAULT_PROFILE, capabilities)
}

/// The filter of a profile in Docker's JSON format. `capabilities` decide its conditional rules.
pub fn compile(profile: &str, capabilities: &[String]) -> Result<Filter, Invalid> {
    /// One per combination of profile and capabilities in use; more than this is a loop that makes them up.
    const MOST_KEPT: usize = 64;
    static KEPT: Mutex<Option<HashMap<[u8; 32], Filter>>> = Mutex::new(None);

    let mut sorted: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut digest = Sha256::new();
    digest.update(profile);
    for name in &sorted {
        digest.update([0]);
        digest.update(name);
    }
    let key: [u8; 32] = digest.finalize().into();

    // Held while compiling: two containers that start together wait for one filter instead of making two.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    if let Some(filter) = kept.get(&key) {
        return Ok(filter.clone());
    }
    let filter: Filter = profile::compile(profile, &sorted)?.into();
    if kept.len() >= MOST_KEPT {
        kept.clear();
    }
    kept.insert(key, filter.clone());
    Ok(filter)
}

/// The filter in a file that nobody can change any more, to be passed to a creator.
pub fn as_memfd(filter: &[u8]) -> io::Result<OwnedFd> {
    wharf_protocol::memfd::sealed(c"seccomp", filter)
}

/// What a function that writes to a descriptor has written.
fn capture(write: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut file = File::from(rustix::fs::memfd_create("capture", MemfdFlags::CLOEXEC)?);
    write(file.as_fd())?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
