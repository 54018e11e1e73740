//! What a container is held by, seen from inside and from outside.

use std::os::unix::fs::MetadataExt;
use wharf_tests::e2e::{Wharf, field, number, status_line, status_of, text};

/// Podman's eleven, as a mask.
const DEFAULT_CAPABILITIES: u64 = {
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31
};

fn mask(status: &str, key: &str) -> u64 {
    u64::from_str_radix(&status_line(status, key), 16).expect("a hexadecimal mask")
}

#[test]
fn exec_is_held_as_init_is() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let exec = container.exec(["cat", "/proc/self/status"]);
    let init = container.exec(["cat", "/proc/1/status"]);
    let keys = [
        "Seccomp",
        "Seccomp_filters",
        "NoNewPrivs",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "Uid",
        "Gid",
    ];
    for key in keys {
        assert_eq!(status_line(&exec, key), status_line(&init, key), "{key}");
    }
    assert_eq!(status_line(&exec, "Seccomp"), "2");
    assert_eq!(status_line(&exec, "NoNewPrivs"), "1");
    assert_eq!(mask(&exec, "CapBnd"), DEFAULT_CAPABILITIES, "{exec}");
    assert_eq!(mask(&exec, "CapEff"), DEFAULT_CAPABILITIES);
    assert_eq!((mask(&exec, "CapInh"), mask(&exec, "CapAmb")), (0, 0));
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = format!("/proc/self/ns/{namespace}");
        let of_init = format!("/proc/1/ns/{namespace}");
        assert_eq!(
            container.exec(["readlink", &link]),
            container.exec(["readlink", &of_init]),
            "{namespace}"
        );
    }
}

#[test]
fn container_shares_no_namespace_with_the_host() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let pid = container.pid();
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let inside = std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        let outside = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(inside, outside, "{namespace}");
    }
    let host = wharf.run(["--network", "host", wharf.busybox(), "sleep", "1000"]);
    let inside = std::fs::read_link(format!("/proc/{}/ns/net", host.pid())).unwrap();
    assert_eq!(inside, std::fs::read_link("/proc/self/ns/net").unwrap(), "asked for");
}

#[test]
fn ids_differ_on_both_sides_and_between_containers() {
    let wharf = Wharf::shared();
    let one = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let two = wharf.run(["--user", "app", wharf.busybox(), "sleep", "1000"]);
    let first = |container: &wharf_tests::e2e::Container<'_>| {
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).unwrap();
        let numbers: Vec<u32> = map.split_whitespace().map(|text| text.parse().unwrap()).collect();
        assert_eq!((numbers.len(), numbers[0], numbers[2]), (3, 0, 65_536), "{map}");
        let gid_map = std::fs::read_to_string(format!("/proc/{}/gid_map", container.pid())).unwrap();
        assert_eq!(
            gid_map.split_whitespace().collect::<Vec<_>>(),
            map.split_whitespace().collect::<Vec<_>>()
        );
        numbers[1]
    };
    let (first_of_one, first_of_two) = (first(&one), first(&two));
    assert!(first_of_one.abs_diff(first_of_two) >= 65_536, "{first_of_one} and {first_of_two}");
    assert!(first_of_one >= 65_536);
    assert_eq!(
        status_of(one.pid(), "Uid").split_whitespace().next(),
        Some(first_of_one.to_string().as_str())
    );
    assert_eq!(
        status_of(two.pid(), "Uid").split_whitespace().next(),
        Some((first_of_two + 1000).to_string().as_str())
    );
    assert_eq!(one.exec(["id", "-u"]), "0");
    assert_eq!(two.exec(["id", "-u"]), "1000");
    assert_eq!(two.exec(["id", "-G"]), "1000 50", "groups of the image");
    // The map is also what inspect says.
    assert_eq!(field(&one.inspect(), "idMap")[0].as_u64(), Some(u64::from(first_of_one)));
}

#[test]
fn files_of_the_image_have_their_owners_inside() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let listing =
        wharf.ok(["run", "--rm", image, "stat", "-c", "%u:%g %a %n", "/data/owned", "/bin/busybox", "/tmp"]);
    assert_eq!(listing, "1000:1000 644 /data/owned\n0:0 755 /bin/busybox\n0:0 1777 /tmp");
}

#[test]
fn file_in_a_volume_has_the_right_owner_on_both_sides() {
    let wharf = Wharf::shared();
    let directory = wharf.scratch("volume-owner");
    std::fs::write(directory.join("of-host"), "host\n").unwrap();
    std::os::unix::fs::chown(&directory, Some(1000), Some(1000)).unwrap();
    std::os::unix::fs::chown(directory.join("of-host"), Some(1000), Some(1000)).unwrap();
    let volume = format!("{}:/vol", directory.display());
    let script = "stat -c %u:%g /vol/of-host; id -u; echo inside > /vol/of-app; cat /vol/of-host";
    let seen = wharf.ok(["run", "--rm", "-u", "app", "-v", &volume, wharf.busybox(), "sh", "-c", script]);
    assert_eq!(seen, "1000:1000\n1000\nhost");
    let written = std::fs::metadata(directory.join("of-app")).unwrap();
    assert_eq!((written.uid(), written.gid()), (1000, 1000), "on the host");

    let script = "touch /vol/of-root; stat -c %u:%g /vol/of-root";
    let seen = wharf.ok(["run", "--rm", "-v", &volume, wharf.busybox(), "sh", "-c", script]);
    assert_eq!(seen, "0:0");
    assert_eq!(std::fs::metadata(directory.join("of-root")).unwrap().uid(), 0);
}

#[test]
fn volume_whose_file_system_cannot_translate_ids_is_refused_with_a_way_out() {
    let wharf = Wharf::shared();
    // Of the kernel's own file systems sysfs is on every host, and has no idmapped mounts.
    let source = "/sys/devices/system/cpu";
    let volume = format!("{source}:/vol:ro");
    let with = |mode: &str| {
        wharf.output([
            "run",
            "--rm",
            "--userns",
            mode,
            "-v",
            &volume,
            wharf.busybox(),
            "cat",
            "/vol/possible",
        ])
    };
    let refused = with("private");
    assert_eq!(refused.status, 125, "{}{}", refused.stdout, refused.stderr);
    for word in [source, "sysfs", "cannot translate ids", "--userns=host"] {
        assert!(refused.stderr.contains(word), "no {word:?} in {}", refused.stderr);
    }
    let host = with("host");
    assert_eq!(host.status, 0, "{}", host.stderr);
    assert_eq!(host.stdout, std::fs::read_to_string(format!("{source}/possible")).unwrap());
}

#[test]
fn read_only_volume_cannot_be_written_and_volumes_are_nosuid_nodev() {
    let wharf = Wharf::shared();
    let directory = wharf.scratch("volume-ro");
    let volume = format!("{}:/vol:ro", directory.display());
    let output = wharf.output(["run", "--rm", "-v", &volume, wharf.busybox(), "touch", "/vol/x"]);
    assert_ne!(output.status, 0);
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    let volume = format!("{}:/vol", directory.display());
    let mounts =
        wharf.ok(["run", "--rm", "-v", &volume, wharf.busybox(), "grep", " /vol ", "/proc/self/mountinfo"]);
    assert!(mounts.contains("nosuid") && mounts.contains("nodev"), "{mounts}");
}

#[test]
fn host_user_namespace_is_possible_and_warned_about() {
    let wharf = Wharf::shared();
    let container = wharf.run(["--userns", "host", wharf.busybox(), "sleep", "1000"]);
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).unwrap();
    assert_eq!(map, std::fs::read_to_string("/proc/self/uid_map").unwrap());
    assert_eq!(container.exec(["id", "-u"]), "0");
    let warnings = field(&container.inspect(), "warnings").to_string();
    assert!(warnings.contains("user namespace"), "{warnings}");
    assert_eq!(container.exec(["stat", "-c", "%u", "/data/owned"]), "1000");
}

#[test]
fn only_standard_streams_are_open() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", container.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    // ls has one more of its own, the directory.
    assert_eq!(container.exec(["ls", "/proc/self/fd"]), "0\n1\n2\n3");
}

#[test]
fn kernel_and_socket_families_are_out_of_reach() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    for (what, script) in [
        ("mount", "mount -t tmpfs none /tmp"),
        ("unshare", "unshare -U true"),
        ("sysctl", "echo 1 > /proc/sys/kernel/panic"),
        ("sysrq", "echo h > /proc/sysrq-trigger"),
        ("device", "mknod /tmp/disk b 254 0 && cat /tmp/disk"),
        ("reboot", "reboot -f"),
        ("hostname", "hostname other"),
    ] {
        let output = wharf.output(["exec", container.id(), "sh", "-c", script]);
        assert_ne!(output.status, 0, "{what}: {}", output.stdout);
    }
    // What moby's profile leaves out: the kernel's ciphers, and the way to the host of a virtual machine.
    let socket = |options: &[&str], family: &str| {
        wharf.output([&["run", "--rm"], options, &["wharf/demo", "socket", family]].concat())
    };
    for (what, family) in [("AF_ALG", "38"), ("AF_VSOCK", "40")] {
        // Also a kernel without the family has an error for it, but not this one.
        let refused = "Operation not permitted";
        let held = socket(&[], family);
        assert!(held.status == 2 && held.stderr.contains(refused), "{what}: {} {}", held.status, held.stderr);
        let free = socket(&["--security-opt", "seccomp=unconfined"], family);
        assert!(!free.stderr.contains(refused), "{what}, not by the filter: {}", free.stderr);
    }
    for (what, family) in [("AF_UNIX", "1"), ("AF_INET", "2")] {
        let output = socket(&[], family);
        assert_eq!(output.status, 0, "{what}: {}", output.stderr);
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"] {
        assert_eq!(
            container.exec(["sh", "-c", &format!("cat {path} 2>/dev/null | head -c 1 | wc -c")]),
            "0",
            "{path}"
        );
    }
    for path in ["/sys/firmware", "/proc/acpi", "/proc/scsi"] {
        let script = format!("[ ! -e {path} ] || ls -A {path} | wc -l");
        let count = container.exec(["sh", "-c", &script]);
        assert!(count.is_empty() || count == "0", "{path}: {count}");
    }
}

#[test]
fn capabilities_are_added_and_dropped() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let bounding = |arguments: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(arguments);
        all.extend([image, "cat", "/proc/self/status"]);
        mask(&wharf.ok(all), "CapBnd")
    };
    assert_eq!(bounding(&["--cap-drop", "ALL"]), 0);
    assert_eq!(bounding(&["--cap-drop", "all", "--cap-add", "NET_BIND_SERVICE"]), 1 << 10);
    assert_eq!(bounding(&["--cap-add", "CAP_NET_ADMIN"]), DEFAULT_CAPABILITIES | 1 << 12);
    assert_eq!(bounding(&["--cap-drop", "chown"]), DEFAULT_CAPABILITIES & !1);
}

#[test]
fn user_other_than_root_has_no_effective_capabilities() {
    let wharf = Wharf::shared();
    let status = wharf.ok(["run", "--rm", "-u", "app", wharf.busybox(), "cat", "/proc/self/status"]);
    assert_eq!((mask(&status, "CapEff"), mask(&status, "CapPrm")), (0, 0));
    assert_eq!(mask(&status, "CapBnd"), DEFAULT_CAPABILITIES);
}

#[test]
fn seccomp_profiles_can_be_replaced_or_switched_off() {
    let wharf = Wharf::shared();
    let image = wharf.busybox();
    let run = |option: &str, script: &str| {
        wharf.output(["run", "--rm", "--security-opt", option, image, "sh", "-c", script])
    };
    let seccomp = |output: &str| status_line(output, "Seccomp");
    assert_eq!(seccomp(&run("seccomp=unconfined", "cat /proc/self/status").stdout), "0");
    let profile = wharf.scratch("profile").join("no-mkdir.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#,
    )
    .unwrap();
    let option = format!("seccomp={}", profile.display());
    let output = run(&option, "mkdir /tmp/x; echo $?; cat /proc/self/status");
    assert!(output.stderr.contains("Operation not permitted"), "{}", output.stderr);
    assert_eq!(seccomp(&output.stdout), "2");
}

#[test]
fn containers_do_not_see_the_environment_of_the_daemon() {
    let wharf = Wharf::start();
    wharf.stop_daemon();
    wharf.launch_with(&[("CANARY_OF_THE_DAEMON", "1"), ("LISTEN_FDS", "2"), ("LISTEN_PID", "1")]);
    let environment = wharf.ok(["run", "--rm", wharf.busybox(), "env"]);
    assert!(!environment.contains("CANARY") && !environment.contains("LISTEN_"), "{environment}");
    assert!(environment.contains("FROM_IMAGE=yes") && environment.contains("HOME=/root"), "{environment}");
    let listing = wharf.ok(["run", "--rm", wharf.busybox(), "ls", "/proc/self/fd"]);
    assert_eq!(listing, "0\n1\n2\n3");
}

#[test]
fn programs_of_ours_cannot_be_overwritten_from_inside() {
    let wharf = Wharf::shared();
    // The container's init is the image's own program; ours is only ever seen as a sealed memfd.
    let container = wharf.run(["--init", wharf.busybox(), "sleep", "1000"]);
    let script = "cat /proc/1/exe > /tmp/copy && (echo x >> /proc/1/exe) 2>&1; echo status $?";
    let output = container.exec(["sh", "-c", script]);
    assert!(output.contains("status 1"), "{output}");
}

#[test]
fn devices_are_out_of_reach_even_for_the_hosts_root() {
    let wharf = Wharf::shared();
    // The terminal of the system is a device on every host, and not the container's.
    let script = "mknod /tmp/null c 1 3 && echo x > /tmp/null && echo null; \
        mknod /tmp/other c 4 0 2> /dev/null && echo other made; mknod /tmp/disk b 1 0 2> /dev/null && echo disk made; true";
    let root = ["run", "--rm", "--userns", "host", "--cap-add", "MKNOD", wharf.busybox(), "sh", "-c", script];
    assert_eq!(wharf.ok(root), "null");
    let mapped = ["run", "--rm", "--cap-add", "MKNOD", wharf.busybox(), "sh", "-c", script];
    assert_eq!(wharf.ok(mapped), "");
}

#[test]
fn what_spares_the_daemon_from_the_out_of_memory_killer_spares_no_container() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1000"]);
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let expected = own.max(0).to_string();
    assert_eq!(container.exec(["cat", "/proc/1/oom_score_adj"]), expected);
    assert_eq!(container.exec(["cat", "/proc/self/oom_score_adj"]), expected);
}

#[test]
fn hostile_image_cannot_reach_the_host_through_dev() {
    let wharf = Wharf::shared();
    let canary = wharf.scratch("canary");
    std::fs::write(canary.join("ptmx"), "canary").unwrap();
    let root = wharf.scratch("hostile-rootfs");
    wharf_tests::e2e::image::busybox_rootfs(&root);
    std::fs::remove_dir(root.join("dev")).unwrap();
    std::os::unix::fs::symlink(&canary, root.join("dev")).unwrap();
    let output = wharf.output(["run", "--rm", "--rootfs", &root.display().to_string(), "true"]);
    assert_eq!(output.status, 125, "{}", output.stderr);
    assert!(output.stderr.contains("dev"), "{}", output.stderr);
    let entries: Vec<_> =
        std::fs::read_dir(&canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["ptmx"], "the host's directory is as it was");
    assert_eq!(std::fs::read_to_string(canary.join("ptmx")).unwrap(), "canary");
}

#[test]
fn store_and_sockets_are_closed_to_other_users() {
    let wharf = Wharf::shared();
    wharf.busybox();
    for directory in [wharf.state_dir(), wharf.runtime_dir()] {
        let mode = std::fs::metadata(&directory).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", directory.display());
    }
    let mode = std::fs::metadata(wharf.socket()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let abstract_sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(
        !abstract_sockets.contains(&format!("@{}", wharf.name())) && !abstract_sockets.contains("@wharf")
    );
}

#[test]
fn pid_is_the_hosts_and_the_command_line_the_containers() {
    let wharf = Wharf::shared();
    let container = wharf.run([wharf.busybox(), "sleep", "1234"]);
    let state = container.inspect();
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", number(&state, "pid"))).unwrap();
    assert_eq!(cmdline, b"sleep\x001234\0");
    assert!(text(&state, "cgroup").starts_with(&format!("/{}/", wharf.name())));
}
