//! The way to wharfd: peer-to-peer on its private socket, without a bus in between.

use crate::failure::NoDaemon;
use anyhow::Context;
use std::collections::HashMap;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use wharf_bus::names;
use wharf_bus::proxy::{ContainerProxy, ManagerProxy};
use zbus::export::futures_core::Stream;
use zbus::fdo::PropertiesProxy;
use zbus::message::Message;
use zbus::names::InterfaceName;
use zbus::proxy::CacheProperties;
use zbus::wire::{ObjectPath, OwnedObjectPath};
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant};

/// Signals that may wait while ctl does something else; a load announces a few thousand steps at most.
const QUEUED_SIGNALS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).expect("4096 is not zero");

/// A connection to wharfd.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it listens.
    pub socket: PathBuf,
    connection: Connection,
}

impl Client {
    /// Connect, or say why not and what to do.
    pub async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).map_err(|cause| NoDaemon { socket: socket.to_owned(), cause })?;
        let connection = zbus::connection::Builder::unix_stream(stream)
            .p2p()
            .build()
            .await
            .with_context(|| format!("talking to {}", socket.display()))?;
        Ok(Self { socket: socket.to_owned(), connection })
    }

    /// `org.wharf1.Manager`.
    pub async fn manager(&self) -> anyhow::Result<ManagerProxy<'static>> {
        // A cache would cost a GetAll and a match rule; ctl asks for each thing once.
        Ok(ManagerProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?)
    }

    /// The container with this name, id or prefix of an id.
    pub async fn container(&self, name: &str) -> anyhow::Result<ContainerProxy<'static>> {
        let path = self.manager().await?.get_container(name).await?;
        self.container_at(path).await
    }

    /// The container behind an object path.
    pub async fn container_at(&self, path: OwnedObjectPath) -> anyhow::Result<ContainerProxy<'static>> {
        Ok(ContainerProxy::builder(&self.connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?)
    }

    /// Every property of a container.
    pub async fn properties(&self, path: &ObjectPath<'_>) -> anyhow::Result<HashMap<String, OwnedVariant>> {
        let proxy = PropertiesProxy::builder(&self.connection)
            .destination(names::BUS_NAME)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let interface = InterfaceName::from_static_str(names::CONTAINER_INTERFACE)?;
        Ok(proxy.get_all(interface).await.map_err(zbus::Error::from)?)
    }

    /// The Manager's signals of this name, from now on.
    pub async fn signals(&self, member: &'static str) -> anyhow::Result<Signals> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .path(names::ROOT)
            .interface(names::MANAGER_INTERFACE)
            .member(member)
            .build()?;
        Ok(Signals(MessageStream::for_match_rule(rule, &self.connection, Some(QUEUED_SIGNALS)).await?))
    }
}

/// A stream of signals.
#[derive(Debug)]
pub struct Signals(MessageStream);

impl Signals {
    /// The next one; none when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        match poll_fn(|context| Pin::new(&mut self.0).poll_next(context)).await {
            Some(Ok(message)) => Some(message),
            Some(Err(_)) | None => None,
        }
    }
}
