//! Kernel parameters: only those that belong to a namespace of the container's own. Names and values are taken
//! from a small alphabet, since a `+` or `=` in the wrong place has once led from here to root on the host
//! (CVE-2022-0811).

use super::config::Network;
use super::{Config, Invalid};
use std::collections::BTreeMap;

/// Parameters of an IPC namespace.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The checked parameters, by name.
pub fn checked(config: &Config) -> Result<BTreeMap<String, String>, Invalid> {
    let mut checked = BTreeMap::new();
    for (name, value) in &config.sysctls {
        let field = format!("sysctls.{name}");
        if !is_name(name) {
            return Err(Invalid::new(
                "sysctls",
                name,
                "is no name of a kernel parameter",
                "write it with dots, such as net.core.somaxconn",
            ));
        }
        if let Some((problem, fix)) = refusal(name, config.network) {
            return Err(Invalid::new("sysctls", name, problem, fix));
        }
        if !is_value(value) {
            return Err(Invalid::new(
                field,
                value,
                "is no value of a kernel parameter",
                "use letters, digits, spaces and . _ : , / - only, at most 256 in all",
            ));
        }
        if checked.insert(name.clone(), value.clone()).is_some() {
            return Err(Invalid::new("sysctls", name, "is given twice", "give it once"));
        }
    }
    Ok(checked)
}

fn refusal(name: &str, network: Network) -> Option<(&'static str, &'static str)> {
    let own = "leave it out: only parameters of the container's own namespaces can be set \
               (net.*, fs.mqueue.*, kernel.msg*, kernel.sem, kernel.shm*, kernel.domainname)";
    match (name, network) {
        (name, Network::None) if name.starts_with("net.") => None,
        (name, Network::Host) if name.starts_with("net.") => {
            Some(("would change the host's network", "leave it out, or give the container its own network"))
        }
        ("kernel.hostname", _) => Some(("has a field of its own", "use hostname")),
        ("kernel.domainname", _) => None,
        (name, _) if name.starts_with("fs.mqueue.") || IPC.contains(&name) => None,
        _ => Some(("belongs to the whole host", own)),
    }
}

/// Parts of letters, digits, `_` and `-`, at least two, with single dots between them. No `/`: with both
/// separators allowed, one file has many names.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    name.len() <= 128 && name.contains('.') && name.split('.').all(part)
}

fn is_value(value: &str) -> bool {
    let known = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'\t' | b'.' | b'_' | b':' | b',' | b'/' | b'-')
    };
    !value.trim().is_empty() && value.len() <= 256 && value.bytes().all(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, value: &str, network: Network) -> Result<BTreeMap<String, String>, Invalid> {
        let sysctls = vec![(name.to_owned(), value.to_owned())];
        checked(&Config { sysctls, network, ..Config::new("0".repeat(64), None) })
    }

    #[test]
    fn namespaced_parameters_are_taken() {
        for (name, value) in [
            ("net.core.somaxconn", "1024"),
            ("net.ipv4.ip_local_port_range", "1024\t65535"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
            ("net.ipv4.conf.eth0.rp_filter", "1"),
            ("net.ipv4.tcp_congestion_control", "bbr"),
            ("kernel.sem", "250 32000 32 128"),
            ("kernel.shm_rmid_forced", "1"),
            ("kernel.msgmax", "65536"),
            ("fs.mqueue.msg_max", "64"),
            ("kernel.domainname", "example.org"),
        ] {
            assert_eq!(check(name, value, Network::None).unwrap()[name], value);
        }
    }

    #[test]
    fn network_of_the_host_is_not_changed() {
        assert!(check("net.core.somaxconn", "1", Network::Host).is_err());
        assert!(check("kernel.sem", "1 1 1 1", Network::Host).is_ok());
    }

    /// T12.
    #[test]
    fn two_hundred_hostile_pairs_are_refused() {
        let host_wide = [
            "kernel.core_pattern",
            "kernel.modprobe",
            "kernel.hostname",
            "kernel.sysrq",
            "kernel.panic",
            "vm.swappiness",
            "vm.overcommit_memory",
            "fs.file-max",
            "fs.suid_dumpable",
            "kernel.pid_max",
            "kernel.shmmaxx",
            "kernel.msg",
            "user.max_user_namespaces",
            "kernel.unprivileged_bpf_disabled",
            "dev.tty.ldisc_autoload",
            "kernel.shm",
            "kernel.ns_last_pid",
            "kernel.cap_last_cap",
            "abi.vsyscall32",
            "debug.exception-trace",
        ];
        let malformed = [
            "",
            ".",
            "..",
            "net",
            "net.",
            ".net.core",
            "net..core",
            "net.core.",
            "net/core/somaxconn",
            "net.core/../../kernel.core_pattern",
            "net.core.somaxconn=1+kernel.core_pattern",
            "net.core somaxconn",
            "net.core.somaxconn\n",
            "net.core.somaxconn\0",
            "net.%2e%2e.x",
            "net.*",
            "net.c\u{f6}re",
            "kernel.sem ",
            " kernel.sem",
            "net.../x",
        ];
        let values = [
            "1+kernel.core_pattern=|/bin/sh",
            "1\nkernel.core_pattern=x",
            "1\0",
            "=",
            "+",
            "|/bin/sh",
            "$(id)",
            "`id`",
            "",
            "   ",
            "1;2",
            "1&2",
            "a\rb",
            "\u{1b}[0m",
            "\u{e4}",
            "'",
            "\"",
            "\\",
            "{",
            "*",
        ];
        let mut refused = 0;
        for name in host_wide.iter().chain(&malformed) {
            for value in ["1", "0", "|/bin/sh", "1+x=2"] {
                assert!(check(name, value, Network::None).is_err(), "{name:?}={value:?}");
                refused += 1;
            }
        }
        for value in values {
            for name in ["net.core.somaxconn", "kernel.sem"] {
                assert!(check(name, value, Network::None).is_err(), "{name:?}={value:?}");
                refused += 1;
            }
        }
        assert_eq!(refused, 200);
        assert!(check("net.core.somaxconn", &"1".repeat(257), Network::None).is_err());
    }

    #[test]
    fn same_name_twice_is_refused() {
        let pair = ("kernel.sem".to_owned(), "1 1 1 1".to_owned());
        let config = Config { sysctls: vec![pair.clone(), pair], ..Config::new("0".repeat(64), None) };
        assert!(checked(&config).is_err());
    }
}
