//! `ctl stop`: end containers in order.

use crate::connection::Client;
use crate::quantity;
use crate::several::Containers;
use clap::Args;
use std::path::Path;
use std::time::Duration;

const EXAMPLES: &str = "\
Sends the stop signal, waits, then kills what is left. Returns when it has ended; one that does not run is no \
error. With --all, containers that require others stop before these.

Examples:
  ctl stop web db
  ctl stop -t 0 web        at once
  ctl stop -t 1m web
  ctl stop --all";

/// Stop containers: stop signal, grace period, kill
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    grace: Grace,
    /// Stop every container
    #[arg(short, long)]
    all: bool,
    /// Name, id, or unique beginning of an id
    #[arg(
        id = "containers",
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "CONTAINER"
    )]
    names: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let timeout = self.grace.milliseconds();
        if self.all {
            Client::connect(socket).await?.manager().await?.stop_all(timeout).await?;
            return Ok(0);
        }
        let containers = Containers { names: self.names };
        containers.for_each(socket, move |container| async move { container.stop(timeout).await }).await
    }
}

/// How long a container may take to end.
#[derive(Debug, Args)]
pub struct Grace {
    /// Seconds from the stop signal to the kill, also 0.5 or 1m [default: the container's, 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = quantity::duration)]
    time: Option<Duration>,
}

impl Grace {
    /// As the bus has it: -1 for the container's own.
    pub fn milliseconds(&self) -> i64 {
        self.time.map_or(-1, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
    }
}
