//! `ctl stop`: end containers in order.

use crate::connection::Client;
use crate::quantity;
use crate::several;
use clap::Args;
use std::path::Path;
use std::time::Duration;

const EXAMPLES: &str = "\
Sends the stop signal, waits, then kills what is left. Returns when it has ended; one that does not run is no \
error.

Examples:
  ctl stop web db
  ctl stop -t 0 web        at once
  ctl stop -t 1m web";

/// Stop containers: stop signal, grace period, kill
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
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
                client.container(&name).await?.stop(timeout).await?;
                Ok(name)
            }
        })
        .await
    }
}

/// As the bus has it: -1 for the container's own.
pub fn milliseconds(time: Option<Duration>) -> i64 {
    time.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
