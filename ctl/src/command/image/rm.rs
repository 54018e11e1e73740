//! `ctl image rm`: remove images.

use crate::connection::Client;
use crate::several;
use clap::Args;
use std::path::Path;

/// Remove names of images, and images with their last name
#[derive(Debug, Args)]
#[command(
    after_help = "Prints what was removed. An image that a container uses stays.\n\nExample:\n  ctl image rm busybox:latest"
)]
pub struct Arguments {
    /// Remove all names of an image at once
    #[arg(short, long)]
    force: bool,
    /// Name, or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let force = self.force;
        several::for_each(&self.images, |name| {
            let client = client.clone();
            async move { Ok(client.manager().await?.remove_image(&name, force).await?.join("\n")) }
        })
        .await
    }
}
