//! Who the process in a container is: `name`, `uid`, `name:group`… against the image's own /etc/passwd and
//! /etc/group.
//!
//! The image writes those files, so they are hostile until proved otherwise: plain parsing of bounded regular
//! files, no NSS, no wrapping numbers. A user of digits is always an id, never a name.

use crate::tree::{self, Content};
use anyhow::Result;
use rustix::fd::AsFd;
use std::path::Path;
use wharf_protocol::{Failure, FailureKind};

/// The process' ids and home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id inside the container.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one first: without it a rule that denies its members could be evaded.
    pub groups: Vec<u32>,
    /// From the user's entry, `/` without one.
    pub home: String,
}

/// Look `user` and the further `groups` up in the tree under `root`; ids must be below `ids`.
pub fn identify(root: impl AsFd, user: &str, groups: &[String], ids: u32) -> Result<Identity> {
    let passwd = database(&root, "/etc/passwd")?;
    let group = database(&root, "/etc/group")?;
    Ok(resolve(user, groups, &passwd, &group, ids)?)
}

fn database(root: impl AsFd, path: &str) -> Result<String> {
    match tree::read(root, Path::new(path))? {
        Content::Missing => Ok(String::new()),
        Content::Text(text) => Ok(text),
        Content::Refused(why) => Err(Failure {
            kind: FailureKind::RefusedImage,
            message: format!("the image's {path} is refused: {why}"),
            detail: Vec::new(),
        }
        .into()),
    }
}

fn resolve(
    user: &str,
    more_groups: &[String],
    passwd: &str,
    group: &str,
    ids: u32,
) -> Result<Identity, Failure> {
    let (user_part, group_part) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };

    let (uid, entry) = match user_part {
        "" => (0, passwd.lines().filter_map(User::parse).find(|entry| entry.uid == 0)),
        text => match number(text) {
            Some(id) => {
                let uid = within(id, ids, "user", user)?;
                (uid, passwd.lines().filter_map(User::parse).find(|entry| entry.uid == uid))
            }
            None => {
                check_name(text, "user")?;
                let entry = passwd
                    .lines()
                    .filter_map(User::parse)
                    .find(|entry| entry.name == text)
                    .ok_or_else(|| unknown("user", text, "/etc/passwd"))?;
                (within(u64::from(entry.uid), ids, "user", user)?, Some(entry))
            }
        },
    };

    let group_id = |text: &str| -> Result<u32, Failure> {
        let id = match number(text) {
            Some(id) => id,
            None => {
                check_name(text, "group")?;
                let entry = group
                    .lines()
                    .filter_map(Group::parse)
                    .find(|entry| entry.name == text)
                    .ok_or_else(|| unknown("group", text, "/etc/group"))?;
                u64::from(entry.gid)
            }
        };
        within(id, ids, "group", text)
    };

    let mut groups = Vec::new();
    match group_part {
        Some(text) => groups.push(group_id(text)?),
        None => {
            let gid = entry.as_ref().map_or(0, |entry| entry.gid);
            groups.push(within(u64::from(gid), ids, "group", user)?);
            if let Some(entry) = &entry {
                let member = |group: &Group<'_>| group.members.split(',').any(|name| name == entry.name);
                groups.extend(
                    group
                        .lines()
                        .filter_map(Group::parse)
                        .filter(member)
                        .map(|group| group.gid)
                        .filter(|gid| *gid < ids),
                );
            }
        }
    }
    for text in more_groups {
        groups.push(group_id(text)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|gid| seen.insert(*gid));

    let home = entry.map_or("/", |entry| entry.home);
    if home.chars().any(char::is_control) {
        return Err(Failure {
            kind: FailureKind::RefusedImage,
            message: "the home directory in the image's /etc/passwd has a control character".into(),
            detail: Vec::new(),
        });
    }
    let home = if home.starts_with('/') { home } else { "/" };
    Ok(Identity { uid, gid: groups[0], groups, home: home.to_owned() })
}

/// Digits only, so that `-1`, `+0`, `0x0` and ` 0` are names (which nobody has). Saturates, so that nothing wraps.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// An id of the container's range; the highest 32-bit value is no id (it means "leave as it is").
fn within(id: u64, ids: u32, what: &str, given: &str) -> Result<u32, Failure> {
    match u32::try_from(id) {
        Ok(id) if id < ids && id != u32::MAX => Ok(id),
        _ => Err(invalid(format!(
            "{what} {given:?} has the id {id}, but this container's ids end at {}; choose a lower one",
            ids - 1
        ))),
    }
}

fn check_name(text: &str, what: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(invalid(format!("the {what} is empty; leave the colon out or name one")));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} {text:?} has a control character")));
    }
    Ok(())
}

fn unknown(what: &str, name: &str, file: &str) -> Failure {
    invalid(format!("{what} {name:?} is not in the image's {file}; use a {what} it has, or an id"))
}

fn invalid(message: String) -> Failure {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default().trim_end() })
    }
}

/// An id in a database; a line with anything else is as good as absent.
fn id(text: &str) -> Option<u32> {
    number(text).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # comment\n\
        broken\n\
        wrap:x:4294967296:4294967296::/:/bin/sh\n\
        minus:x:-1:0::/:/bin/sh\n\
        app:x:1000:100:App:/home/app:/bin/sh\n\
        nohome:x:1001:100\n\
        relative:x:1002:100::home:/bin/sh\n\
        bell:x:1003:100::/ho\u{7}me:/bin/sh\n\
        big:x:70000:100::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,app\nvideo:x:44:app\nhuge:x:70000:app\n";

    fn who(user: &str) -> Result<Identity, Failure> {
        resolve(user, &[], PASSWD, GROUP, 65536)
    }

    #[test]
    fn names_and_ids_are_resolved() {
        let root = who("").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(root.groups, [0, 10]);

        let app = who("app").unwrap();
        assert_eq!((app.uid, app.gid, app.home.as_str()), (1000, 100, "/home/app"));
        assert_eq!(app.groups, [100, 10, 44], "the primary group first, one outside the range left out");
        assert_eq!(who("1000").unwrap(), app);

        let other = who("1000:wheel").unwrap();
        assert_eq!(other.groups, [10], "an explicit group replaces the memberships");
        assert_eq!(who("app:7").unwrap().groups, [7]);
        let stranger = who("5000").unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.home.as_str()), (5000, 0, "/"));
        assert_eq!(who("nohome").unwrap().home, "/");
        assert_eq!(who("relative").unwrap().home, "/");
    }

    #[test]
    fn further_groups_join_the_primary_one() {
        let more = ["video".to_owned(), "5".to_owned(), "100".to_owned()];
        let app = resolve("app", &more, PASSWD, GROUP, 65536).unwrap();
        assert_eq!(app.groups, [100, 10, 44, 5]);
        assert!(resolve("app", &["nope".to_owned()], PASSWD, GROUP, 65536).is_err());
    }

    #[test]
    fn what_could_wrap_or_deceive_is_refused() {
        for user in [
            "4294967296",
            "4294967295",
            "18446744073709551616",
            "99999999999999999999999",
            "65536",
            "-1",
            "+0",
            "0x0",
            " 0",
            "0 ",
            "٠",
            "root\n",
            "ro\0ot",
            "nobody",
            "wrap",
            "minus",
            "big",
            "app:",
            "app:4294967296",
            "app:nope",
            "0:0:0",
            "comment",
        ] {
            let failure = who(user).expect_err(user);
            assert_eq!(failure.kind, FailureKind::InvalidInput, "{user:?}: {failure}");
        }
    }

    #[test]
    fn home_with_a_control_character_refuses_the_image() {
        assert_eq!(who("bell").unwrap_err().kind, FailureKind::RefusedImage);
    }

    #[test]
    fn user_databases_are_regular_files_of_bounded_size() {
        let dir = std::env::temp_dir().join(format!("wharf-users-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        let open = || rustix::fs::open(&dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(identify(open(), "", &[], 65536).unwrap().home, "/", "no databases at all");

        let passwd = dir.join("etc/passwd");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &passwd,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let refused = identify(open(), "", &[], 65536).unwrap_err();
        assert_eq!(refused.downcast::<Failure>().unwrap().kind, FailureKind::RefusedImage);

        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap();
        assert_eq!(identify(open(), "", &[], 65536).unwrap().home, "/", "the link stays inside the image");

        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(11 << 20).unwrap();
        assert!(identify(open(), "", &[], 65536).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
