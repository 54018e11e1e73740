//! `ctl unpause`: let paused containers go on.

use crate::several::Containers;
use clap::Args;
use std::path::Path;

/// Let paused containers go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl unpause web")]
pub struct Arguments {
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        self.containers.for_each(socket, |container| async move { container.unpause().await }).await
    }
}
