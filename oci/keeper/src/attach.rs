//! Who gets the raw output beside the log: pipes of an attached `ctl`, or sockets connected with the terminal.

use linux_raw_sys::errno;
use linux_raw_sys::general::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, pollfd};

use crate::stream::{Kind, Stream};
use crate::sys::{self, Errno, Fd, NS_PER_S};

/// Several people may look at one container; nobody needs more.
pub const CLIENTS: usize = 8;
/// What somebody types, or pastes, between two reads of the container.
pub const INPUT: usize = 4096;
/// After the container's end a client that takes nothing for so long has lost interest.
const PATIENCE: u64 = 10 * NS_PER_S;

struct Client {
    fd: Fd,
    kind: Kind,
    /// How many bytes of the stream's last read are still to be written.
    behind: usize,
    /// A terminal's client may still type.
    types: bool,
    /// When it last took something or had nothing to take.
    moved_at: u64,
}

/// The attached clients, and what one of them typed.
pub struct Clients {
    table: [Option<Client>; CLIENTS],
    input: &'static mut [u8],
    typed: core::ops::Range<usize>,
}

impl Clients {
    /// Nobody; `input` is for what they will type.
    pub fn new(input: &'static mut [u8]) -> Self {
        Self { table: [const { None }; CLIENTS], input, typed: 0..0 }
    }

    /// How many more find a place?
    pub fn room(&self) -> usize {
        self.table.iter().filter(|slot| slot.is_none()).count()
    }

    /// Copy the stream to `fd` from now on. The caller saw to it that there is room.
    pub fn attach(&mut self, kind: Kind, fd: Fd) {
        // Only we write to it, so its being non-blocking is nobody else's business.
        if sys::set_nonblocking(fd.raw()).is_err() {
            return;
        }
        if let Some(slot) = self.table.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(Client { fd, kind, behind: 0, types: kind == Kind::Terminal, moved_at: 0 });
        }
    }

    /// Is nobody attached?
    pub fn is_empty(&self) -> bool {
        self.table.iter().all(Option::is_none)
    }

    /// Has somebody not got all of the last read of this stream?
    pub fn is_behind(&self, kind: Kind) -> bool {
        self.table.iter().flatten().any(|client| client.kind == kind && client.behind > 0)
    }

    /// There are `length` new bytes in `stream`; whoever can take them at once gets them at once.
    pub fn offer(&mut self, stream: &Stream, length: usize, now: u64) {
        for slot in &mut self.table {
            if let Some(client) = slot
                && client.kind == stream.kind
            {
                client.behind = length;
                client.moved_at = now;
                if !client.push(stream, now) {
                    *slot = None;
                }
            }
        }
    }

    /// The stream is at its end: clients that have everything see that, too.
    pub fn end(&mut self, kind: Kind) {
        for slot in &mut self.table {
            if slot.as_ref().is_some_and(|client| client.kind == kind && client.behind == 0) {
                *slot = None;
            }
        }
    }

    /// Forget the clients that have taken nothing for long although there is something to take.
    pub fn drop_stalled(&mut self, now: u64) {
        for slot in &mut self.table {
            if slot.as_ref().is_some_and(|client| client.behind > 0 && now > client.moved_at + PATIENCE) {
                *slot = None;
            }
        }
    }

    /// Is there input that the terminal has not taken yet?
    pub fn has_input(&self) -> bool {
        !self.typed.is_empty()
    }

    /// Give the terminal as much of the input as it takes.
    pub fn type_into(&mut self, master: i32) {
        while self.has_input() {
            match sys::write(master, &self.input[self.typed.clone()]) {
                Ok(length) => self.typed.start += length,
                Err(Errno(errno::EAGAIN)) => return,
                // Nobody is there to read it.
                Err(_) => self.typed = 0..0,
            }
        }
    }

    /// What to wait for.
    pub fn watch(&self, entries: &mut [pollfd]) {
        for (entry, slot) in entries.iter_mut().zip(&self.table) {
            *entry = pollfd { fd: -1, events: 0, revents: 0 };
            let Some(client) = slot else { continue };
            let reads = client.types && !self.has_input();
            let events = (u32::from(client.behind > 0) * POLLOUT) | (u32::from(reads) * POLLIN);
            // Without events a hang-up would still be reported, again and again. It can wait until there is
            // room for what was typed before it.
            if events != 0 || !client.types {
                *entry = pollfd { fd: client.fd.raw(), events: events as i16, revents: 0 };
            }
        }
    }

    /// Act on what [`Clients::watch`] waited for.
    pub fn serve(&mut self, entries: &[pollfd], streams: &[Stream], now: u64) {
        for (entry, slot) in entries.iter().zip(&mut self.table) {
            let Some(client) = slot else { continue };
            let happened = entry.revents as u32;
            if happened == 0 {
                continue;
            }
            let mut alive = happened & (POLLERR | POLLNVAL) == 0 && (client.types || happened & POLLHUP == 0);
            if alive && client.types && self.typed.is_empty() && happened & (POLLIN | POLLHUP) != 0 {
                match sys::read(client.fd.raw(), self.input) {
                    Ok(0) => client.types = false,
                    Ok(length) => self.typed = 0..length,
                    Err(Errno(errno::EAGAIN)) => {}
                    Err(_) => alive = false,
                }
            }
            if alive
                && happened & POLLOUT != 0
                && let Some(stream) = streams.iter().find(|stream| stream.kind == client.kind)
            {
                alive = client.push(stream, now);
            }
            if !alive {
                *slot = None;
            }
        }
    }
}

impl Client {
    /// Write what it lacks, as far as it goes at once. Is it still there?
    fn push(&mut self, stream: &Stream, now: u64) -> bool {
        while self.behind > 0 {
            match sys::write(self.fd.raw(), stream.last(self.behind)) {
                Ok(length) => {
                    self.behind = self.behind.saturating_sub(length);
                    self.moved_at = now;
                }
                Err(Errno(errno::EAGAIN)) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
