//! `ctl version`: of ctl and of the daemon that it talks to.

use crate::connection::Client;
use crate::failure;
use crate::output;
use crate::template::Format;
use clap::Args;
use serde_json::json;
use std::path::Path;

/// Show the versions of ctl and wharfd
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 if wharfd cannot be asked.\n\nExample:\n  ctl version --format '{{.Daemon}}'"
)]
pub struct Arguments {
    /// table, json, or a template with the fields Client and Daemon
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let ours = env!("CARGO_PKG_VERSION");
        let daemon = daemon_version(socket).await;
        let theirs = daemon.as_deref().ok();
        match &self.format {
            Format::Table => {
                output::line(&format!("ctl     {ours}"))?;
                if let Some(theirs) = theirs {
                    output::line(&format!("wharfd  {theirs}"))?;
                }
            }
            Format::Json => output::line(&json!({"Client": ours, "Daemon": theirs}).to_string())?,
            Format::Template(template) => {
                let record = json!({"Client": ours, "Daemon": theirs});
                output::line(&template.render(&record).map_err(anyhow::Error::msg)?)?;
            }
        }
        match daemon {
            Ok(_) => Ok(0),
            Err(error) => {
                output::say(&failure::message(&error));
                Ok(1)
            }
        }
    }
}

async fn daemon_version(socket: &Path) -> anyhow::Result<String> {
    Ok(Client::connect(socket).await?.manager().await?.version().await?)
}
