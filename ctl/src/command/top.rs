//! `ctl top`: the processes of a container.

use crate::connection::Client;
use crate::moment;
use crate::output;
use crate::quantity;
use crate::table::{Column, Table};
use crate::template::Format;
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use wharf_bus::types::ProcessInfo;

/// Show the processes of a container
#[derive(Debug, Args)]
#[command(
    after_help = "PID, PPID and USER are the host's; STATE is as in ps(1); TIME is CPU time used; RSS is memory in use.\n\nExample:\n  ctl top web"
)]
pub struct Arguments {
    /// table, json, or a template such as '{{.Pid}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
    format: Format,
    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,
    /// Name, id, or unique beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let client = Client::connect(socket).await?;
        let processes = client.container(&self.container).await?.processes().await?;
        let table = || table(&processes, moment::now()).fitted(!self.no_trunc);
        output::write(&self.format.list(&records(&processes), table)?)?;
        Ok(0)
    }
}

fn records(processes: &[ProcessInfo]) -> Vec<Value> {
    processes
        .iter()
        .map(|process| {
            json!({
                "Pid": process.pid, "Parent": process.parent, "Uid": process.uid, "State": process.state,
                "CpuTime": process.cpu_time, "Resident": process.resident,
                "StartedAt": moment::rfc3339(process.started), "Command": process.command,
            })
        })
        .collect()
}

fn table(processes: &[ProcessInfo], now: u64) -> Table {
    let mut table = Table::new(&[
        Column::Right("PID"),
        Column::Right("PPID"),
        Column::Right("USER"),
        Column::Left("STATE"),
        Column::Right("TIME"),
        Column::Right("RSS"),
        Column::Right("AGE"),
        Column::Elastic("COMMAND"),
    ]);
    for process in processes {
        table.row([
            process.pid.to_string().into(),
            process.parent.to_string().into(),
            process.uid.to_string().into(),
            process.state.as_str().into(),
            cpu_time(process.cpu_time).into(),
            quantity::show_bytes(process.resident).into(),
            moment::age(process.started, now).into(),
            process.command.join(" ").into(),
        ]);
    }
    table
}

/// `0.05s`, `12s`, `3m12s`.
fn cpu_time(micros: u64) -> String {
    if micros < 10_000_000 {
        format!("{:.2}s", micros as f64 / 1e6)
    } else {
        quantity::show_duration(Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_shown_with_times_and_memory_readable() {
        let process = ProcessInfo {
            pid: 7,
            parent: 1,
            uid: 100_000,
            state: "S".into(),
            cpu_time: 50_000,
            resident: 1 << 20,
            started: 1_000_000,
            command: vec!["sh".into(), "-c".into(), "x\ny".into()],
        };
        let text = table(&[process], 62_000_000).render(None, false);
        assert!(text.ends_with("  7      1   100000   S       0.05s   1MiB   1m1s   sh -c x y\n"), "{text}");
    }
}
