//! The processes of a container, from /proc.

use crate::clock;
use std::os::unix::fs::MetadataExt;
use wharf_bus::types::ProcessInfo;
use wharf_supervisor::Time;

/// USER_HZ, the unit of times in /proc/PID/stat on every architecture of today.
const TICKS: u64 = 100;

/// Every process in the cgroup and those below it. One that ends in the meantime is left out.
pub fn of_cgroup(cgroup: &str) -> std::io::Result<Vec<ProcessInfo>> {
    let mut pids = wharf_oci::stats::processes(cgroup)?;
    pids.sort_unstable();
    Ok(pids.into_iter().filter_map(process).collect())
}

fn process(pid: u32) -> Option<ProcessInfo> {
    let dir = format!("/proc/{pid}");
    let uid = std::fs::metadata(&dir).ok()?.uid();
    let stat = std::fs::read_to_string(format!("{dir}/stat")).ok()?;
    // The name may contain anything, also blanks and brackets: fields are counted from its end.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let mut command: Vec<String> = std::fs::read(format!("{dir}/cmdline"))
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    // Arguments end with a zero.
    command.pop();
    if command.is_empty() {
        command.push(format!("[{name}]"));
    }
    let page = rustix::param::page_size() as u64;
    Some(ProcessInfo {
        pid,
        parent: u32::try_from(number(1)?).ok()?,
        uid,
        state: fields.first()?.to_string(),
        cpu_time: (number(11)? + number(12)?) * (1_000_000 / TICKS),
        resident: number(21)? * page,
        started: clock::stamp_of(Time(number(19)? * (1_000_000_000 / TICKS))).wall / 1000,
        command,
    })
}
