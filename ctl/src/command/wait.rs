//! `ctl wait`: wait for containers to end.

use crate::connection::Client;
use crate::foreground;
use crate::several::{self, Containers};
use clap::Args;
use std::path::Path;

/// Wait for containers to end, and print their exit codes
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one code a line, in the order of the names. ctl itself exits with 0 if all could be waited for.\n\nExample:\n  test \"$(ctl wait job)\" = 0 || ctl logs job"
)]
pub struct Arguments {
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        several::for_each(&self.containers.names, |name| {
            let client = client.clone();
            async move {
                let container = client.container(&name).await?;
                Ok(foreground::wait(client, container).await?.to_string())
            }
        })
        .await
    }
}
