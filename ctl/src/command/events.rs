//! `ctl events`: what happens.

use crate::connection::Client;
use crate::filter::Filters;
use crate::moment;
use crate::output;
use crate::record;
use crate::template::Format;
use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use wharf_bus::types::EventRecord;

const FILTERS: [&str; 3] = ["kind", "name", "container"];

const EXAMPLES: &str = "\
Shows events from now on until ctrl-c. Kinds: created, starting, started, start-failed, paused, unpaused, stopping, \
exited, oom, ready, unready, probe-failed, probe-succeeded, probe-warning, unhealthy, restarting, waiting, gave-up, status, \
hook-failed, updated, removed, image-loaded, image-removed.
Filters: kind=KIND, name=PART, container=NAME or beginning of an id.

Examples:
  ctl events
  ctl events --since 0 --no-stream         all that wharfd still knows of
  ctl events --filter kind=oom --format json";

/// Show what happens, as it happens
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Also show events after this sequence number; 0 for all that are kept
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
    /// Show what there is and end [default for --since: 0]
    #[arg(long)]
    no_stream: bool,
    /// Show only those that pass; may be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json (a line for each), or a template such as '{{.Kind}} {{.Name}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let filters = Filters::parse(&self.filter, &FILTERS)?;
        let client = Client::connect(socket).await?;
        // First listen, then ask for the past: nothing falls in between.
        let mut events = client.signals("Event").await?;
        let mut shown = 0;
        if let Some(since) = self.since.or(self.no_stream.then_some(0)) {
            for event in client.manager().await?.events_since(since).await? {
                shown = shown.max(event.sequence);
                self.show(&event, &filters)?;
            }
        }
        if self.no_stream {
            return Ok(0);
        }
        while let Some(message) = events.next().await {
            let event: EventRecord = message.body().deserialize().map_err(wharf_bus::Error::from)?;
            if event.sequence > shown {
                self.show(&event, &filters)?;
            }
        }
        bail!("wharfd has gone; events that come meanwhile can be asked for with --since 0 when it is back")
    }

    fn show(&self, event: &EventRecord, filters: &Filters) -> anyhow::Result<()> {
        let record = record_of(event);
        if !filters.admits(&record) {
            return Ok(());
        }
        match &self.format {
            Format::Table => output::line(&line(event)),
            Format::Json => output::line(&record.to_string()),
            Format::Template(template) => {
                output::line(&template.render(&record).map_err(anyhow::Error::msg)?)
            }
        }
    }
}

fn record_of(event: &EventRecord) -> Value {
    json!({
        "Sequence": event.sequence,
        "Time": moment::rfc3339(event.time),
        "Kind": event.kind,
        "Container": event.container,
        "Name": event.name,
        "Details": event.details,
    })
}

fn line(event: &EventRecord) -> String {
    let mut text = format!("{}  {:<12}  {}", moment::rfc3339(event.time), event.kind, event.name);
    if !event.container.is_empty() {
        let _ = write!(text, " ({})", record::short_id(&event.container));
    }
    let mut details: Vec<_> = event.details.iter().collect();
    details.sort();
    for (key, value) in details {
        let _ = write!(text, "  {key}={}", quoted(value));
    }
    text
}

/// A value with blanks, or nothing in it, in quotes, so that the line can be read by both.
fn quoted(value: &str) -> String {
    if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        format!("{value:?}")
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn line_says_when_what_and_whom() {
        let event = EventRecord {
            sequence: 3,
            time: 1_769_860_800_000_000,
            kind: "exited".into(),
            container: "0123456789abcdef".into(),
            name: "web".into(),
            details: HashMap::from([("exitCode".into(), "3".into()), ("error".into(), "a b".into())]),
        };
        assert_eq!(
            line(&event),
            "2026-01-31T12:00:00.000000Z  exited        web (0123456789ab)  error=\"a b\"  exitCode=3"
        );
        assert_eq!(record_of(&event)["Details"]["exitCode"], "3");
    }
}
