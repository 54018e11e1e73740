//! `ctl image`: the images in the store.

pub mod inspect;
pub mod load;
pub mod ls;
pub mod rm;
pub mod tag;

use clap::{Args, Subcommand};
use std::path::Path;

/// Load, list, inspect, name and remove images
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Load(load::Arguments),
    #[command(visible_alias = "list")]
    Ls(ls::Arguments),
    Inspect(inspect::Arguments),
    #[command(visible_alias = "remove")]
    Rm(rm::Arguments),
    Tag(tag::Arguments),
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        match self.action {
            Action::Load(arguments) => arguments.run(socket).await,
            Action::Ls(arguments) => arguments.run(socket).await,
            Action::Inspect(arguments) => arguments.run(socket).await,
            Action::Rm(arguments) => arguments.run(socket).await,
            Action::Tag(arguments) => arguments.run(socket).await,
        }
    }
}
