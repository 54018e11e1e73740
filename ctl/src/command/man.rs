//! `ctl man`: the manual pages, for packaging.

use crate::cli::Cli;
use anyhow::Context;
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub struct Arguments {
    /// Directory, made if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Arguments {
    /// Carry it out.
    pub fn run(self) -> anyhow::Result<u8> {
        let shown = self.directory.display().to_string();
        std::fs::create_dir_all(&self.directory).with_context(|| format!("making {shown}"))?;
        clap_mangen::generate_to(Cli::command(), &self.directory)
            .with_context(|| format!("writing to {shown}"))?;
        Ok(0)
    }
}
