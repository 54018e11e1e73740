//! `ctl unpause`: let paused containers go on.

use crate::connection::Client;
use crate::several;
use clap::Args;
use std::path::Path;

/// Let paused containers go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl unpause web")]
pub struct Arguments {
    /// Name, id, or unique beginning of an id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        several::for_each(&self.containers, |name| {
            let client = client.clone();
            async move {
                client.container(&name).await?.unpause().await?;
                Ok(name)
            }
        })
        .await
    }
}
