//! `ctl kill`: send a signal.

use crate::several::Containers;
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
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let signal = self.signal;
        self.containers.for_each(socket, move |container| async move { container.kill(signal).await }).await
    }
}
