//! What images are loaded from: a directory, or an archive that may be compressed and may come through a pipe.
//!
//! A file that can be read anywhere is only indexed. Anything else is read once from start to end, and its files
//! are put into the store's staging directory as they come, hashed on the way: a blob may stand before the
//! document that says whether it is needed.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::archive::{Archive, ArchiveError, Kind, Stream, Tape};
use super::compression::{Compression, Decompressor};
use super::digest::{Algorithm, Digest, Digester};
use super::layer::Limits;

/// How many symbolic links inside an archive may lead from one to the next.
const LINKS_MAX: usize = 8;

/// What to load from.
#[derive(Debug)]
pub enum LoadSource {
    /// An archive: a file, a pipe, a socket. If it is a directory, it is taken as one.
    File(File),
    /// A directory that holds an OCI image layout.
    Dir(OwnedFd),
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The archive is damaged.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The archive holds more than [`Limits`] allow.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// A file of the source is no regular file, or lies outside of it.
    #[error("{path:?} {reason}")]
    Refused {
        /// Which.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A document is too long.
    #[error("{path:?} has {size} bytes, more than the {limit} that are read")]
    TooLong {
        /// Which.
        path: String,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// The operating system said no.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// What came back.
        #[source]
        source: io::Error,
    },
}

/// A source that is ready to be read from.
#[derive(Debug)]
pub struct Source {
    kind: SourceKind,
    /// The name of the file or directory without its endings, if it can be told.
    pub stem: Option<String>,
}

#[derive(Debug)]
enum SourceKind {
    Dir(OwnedFd),
    Archive { file: File, members: HashMap<String, Node> },
}

#[derive(Debug)]
enum Node {
    /// In the archive itself.
    InPlace { offset: u64, size: u64 },
    /// Taken out of the archive.
    Spooled { path: PathBuf, size: u64, digest: Digest },
    /// A link; the path it leads to.
    Link(String),
}

/// One file of a source.
#[derive(Debug)]
pub struct Blob {
    /// Its content.
    pub reader: Window,
    /// Its length.
    pub size: u64,
    /// If it was taken out of the archive: where it is, and what it was found to be.
    pub spooled: Option<(PathBuf, Digest)>,
}

impl Blob {
    /// Does it look uncompressed?
    pub fn starts_plain(&self) -> Result<bool, SourceError> {
        Ok(detect(&self.reader.file, self.reader.at)? == Compression::None)
    }
}

impl Source {
    /// Look through the source. `spool` is a directory of ours for what cannot be read in place. `progress` hears
    /// how many bytes were taken out of the archive.
    pub fn open(
        source: LoadSource,
        spool: &Path,
        limits: &Limits,
        progress: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<Source, SourceError> {
        let file = match source {
            LoadSource::Dir(dir) => return Ok(Source { stem: stem(&dir), kind: SourceKind::Dir(dir) }),
            LoadSource::File(file) => file,
        };
        let stem = stem(&file);
        let meta = file.metadata().map_err(|e| io_error("looking at the archive", e))?;
        if meta.is_dir() {
            return Ok(Source { stem, kind: SourceKind::Dir(file.into()) });
        }
        let start = if meta.is_file() { rustix::fs::tell(&file).ok() } else { None };
        let members = match start {
            Some(start) if detect(&file, start)? == Compression::None => {
                index(&file, start, meta.len(), limits)?
            }
            Some(_) | None => {
                let read = Cell::new(0);
                let counted = Counted { input: &file, count: &read };
                let input = Decompressor::new(counted).map_err(|e| io_error("reading the archive", e))?;
                take_out(input, &read, spool, limits, progress)?
            }
        };
        Ok(Source { kind: SourceKind::Archive { file, members }, stem })
    }

    /// Open a file of the source by its path in it; none if it does not exist.
    pub fn file(&self, path: &str) -> Result<Option<Blob>, SourceError> {
        match &self.kind {
            SourceKind::Dir(dir) => open_beneath(dir, path),
            SourceKind::Archive { file, members } => {
                let Some(mut name) = normal(path) else { return Ok(None) };
                for _ in 0..=LINKS_MAX {
                    match members.get(&name) {
                        None => return Ok(None),
                        Some(Node::Link(target)) => name = target.clone(),
                        Some(Node::InPlace { offset, size }) => {
                            let file = file.try_clone().map_err(|e| io_error("reading the archive", e))?;
                            let reader = Window { file, at: *offset, end: offset + size };
                            return Ok(Some(Blob { reader, size: *size, spooled: None }));
                        }
                        Some(Node::Spooled { path, size, digest }) => {
                            let file = File::open(path).map_err(|e| io_error("reading a staged file", e))?;
                            let reader = Window { file, at: 0, end: *size };
                            let spooled = Some((path.clone(), digest.clone()));
                            return Ok(Some(Blob { reader, size: *size, spooled }));
                        }
                    }
                }
                Err(SourceError::Refused { path: path.to_owned(), reason: "is a loop of links" })
            }
        }
    }

    /// Read a short file of the source whole; none if it does not exist.
    pub fn document(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(blob) = self.file(path)? else { return Ok(None) };
        if blob.size > limit {
            return Err(SourceError::TooLong { path: path.to_owned(), size: blob.size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        let read = blob.reader.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| io_error(&format!("reading {path:?}"), e))?;
        Ok(Some(bytes))
    }
}

fn detect(file: &File, at: u64) -> Result<Compression, SourceError> {
    let mut start = [0; 4];
    let count = file.read_at(&mut start, at).map_err(|e| io_error("reading the archive", e))?;
    if let Some(error) = Compression::unsupported(&start[..count]) {
        return Err(io_error("reading the archive", error));
    }
    Ok(Compression::detect(&start[..count]))
}

/// Note where everything is in an archive that can be read anywhere.
fn index(file: &File, at: u64, end: u64, limits: &Limits) -> Result<HashMap<String, Node>, SourceError> {
    let file = file.try_clone().map_err(|e| io_error("reading the archive", e))?;
    let mut archive = Archive::new(Window { file, at, end });
    let mut members = HashMap::new();
    let mut count = 0;
    while let Some(member) = archive.next_member()? {
        count += 1;
        check_count(count, limits)?;
        let Some(name) = std::str::from_utf8(&member.name).ok().and_then(normal) else { continue };
        let node = match member.kind {
            Kind::File if member.sparse.is_none() => {
                Node::InPlace { offset: at + member.data_offset, size: member.size }
            }
            Kind::Symlink | Kind::HardLink => match link(&name, &member.link, member.kind) {
                Some(target) => Node::Link(target),
                None => continue,
            },
            Kind::File | Kind::CharDevice | Kind::BlockDevice | Kind::Directory | Kind::Fifo => continue,
        };
        members.insert(name, node);
    }
    Ok(members)
}

/// Counts what is read through it.
struct Counted<'a> {
    input: &'a File,
    count: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.input.read(buf) {
                Ok(count) => {
                    self.count.set(self.count.get() + count as u64);
                    return Ok(count);
                }
                // The caller's pipe may be non-blocking, and its flags are the caller's as well.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    use rustix::event::{PollFd, PollFlags, poll};
                    poll(&mut [PollFd::new(self.input, PollFlags::IN)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Take every file out of an archive that can be read once only. `read` counts its bytes as they come in.
fn take_out(
    input: impl Read,
    read: &Cell<u64>,
    spool: &Path,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<HashMap<String, Node>, SourceError> {
    let mut archive = Archive::new(Stream(input));
    let mut members = HashMap::new();
    let mut count = 0;
    let mut total = 0;
    let mut written = 0;
    let mut buffer = vec![0; 256 << 10];
    while let Some(member) = archive.next_member()? {
        count += 1;
        check_count(count, limits)?;
        let Some(name) = std::str::from_utf8(&member.name).ok().and_then(normal) else { continue };
        let node = match member.kind {
            Kind::File if member.sparse.is_none() => {
                total += member.size;
                if total > limits.bytes {
                    return Err(SourceError::Limit { what: "bytes", limit: limits.bytes });
                }
                let path = spool.join(count.to_string());
                let writing = |e| io_error("staging a file of the archive", e);
                let mut file = File::create_new(&path).map_err(writing)?;
                let mut digester = Digester::new(Algorithm::Sha256);
                loop {
                    let n = archive.read_data(&mut buffer)?;
                    if n == 0 {
                        break;
                    }
                    written += n as u64;
                    if written > limits.ratio_from && written / limits.ratio > read.get() {
                        let what = "times its compressed size";
                        return Err(SourceError::Limit { what, limit: limits.ratio });
                    }
                    digester.update(&buffer[..n]);
                    file.write_all(&buffer[..n]).map_err(writing)?;
                    progress(total).map_err(|e| io_error("reading the archive", e))?;
                }
                Node::Spooled { path, size: member.size, digest: digester.finish() }
            }
            Kind::Symlink | Kind::HardLink => match link(&name, &member.link, member.kind) {
                Some(target) => Node::Link(target),
                None => continue,
            },
            Kind::File | Kind::CharDevice | Kind::BlockDevice | Kind::Directory | Kind::Fifo => continue,
        };
        members.insert(name, node);
    }
    // Read to the end: what was compressed has a checksum there.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| io_error("reading the archive", e))?;
    Ok(members)
}

fn check_count(count: usize, limits: &Limits) -> Result<(), SourceError> {
    if count > limits.members {
        return Err(SourceError::Limit { what: "members", limit: limits.members as u64 });
    }
    Ok(())
}

/// Where a link inside an archive leads, by its text alone.
fn link(name: &str, target: &[u8], kind: Kind) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let relative = kind == Kind::Symlink && !target.starts_with('/');
    match name.rsplit_once('/') {
        Some((dir, _)) if relative => normal(&format!("{dir}/{target}")),
        Some(_) | None => normal(target),
    }
}

/// A path without `.`, `..`, empty components and leading slash; none if it leads out or to nothing.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

/// Open a regular file below a directory. Links may lead around inside of it (shared blobs), never out.
fn open_beneath(dir: &OwnedFd, path: &str) -> Result<Option<Blob>, SourceError> {
    let refused = |reason| SourceError::Refused { path: path.to_owned(), reason };
    // NONBLOCK: a FIFO in a hostile directory must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => break other,
        }
    };
    let fd = match opened {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV | Errno::LOOP) => return Err(refused("leads out of the directory")),
        Err(Errno::NXIO | Errno::NODEV) => return Err(refused("is no regular file")),
        Err(error) => return Err(io_error(&format!("opening {path:?}"), error.into())),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| io_error(&format!("looking at {path:?}"), e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("is no regular file"));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Some(Blob { reader: Window { file: fd.into(), at: 0, end: size }, size, spooled: None }))
}

/// What a file or directory is called, as the kernel knows it.
fn stem(fd: &impl AsFd) -> Option<String> {
    use std::os::fd::AsRawFd;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).ok()?;
    // Pipes and the like read as `pipe:[1234]`.
    if path.is_absolute() { stem_of(&path) } else { None }
}

/// A file's name without what says that it is an archive.
pub(super) fn stem_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let endings = [".gz", ".zst", ".tgz", ".tzst", ".tar", ".oci", ".docker"];
    let mut stem = name;
    while let Some(rest) = endings.iter().find_map(|ending| stem.strip_suffix(ending)) {
        stem = rest;
    }
    if stem.is_empty() { None } else { Some(stem.to_owned()) }
}

/// A part of a file, read by position: any number of them share one descriptor.
#[derive(Debug)]
pub struct Window {
    file: File,
    at: u64,
    end: u64,
}

impl Window {
    /// All of a file.
    pub fn whole(file: File) -> io::Result<Window> {
        let end = file.metadata()?.len();
        Ok(Window { file, at: 0, end })
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len());
        let count = self.file.read_at(&mut buf[..wanted], self.at)?;
        if count == 0 && wanted > 0 {
            // It was longer when we looked.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Tape for Window {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self.at.checked_add(count).filter(|at| *at <= self.end) {
            Some(at) => {
                self.at = at;
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn io_error(doing: &str, source: io::Error) -> SourceError {
    // A compressed archive that ends too early says so through the reader.
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::Truncated("before its end").into();
    }
    SourceError::Io { doing: doing.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn paths_in_an_archive_stay_inside() {
        assert_eq!(normal("./a//b/.").as_deref(), Some("a/b"));
        assert_eq!(normal("/a/../b").as_deref(), Some("b"));
        assert_eq!(normal("a/../../b"), None);
        assert_eq!(normal(""), None);
        assert_eq!(link("x/layer.tar", b"../y/layer.tar", Kind::Symlink).as_deref(), Some("y/layer.tar"));
        assert_eq!(link("x/layer.tar", b"y/layer.tar", Kind::HardLink).as_deref(), Some("y/layer.tar"));
        assert_eq!(link("x/layer.tar", b"../../etc/passwd", Kind::Symlink), None);
    }

    #[test]
    fn a_directory_is_not_left_through_links() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("real"), "x").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("in")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let source = LoadSource::File(File::open(dir.path()).unwrap());
        let source = Source::open(source, dir.path(), &Limits::default(), &mut |_| Ok(())).unwrap();
        assert!(matches!(source.file("out"), Err(SourceError::Refused { .. })));
        assert!(matches!(source.file("../x"), Err(SourceError::Refused { .. })));
        assert!(matches!(source.file("/etc/passwd"), Err(SourceError::Refused { .. })));
        assert!(matches!(source.file("dir"), Err(SourceError::Refused { .. })));
        assert!(matches!(source.file("fifo"), Err(SourceError::Refused { .. })));
        assert!(source.file("none").unwrap().is_none());
        assert_eq!(source.document("in", 10).unwrap().unwrap(), b"x");
        assert!(matches!(source.document("in", 0), Err(SourceError::TooLong { .. })));
    }
}
