//! Running from a sealed memfd, whatever the program was started from.

use crate::sys;
use anyhow::{Context, Result};
use rustix::fs::SealFlags;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use wharf_protocol::memfd;

/// Go on if this program already runs from a sealed memfd, otherwise start it again from one.
pub fn ensure_sealed() -> Result<()> {
    let own = std::fs::File::open("/proc/self/exe").context("opening /proc/self/exe")?;
    let wanted = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // A file on a file system has no seals and says EINVAL.
    if rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(wanted)) {
        return Ok(());
    }
    let content = std::fs::read("/proc/self/exe").context("reading /proc/self/exe")?;
    let memfd = memfd::sealed_program(c"wharf-forge", &content).context("putting the forge into a memfd")?;
    drop(content);
    let args: Vec<CString> = std::env::args_os()
        .map(|arg| CString::new(arg.as_bytes()).context("an argument"))
        .collect::<Result<_>>()?;
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    Err(sys::execute_fd(&memfd, &args, &[])).context("starting again from a sealed memfd")
}
