//! `ctl create`: make a container without starting it.

use super::run::warn;
use crate::connection::Client;
use crate::container_flags::ContainerFlags;
use crate::id_file::IdFile;
use crate::output;
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use wharf_bus::names;

const EXAMPLES: &str = "\
Prints the container's id. `ctl start` starts it.

Examples:
  ctl create --name web -m 64m wharf/demo
  ctl start -a web";

/// Create a container without starting it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_flag = true,
    override_usage = "ctl create [OPTIONS] IMAGE [COMMAND [ARG]...]\n       ctl create [OPTIONS] --rootfs DIR [COMMAND [ARG]...]")]
pub struct Arguments {
    /// Write its id to this file, which must not exist yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    #[command(flatten)]
    container: ContainerFlags,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let id_file = self.cidfile.as_deref().map(IdFile::create).transpose()?;
        let document = serde_json::to_string(&self.container.spec()?).context("writing the spec document")?;
        let client = Client::connect(socket).await?;
        let path = client.manager().await?.create(&document).await?;
        let id = names::container_id(&path).context("wharfd returned no container")?.to_owned();
        if let Some(file) = id_file {
            file.keep(&id)?;
        }
        warn(&client.container_at(path).await?).await;
        output::line(&id)?;
        Ok(0)
    }
}
