//! The private socket: D-Bus without a bus, for root on this host. Works where no bus daemon runs, and when it dies.

use crate::api::Api;
use crate::bus::{greeting, publish};
use anyhow::Context;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use zbus::{Guid, connection};

/// A peer that has not authenticated by then is sent away.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Listen at `path`, mode 0600; the directory is 0700 and ours. A socket that a dead wharfd left is replaced: the
/// store's lock says that no other one lives.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("replacing {}", path.display())),
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serve all who may come, at most `bound` at a time, for ever.
pub async fn serve(listener: UnixListener, api: Arc<Api>, bound: usize) {
    let places = Arc::new(Semaphore::new(bound));
    let mut peers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = peers.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting on the private socket, ignoring");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(bound, "too many connections to the private socket, closing the newest");
            continue;
        };
        let api = api.clone();
        peers.spawn(async move {
            if let Err(error) = serve_peer(stream, &api).await {
                tracing::info!(error = %format!("{error:#}"), "a peer of the private socket was cut off");
            }
            drop(place);
        });
    }
}

async fn serve_peer(stream: UnixStream, api: &Arc<Api>) -> anyhow::Result<()> {
    admit(&stream, &api.paths.cgroup_root)?;
    let builder = connection::Builder::unix_stream(stream.into_std()?).server(Guid::generate()).p2p();
    let builder = builder.serve_at(greeting::PATH, greeting::Greeting);
    let (builder, notices) = publish::serve(builder, api);
    let connection = tokio::time::timeout(HANDSHAKE, builder.build())
        .await
        .with_context(|| format!("no handshake within {HANDSHAKE:?}"))?
        .context("handshake")?;
    let outcome = publish::publish(&connection, api, notices).await;
    // Not `close().await`: that waits for the peer to take what is queued.
    drop(connection);
    outcome
}

/// Root or our own user, and not from within one of our containers.
fn admit(stream: &UnixStream, cgroup_root: &str) -> anyhow::Result<()> {
    let credentials = stream.peer_cred().context("who is it?")?;
    let own = nix::unistd::geteuid().as_raw();
    if credentials.uid() != 0 && credentials.uid() != own {
        anyhow::bail!("uid {} may not use the private socket", credentials.uid());
    }
    if let Some(pid) = credentials.pid() {
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let ours = format!("{cgroup_root}/");
        if cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| path.starts_with(&ours)) {
            anyhow::bail!("pid {pid} runs in a container");
        }
    }
    Ok(())
}
