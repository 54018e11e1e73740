//! The user's terminal: raw mode that is always undone, its size, and the keys that detach.

use anyhow::{Context, bail};
use rustix::termios::{self, OptionalActions, Termios};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

/// What to restore; global, so that a panic and `exit` can do it too.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Is standard input a terminal?
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Lines and characters per line of the terminal, asked of the first of ctl's own streams that is one.
pub fn size() -> Option<(u16, u16)> {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|stream| termios::tcgetwinsize(stream).ok())
        .map(|size| (size.ws_row, size.ws_col))
        .filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

/// Pass every key on as it is, until [`restore`].
pub fn make_raw() -> anyhow::Result<()> {
    let stdin = rustix::stdio::stdin();
    let before = termios::tcgetattr(stdin).context("reading the terminal's settings")?;
    let mut raw = before.clone();
    raw.make_raw();
    let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    termios::tcsetattr(stdin, OptionalActions::Now, &raw).context("setting the terminal")?;
    if saved.is_none() {
        *saved = Some(before);
    }
    Ok(())
}

/// Give the terminal back as it was. Does nothing if it was not changed.
pub fn restore() {
    let before = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // Nothing can be done, and nobody told, if the terminal has gone.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
    }
}

/// A panic aborts; the terminal must not stay raw.
pub fn restore_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        next(info);
    }));
}

/// The sequence of keys that detaches from a container and leaves it running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// None: every key is the container's.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// `ctrl-p,ctrl-q`, `a`, …; empty switches it off.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |key: &str| {
            format!(
                "'{key}' is no key; keys are a character or ctrl- with a-z, @, [, \\, ], ^ or _, with commas between them"
            )
        };
        if text.is_empty() {
            return Ok(Self::none());
        }
        let mut keys = Vec::new();
        for key in text.split(',') {
            let byte = match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(name), _) => match name.as_bytes() {
                    [letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                        letter & 0x1f
                    }
                    _ => return Err(wrong(key)),
                },
                (None, [byte @ 0x20..=0x7e]) => *byte,
                (None, _) => return Err(wrong(key)),
            };
            keys.push(byte);
        }
        Ok(Self(keys))
    }
}

/// Looks for the detach keys in what is typed. What may be their beginning is held back until it is clear.
#[derive(Debug)]
pub struct DetachWatch {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachWatch {
    /// For these keys.
    pub fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), matched: 0 }
    }

    /// Appends to `passed` what belongs to the container. True when the keys were complete; the rest is dropped.
    pub fn feed(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            passed.extend_from_slice(typed);
            return false;
        }
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
                continue;
            }
            // Not the sequence after all. Only its first key can begin it anew: sequences that contain
            // their own beginning are not worth more.
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
                if self.keys.len() == 1 {
                    self.matched = 0;
                    return true;
                }
            } else {
                passed.push(*byte);
            }
        }
        false
    }
}

/// `-i -t` needs a terminal to read from.
pub fn require(interactive: bool, tty: bool) -> anyhow::Result<()> {
    if interactive && tty && !is_terminal() {
        bail!("-t with -i needs a terminal, and standard input is none; leave out -t to pipe data in");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn feed(keys: &str, typed: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut watch = DetachWatch::new(&DetachKeys::parse(keys).unwrap());
        let mut passed = Vec::new();
        for bytes in typed {
            if watch.feed(bytes, &mut passed) {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn keys_are_found_across_reads() {
        assert_eq!(feed("ctrl-p,ctrl-q", &[b"ab\x10", b"\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(feed("x", &[b"abxcd"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn what_only_looked_like_them_reaches_the_container() {
        assert_eq!(
            feed("ctrl-p,ctrl-q", &[b"\x10a\x10", b"\x10\x10b"]),
            (b"\x10a\x10\x10\x10b".to_vec(), false)
        );
        assert_eq!(feed("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn wrong_keys_are_refused() {
        assert_eq!(DetachKeys::parse("ctrl-@,ctrl-_,a"), Ok(DetachKeys(vec![0, 0x1f, b'a'])));
        for text in ["ctrl-", "ctrl-1", "ab", "ctrl-p,", "é"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }
}
