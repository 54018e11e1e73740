//! `wharf-init PROGRAM [ARGUMENT…]`: pid 1 of a container started with `--init`. It starts the program, passes
//! signals on to it, reaps every orphan, and ends as the program ends; the kernel then kills whatever is left.
//!
//! A program that is pid 1 itself ignores every signal that it has no handler for, and most reap nobody.

#![cfg_attr(panic = "abort", no_std)]
#![no_main]

#[allow(dead_code, reason = "shared with the keeper")]
mod runtime;
#[allow(dead_code, reason = "shared with the keeper")]
mod sys;
#[allow(dead_code, reason = "shared with the keeper")]
mod text;

use core::ffi::CStr;

use linux_raw_sys::errno;
use linux_raw_sys::general::{SIGCHLD, SIGTTIN, SIGTTOU};

use runtime::Start;
use sys::Errno;
use text::Text;

/// As in a shell: found, but cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// As in a shell: not found.
const NOT_FOUND: i32 = 127;
/// Our own failure, as docker and podman number theirs.
const FAILED: i32 = 125;
/// Where programs are if the environment does not say.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// PATH_MAX.
const PATH_MAX: usize = 4096;

fn run(start: Start) -> i32 {
    if start.argc() < 2 {
        say(&[b"usage: wharf-init PROGRAM [ARGUMENT...]"]);
        return FAILED;
    }
    // From here on signals wait for us; the program gets the mask that we were started with.
    let mask = sys::block_signals();
    sys::adopt_orphans();
    match sys::fork() {
        Ok(0) => {
            sys::lead_foreground();
            sys::set_signal_mask(mask);
            execute(start)
        }
        Ok(child) => care_for(child),
        Err(_) => {
            say(&[b"cannot start a process"]);
            FAILED
        }
    }
}

/// Until the child has ended: its exit code.
fn care_for(child: i32) -> i32 {
    loop {
        let Ok(signal) = sys::wait_signal(u64::MAX) else { continue };
        match signal as u32 {
            SIGCHLD => {
                while let Ok(Some((pid, status))) = sys::reap(-1) {
                    if pid == child {
                        return match status & 0x7f {
                            0 => status >> 8 & 0xff,
                            killed => 128 + killed,
                        };
                    }
                }
            }
            // About our own reading and writing of the terminal, which the child now leads.
            SIGTTIN | SIGTTOU => {}
            _ => sys::kill(child, signal),
        }
    }
}

/// Become the program, or say why not.
fn execute(start: Start) -> i32 {
    let program = start.argument(1).to_bytes();
    let failed = if program.is_empty() {
        Errno(errno::ENOENT)
    } else if program.contains(&b'/') {
        become_program(start.argument(1), start)
    } else {
        search(program, start)
    };
    let (reason, code): (&[u8], _) = match failed {
        Errno(errno::ENOENT | errno::ENOTDIR) => (b"no such file or directory", NOT_FOUND),
        Errno(errno::EACCES | errno::EPERM) => (b"permission denied", NOT_EXECUTABLE),
        Errno(errno::ENOEXEC) => (b"not an executable format", NOT_EXECUTABLE),
        Errno(errno::E2BIG) => (b"arguments and environment are too long", NOT_EXECUTABLE),
        Errno(other) => {
            let number = Text::<16>::new().put(b"errno ").number(u64::from(other));
            say(&[b"cannot execute ", program, b": ", number.bytes()]);
            return NOT_EXECUTABLE;
        }
    };
    say(&[b"cannot execute ", program, b": ", reason]);
    code
}

/// Try the directories of PATH in order. A file that may not be executed does not end the search, but is the
/// better explanation than that there is none.
fn search(program: &[u8], start: Start) -> Errno {
    let mut best = Errno(errno::ENOENT);
    for dir in start.variable(b"PATH=").unwrap_or(PATH).split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        if dir.len() + 1 + program.len() >= PATH_MAX {
            continue;
        }
        let path = Text::<PATH_MAX>::new().put(dir).put(b"/").put(program);
        match become_program(path.c_str(), start) {
            Errno(errno::ENOENT | errno::ENOTDIR) => {}
            Errno(errno::EACCES) => best = Errno(errno::EACCES),
            other => return other,
        }
    }
    best
}

fn become_program(path: &CStr, start: Start) -> Errno {
    // SAFETY: argv from the program on, and the environment: both of the initial stack, ended by null pointers.
    unsafe { sys::exec(path, start.argv().wrapping_add(1), start.envp()) }
}

/// One line on standard error, in one write unless it is very long.
fn say(parts: &[&[u8]]) {
    let mut line = Text::<1024>::new().put(b"wharf-init: ");
    for part in parts {
        line = line.put(part);
    }
    let _ = sys::write(2, line.put(b"\n").bytes());
}
