//! The few system calls that the standard library has no name for.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;
const SOCK_STREAM: i32 = 1;

unsafe extern "C" {
    fn signal(signum: i32, handler: usize) -> usize;
    fn fork() -> i32;
    fn socket(family: i32, kind: i32, protocol: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// What every handler exits with; 0 means 128 + the signal.
static CLEAN: AtomicI32 = AtomicI32::new(0);

extern "C" fn end(signum: i32) {
    let status = if CLEAN.load(Ordering::Relaxed) == 1 { 0 } else { 128 + signum };
    // SAFETY: _exit is async-signal-safe and does not return.
    unsafe { _exit(status) }
}

/// SIGTERM and SIGINT end the program as the shell reports a signal.
pub fn end_with_128_plus_n() {
    handle(end as *const () as usize);
}

/// SIGTERM and SIGINT end the program with 0.
pub fn end_with_success() {
    CLEAN.store(1, Ordering::Relaxed);
    handle(end as *const () as usize);
}

/// SIGTERM and SIGINT do nothing.
pub fn ignore() {
    handle(SIG_IGN);
}

fn handle(handler: usize) {
    for signum in [SIGINT, SIGTERM] {
        // SAFETY: the handler is SIG_IGN or a function that only calls _exit.
        unsafe { signal(signum, handler) };
    }
}

/// What fork(2) said.
pub enum Forked {
    /// We are the new process.
    Child,
    /// We made one.
    Parent,
    /// There is no new process.
    Failed(io::Error),
}

/// fork(2). Only for a program with one thread.
pub fn forked() -> Forked {
    // SAFETY: the callers run before any thread is started.
    match unsafe { fork() } {
        0 => Forked::Child,
        pid if pid > 0 => Forked::Parent,
        _ => Forked::Failed(io::Error::last_os_error()),
    }
}

/// socket(2), of which nothing is wanted but the answer; the descriptor ends with the program.
pub fn socket_of(family: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    match unsafe { socket(family, SOCK_STREAM, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
