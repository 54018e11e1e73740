//! Content addresses: `sha256:` or `sha512:` and lower-case hexadecimal digits, nothing else.
//!
//! A digest becomes part of a path in the store, so the grammar is strict and checked once, here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The hash functions that the OCI image specification registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what everybody uses.
    Sha256,
    /// SHA-512, which must be understood.
    Sha512,
}

impl Algorithm {
    /// As it is written in digests and as a directory below `blobs`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest has.
    pub fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A content address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon in it.
    #[error("digest {0:?} has no algorithm; write sha256:<64 hexadecimal digits>")]
    NoAlgorithm(String),
    /// Another hash function.
    #[error("digest algorithm {0:?} is not supported; use sha256 or sha512")]
    UnknownAlgorithm(String),
    /// Too short or too long.
    #[error("a {algorithm} digest has {expected} hexadecimal digits, not {found}")]
    Length {
        /// The algorithm named.
        algorithm: &'static str,
        /// Its number of digits.
        expected: usize,
        /// The number given.
        found: usize,
    },
    /// Something other than 0-9 and a-f.
    #[error("digest contains {0:?}; only 0-9 and a-f may follow the algorithm")]
    NotHexadecimal(char),
}

impl Digest {
    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Digest {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(bytes);
        digester.finish()
    }

    /// Does it address these bytes?
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut digester = Digester::new(self.algorithm);
        digester.update(bytes);
        digester.finish() == *self
    }

    /// Which hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits alone.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        // A hostile document may hold megabytes here; an error message need not repeat them.
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(shown(text)))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => return Err(DigestError::UnknownAlgorithm(shown(other))),
        };
        if let Some(bad) = hex.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(DigestError::NotHexadecimal(bad));
        }
        if hex.len() != algorithm.digits() {
            return Err(DigestError::Length {
                algorithm: algorithm.name(),
                expected: algorithm.digits(),
                found: hex.len(),
            });
        }
        Ok(Digest { algorithm, hex: hex.to_owned() })
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An image's identity: the digest of its configuration, as Docker and podman have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// The twelve digits that listings show.
    pub fn short(&self) -> &str {
        &self.0.hex()[..12]
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone)]
pub struct Digester(Hasher);

#[derive(Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Digester {
    /// Nothing hashed yet.
    pub fn new(algorithm: Algorithm) -> Digester {
        Digester(match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        })
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            Hasher::Sha256(hasher) => Digest { algorithm: Algorithm::Sha256, hex: hex(&hasher.finalize()) },
            Hasher::Sha512(hasher) => Digest { algorithm: Algorithm::Sha512, hex: hex(&hasher.finalize()) },
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert!(EMPTY.parse::<Digest>().unwrap().matches(b""));
    }

    #[test]
    fn sha512_is_understood() {
        let text = format!("sha512:{}", "0a".repeat(64));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        let mut digester = Digester::new(Algorithm::Sha512);
        digester.update(b"abc");
        assert!(digester.finish().hex().starts_with("ddaf35a193617aba"));
    }

    #[test]
    fn anything_that_could_leave_a_directory_is_no_digest() {
        let hex = "0".repeat(64);
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:..",
            "sha256:../../../../etc/passwd",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}", "0".repeat(63)),
            &format!("sha256:{}", "0".repeat(65)),
            &format!("SHA256:{hex}"),
            &format!("sha1:{}", "0".repeat(40)),
            &format!("../sha256:{hex}"),
            &format!("sha256:{hex}\0"),
            &format!("sha256:{hex}\n"),
            &format!(" sha256:{hex}"),
            &format!("sha512:{hex}"),
            &format!("sha256:sha256:{}", &hex[7..]),
            &format!("sha256:{}/", &hex[1..]),
            &format!("sha256:{}é", &hex[2..]),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn error_messages_stay_short() {
        let text = "x".repeat(1 << 20);
        assert!(text.parse::<Digest>().unwrap_err().to_string().len() < 300);
    }
}
