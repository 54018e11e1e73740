//! Who a container is: its id for ever, its name for people, its runs one after the other.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// A container's identity for life: 256 bits, written as 64 hexadecimal digits. Chosen at random by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

/// Why a text is no [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container id is 64 lower-case hexadecimal digits")]
pub struct BadId;

impl Id {
    /// The id with these bits.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Some bits of it, where something has to differ from container to container.
    pub(crate) fn seed(self) -> u64 {
        self.0.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first twelve digits, as listings show an id.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        fn digit(character: u8) -> Result<u8, BadId> {
            match character {
                b'0'..=b'9' => Ok(character - b'0'),
                b'a'..=b'f' => Ok(character - b'a' + 10),
                _ => Err(BadId),
            }
        }
        let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| BadId)?;
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        Ok(Self(bytes))
    }
}

/// What people call a container: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most [`Name::MAX`] bytes; unique on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing at all.
    #[error("name: is empty; leave it out to get one chosen")]
    Empty,
    /// More than [`Name::MAX`].
    #[error("name: has {0} characters, at most {max} are possible", max = Name::MAX)]
    TooLong(usize),
    /// `_`, `.` or `-` first.
    #[error("name: {0:?} must begin with a letter or a digit")]
    Beginning(String),
    /// Something that is no letter, digit, `_`, `.` or `-`.
    #[error("name: {name:?} contains {character:?}; letters, digits, '_', '.' and '-' are possible")]
    Character {
        /// The whole.
        name: String,
        /// The first that does not belong.
        character: char,
    },
}

impl Name {
    /// The name becomes a file name and part of labels, metrics and host names; none of them takes more than
    /// 255 bytes, and 128 leaves room for what is put around it.
    pub const MAX: usize = 128;

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = text.chars().next().ok_or(BadName::Empty)?;
        let foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if let Some(character) = text.chars().find(foreign) {
            return Err(BadName::Character { name: text.chars().take(Self::MAX).collect(), character });
        }
        if text.len() > Self::MAX {
            return Err(BadName::TooLong(text.len()));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(BadName::Beginning(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Which start of a container: 1 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(
    /// Its number.
    pub u64,
);

impl Run {
    /// The run of a container that was never started before.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_reads_what_it_writes() {
        let text = "00ff".repeat(16);
        let id: Id = text.parse().expect("64 digits");
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{id:?}"), "00ff00ff00ff");
    }

    #[test]
    fn short_upper_case_and_foreign_ids_are_refused() {
        for text in ["", "00ff", &"00FF".repeat(16), &"00fg".repeat(16), &"ä".repeat(32)] {
            assert_eq!(text.parse::<Id>(), Err(BadId), "{text}");
        }
    }

    #[test]
    fn names_follow_the_grammar_of_docker() {
        for good in ["a", "0", "web-1", "a_b.c", &"x".repeat(128)] {
            assert_eq!(good.parse::<Name>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("".parse::<Name>(), Err(BadName::Empty));
        assert_eq!("x".repeat(129).parse::<Name>(), Err(BadName::TooLong(129)));
        assert_eq!("-a".parse::<Name>(), Err(BadName::Beginning("-a".into())));
        let slash = BadName::Character { name: "a/b".into(), character: '/' };
        assert_eq!(
            slash.to_string(),
            r#"name: "a/b" contains '/'; letters, digits, '_', '.' and '-' are possible"#
        );
        assert_eq!("a/b".parse::<Name>(), Err(slash));
        assert!("ä".parse::<Name>().is_err());
        assert!("a\n".parse::<Name>().is_err());
    }
}
