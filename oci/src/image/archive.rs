//! The tar format, read strictly.
//!
//! Layers are tar streams that other tools read too (scanners, builders, other engines), and an archive that two
//! readers understand differently can hide a file from one of them. So wherever GNU tar, Go's archive/tar and
//! POSIX disagree about a header, the archive is refused; everything they agree on is read: V7, ustar, GNU long
//! names and sparse files, PAX with sparse maps and extended attributes.
//!
//! The crate `tar` gives the layout of a header. Its iterator is not used: it keeps extension records of any size
//! in memory, takes the first of two PAX records where everyone else takes the last, breaks on attribute values
//! with a newline, and ignores a malformed PAX size.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::Header;

const BLOCK: u64 = 512;
/// How long one extension header (long name, PAX records) may be; Go's bound.
const EXTENSION_MAX: u64 = 1 << 20;
/// How many pieces a sparse file may have.
const SEGMENTS_MAX: usize = 1 << 16;

/// Something that can be read, and skipped faster than read.
pub trait Tape: Read + Sized {
    /// Move on by `count` bytes. Fails with `UnexpectedEof` where there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let copied = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if copied < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// A stream without a faster way to skip.
#[derive(Debug)]
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Read> Tape for Stream<R> {}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading failed.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// It ends in the middle of a member.
    #[error("the archive is truncated: it ends {0}")]
    Truncated(&'static str),
    /// Not tar, damaged, or ambiguous.
    #[error("the archive is not valid at byte {offset}: {reason}")]
    Invalid {
        /// Where the header starts.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl ArchiveError {
    pub(super) fn read(error: io::Error, place: &'static str) -> ArchiveError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            ArchiveError::Truncated(place)
        } else {
            ArchiveError::Read(error)
        }
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier member.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A point in time: seconds since 1970, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0..1_000_000_000, counted forwards.
    pub nanoseconds: u32,
}

/// One member of an archive. Its data is read from the [`Archive`] before the next member is.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name as stored.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Last change.
    pub mtime: Time,
    /// Bytes of data in the archive.
    pub size: u64,
    /// Where a link points to, as stored.
    pub link: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A file with holes: the data is that of its segments, one after the other.
    pub sparse: Option<Sparse>,
    /// Where its header starts in the archive.
    pub offset: u64,
    /// Where its data starts.
    pub data_offset: u64,
}

/// Where the data of a file with holes belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// The file's size, holes included.
    pub real_size: u64,
    /// Offset and length, ascending, not overlapping, not empty.
    pub segments: Vec<(u64, u64)>,
}

/// Reads the members of an archive one after the other.
#[derive(Debug)]
pub struct Archive<T> {
    tape: T,
    /// Bytes consumed so far.
    position: u64,
    /// Data of the current member not yet read.
    unread: u64,
    /// Zero bytes after it, up to the next block.
    padding: u64,
    ended: bool,
}

impl<T: Tape> Archive<T> {
    /// At the first member.
    pub fn new(tape: T) -> Archive<T> {
        Archive { tape, position: 0, unread: 0, padding: 0, ended: false }
    }

    /// What it reads from, wherever the reading stands.
    pub fn into_inner(self) -> T {
        self.tape
    }

    /// Read data of the current member; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, ArchiveError> {
        let wanted = usize::try_from(self.unread).unwrap_or(usize::MAX).min(buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        loop {
            match self.tape.read(&mut buf[..wanted]) {
                Ok(0) => return Err(ArchiveError::Truncated("in the middle of a file")),
                Ok(count) => {
                    self.unread -= count as u64;
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::read(error, "in the middle of a file")),
            }
        }
    }

    /// The next member, or none at the end.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut extensions = Extensions::default();
        let mut first = None;
        loop {
            let Some((offset, header)) = self.header()? else {
                return match first {
                    None => Ok(None),
                    Some(offset) => Err(invalid(offset, "an extension header describes no member")),
                };
            };
            let first = *first.get_or_insert(offset);
            let raw = RawHeader { offset, header: &header };
            let size = raw.number("size", &raw.old().size)?;
            match raw.type_flag() {
                b'x' => {
                    if extensions.pax.is_some() {
                        return Err(invalid(offset, "two PAX headers describe the same member"));
                    }
                    let data = self.extension(offset, size)?;
                    extensions.pax = Some(Pax::parse(offset, &data)?);
                }
                b'g' => {
                    let data = self.extension(offset, size)?;
                    Pax::parse(offset, &data)?.check_global(offset)?;
                }
                b'L' => {
                    if extensions.long_name.is_some() {
                        return Err(invalid(offset, "two long names describe the same member"));
                    }
                    extensions.long_name = Some(self.long_name(offset, size)?);
                }
                b'K' => {
                    if extensions.long_link.is_some() {
                        return Err(invalid(offset, "two long link names describe the same member"));
                    }
                    extensions.long_link = Some(self.long_name(offset, size)?);
                }
                b'V' => {
                    // A volume label carries nothing; GNU tar passes over it too.
                    self.expect_data(size)?;
                }
                _ => return self.member(first, raw, size, extensions).map(Some),
            }
        }
    }

    /// The next header that is not the end.
    fn header(&mut self) -> Result<Option<(u64, Header)>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let offset = self.position;
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            self.ended = true;
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            // The end is two zero blocks. One alone and then more data is read on by some and not by others.
            let mut second = [0; BLOCK as usize];
            if self.block(&mut second)? && second.iter().any(|byte| *byte != 0) {
                return Err(invalid(offset, "a lone zero block in the middle of the archive"));
            }
            self.ended = true;
            return Ok(None);
        }
        RawHeader { offset, header: &header }.check_sum()?;
        Ok(Some((offset, header)))
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        let skip = self.unread;
        if skip > 0 {
            self.tape.skip(skip).map_err(|e| ArchiveError::read(e, "in the middle of a file"))?;
            self.position += skip;
            self.unread = 0;
        }
        // The last member's padding may be missing; everyone accepts that.
        let mut padding = [0; BLOCK as usize];
        let mut wanted = usize::try_from(std::mem::take(&mut self.padding)).expect("less than a block");
        while wanted > 0 {
            match self.tape.read(&mut padding[..wanted]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => {
                    wanted -= count;
                    self.position += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::read(error, "after a file")),
            }
        }
        Ok(())
    }

    /// Fill a block; false at the end of the input.
    fn block(&mut self, block: &mut [u8; BLOCK as usize]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.tape.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ArchiveError::Truncated("in the middle of a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::read(error, "in the middle of a header")),
            }
        }
        self.position += BLOCK;
        Ok(true)
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn expect_data(&mut self, size: u64) -> Result<(), ArchiveError> {
        let padded = size.checked_next_multiple_of(BLOCK);
        // i64 is what files can be seeked by, and keeps all later sums in range.
        let end = padded.and_then(|p| self.position.checked_add(p)).filter(|end| i64::try_from(*end).is_ok());
        if end.is_none() {
            return Err(invalid(self.position - BLOCK, "the size is absurd"));
        }
        self.unread = size;
        self.padding = padded.expect("checked") - size;
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > EXTENSION_MAX {
            return Err(invalid(
                offset,
                format!("an extension header of {size} bytes (at most {EXTENSION_MAX})"),
            ));
        }
        self.expect_data(size)?;
        let mut data = vec![0; usize::try_from(size).expect("at most EXTENSION_MAX")];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn long_name(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let data = self.extension(offset, size)?;
        // GNU tar reads on behind the data where the NUL is missing, others stop at its end.
        if data.last() != Some(&0) {
            return Err(invalid(offset, "a long name does not end with a NUL byte"));
        }
        Ok(until_nul(&data).to_vec())
    }

    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn member(
        &mut self,
        first: u64,
        raw: RawHeader<'_>,
        header_size: u64,
        extensions: Extensions,
    ) -> Result<Member, ArchiveError> {
        let offset = raw.offset;
        let Extensions { pax, long_name, long_link } = extensions;
        let mut pax = pax.unwrap_or_default();
        let name = one_of(offset, "name", pax.take("path"), long_name)?.unwrap_or_else(|| raw.name());
        let link = one_of(offset, "link name", pax.take("linkpath"), long_link)?
            .unwrap_or_else(|| until_nul(&raw.old().linkname).to_vec());
        let size = pax.number(offset, "size")?.unwrap_or(header_size);
        let uid = match pax.number(offset, "uid")? {
            Some(uid) => uid,
            None => raw.number("uid", &raw.old().uid)?,
        };
        let gid = match pax.number(offset, "gid")? {
            Some(gid) => gid,
            None => raw.number("gid", &raw.old().gid)?,
        };
        let mtime = match pax.take("mtime") {
            Some(text) => pax_time(&text).ok_or_else(|| invalid(offset, "the PAX mtime is no number"))?,
            None => Time { seconds: raw.signed("mtime", &raw.old().mtime)?, nanoseconds: 0 },
        };
        let mode = raw.number("mode", &raw.old().mode)? & 0o7777;
        let mode = u32::try_from(mode).expect("twelve bits");
        let flag = raw.type_flag();
        let mut kind = match flag {
            b'0' | b'\0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'D' | b'M' | b'N' => {
                return Err(invalid(offset, "a member of an incremental or multi-volume backup"));
            }
            other => return Err(invalid(offset, format!("unknown member type {:?}", char::from(other)))),
        };
        if kind == Kind::File && flag != b'S' && name.ends_with(b"/") {
            // V7 tar had no type for directories: a slash at the end made one, and GNU tar still reads it so.
            if size != 0 {
                return Err(invalid(offset, "a file whose name ends with a slash"));
            }
            kind = Kind::Directory;
        }
        if kind != Kind::File && size != 0 {
            // Some readers skip this data, others read it as the next header.
            return Err(invalid(offset, "a member that is no file has data"));
        }
        self.expect_data(size)?;
        let data_offset = self.position;
        let mut member = Member {
            name,
            kind,
            mode,
            uid,
            gid,
            mtime,
            size,
            link,
            xattrs: pax.xattrs(),
            sparse: None,
            offset: first,
            data_offset,
        };
        if flag == b'S' {
            self.old_sparse(raw, &mut member)?;
        } else if kind == Kind::File {
            self.pax_sparse(offset, pax, &mut member)?;
        } else if pax.is_sparse() {
            return Err(invalid(offset, "a sparse map for a member that is no file"));
        }
        Ok(member)
    }

    /// GNU's old format: four pieces in the header, more in blocks after it that are not part of the size.
    fn old_sparse(&mut self, raw: RawHeader<'_>, member: &mut Member) -> Result<(), ArchiveError> {
        let offset = raw.offset;
        let gnu = raw.header.as_gnu().ok_or_else(|| invalid(offset, "a sparse file without a GNU header"))?;
        let real_size = raw.number("real size", &gnu.realsize)?;
        let mut segments = Vec::new();
        let push = |segments: &mut Vec<(u64, u64)>, piece: &tar::GnuSparseHeader| {
            if piece.is_empty() {
                return Ok(());
            }
            if segments.len() >= SEGMENTS_MAX {
                return Err(invalid(offset, "too many pieces in a sparse file"));
            }
            segments.push((raw.number("offset", &piece.offset)?, raw.number("length", &piece.numbytes)?));
            Ok(())
        };
        for piece in &gnu.sparse {
            push(&mut segments, piece)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            if !self.block(block.as_mut_bytes())? {
                return Err(ArchiveError::Truncated("in the map of a sparse file"));
            }
            for piece in block.sparse() {
                push(&mut segments, piece)?;
            }
            more = block.is_extended();
        }
        member.data_offset = self.position;
        member.sparse = Some(Sparse::checked(offset, real_size, segments, member.size)?);
        Ok(())
    }

    /// The three PAX formats: 0.0 and 0.1 keep the map in the records, 1.0 in front of the data.
    fn pax_sparse(&mut self, offset: u64, mut pax: Pax, member: &mut Member) -> Result<(), ArchiveError> {
        if !pax.is_sparse() {
            return Ok(());
        }
        let bad = |reason: &str| invalid(offset, format!("PAX sparse file: {reason}"));
        let major = pax.number(offset, "GNU.sparse.major")?;
        let minor = pax.number(offset, "GNU.sparse.minor")?;
        let map = pax.take("GNU.sparse.map");
        let pieces = std::mem::take(&mut pax.pieces);
        let real_size =
            match (pax.number(offset, "GNU.sparse.realsize")?, pax.number(offset, "GNU.sparse.size")?) {
                (Some(size), None) | (None, Some(size)) => size,
                (Some(a), Some(b)) if a == b => a,
                (Some(_), Some(_)) | (None, None) => return Err(bad("its size is missing or ambiguous")),
            };
        let segments = match (major, minor) {
            (None, None) | (Some(0), Some(0 | 1)) => match (map, pieces.is_empty()) {
                (Some(map), true) => {
                    let numbers = map
                        .split(|byte| *byte == b',')
                        .map(decimal)
                        .collect::<Option<Vec<u64>>>()
                        .ok_or_else(|| bad("its map is no list of numbers"))?;
                    pairs(&numbers).ok_or_else(|| bad("its map has an odd length"))?
                }
                (None, false) => pairs(&pieces).ok_or_else(|| bad("its map has an odd length"))?,
                (None, true) | (Some(_), false) => return Err(bad("its map is missing or ambiguous")),
            },
            (Some(1), Some(0)) if map.is_none() && pieces.is_empty() => self.sparse_map(offset, member)?,
            _ => return Err(bad("unknown version")),
        };
        if let Some(name) = pax.take("GNU.sparse.name") {
            member.name = name;
        }
        member.sparse = Some(Sparse::checked(offset, real_size, segments, member.size)?);
        Ok(())
    }

    /// The map of version 1.0: decimal numbers on lines, padded to whole blocks.
    fn sparse_map(&mut self, offset: u64, member: &mut Member) -> Result<Vec<(u64, u64)>, ArchiveError> {
        let bad = || invalid(offset, "the map of a sparse file is damaged");
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1;
        let mut current: Option<u64> = None;
        while numbers.len() < wanted {
            if member.size < BLOCK {
                return Err(bad());
            }
            let mut block = [0; BLOCK as usize];
            let mut filled = 0;
            while filled < block.len() {
                filled += self.read_data(&mut block[filled..])?;
            }
            member.size -= BLOCK;
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let value = current.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(digit));
                        current = Some(value.ok_or_else(bad)?);
                    }
                    b'\n' => {
                        numbers.push(current.take().ok_or_else(bad)?);
                        if numbers.len() == 1 {
                            let count = usize::try_from(numbers[0]).ok().filter(|n| *n <= SEGMENTS_MAX);
                            wanted = 1 + 2 * count.ok_or_else(bad)?;
                        }
                        if numbers.len() == wanted {
                            break;
                        }
                    }
                    _ => return Err(bad()),
                }
            }
        }
        member.data_offset = self.position;
        pairs(&numbers[1..]).ok_or_else(bad)
    }
}

impl Sparse {
    fn checked(
        offset: u64,
        real_size: u64,
        segments: Vec<(u64, u64)>,
        data: u64,
    ) -> Result<Sparse, ArchiveError> {
        let mut end = 0;
        let mut sum = 0;
        for (start, length) in &segments {
            let next = start.checked_add(*length).filter(|next| *next <= real_size);
            match next {
                Some(next) if *start >= end => end = next,
                Some(_) | None => {
                    return Err(invalid(offset, "the pieces of a sparse file overlap or exceed it"));
                }
            }
            sum += length;
        }
        if sum != data {
            return Err(invalid(offset, "the pieces of a sparse file are not as long as its data"));
        }
        if i64::try_from(real_size).is_err() {
            return Err(invalid(offset, "the size is absurd"));
        }
        let segments = segments.into_iter().filter(|(_, length)| *length > 0).collect();
        Ok(Sparse { real_size, segments })
    }
}

/// What stands before a member and describes it.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// The records of a PAX header: the last of a key counts, as everywhere.
#[derive(Default)]
struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sparse version 0.0 repeats its keys: offset, length, offset, length …
    pieces: Vec<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    fn parse(offset: u64, mut data: &[u8]) -> Result<Pax, ArchiveError> {
        let bad = || invalid(offset, "a damaged PAX record");
        let mut pax = Pax::default();
        while !data.is_empty() {
            // "LENGTH KEY=VALUE\n", where the length counts everything and the value may be binary.
            let space = data.iter().take(8).position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &data[space + 1..length - 1];
            data = &data[length..];
            let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0).ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.contains(&0) {
                return Err(bad());
            }
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let expected_even = key == b"GNU.sparse.offset";
                    if pax.pieces.len().is_multiple_of(2) != expected_even
                        || pax.pieces.len() >= 2 * SEGMENTS_MAX
                    {
                        return Err(bad());
                    }
                    pax.pieces.push(decimal(value).ok_or_else(bad)?);
                }
                b"path" | b"linkpath" | b"size" | b"GNU.sparse.name" => {
                    if value.contains(&0) {
                        return Err(invalid(offset, "a name with a NUL byte"));
                    }
                    // Takes the record back, says POSIX; is the value, says GNU tar.
                    if value.is_empty() {
                        let key = String::from_utf8_lossy(key);
                        return Err(invalid(offset, format!("the PAX record {key:?} is empty")));
                    }
                    if pax.records.insert(key.to_vec(), value.to_vec()).is_some_and(|old| old != value) {
                        let key = String::from_utf8_lossy(key);
                        return Err(invalid(offset, format!("the PAX record {key:?} is there twice")));
                    }
                }
                _ => {
                    pax.records.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(pax)
    }

    /// Global records apply to all later members for GNU tar and to none for container engines.
    fn check_global(&self, offset: u64) -> Result<(), ArchiveError> {
        let decides = |key: &Vec<u8>| {
            matches!(&key[..], b"path" | b"linkpath" | b"size" | b"uid" | b"gid")
                || key.starts_with(b"GNU.sparse.")
                || key.starts_with(XATTR)
        };
        match self.records.keys().find(|key| decides(key)) {
            Some(key) => {
                let key = String::from_utf8_lossy(key);
                Err(invalid(
                    offset,
                    format!("a global PAX header with {key:?}, which readers treat differently"),
                ))
            }
            None if self.pieces.is_empty() => Ok(()),
            None => Err(invalid(offset, "a global PAX header with a sparse map")),
        }
    }

    /// An empty value takes the record back, says POSIX.
    fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        self.records.remove(key.as_bytes()).filter(|value| !value.is_empty())
    }

    fn number(&mut self, offset: u64, key: &str) -> Result<Option<u64>, ArchiveError> {
        self.take(key)
            .map(|text| {
                decimal(&text).ok_or_else(|| invalid(offset, format!("the PAX record {key:?} is no number")))
            })
            .transpose()
    }

    fn is_sparse(&self) -> bool {
        !self.pieces.is_empty() || self.records.keys().any(|key| key.starts_with(b"GNU.sparse."))
    }

    fn xattrs(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
            .collect()
    }
}

/// A header whose place in the archive is known, for messages.
#[derive(Clone, Copy)]
struct RawHeader<'a> {
    offset: u64,
    header: &'a Header,
}

impl<'a> RawHeader<'a> {
    fn old(self) -> &'a tar::OldHeader {
        self.header.as_old()
    }

    fn type_flag(self) -> u8 {
        self.old().linkflag[0]
    }

    fn check_sum(self) -> Result<(), ArchiveError> {
        let wrong =
            || invalid(self.offset, "the checksum of a header is wrong (not a tar archive, or damaged)");
        let stored = self.number("checksum", &self.old().cksum).map_err(|_| wrong())?;
        let bytes = || {
            let checksum = 148..156;
            self.header
                .as_bytes()
                .iter()
                .enumerate()
                .map(move |(at, byte)| if checksum.contains(&at) { b' ' } else { *byte })
        };
        let unsigned: u64 = bytes().map(u64::from).sum();
        // Some old implementations summed signed characters.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if stored == unsigned || i64::try_from(stored) == Ok(signed) { Ok(()) } else { Err(wrong()) }
    }

    fn name(self) -> Vec<u8> {
        let name = until_nul(&self.old().name);
        match self.header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
            Some(prefix) if !prefix.is_empty() => [prefix, name].join(&b'/'),
            Some(_) | None => name.to_vec(),
        }
    }

    /// An unsigned number: octal digits, or GNU's binary form.
    fn number(self, field: &str, bytes: &[u8]) -> Result<u64, ArchiveError> {
        let number = self.signed(field, bytes)?;
        u64::try_from(number).map_err(|_| invalid(self.offset, format!("the {field} is negative")))
    }

    fn signed(self, field: &str, bytes: &[u8]) -> Result<i64, ArchiveError> {
        let bad = || invalid(self.offset, format!("the {field} is no number"));
        if bytes[0] & 0x80 != 0 {
            // Two's complement over the whole field, whose top bit is only a mark.
            let negative = bytes[0] & 0x40 != 0;
            let first =
                if negative { i128::from(bytes[0].cast_signed()) } else { i128::from(bytes[0] & 0x7f) };
            let value = bytes[1..].iter().fold(first, |value, byte| value * 256 + i128::from(*byte));
            return i64::try_from(value).map_err(|_| bad());
        }
        let text: &[u8] = until_nul(bytes).trim_ascii();
        text.iter().try_fold(0_i64, |value, byte| match byte {
            b'0'..=b'7' => value.checked_mul(8).map(|v| v + i64::from(byte - b'0')).ok_or_else(bad),
            _ => Err(bad()),
        })
    }
}

fn invalid(offset: u64, reason: impl Into<String>) -> ArchiveError {
    ArchiveError::Invalid { offset, reason: reason.into() }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

/// GNU's and PAX's way of saying the same thing must agree where both are used.
fn one_of(
    offset: u64,
    what: &str,
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, ArchiveError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(invalid(offset, format!("a PAX and a GNU header disagree about the {what}")))
        }
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn pairs(numbers: &[u64]) -> Option<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) {
        return None;
    }
    Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off.
fn pax_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        // Times count forwards: -1.25 s is two seconds before and 0.75 s on.
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}
