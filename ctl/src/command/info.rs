//! `ctl info`: what wharfd runs on.

use crate::connection::Client;
use crate::output;
use crate::template::Format;
use clap::Args;
use serde_json::{Map, Value};
use std::path::Path;

/// Show what wharfd runs on: versions, cgroup mode, directories, resources
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ctl info\n  ctl info --format '{{.cgroupMode}}'")]
pub struct Arguments {
    /// table, json, or a template such as '{{.kernel}}'
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let mut fields: Vec<(String, String)> = client.manager().await?.info().await?.into_iter().collect();
        fields.push(("socket".to_owned(), socket.display().to_string()));
        fields.push(("ctlVersion".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        fields.sort();
        let record: Map<String, Value> =
            fields.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
        let record = Value::Object(record);
        match &self.format {
            Format::Json => output::line(&serde_json::to_string_pretty(&record)?)?,
            Format::Template(template) => {
                output::line(&template.render(&record).map_err(anyhow::Error::msg)?)?
            }
            Format::Table => {
                let width = fields.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
                let text: String = fields
                    .iter()
                    .map(|(key, value)| format!("{:<width$}  {value}\n", format!("{key}:")))
                    .collect();
                output::write(&text)?;
            }
        }
        Ok(0)
    }
}
