//! Reading a container's log: the files that its keeper writes (CRI lines, rotated), from the oldest to the
//! youngest, filtered, and on request followed until the container ends.
//!
//! The keeper renames `log` to `log.1` and so on; a reader holds the file it reads, and finds the next younger
//! one by inode, so that a rotation while it reads loses and repeats nothing.

use anyhow::Context;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use wharf_bus::types::LogOptions;

/// Bytes taken from a file at a time.
const CHUNK: usize = 64 * 1024;
/// Far more than a keeper ever keeps (`log.maxFiles` is at most 1,000).
const MAX_FILES: u32 = 1000;

/// Copy the log in `dir` to `sink`. With `follow` go on while `running` says so.
pub async fn copy(
    dir: PathBuf,
    options: LogOptions,
    mut running: watch::Receiver<bool>,
    sink: OwnedFd,
) -> anyhow::Result<()> {
    let mut sink = pipe::Sender::from_owned_fd(sink).context("the pipe to the reader")?;
    // Before the first read, so that nothing written afterwards goes unseen.
    let mut changes = Changes::watch(&dir)?;
    let filter = Filter { since: options.since, until: options.until };

    let (mut position, skip) = match options.tail {
        Some(lines) => {
            let dir = dir.clone();
            tokio::task::spawn_blocking(move || tail(&dir, lines)).await??
        }
        None => (Position::oldest(&dir)?, 0),
    };
    position.seek(skip)?;
    loop {
        // Asked before reading: what was written before the end is then read after it.
        let over = !*running.borrow_and_update();
        while let Some(lines) = position.lines(&filter)? {
            if let Err(error) = sink.write_all(&lines).await {
                return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
            }
            if let Some(next) = position.next(&dir)? {
                position = next;
            }
        }
        if let Some(next) = position.next(&dir)? {
            position = next;
            continue;
        }
        if over || !options.follow {
            return Ok(());
        }
        tokio::select! {
            changed = changes.next() => changed?,
            _ = running.changed() => {}
            // The reader has gone.
            _ = gone(&sink) => return Ok(()),
        }
    }
}

async fn gone(sink: &pipe::Sender) {
    // A pipe whose reader has closed reports an error; it is always "writable" otherwise, hence the readiness for
    // errors alone.
    let _ = sink.ready(tokio::io::Interest::ERROR).await;
}

/// Only lines of this time.
struct Filter {
    since: Option<u64>,
    until: Option<u64>,
}

impl Filter {
    fn passes(&self, line: &[u8]) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Some(time) = timestamp(line) else { return false };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// The time at the beginning of a CRI line, microseconds since 1970.
fn timestamp(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok()
}

/// A file of the log and how far it has been read. Only whole lines are taken from it.
struct Position {
    file: File,
    inode: u64,
    rest: Vec<u8>,
}

impl Position {
    /// The beginning of the oldest file; of an empty `log` if there is none yet.
    fn oldest(dir: &Path) -> anyhow::Result<Self> {
        let mut files = files(dir)?;
        files.pop().map_or_else(|| Self::absent(dir), Ok)
    }

    fn of(file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode, rest: Vec::new() })
    }

    /// Stands before a `log` that has not been made yet.
    fn absent(dir: &Path) -> anyhow::Result<Self> {
        let nothing = File::open("/dev/null").with_context(|| format!("no log in {}", dir.display()))?;
        Ok(Self { file: nothing, inode: 0, rest: Vec::new() })
    }

    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if self.inode != 0 {
            self.file.seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }

    /// The next lines that pass; none at the end of what is there.
    fn lines(&mut self, filter: &Filter) -> anyhow::Result<Option<Vec<u8>>> {
        let mut chunk = vec![0; CHUNK];
        let count = self.file.read(&mut chunk)?;
        if count == 0 {
            return Ok(None);
        }
        self.rest.extend_from_slice(&chunk[..count]);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(Some(
            lines
                .split_inclusive(|byte| *byte == b'\n')
                .filter(|line| filter.passes(line))
                .flatten()
                .copied()
                .collect(),
        ))
    }

    /// The next younger file, once this one can grow no more. What was read last is then complete: the keeper
    /// has turned to the other file before that one exists.
    fn next(&mut self, dir: &Path) -> anyhow::Result<Option<Self>> {
        let files = files(dir)?;
        let at = files.iter().position(|file| file.inode == self.inode);
        let next = match at {
            // Still the youngest.
            Some(0) => return Ok(None),
            Some(at) => at - 1,
            // Rotated out of existence while it was read, or not there before: go on with the oldest.
            None if files.is_empty() => return Ok(None),
            None => files.len() - 1,
        };
        // Written after we saw its end but before it was renamed?
        let position = self.file.stream_position()?;
        if self.inode != 0 && self.file.metadata()?.len() > position {
            return Ok(None);
        }
        Ok(files.into_iter().nth(next))
    }
}

/// The files, youngest first. A rotation in between can show one twice; the second time it is left out.
fn files(dir: &Path) -> anyhow::Result<Vec<Position>> {
    let mut found: Vec<Position> = Vec::new();
    for number in 0..MAX_FILES {
        let path = dir.join(if number == 0 { "log".to_owned() } else { format!("log.{number}") });
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        match opened {
            Ok(file) => {
                let position = Position::of(file)?;
                if found.iter().all(|other| other.inode != position.inode) {
                    found.push(position);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && number > 0 => break,
            // Between the two renames of a rotation there is no `log`.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        }
    }
    Ok(found)
}

/// Where the last `count` lines begin: the file and the offset in it. Pieces of one line (`P`) are one.
fn tail(dir: &Path, count: u64) -> anyhow::Result<(Position, u64)> {
    let mut starts: VecDeque<(u64, u64)> = VecDeque::new();
    let mut files = files(dir)?;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    for position in files.iter_mut().rev() {
        let mut reader = BufReader::with_capacity(CHUNK, &position.file);
        let (mut offset, mut line, mut begins) = (0, Vec::new(), true);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            if length == 0 || line.last() != Some(&b'\n') {
                break;
            }
            if begins {
                starts.push_back((position.inode, offset));
                if starts.len() > wanted {
                    starts.pop_front();
                }
            }
            begins = line.split(|byte| *byte == b' ').nth(2) != Some(b"P".as_slice());
            offset += length as u64;
        }
    }
    let end = |files: Vec<Position>| -> anyhow::Result<(Position, u64)> {
        match files.into_iter().next() {
            Some(youngest) => {
                let length = youngest.file.metadata()?.len();
                Ok((youngest, length))
            }
            None => Ok((Position::absent(dir)?, 0)),
        }
    };
    if count == 0 {
        return end(files);
    }
    match starts.front().copied() {
        Some((inode, offset)) => match files.into_iter().find(|file| file.inode == inode) {
            Some(position) => Ok((position, offset)),
            None => Ok((Position::oldest(dir)?, 0)),
        },
        None => Ok((Position::oldest(dir)?, 0)),
    }
}

/// Tells when a file of a directory is written, made or renamed.
struct Changes {
    inotify: AsyncFd<OwnedFd>,
}

impl Changes {
    fn watch(dir: &Path) -> anyhow::Result<Self> {
        use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, dir, events).with_context(|| format!("watching {}", dir.display()))?;
        Ok(Self { inotify: wharf_oci::readiness::watch(inotify, tokio::io::Interest::READABLE)? })
    }

    /// Something has changed since the last call.
    async fn next(&mut self) -> anyhow::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let mut events = [0u8; 4096];
        // What happened does not matter, only that all of it has been taken.
        while let Ok(Ok(1..)) =
            ready.try_io(|inotify| Ok(rustix::io::read(inotify.get_ref().as_fd(), &mut events)?))
        {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    fn line(second: u32, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000001Z stdout F {text}\n")
    }

    async fn read(dir: &Path, options: LogOptions) -> String {
        let (_keep, running) = watch::channel(false);
        let (sink, mut source) = pipe::pipe().expect("a pipe");
        copy(dir.to_owned(), options, running, sink.into_blocking_fd().expect("a descriptor"))
            .await
            .expect("copied");
        let mut text = String::new();
        source.read_to_string(&mut text).await.expect("read");
        text
    }

    fn rotated() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("log.2"), line(1, "one") + &line(2, "two")).expect("written");
        std::fs::write(dir.path().join("log.1"), line(3, "three")).expect("written");
        std::fs::write(dir.path().join("log"), line(4, "four")).expect("written");
        dir
    }

    #[tokio::test]
    async fn log_of_the_first_release_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = include_str!("../../tests/fixtures/0.1/log");
        std::fs::write(dir.path().join("log"), log).expect("written");
        assert_eq!(read(dir.path(), LogOptions::default()).await, log);
    }

    #[tokio::test]
    async fn all_files_are_read_oldest_first() {
        let dir = rotated();
        let all = line(1, "one") + &line(2, "two") + &line(3, "three") + &line(4, "four");
        assert_eq!(read(dir.path(), LogOptions::default()).await, all);
    }

    #[tokio::test]
    async fn tail_counts_over_files_and_pieces_count_once() {
        let dir = rotated();
        let tail = |lines| LogOptions { tail: Some(lines), ..LogOptions::default() };
        assert_eq!(read(dir.path(), tail(0)).await, "");
        assert_eq!(read(dir.path(), tail(3)).await, line(2, "two") + &line(3, "three") + &line(4, "four"));
        assert_eq!(read(dir.path(), tail(99)).await.lines().count(), 4);
        let piece = "2026-01-01T00:00:05Z stdout P fi\n";
        let mut log = File::options().append(true).open(dir.path().join("log")).expect("opened");
        write!(log, "{piece}{}", line(5, "ve")).expect("written");
        assert_eq!(read(dir.path(), tail(1)).await, piece.to_owned() + &line(5, "ve"));
    }

    #[tokio::test]
    async fn since_and_until_bound_the_time() {
        let dir = rotated();
        let second = |number: u64| Some(1_767_225_600_000_000 + number * 1_000_000);
        let options = LogOptions { since: second(2), until: second(4), ..LogOptions::default() };
        assert_eq!(read(dir.path(), options).await, line(2, "two") + &line(3, "three"));
    }

    #[tokio::test]
    async fn follower_sees_rotations_and_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (keep, running) = watch::channel(true);
        let (sink, mut source) = pipe::pipe().expect("a pipe");
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let sink = sink.into_blocking_fd().expect("a descriptor");
        let task = tokio::spawn(copy(dir.path().to_owned(), options, running, sink));
        let path = dir.path().join("log");
        let mut expected = String::new();
        for number in 0..50 {
            if number % 7 == 3 {
                if dir.path().join("log.1").exists() {
                    std::fs::rename(dir.path().join("log.1"), dir.path().join("log.2")).expect("renamed");
                }
                std::fs::rename(&path, dir.path().join("log.1")).expect("renamed");
            }
            let text = line(number, "text");
            let mut log = File::options().append(true).create(true).open(&path).expect("opened");
            // Torn in the middle, as a reader may see it.
            let (head, rest) = text.split_at(10);
            log.write_all(head.as_bytes()).expect("written");
            tokio::time::sleep(Duration::from_millis(2)).await;
            log.write_all(rest.as_bytes()).expect("written");
            expected += &text;
        }
        keep.send(false).expect("the follower listens");
        task.await.expect("joined").expect("copied");
        let mut text = String::new();
        source.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, expected);
    }
}
