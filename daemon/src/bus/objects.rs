//! `org.freedesktop.DBus.ObjectManager`: all containers with all properties in one answer, and signals when they come
//! and go.
//!
//! Not zbus' own, which announces every object that exists to every new connection: with 1,000 containers that was 2 MB and
//! 35 ms for each call of ctl.

use crate::api::Api;
use crate::bus::authorise;
use crate::bus::container::ContainerObject;
use std::collections::HashMap;
use std::sync::Arc;
use wharf_bus::{Error, names};
use zbus::message::Header;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::wire::{ObjectPath, OwnedObjectPath, OwnedVariant};
use zbus::{Connection, ObjectServer, interface};

/// By interface, then by name.
type Properties = HashMap<&'static str, HashMap<String, OwnedVariant>>;

/// At `/org/wharf1`, beside the Manager.
#[derive(Debug)]
pub struct ObjectManager {
    /// What it is a face of.
    pub api: Arc<Api>,
}

impl ObjectManager {
    /// Say that this container has come. Nobody misses one that is gone again.
    pub async fn announce(
        connection: &Connection,
        path: &OwnedObjectPath,
        object: &ContainerObject,
    ) -> zbus::Result<()> {
        let properties = properties(object, connection.object_server(), connection, path).await?;
        let emitter = SignalEmitter::new(connection, names::ROOT)?;
        Self::interfaces_added(&emitter, path.as_ref(), properties).await
    }
}

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl ObjectManager {
    /// Every container with its properties.
    async fn get_managed_objects(
        &self,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<HashMap<OwnedObjectPath, Properties>, Error> {
        authorise(connection, &header).await?;
        let mut objects = HashMap::new();
        for (path, object) in ContainerObject::all(&self.api) {
            let properties = properties(&object, server, connection, &path).await.map_err(Error::ZBus)?;
            objects.insert(path, properties);
        }
        Ok(objects)
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: Properties,
    ) -> zbus::Result<()>;

    /// A container has gone.
    #[zbus(signal)]
    pub async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: &[&str],
    ) -> zbus::Result<()>;
}

async fn properties(
    object: &ContainerObject,
    server: &ObjectServer,
    connection: &Connection,
    path: &OwnedObjectPath,
) -> zbus::Result<Properties> {
    let emitter = SignalEmitter::new(connection, path)?;
    let properties = object.get_all(server, connection, None, &emitter).await?;
    Ok(HashMap::from([(names::CONTAINER_INTERFACE, properties)]))
}
