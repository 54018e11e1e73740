//! `ctl stop`: end containers in order.

use crate::quantity;
use crate::several::Containers;
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
    #[command(flatten)]
    grace: Grace,
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let timeout = self.grace.milliseconds();
        self.containers.for_each(socket, move |container| async move { container.stop(timeout).await }).await
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
