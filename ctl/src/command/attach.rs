//! `ctl attach`: connect to a running container.

use crate::connection::Client;
use crate::foreground::{self, Manners};
use crate::terminal;
use clap::Args;
use std::path::Path;
use wharf_bus::types::AttachOptions;

const EXAMPLES: &str = "\
Shows output from now on; `ctl logs` has what came before. ctl's exit code is the container's, or 0 after the \
detach keys.

Examples:
  ctl attach web
  ctl attach --no-stdin --sig-proxy=false web    only watch; ctrl-c leaves";

/// Connect to a running container's streams
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    manners: Manners,
    /// Name, id, or unique beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        foreground::join(
            client,
            &self.container,
            !self.no_stdin,
            self.manners,
            async |container, has_terminal, stdin| {
                let streams = container.attach(AttachOptions { stdin }).await?;
                if has_terminal && let Some((rows, columns)) = terminal::size() {
                    // A program redraws its screen when the size changes, and only then.
                    container.resize(rows.saturating_add(1), columns).await?;
                    container.resize(rows, columns).await?;
                }
                Ok(streams)
            },
        )
        .await
    }
}
