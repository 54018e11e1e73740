//! Filters are loaded into a child and tried: what counts is what the kernel does.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use nix::libc;
use std::collections::BTreeMap;
use std::io::Write;

/// A system call and its first arguments.
#[derive(Debug, Clone, Copy)]
struct Call(libc::c_long, [usize; 3]);

/// What each call gives under a filter: 0 or an errno.
fn try_under(filter: &[u8], calls: &[Call]) -> Vec<i32> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let program = libc::sock_fprog {
        len: (filter.len() / bpf::INSTRUCTION) as u16,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the child makes system calls only, on memory that was allocated before, and leaves with _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            // SAFETY: as above; the arguments are numbers or null pointers, which the kernel checks.
            unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                if libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) != 0
                {
                    libc::_exit(1);
                }
                for Call(number, [a, b, c]) in calls {
                    let result = libc::syscall(*number, *a, *b, *c, 0, 0, 0);
                    let errno: i32 = if result < 0 { *libc::__errno_location() } else { 0 };
                    let bytes = errno.to_ne_bytes();
                    libc::write(std::os::fd::AsRawFd::as_raw_fd(&writer), bytes.as_ptr().cast(), bytes.len());
                }
                libc::_exit(0)
            }
        }
        child => {
            drop(writer);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            let mut status = 0;
            // SAFETY: our own child, and a place for its status.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0, "the child could not load the filter, or was killed");
            bytes.chunks(4).map(|chunk| i32::from_ne_bytes(chunk.try_into().unwrap())).collect()
        }
    }
}

fn results(filter: &[u8], calls: &[(&'static str, Call)]) -> BTreeMap<&'static str, i32> {
    let errnos = try_under(filter, &calls.iter().map(|(_, call)| *call).collect::<Vec<_>>());
    assert_eq!(errnos.len(), calls.len());
    calls.iter().map(|(name, _)| *name).zip(errnos).collect()
}

fn default_capabilities() -> Vec<String> {
    ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned).to_vec()
}

/// T15, and what an intruder would try first.
#[test]
fn default_filter_blocks_what_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let path = std::ffi::CString::new(directory.path().join("made").to_str().unwrap()).unwrap();
    let call = |number, args| Call(number, args);
    let results = results(
        &default_filter(&default_capabilities()).unwrap(),
        &[
            ("mkdir", call(libc::SYS_mkdir, [path.as_ptr() as usize, 0o700, 0])),
            ("socket unix", call(libc::SYS_socket, [1, 1, 0])),
            ("socket inet", call(libc::SYS_socket, [2, 1, 0])),
            ("socket netlink", call(libc::SYS_socket, [16, 3, 0])),
            ("socket alg", call(libc::SYS_socket, [38, 5, 0])),
            ("socket alg, disguised", call(libc::SYS_socket, [38 | 1 << 32, 5, 0])),
            ("socket vsock", call(libc::SYS_socket, [40, 1, 0])),
            ("clone3", call(libc::SYS_clone3, [0, 0, 0])),
            ("clone newuser", call(libc::SYS_clone, [libc::CLONE_NEWUSER as usize, 0, 0])),
            ("clone newns", call(libc::SYS_clone, [libc::CLONE_NEWNS as usize | 17, 0, 0])),
            ("unshare newuser", call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0])),
            ("setns", call(libc::SYS_setns, [0, 0, 0])),
            ("mount", call(libc::SYS_mount, [0, 0, 0])),
            ("add_key", call(libc::SYS_add_key, [0, 0, 0])),
            ("keyctl", call(libc::SYS_keyctl, [0, 0, 0])),
            ("request_key", call(libc::SYS_request_key, [0, 0, 0])),
            ("io_uring_setup", call(libc::SYS_io_uring_setup, [1, 0, 0])),
            ("userfaultfd", call(libc::SYS_userfaultfd, [0, 0, 0])),
            ("bpf", call(libc::SYS_bpf, [0, 0, 0])),
            ("perf_event_open", call(libc::SYS_perf_event_open, [0, 0, 0])),
            ("kexec_load", call(libc::SYS_kexec_load, [0, 0, 0])),
            ("open_by_handle_at", call(libc::SYS_open_by_handle_at, [0, 0, 0])),
            ("init_module", call(libc::SYS_init_module, [0, 0, 0])),
            ("personality", call(libc::SYS_personality, [0xffff_ffff, 0, 0])),
            ("personality no randomisation", call(libc::SYS_personality, [0x0040_0000, 0, 0])),
            // A null pointer for the path: the kernel is reached.
            ("fchmodat2", call(452, [0, 0, 0])),
            ("chroot", call(libc::SYS_chroot, [0, 0, 0])),
            ("newer than all", call(480, [0, 0, 0])),
            ("newer by far", call(9999, [0, 0, 0])),
        ],
    );
    let expected = [
        ("mkdir", 0),
        ("socket unix", 0),
        ("socket inet", 0),
        ("socket netlink", 0),
        ("personality", 0),
        ("clone3", libc::ENOSYS),
        ("newer than all", libc::ENOSYS),
        ("newer by far", libc::ENOSYS),
        ("fchmodat2", libc::EFAULT),
        ("chroot", libc::EFAULT),
    ];
    for (name, errno) in results {
        let wanted =
            expected.iter().find(|(known, _)| *known == name).map_or(libc::EPERM, |(_, errno)| *errno);
        assert_eq!(errno, wanted, "{name}");
    }
}

#[test]
fn capabilities_open_what_they_are_for() {
    let with = |name: &str| default_filter(&[name.to_owned()]).unwrap();
    let calls = [
        ("setns", Call(libc::SYS_setns, [usize::MAX, 0, 0])),
        ("clone3", Call(libc::SYS_clone3, [0, 0, 0])),
        ("chroot", Call(libc::SYS_chroot, [0, 0, 0])),
    ];
    let admin = results(&with("CAP_SYS_ADMIN"), &calls);
    assert_eq!((admin["setns"], admin["clone3"], admin["chroot"]), (libc::EBADF, libc::EINVAL, libc::EPERM));
    let chroot = results(&with("CAP_SYS_CHROOT"), &calls);
    assert_eq!((chroot["setns"], chroot["chroot"]), (libc::EPERM, libc::EFAULT));
}

#[test]
fn profile_of_ones_own_is_obeyed() {
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            { "names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": null },
            { "names": ["mseal"], "action": "SCMP_ACT_ERRNO", "errnoRet": 12 }
        ]
    }"#;
    let filter = compile(profile, &[]).unwrap();
    let calls = [
        ("mkdir", Call(libc::SYS_mkdir, [0, 0, 0])),
        ("rmdir", Call(libc::SYS_rmdir, [0, 0, 0])),
        ("mseal", Call(462, [0, 0, 0])),
    ];
    let results = results(&filter, &calls);
    assert_eq!((results["mkdir"], results["rmdir"], results["mseal"]), (28, libc::EFAULT, 12));
}

#[test]
fn filter_is_made_once() {
    let first = default_filter(&["CAP_CHOWN".into(), "CAP_KILL".into()]).unwrap();
    let again = default_filter(&["CAP_KILL".into(), "CAP_CHOWN".into()]).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = default_filter(&["CAP_KILL".into()]).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
}

#[test]
fn memfd_cannot_be_changed() {
    let mut file = File::from(as_memfd(b"01234567").unwrap());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "01234567");
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(0).is_err());
}
