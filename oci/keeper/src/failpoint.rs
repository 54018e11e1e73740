//! Places where a test can kill the keeper: the file `fail.NAME` in the record's directory arms one. Only in builds with
//! the feature `failpoints`.

/// Die here if the point is armed.
#[cfg(feature = "failpoints")]
pub fn reach(file: &core::ffi::CStr) {
    if crate::sys::unlink_at(wharf_keeper::fd::RECORD_DIR, file).is_ok() {
        crate::sys::kill(crate::sys::own_pid(), linux_raw_sys::general::SIGKILL as i32);
    }
}

/// Die here if the point is armed.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_file: &core::ffi::CStr) {}
