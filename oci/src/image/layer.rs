//! One layer's tar onto the disk, as a lower directory for overlayfs.
//!
//! The layer's author is an adversary: names with `..`, links that lead outside, a file written through a
//! symbolic link of the same layer, bombs. What holds against that:
//!
//! - Every parent directory is opened with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)`
//!   from the layer's own directory, so the kernel keeps every lookup inside; the last component is only ever
//!   used with calls that do not follow links, and files are created with `O_EXCL`.
//! - `..`, empty and NUL names are refused; a leading `/` means the layer's directory, as for GNU tar.
//! - Ownership, modes and attributes are set through the descriptor of what was just created.
//! - [`Limits`] bound entries, bytes, names and the compression ratio.
//!
//! What is kept and what is not:
//!
//! | in the layer | on disk |
//! |---|---|
//! | whiteout `.wh.NAME` | character device 0:0 `NAME`, overlayfs' whiteout |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on the directory |
//! | other `.wh..wh.*` (aufs' own) | nothing |
//! | device nodes | nothing, counted: containers get their devices from the runtime |
//! | `user.*`, `security.capability` | the same |
//! | `trusted.*`, `user.overlay.*` | refused: they steer overlayfs |
//! | other attributes (SELinux labels, ACLs) | nothing, counted |
//! | ids from 65536 | the same, counted: a container with its own ids sees their owner as `nobody` |
//! | a directory that only appears in the names of its children | made like the one of the layers below |
//!
//! This reads a stream and writes beneath one descriptor and knows nothing of the store, so that it can run in a
//! process that may do nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, ArchiveError, Kind, Member, Stream, Time};
use super::tree;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &CStr = c"trusted.overlay.opaque";
/// Where ids end that a container with its own ids has.
const IDS: u64 = 65536;
/// How many names of skipped things are kept for `inspect`.
const EXAMPLES: usize = 8;

/// Bounds on what a layer may hold, against bombs. The defaults are far above any layer seen in practice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members of one layer.
    pub entries: u64,
    /// Bytes of one uncompressed layer.
    pub bytes: u64,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
    /// Bytes of one name.
    pub name_bytes: usize,
    /// Bytes of all names that have to be remembered while a layer is unpacked.
    pub remembered_bytes: usize,
    /// How many times larger than its compressed form a layer may be …
    pub ratio: u64,
    /// … once it has grown beyond this many bytes. A layer may well begin with a large file of zeros.
    pub ratio_from: u64,
    /// Bytes of a manifest, an index or a configuration.
    pub document_bytes: u64,
    /// Layers of one image: what overlayfs can stack.
    pub layers: usize,
    /// Images in one archive.
    pub images: usize,
    /// Members of an archive that images are loaded from.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 2_000_000,
            bytes: 256 << 30,
            file_bytes: 1 << 40,
            name_bytes: 4095,
            remembered_bytes: 256 << 20,
            ratio: 200,
            ratio_from: 1 << 30,
            document_bytes: 4 << 20,
            layers: 500,
            images: 1000,
            members: 200_000,
        }
    }
}

/// What was unpacked, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unpacked {
    /// Members, whiteouts and skipped ones included.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// Whiteouts and opaque directories.
    pub whiteouts: u64,
    /// Device nodes that were skipped.
    pub devices: u64,
    /// Extended attributes that were skipped.
    pub xattrs: u64,
    /// Files whose owner or group is 65536 or above.
    pub foreign_ids: u64,
    /// Some names of the above, with what they are examples of.
    pub examples: Vec<String>,
    /// Does its root hide everything below? overlayfs does not look at the attribute there.
    pub root_opaque: bool,
    /// Were directories made like those of the layers below? Then the tree is right above those only.
    pub inherited: bool,
}

impl Unpacked {
    /// The notes that a user should see, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        };
        note(self.devices, "device nodes skipped (containers get their devices from the runtime)");
        note(self.xattrs, "extended attributes skipped (only user.* and security.capability are kept)");
        note(self.foreign_ids, "files belong to ids above 65535 (shown as nobody unless --userns=host)");
        notes
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is not what it should be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A member that may not be.
    #[error("entry {entry:?}: {reason}")]
    Refused {
        /// Its name, as far as it can be shown.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Larger than [`Limits`] allow.
    #[error("the layer has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The kernel or file system said no.
    #[error("entry {entry:?}: {doing}")]
    Write {
        /// Which entry.
        entry: String,
        /// What was tried.
        doing: &'static str,
        /// What came back.
        #[source]
        source: io::Error,
    },
}

/// Unpack an uncompressed tar stream into the empty directory `root`.
///
/// `trash` is an empty directory on the same file system, for what the layer itself removes again. `lower` are
/// the trees of the layers below, topmost first. `progress` hears the bytes written so far and says whether to go
/// on. The stream is read up to the end of the archive; what follows is left to the caller.
pub fn unpack(
    stream: impl Read,
    root: BorrowedFd<'_>,
    trash: BorrowedFd<'_>,
    lower: &[BorrowedFd<'_>],
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker {
        root,
        trash,
        lower,
        limits,
        parent: None,
        times: BTreeMap::new(),
        implied: BTreeSet::new(),
        skipped: HashSet::new(),
        root_inherited: false,
        remembered: 0,
        buffer: vec![0; 256 << 10].into_boxed_slice(),
        done: Unpacked::default(),
    };
    unpacker.attributes_of_root()?;
    let mut archive = Archive::new(Stream(stream));
    while let Some(member) = archive.next_member()? {
        unpacker.done.entries += 1;
        if unpacker.done.entries > limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: limits.entries });
        }
        unpacker.member(&member, &mut archive, progress)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    trash: BorrowedFd<'a>,
    lower: &'a [BorrowedFd<'a>],
    limits: &'a Limits,
    /// The directory of the last entry: most entries share it with their neighbour. Forgotten whenever something
    /// is removed, so it can never be a directory that its name no longer leads to.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set at the end because every new child changes them.
    times: BTreeMap<Vec<u8>, Time>,
    /// Directories that have no entry of their own so far.
    implied: BTreeSet<Vec<u8>>,
    /// Names of skipped devices: a hard link to one is skipped as well.
    skipped: HashSet<Vec<u8>>,
    /// Has the root something of the layers below that is not the default?
    root_inherited: bool,
    remembered: usize,
    buffer: Box<[u8]>,
    done: Unpacked,
}

/// An entry's name, taken apart: both without `.`, `..`, and empty components.
struct Place {
    /// `a/b`; empty for the layer's root.
    parent: Vec<u8>,
    /// The last component, which is not a path.
    name: CString,
}

impl Place {
    fn path(&self) -> Vec<u8> {
        join(&self.parent, self.name.to_bytes())
    }
}

impl Unpacker<'_> {
    fn member(
        &mut self,
        member: &Member,
        archive: &mut Archive<Stream<impl Read>>,
        progress: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<(), UnpackError> {
        let entry = &member.name;
        let components = self.components(entry, entry)?;
        let Some((last, parents)) = components.split_last() else {
            return match member.kind {
                Kind::Directory => self.root_entry(member),
                Kind::File
                | Kind::HardLink
                | Kind::Symlink
                | Kind::CharDevice
                | Kind::BlockDevice
                | Kind::Fifo => Err(refused(entry, "the root of a layer can only be a directory")),
            };
        };
        if components.iter().any(|component| component.starts_with(AUFS) && *component != OPAQUE)
            || parents.contains(&OPAQUE)
        {
            return Ok(());
        }
        if parents.iter().any(|component| component.starts_with(WHITEOUT)) {
            return Err(refused(
                entry,
                "a name that starts with .wh. is a whiteout and has nothing below it",
            ));
        }
        let place = Place { parent: parents.join(&b'/'), name: c_string(entry, last)? };
        if *last == OPAQUE {
            return self.opaque(entry, &place.parent);
        }
        if let Some(name) = last.strip_prefix(WHITEOUT) {
            if matches!(name, b"" | b"." | b"..") {
                return Err(refused(entry, "a whiteout of no name"));
            }
            let name = c_string(entry, name)?;
            return self.whiteout(entry, &Place { name, ..place });
        }
        self.note_ids(member);
        if !self.skipped.is_empty() {
            self.skipped.remove(&place.path());
        }
        match member.kind {
            Kind::File => self.file(member, &place, archive, progress),
            Kind::HardLink => self.hard_link(member, &place),
            Kind::Symlink => self.symlink(member, &place),
            Kind::Directory => self.directory(member, &place),
            Kind::Fifo => self.fifo(member, &place),
            Kind::CharDevice | Kind::BlockDevice => {
                self.done.devices += 1;
                self.example("device", entry);
                self.remember(place.path().len())?;
                self.skipped.insert(place.path());
                Ok(())
            }
        }
    }

    /// Split a name. `entry` is the member's name for messages.
    fn components<'n>(&self, entry: &[u8], name: &'n [u8]) -> Result<Vec<&'n [u8]>, UnpackError> {
        if name.is_empty() {
            return Err(refused(entry, "an empty name"));
        }
        if name.len() > self.limits.name_bytes {
            return Err(refused(entry, format!("a name of {} bytes", name.len())));
        }
        let components: Vec<&[u8]> =
            name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        if components.contains(&&b".."[..]) {
            return Err(refused(entry, "the name leads upwards with '..'"));
        }
        if let Some(long) = components.iter().find(|part| part.len() > 255) {
            return Err(refused(entry, format!("a file name of {} bytes (at most 255)", long.len())));
        }
        if name.contains(&0) {
            return Err(refused(entry, "a NUL byte in the name"));
        }
        Ok(components)
    }

    fn file(
        &mut self,
        member: &Member,
        place: &Place,
        archive: &mut Archive<Stream<impl Read>>,
        progress: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> Result<(), UnpackError> {
        let entry = &member.name;
        let size = member.sparse.as_ref().map_or(member.size, |sparse| sparse.real_size);
        if size > self.limits.file_bytes {
            return Err(UnpackError::Limit { what: "bytes in one file", limit: self.limits.file_bytes });
        }
        let file = self.create_file(entry, place)?;
        let pieces = match &member.sparse {
            None => vec![(0, member.size)],
            Some(sparse) => {
                rustix::fs::ftruncate(&file, size).map_err(|e| failed(entry, "setting its size", e))?;
                sparse.segments.clone()
            }
        };
        for (offset, length) in pieces {
            let mut at = offset;
            let end = offset + length;
            while at < end {
                let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.buffer.len());
                let count = archive.read_data(&mut self.buffer[..wanted])?;
                if count == 0 {
                    return Err(ArchiveError::Truncated("in the middle of a file").into());
                }
                let mut written = 0;
                while written < count {
                    match rustix::io::pwrite(&file, &self.buffer[written..count], at + written as u64) {
                        Ok(n) => written += n,
                        Err(Errno::INTR) => {}
                        Err(error) => return Err(failed(entry, "writing it", error)),
                    }
                }
                at += count as u64;
                self.done.bytes += count as u64;
                if self.done.bytes > self.limits.bytes {
                    return Err(UnpackError::Limit { what: "bytes", limit: self.limits.bytes });
                }
                progress(self.done.bytes).map_err(ArchiveError::Read)?;
            }
        }
        self.attributes(member, &file, true)?;
        rustix::fs::futimens(&file, &timestamps(member.mtime))
            .map_err(|e| failed(entry, "setting its time", e))
    }

    fn create_file(&mut self, entry: &[u8], place: &Place) -> Result<OwnedFd, UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let parent = self.parent(entry, &place.parent)?;
        match rustix::fs::openat(parent, &place.name, flags, mode) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| failed(entry, "creating the file", e)),
        }
        self.make_way(entry, place)?;
        let parent = self.parent(entry, &place.parent)?;
        rustix::fs::openat(parent, &place.name, flags, mode)
            .map_err(|e| failed(entry, "creating the file", e))
    }

    fn hard_link(&mut self, member: &Member, place: &Place) -> Result<(), UnpackError> {
        let entry = &member.name;
        let components = self.components(entry, &member.link).map_err(|error| match error {
            UnpackError::Refused { entry, reason } => {
                UnpackError::Refused { entry, reason: format!("its link target is not allowed: {reason}") }
            }
            other @ (UnpackError::Archive(_) | UnpackError::Limit { .. } | UnpackError::Write { .. }) => {
                other
            }
        })?;
        let Some((last, parents)) = components.split_last() else {
            return Err(refused(entry, "a hard link to the root of the layer"));
        };
        let target = Place { parent: parents.join(&b'/'), name: c_string(entry, last)? };
        let shown = String::from_utf8_lossy(&member.link).into_owned();
        if target.path() == place.path() {
            return Err(refused(entry, "a hard link to itself"));
        }
        if self.skipped.contains(&target.path()) {
            self.done.devices += 1;
            self.example("device", entry);
            self.remember(place.path().len())?;
            self.skipped.insert(place.path());
            return Ok(());
        }
        let missing = || refused(entry, format!("a hard link to {shown:?}, which is not in this layer"));
        let from = match self.open_in_root(&target.parent) {
            Ok(from) => from,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(missing()),
            Err(error) => return Err(failed(entry, "looking up the link's target", error)),
        };
        let found = match rustix::fs::statat(&from, &target.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Err(missing()),
            Err(error) => return Err(failed(entry, "looking up the link's target", error)),
        };
        match FileType::from_raw_mode(found.st_mode) {
            // A link to a symbolic link is one more symbolic link: linkat(2) without AT_SYMLINK_FOLLOW does not
            // look where it leads, and nothing else is done to the inode here.
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            FileType::Directory => {
                return Err(refused(entry, format!("a hard link to the directory {shown:?}")));
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket | FileType::Unknown => {
                return Err(missing());
            }
        }
        let parent = self.parent(entry, &place.parent)?;
        match rustix::fs::linkat(&from, &target.name, parent, &place.name, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(entry, "making the link", error)),
        }
        // Both names may already be the same file; removing the one first would then lose it.
        let parent = self.parent(entry, &place.parent)?;
        let existing = rustix::fs::statat(parent, &place.name, AtFlags::SYMLINK_NOFOLLOW);
        if existing.is_ok_and(|old| (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.make_way(entry, place)?;
        let parent = self.parent(entry, &place.parent)?;
        match rustix::fs::linkat(&from, &target.name, parent, &place.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The target was inside the directory that had to make way.
            Err(Errno::NOENT) => Err(missing()),
            Err(error) => Err(failed(entry, "making the link", error)),
        }
    }

    fn symlink(&mut self, member: &Member, place: &Place) -> Result<(), UnpackError> {
        let entry = &member.name;
        if member.link.is_empty() || member.link.len() > 4095 {
            return Err(refused(entry, "a symbolic link with an empty or too long target"));
        }
        let target = c_string(entry, &member.link)?;
        self.create(entry, place, |parent, name| rustix::fs::symlinkat(&target, parent, name))?;
        self.skip_xattrs(member)?;
        self.metadata_of_node(member, place)
    }

    fn fifo(&mut self, member: &Member, place: &Place) -> Result<(), UnpackError> {
        let entry = &member.name;
        self.create(entry, place, |parent, name| {
            rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        })?;
        self.skip_xattrs(member)?;
        self.metadata_of_node(member, place)?;
        let parent = self.parent(entry, &place.parent)?;
        // fchmodat follows links, and this is none: it was made a moment ago and nobody else writes here.
        rustix::fs::chmodat(parent, &place.name, Mode::from_raw_mode(member.mode), AtFlags::empty())
            .map_err(|e| failed(entry, "setting its mode", e))?;
        rustix::fs::utimensat(parent, &place.name, &timestamps(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(entry, "setting its time", e))
    }

    fn metadata_of_node(&mut self, member: &Member, place: &Place) -> Result<(), UnpackError> {
        let entry = &member.name;
        let (uid, gid) = owner(member)?;
        let parent = self.parent(entry, &place.parent)?;
        rustix::fs::chownat(parent, &place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(entry, "setting its owner", e))?;
        rustix::fs::utimensat(parent, &place.name, &timestamps(member.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(entry, "setting its time", e))
    }

    fn directory(&mut self, member: &Member, place: &Place) -> Result<(), UnpackError> {
        let entry = &member.name;
        let parent = self.parent(entry, &place.parent)?;
        let mut opaque = false;
        match rustix::fs::mkdirat(parent, &place.name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(parent, &place.name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed(entry, "looking at what is there", e))?;
                if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                    opaque = self.make_way(entry, place)?;
                    let parent = self.parent(entry, &place.parent)?;
                    rustix::fs::mkdirat(parent, &place.name, Mode::RWXU)
                        .map_err(|e| failed(entry, "making the directory", e))?;
                }
            }
            Err(error) => return Err(failed(entry, "making the directory", error)),
        }
        let parent = self.parent(entry, &place.parent)?;
        let dir =
            tree::open_dir(parent, &place.name).map_err(|e| failed(entry, "opening the new directory", e))?;
        if opaque {
            set_opaque(entry, dir.as_fd())?;
        }
        self.attributes(member, &dir, false)?;
        let path = place.path();
        self.implied.remove(&path);
        self.remember(path.len())?;
        self.times.insert(path, member.mtime);
        Ok(())
    }

    fn root_entry(&mut self, member: &Member) -> Result<(), UnpackError> {
        let dir = tree::open_dir(self.root, c".").map_err(|e| failed(&member.name, "opening the root", e))?;
        self.note_ids(member);
        self.attributes(member, &dir, false)?;
        self.times.insert(Vec::new(), member.mtime);
        self.implied.remove(&Vec::new());
        Ok(())
    }

    /// A whiteout hides what the layers below have, never what this layer has, wherever it stands in the layer.
    fn whiteout(&mut self, entry: &[u8], place: &Place) -> Result<(), UnpackError> {
        self.done.whiteouts += 1;
        let parent = self.parent(entry, &place.parent)?;
        match rustix::fs::mknodat(parent, &place.name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match tree::open_dir(parent, &place.name) {
                Ok(dir) => set_opaque(entry, dir.as_fd()),
                // Not a directory: what is there hides the layers below already.
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(error) => Err(failed(entry, "looking at what is there", error)),
            },
            Err(error) => Err(failed(entry, "making the whiteout", error)),
        }
    }

    fn opaque(&mut self, entry: &[u8], dir: &[u8]) -> Result<(), UnpackError> {
        self.done.whiteouts += 1;
        if dir.is_empty() {
            self.done.root_opaque = true;
            return Ok(());
        }
        let parent = self.parent(entry, dir)?;
        let dir = tree::open_dir(parent, c".").map_err(|e| failed(entry, "opening the directory", e))?;
        set_opaque(entry, dir.as_fd())
    }

    /// Create something that is neither file nor directory, in place of what may be there.
    fn create(
        &mut self,
        entry: &[u8],
        place: &Place,
        make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<(), Errno>,
    ) -> Result<(), UnpackError> {
        let parent = self.parent(entry, &place.parent)?;
        match make(parent, &place.name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| failed(entry, "creating it", e)),
        }
        self.make_way(entry, place)?;
        let parent = self.parent(entry, &place.parent)?;
        make(parent, &place.name).map_err(|e| failed(entry, "creating it", e))
    }

    /// Remove what an earlier entry of this layer left at this name. Says whether it was a whiteout.
    fn make_way(&mut self, entry: &[u8], place: &Place) -> Result<bool, UnpackError> {
        let trash = self.trash;
        let parent = self.parent(entry, &place.parent)?;
        let found = rustix::fs::statat(parent, &place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(entry, "looking at what is there", e))?;
        tree::remove(parent, &place.name, trash)
            .map_err(|e| failed(entry, "removing what an earlier entry made", e))?;
        self.parent = None;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let path = place.path();
            let below = join(&path, b"");
            let gone = |dir: &Vec<u8>| *dir == path || dir.starts_with(&below);
            // `a-b` sorts between `a` and `a/b`, so the name itself and what is below it are looked up apart.
            let times: Vec<_> = self
                .times
                .range(below.clone()..)
                .map(|(dir, _)| dir)
                .take_while(|d| gone(d))
                .cloned()
                .collect();
            let implied: Vec<_> =
                self.implied.range(below.clone()..).take_while(|d| gone(d)).cloned().collect();
            for dir in times.iter().chain([&path]) {
                self.times.remove(dir);
            }
            for dir in implied.iter().chain([&path]) {
                self.implied.remove(dir);
            }
        }
        Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice)
    }

    /// The directory an entry goes into, made if it is missing.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    fn parent(&mut self, entry: &[u8], path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.parent.as_ref().is_none_or(|(last, _)| last != path) {
            let dir = match self.open_in_root(path) {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, path)?,
                Err(Errno::LOOP | Errno::XDEV) => {
                    return Err(refused(entry, "its directory cannot be reached inside the layer"));
                }
                Err(error) => return Err(failed(entry, "opening its directory", error)),
            };
            self.parent = Some((path.to_vec(), dir));
        }
        Ok(self.parent.as_ref().expect("just set").1.as_fd())
    }

    fn open_in_root(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        open_in(self.root, path)
    }

    fn make_parents(&mut self, entry: &[u8], path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let mut dir = self.open_in_root(b"").map_err(|e| failed(entry, "opening the root", e))?;
        let mut so_far: Vec<u8> = Vec::with_capacity(path.len());
        for component in path.split(|byte| *byte == b'/') {
            so_far = join(&so_far, component);
            let name = c_string(entry, component)?;
            let mut opaque = false;
            match self.open_in_root(&so_far) {
                Ok(next) => {
                    dir = next;
                    continue;
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR) => {
                    // A whiteout and then something below its name: the directory starts anew here.
                    let found = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| failed(entry, "looking at its directory", e))?;
                    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice {
                        let shown = String::from_utf8_lossy(&so_far).into_owned();
                        return Err(refused(entry, format!("{shown:?} is not a directory in this layer")));
                    }
                    rustix::fs::unlinkat(&dir, &name, AtFlags::empty())
                        .map_err(|e| failed(entry, "replacing a whiteout", e))?;
                    opaque = true;
                }
                Err(Errno::LOOP | Errno::XDEV) => {
                    return Err(refused(entry, "its directory cannot be reached inside the layer"));
                }
                Err(error) => return Err(failed(entry, "opening its directory", error)),
            }
            match rustix::fs::mkdirat(&dir, &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let shown = String::from_utf8_lossy(&so_far).into_owned();
                    let reason = format!("{shown:?} is a symbolic link that leads to nothing in this layer");
                    return Err(refused(entry, reason));
                }
                Err(error) => return Err(failed(entry, "making its directory", error)),
            }
            let made = tree::open_dir(dir.as_fd(), &name)
                .map_err(|e| failed(entry, "opening a new directory", e))?;
            if opaque {
                set_opaque(entry, made.as_fd())?;
            }
            let inherited = if opaque { None } else { self.inherit(&so_far) };
            let (mode, uid, gid, time) = inherited.unwrap_or((0o755, 0, 0, Time::default()));
            set_owner_and_mode(entry, &made, Uid::from_raw(uid), Gid::from_raw(gid), mode)?;
            self.remember(2 * so_far.len())?;
            self.times.insert(so_far.clone(), time);
            self.implied.insert(so_far.clone());
            dir = made;
        }
        Ok(dir)
    }

    /// Mode, owner and time of the directory as the layers below have it.
    fn inherit(&self, path: &[u8]) -> Option<(u32, u32, u32, Time)> {
        for lower in self.lower {
            match open_in(*lower, path) {
                Ok(dir) => {
                    let found = rustix::fs::fstat(&dir).ok()?;
                    let time = Time {
                        seconds: found.st_mtime,
                        nanoseconds: u32::try_from(found.st_mtime_nsec).unwrap_or(0),
                    };
                    return Some((found.st_mode & 0o7777, found.st_uid, found.st_gid, time));
                }
                Err(Errno::NOENT) => {}
                // A file, a whiteout, a strange link: the directory is new.
                Err(_) => return None,
            }
        }
        None
    }

    fn attributes_of_root(&mut self) -> Result<(), UnpackError> {
        let dir = tree::open_dir(self.root, c".").map_err(|e| failed(b"/", "opening the root", e))?;
        let (mode, uid, gid, time) = self.inherit(b"").unwrap_or((0o755, 0, 0, Time::default()));
        // Nearly every root is like this; binding such a tree to the layers below would only lose sharing.
        self.root_inherited = (mode, uid, gid) != (0o755, 0, 0);
        set_owner_and_mode(b"/", &dir, Uid::from_raw(uid), Gid::from_raw(gid), mode)?;
        self.times.insert(Vec::new(), time);
        self.implied.insert(Vec::new());
        Ok(())
    }

    fn attributes(&mut self, member: &Member, node: &OwnedFd, file: bool) -> Result<(), UnpackError> {
        let (uid, gid) = owner(member)?;
        // The owner first: changing it clears setuid, setgid and file capabilities.
        set_owner_and_mode(&member.name, node, uid, gid, member.mode)?;
        for (name, value) in &member.xattrs {
            if !self.wanted_xattr(member, name, file)? {
                continue;
            }
            let entry = &member.name;
            let key = c_string(entry, name)?;
            match rustix::fs::fsetxattr(node, &key, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOSPC | Errno::DQUOT | Errno::RANGE | Errno::TOOBIG | Errno::INVAL) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    let reason = format!(
                        "the extended attribute {name:?} ({} bytes) is not accepted by the file system",
                        value.len()
                    );
                    return Err(refused(entry, reason));
                }
                Err(Errno::NOTSUP) => self.note_xattr(member, name),
                Err(error) => return Err(failed(entry, "setting an extended attribute", error)),
            }
        }
        Ok(())
    }

    fn wanted_xattr(&mut self, member: &Member, name: &[u8], file: bool) -> Result<bool, UnpackError> {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            return Err(refused(
                &member.name,
                format!("the extended attribute {:?} may not come in a layer", shown()),
            ));
        }
        if name.len() > 255 {
            return Err(refused(&member.name, "an extended attribute with a name of more than 255 bytes"));
        }
        if name.starts_with(b"user.") && name.len() > 5 || name == b"security.capability" && file {
            return Ok(true);
        }
        self.note_xattr(member, name);
        Ok(false)
    }

    fn skip_xattrs(&mut self, member: &Member) -> Result<(), UnpackError> {
        for name in member.xattrs.keys() {
            if self.wanted_xattr(member, name, false)? {
                self.note_xattr(member, name);
            }
        }
        Ok(())
    }

    fn note_xattr(&mut self, member: &Member, name: &[u8]) {
        self.done.xattrs += 1;
        self.example(&format!("attribute {}", String::from_utf8_lossy(name).escape_default()), &member.name);
    }

    fn note_ids(&mut self, member: &Member) {
        if member.uid >= IDS || member.gid >= IDS {
            self.done.foreign_ids += 1;
            self.example(&format!("owner {}:{}", member.uid, member.gid), &member.name);
        }
    }

    fn example(&mut self, what: &str, entry: &[u8]) {
        if self.done.examples.len() < EXAMPLES {
            let what: String = what.chars().take(100).collect();
            self.done.examples.push(format!("{what}: {}", shown(entry)));
        }
    }

    fn remember(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.remembered += bytes;
        if self.remembered > self.limits.remembered_bytes {
            let limit = self.limits.remembered_bytes as u64;
            return Err(UnpackError::Limit { what: "bytes in names of directories", limit });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        self.parent = None;
        self.done.inherited = self.implied.iter().any(|dir| !dir.is_empty() || self.root_inherited);
        for (path, time) in std::mem::take(&mut self.times) {
            // The name may by now lead elsewhere in the layer, through a link that came later; never outside.
            match self.open_in_root(&path).and_then(|dir| tree::open_dir(dir.as_fd(), c".")) {
                Ok(dir) => rustix::fs::futimens(&dir, &timestamps(time))
                    .map_err(|e| failed(&path, "setting its time", e))?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(error) => return Err(failed(&path, "setting its time", error)),
            }
        }
        Ok(self.done)
    }
}

/// Look up a directory; the kernel keeps every step, links included, inside `root`.
fn open_in(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // Somebody renamed something somewhere; says nothing about this tree.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn set_owner_and_mode(
    entry: &[u8],
    node: &OwnedFd,
    uid: Uid,
    gid: Gid,
    mode: u32,
) -> Result<(), UnpackError> {
    rustix::fs::fchown(node, Some(uid), Some(gid)).map_err(|e| failed(entry, "setting its owner", e))?;
    rustix::fs::fchmod(node, Mode::from_raw_mode(mode)).map_err(|e| failed(entry, "setting its mode", e))
}

fn set_opaque(entry: &[u8], dir: BorrowedFd<'_>) -> Result<(), UnpackError> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|e| failed(entry, "marking its directory as opaque", e))
}

fn owner(member: &Member) -> Result<(Uid, Gid), UnpackError> {
    // The last id means "leave it" to chown(2).
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (id(member.uid), id(member.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        (None, _) | (_, None) => {
            Err(refused(&member.name, format!("owner {}:{} is out of range", member.uid, member.gid)))
        }
    }
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}

fn c_string(entry: &[u8], bytes: &[u8]) -> Result<CString, UnpackError> {
    CString::new(bytes).map_err(|_| refused(entry, "a NUL byte in the name"))
}

/// Names are bytes of an adversary: shown short and without control characters (`{:?}` does the rest).
fn shown(entry: &[u8]) -> String {
    String::from_utf8_lossy(entry).chars().take(200).collect()
}

fn refused(entry: &[u8], reason: impl Into<String>) -> UnpackError {
    UnpackError::Refused { entry: shown(entry), reason: reason.into() }
}

fn failed(entry: &[u8], doing: &'static str, error: Errno) -> UnpackError {
    UnpackError::Write { entry: shown(entry), doing, source: error.into() }
}
