//! Log lines in the CRI format, `<time> stdout|stderr F|P <text>`, back to what the container wrote.

use std::cmp::Ordering;

/// Puts the pieces of long lines together again and leads each stream to where it belongs.
#[derive(Debug, Default)]
pub struct Decoder {
    timestamps: bool,
    rest: Vec<u8>,
    /// A line of stdout, of stderr, has begun and not ended.
    unfinished: [bool; 2],
    last: Position,
    /// Up to here everything was handed out before.
    resumed_from: Option<Position>,
}

/// How far a log was read: the time of the last piece, and how many pieces have this same time, since the keeper
/// stamps all that it reads at once alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Position {
    time: Vec<u8>,
    pieces: u64,
}

/// Which stream a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Decoder {
    /// With `timestamps` in front of the lines, or without.
    pub fn new(timestamps: bool) -> Self {
        Self { timestamps, ..Self::default() }
    }

    /// The source broke off and a new one follows, from [`Self::last_time`] on: pass over what was handed out.
    pub fn resume(&mut self) {
        self.rest.clear();
        self.resumed_from = Some(std::mem::take(&mut self.last)).filter(|position| position.pieces > 0);
    }

    /// When the last piece was written; empty before the first.
    pub fn last_time(&self) -> &str {
        std::str::from_utf8(&self.last.time).unwrap_or_default()
    }

    /// Take in a piece of the log; hands out text by stream. The last, incomplete line waits for its end.
    pub fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(Stream, &[u8])) {
        let mut rest = std::mem::take(&mut self.rest);
        let mut remaining = bytes;
        if !rest.is_empty() {
            let Some(end) = remaining.iter().position(|byte| *byte == b'\n') else {
                rest.extend_from_slice(remaining);
                self.rest = rest;
                return;
            };
            rest.extend_from_slice(&remaining[..end]);
            self.line(&rest, &mut emit);
            remaining = &remaining[end + 1..];
            rest.clear();
        }
        while let Some(end) = remaining.iter().position(|byte| *byte == b'\n') {
            self.line(&remaining[..end], &mut emit);
            remaining = &remaining[end + 1..];
        }
        rest.extend_from_slice(remaining);
        self.rest = rest;
    }

    /// The log has ended: a line that a crash cut off comes out as far as it got.
    pub fn finish(&mut self, mut emit: impl FnMut(Stream, &[u8])) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, &mut emit);
        }
    }

    fn line(&mut self, line: &[u8], emit: &mut impl FnMut(Stream, &[u8])) {
        let Some((time, stream, is_whole, text)) = split(line) else {
            // Not ours; better shown than lost.
            emit(Stream::Stdout, line);
            emit(Stream::Stdout, b"\n");
            return;
        };
        if self.last.time != time {
            self.last = Position { time: time.to_vec(), pieces: 0 };
        }
        self.last.pieces += 1;
        if let Some(position) = &self.resumed_from {
            // Times of one log are all of one form, so they compare as text.
            let is_known = match self.last.time.cmp(&position.time) {
                Ordering::Less => true,
                Ordering::Equal => self.last.pieces <= position.pieces,
                Ordering::Greater => false,
            };
            if is_known {
                return;
            }
            self.resumed_from = None;
        }
        let unfinished = &mut self.unfinished[match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }];
        if self.timestamps && !*unfinished {
            emit(stream, time);
            emit(stream, b" ");
        }
        emit(stream, text);
        if is_whole {
            emit(stream, b"\n");
        }
        *unfinished = !is_whole;
    }
}

fn split(line: &[u8]) -> Option<(&[u8], Stream, bool, &[u8])> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = fields.next()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_whole = match fields.next()? {
        b"F" => true,
        b"P" => false,
        // The format allows further tags after a colon.
        tags if tags.starts_with(b"F:") => true,
        tags if tags.starts_with(b"P:") => false,
        _ => return None,
    };
    Some((time, stream, is_whole, fields.next().unwrap_or(b"")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &[u8] = b"2026-01-31T12:00:00.000000001Z stdout F one two\n\
        2026-01-31T12:00:00.000000002Z stdout P lo\n\
        2026-01-31T12:00:00.000000003Z stderr F oops\n\
        2026-01-31T12:00:00.000000004Z stdout F ng\n\
        2026-01-31T12:00:00.000000005Z stdout F \n";

    fn decode(pieces: &[&[u8]], timestamps: bool) -> (String, String) {
        let mut decoder = Decoder::new(timestamps);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut emit = |stream: Stream, bytes: &[u8]| match stream {
            Stream::Stdout => out.extend_from_slice(bytes),
            Stream::Stderr => err.extend_from_slice(bytes),
        };
        for piece in pieces {
            decoder.feed(piece, &mut emit);
        }
        decoder.finish(&mut emit);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn pieces_are_glued_and_streams_kept_apart() {
        assert_eq!(decode(&[LOG], false), ("one two\nlong\n\n".to_owned(), "oops\n".to_owned()));
    }

    #[test]
    fn any_division_of_the_bytes_gives_the_same() {
        for at in 0..LOG.len() {
            assert_eq!(decode(&[&LOG[..at], &LOG[at..]], true), decode(&[LOG], true), "{at}");
        }
        let single: Vec<&[u8]> = LOG.chunks(1).collect();
        assert_eq!(decode(&single, false), decode(&[LOG], false));
    }

    #[test]
    fn resumed_log_repeats_nothing_and_loses_nothing() {
        let log = b"t1 stdout F a\nt2 stdout F b\nt2 stdout F c\nt2 stdout P d\nt3 stdout F e\n";
        for at in 0..log.len() {
            let mut decoder = Decoder::default();
            let mut out = Vec::new();
            decoder.feed(&log[..at], |_, bytes| out.extend_from_slice(bytes));
            let since = decoder.last_time().to_owned();
            decoder.resume();
            let from =
                if since.is_empty() { 0 } else { (usize::from(since.as_bytes()[1] - b'1') * 14).min(14) };
            decoder.feed(&log[from..], |_, bytes| out.extend_from_slice(bytes));
            assert_eq!(String::from_utf8(out).unwrap(), "a\nb\nc\nde\n", "{at}");
        }
    }

    #[test]
    fn timestamp_stands_before_whole_lines_only() {
        let (out, err) = decode(&[LOG], true);
        assert!(out.contains("000000002Z long\n") && !out.contains("000000004Z"), "{out}");
        assert_eq!(err, "2026-01-31T12:00:00.000000003Z oops\n");
    }

    #[test]
    fn strange_and_cut_off_lines_are_shown_as_they_are() {
        assert_eq!(decode(&[b"hello\nx stdout Q y\n"], false).0, "hello\nx stdout Q y\n");
        assert_eq!(decode(&[b"t stdout F half"], false).0, "half\n");
    }
}
