//! `ctl kill`: send a signal.

use crate::connection::Client;
use crate::several;
use crate::signal;
use clap::Args;
use std::path::Path;

/// Send a signal to the main process of containers
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl kill web            end it now\n  ctl kill -s HUP web     let it read its configuration again"
)]
pub struct Arguments {
    /// Signal, by name (HUP, SIGHUP) or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal::parse)]
    signal: i32,
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
                client.container(&name).await?.kill(self.signal).await?;
                Ok(name)
            }
        })
        .await
    }
}
