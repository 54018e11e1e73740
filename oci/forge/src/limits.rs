//! Limits of a process that the forge may lack the right to raise: set as far as possible, with a warning.

use crate::capabilities;
use anyhow::{Context, Result};
use std::io;

/// What can be set of a resource limit: soft, hard, and what to tell the user. Our own hard limit is raised if that
/// is what it takes and we may; a container cannot raise it once it has ids of its own.
pub fn clamp(resource: u32, name: &str, soft: u64, hard: u64) -> Result<(u64, u64, Option<String>)> {
    let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the answer; the number comes from the kernel's own list.
    if unsafe { libc::getrlimit(resource, &raw mut own) } == -1 {
        return Err(io::Error::last_os_error()).with_context(|| format!("reading {name}"));
    }
    let soft = soft.min(hard);
    if hard <= own.rlim_max {
        return Ok((soft, hard, None));
    }
    if capabilities::own_effective() & capabilities::SYS_RESOURCE != 0 {
        let raised = libc::rlimit { rlim_cur: own.rlim_cur, rlim_max: hard };
        // SAFETY: a valid structure.
        if unsafe { libc::setrlimit(resource, &raw const raised) } == 0 {
            return Ok((soft, hard, None));
        }
    }
    let limit = own.rlim_max;
    let warning = format!("{name} {soft}:{hard} is above this host's hard limit and was set to {limit}");
    Ok((soft.min(limit), limit, Some(warning)))
}

/// The number of a resource by its name in the runtime spec.
pub fn resource(name: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 16] = [
        ("RLIMIT_AS", libc::RLIMIT_AS),
        ("RLIMIT_CORE", libc::RLIMIT_CORE),
        ("RLIMIT_CPU", libc::RLIMIT_CPU),
        ("RLIMIT_DATA", libc::RLIMIT_DATA),
        ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", libc::RLIMIT_NICE),
        ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        ("RLIMIT_RSS", libc::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// This process' oom_score_adj, which its children inherit.
pub fn own_oom_score_adjustment() -> Option<i32> {
    std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}

/// Set a process' oom_score_adj as low as we may.
pub fn adjust_oom_score(pid: i32, wanted: i32) -> Result<Option<String>> {
    let file = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&file, wanted.to_string()) {
        Ok(()) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            let stays = std::fs::read_to_string(&file).unwrap_or_default();
            Ok(Some(format!(
                "oom_score_adj {wanted} needs CAP_SYS_RESOURCE, which wharf's forge does not have; it stays at {}",
                stays.trim()
            )))
        }
        Err(error) => Err(error).with_context(|| format!("writing {wanted} to {file}")),
    }
}
