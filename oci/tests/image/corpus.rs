//! Hostile layers, generated.

use std::path::Path;

use crate::tape::{Entry, Tape, record};

/// Name and tar of every layer that tries to reach the directory `outside` (beside the layer's own).
pub fn corpus(outside: &Path) -> Vec<(String, Vec<u8>)> {
    let outside = outside.to_str().unwrap();
    let mut all = Vec::new();
    upward_names(&mut all);
    through_links(outside, &mut all);
    hard_links(outside, &mut all);
    replaced(outside, &mut all);
    whiteouts(outside, &mut all);
    attributes(&mut all);
    records(outside, &mut all);
    shuffled(outside, 0, 800, &mut all);
    all
}

type Layers = Vec<(String, Vec<u8>)>;

fn things(name: &str, outside: &str) -> Vec<(&'static str, Entry)> {
    vec![
        ("file", Entry::file(name, "written").mode(0o6777)),
        ("directory", Entry::dir(name).mode(0o777).owner(12, 13)),
        ("symlink", Entry::symlink(name, outside).owner(12, 13)),
        ("hard link", Entry::hard_link(name, "base")),
        ("fifo", Entry::fifo(name).mode(0o666)),
        ("device", Entry::device(name, 1, 3)),
        ("whiteout device", Entry::device(name, 0, 0)),
    ]
}

/// Names with `..`, in every way a name can be written.
fn upward_names(all: &mut Layers) {
    let names = [
        "..",
        "../canary",
        "../canary/file",
        "../canary/new",
        "../../../../../../../../../../tmp/wharf-images-escaped",
        "a/../../canary/file",
        "./../canary/file",
        "/../canary/file",
        "a/b/../../../canary/file",
        "../canary/.wh.file",
        "../canary/.wh..wh..opq",
        "a/./.././../canary/dir/",
    ];
    for name in names {
        for (what, entry) in things(name, "/etc") {
            for how in ["ustar", "prefix", "gnu", "pax"] {
                let mut tape = Tape::default();
                tape.push(&Entry::file("base", "base"));
                match how {
                    "ustar" => tape.push(&entry),
                    "prefix" => {
                        let (prefix, rest) = name.split_once('/').unwrap_or((".", name));
                        tape.push(&Entry { prefix: prefix.into(), name: rest.into(), ..entry.clone() })
                    }
                    "gnu" => {
                        tape.long(b'L', name.as_bytes()).push(&Entry { name: b"x".to_vec(), ..entry.clone() })
                    }
                    _ => tape
                        .pax(&[("path", name.as_bytes())])
                        .push(&Entry { name: b"x".to_vec(), ..entry.clone() }),
                };
                all.push((format!("{what} named {name:?} ({how})"), tape.end()));
            }
        }
    }
}

/// A symbolic link, then something written through it.
fn through_links(outside: &str, all: &mut Layers) {
    let deep = "../".repeat(40) + outside.trim_start_matches('/');
    let targets = [
        outside,
        "../canary",
        "..",
        "/",
        &deep,
        "/proc/self/root",
        "/proc/self/cwd",
        "/proc/self/fd/3",
        "loop",
    ];
    for target in targets {
        let inside = if target == "/" || target == "/proc/self/root" { &outside[1..] } else { "." };
        for name in ["file", "new", "dir", "dir/file", "link"] {
            for (what, entry) in things(&format!("loop/{inside}/{name}"), outside) {
                let tar = Tape::of([Entry::file("base", "base"), Entry::symlink("loop", target), entry]);
                all.push((format!("{what} through a link to {target:?}, {name}"), tar));
            }
        }
        for name in [".wh.file", ".wh..wh..opq", ".wh.dir"] {
            let tar = Tape::of([Entry::symlink("loop", target), Entry::file(format!("loop/{name}"), "")]);
            all.push((format!("{name} through a link to {target:?}"), tar));
        }
        let tar = Tape::of([
            Entry::symlink("a", target),
            Entry::symlink("b", "a"),
            Entry::symlink("c", "b/../b"),
            Entry::file("c/file", "written"),
            Entry::dir("c").mode(0o777),
        ]);
        all.push((format!("a chain of links to {target:?}"), tar));
    }
}

/// Hard links to what is outside, and to links that lead there.
fn hard_links(outside: &str, all: &mut Layers) {
    let file = format!("{outside}/file");
    let targets =
        ["../canary/file", &file, "/../canary/file", "link", "dirlink/file", "dirlink", "..", "/", "."];
    for target in targets {
        for how in ["header", "gnu", "pax"] {
            let mut tape = Tape::default();
            tape.push(&Entry::symlink("link", &file)).push(&Entry::symlink("dirlink", outside));
            match how {
                "gnu" => tape.long(b'K', target.as_bytes()),
                "pax" => tape.pax(&[("linkpath", target.as_bytes())]),
                _ => &mut tape,
            };
            tape.push(&Entry::hard_link("hard", target).mode(0o7777).owner(12, 13));
            // If the link was made, write, link and change through it.
            tape.push(&Entry::file("hard", "written").mode(0o7777));
            all.push((format!("hard link to {target:?} ({how}), then written"), tape.end()));
            let tar = Tape::of([
                Entry::symlink("link", &file),
                Entry::symlink("dirlink", outside),
                Entry::hard_link("hard", target).mode(0o7777).owner(12, 13).mtime(1),
            ]);
            all.push((format!("hard link to {target:?} ({how})"), tar));
        }
    }
}

/// Something is made, then replaced by a link, then used again (CVE-2021-29136, CVE-2026-33056).
fn replaced(outside: &str, all: &mut Layers) {
    for first in ["directory", "file", "fifo", "symlink"] {
        for second in [outside, "../canary"] {
            for (what, third) in things("a", outside) {
                let start = match first {
                    "directory" => Entry::dir("a").mtime(1),
                    "file" => Entry::file("a", "x"),
                    "fifo" => Entry::fifo("a"),
                    _ => Entry::symlink("a", "/"),
                };
                let tar = Tape::of([
                    Entry::file("base", "base"),
                    start,
                    Entry::symlink("a", second),
                    Entry::file("a/file", "written"),
                    third,
                    Entry::dir("a/dir").mode(0o777).owner(12, 13),
                ]);
                all.push((format!("{first} replaced by a link to {second:?} replaced by a {what}"), tar));
            }
        }
    }
    for dot in [".", "./", "./.", "/", "//", "/."] {
        let tar = Tape::of([Entry::symlink(dot, outside), Entry::file("file", "written")]);
        all.push((format!("the root as a link, named {dot:?}"), tar));
        let tar = Tape::of([Entry::file(dot, "written")]);
        all.push((format!("the root as a file, named {dot:?}"), tar));
        let tar = Tape::of([Entry::hard_link("a", dot)]);
        all.push((format!("a hard link to the root, named {dot:?}"), tar));
    }
    // Deep enough that no path leads to it any more, through links to itself, and then replaced.
    let deep = "d/".repeat(1000);
    let mut tape = Tape::default();
    for level in 0..3 {
        tape.long(b'L', format!("{}{deep}", "s/".repeat(level)).as_bytes()).push(&Entry::dir("x"));
        tape.long(b'L', format!("{}{deep}s", "s/".repeat(level)).as_bytes());
        tape.push(&Entry::symlink("x", "/"));
    }
    tape.push(&Entry::file("d", "flat"));
    all.push(("a deep tree replaced by a file".to_owned(), tape.end()));
}

fn whiteouts(outside: &str, all: &mut Layers) {
    let names = [
        ".wh.",
        ".wh..",
        ".wh...",
        ".wh../canary",
        ".wh.a/b",
        "a/.wh./b",
        ".wh..wh..opq/x",
        "x/.wh..wh..opq/y/z",
        ".wh..wh..opq/.wh..wh..opq",
        ".wh..wh.plnk/../../canary/file",
        ".wh..wh.",
        ".wh..wh..",
        ".wh.link",
        "link/.wh.file",
        "link/.wh.dir",
        "link/.wh..wh..opq",
        "link/../.wh.base",
        ".wh..wh..opq",
    ];
    for name in names {
        for flag in *b"0125 36" {
            if flag == b' ' {
                continue;
            }
            let entry = Entry { link: outside.as_bytes().to_vec(), ..Entry::new(flag, name) };
            let tar = Tape::of([
                Entry::symlink("link", outside),
                Entry::file("base", ""),
                entry,
                Entry::file("link/after", "written"),
            ]);
            all.push((format!("whiteout {name:?} of type {:?}", char::from(flag)), tar));
        }
    }
}

/// Attributes that steer overlayfs or the kernel.
fn attributes(all: &mut Layers) {
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.origin",
        "trusted.anything",
        "user.overlay.redirect",
        "user.overlay.whiteout",
        "security.capability",
        "security.selinux",
        "security.ima",
        "system.posix_acl_access",
        "system.nfs4_acl",
        "user.",
        "",
        "nonsense",
    ] {
        for entry in [Entry::file("x", ""), Entry::dir("x"), Entry::symlink("x", "y"), Entry::fifo("x")] {
            let mut tape = Tape::default();
            tape.pax(&[(&format!("SCHILY.xattr.{name}"), b"/canary")]).push(&entry);
            all.push((format!("attribute {name:?} on type {:?}", char::from(entry.flag)), tape.end()));
        }
    }
    let mut tape = Tape::default();
    tape.pax(&[("SCHILY.xattr.user.big", &vec![b'x'; 100_000])]).push(&Entry::file("x", ""));
    all.push(("a huge attribute".to_owned(), tape.end()));
}

/// Records that say one thing in the header and another beside it.
fn records(outside: &str, all: &mut Layers) {
    let file = format!("{outside}/file");
    let inner = Tape::of([Entry::symlink("l", outside), Entry::file("l/file", "smuggled")]);
    for (key, value) in [
        ("path", "../canary/file"),
        ("path", &file),
        ("path", ""),
        ("path", "l/file"),
        ("linkpath", "../canary/file"),
        ("GNU.sparse.name", "../canary/file"),
        ("GNU.sparse.name", "l/file"),
        ("size", "0"),
        ("size", "1"),
        ("size", "-1"),
        ("size", "99999999999999999999"),
        ("uid", "4294967295"),
        ("uid", "4294967296"),
        ("uid", "-1"),
        ("gid", "4294967295"),
        ("mtime", "99999999999999999999"),
        ("mtime", "-9223372036854775808"),
        ("mtime", "1e9"),
        ("hdrcharset", "BINARY"),
    ] {
        for flag in *b"0125" {
            let mut tape = Tape::default();
            tape.push(&Entry::symlink("l", outside));
            let sparse: &[(&str, &[u8])] = &[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.size", b"4"),
                ("GNU.sparse.map", b"0,4"),
            ];
            let mut list = vec![(key, value.as_bytes())];
            if key.starts_with("GNU") {
                list.extend(sparse);
            }
            let entry = Entry { link: file.clone().into_bytes(), ..Entry::new(flag, "plain") };
            let data = if flag == b'0' { b"data".to_vec() } else { Vec::new() };
            tape.pax(&list).push(&Entry { data, ..entry }).data(&inner);
            all.push((format!("record {key}={value:?} on type {:?}", char::from(flag)), tape.end()));
        }
    }
    for raw in [
        &b""[..],
        b"\0",
        b"0 =\n",
        b"3 \n",
        b"5 =a\n",
        b"18446744073709551615 path=x\n",
        b"10 path=a",
        b"11 path=a\n\n",
        b"-10 path=a\n",
        b"+10 path=a\n",
        b" 10 path=a\n",
        b"010 path=a\n",
    ] {
        for flag in *b"xg" {
            let mut tape = Tape::default();
            tape.pax_raw(flag, raw).push(&Entry::file("../canary/file", "x"));
            all.push((format!("PAX header {:?}", String::from_utf8_lossy(raw)), tape.end()));
        }
    }
    let mut tape = Tape::default();
    tape.pax_raw(b'g', &record("path", b"../canary/file")).push(&Entry::file("plain", "x"));
    all.push(("a global path".to_owned(), tape.end()));
}

/// Three steps in any order: links, files, directories, whiteouts with the same few names.
fn shuffled(outside: &str, seed: u64, rounds: usize, all: &mut Layers) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
    let names = ["a", "a/b", "a/b/c", "b", "a/file", "b/file", "b/dir/file", "a/../b", "./a", "b/a"];
    for round in 0..rounds {
        let mut entries = vec![Entry::file("base", "base")];
        for _ in 0..2 + random.below(6) {
            let name = names[random.below(names.len())];
            let target = [outside, "../canary", "a", "b", "/", "..", "a/b"][random.below(7)];
            entries.push(match random.below(9) {
                0 | 1 => Entry::symlink(name, target),
                2 => Entry::dir(name).mode(0o777).owner(12, 13),
                3 => Entry::file(name, "written").mode(0o6777),
                4 => Entry::hard_link(name, names[random.below(names.len())]).mode(0o777),
                5 => Entry::hard_link(name, "base"),
                6 => Entry::fifo(name),
                7 => match name.rsplit_once('/') {
                    Some((dir, file)) => Entry::file(format!("{dir}/.wh.{file}"), ""),
                    None => Entry::file(format!(".wh.{name}"), ""),
                },
                _ => Entry::file(format!("{name}/.wh..wh..opq"), ""),
            });
        }
        all.push((format!("shuffled {seed}.{round}: {entries:?}"), Tape::of(entries)));
    }
}

/// A layer with a bit of everything, damaged.
pub fn mutations(outside: &Path) -> Layers {
    let outside = outside.to_str().unwrap();
    let mut tape = Tape::default();
    tape.push(&Entry::dir("a/"));
    tape.long(b'L', &[b'n'; 150]).push(&Entry::file("n", "data"));
    tape.pax(&[("path", b"a/pax"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"y")])
        .push(&Entry::file("x", "data"));
    tape.push(&Entry::symlink("out", outside)).push(&Entry::file("a/file", [1; 600]));
    tape.push(&Entry::hard_link("hard", "a/file")).push(&Entry::file(".wh.gone", ""));
    let good = tape.end();
    let mut random = Random(42);
    let mut all = Vec::new();
    for round in 0..600 {
        let mut tar = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(tar.len());
            tar[at] = match random.below(4) {
                0 => 0,
                1 => b'.',
                2 => b'/',
                _ => random.next().to_le_bytes()[0],
            };
            // A right checksum, so that the damage is looked at.
            let block = at / 512 * 512;
            let header = &mut tar[block..block + 512];
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        all.push((format!("mutation {round}"), tar));
    }
    all
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
