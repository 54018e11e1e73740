//! One output of the container: a pipe, or the terminal's master. Every byte is read once into one buffer,
//! from which the log takes lines and every attached client takes the raw bytes.
//!
//! ```text
//! buffer   [ begun line │ last read ]
//!            ^begin       ^fresh    ^end       a client is a number of bytes behind the end
//! ```
//!
//! The next read waits until no client is behind: a slow client holds up the container instead of losing
//! something.

use linux_raw_sys::errno;

use crate::log::{HEAD, LINE_MAX, Log, find};
use crate::sys::{self, Errno, Fd};
use crate::text;

/// One read: what a pipe holds by default.
const READ: usize = 64 * 1024;
/// The buffer of a stream: a line that has begun, and a read.
pub const BUFFER: usize = LINE_MAX + READ;
/// A read beyond this is worth giving the memory back later.
const SMALL: usize = 2048;

/// Which output it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The master of the container's terminal, logged as standard output.
    Terminal,
}

/// What a read brought.
pub enum Filled {
    /// That many bytes.
    Data(usize),
    /// Nothing yet.
    Nothing,
    /// The end: nobody has the other side open.
    End,
}

/// One output of the container.
pub struct Stream {
    /// Which.
    pub kind: Kind,
    fd: Option<Fd>,
    buffer: &'static mut [u8],
    begin: usize,
    fresh: usize,
    end: usize,
    used: bool,
}

impl Stream {
    /// Read from this descriptor.
    pub fn new(kind: Kind, fd: Option<Fd>, buffer: &'static mut [u8]) -> Self {
        if let Some(fd) = &fd {
            let _ = sys::set_nonblocking(fd.raw());
        }
        Self { kind, fd, buffer, begin: 0, fresh: 0, end: 0, used: false }
    }

    /// The descriptor, until the end of the stream.
    pub fn fd(&self) -> Option<i32> {
        self.fd.as_ref().map(Fd::raw)
    }

    /// The last `length` bytes that were read.
    pub fn last(&self, length: usize) -> &[u8] {
        self.buffer.get(self.end.saturating_sub(length)..self.end).unwrap_or_default()
    }

    /// Read once. No client may be behind.
    pub fn fill(&mut self) -> Filled {
        let Some(fd) = &self.fd else { return Filled::Nothing };
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
        }
        self.end -= self.begin;
        self.begin = 0;
        self.fresh = self.end;
        match sys::read(fd.raw(), &mut self.buffer[self.end..]) {
            Err(Errno(errno::EAGAIN)) => Filled::Nothing,
            // A terminal ends with EIO.
            Ok(0) | Err(_) => {
                self.close();
                Filled::End
            }
            Ok(length) => {
                self.end += length;
                self.used |= length > SMALL;
                Filled::Data(length)
            }
        }
    }

    /// Hand the lines that the last read completed to the log.
    pub fn log_lines(&mut self, log: &mut Log) {
        let mut head = self.head();
        let mut from = self.fresh;
        while let Some(length) = find(&self.buffer[from..self.end], b'\n') {
            let newline = from + length;
            self.log_pieces(newline, &mut head, log);
            let mut content = &self.buffer[self.begin..newline];
            if self.kind == Kind::Terminal {
                content = content.strip_suffix(b"\r").unwrap_or(content);
            }
            head[HEAD - 2] = b'F';
            log.line(&head, content);
            from = newline + 1;
            self.begin = from;
        }
        self.log_pieces(self.end, &mut head, log);
    }

    /// Hand the unfinished last line to the log: as a piece, since no newline ended it (as containerd does).
    pub fn log_rest(&mut self, log: &mut Log) {
        let mut head = self.head();
        head[HEAD - 2] = b'P';
        if self.begin < self.end {
            log.line(&head, &self.buffer[self.begin..self.end]);
            self.begin = self.end;
        }
    }

    /// Read no more.
    pub fn close(&mut self) {
        self.fd = None;
    }

    /// Was there much output since the last [`Stream::release`]?
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Give back the memory of the buffer. No client may be behind.
    pub fn release(&mut self) {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        self.fresh = self.end;
        sys::release_pages(&mut self.buffer[self.end..]);
        self.used = false;
    }

    /// As long as a line up to `until` is too long, hand a piece of it to the log.
    fn log_pieces(&mut self, until: usize, head: &mut [u8; HEAD], log: &mut Log) {
        head[HEAD - 2] = b'P';
        while until - self.begin > LINE_MAX {
            let end = self.begin + LINE_MAX;
            log.line(head, &self.buffer[self.begin..end]);
            self.begin = end;
        }
    }

    /// What precedes a line that is read now, but for the tag.
    fn head(&self) -> [u8; HEAD] {
        let mut head = *b"0000-00-00T00:00:00.000000000Z stdout F ";
        head[..text::STAMP].copy_from_slice(&text::stamp(sys::clock(linux_raw_sys::general::CLOCK_REALTIME)));
        if self.kind == Kind::Stderr {
            head[text::STAMP + 1..text::STAMP + 7].copy_from_slice(b"stderr");
        }
        head
    }
}
