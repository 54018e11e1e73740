//! `ctl update`: change limits while a container runs.

use crate::container_flags::ResourceFlags;
use crate::several::Containers;
use anyhow::{Context, bail};
use clap::Args;
use std::path::Path;
use wharf_bus::proxy::ContainerProxy;
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
    #[command(flatten)]
    containers: Containers,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let resources = self.resources.resources();
        if resources == Resources::default() {
            bail!("no limit is given; try `ctl update -m 128m NAME`, or see `ctl update --help`");
        }
        let document = serde_json::to_string(&resources).context("writing the limits")?;
        let update = move |container: ContainerProxy<'static>| {
            let document = document.clone();
            async move { container.update(&document).await }
        };
        self.containers.for_each(socket, update).await
    }
}
