//! A message bus in name only, on the private socket: `gdbus` says Hello, watches and looks for names before anything
//! else, even where the other end is no bus. (`busctl` does too, but takes no signal before the answer.)

use wharf_bus::names::BUS_NAME;
use zbus::{fdo, interface};

/// Where tools look for the bus itself.
pub const PATH: &str = "/org/freedesktop/DBus";
/// The one peer's name; it has the connection to itself.
const PEER: &str = ":1.1";
/// Ours.
const SELF: &str = ":1.0";

/// `org.freedesktop.DBus`, as much of it as a peer can be told.
#[derive(Debug)]
pub struct Greeting;

#[interface(name = "org.freedesktop.DBus")]
impl Greeting {
    async fn hello(&self) -> &'static str {
        PEER
    }

    /// Every signal goes to every peer; who wants fewer does not listen.
    async fn add_match(&self, _rule: &str) {}

    async fn remove_match(&self, _rule: &str) {}

    async fn list_names(&self) -> Vec<&'static str> {
        vec!["org.freedesktop.DBus", BUS_NAME]
    }

    async fn list_activatable_names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    async fn name_has_owner(&self, name: &str) -> bool {
        owner(name).is_some()
    }

    async fn get_name_owner(&self, name: &str) -> fdo::Result<&'static str> {
        owner(name).ok_or_else(|| fdo::Error::NameHasNoOwner(format!("nobody here is called {name}")))
    }

    /// 2: it is running already.
    async fn start_service_by_name(&self, _name: &str, _flags: u32) -> u32 {
        2
    }
}

fn owner(name: &str) -> Option<&'static str> {
    match name {
        BUS_NAME | SELF => Some(SELF),
        "org.freedesktop.DBus" => Some("org.freedesktop.DBus"),
        PEER => Some(PEER),
        _ => None,
    }
}
