//! The D-Bus face: thin objects over [`crate::api::Api`], the same on the private socket and on the system bus.

pub mod container;
pub mod greeting;
pub mod manager;
pub mod objects;
pub mod private;
pub mod publish;
pub mod system;

use wharf_bus::Error;
use zbus::Connection;
use zbus::message::Header;

/// Who may call. The private socket has asked at the door; on the system bus it is root alone, for every method and
/// property, on top of the bus' own policy.
pub async fn authorise(connection: &Connection, header: &Header<'_>) -> Result<(), Error> {
    let Some(sender) = header.sender() else { return Ok(()) };
    if !connection.is_bus() {
        return Ok(());
    }
    let bus = zbus::fdo::DBusProxy::new(connection).await.map_err(Error::ZBus)?;
    let uid = bus
        .get_connection_unix_user(sender.to_owned().into())
        .await
        .map_err(|error| Error::AccessDenied(format!("the bus does not say who {sender} is: {error}")))?;
    if uid == 0 {
        return Ok(());
    }
    Err(Error::AccessDenied(format!("only root may control containers, not uid {uid}")))
}
