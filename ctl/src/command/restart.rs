//! `ctl restart`: stop and start again.

use super::stop::milliseconds;
use crate::connection::Client;
use crate::quantity;
use crate::several;
use clap::Args;
use std::path::Path;
use std::time::Duration;

/// Stop containers, if they run, and start them again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl restart -t 2 web")]
pub struct Arguments {
    /// Seconds from the stop signal to the kill, also 0.5 or 1m [default: the container's, 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = quantity::duration)]
    time: Option<Duration>,
    /// Name, id, or unique beginning of an id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let timeout = milliseconds(self.time);
        several::for_each(&self.containers, |name| {
            let client = client.clone();
            async move {
                client.container(&name).await?.restart(timeout).await?;
                Ok(name)
            }
        })
        .await
    }
}
