//! `ctl update`: change limits while a container runs.

use crate::connection::Client;
use crate::container_flags::ResourceFlags;
use crate::several;
use anyhow::{Context, bail};
use clap::Args;
use std::path::Path;
use wharf_bus::spec::Resources;

const EXAMPLES: &str = "\
Limits that are not named stay as they are. They hold at once, and for later starts.

Examples:
  ctl update -m 128m web
  ctl update --cpus 2 --pids-limit 1000 web db";

/// Change the limits of containers, running or not
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    resources: ResourceFlags,
    /// Name, id, or unique beginning of an id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let resources = self.resources.resources();
        if resources == Resources::default() {
            bail!("no limit is given; try `ctl update -m 128m NAME`, or see `ctl update --help`");
        }
        let document = serde_json::to_string(&resources).context("writing the limits")?;
        let client = Client::connect(socket).await?;
        several::for_each(&self.containers, |name| {
            let (client, document) = (client.clone(), document.clone());
            async move {
                client.container(&name).await?.update(&document).await?;
                Ok(name)
            }
        })
        .await
    }
}
