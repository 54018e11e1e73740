//! Everything OCI on the daemon's side: images, bundles, the client of the forge and of the keepers, and what
//! cgroups say. Nothing here knows the bus or the supervisor; the daemon converts between them.

pub mod bundle;
pub mod forge;
pub mod hands;
pub mod image;
pub mod keeper;
pub mod readiness;
pub mod seccomp;
pub mod stats;

pub use wharf_protocol::exit::{WaitStatus, exit_code};
pub use wharf_protocol::failpoint;
pub use wharf_protocol::{
    CreateFd, Exec, ExecFd, ExitRecord, FailureKind, Family, IdMap, Limits, Log, Rootfs, Stdin, TerminalSize,
    VERSION as PROTOCOL_VERSION,
};
