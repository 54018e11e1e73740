//! `ctl inspect`: everything about containers.

use crate::connection::Client;
use crate::failure;
use crate::output;
use crate::record;
use crate::template::Format;
use clap::Args;
use serde_json::Value;
use std::path::Path;

const EXAMPLES: &str = "\
Prints a JSON list, or a line for each name with a template. `ctl image inspect` is for images.

Examples:
  ctl inspect web
  ctl inspect -f '{{.State}} {{.ExitCode}} {{.OomKilled}}' web
  ctl inspect -f '{{.Spec.resources.memory}}' web
  ctl inspect -f '{{index .Labels \"app\"}}' web";

/// Show everything about containers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// json, or a template such as '{{.State}}'
    #[arg(short, long, value_name = "FORMAT", default_value = "json", value_parser = Format::parse)]
    format: Format,
    /// Name, id, or unique beginning of an id
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        show_each(&self.format, &self.containers, async |name| {
            let path = client.manager().await?.get_container(name).await?;
            Ok(record::container(&client.properties(&path).await?))
        })
        .await
    }
}

/// The records of those that are found, as a list or by a template; the exit code is 1 if one is not.
pub async fn show_each(
    format: &Format,
    names: &[String],
    record: impl AsyncFn(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<u8> {
    let mut records = Vec::new();
    let mut code = 0;
    for name in names {
        match record(name).await {
            Ok(record) => records.push(record),
            Err(error) => {
                output::say(&failure::message(&error));
                code = 1;
            }
        }
    }
    match format {
        Format::Json | Format::Table => output::line(&serde_json::to_string_pretty(&records)?)?,
        Format::Template(template) => {
            output::write(&template.render_all(&records).map_err(anyhow::Error::msg)?)?;
        }
    }
    Ok(code)
}
