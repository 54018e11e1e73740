//! `ctl image tag`: one more name.

use crate::connection::Client;
use clap::Args;
use std::path::Path;

/// Give an image one more name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl image tag busybox:latest busybox:known-good")]
pub struct Arguments {
    /// Name, or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The further name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        Client::connect(socket).await?.manager().await?.tag_image(&self.image, &self.name).await?;
        Ok(0)
    }
}
