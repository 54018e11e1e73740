//! `--volume`, `--mount` and `--tmpfs`.

use crate::quantity;
use std::path::{Component, Path, PathBuf};
use wharf_bus::spec::{Tmpfs, Volume};

/// What one `--mount` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Mount {
    /// A directory or file of the host.
    Volume(Volume),
    /// A directory in memory.
    Tmpfs(Tmpfs),
}

const VOLUME_OPTIONS: [&str; 10] =
    ["ro", "rw", "bind", "rbind", "suid", "nosuid", "dev", "nodev", "exec", "noexec"];
const TMPFS_OPTIONS: [&str; 8] = ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"];

/// `SOURCE:TARGET[:OPTIONS]`.
pub fn volume(text: &str) -> Result<Volume, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(target), options, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!(
            "it must be SOURCE:TARGET or SOURCE:TARGET:OPTIONS, such as /srv/data:/data:ro; got '{text}'"
        ));
    };
    let options = options.map(|list| volume_options(list.split(','))).transpose()?.unwrap_or_default();
    Ok(Volume { source: host_path(source)?, target: inner_path(target)?, options })
}

/// `TARGET[:size=64m,mode=1777,ro,…]`.
pub fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut found = Tmpfs { target: inner_path(target)?, size: None, mode: None, options: Vec::new() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => found.size = Some(quantity::bytes(size)?),
            Some(("mode", mode)) => found.mode = Some(octal(mode)?),
            None if TMPFS_OPTIONS.contains(&option) => found.options.push(option.to_owned()),
            _ => {
                return Err(format!(
                    "unknown option '{option}'; known are size=SIZE, mode=OCTAL, {}",
                    TMPFS_OPTIONS.join(", ")
                ));
            }
        }
    }
    Ok(found)
}

/// `type=bind,source=…,target=…[,readonly]` or `type=tmpfs,target=…[,tmpfs-size=…][,tmpfs-mode=…]`.
pub fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut target, mut size, mut mode) = (None, None, None, None, None);
    let mut options = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some(value)) => kind = Some(value),
            ("source" | "src", Some(value)) => source = Some(value),
            ("target" | "dst" | "destination", Some(value)) => target = Some(inner_path(value)?),
            ("tmpfs-size", Some(value)) => size = Some(quantity::bytes(value)?),
            ("tmpfs-mode", Some(value)) => mode = Some(octal(value)?),
            ("readonly" | "ro", None | Some("true" | "1")) => options.push("ro".to_owned()),
            ("readonly" | "ro", Some("false" | "0")) => {}
            (option, None) if VOLUME_OPTIONS.contains(&option) => options.push(option.to_owned()),
            _ => {
                return Err(format!(
                    "unknown field '{field}'; known are type=bind|tmpfs, source=DIR, target=DIR, readonly, tmpfs-size=SIZE, tmpfs-mode=OCTAL, {}",
                    VOLUME_OPTIONS.join(", ")
                ));
            }
        }
    }
    let target = target.ok_or("target=DIR is missing")?;
    match (kind, source) {
        (Some("bind"), Some(source)) => {
            if size.is_some() || mode.is_some() {
                return Err("tmpfs-size and tmpfs-mode need type=tmpfs".to_owned());
            }
            Ok(Mount::Volume(Volume { source: host_path(source)?, target, options }))
        }
        (Some("bind"), None) => Err("source=DIR is missing".to_owned()),
        (Some("tmpfs"), None) => Ok(Mount::Tmpfs(Tmpfs { target, size, mode, options })),
        (Some("tmpfs"), Some(_)) => Err("a tmpfs has no source".to_owned()),
        (Some("volume") | None, _) => {
            Err("named volumes come later; use type=bind with source=/absolute/path, or type=tmpfs"
                .to_owned())
        }
        (Some(other), _) => Err(format!("unknown type '{other}'; known are bind and tmpfs")),
    }
}

fn volume_options<'a>(options: impl Iterator<Item = &'a str>) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for option in options.filter(|option| !option.is_empty()) {
        match option {
            "z" | "Z" => {
                return Err(format!("option '{option}': wharf sets no SELinux labels; leave it out"));
            }
            option if VOLUME_OPTIONS.contains(&option) => found.push(option.to_owned()),
            _ => return Err(format!("unknown option '{option}'; known are {}", VOLUME_OPTIONS.join(", "))),
        }
    }
    Ok(found)
}

/// An absolute path on the host. What begins with `.` is relative to ctl's directory, which the daemon cannot
/// know; anything else would be a volume's name in docker.
fn host_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    if !(matches!(text, "." | "..") || text.starts_with("./") || text.starts_with("../")) {
        return Err(if text.is_empty() {
            "the source is empty; it must be an absolute path such as /srv/data".to_owned()
        } else {
            format!(
                "source '{text}' is not absolute, and named volumes come later: use an absolute path, or ./{text} for one below this directory"
            )
        });
    }
    let here = std::env::current_dir()
        .map_err(|error| format!("'{text}': the current directory cannot be read: {error}"))?;
    let path = plain(&here.join(text));
    path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()))
}

/// Without `.` and `..`. Symbolic links stay as they are: `..` behind one is the user's own affair, as in a shell.
fn plain(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => result.push(component),
        }
    }
    result
}

fn inner_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("the path in the container must be absolute, such as /data; got '{text}'"))
    }
}

fn octal(text: &str) -> Result<String, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(text.to_owned()),
        _ => Err(format!("mode is octal, such as 1777 or 700; got '{text}'")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn volume_has_source_target_and_options() {
        let found = volume("/srv/data:/data:ro,noexec").unwrap();
        assert_eq!((found.source.as_str(), found.target.as_str()), ("/srv/data", "/data"));
        assert_eq!(found.options, ["ro", "noexec"]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./a/../b:/data").unwrap().source, here.join("b").to_str().unwrap());
        assert_eq!(volume("..:/data").unwrap().source, here.parent().unwrap().to_str().unwrap());
    }

    #[test]
    fn wrong_volumes_say_what_to_write() {
        for (text, part) in [
            ("/data", "SOURCE:TARGET"),
            ("data:/data", "./data"),
            ("data/x:/data", "absolute path"),
            (":/data", "empty"),
            ("/a:b", "must be absolute"),
            ("/a:/b:bad", "known are ro"),
            ("/a:/b:z", "SELinux"),
            ("/a:/b:ro:x", "SOURCE:TARGET"),
        ] {
            let error = volume(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn tmpfs_has_a_size_and_a_mode() {
        let found = tmpfs("/run:size=64m,mode=700,noexec").unwrap();
        assert_eq!((found.size, found.mode.as_deref()), (Some(64 << 20), Some("700")));
        assert_eq!(found.options, ["noexec"]);
        assert_eq!(tmpfs("/run").unwrap().size, None);
        for text in ["run", "/run:size=10x", "/run:mode=9", "/run:uid=3"] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mount_is_the_long_form_of_both() {
        assert_eq!(
            mount("type=bind,src=/a,dst=/b,readonly").unwrap(),
            Mount::Volume(Volume { source: "/a".into(), target: "/b".into(), options: vec!["ro".into()] })
        );
        assert_eq!(
            mount("type=tmpfs,target=/b,tmpfs-size=1k").unwrap(),
            Mount::Tmpfs(Tmpfs { target: "/b".into(), size: Some(1024), mode: None, options: vec![] })
        );
        for text in [
            "type=volume,src=x,dst=/b",
            "src=/a,dst=/b",
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "type=x,dst=/b",
            "type=tmpfs,dst=/b,foo=1",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
