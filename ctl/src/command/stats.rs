//! `ctl stats`: what containers use, as it changes.

use crate::connection::Client;
use crate::failure;
use crate::output;
use crate::quantity::{show_bytes, show_percent};
use crate::record;
use crate::table::{Cell, Colour, Column, Table};
use crate::template::Format;
use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use wharf_bus::names;
use wharf_bus::types::Stats;
use zbus::wire::OwnedObjectPath;

const EXAMPLES: &str = "\
CPU is in percent of one CPU, THROTTLED in percent of the periods in which the limit held it back; MEMORY is what \
the kernel cannot easily take back, against the limit; IO is read / written since the start. With --format json \
each reading of a container is one line.

Examples:
  ctl stats
  ctl stats --no-stream web
  ctl stats --format '{{.Name}} {{.CpuPercent}}'";

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between the two readings of --no-stream: several periods of a CPU limit (100 ms each), and not long to wait.
const SHORT_INTERVAL: Duration = Duration::from_millis(500);

/// Show what containers use, every second
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Show one reading and end
    #[arg(long)]
    no_stream: bool,
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,
    /// Name, id, or unique beginning of an id [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

struct Watched {
    path: OwnedObjectPath,
    id: String,
    name: String,
}

type Readings = HashMap<String, Stats>;

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let mut watched = self.watched(&client).await?;
        let mut before = read(&client, &watched).await?;
        if let Some(missing) =
            watched.iter().find(|one| !self.containers.is_empty() && !before.contains_key(&one.id))
        {
            bail!("{} does not run; start it with `ctl start {}`", missing.name, missing.name);
        }
        let on_screen = output::is_terminal() && !self.no_stream && self.format == Format::Table;
        let mut first = true;
        loop {
            tokio::time::sleep(if first || self.no_stream { SHORT_INTERVAL } else { INTERVAL }).await;
            first = false;
            if self.containers.is_empty() {
                watched = self.watched(&client).await?;
            }
            let now = read(&client, &watched).await?;
            if now.is_empty() && !self.containers.is_empty() {
                // All that were asked for have ended.
                return Ok(0);
            }
            let records: Vec<Value> = watched
                .iter()
                .filter_map(|one| Some(reading(one, before.get(&one.id), now.get(&one.id)?)))
                .collect();
            let text = self.show(&records)?;
            // Over the old table, line by line, and away with what was below it: no flicker.
            output::write(&if on_screen {
                format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
            } else {
                text
            })?;
            if self.no_stream {
                return Ok(0);
            }
            before = now;
        }
    }

    async fn watched(&self, client: &Client) -> anyhow::Result<Vec<Watched>> {
        let mut found = Vec::new();
        if self.containers.is_empty() {
            for (path, properties) in
                client.manager().await?.list_containers(&["Id", "Name", "State"]).await?
            {
                let record = record::container(&properties);
                if matches!(record::text(&record, "State"), "running" | "paused" | "stopping") {
                    let (id, name) =
                        (record::text(&record, "Id").to_owned(), record::text(&record, "Name").to_owned());
                    found.push(Watched { path, id, name });
                }
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(found);
        }
        let manager = client.manager().await?;
        for name in &self.containers {
            let path = manager.get_container(name).await?;
            let id = names::container_id(&path).unwrap_or_default().to_owned();
            let name = client.container_at(path.clone()).await?.name().await?;
            found.push(Watched { path, id, name });
        }
        Ok(found)
    }

    fn show(&self, records: &[Value]) -> anyhow::Result<String> {
        match &self.format {
            Format::Table => Ok(table(records).fitted(!self.no_trunc)),
            Format::Json => {
                let mut text = String::new();
                for record in records {
                    text.push_str(&serde_json::to_string(record)?);
                    text.push('\n');
                }
                Ok(text)
            }
            Format::Template(template) => template.render_all(records).map_err(anyhow::Error::msg),
        }
    }
}

/// One reading of each, all at once. Those that do not run have none.
async fn read(client: &Client, watched: &[Watched]) -> anyhow::Result<Readings> {
    let mut questions = Vec::new();
    for one in watched {
        let (client, path) = (client.clone(), one.path.clone());
        let question = tokio::spawn(async move {
            let container = client.container_at(path).await?;
            container.stats().await.map_err(anyhow::Error::from)
        });
        questions.push((one.id.clone(), question));
    }
    let mut readings = Readings::new();
    for (id, question) in questions {
        match question.await? {
            Ok(stats) => {
                readings.insert(id, stats);
            }
            Err(error) => match error.downcast_ref::<wharf_bus::Error>() {
                Some(wharf_bus::Error::NotRunning(_)) => {}
                Some(bus) if failure::is_gone(bus) => {}
                Some(_) | None => return Err(error),
            },
        }
    }
    Ok(readings)
}

fn reading(one: &Watched, before: Option<&Stats>, now: &Stats) -> Value {
    let zero = Stats::default();
    let before = before.unwrap_or(&zero);
    let growth = |pick: fn(&Stats) -> Option<u64>| Some(pick(now)?.saturating_sub(pick(before)?) as f64);
    let span = now.time.saturating_sub(before.time) as f64;
    let cpu = growth(|stats| stats.cpu_usage).filter(|_| span > 0.0).map(|used| used * 100.0 / span);
    let throttled = match (growth(|stats| stats.cpu_throttled_periods), growth(|stats| stats.cpu_periods)) {
        (Some(held), Some(periods)) if periods > 0.0 => Some(held * 100.0 / periods),
        (Some(_), Some(_)) => Some(0.0),
        _ => None,
    };
    let used = now.memory_working_set.or(now.memory_usage);
    json!({
        "Name": one.name,
        "Id": one.id,
        "CpuPercent": cpu.map(rounded),
        "ThrottledPercent": throttled.map(rounded),
        "CpuUsage": now.cpu_usage,
        "MemoryUsage": used,
        "MemoryLimit": now.memory_limit,
        "MemoryPercent": percent(used, now.memory_limit).map(rounded),
        "MemoryPeak": now.memory_peak,
        "MemoryAnonymous": now.memory_anonymous,
        "MemoryFile": now.memory_file,
        "MemorySwap": now.memory_swap,
        "OomKills": now.oom_kills,
        "Pids": now.pids,
        "PidsLimit": now.pids_limit,
        "IoRead": now.io_read,
        "IoWritten": now.io_written,
        "PsiCpu": now.psi_cpu,
        "PsiMemory": now.psi_memory,
        "PsiIo": now.psi_io,
    })
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn percent(used: Option<u64>, limit: Option<u64>) -> Option<f64> {
    let limit = limit.filter(|limit| *limit > 0)?;
    Some(used? as f64 * 100.0 / limit as f64)
}

fn table(records: &[Value]) -> Table {
    let mut table = Table::new(&[
        Column::Elastic("NAME"),
        Column::Right("CPU"),
        Column::Right("THROTTLED"),
        Column::Right("MEMORY"),
        Column::Right("MEM"),
        Column::Right("PIDS"),
        Column::Right("IO"),
        Column::Right("OOM"),
    ]);
    for record in records {
        let whole = |field: &str| record.get(field).and_then(Value::as_u64);
        let share = |field: &str| record.get(field).and_then(Value::as_f64);
        let shown = |field: &str| share(field).map_or_else(|| "-".to_owned(), show_percent);
        let warn = |field: &str, level: f64| {
            share(field).filter(|percent| *percent >= level).map(|_| Colour::Notable)
        };
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let io = match (whole("IoRead"), whole("IoWritten")) {
            (Some(read), Some(written)) => format!("{} / {}", show_bytes(read), show_bytes(written)),
            _ => "-".to_owned(),
        };
        let pids = match (whole("Pids"), whole("PidsLimit")) {
            (Some(pids), Some(limit)) => format!("{pids} / {limit}"),
            (Some(pids), None) => pids.to_string(),
            (None, _) => "-".to_owned(),
        };
        let kills = whole("OomKills");
        table.row([
            record::text(record, "Name").into(),
            shown("CpuPercent").into(),
            Cell::coloured(shown("ThrottledPercent"), warn("ThrottledPercent", 1.0)),
            or_dash(record::show_memory(whole("MemoryUsage"), whole("MemoryLimit"))).into(),
            Cell::coloured(shown("MemoryPercent"), warn("MemoryPercent", 90.0)),
            pids.into(),
            io.into(),
            Cell::coloured(
                kills.map_or_else(|| "-".to_owned(), |kills| kills.to_string()),
                kills.filter(|kills| *kills > 0).map(|_| Colour::Bad),
            ),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched() -> Watched {
        Watched { path: names::container_path("ab"), id: "ab".into(), name: "web".into() }
    }

    #[test]
    fn percentages_come_from_two_readings() {
        let before = Stats {
            time: 1_000_000,
            cpu_usage: Some(100_000),
            cpu_periods: Some(10),
            cpu_throttled_periods: Some(5),
            ..Stats::default()
        };
        let now = Stats {
            time: 2_000_000,
            cpu_usage: Some(600_000),
            cpu_periods: Some(20),
            cpu_throttled_periods: Some(10),
            memory_working_set: Some(32 << 20),
            memory_limit: Some(64 << 20),
            ..Stats::default()
        };
        let record = reading(&watched(), Some(&before), &now);
        assert_eq!(record["CpuPercent"], json!(50.0));
        assert_eq!(record["ThrottledPercent"], json!(50.0));
        assert_eq!(record["MemoryPercent"], json!(50.0));
        assert_eq!(record["IoRead"], Value::Null);
        let text = table(&[record]).render(None, false);
        assert!(text.contains("50.0%") && text.contains("32MiB / 64MiB"), "{text}");
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_a_dash() {
        let record = reading(&watched(), None, &Stats::default());
        let text = table(&[record]).render(None, false);
        assert_eq!(text.lines().nth(1).map(|line| line.matches('-').count()), Some(7), "{text}");
    }
}
