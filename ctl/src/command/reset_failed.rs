//! `ctl reset-failed`: forget what containers were given up for.

use crate::connection::Client;
use crate::several;
use clap::Args;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  ctl reset-failed web                  forget its restarts and starts, so that no limit keeps it from starting
  ctl reset-failed web && ctl start web and start it";

/// Forget the restarts of containers that were given up; does not start them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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
                client.container(&name).await?.reset_failed().await?;
                Ok(name)
            }
        })
        .await
    }
}
