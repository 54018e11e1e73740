//! `ctl start`: start containers that were created or have ended.

use crate::connection::Client;
use crate::foreground::{self, Manners};
use crate::several::Containers;
use anyhow::bail;
use clap::Args;
use std::path::Path;
use wharf_bus::proxy::ContainerProxy;
use wharf_bus::types::StartOptions;

const EXAMPLES: &str = "\
Examples:
  ctl start web db       start two containers, print their names
  ctl start -a web       start one and see its output; ctl's exit code is the container's
  ctl start -ai shell    and talk to it";

/// Start containers that were created or have ended
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Show its output from the first byte on, and exit with its code
    #[arg(short, long)]
    pub attach: bool,
    /// Pass standard input on, with -a; the container must have been created with -i
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    manners: Manners,
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        if !self.attach && !self.interactive {
            let start = |container: ContainerProxy<'static>| async move {
                container.start(StartOptions::default()).await
            };
            return self.containers.for_each(socket, start).await;
        }
        let [name] = self.containers.names.as_slice() else {
            bail!("-a and -i show one container at a time; give one name, or leave them out");
        };
        let client = Client::connect(socket).await?;
        foreground::join(client, name, self.interactive, self.manners, async |container, terminal, stdin| {
            Ok(container.start(foreground::attached(terminal, stdin)).await?)
        })
        .await
    }
}
