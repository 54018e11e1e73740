//! The keeper: a container's parent for life. It copies the output to the log and to whoever is attached,
//! holds the terminal, records the exit, and answers on one socket. It starts nothing and decides nothing.
//!
//! ```text
//! Running ──init has ended──► Draining ──outputs at their end, or silent──► Handing ──clients have all──► Recording ──► gone
//! ```
//!
//! One process per container, so it is small: no allocator, no threads, no libc. One loop over ppoll(2); in
//! front of it every signal is blocked, since nothing but SIGKILL may end a keeper while its container lives.

#![cfg_attr(panic = "abort", no_std)]
#![no_main]

mod attach;
mod control;
mod failpoint;
mod log;
mod record;
#[allow(dead_code, reason = "shared with wharf-init")]
mod runtime;
mod stream;
#[allow(dead_code, reason = "shared with wharf-init")]
mod sys;
mod text;

use core::cell::UnsafeCell;

use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, POLLIN, POLLOUT, pollfd};
use wharf_keeper::fd;

use attach::{CLIENTS, Clients, INPUT};
use control::{CONNECTIONS, Control, Subject};
use log::Log;
use record::Exit;
use runtime::Start;
use stream::{Filled, Kind, Stream};
use sys::{Fd, NS_PER_S};

/// After init's end an output that somebody else holds open is read until it is silent for so long …
const SILENCE: u64 = NS_PER_S / 5;
/// … but no longer than this in all.
const DRAIN: u64 = 2 * NS_PER_S;
/// Between two tries to write the record.
const RETRY: u64 = NS_PER_S;
/// After so long without output the memory that much of it took is given back.
const IDLE: u64 = NS_PER_S;

/// How many descriptors have fixed numbers.
const GIVEN: usize = (fd::ATTACH_STDERR - fd::INIT + 1) as usize;

/// Places in the table for ppoll.
mod place {
    use super::{CLIENTS, CONNECTIONS};

    pub const INIT: usize = 0;
    pub const CONTROL: usize = 1;
    pub const STREAMS: usize = CONTROL + 1 + CONNECTIONS;
    pub const CLIENT: usize = STREAMS + 2;
    pub const ALL: usize = CLIENT + CLIENTS;
}

/// Where the keeper stands.
enum Phase {
    /// Init lives.
    Running,
    /// Init has ended; what is still in the pipes is being read.
    Draining { exit: Exit, silent_at: u64, end_at: u64 },
    /// Everything is in the log; attached clients are still taking it.
    Handing { exit: Exit },
    /// The record is being written.
    Recording { exit: Exit, retry_at: u64 },
}

struct Keeper {
    pid: i32,
    /// Init's wait status, once it is reaped.
    status: Option<i32>,
    run: u64,
    streams: [Stream; 2],
    /// Our own hold on the terminal's other side: without it the master would fail whenever the container has
    /// it closed for a moment.
    peer: Option<Fd>,
    clients: Clients,
    control: Control,
    /// The write end of init's standard input is kept for those who attach.
    has_stdin: bool,
    log: Log,
}

/// Memory that one owner takes at the start. In `.bss`: a page costs nothing until it is used. Aligned to cache
/// lines and not to pages, so that the first shares a page with `.got`.
#[repr(align(64))]
struct Buffer<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: there is one thread.
unsafe impl<const N: usize> Sync for Buffer<N> {}

static STDOUT_BUFFER: Buffer<{ stream::BUFFER }> = Buffer(UnsafeCell::new([0; _]));
static STDERR_BUFFER: Buffer<{ stream::BUFFER }> = Buffer(UnsafeCell::new([0; _]));
static LOG_BUFFER: Buffer<{ log::OUT }> = Buffer(UnsafeCell::new([0; _]));
static INPUT_BUFFER: Buffer<INPUT> = Buffer(UnsafeCell::new([0; _]));

impl<const N: usize> Buffer<N> {
    /// # Safety
    /// At most once for each buffer.
    #[allow(clippy::mut_from_ref, reason = "the contract makes the reference the only one")]
    unsafe fn take(&'static self) -> &'static mut [u8] {
        // SAFETY: by the contract nobody else has a reference.
        unsafe { &mut *self.0.get() }
    }
}

/// `wharf-keeper ID RUN PID LOG_MAX_SIZE LOG_MAX_FILES`
fn run(start: Start) -> i32 {
    sys::block_signals();
    sys::set_name(c"wharf-keeper");
    sys::set_umask(0o077);
    sys::close_from(fd::ATTACH_STDERR + 1);
    let number = |index| text::parse(start.argument(index).to_bytes());
    let (6, Some(run), Some(pid @ 1..=0x7fff_ffff), Some(max_size), Some(max_files)) =
        (start.argc(), number(2), number(3), number(4), number(5))
    else {
        let _ = sys::write(2, b"usage: wharf-keeper ID RUN PID LOG_MAX_SIZE LOG_MAX_FILES\n");
        return 2;
    };
    let pid = pid as i32;
    // All of them before we open anything, which would get the numbers of those that are missing.
    let given: [bool; GIVEN] = core::array::from_fn(|at| sys::is_open(fd::INIT + at as i32));
    let is_given = |raw: i32| given[(raw - fd::INIT) as usize];
    let take = |raw: i32| is_given(raw).then(|| Fd::new(raw));
    if !is_given(fd::INIT) || !is_given(fd::RECORD_DIR) {
        let _ = sys::write(2, b"wharf-keeper: needs a pidfd of init as 3 and the record's directory as 5\n");
        return 2;
    }
    let terminal = sys::is_terminal(fd::STDOUT);
    // SAFETY: `run` is called once, and takes each buffer once.
    let (stdout, stderr, out, input) =
        unsafe { (STDOUT_BUFFER.take(), STDERR_BUFFER.take(), LOG_BUFFER.take(), INPUT_BUFFER.take()) };
    let kind = if terminal { Kind::Terminal } else { Kind::Stdout };
    let mut keeper = Keeper {
        pid,
        status: None,
        run,
        streams: [
            Stream::new(kind, take(fd::STDOUT), stdout),
            Stream::new(Kind::Stderr, take(fd::STDERR), stderr),
        ],
        peer: if terminal { sys::terminal_peer(fd::STDOUT).ok() } else { None },
        clients: Clients::new(input),
        control: Control::new(is_given(fd::LISTEN)),
        has_stdin: is_given(fd::STDIN),
        log: Log::open(is_given(fd::LOG_DIR).then_some(fd::LOG_DIR), max_size, max_files, out),
    };
    for (kind, raw) in [(kind, fd::ATTACH_STDOUT), (Kind::Stderr, fd::ATTACH_STDERR)] {
        if let Some(client) = take(raw) {
            keeper.clients.attach(kind, client);
        }
    }
    keeper.keep()
}

impl Keeper {
    /// Until the container's end is known to everyone.
    fn keep(mut self) -> i32 {
        failpoint::reach(c"fail.keeper.started");
        self.reap();
        let mut phase = Phase::Running;
        let mut entries = [pollfd { fd: -1, events: 0, revents: 0 }; place::ALL];
        let mut now = sys::clock(CLOCK_MONOTONIC);
        loop {
            let deadline = self.deadline(&phase, now);
            self.watch(&mut entries, matches!(phase, Phase::Running));
            let before = now;
            let happened = sys::poll(&mut entries, deadline.map(|at| at.saturating_sub(now)));
            now = sys::clock(CLOCK_MONOTONIC);
            match happened {
                Ok(0) => self.tidy(),
                Ok(_) => {}
                // A signal that cannot be blocked, such as SIGCONT after SIGSTOP; the entries say nothing.
                Err(_) => continue,
            }

            self.clients.serve(&entries[place::CLIENT..], &self.streams, now);
            let mut subject = Subject {
                pid: self.pid as u32,
                run: self.run,
                has_stdin: self.has_stdin,
                streams: &mut self.streams,
                clients: &mut self.clients,
            };
            self.control.serve(&entries[place::CONTROL..place::STREAMS], &mut subject);
            let read = self.read(&entries[place::STREAMS..place::CLIENT], now);

            phase = match phase {
                Phase::Running if entries[place::INIT].revents != 0 => match self.exit() {
                    Ok(Some(exit)) => Phase::Draining { exit, silent_at: now + SILENCE, end_at: now + DRAIN },
                    Ok(None) => Phase::Running,
                    // Somebody else reaped it. A status that we do not know is not recorded.
                    Err(_) => return 1,
                },
                Phase::Draining { exit, silent_at, end_at } => {
                    let held_up = self.streams.iter().any(|stream| self.clients.is_behind(stream.kind));
                    self.clients.drop_stalled(now);
                    let silent_at = if read || held_up { now + SILENCE } else { silent_at };
                    // Time in which a client kept us from reading does not count.
                    let end_at = if held_up { end_at + (now - before) } else { end_at };
                    let ended = self.streams.iter().all(|stream| stream.fd().is_none());
                    if ended || now >= silent_at || now >= end_at {
                        self.finish();
                        Phase::Handing { exit }
                    } else {
                        Phase::Draining { exit, silent_at, end_at }
                    }
                }
                other @ (Phase::Running | Phase::Handing { .. } | Phase::Recording { .. }) => other,
            };
            if let Phase::Handing { exit } = phase {
                self.clients.drop_stalled(now);
                for stream in &self.streams {
                    self.clients.end(stream.kind);
                }
                phase = if self.clients.is_empty() {
                    Phase::Recording { exit, retry_at: now }
                } else {
                    Phase::Handing { exit }
                };
            }
            if let Phase::Recording { exit, retry_at } = &mut phase
                && now >= *retry_at
            {
                failpoint::reach(c"fail.keeper.recording");
                if exit.is_recorded(self.run, self.log.dropped()) {
                    failpoint::reach(c"fail.keeper.recorded");
                    self.control.announce(&exit.message(self.log.dropped()));
                    failpoint::reach(c"fail.keeper.announced");
                    Exit::sync(self.run);
                    return 0;
                }
                // On a full disk whoever listens learns it all the same; the record is for those who come later.
                self.control.announce(&exit.message(self.log.dropped()));
                *retry_at = now + RETRY;
            }
        }
    }

    /// When to go on even if nothing happens.
    fn deadline(&self, phase: &Phase, now: u64) -> Option<u64> {
        match phase {
            Phase::Running => {
                let used = self.log.is_used() || self.streams.iter().any(Stream::is_used);
                used.then_some(now + IDLE)
            }
            // Nothing can come any more: no waiting.
            Phase::Draining { .. } if self.streams.iter().all(|stream| stream.fd().is_none()) => Some(now),
            Phase::Draining { silent_at, end_at, .. } => Some((*silent_at).min(*end_at)),
            // To look for stalled clients.
            Phase::Handing { .. } => Some(now + RETRY),
            Phase::Recording { retry_at, .. } => Some(*retry_at),
        }
    }

    fn watch(&self, entries: &mut [pollfd; place::ALL], running: bool) {
        let init = if running { fd::INIT } else { -1 };
        entries[place::INIT] = pollfd { fd: init, events: POLLIN as i16, revents: 0 };
        self.control.watch(&mut entries[place::CONTROL..place::STREAMS]);
        self.clients.watch(&mut entries[place::CLIENT..]);
        for (entry, stream) in entries[place::STREAMS..].iter_mut().zip(&self.streams) {
            let reads = !self.clients.is_behind(stream.kind);
            let types = stream.kind == Kind::Terminal && self.clients.has_input();
            let events = ((u32::from(reads) * POLLIN) | (u32::from(types) * POLLOUT)) as i16;
            // Without events a hang-up would still be reported, again and again.
            let fd = stream.fd().filter(|_| events != 0).unwrap_or(-1);
            *entry = pollfd { fd, events, revents: 0 };
        }
    }

    /// Read once from each output that has something. Had one?
    fn read(&mut self, entries: &[pollfd], now: u64) -> bool {
        let mut read = false;
        for (entry, stream) in entries.iter().zip(&mut self.streams) {
            if stream.kind == Kind::Terminal
                && self.clients.has_input()
                && let Some(master) = stream.fd()
            {
                self.clients.type_into(master);
            }
            if entry.revents as u32 & !POLLOUT == 0 || self.clients.is_behind(stream.kind) {
                continue;
            }
            match stream.fill() {
                Filled::Data(length) => {
                    read = true;
                    self.clients.offer(stream, length, now);
                    stream.log_lines(&mut self.log);
                }
                Filled::Nothing => {}
                Filled::End => {
                    stream.log_rest(&mut self.log);
                    self.clients.end(stream.kind);
                }
            }
        }
        self.log.flush();
        read
    }

    /// Reap all children that have ended: beside init, what became the guard's, who this process was before.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = sys::reap(-1) {
            if pid == self.pid {
                self.status = Some(status);
            }
        }
    }

    /// How init has ended, if it has.
    fn exit(&mut self) -> sys::Result<Option<Exit>> {
        self.reap();
        let status = match self.status {
            Some(status) => status,
            None => match sys::reap(self.pid)? {
                Some((_, status)) => status,
                None => return Ok(None),
            },
        };
        // Now nobody of ours holds the terminal: the master ends when what was written has been read.
        self.peer = None;
        Ok(Some(Exit {
            status,
            realtime_ns: sys::clock(CLOCK_REALTIME),
            boottime_ns: sys::clock(CLOCK_BOOTTIME),
        }))
    }

    /// Nothing more will be read.
    fn finish(&mut self) {
        for stream in &mut self.streams {
            stream.close();
            stream.log_rest(&mut self.log);
        }
        self.log.finish();
    }

    /// Nothing has happened for a while.
    fn tidy(&mut self) {
        self.reap();
        for stream in &mut self.streams {
            if stream.is_used() && !self.clients.is_behind(stream.kind) {
                stream.release();
            }
        }
        self.log.release();
    }
}
