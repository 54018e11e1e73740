//! `ctl image inspect`: everything about images.

use crate::command::inspect::show;
use crate::connection::Client;
use crate::failure;
use crate::output;
use crate::template::Format;
use anyhow::Context;
use clap::Args;
use serde_json::Value;
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
        let mut records: Vec<Value> = Vec::new();
        let mut code = 0;
        for name in &self.images {
            match inspect(&client, name).await {
                Ok(record) => records.push(record),
                Err(error) => {
                    output::say(&failure::message(&error));
                    code = 1;
                }
            }
        }
        show(&self.format, &records)?;
        Ok(code)
    }
}

async fn inspect(client: &Client, name: &str) -> anyhow::Result<Value> {
    let text = client.manager().await?.inspect_image(name).await?;
    serde_json::from_str(&text).context("wharfd's answer is no JSON")
}
