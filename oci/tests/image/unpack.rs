//! One layer onto the disk: what is kept, what is refused, and that GNU tar sees the same.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use wharf_oci::image::Limits;
use wharf_oci::image::archive::{Archive, Stream};
use wharf_oci::image::layer::{UnpackError, Unpacked, unpack};

use crate::tape::{Entry, Tape};
use crate::world::{assert_same, can, picture, sh};

/// A place to unpack into, with a tree beside it that must not change.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::Builder::new().prefix("images-unpack-").tempdir().unwrap();
        for name in ["layer", "trash", "canary", "canary/dir"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["canary/file", "canary/dir/file"] {
            std::fs::write(dir.path().join(name), "untouched").unwrap();
        }
        std::os::unix::fs::symlink("file", dir.path().join("canary/link")).unwrap();
        Place { dir }
    }

    pub fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    pub fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    pub fn unpack(&self, tar: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_with(tar, &Limits::default(), &[])
    }

    pub fn unpack_with(
        &self,
        tar: &[u8],
        limits: &Limits,
        lower: &[BorrowedFd<'_>],
    ) -> Result<Unpacked, UnpackError> {
        let (layer, trash) = (open(&self.layer()), open(&self.dir.path().join("trash")));
        unpack(tar, layer.as_fd(), trash.as_fd(), lower, limits, &mut |_| Ok(()))
    }
}

pub fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

fn reason(result: Result<Unpacked, UnpackError>) -> String {
    let mut text = String::new();
    let error = result.unwrap_err();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[test]
fn everything_a_layer_may_hold_is_kept() {
    if !can(&[]) {
        return;
    }
    let mut tape = Tape::default();
    tape.push(&Entry::dir("./").mode(0o711).owner(7, 8).mtime(5));
    tape.push(&Entry::dir("dir/").mode(0o1777).mtime(42));
    tape.push(&Entry::file("dir/file", "content").mode(0o4750).owner(1000, 1001).mtime(43));
    tape.push(&Entry::hard_link("dir/link", "dir/file"));
    tape.push(&Entry::hard_link("dir/absolute", "/dir/file"));
    tape.push(&Entry::symlink("soft", "/nowhere/at all").owner(5, 6).mtime(44));
    tape.push(&Entry::hard_link("soft2", "soft"));
    tape.push(&Entry::fifo("pipe").mode(0o620).owner(1, 2).mtime(45));
    tape.push(&Entry::device("null", 1, 3));
    tape.push(&Entry::hard_link("null2", "null"));
    tape.push(&Entry::file("/absolute//./name", "a"));
    tape.push(&Entry::file("big-id", "").owner(70_000, 4_000_000_000));
    tape.pax(&[
        ("mtime", b"-1.25"),
        ("uid", b"12"),
        ("SCHILY.xattr.user.text", b"with\nnewline\0and nul"),
        ("SCHILY.xattr.user.empty", b""),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("SCHILY.xattr.security.selinux", b"system_u:object_r:bin_t:s0\0"),
        ("SCHILY.xattr.system.posix_acl_access", b"x"),
    ]);
    tape.push(&Entry::file("capable", "x").mode(0o755));
    let place = Place::new();
    let done = place.unpack(&tape.end()).unwrap();
    assert_eq!((done.entries, done.devices, done.xattrs, done.foreign_ids), (13, 2, 2, 1));
    assert_eq!(done.notes().len(), 3);
    let tree = picture(&place.layer());
    let at = |name: &str| &tree[Path::new(name)];
    assert_eq!((at("").mode, at("").owner, at("").mtime.0), (0o711, (7, 8), 5));
    assert_eq!((at("dir").kind, at("dir").mode, at("dir").mtime.0), ('d', 0o1777, 42));
    assert_eq!(
        (at("dir/file").mode, at("dir/file").owner, at("dir/file").mtime.0),
        (0o4750, (1000, 1001), 43)
    );
    assert_eq!((at("dir/file").links, at("dir/link").content.as_slice()), (3, &b"content"[..]));
    assert_eq!((at("soft").kind, at("soft").owner, at("soft").mtime.0), ('l', (5, 6), 44));
    assert_eq!(at("soft2").content, b"/nowhere/at all");
    assert_eq!(
        (at("pipe").kind, at("pipe").mode, at("pipe").owner, at("pipe").mtime.0),
        ('p', 0o620, (1, 2), 45)
    );
    assert!(!tree.contains_key(Path::new("null")) && !tree.contains_key(Path::new("null2")));
    assert_eq!(at("absolute/name").content, b"a");
    assert_eq!(at("big-id").owner, (70_000, 4_000_000_000));
    assert_eq!((at("capable").mtime, at("capable").owner), ((-2, 750_000_000), (12, 0)));
    assert_eq!(at("capable").xattrs["user.text"], b"with\nnewline\0and nul");
    assert_eq!(at("capable").xattrs["user.empty"], b"");
    assert_eq!(at("capable").xattrs["security.capability"].len(), 20);
    assert_eq!(at("capable").xattrs.len(), 3);
}

#[test]
fn what_comes_later_replaces_what_was_there_and_never_follows_it() {
    if !can(&[]) {
        return;
    }
    let place = Place::new();
    let canary = place.canary().join("file");
    let target = canary.to_str().unwrap();
    let before = picture(&place.canary());
    let tar = Tape::of([
        Entry::symlink("a", target),
        Entry::file("a", "new").mode(0o777),
        Entry::symlink("b", place.canary().to_str().unwrap()),
        Entry::dir("b/").mode(0o777).owner(9, 9),
        Entry::file("b/file", "mine"),
        Entry::dir("c/"),
        Entry::dir("c/d/"),
        Entry::file("c/d/file", "deep"),
        Entry::file("c", "flat now"),
        Entry::dir("e/").mtime(7),
        Entry::symlink("e", place.canary().to_str().unwrap()),
        Entry::file("f", "one"),
        Entry::hard_link("g", "f"),
        Entry::file("g", "two"),
        Entry::hard_link("f", "f2-is-not-there").mode(0o777),
    ]);
    let last = tar.len() - 1024 - 512;
    let good = [&tar[..last], &[0; 1024]].concat();
    place.unpack(&good).unwrap();
    assert_same(&before, &picture(&place.canary()), "outside");
    let tree = picture(&place.layer());
    let at = |name: &str| &tree[Path::new(name)];
    assert_eq!((at("a").kind, at("a").content.as_slice()), ('f', &b"new"[..]));
    assert_eq!((at("b").kind, at("b/file").content.as_slice()), ('d', &b"mine"[..]));
    assert_eq!((at("c").kind, at("c").content.as_slice()), ('f', &b"flat now"[..]));
    assert_eq!(at("e").kind, 'l');
    assert_eq!((at("f").content.as_slice(), at("g").content.as_slice()), (&b"one"[..], &b"two"[..]));
    assert!(reason(Place::new().unpack(&tar)).contains("which is not in this layer"));
}

#[test]
fn whiteouts_become_those_of_overlayfs_wherever_they_stand() {
    if !can(&[]) {
        return;
    }
    let place = Place::new();
    let done = place
        .unpack(&Tape::of([
            Entry::dir("a/"),
            Entry::file("a/.wh.gone", ""),
            Entry::dir("b/"),
            Entry::file("b/.wh..wh..opq", ""),
            Entry::file("b/new", ""),
            // The directory is new: whatever was below its name is hidden.
            Entry::file(".wh.c", ""),
            Entry::dir("c/"),
            Entry::dir("d/"),
            Entry::file(".wh.d", ""),
            Entry::file(".wh.e", ""),
            Entry::file("e/without/entry", ""),
            Entry::file("f", "stays"),
            Entry::file(".wh.f", ""),
            Entry::file(".wh.g", ""),
            Entry::file("g", "stays"),
            Entry::dir(".wh..wh.plnk/"),
            Entry::file(".wh..wh.plnk/1.2", ""),
            Entry::hard_link(".wh..wh.aufs", "nothing"),
        ]))
        .unwrap();
    assert_eq!(done.whiteouts, 7);
    let tree = picture(&place.layer());
    let at = |name: &str| &tree[Path::new(name)];
    assert_eq!((at("a/gone").kind, at("a/gone").device), ('c', 0));
    for opaque in ["b", "c", "d", "e"] {
        assert_eq!(at(opaque).xattrs["trusted.overlay.opaque"], b"y", "{opaque}");
    }
    assert!(at("a").xattrs.is_empty() && at("e/without").xattrs.is_empty());
    assert_eq!((at("f").content.as_slice(), at("g").content.as_slice()), (&b"stays"[..], &b"stays"[..]));
    assert!(!tree.keys().any(|path| path.to_str().unwrap().contains(".wh.")));
    let root = Place::new().unpack(&Tape::of([Entry::file(".wh..wh..opq", "")])).unwrap();
    assert!(root.root_opaque);
}

#[test]
fn a_directory_without_an_entry_looks_like_the_one_below() {
    if !can(&[]) {
        return;
    }
    let below = Place::new();
    below.unpack(&Tape::of([Entry::dir("tmp/").mode(0o1777).owner(3, 4).mtime(9)])).unwrap();
    let lower = open(&below.layer());
    let place = Place::new();
    let tar = Tape::of([Entry::file("tmp/file", ""), Entry::file("new/file", "")]);
    let done = place.unpack_with(&tar, &Limits::default(), &[lower.as_fd()]).unwrap();
    assert!(done.inherited);
    let tree = picture(&place.layer());
    let tmp = &tree[Path::new("tmp")];
    assert_eq!((tmp.mode, tmp.owner, tmp.mtime.0), (0o1777, (3, 4), 9));
    assert_eq!(tree[Path::new("new")].mode, 0o755);
    let done = place_of(&[Entry::file("tmp/file", ""), Entry::dir("tmp/")]);
    assert!(!done.inherited);
}

fn place_of(entries: &[Entry]) -> Unpacked {
    Place::new().unpack(&Tape::of(entries.iter().cloned())).unwrap()
}

#[test]
fn files_with_holes_are_understood_in_all_four_formats() {
    if !can(&["tar"]) {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let dir = source.path().to_str().unwrap();
    // More than four pieces, so that the old format needs a block for its map.
    sh(&format!(
        "cd {dir}; for i in 0 1 2 3 4 5 6 7; do printf piece$i | dd of=sparse bs=1 seek=$((i * 300000)) conv=notrunc \
         2>/dev/null; done; truncate -s 3000001 sparse; truncate -s 100000 empty"
    ));
    for format in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let archive = source.path().join("t.tar");
        let format =
            if format.starts_with("--sparse") { format!("--format=pax {format}") } else { format.to_owned() };
        sh(&format!("cd {dir}; tar -S {format} -cf t.tar sparse empty"));
        let place = Place::new();
        place.unpack(&std::fs::read(&archive).unwrap()).unwrap_or_else(|e| panic!("{format}: {e:?}"));
        for file in ["sparse", "empty"] {
            let (ours, theirs) = (place.layer().join(file), source.path().join(file));
            assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(), "{format} {file}");
            use std::os::unix::fs::MetadataExt;
            assert!(std::fs::metadata(&ours).unwrap().blocks() < 1000, "{format} {file} has no holes");
        }
    }
}

#[test]
fn gnu_tar_sees_the_same_tree() {
    if !can(&["tar"]) {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let dir = source.path().to_str().unwrap();
    let long = "n".repeat(180);
    sh(&format!(
        "cd {dir}; mkdir -p in/a/b/{long} in/empty; cd in; echo hello > a/file; ln a/file a/b/hard; ln -s ../file a/b/soft
         ln -s /{long}/{long} a/longlink; echo x > a/b/{long}/{long}; mkfifo pipe; chmod 4711 a/file; chmod 1777 empty
         chown 1234:4321 a/b/soft -h; printf 'spaces and\\nnewline' > 'odd name'; touch -d @123.456789 a/b
         head -c 1000000 /dev/urandom > random; : > nothing"
    ));
    let file = source.path().join("in/a/file");
    rustix::fs::setxattr(file, c"user.x", b"a value", rustix::fs::XattrFlags::empty()).unwrap();
    for format in ["v7", "oldgnu", "gnu", "ustar", "pax"] {
        let archive = source.path().join("t.tar");
        let names =
            if matches!(format, "v7" | "ustar") { "a/file a/b/hard a/b/soft empty random" } else { "." };
        let xattrs = if format == "pax" { "--xattrs" } else { "" };
        sh(&format!("cd {dir}; tar --format={format} {xattrs} -C in -cf t.tar {names} 2>/dev/null"));
        let place = Place::new();
        let tar = std::fs::read(&archive).unwrap();
        place.unpack(&tar).unwrap_or_else(|e| panic!("{format}: {e:?}"));
        let theirs = source.path().join("theirs");
        sh(&format!("rm -rf {0}; mkdir -m 755 {0}; tar {xattrs} -xpf {dir}/t.tar -C {0}", theirs.display()));
        let mut left = picture(&place.layer());
        let mut right = picture(&theirs);
        if names != "." {
            // Directories without entries have the time they were made at.
            for tree in [&mut left, &mut right] {
                tree.values_mut().filter(|p| p.kind == 'd').for_each(|p| p.mtime = (0, 0));
            }
        }
        assert_same(&left, &right, format);
        assert_eq!(listing(&tar), gnu_listing(&archive), "{format}");
    }
}

/// The names in an archive, as we read them.
pub fn listing(tar: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut archive = Archive::new(Stream(tar));
    let mut names = Vec::new();
    loop {
        match archive.next_member() {
            Ok(Some(member)) => names.push(member.name),
            Ok(None) => return Some(names),
            Err(_) => return None,
        }
    }
}

/// The names in an archive, as GNU tar reads them.
pub fn gnu_listing(path: &Path) -> Option<Vec<Vec<u8>>> {
    let output = std::process::Command::new("tar")
        .args(["--quoting-style=escape", "-tf", path.to_str().unwrap()])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.lines().map(unescaped).collect())
}

/// What `--quoting-style=escape` does, undone.
fn unescaped(line: &str) -> Vec<u8> {
    let mut name = Vec::new();
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            name.push(byte);
            continue;
        }
        name.push(match bytes.next().unwrap() {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            first @ b'0'..=b'3' => {
                let digits = [first, bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 8).unwrap()
            }
            other => other,
        });
    }
    name
}

#[test]
fn bombs_are_stopped_by_the_limits() {
    if !can(&[]) {
        return;
    }
    let small =
        Limits { entries: 10, bytes: 1000, file_bytes: 5000, remembered_bytes: 100, ..Limits::default() };
    let try_ = |entries: Vec<Entry>| reason(Place::new().unpack_with(&Tape::of(entries), &small, &[]));
    assert!(try_((0..11).map(|i| Entry::file(format!("{i}"), "")).collect()).contains("10 entries"));
    assert!(try_((0..3).map(|i| Entry::file(format!("{i}"), [0; 400])).collect()).contains("1000 bytes"));
    assert!(try_(vec![Entry::file("x", vec![0; 6000])]).contains("5000 bytes in one file"));
    assert!(
        try_((0..9).map(|i| Entry::dir(format!("some-directory-{i}"))).collect()).contains("directories")
    );
    let mut tape = Tape::default();
    tape.long(b'L', &[b'x'; 2 << 20]).push(&Entry::file("x", ""));
    assert!(reason(Place::new().unpack(&tape.end())).contains("extension header"));
    let mut tape = Tape::default();
    tape.long(b'L', "x/".repeat(3000).as_bytes()).push(&Entry::file("x", ""));
    assert!(reason(Place::new().unpack(&tape.end())).contains("a name of 6000 bytes"));
    let sparse = Entry { size: Some(0), ..Entry::file("x", "") };
    let mut tape = Tape::default();
    tape.pax(&[("GNU.sparse.size", b"9000000000000"), ("GNU.sparse.map", b"0,0")]).push(&sparse);
    assert!(reason(Place::new().unpack(&tape.end())).contains("bytes in one file"));
}

#[test]
fn truncated_and_ambiguous_archives_are_refused() {
    if !can(&[]) {
        return;
    }
    let good = Tape::of([Entry::file("file", [7; 700]), Entry::dir("dir/")]);
    for length in [1, 100, 511, 513, 1024, 1211, 1537, 2047] {
        assert!(reason(Place::new().unpack(&good[..length])).contains("truncated"), "{length}");
    }
    // Without its end mark, and without the padding of its last file, it is still whole.
    assert!(Place::new().unpack(&good[..good.len() - 1024]).is_ok());
    assert!(Place::new().unpack(&Tape::of([Entry::file("f", "x")])[..513]).is_ok());
    assert!(Place::new().unpack(b"").is_ok());
    let one = |tape: &mut Tape, entry: &Entry| reason(Place::new().unpack(&tape.push(entry).end()));
    let file = Entry::file("file", "data");
    let tape = Tape::default;
    assert!(one(tape().pax(&[("path", b"a"), ("path", b"b")]), &file).contains("there twice"));
    assert!(one(tape().pax(&[("path", b"a")]).long(b'L', b"b"), &file).contains("disagree"));
    assert!(one(tape().pax(&[]).pax(&[]), &file).contains("two PAX headers"));
    assert!(one(tape().long(b'L', b"a").long(b'L', b"a"), &file).contains("two long names"));
    assert!(one(tape().pax(&[("path", b"a\0b")]), &file).contains("NUL"));
    assert!(one(tape().pax(&[("size", b"x")]), &file).contains("no number"));
    assert!(one(tape().pax_raw(b'x', b"99 path=a\n"), &file).contains("damaged PAX"));
    assert!(one(tape().pax_raw(b'x', b"path=a\n"), &file).contains("damaged PAX"));
    assert!(one(tape().pax_raw(b'g', b"10 path=a\n"), &file).contains("global PAX"));
    assert!(one(&mut tape(), &Entry { flag: b'5', ..file.clone() }).contains("no file has data"));
    assert!(one(&mut tape(), &Entry { flag: b'M', ..file.clone() }).contains("multi-volume"));
    assert!(one(&mut tape(), &Entry { flag: b'%', ..file.clone() }).contains("unknown member type"));
    assert!(one(&mut tape(), &Entry { size: Some(u64::MAX / 2 + 9), ..file.clone() }).contains("size"));
    assert!(
        one(tape().pax_raw(b'g', b"20 comment=harmless\n").pax(&[]), &Entry::file("", ""))
            .contains("empty name")
    );
    let mut lone = tape();
    lone.push(&file).data(&[0; 512]).push(&file);
    assert!(reason(Place::new().unpack(&lone.end())).contains("lone zero block"));
    let mut bad = good.clone();
    bad[0] ^= 1;
    assert!(reason(Place::new().unpack(&bad)).contains("checksum"));
    // The size in a PAX header counts (CVE-2026-33055): what it covers is data, not headers.
    let mut hidden = tape();
    let inner = Tape::of([Entry::file("smuggled", "x")]);
    let size = inner.len().to_string();
    hidden.pax(&[("size", size.as_bytes())]);
    hidden.push(&Entry { size: Some(0), ..Entry::file("outer", "") }).data(&inner);
    let tar = hidden.end();
    assert_eq!(listing(&tar).unwrap(), [b"outer".to_vec()]);
}
