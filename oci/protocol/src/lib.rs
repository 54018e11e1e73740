//! What wharfd, the forge and the keepers say to each other.
//!
//! ```text
//! wharfd ──forge.sock──► forge ──fork──► creator ──execve──► keeper ◄──keeper.sock── wharfd
//!          one request,                  answers on the       fixed-size messages
//!          one connection                same connection      (module `wharf_keeper::wire`)
//! ```
//!
//! A connection to the forge carries one [`Request`] and the descriptors that belong to it, then one
//! [`Reply`] (an exec: two). Every message is a [`frame`]: a length, JSON, and SCM_RIGHTS on its first byte.
//! Nothing here does container work; it only says what can be asked for.

pub mod exit;
pub mod frame;
pub mod request;

pub use exit::ExitRecord;
pub use request::*;
pub use wharf_keeper as keeper;

/// The version of everything in this crate. A forge or keeper of the previous version must be understood.
pub const VERSION: u32 = 1;
