//! How this host mounts cgroups: one tree (v2), one per controller (v1), or both (hybrid).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where cgroups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupMode {
    /// One tree for all controllers.
    Unified {
        /// Its mount point.
        root: PathBuf,
    },
    /// Controllers in trees of their own, and beside them a v2 tree, usually without controllers.
    Hybrid {
        /// The v1 trees.
        hierarchies: Vec<Hierarchy>,
        /// The v2 tree's mount point.
        unified: PathBuf,
    },
    /// Controllers in trees of their own only. Without any tree at all this is an empty list.
    Legacy {
        /// The v1 trees.
        hierarchies: Vec<Hierarchy>,
    },
}

/// A v1 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers, such as `cpu`, or `name=systemd`.
    pub controllers: Vec<String>,
    /// Its mount point.
    pub mount_point: PathBuf,
}

impl CgroupMode {
    /// As this process saw it first; mounts of cgroups do not change while a host runs.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<CgroupMode> = OnceLock::new();
        CURRENT.get_or_init(Self::detect)
    }

    /// Look into /proc/self/mountinfo.
    pub fn detect() -> Self {
        // A mount point need not be UTF-8; ours are.
        let bytes = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// From the text of a mountinfo file.
    pub fn parse(mountinfo: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified: Option<PathBuf> = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            // Only a part of the tree, bound elsewhere.
            if mount.root != "/" {
                continue;
            }
            match mount.kind {
                "cgroup2" if unified.is_none() => unified = Some(mount.point),
                "cgroup" => {
                    let controllers = controllers(mount.options);
                    let is_new = !hierarchies.iter().any(|known| known.controllers == controllers);
                    if is_new && !controllers.is_empty() {
                        hierarchies.push(Hierarchy { controllers, mount_point: mount.point });
                    }
                }
                _ => {}
            }
        }
        // A named v1 tree beside v2 is somebody's bookkeeping and controls nothing.
        let controls = hierarchies.iter().flat_map(|tree| &tree.controllers).any(|name| !name.contains('='));
        match (controls, unified) {
            (false, Some(root)) => Self::Unified { root },
            (true, Some(unified)) => Self::Hybrid { hierarchies, unified },
            (_, None) => Self::Legacy { hierarchies },
        }
    }

    /// The v1 trees.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        match self {
            Self::Unified { .. } => &[],
            Self::Hybrid { hierarchies, .. } | Self::Legacy { hierarchies } => hierarchies,
        }
    }

    /// Where the v2 tree is mounted.
    pub fn unified(&self) -> Option<&Path> {
        match self {
            Self::Unified { root } => Some(root),
            Self::Hybrid { unified, .. } => Some(unified),
            Self::Legacy { .. } => None,
        }
    }

    /// Where the v1 tree of a controller is mounted.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let has = |tree: &&Hierarchy| tree.controllers.iter().any(|known| known == name);
        self.hierarchies().iter().find(has).map(|tree| tree.mount_point.as_path())
    }

    /// The directory of `cgroup` in the v1 tree of a controller, if there is such a tree.
    pub fn directory(&self, controller: &str, cgroup: &str) -> io::Result<Option<PathBuf>> {
        let below = relative(cgroup)?;
        Ok(self.controller(controller).map(|root| root.join(below)))
    }

    /// The directory of `cgroup` in the v2 tree, if there is one.
    pub fn unified_directory(&self, cgroup: &str) -> io::Result<Option<PathBuf>> {
        let below = relative(cgroup)?;
        Ok(self.unified().map(|root| root.join(below)))
    }

    /// The directories of `cgroup` in all trees, v2's first. They need not exist.
    pub fn directories(&self, cgroup: &str) -> io::Result<Vec<PathBuf>> {
        let below = relative(cgroup)?;
        let trees = self.hierarchies().iter().map(|tree| tree.mount_point.as_path());
        Ok(self.unified().into_iter().chain(trees).map(|root| root.join(below)).collect())
    }
}

/// A cgroup's path without its slash. Ours are absolute and have no `..`; anything else is a mistake that must not
/// reach another cgroup.
fn relative(cgroup: &str) -> io::Result<&str> {
    let below = cgroup.strip_prefix('/').filter(|below| {
        below.is_empty()
            || below.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
    });
    below.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{cgroup:?} is no absolute path of a cgroup"))
    })
}

/// Super options of a v1 tree that are no controllers.
fn controllers(options: &str) -> Vec<String> {
    const OTHER: [&str; 8] =
        ["rw", "ro", "none", "noprefix", "xattr", "clone_children", "cpuset_v2_mode", "favordynmods"];
    let is_controller = |option: &&str| {
        !option.is_empty()
            && !OTHER.contains(option)
            && (option.starts_with("name=") || !option.contains('='))
    };
    options.split(',').filter(is_controller).map(str::to_owned).collect()
}

/// A line of mountinfo: `31 23 0:28 ROOT POINT OPTIONS [FIELD…] - KIND SOURCE SUPER_OPTIONS`.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, super_block) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = super_block.split(' ');
        let (kind, _source) = (fields.next()?, fields.next()?);
        Some(Self { root, point: unescape(point).into(), kind, options: fields.next().unwrap_or_default() })
    }
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V2: &str = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
        36 31 0:32 /docker/x /mnt/bound rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn pure_v2() {
        let mode = CgroupMode::parse(V2);
        assert_eq!(mode, CgroupMode::Unified { root: "/sys/fs/cgroup".into() });
        assert_eq!(mode.directory("memory", "/wharf/x").unwrap(), None);
        assert_eq!(mode.unified_directory("/wharf/x").unwrap().unwrap(), Path::new("/sys/fs/cgroup/wharf/x"));
    }

    #[test]
    fn hybrid_with_shared_and_named_trees() {
        let mode = CgroupMode::parse(HYBRID);
        assert_eq!(mode.hierarchies().len(), 3);
        assert_eq!(mode.hierarchies()[2].controllers, ["name=systemd"]);
        assert_eq!(mode.controller("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(mode.controller("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(mode.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mode.directories("/x").unwrap().len(), 4);
    }

    #[test]
    fn legacy_named_tree_beside_v2_and_nothing_at_all() {
        let v1: String =
            HYBRID.lines().filter(|line| !line.contains("cgroup2")).collect::<Vec<_>>().join("\n");
        assert!(
            matches!(CgroupMode::parse(&v1), CgroupMode::Legacy { hierarchies } if hierarchies.len() == 3)
        );
        let named = format!("{V2}\n50 24 0:40 / /mnt/n rw - cgroup none rw,name=elogind");
        assert!(matches!(CgroupMode::parse(&named), CgroupMode::Unified { .. }));
        assert_eq!(CgroupMode::parse("garbage\n1 2 3\n\n- - -"), CgroupMode::Legacy { hierarchies: vec![] });
    }

    #[test]
    fn mount_points_with_spaces_are_read() {
        let mode = CgroupMode::parse("30 24 0:26 / /a\\040b\\134c\\9 rw - cgroup2 none rw");
        assert_eq!(mode.unified(), Some(Path::new("/a b\\c\\9")));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let mode = CgroupMode::parse(V2);
        for cgroup in ["", "wharf", "/wharf/../x", "/wharf//x", "/./x", "/wharf/", "/a\0"] {
            assert_eq!(
                mode.unified_directory(cgroup).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{cgroup:?}"
            );
        }
    }

    #[test]
    fn this_machine_has_cgroups() {
        assert_ne!(CgroupMode::detect(), CgroupMode::Legacy { hierarchies: vec![] });
    }
}
