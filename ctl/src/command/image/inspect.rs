//! `ctl image inspect`: everything about images.

use crate::command::inspect::show_each;
use crate::connection::Client;
use crate::template::Format;
use anyhow::Context;
use clap::Args;
use std::path::Path;

/// Show everything about images
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl image inspect wharf/demo\n  ctl image inspect -f '{{json .config}}' wharf/demo"
)]
pub struct Arguments {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT", default_value = "json", value_parser = Format::parse)]
    format: Format,
    /// Name, or id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        show_each(&self.format, &self.images, async |name| {
            let text = client.manager().await?.inspect_image(name).await?;
            serde_json::from_str(&text).context("wharfd's answer is no JSON")
        })
        .await
    }
}
