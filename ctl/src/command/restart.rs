//! `ctl restart`: stop and start again.

use super::stop::Grace;
use crate::several::Containers;
use clap::Args;
use std::path::Path;

/// Stop containers, if they run, and start them again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ctl restart -t 2 web")]
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
        self.containers
            .for_each(socket, move |container| async move { container.restart(timeout).await })
            .await
    }
}
