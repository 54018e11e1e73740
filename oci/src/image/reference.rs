//! Names of images: `[DOMAIN/]PATH[:TAG][@DIGEST]`, in the grammar of the distribution project.
//!
//! A parsed [`Reference`] is always full: a short name such as `busybox` becomes
//! `docker.io/library/busybox:latest`, as with docker and skopeo.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Digest, DigestError};

/// Where names without a registry belong.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Where one-word names of [`DEFAULT_DOMAIN`] belong.
const OFFICIAL: &str = "library/";
/// The tag of names that have neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The domain of images that were built or loaded here and come from no registry.
pub const LOCAL_DOMAIN: &str = "localhost";
/// Paths of [`LOCAL_DOMAIN`] below which only images compiled into wharf are named.
pub const RESERVED: &str = "wharf/";
/// The distribution project's bound on domain and path together.
const NAME_MAX: usize = 255;

/// A full name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("an image name must not be empty")]
    Empty,
    /// Domain and path are longer than 255 characters.
    #[error("an image name may be 255 characters long, this one has {0}")]
    TooLong(usize),
    /// Not a host name with an optional port.
    #[error("{0:?} is no registry host; write HOST or HOST:PORT")]
    Domain(String),
    /// Upper-case letters in a part of the path.
    #[error("image name part {component:?} has upper-case letters; write {lower:?}")]
    UpperCase {
        /// The part.
        component: String,
        /// How it might be meant.
        lower: String,
    },
    /// A part of the path with other characters, or empty.
    #[error(
        "image name part {0:?} is not allowed; parts are a-z and 0-9, separated inside by '.', '_', '__' or '-'"
    )]
    Component(String),
    /// Not a tag.
    #[error(
        "tag {0:?} is not allowed; a tag is up to 128 letters, digits, '_', '.', '-', and does not start with '.' or '-'"
    )]
    Tag(String),
    /// Not a digest.
    #[error("the part after '@' is no digest")]
    Digest(#[source] DigestError),
    /// 64 hexadecimal digits are always an id.
    #[error("64 hexadecimal digits are an image id and cannot be an image name")]
    LooksLikeId,
}

impl Reference {
    /// Make a name in [`LOCAL_DOMAIN`] of words that need not be in the grammar, such as a file's name.
    pub fn local(name: &str, tag: &str) -> Option<Reference> {
        let mut path = String::new();
        for c in name.chars().take(128) {
            match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => path.push(c),
                // Runs of anything else become one dash between letters: always in the grammar.
                _ if path.ends_with(|c: char| c.is_ascii_alphanumeric()) => path.push('-'),
                _ => {}
            }
        }
        format!("{LOCAL_DOMAIN}/{}:{tag}", path.trim_end_matches('-')).parse().ok()
    }

    /// The registry's host, with its port if one was given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag. A name without tag and digest has the tag `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same without a digest: what an image is stored as.
    pub fn without_digest(&self) -> Reference {
        Reference {
            digest: None,
            tag: Some(self.tag.clone().unwrap_or(DEFAULT_TAG.to_owned())),
            ..self.clone()
        }
    }

    /// Is it a name that only images compiled into wharf may have?
    pub fn is_reserved(&self) -> bool {
        self.domain == LOCAL_DOMAIN && self.path.starts_with(RESERVED)
    }

    /// As short as it can be typed: `busybox:latest`, `wharf/demo:latest`, `quay.io/a/b:1`.
    pub fn familiar(&self) -> String {
        // `docker.io/a.b/c` must stay long: `a.b/c` would be read as a path of the registry `a.b`.
        let name = if self.domain == DEFAULT_DOMAIN && !names_domain(&self.path) {
            self.path
                .strip_prefix(OFFICIAL)
                .filter(|rest| !rest.contains('/'))
                .unwrap_or(&self.path)
                .to_owned()
        } else if self.is_reserved() {
            self.path.clone()
        } else {
            self.name()
        };
        self.with_suffix(name)
    }

    /// What a user who typed `text` may mean, likeliest first: an image of this host, then one of the default
    /// registry. A text that names its registry means just that.
    pub fn candidates(text: &str) -> Result<Vec<Reference>, ReferenceError> {
        let full: Reference = text.parse()?;
        if full.domain != DEFAULT_DOMAIN || names_domain(text) {
            return Ok(vec![full]);
        }
        let path = full.path.strip_prefix(OFFICIAL).unwrap_or(&full.path).to_owned();
        Ok(vec![Reference { domain: LOCAL_DOMAIN.to_owned(), path, ..full.clone() }, full])
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(ReferenceError::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag, one before it a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if names_domain(name) => (first, path),
            Some(_) | None => (DEFAULT_DOMAIN, name),
        };
        check_domain(domain)?;
        for component in path.split('/') {
            check_component(component)?;
        }
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        let length = domain.len() + 1 + path.len();
        if length > NAME_MAX {
            return Err(ReferenceError::TooLong(length));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Docker's rule for telling `host/path` from `user/path`.
fn names_domain(name: &str) -> bool {
    match name.split_once('/') {
        Some((first, _)) => {
            first == LOCAL_DOMAIN
                || first.contains(['.', ':'])
                || first.chars().any(|c| c.is_ascii_uppercase())
        }
        None => false,
    }
}

fn check_domain(domain: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Domain(domain.to_owned());
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(bad)?;
            if address.is_empty() || !address.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
                return Err(bad());
            }
            (None, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(host) = host {
        let label = |label: &str| {
            !label.is_empty()
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !host.split('.').all(label) {
            return Err(bad());
        }
    }
    match port {
        Some(port) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => Err(bad()),
        Some(port) if port.parse::<u16>().is_err() => Err(bad()),
        Some(_) | None => Ok(()),
    }
}

fn check_component(component: &str) -> Result<(), ReferenceError> {
    let bad = || ReferenceError::Component(component.chars().take(80).collect());
    if component.chars().any(|c| c.is_ascii_uppercase()) {
        let component: String = component.chars().take(80).collect();
        let lower = component.to_ascii_lowercase();
        return Err(ReferenceError::UpperCase { component, lower });
    }
    // [a-z0-9]+ ( ('.' | '_' | '__' | '-'+) [a-z0-9]+ )*
    let mut rest = component;
    loop {
        let word = rest.bytes().take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9')).count();
        if word == 0 {
            return Err(bad());
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return Ok(());
        }
        let separator = match rest.as_bytes() {
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            [b'-', ..] => rest.bytes().take_while(|b| *b == b'-').count(),
            _ => return Err(bad()),
        };
        rest = &rest[separator..];
    }
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'));
    if good { Ok(()) } else { Err(ReferenceError::Tag(tag.chars().take(140).collect())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn short_names_become_full_ones() {
        assert_eq!(full("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(full("user/app"), "docker.io/user/app:latest");
        assert_eq!(full("index.docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(full("quay.io/a/b__c/d"), "quay.io/a/b__c/d:latest");
        assert_eq!(full("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(full("REGISTRY/app"), "REGISTRY/app:latest");
        assert_eq!(full(&format!("busybox@sha256:{HEX}")), format!("docker.io/library/busybox@sha256:{HEX}"));
        assert_eq!(full(&format!("a/b:t@sha256:{HEX}")), format!("docker.io/a/b:t@sha256:{HEX}"));
    }

    #[test]
    fn familiar_names_are_what_one_types() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("busybox"), "busybox:latest");
        assert_eq!(familiar("docker.io/user/app:1"), "user/app:1");
        assert_eq!(familiar("localhost/wharf/demo"), "wharf/demo:latest");
        assert_eq!(familiar("localhost/mine"), "localhost/mine:latest");
        assert_eq!(familiar("quay.io/a/b"), "quay.io/a/b:latest");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = |text: &str| text.parse::<Reference>().unwrap_err();
        assert_eq!(error(""), ReferenceError::Empty);
        assert_eq!(error(HEX), ReferenceError::LooksLikeId);
        assert!(matches!(error("BusyBox"), ReferenceError::UpperCase { lower, .. } if lower == "busybox"));
        assert!(matches!(error("a..b"), ReferenceError::Component(_)));
        assert!(matches!(error("a/../b"), ReferenceError::Component(_)));
        assert!(matches!(error("/a"), ReferenceError::Component(_)));
        assert!(matches!(error("a/"), ReferenceError::Component(_)));
        assert!(matches!(error("a b"), ReferenceError::Component(_)));
        assert!(matches!(error("a:"), ReferenceError::Tag(_)));
        assert!(matches!(error("a:.x"), ReferenceError::Tag(_)));
        assert!(matches!(error(&format!("a:{}", "x".repeat(129))), ReferenceError::Tag(_)));
        assert!(matches!(error("-x.io/a"), ReferenceError::Domain(_)));
        assert!(matches!(error("x.io:99999/a"), ReferenceError::Domain(_)));
        assert!(matches!(error("a@sha256:zz"), ReferenceError::Digest(_)));
        assert!(matches!(error("a@b@c"), ReferenceError::Digest(_)));
        assert!(matches!(error(&"a/".repeat(200)[..399]), ReferenceError::TooLong(_)));
        assert!(matches!(error("bäh"), ReferenceError::Component(_)));
    }

    #[test]
    fn unqualified_names_may_be_local() {
        let candidates = |text: &str| {
            Reference::candidates(text).unwrap().iter().map(|r| r.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(candidates("wharf/demo"), ["localhost/wharf/demo:latest", "docker.io/wharf/demo:latest"]);
        assert_eq!(candidates("bb:1"), ["localhost/bb:1", "docker.io/library/bb:1"]);
        assert_eq!(candidates("docker.io/bb"), ["docker.io/library/bb:latest"]);
    }

    #[test]
    fn any_file_name_makes_a_local_name() {
        let local = |name: &str| Reference::local(name, "latest").map(|r| r.to_string());
        assert_eq!(local("My App_1.0").as_deref(), Some("localhost/my-app-1-0:latest"));
        assert_eq!(local("..--"), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_printing_parses_back(text in "\\PC{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert!(!reference.path().split('/').any(|c| c.is_empty() || c == "." || c == ".."));
            }
        }

        #[test]
        fn what_the_grammar_makes_is_accepted(text in "([a-z0-9]+\\.[a-z]{2}(:[1-9][0-9]{1,3})?/)?[a-z0-9]+([_-][a-z0-9]+){0,2}(/[a-z0-9]+(__[a-z0-9]+)?){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?") {
            if text.len() != 64 {
                let reference = text.parse::<Reference>().unwrap();
                let familiar = reference.familiar().parse::<Reference>().unwrap();
                prop_assert_eq!(familiar, reference);
            }
        }

        #[test]
        fn local_names_are_in_the_grammar(name in "\\PC{0,200}") {
            if let Some(reference) = Reference::local(&name, "latest") {
                prop_assert_eq!(reference.domain(), "localhost");
            }
        }
    }
}
