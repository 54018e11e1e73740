//! `ctl rm`: remove containers.

use crate::connection::Client;
use crate::failure;
use crate::several;
use clap::Args;
use std::path::Path;
use wharf_bus::types::RemoveOptions;

/// Remove containers with their files and logs
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ctl rm web\n  ctl rm -f $(ctl ps -aq)    every container, running or not"
)]
pub struct Arguments {
    /// Kill it first if it runs; a name that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Name, id, or unique beginning of an id
    #[arg(required_unless_present = "force", value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let force = self.force;
        // One that others require goes after them.
        several::for_each_in_turn(&self.containers, |name| {
            let client = client.clone();
            async move {
                match remove(&client, &name, force).await {
                    Ok(()) => Ok(name),
                    Err(error) if force && is_gone(&error) => Ok(String::new()),
                    Err(error) => Err(error),
                }
            }
        })
        .await
    }
}

async fn remove(client: &Client, name: &str, force: bool) -> anyhow::Result<()> {
    Ok(client.container(name).await?.remove(RemoveOptions { force }).await?)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<wharf_bus::Error>().is_some_and(failure::is_gone)
}
