//! What happens becomes signals, on one connection: objects come and go, properties change, events are told.
//!
//! Every connection has its own task with its own bounded backlog. A peer that does not read would block an emit
//! for ever and thereby only its own task; it is then cut off, and nobody else notices.

use crate::api::Api;
use crate::bus::container::{self, ContainerObject};
use crate::bus::manager::ManagerObject;
use crate::bus::objects::ObjectManager;
use crate::view::Notice;
use anyhow::bail;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use wharf_bus::names;
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, connection};

/// How long a peer may leave its socket full before it is cut off.
const PATIENCE: Duration = Duration::from_secs(5);

/// The objects that exist now, on a connection that is about to be made. What happens from then on is in the
/// receiver.
pub fn serve<'a>(
    builder: connection::Builder<'a>,
    api: &Arc<Api>,
) -> (connection::Builder<'a>, broadcast::Receiver<Notice>) {
    // First listen, then look: what happens in between is seen twice, which does no harm.
    let notices = api.views.subscribe();
    let mut builder = builder
        .serve_at(names::ROOT, ObjectManager { api: api.clone() })
        .serve_at(names::ROOT, ManagerObject { api: api.clone() });
    for (path, object) in ContainerObject::all(api) {
        builder = builder.serve_at(path, object);
    }
    (builder, notices)
}

/// Pass on what happens until the connection ends. The reason is an error if it is ours to end it.
pub async fn publish(
    connection: &Connection,
    api: &Arc<Api>,
    mut notices: broadcast::Receiver<Notice>,
) -> anyhow::Result<()> {
    loop {
        let notice = tokio::select! {
            () = connection.closed() => return Ok(()),
            notice = notices.recv() => notice,
        };
        match notice {
            Ok(notice) => match tokio::time::timeout(PATIENCE, pass_on(connection, api, notice)).await {
                Ok(Ok(())) => {}
                // It has hung up; that is how most conversations end.
                Ok(Err(zbus::Error::InputOutput(error))) => {
                    tracing::debug!(%error, "a peer is gone");
                    return Ok(());
                }
                // Others need not hear of it less for that.
                Ok(Err(error)) => tracing::warn!(%error, "telling a peer what happened, ignoring"),
                Err(_) => bail!("the peer has not read its socket for {PATIENCE:?}"),
            },
            Err(RecvError::Lagged(missed)) => bail!("the peer reads too slowly: {missed} notices behind"),
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn pass_on(connection: &Connection, api: &Arc<Api>, notice: Notice) -> zbus::Result<()> {
    match notice {
        Notice::Added(view) => {
            // It may be gone again: then its Removed is already on the way.
            if let Some(object) = ContainerObject::new(api, &view.id) {
                let path = names::container_path(&view.id);
                ObjectManager::announce(connection, &path, &object).await?;
                connection.object_server().at(&path, object).await?;
            }
        }
        Notice::Changed { old, new } => {
            let path = names::container_path(&new.id);
            let emitter = SignalEmitter::new(connection, &path)?;
            let interface = InterfaceName::from_static_str_unchecked(names::CONTAINER_INTERFACE);
            let changed = container::changed(&old, &new);
            if !changed.is_empty() {
                Properties::properties_changed(&emitter, interface, changed, Cow::Borrowed(&[])).await?;
            }
        }
        Notice::Removed(view) => {
            let path = names::container_path(&view.id);
            // One that came and went at once was never an object.
            match connection.object_server().remove::<ContainerObject, _>(&path).await {
                Ok(_) => {}
                Err(zbus::Error::InterfaceNotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
            let emitter = SignalEmitter::new(connection, names::ROOT)?;
            ObjectManager::interfaces_removed(&emitter, path.into(), &[names::CONTAINER_INTERFACE]).await?;
        }
        Notice::Event(event) => {
            let emitter = SignalEmitter::new(connection, names::ROOT)?;
            ManagerObject::event(&emitter, &event).await?;
        }
        Notice::LoadProgress { source, layer, layers, done, size } => {
            let emitter = SignalEmitter::new(connection, names::ROOT)?;
            ManagerObject::load_progress(&emitter, &source, layer, layers, done, size).await?;
        }
    }
    Ok(())
}
