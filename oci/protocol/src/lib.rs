//! What wharfd, the forge and the keepers say to each other.
//!
//! ```text
//! wharfd ──forge.sock──► forge ──fork──► guard ──execve──► keeper ◄──keeper.sock── wharfd
//!          one request,                  answers on the     fixed-size messages
//!          one connection                same connection    (module `wharf_keeper::wire`)
//! ```
//!
//! A connection to the forge carries one [`Request`] and the descriptors that belong to it, then one
//! [`Reply`] (an exec: two). Every message is a [`frame`]: a length, JSON, and SCM_RIGHTS on its first byte.
//! Nothing here does container work; it only says what can be asked for.

pub mod exit;
pub mod failpoint;
pub mod frame;
pub mod memfd;
pub mod request;

pub use exit::ExitRecord;
pub use request::*;
pub use wharf_keeper as keeper;

/// The version of everything in this crate, which changes when one side would misunderstand the other.
///
/// Within a version, wharfd, forge and keepers may be a release apart, in either direction: a new field has
/// `#[serde(default)]` and a meaning that may be missed, unknown fields are skipped, a request that the forge does not
/// know is refused and nothing else, and messages of a keeper never change, there can only be more of them. The bytes
/// of each release are kept in `tests/fixtures`, and what reads them today is tested.
pub const VERSION: u32 = 1;
