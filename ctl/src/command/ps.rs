//! `ctl ps`: list containers.

use crate::connection::Client;
use crate::listing::Listing;
use crate::moment;
use crate::record;
use crate::table::{Cell, Colour, Column, Table};
use crate::template::Format;
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use wharf_bus::types::Stats;
use zbus::OwnedVariant;
use zbus::wire::OwnedObjectPath;

const FILTERS: [&str; 7] = ["name", "id", "state", "image", "label", "ready", "exited"];
/// What these look at, and the order.
const OF_FILTERS: [&str; 10] =
    ["Id", "Name", "State", "Image", "ImageId", "Labels", "Ready", "ExitCode", "Reason", "CreatedAt"];
/// Fields that cost a reading of the cgroup.
const USAGE: [&str; 5] = ["Cpu", "CpuPercent", "Memory", "MemoryUsage", "MemoryLimit"];

const EXAMPLES: &str = "\
CPU is the average since the start, in percent of one CPU (`ctl stats` shows it now); MEMORY is what the kernel \
cannot easily take back, against the limit.
WHY (if there is something to say): when the next start is due, what it waits for, what failed, or what the \
container says of itself.
Filters: name=PART, id=BEGINNING, state=running|exited|…, image=NAME, label=KEY[=VALUE], ready=true|false, \
exited=CODE. Fields of a template: those of --format json.

Examples:
  ctl ps -a
  ctl ps --filter label=app=web --filter state=running
  ctl ps --format 'table {{.Name}}\\t{{.State}}\\t{{.Memory}}'
  ctl ps --format json
  ctl rm $(ctl ps -aq --filter state=exited)";

/// List containers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Show all, not only those that run
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
    /// Show the last so many that were created, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// The same as --last 1
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
}

struct Found {
    path: OwnedObjectPath,
    created: u64,
    started: u64,
    record: Value,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let filters = self.listing.filters(&FILTERS)?;
        let client = Client::connect(socket).await?;
        let last = if self.latest { Some(1) } else { self.last };
        // Who asks for a state, or for the newest, means all of them.
        let all = self.all || last.is_some() || filters.has("state") || filters.has("exited");
        let now = moment::now();
        let properties: &[&str] = if self.listing.quiet { &OF_FILTERS } else { &[] };
        let mut found: Vec<Found> = client
            .manager()
            .await?
            .list_containers(properties)
            .await?
            .into_iter()
            .map(|(path, properties)| Found::new(path, &properties, now))
            .filter(|found| all || record::is_up(record::text(&found.record, "State")) || found.gave_up())
            .filter(|found| filters.admits(&found.record))
            .collect();
        found.sort_by_key(|found| std::cmp::Reverse(found.created));
        if let Some(last) = last {
            found.truncate(last);
        }
        if self.wants_usage() {
            add_usage(&client, &mut found, now).await;
        }
        let records: Vec<Value> = found.into_iter().map(|found| found.record).collect();
        self.listing.show(&records, table)?;
        Ok(0)
    }

    fn wants_usage(&self) -> bool {
        !self.listing.quiet
            && match &self.listing.format {
                Format::Table | Format::Json => true,
                Format::Template(template) => template.wants(&USAGE),
            }
    }
}

impl Found {
    /// It should run, and does not: nobody should miss that.
    fn gave_up(&self) -> bool {
        let reason = record::text(&self.record, "Reason");
        matches!(record::text(&self.record, "State"), "failed" | "damaged") && !reason.is_empty()
    }

    fn new(path: OwnedObjectPath, properties: &HashMap<String, OwnedVariant>, now: u64) -> Self {
        let created = record::number(properties, "CreatedAt").unwrap_or(0);
        let started = record::number(properties, "StartedAt").unwrap_or(0);
        let mut record = record::container(properties);
        record::add_usage(&mut record, None, None);
        if let Value::Object(fields) = &mut record {
            fields.insert("Age".into(), json!(moment::age(created, now)));
            let due = record::number(properties, "NextStart").filter(|due| *due > now);
            let wait = due.map_or_else(String::new, |due| moment::age(now, due));
            fields.insert("NextStartIn".into(), json!(wait));
            // Long, and for `inspect`.
            fields.remove("Spec");
            // docker's names, so that formats written for it work.
            let alias = |fields: &serde_json::Map<String, Value>, name: &str| {
                fields.get(name).cloned().unwrap_or_default()
            };
            // What the container says of itself makes room for docker's word for the state.
            let said = alias(fields, "Status");
            fields.insert("Says".into(), said);
            let (name, status) = (alias(fields, "Name"), json!(status(&Value::Object(fields.clone()))));
            fields.insert("Names".into(), json!([name]));
            fields.insert("Status".into(), status);
        }
        Self { path, created, started, record }
    }
}

/// One question for each that runs, all at once.
async fn add_usage(client: &Client, found: &mut [Found], now: u64) {
    let mut questions = Vec::new();
    for (index, one) in found.iter().enumerate() {
        if matches!(record::text(&one.record, "State"), "running" | "paused" | "stopping") {
            let (client, path) = (client.clone(), one.path.clone());
            questions.push((
                index,
                tokio::spawn(async move {
                    client.container_at(path).await?.stats().await.map_err(anyhow::Error::from)
                }),
            ));
        }
    }
    for (index, question) in questions {
        // One that has ended meanwhile has no usage.
        if let Ok(Ok(stats)) = question.await {
            let one = &mut found[index];
            let percent = average_cpu(&stats, one.started, now);
            record::add_usage(&mut one.record, Some(&stats), percent);
        }
    }
}

/// CPU time against the time since the start.
fn average_cpu(stats: &Stats, started: u64, now: u64) -> Option<f64> {
    let span = now.checked_sub(started).filter(|span| *span > 0 && started > 0)?;
    Some(stats.cpu_usage? as f64 * 100.0 / span as f64)
}

/// The state, with the exit code where there is one, the health where it is known, and the time to the next start.
fn status(record: &Value) -> String {
    let state = record::text(record, "State");
    let code = record.get("ExitCode").and_then(Value::as_i64).filter(|code| *code >= 0);
    let oom = record.get("OomKilled").and_then(Value::as_bool) == Some(true);
    match (state, code) {
        ("exited" | "failed", Some(code)) if oom => format!("{state} ({code}, out of memory)"),
        ("exited" | "failed", Some(code)) => format!("{state} ({code})"),
        ("waiting", _) => match record::text(record, "NextStartIn") {
            "" => state.to_owned(),
            time => format!("waiting ({time})"),
        },
        ("running", _) => match record::text(record, "Health") {
            "" | "none" => state.to_owned(),
            health => format!("running ({health})"),
        },
        _ => state.to_owned(),
    }
}

/// Why it is in its state, or what it says of itself.
fn why(record: &Value) -> &str {
    match record::text(record, "Reason") {
        "" => record::text(record, "Says"),
        reason => reason,
    }
}

fn colour(record: &Value) -> Option<Colour> {
    match record::text(record, "State") {
        "running" => Some(Colour::Good),
        "waiting" | "starting" | "paused" | "stopping" | "removing" => Some(Colour::Notable),
        "failed" | "damaged" => Some(Colour::Bad),
        "exited" if record.get("ExitCode").and_then(Value::as_i64) != Some(0) => Some(Colour::Bad),
        "exited" | "created" => Some(Colour::Dim),
        _ => None,
    }
}

fn table(records: &[Value], in_full: bool) -> Table {
    let explains = records.iter().any(|record| !why(record).is_empty());
    let mut columns = vec![
        Column::Elastic("NAME"),
        Column::Elastic("IMAGE"),
        Column::Left("STATE"),
        Column::Left("READY"),
        Column::Right("RESTARTS"),
        Column::Right("CPU"),
        Column::Right("MEMORY"),
        Column::Right("AGE"),
    ];
    if explains {
        columns.push(Column::Elastic("WHY"));
    }
    let mut table = Table::new(&columns);
    for record in records {
        let up = record::is_up(record::text(record, "State"));
        let image = record::text(record, "Image");
        let ready = match record.get("Ready").and_then(Value::as_bool) {
            Some(true) if up => Cell::coloured("yes", Some(Colour::Good)),
            Some(false) if up => Cell::coloured("no", Some(Colour::Notable)),
            Some(_) | None => Cell::from("-"),
        };
        let mut row = vec![
            record::text(record, "Name").into(),
            match image {
                "" => Cell::coloured("(rootfs)", Some(Colour::Dim)),
                image if in_full => image.into(),
                image => record::familiar(image).into(),
            },
            Cell::coloured(status(record), colour(record)),
            ready,
            record.get("Restarts").map(Value::to_string).unwrap_or_default().into(),
            dash(record::text(record, "Cpu")),
            dash(record::text(record, "Memory")),
            record::text(record, "Age").into(),
        ];
        if explains {
            row.push(why(record).into());
        }
        table.row(row);
    }
    table
}

fn dash(text: &str) -> Cell {
    if text.is_empty() { Cell::from("-") } else { Cell::from(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, code: i64) -> Value {
        json!({"Name": "web", "Image": "docker.io/wharf/demo:latest", "State": state, "ExitCode": code, "Ready": true,
               "Restarts": 0, "Cpu": "0.42%", "Memory": "1MiB / 64MiB", "Age": "3m", "OomKilled": code == 137})
    }

    #[test]
    fn table_has_the_documented_columns() {
        let text = table(&[record("running", -1), record("exited", 137)], false).render(None, false);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["NAME", "IMAGE", "STATE", "READY", "RESTARTS", "CPU", "MEMORY", "AGE"]);
        assert_eq!(
            lines[1],
            ["web", "wharf/demo:latest", "running", "yes", "0", "0.42%", "1MiB / 64MiB", "3m"]
        );
        assert_eq!(lines[2][2], "exited (137, out of memory)");
    }

    #[test]
    fn what_waits_says_how_long_and_why() {
        let mut waiting = record("waiting", 1);
        waiting["NextStartIn"] = json!("3s");
        waiting["Reason"] = json!("back-off of 3.2s before restart 7: it exited with 1");
        let mut running = record("running", -1);
        running["Health"] = json!("unhealthy");
        let text = table(&[waiting, running], false).render(None, false);
        assert!(text.contains("WHY"), "{text}");
        assert!(
            text.contains("waiting (3s)") && text.contains("before restart 7: it exited with 1"),
            "{text}"
        );
        assert!(text.contains("running (unhealthy)"), "{text}");
    }

    #[test]
    fn cpu_is_the_average_since_the_start() {
        let stats = Stats { cpu_usage: Some(500_000), ..Stats::default() };
        assert_eq!(average_cpu(&stats, 1_000_000, 2_000_000), Some(50.0));
        assert_eq!(average_cpu(&stats, 0, 2_000_000), None);
        assert_eq!(average_cpu(&Stats::default(), 1, 2), None);
    }
}
