//! Names on the bus, and object paths.

use zbus::wire::{ObjectPath, OwnedObjectPath};

/// The well-known name on the system bus.
pub const BUS_NAME: &str = "org.wharf1";
/// The object that has `org.wharf1.Manager` and the ObjectManager.
pub const ROOT: &str = "/org/wharf1";
/// Containers are children of this path.
pub const CONTAINERS: &str = "/org/wharf1/container";
/// `org.wharf1.Manager`.
pub const MANAGER_INTERFACE: &str = "org.wharf1.Manager";
/// `org.wharf1.Container`.
pub const CONTAINER_INTERFACE: &str = "org.wharf1.Container";
/// The default private socket; an instance with `--runtime-dir DIR` listens on `DIR/private`.
pub const PRIVATE_SOCKET: &str = "/run/wharf/private";

/// The object of the container with this id (64 hexadecimal digits, so nothing needs escaping).
#[expect(clippy::expect_used, reason = "impossible, as the text says")]
pub fn container_path(id: &str) -> OwnedObjectPath {
    OwnedObjectPath::try_from(format!("{CONTAINERS}/{id}")).expect("an id is hexadecimal")
}

/// The id of the container behind an object path, if it is one.
pub fn container_id<'a>(path: &'a ObjectPath<'_>) -> Option<&'a str> {
    path.as_str().strip_prefix(CONTAINERS)?.strip_prefix('/').filter(|id| !id.contains('/'))
}
