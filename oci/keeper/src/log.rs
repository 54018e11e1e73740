//! The log file: whole CRI lines, rotated by size; what the disk does not take is counted, never waited for.
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F a whole line
//! 2026-01-02T03:04:05.678901235Z stderr P a piece of a line: the rest, or the end of the stream, follows
//! └────────────── HEAD bytes, always ───┘
//! ```

use core::ffi::CStr;

use linux_raw_sys::errno;
use linux_raw_sys::general::{O_APPEND, O_CREAT, O_RDWR};

use crate::sys::{self, Errno, Fd};
use crate::text::{STAMP, Text};

/// What precedes the content of a line: time, stream, tag and the spaces after each.
pub const HEAD: usize = STAMP + 1 + 6 + 1 + 1 + 1;
/// The longest content of one line of the log, as containerd's default.
pub const LINE_MAX: usize = 16 * 1024;
/// Lines are collected for one write: much more than a read brings, so that it does not matter for speed.
pub const OUT: usize = 128 * 1024;
/// Room before the collected lines for the line about what was dropped.
const NOTICE: usize = 128;
/// More collected lines than this are worth giving the memory back later.
const SMALL: usize = 4096;
/// A guard against a rotation that never ends; nobody keeps more.
const FILES_MAX: u64 = 1000;
const CURRENT: &CStr = c"log";

/// The log of one container.
pub struct Log {
    dir: i32,
    file: Option<Fd>,
    size: u64,
    /// The file ends in a piece of a line that could not be cut off yet.
    torn: bool,
    max_size: u64,
    max_files: u64,
    /// Collected lines are `out[NOTICE..end]`.
    out: &'static mut [u8],
    end: usize,
    /// Much of `out` has been written to since it was released.
    used: bool,
    dropped: u64,
    unreported: u64,
}

impl Log {
    /// Log into the directory `dir`, or nowhere.
    pub fn open(dir: Option<i32>, max_size: u64, max_files: u64, out: &'static mut [u8]) -> Self {
        let (max_size, max_files) = (max_size.max(1), max_files.clamp(1, FILES_MAX));
        let mut log = Self {
            dir: dir.unwrap_or(-1),
            file: None,
            size: 0,
            torn: false,
            max_size,
            max_files,
            out,
            end: NOTICE,
            used: false,
            dropped: 0,
            unreported: 0,
        };
        if log.dir >= 0 {
            log.open_file();
            // Files of a time when more were to be kept.
            let mut number = log.max_files;
            while number <= FILES_MAX && sys::unlink_at(log.dir, numbered(number).c_str()).is_ok() {
                number += 1;
            }
        }
        log
    }

    /// Bytes of output that could not be stored.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Append a line. `head` is complete; `content` has no newline and at most [`LINE_MAX`] bytes.
    pub fn line(&mut self, head: &[u8; HEAD], content: &[u8]) {
        if self.dir < 0 {
            return;
        }
        let length = HEAD + content.len() + 1;
        if self.end + length > self.out.len() {
            self.flush();
        }
        if self.is_over(length) {
            self.flush();
            // Not the same question: what was collected may have been dropped.
            if self.is_over(length) {
                self.rotate();
            }
        }
        let (at, text) = (self.end, self.end + HEAD);
        self.out[at..text].copy_from_slice(head);
        self.out[text..text + content.len()].copy_from_slice(content);
        self.out[text + content.len()] = b'\n';
        self.end += length;
    }

    /// Write what was collected, or count it as dropped.
    pub fn flush(&mut self) {
        // No notice without a line after it: on a disk that is full to the last bytes that would come again
        // and again.
        if self.end > NOTICE {
            self.used |= self.end > SMALL;
            self.store();
        }
    }

    /// The last flush.
    pub fn finish(&mut self) {
        self.flush();
        if self.unreported > 0 {
            self.store();
        }
    }

    /// Was there much output since the last [`Log::release`]?
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Give back the memory of the buffer; between flushes only.
    pub fn release(&mut self) {
        if self.end == NOTICE {
            sys::release_pages(self.out);
            self.used = false;
        }
    }

    /// Would `length` more bytes make the file too long? A single line may be.
    fn is_over(&self, length: usize) -> bool {
        let notice = if self.unreported > 0 { NOTICE } else { 0 };
        let used = self.size + (self.end - NOTICE) as u64;
        used > 0 && used + (notice + length) as u64 > self.max_size
    }

    /// Write the collected lines, after a line about those that were dropped before.
    fn store(&mut self) {
        let mut start = NOTICE;
        if self.unreported > 0 {
            let notice = notice(self.unreported);
            start -= notice.bytes().len();
            self.out[start..NOTICE].copy_from_slice(notice.bytes());
        }
        let written = self.write(start);
        if start + written == self.end {
            self.size += written as u64;
            self.unreported = 0;
        } else {
            self.keep_whole_lines(start, start + written);
        }
        self.end = NOTICE;
    }

    /// Write `out[start..end]` as far as it goes.
    fn write(&mut self, start: usize) -> usize {
        if self.file.is_none() {
            self.open_file();
        }
        let Some(file) = &self.file else { return 0 };
        if self.torn {
            if sys::truncate(file.raw(), self.size).is_err() {
                return 0;
            }
            self.torn = false;
        }
        let mut at = start;
        while at < self.end {
            match sys::write(file.raw(), &self.out[at..self.end]) {
                Ok(0) | Err(_) => break,
                Ok(written) => at += written,
            }
        }
        at - start
    }

    /// The disk took `out[start..written]` only: cut the file after the last whole line of output, and count the rest.
    fn keep_whole_lines(&mut self, start: usize, written: usize) {
        let (mut at, mut kept, mut lost) = (start, start, 0);
        while at < self.end {
            let content = at + HEAD;
            let length = find(&self.out[content..self.end], b'\n').unwrap_or(self.end - content);
            let next = content + length + 1;
            if at < NOTICE {
                // The notice is kept with a line after it only.
            } else if next <= written {
                kept = next;
            } else {
                let newline = usize::from(self.out[content - 2] == b'F');
                lost += (length + newline) as u64;
            }
            at = next;
        }
        self.size += (kept - start) as u64;
        if kept > start {
            self.unreported = 0;
        }
        self.dropped += lost;
        self.unreported += lost;
        if written > kept {
            self.torn = match &self.file {
                Some(file) => sys::truncate(file.raw(), self.size).is_err(),
                None => false,
            };
        }
    }

    /// `log` becomes `log.1`, and so on; the oldest goes. If that is impossible, the file grows on.
    fn rotate(&mut self) {
        let moved = if self.max_files == 1 {
            // A new file and not a truncated one: a reader can finish the old one.
            sys::unlink_at(self.dir, CURRENT)
        } else {
            for number in (1..self.max_files - 1).rev() {
                let _ = sys::rename_at(self.dir, numbered(number).c_str(), numbered(number + 1).c_str());
            }
            sys::rename_at(self.dir, CURRENT, numbered(1).c_str())
        };
        if matches!(moved, Ok(()) | Err(Errno(errno::ENOENT))) {
            self.file = None;
            self.open_file();
        }
    }

    fn open_file(&mut self) {
        self.torn = false;
        let Ok(file) = sys::open_at(self.dir, CURRENT, O_RDWR | O_APPEND | O_CREAT) else { return };
        let Ok(size) = sys::size(file.raw()) else { return };
        self.size = size;
        self.file = Some(file);
        self.mend();
    }

    /// A keeper that was killed, or a power cut, may have left a piece of a line at the end of the file.
    fn mend(&mut self) {
        let Some(file) = &self.file else { return };
        let mut last = [b'\n'];
        let mut size = self.size;
        // Byte by byte, but at most one line, and only after such an accident.
        while size > 0 && matches!(sys::read_at(file.raw(), &mut last, size - 1), Ok(1)) && last != *b"\n" {
            size -= 1;
            if self.size - size > (HEAD + LINE_MAX) as u64 {
                // None of our lines: leave it, but end it.
                if sys::write(file.raw(), b"\n") == Ok(1) {
                    self.size += 1;
                }
                return;
            }
        }
        if size < self.size {
            self.torn = sys::truncate(file.raw(), size).is_err();
            self.size = size;
        }
    }
}

/// The name of an older file.
fn numbered(number: u64) -> Text<16> {
    Text::new().put(b"log.").number(number)
}

fn notice(bytes: u64) -> Text<NOTICE> {
    Text::new()
        .put(&crate::text::stamp(sys::clock(linux_raw_sys::general::CLOCK_REALTIME)))
        .put(b" stderr F wharf: ")
        .number(bytes)
        .put(b" bytes of output were dropped: the log could not be written\n")
}

/// Where the byte comes first.
pub fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    let mut at = 0;
    while at + 16 <= bytes.len() {
        // SAFETY: SSE2 is part of x86_64, and 16 bytes follow `at`.
        let hits = unsafe {
            let block = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(block, _mm_set1_epi8(wanted as i8)))
        };
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize);
        }
        at += 16;
    }
    let rest = bytes.get(at..)?.iter().position(|byte| *byte == wanted)?;
    Some(at + rest)
}
