//! What the tests stand on: tools, directories, and pictures of trees to compare.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Is all of this there? If not, the test is skipped with a message, or fails if nothing may be skipped.
pub fn can(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&&str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let mut missing: Vec<&str> = tools.iter().filter(|tool| !there(tool)).copied().collect();
    if !rustix::process::geteuid().is_root() {
        missing.push("root");
    }
    if missing.is_empty() {
        return true;
    }
    let strict = std::env::var_os("WHARF_TEST_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "needs {}", missing.join(", "));
    eprintln!("skipped: needs {}", missing.join(", "));
    false
}

/// Run a command that must succeed, and return what it printed.
pub fn run(program: &str, args: &[impl AsRef<OsStr>]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {:?} failed: {}{}",
        args.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Run a shell script that must succeed.
pub fn sh(script: &str) -> String {
    run("sh", &["-euc", script])
}

/// Everything about one file that a hostile layer might change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub size: u64,
    pub mtime: (i64, i64),
    pub links: u64,
    /// The content of a file, the target of a link.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub device: u64,
}

/// A picture of a tree, by path relative to it.
pub fn picture(root: &Path) -> BTreeMap<PathBuf, Picture> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let meta = std::fs::symlink_metadata(&full).unwrap();
        let file_type = meta.file_type();
        let (kind, content) = if file_type.is_dir() {
            for entry in std::fs::read_dir(&full).unwrap() {
                waiting.push(path.join(entry.unwrap().file_name()));
            }
            ('d', Vec::new())
        } else if file_type.is_symlink() {
            ('l', std::fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
        } else if file_type.is_fifo() {
            ('p', Vec::new())
        } else if file_type.is_char_device() {
            ('c', Vec::new())
        } else if file_type.is_block_device() {
            ('b', Vec::new())
        } else {
            ('f', std::fs::read(&full).unwrap())
        };
        let picture = Picture {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            size: if kind == 'f' { meta.size() } else { 0 },
            mtime: (meta.mtime(), meta.mtime_nsec()),
            // The number of links of a directory is that of its subdirectories on some file systems only.
            links: if kind == 'd' { 1 } else { meta.nlink() },
            content,
            xattrs: if matches!(kind, 'f' | 'd') { xattrs(&full) } else { BTreeMap::new() },
            device: meta.rdev(),
        };
        all.insert(path, picture);
    }
    all
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, &name[..], &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

/// Like [`assert_eq`] for pictures, showing only what differs.
pub fn assert_same(left: &BTreeMap<PathBuf, Picture>, right: &BTreeMap<PathBuf, Picture>, what: &str) {
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys()) {
        if left.get(path) != right.get(path) {
            let show = |picture: Option<&Picture>| {
                picture.map(|p| {
                    let content = String::from_utf8_lossy(&p.content[..p.content.len().min(40)]).into_owned();
                    format!(
                        "{} {:o} {:?} size {} mtime {:?} links {} {:?} {:?}",
                        p.kind, p.mode, p.owner, p.size, p.mtime, p.links, content, p.xattrs
                    )
                })
            };
            differences.push(format!(
                "{path:?}:\n  {:?}\n  {:?}",
                show(left.get(path)),
                show(right.get(path))
            ));
        }
    }
    differences.sort();
    differences.dedup();
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
