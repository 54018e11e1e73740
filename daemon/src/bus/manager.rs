//! `org.wharf1.Manager`.

use crate::api::Api;
use crate::bus::authorise;
use crate::bus::container::ContainerObject;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use wharf_bus::types::{EventRecord, ImageInfo, LoadOptions, LoadedImage, StartOptions, Streams};
use wharf_bus::{Error, names};
use zbus::message::Header;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::wire::{OwnedFd, OwnedObjectPath, OwnedVariant};
use zbus::{Connection, ObjectServer, interface};

/// The object at `/org/wharf1`.
#[derive(Debug)]
pub struct ManagerObject {
    /// What it is a face of.
    pub api: Arc<Api>,
}

impl ManagerObject {
    /// The container's object is there before its path is told.
    async fn object(&self, connection: &Connection, id: &str) -> Result<OwnedObjectPath, Error> {
        let path = names::container_path(id);
        if let Some(object) = ContainerObject::new(&self.api, id) {
            connection.object_server().at(&path, object).await.map_err(Error::ZBus)?;
        }
        Ok(path)
    }
}

#[interface(name = "org.wharf1.Manager")]
impl ManagerObject {
    /// Create a container from a spec document (JSON) and start it.
    #[zbus(out_args("container", "streams"))]
    async fn run(
        &self,
        spec: &str,
        options: StartOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(OwnedObjectPath, Streams), Error> {
        authorise(connection, &header).await?;
        let (id, streams) = self.api.run(spec, options).await?;
        Ok((self.object(connection, &id).await?, streams))
    }

    /// Create a container from a spec document (JSON).
    #[zbus(out_args("container"))]
    async fn create(
        &self,
        spec: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        authorise(connection, &header).await?;
        let id = self.api.create(spec).await?;
        self.object(connection, &id).await
    }

    /// The container with this name, id, or unique prefix of an id.
    #[zbus(out_args("container"))]
    async fn get_container(
        &self,
        name: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        authorise(connection, &header).await?;
        let view = self.api.find(name)?;
        self.object(connection, &view.id).await
    }

    /// Every container with these of its properties, or with all if none is named.
    #[zbus(out_args("containers"))]
    async fn list_containers(
        &self,
        properties: Vec<String>,
        #[zbus(object_server)] server: &ObjectServer,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<(OwnedObjectPath, HashMap<String, OwnedVariant>)>, Error> {
        authorise(connection, &header).await?;
        let mut containers = Vec::new();
        for (path, object) in ContainerObject::all(&self.api) {
            let emitter = SignalEmitter::new(connection, &path).map_err(Error::ZBus)?;
            let mut found = HashMap::with_capacity(properties.len());
            if properties.is_empty() {
                let all = object.get_all(server, connection, Some(&header), &emitter).await;
                found = all.map_err(|error| Error::Failed(format!("reading properties: {error}")))?;
            }
            for name in &properties {
                let Some(value) = object.get(name, server, connection, Some(&header), &emitter).await else {
                    return Err(Error::InvalidArgument(format!("properties: a container has no {name:?}")));
                };
                let value = value.map_err(|error| Error::Failed(format!("{name}: {error}")))?;
                found.insert(name.clone(), value);
            }
            containers.push((path, found));
        }
        Ok(containers)
    }

    /// Load images from an OCI layout (directory or tar) or a docker-archive. What was loaded is as in `ListImages`,
    /// with `notes` on what of it was left out, if anything was.
    #[zbus(out_args("images"))]
    async fn load_image(
        &self,
        source: OwnedFd,
        options: LoadOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<LoadedImage>, Error> {
        authorise(connection, &header).await?;
        let source = source.as_fd().try_clone_to_owned().map_err(|error| Error::Failed(error.to_string()))?;
        self.api.load_image(source, options).await
    }

    /// Every image in the store.
    #[zbus(out_args("images"))]
    async fn list_images(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<ImageInfo>, Error> {
        authorise(connection, &header).await?;
        self.api.list_images().await
    }

    /// Config, manifest and more of an image, as JSON.
    #[zbus(out_args("document"))]
    async fn inspect_image(
        &self,
        name: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        authorise(connection, &header).await?;
        self.api.inspect_image(name).await
    }

    /// Remove a name, and the image with its last name.
    #[zbus(out_args("removed"))]
    async fn remove_image(
        &self,
        name: &str,
        force: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        authorise(connection, &header).await?;
        self.api.remove_image(name, force).await
    }

    /// Give an image one more name.
    async fn tag_image(
        &self,
        name: &str,
        new_name: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.tag_image(name, new_name).await
    }

    /// The events kept since this sequence number (exclusive), oldest first.
    #[zbus(out_args("events"))]
    async fn events_since(
        &self,
        sequence: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<EventRecord>, Error> {
        authorise(connection, &header).await?;
        Ok(self.api.events.since(sequence))
    }

    /// Stop every container, those that require others before these.
    async fn stop_all(
        &self,
        timeout: i64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        authorise(connection, &header).await?;
        self.api.stop_all(timeout).await
    }

    /// What the daemon runs on.
    #[zbus(out_args("info"))]
    async fn info(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<HashMap<String, String>, Error> {
        authorise(connection, &header).await?;
        Ok(self.api.info())
    }

    /// Something happened; the event's `kind` says what. A kill for want of memory is the kind `oom`.
    #[zbus(signal)]
    pub async fn event(emitter: &SignalEmitter<'_>, event: &EventRecord) -> zbus::Result<()>;

    /// How far a load has come.
    #[zbus(signal)]
    pub async fn load_progress(
        emitter: &SignalEmitter<'_>,
        source: &str,
        layer: u32,
        layers: u32,
        done: u64,
        size: u64,
    ) -> zbus::Result<()>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// How many containers there are.
    #[zbus(property(emits_changed_signal = "false"))]
    fn containers(&self) -> u32 {
        u32::try_from(self.api.views.count()).unwrap_or(u32::MAX)
    }
}
