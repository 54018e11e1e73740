//! Which capabilities a container has. They are the bounding, permitted and effective set alike; inheritable and
//! ambient stay empty, always (CVE-2022-24769 and its kin). So a process of root has all that are granted; for
//! any other user the kernel clears permitted and effective at execve, as it does under Docker, and only the
//! bounding set remains.

use super::config::Security;
use super::{Host, Invalid, nearest};

/// Podman's default: what images with a root user really use.
const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All that exist, in the kernel's order: the index is the number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names that are granted, `CAP_` in front, in the kernel's order. An explicitly added name wins over a drop of
/// `ALL`, an explicitly dropped one over an addition of `ALL`.
pub fn granted(security: &Security, host: &Host) -> Result<Vec<String>, Invalid> {
    let add = parse("security.capAdd", &security.cap_add, host)?;
    let drop = parse("security.capDrop", &security.cap_drop, host)?;
    if let Some(both) = add.names.iter().find(|name| drop.names.contains(name)) {
        return Err(Invalid::new(
            "security.capAdd",
            both,
            "is both added and dropped",
            "name it in one list only",
        ));
    }
    let is_granted = |name: &'static str| {
        if add.names.contains(&name) {
            return true;
        }
        let before = add.all || (DEFAULT.contains(&name) && !drop.all);
        // Both lists ALL: what is not named explicitly is dropped, the safer reading.
        before && !drop.all && !drop.names.contains(&name)
    };
    Ok(known(host).filter(|name| is_granted(name)).map(|name| format!("CAP_{name}")).collect())
}

/// Capabilities from which one can take all others.
pub fn is_as_good_as_root(name: &str) -> bool {
    matches!(name, "CAP_SYS_ADMIN" | "CAP_SYS_MODULE" | "CAP_SYS_RAWIO" | "CAP_SYS_PTRACE" | "CAP_BPF")
}

/// What the running kernel knows.
fn known(host: &Host) -> impl Iterator<Item = &'static str> {
    ALL.into_iter().take(host.last_capability as usize + 1)
}

struct Parsed {
    all: bool,
    names: Vec<&'static str>,
}

fn parse(field: &str, list: &[String], host: &Host) -> Result<Parsed, Invalid> {
    let mut parsed = Parsed { all: false, names: Vec::new() };
    for (index, written) in list.iter().enumerate() {
        let upper = written.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            parsed.all = true;
            continue;
        }
        match known(host).find(|known| *known == name) {
            Some(known) => parsed.names.push(known),
            None => {
                let fix = match nearest(name, known(host)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "see capabilities(7) for the names".to_owned(),
                };
                let field = format!("{field}[{index}]");
                return Err(Invalid::new(field, written, "is no capability of this kernel", fix));
            }
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(add: &[&str], drop: &[&str]) -> Result<Vec<String>, Invalid> {
        let strings = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { cap_add: strings(add), cap_drop: strings(drop), ..Security::default() };
        granted(&security, &Host::example())
    }

    #[test]
    fn eleven_by_default() {
        let granted = with(&[], &[]).unwrap();
        assert_eq!(granted.len(), 11);
        assert!(!granted.contains(&"CAP_NET_RAW".to_owned()));
    }

    #[test]
    fn names_are_taken_with_and_without_prefix_in_any_case() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert!(with(&[name], &[]).unwrap().contains(&"CAP_NET_ADMIN".to_owned()), "{name}");
        }
    }

    #[test]
    fn all_and_named_ones_combine() {
        assert_eq!(with(&[], &["ALL"]).unwrap(), Vec::<String>::new());
        assert_eq!(with(&["CHOWN"], &["all"]).unwrap(), ["CAP_CHOWN"]);
        assert_eq!(with(&["ALL"], &[]).unwrap().len(), 41);
        let without = with(&["ALL"], &["SYS_ADMIN"]).unwrap();
        assert_eq!((without.len(), without.contains(&"CAP_SYS_ADMIN".to_owned())), (40, false));
        assert_eq!(with(&["ALL"], &["ALL"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn unknown_name_gets_the_nearest_one() {
        let error = with(&["CHOWN", "NET_ADMN"], &[]).unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.fix.as_str()),
            ("security.capAdd[1]", "did you mean NET_ADMIN?")
        );
        assert!(with(&[], &["BANANA"]).is_err());
        assert!(with(&[], &[""]).is_err());
        assert!(with(&["CHOWN"], &["CHOWN"]).is_err());
    }

    #[test]
    fn older_kernel_is_not_asked_for_what_it_does_not_know() {
        let host = Host { last_capability: 37, ..Host::example() };
        let security = Security { cap_add: vec!["ALL".into()], ..Security::default() };
        assert_eq!(granted(&security, &host).unwrap().len(), 38);
        let security = Security { cap_add: vec!["BPF".into()], ..Security::default() };
        assert!(granted(&security, &host).is_err());
    }
}
