//! In place of a keeper that was killed: what its container says still goes to the log. Without a reader the
//! container's next word would end it (SIGPIPE), or its terminal would hang up.
//!
//! It is no keeper: nobody can attach, and when wharfd ends as well, so do the streams.

use anyhow::Context;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use wharf_oci::keeper::Spare;
use wharf_oci::readiness;

/// The longest content of one line of the log, as the keeper's.
const LINE: usize = 16 * 1024;
/// What a pipe holds by default.
const READ: usize = 64 * 1024;

/// Copy until nobody has the other side of the streams open.
pub async fn stand_in(spare: Spare, directory: PathBuf) -> anyhow::Result<()> {
    let Spare { stdout, stderr, stdin, log_max_size, log_max_files } = spare;
    let log = Mutex::new(Log::open(directory, log_max_size, log_max_files)?);
    let second = async {
        match stderr {
            Some(stderr) => copy(stderr, "stderr", &log).await,
            None => Ok(()),
        }
    };
    let (first, second) = tokio::join!(copy(stdout, "stdout", &log), second);
    // Until now its input was not at its end either.
    drop(stdin);
    first.and(second)
}

async fn copy(stream: OwnedFd, name: &'static str, log: &Mutex<Log>) -> anyhow::Result<()> {
    // The keeper may have been killed before it came to that.
    rustix::io::ioctl_fionbio(&stream, true).context("a stream of the container")?;
    let stream = readiness::watch(stream, Interest::READABLE).context("a stream of the container")?;
    let mut lines = Lines { name, begun: Vec::new() };
    let mut piece = vec![0; READ];
    loop {
        let read = stream.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut piece)?)).await;
        // A terminal ends with EIO.
        let length = read.unwrap_or(0);
        let text = if length == 0 { lines.rest() } else { lines.split(&piece[..length]) };
        // Into the page cache, and rarely at all: not worth a thread.
        log.lock().write(&text)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// What was read, on its way to lines of the log.
struct Lines {
    name: &'static str,
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete, and pieces of one that is too long.
    fn split(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            let is_whole = self.begun.ends_with(b"\n");
            let length = self.begun.len() - usize::from(is_whole);
            let mut from = 0;
            while length - from > LINE {
                self.line(&mut text, 'P', from..from + LINE);
                from += LINE;
            }
            if is_whole {
                self.line(&mut text, 'F', from..length);
                from = self.begun.len();
            }
            self.begun.drain(..from);
        }
        text
    }

    /// The end of the stream may be no end of a line.
    fn rest(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        if !self.begun.is_empty() {
            self.line(&mut text, 'P', 0..self.begun.len());
            self.begun.clear();
        }
        text
    }

    fn line(&self, text: &mut Vec<u8>, tag: char, range: std::ops::Range<usize>) {
        text.extend_from_slice(format!("{:.9} {} {tag} ", Timestamp::now(), self.name).as_bytes());
        let content = &self.begun[range];
        // Of a terminal.
        text.extend_from_slice(content.strip_suffix(b"\r").unwrap_or(content));
        text.push(b'\n');
    }
}

/// The log file, which the keeper can write to no more.
struct Log {
    directory: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_files: u32,
}

impl Log {
    fn open(directory: PathBuf, max_size: u64, max_files: u32) -> anyhow::Result<Self> {
        let (file, size) = open(&directory)?;
        Ok(Self { directory, file, size, max_size, max_files })
    }

    /// Whole lines.
    fn write(&mut self, text: &[u8]) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.size > 0 && self.size + text.len() as u64 > self.max_size {
            self.rotate()?;
        }
        match self.file.write_all(text) {
            Ok(()) => self.size += text.len() as u64,
            // The container goes on; what could be stored of it is cut after the last whole line.
            Err(error) => {
                tracing::warn!(bytes = text.len(), %error, "output was dropped: the log could not be written");
                self.size = mend(&mut self.file)?;
            }
        }
        Ok(())
    }

    /// `log` becomes `log.1`, and so on; the oldest goes.
    fn rotate(&mut self) -> anyhow::Result<()> {
        let numbered = |number: u32| match number {
            0 => self.directory.join("log"),
            _ => self.directory.join(format!("log.{number}")),
        };
        for number in (0..self.max_files.saturating_sub(1)).rev() {
            // Not all of them need to be there.
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        if self.max_files <= 1 {
            let _ = std::fs::remove_file(numbered(0));
        }
        (self.file, self.size) = open(&self.directory)?;
        Ok(())
    }
}

fn open(directory: &Path) -> anyhow::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join("log");
    let doing = || format!("opening {}", path.display());
    let mut options = File::options();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&path).with_context(doing)?;
    let size = mend(&mut file).with_context(doing)?;
    Ok((file, size))
}

/// Whoever was killed may have left a piece of a line at the end of the file. Returns the size without it.
fn mend(file: &mut File) -> anyhow::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(2 * LINE as u64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut tail)?;
    let whole = match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => from + newline as u64 + 1,
        // None of our lines is as long as that: leave it.
        None if from > 0 => size,
        None => 0,
    };
    if whole < size {
        file.set_len(whole)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stream, tag and content of each line.
    fn parse(text: &[u8]) -> Vec<(String, String, usize)> {
        let text = String::from_utf8(text.to_vec()).expect("text");
        let line = |line: &str| {
            let mut words = line.splitn(4, ' ');
            let time = words.next().expect("a time");
            assert_eq!(time.len(), "2026-01-02T03:04:05.678901234Z".len(), "{time}");
            let mut next = || words.next().expect("four words").to_owned();
            (next(), next(), next().len())
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn lines_are_as_the_keeper_writes_them() {
        let mut lines = Lines { name: "stdout", begun: Vec::new() };
        let mut text = lines.split(b"one\r\ntw");
        text.extend(lines.split(b"o\n\n"));
        text.extend(lines.split(&vec![b'x'; 2 * LINE + 5]));
        text.extend(lines.split(b"\nrest"));
        text.extend(lines.rest());
        let line = |tag: &str, length| ("stdout".to_owned(), tag.to_owned(), length);
        let expected = [
            line("F", 3),
            line("F", 3),
            line("F", 0),
            line("P", LINE),
            line("P", LINE),
            line("F", 5),
            line("P", 4),
        ];
        assert_eq!(parse(&text), expected);
    }

    #[test]
    fn torn_line_is_cut_off_and_files_are_rotated() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("log"), "whole\ntorn").expect("written");
        let mut log = Log::open(dir.path().to_owned(), 12, 2).expect("opened");
        log.write(b"next\n").expect("written");
        assert_eq!(std::fs::read_to_string(path("log")).expect("read"), "whole\nnext\n");
        log.write(b"later\n").expect("written");
        log.write(b"latest\n").expect("written");
        assert_eq!(std::fs::read_to_string(path("log")).expect("read"), "latest\n");
        assert_eq!(std::fs::read_to_string(path("log.1")).expect("read"), "later\n");
        assert!(!path("log.2").exists());
    }
}
