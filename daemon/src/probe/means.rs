//! What it takes to reach into one run of a container.

use super::{Confinement, Trouble};
use parking_lot::Mutex;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::net::TcpSocket;
use wharf_oci::Family;
use wharf_oci::forge::{Forge, ForgeError};

/// Sockets that one request to the forge brings: a sixteenth of a fork for each probe, and at most some 60 kB of the
/// kernel's memory for each container that is probed.
const BATCH: u8 = 16;

/// What it takes to probe one run of a container. To be dropped with the run: prepared sockets keep its network
/// namespace alive.
#[derive(Debug)]
pub struct Means {
    network: Network,
    exec: Option<Confinement>,
}

#[derive(Debug)]
enum Network {
    /// Its own, which only the forge can enter.
    Container { forge: Forge, container: Arc<OwnedFd>, spare: Mutex<Spare> },
    /// Ours.
    Host,
}

/// Prepared sockets. Almost every probe takes the first kind.
#[derive(Debug, Default)]
struct Spare {
    ipv4: Vec<OwnedFd>,
    ipv6: Vec<OwnedFd>,
}

impl Spare {
    fn of(&mut self, family: Family) -> &mut Vec<OwnedFd> {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

impl Means {
    /// For a run with a network of its own, whose first process is `container`.
    pub fn new(forge: Forge, container: Arc<OwnedFd>) -> Self {
        let spare = Mutex::default();
        Self { network: Network::Container { forge, container, spare }, exec: None }
    }

    /// For a run in the host's network.
    pub fn in_host_network() -> Self {
        Self { network: Network::Host, exec: None }
    }

    /// With what exec probes need.
    pub fn with_exec(self, confinement: Confinement) -> Self {
        Self { exec: Some(confinement), ..self }
    }

    pub(super) fn exec(&self) -> Option<&Confinement> {
        self.exec.as_ref()
    }

    /// Have a socket at hand, so that the forge's time is not the container's.
    pub(super) async fn prepare(&self) -> Result<(), Trouble> {
        match &self.network {
            Network::Container { spare, .. } if spare.lock().ipv4.is_empty() => {
                let socket = self.take(Family::Ipv4).await?;
                spare.lock().ipv4.push(socket);
            }
            Network::Container { .. } | Network::Host => {}
        }
        Ok(())
    }

    /// A fresh socket in the run's network.
    pub(super) async fn socket(&self, family: Family) -> Result<TcpSocket, Trouble> {
        match &self.network {
            Network::Container { .. } => {
                Ok(TcpSocket::from_std_stream(TcpStream::from(self.take(family).await?)))
            }
            Network::Host => match family {
                Family::Ipv4 => TcpSocket::new_v4(),
                Family::Ipv6 => TcpSocket::new_v6(),
            }
            .map_err(|error| Trouble::Unknown(format!("making a socket: {error}"))),
        }
    }

    async fn take(&self, family: Family) -> Result<OwnedFd, Trouble> {
        let Network::Container { forge, container, spare } = &self.network else {
            return Err(Trouble::Unknown("the host's network has no sockets prepared".to_owned()));
        };
        if let Some(socket) = spare.lock().of(family).pop() {
            return Ok(socket);
        }
        let (forge, container) = (forge.clone(), container.clone());
        let asked = tokio::task::spawn_blocking(move || forge.sockets(container.as_fd(), family, BATCH));
        let made = asked.await.map_err(|error| Trouble::Unknown(format!("asking for sockets: {error}")))?;
        let mut made = made.map_err(|error| unanswered("making sockets", error))?;
        let socket = made.pop();
        let mut spare = spare.lock();
        let spare = spare.of(family);
        // Another probe may have asked at the same time.
        made.truncate(usize::from(BATCH).saturating_sub(spare.len()));
        spare.append(&mut made);
        socket.ok_or_else(|| Trouble::Unknown("the forge made no sockets".to_owned()))
    }
}

/// Whatever keeps the forge from doing it says nothing of the container.
pub(super) fn unanswered(doing: &str, error: ForgeError) -> Trouble {
    Trouble::Unknown(format!("{doing}: {:#}", anyhow::Error::from(error)))
}
