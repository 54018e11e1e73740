//! `ctl pause`: freeze every process of containers.

use crate::several::Containers;
use clap::Args;
use std::path::Path;

/// Freeze every process of containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl pause web")]
pub struct Arguments {
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        self.containers.for_each(socket, |container| async move { container.pause().await }).await
    }
}
