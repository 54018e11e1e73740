//! An instance for one client: it lives as long as its standard input is open, and nothing of it outlives that.
//!
//! The other end of standard input is the client's. The kernel closes it however the client ends, also by SIGKILL.

use crate::api::Api;
use crate::paths::Paths;
use crate::runtime::remove_tree;
use anyhow::Context;
use std::io::Read;
use wharf_oci::forge::Forge;

/// Return when nobody holds the other end of standard input any more.
pub async fn client_gone() -> &'static str {
    let closed = tokio::task::spawn_blocking(|| {
        let mut stdin = std::io::stdin().lock();
        // What is sent has no meaning, and an error is an end as well.
        while stdin.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    let _ = closed.await;
    "the client has gone"
}

/// Remove every container, and the cgroup that they were in.
pub async fn empty(api: &Api, forge: &Forge, paths: &Paths) -> anyhow::Result<()> {
    for view in api.views.all() {
        let removed = api.remove(&view.id, true).await;
        if let Err(error) = removed
            // With `remove` it may have gone by itself meanwhile.
            && api.views.get(&view.id).is_some()
        {
            tracing::warn!(container = %view.name, %error, "removing, its cgroup is killed instead");
        }
    }
    let (forge, cgroup) = (forge.clone(), paths.cgroup_root.clone());
    let removed = tokio::task::spawn_blocking(move || forge.remove_cgroup(&cgroup)).await?;
    removed.with_context(|| format!("removing cgroup {}", paths.cgroup_root))
}

/// Remove both directories; to be done when nobody else uses them.
pub fn remove_directories(paths: &Paths) -> anyhow::Result<()> {
    remove_tree(&paths.state).and(remove_tree(&paths.runtime))
}
