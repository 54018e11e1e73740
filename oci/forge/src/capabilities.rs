//! Capability sets as bit masks: from names, into the kernel, and back from /proc.

use std::io;

/// By number, as in linux/capability.h.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// To load a seccomp filter without no_new_privs.
pub const SYS_ADMIN: u64 = 1 << 21;
/// To drop from the bounding set.
pub const SETPCAP: u64 = 1 << 8;
/// To raise hard resource limits.
pub const SYS_RESOURCE: u64 = 1 << 24;

/// The mask of a list of names; the name that is none otherwise.
pub fn mask<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<u64, String> {
    names.into_iter().try_fold(0, |mask, name| {
        let number = NAMES.iter().position(|known| *known == name).ok_or_else(|| name.to_owned())?;
        Ok(mask | 1 << number)
    })
}

/// The names of a mask.
pub fn names(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| mask & 1 << number != 0).map(|(_, name)| *name)
}

/// What a process may have: as in the runtime spec, without the sets that we keep empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// The most that any program it executes can get.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
}

/// Take every capability outside `mask` from the bounding set for good. Needs CAP_SETPCAP if there is one.
pub fn bound(mask: u64) -> io::Result<()> {
    for number in 0..64u64 {
        if mask & 1 << number != 0 {
            continue;
        }
        // SAFETY: prctl with plain numbers.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } {
            0 => {}
            1 => {
                // SAFETY: likewise.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            // The kernel knows no further ones.
            _ => break,
        }
    }
    Ok(())
}

/// Set the effective and permitted sets, and empty the inheritable and with it the ambient set.
pub fn set(effective: u64, permitted: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// _LINUX_CAPABILITY_VERSION_3.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: 0,
    };
    let data = [half(0), half(32)];
    // SAFETY: header and data are as capset(2) version 3 expects them.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Our own effective set.
pub fn own_effective() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_mask(&status, "CapEff:").unwrap_or(0)
}

/// A mask out of /proc/PID/status.
pub fn status_mask(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_masks_are_the_kernels() {
        assert_eq!(mask(["CAP_CHOWN", "CAP_SYS_ADMIN"]).unwrap(), 1 | SYS_ADMIN);
        assert_eq!(mask(["CAP_SETPCAP", "CAP_SYS_RESOURCE"]).unwrap(), SETPCAP | SYS_RESOURCE);
        assert_eq!(mask(["CAP_CHECKPOINT_RESTORE"]).unwrap(), 1 << 40);
        assert_eq!(mask(["cap_chown"]).unwrap_err(), "cap_chown");
        assert_eq!(names(1 | SYS_ADMIN).collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        assert_eq!(status_mask("CapEff:\t00000000a80425fb\n", "CapEff:"), Some(0xa804_25fb));
    }
}
