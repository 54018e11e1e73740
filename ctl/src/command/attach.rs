//! `ctl attach`: connect to a running container.

use crate::connection::Client;
use crate::foreground::{Caught, Exits, Foreground};
use crate::terminal::{self, DetachKeys};
use clap::{ArgAction, Args};
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
    /// Keys that leave it running, on a terminal; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Pass ctl's signals on to it
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
    /// Name, id, or unique beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let container = client.container(&self.container).await?;
        let id = container.id().await?;
        let spec = wharf_bus::Spec::parse(&container.spec().await?)?;
        let interactive = spec.stdin && !self.no_stdin;
        terminal::require(interactive, spec.terminal)?;
        let mut caught = Caught::new()?;
        let exits = Exits::watch(&client).await?;
        let streams = container.attach(AttachOptions { stdin: interactive }).await?;
        if spec.terminal
            && let Some((rows, columns)) = terminal::size()
        {
            // A program redraws its screen when the size changes, and only then.
            container.resize(rows.saturating_add(1), columns).await?;
            container.resize(rows, columns).await?;
        }
        let foreground = Foreground {
            client,
            container,
            id,
            streams,
            exits,
            interactive,
            detach_keys: self.detach_keys,
            sig_proxy: self.sig_proxy,
            ours: false,
            private: false,
        };
        Ok(foreground.attend(&mut caught).await?.code())
    }
}
