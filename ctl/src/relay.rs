//! Copies between a container's streams and ctl's own. Each stream has a thread: they block on descriptors
//! that other processes share, which must therefore stay in blocking mode.

use crate::terminal::{DetachKeys, DetachWatch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// One pipe can be made this large without privileges (fs.pipe-max-size).
const PIPE: usize = 1 << 20;
/// As much as one splice or read moves.
const CHUNK: usize = 1 << 18;

/// What a copying thread reports.
#[derive(Debug)]
pub enum Report {
    /// A stream of the container has ended, and all of it is written.
    OutputEnded,
    /// Whoever read this stream of ctl has gone away.
    ReaderGone(Output),
    /// The user typed the detach keys.
    Detach,
    /// A stream could not be copied to its end.
    Broken(std::io::Error),
}

/// ctl's own streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    fn descriptor(self) -> BorrowedFd<'static> {
        match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Stderr => rustix::stdio::stderr(),
        }
    }
}

/// How far a copy has come: the bytes written, shifted left by one; the lowest bit is set while a write is under
/// way. Two equal even readings mean that nothing came in between.
pub type Progress = Arc<AtomicU64>;

/// Copy everything from `source` to one of ctl's own streams.
pub fn output(source: OwnedFd, target: Output, reports: mpsc::UnboundedSender<Report>) -> Progress {
    let progress = Progress::default();
    let seen = Arc::clone(&progress);
    // A larger pipe saves both sides system calls; a socket or terminal has none.
    let _ = rustix::pipe::fcntl_setpipe_size(&source, PIPE);
    std::thread::spawn(move || {
        let result = copy(source.as_fd(), target.descriptor(), &seen);
        // Closing our end tells the keeper not to write for us any longer.
        drop(source);
        let report = match result {
            Ok(()) => Report::OutputEnded,
            Err(Errno::PIPE) => Report::ReaderGone(target),
            Err(errno) => Report::Broken(errno.into()),
        };
        // Nobody listens once ctl is on its way out.
        let _ = reports.send(report);
    });
    progress
}

/// Copy ctl's standard input to `target` until it ends, then close `target`; with `keys`, look for them.
pub fn input(target: OwnedFd, keys: Option<DetachKeys>, reports: mpsc::UnboundedSender<Report>) {
    std::thread::spawn(move || {
        let mut watch = keys.as_ref().map(DetachWatch::new);
        let mut buffer = vec![0; CHUNK];
        let mut passed = Vec::new();
        loop {
            let stdin = rustix::stdio::stdin();
            let typed = match rustix::io::read(stdin, &mut *buffer) {
                Ok(0) => return,
                Ok(count) => &buffer[..count],
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    wait_for(stdin, PollFlags::IN);
                    continue;
                }
                // Nothing more can come, as at the end.
                Err(_) => return,
            };
            let (bytes, detach) = match &mut watch {
                Some(watch) => {
                    passed.clear();
                    let detach = watch.feed(typed, &mut passed);
                    (&*passed, detach)
                }
                None => (typed, false),
            };
            // A container that does not read is its own affair: it ends or goes on without.
            let written = write_all(target.as_fd(), bytes);
            if detach {
                let _ = reports.send(Report::Detach);
                // Keep the descriptor: closing a terminal could hang it up before ctl has left in order.
                std::mem::forget(target);
                return;
            }
            if written.is_err() {
                return;
            }
        }
    });
}

fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>, progress: &AtomicU64) -> Result<(), Errno> {
    let mut splices = true;
    let mut buffer = Vec::new();
    loop {
        if splices {
            // The kernel moves pages from pipe to pipe or file. It waits for input and output alike, so it is
            // called when there is input: only then is «under way» true.
            wait_for(source, PollFlags::IN);
            progress.fetch_or(1, Ordering::Relaxed);
            let moved = rustix::pipe::splice(source, None, target, None, CHUNK, SpliceFlags::MOVE);
            match moved {
                Ok(0) => return Ok(()),
                Ok(count) => advance(progress, count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_for(target, PollFlags::OUT),
                // Sockets and terminals, some files (append mode): the plain way.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    splices = false;
                    progress.fetch_and(!1, Ordering::Relaxed);
                    buffer.resize(CHUNK, 0);
                }
                Err(errno) => return Err(errno),
            }
            continue;
        }
        match rustix::io::read(source, &mut *buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                progress.fetch_or(1, Ordering::Relaxed);
                write_all(target, &buffer[..count])?;
                advance(progress, count);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(source, PollFlags::IN),
            // A terminal whose last user has gone (IO), a keeper that ended without ceremony (CONNRESET).
            Err(Errno::IO | Errno::CONNRESET) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

fn advance(progress: &AtomicU64, count: usize) {
    let before = progress.load(Ordering::Relaxed) >> 1;
    progress.store((before + count as u64) << 1, Ordering::Relaxed);
}

/// Write everything, also to a descriptor that somebody made non-blocking.
pub fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(target, PollFlags::OUT),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Until it is ready, or has ended. An error of poll itself leaves it to the next read or write to say.
fn wait_for(descriptor: BorrowedFd<'_>, flags: PollFlags) {
    let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], None);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    /// Copies `data` through a pipe into `target` and says how it ended.
    fn through(data: Vec<u8>, target: BorrowedFd<'_>) -> Result<(), Errno> {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let writer = std::thread::spawn(move || File::from(write).write_all(&data));
        let result = copy(read.as_fd(), target, &AtomicU64::new(0));
        drop(read);
        let _ = writer.join().unwrap();
        result
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_byte_arrives_in_a_pipe_a_file_and_an_appended_file() {
        let data = sample(3_000_001);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            File::from(read).read_to_end(&mut all).unwrap();
            all
        });
        through(data.clone(), write.as_fd()).unwrap();
        drop(write);
        assert!(reader.join().unwrap() == data);

        let path = std::env::temp_dir().join(format!("wharf-ctl-{}-relay", std::process::id()));
        let file = File::create(&path).unwrap();
        through(data.clone(), file.as_fd()).unwrap();
        let appended = File::options().append(true).open(&path).unwrap();
        through(data.clone(), appended.as_fd()).unwrap();
        let found = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(found == [data.clone(), data].concat());
    }

    #[test]
    fn nonblocking_target_loses_nothing() {
        let data = sample(1_000_000);
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
            loop {
                wait_for(read.as_fd(), PollFlags::IN);
                match rustix::io::read(&read, &mut buffer) {
                    Ok(0) => return all,
                    Ok(count) => all.extend_from_slice(&buffer[..count]),
                    Err(_) => {}
                }
            }
        });
        through(data.clone(), write.as_fd()).unwrap();
        drop(write);
        assert!(reader.join().unwrap() == data);
    }

    #[test]
    fn reader_that_leaves_is_reported() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        assert_eq!(through(sample(100_000), write.as_fd()), Err(Errno::PIPE));
    }
}
