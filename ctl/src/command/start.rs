//! `ctl start`: start containers that were created or have ended.

use crate::connection::Client;
use crate::foreground::{Caught, Exits, Foreground};
use crate::several;
use crate::terminal::{self, DetachKeys};
use anyhow::bail;
use clap::{ArgAction, Args};
use std::path::Path;
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
    /// Keys that leave it running, with -ai on a terminal; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Pass ctl's signals on to it, with -a
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
    /// Name, id, or unique beginning of an id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        if !self.attach && !self.interactive {
            return several::for_each(&self.containers, |name| {
                let client = client.clone();
                async move {
                    client.container(&name).await?.start(StartOptions::default()).await?;
                    Ok(name)
                }
            })
            .await;
        }
        let [name] = self.containers.as_slice() else {
            bail!("-a and -i show one container at a time; give one name, or leave them out");
        };
        let container = client.container(name).await?;
        let id = container.id().await?;
        let spec = wharf_bus::Spec::parse(&container.spec().await?)?;
        let interactive = self.interactive && spec.stdin;
        terminal::require(interactive, spec.terminal)?;
        let mut caught = Caught::new()?;
        let exits = Exits::watch(&client).await?;
        let size = if spec.terminal { terminal::size() } else { None };
        let options = StartOptions {
            attach: true,
            stdin: interactive,
            rows: size.map(|(rows, _)| rows),
            columns: size.map(|(_, columns)| columns),
        };
        let streams = container.start(options).await?;
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
