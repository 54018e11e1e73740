//! cgroup limits: docker's rules for what makes sense, checked against this host.
//!
//! Defaults: 512 processes; as much swap as memory, where memory is limited; everything else unlimited. An
//! update goes through the same door: merge the new wishes into the old [`Resources`] and ask again.

use super::config::Resources;
use super::{CpuList, Host, Invalid};
use wharf_protocol::Limits;

/// Processes and threads of a container that does not say how many: far above what a service needs, and a fork
/// bomb stops before the host notices.
pub const DEFAULT_PIDS: i64 = 512;
/// Docker's. Below it runtimes fail to start anything.
pub const MIN_MEMORY: i64 = 6 << 20;
/// The kernel's usual period of CPU quotas.
const CPU_PERIOD_US: u64 = 100_000;

/// Check `resources` and convert them; every limit that has a default is in the result.
pub fn limits(resources: &Resources, host: &Host) -> Result<Limits, Invalid> {
    let (cpu_quota_us, cpu_period_us) = cpus(resources.cpus, host)?;
    let memory_max = memory(resources.memory)?;
    Ok(Limits {
        cpu_quota_us,
        cpu_period_us,
        cpu_shares: cpu_shares(resources.cpu_shares)?,
        cpuset_cpus: list("resources.cpusetCpus", resources.cpuset_cpus.as_deref(), &host.cpus, "CPUs")?,
        cpuset_mems: list(
            "resources.cpusetMems",
            resources.cpuset_mems.as_deref(),
            &host.memory_nodes,
            "memory nodes",
        )?,
        memory_max,
        memory_swap_max: memory_swap(resources.memory_swap, memory_max)?,
        memory_reservation: memory_reservation(resources.memory_reservation, memory_max)?,
        pids_max: Some(pids(resources.pids_limit)?),
        blkio_weight: blkio_weight(resources.blkio_weight)?,
    })
}

/// A score outside the kernel's range is a typing error.
pub(super) fn oom_score_adj(score: Option<i32>) -> Result<Option<i32>, Invalid> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => Err(Invalid::new(
            "oomScoreAdj",
            score,
            "is outside the kernel's range",
            "give a number from -1000 to 1000",
        )),
        score => Ok(score),
    }
}

fn cpus(cpus: Option<f64>, host: &Host) -> Result<(Option<i64>, Option<u64>), Invalid> {
    /// The kernel refuses quotas below a millisecond, which is this much of a period.
    const SMALLEST: f64 = 0.01;
    let Some(cpus) = cpus else { return Ok((None, None)) };
    let invalid = |problem: &str, fix: String| Err(Invalid::new("resources.cpus", cpus, problem, fix));
    let most = host.cpus.count();
    if cpus == 0.0 {
        return Ok((Some(-1), Some(CPU_PERIOD_US)));
    }
    if !cpus.is_finite() || cpus < 0.0 {
        return invalid("is no number of CPUs", format!("give a number from {SMALLEST} to {most}"));
    }
    if cpus < SMALLEST {
        return invalid("is too small", format!("give at least {SMALLEST}"));
    }
    if cpus > f64::from(most) {
        let noun = if most == 1 { "CPU" } else { "CPUs" };
        return invalid(
            &format!("is more than this host has ({most} {noun})"),
            format!("give at most {most}"),
        );
    }
    Ok((Some((cpus * CPU_PERIOD_US as f64).round() as i64), Some(CPU_PERIOD_US)))
}

fn cpu_shares(shares: Option<u64>) -> Result<Option<u64>, Invalid> {
    match shares {
        // Docker's way to say: the default.
        Some(0) => Ok(Some(1024)),
        Some(shares) if !(2..=262_144).contains(&shares) => Err(Invalid::new(
            "resources.cpuShares",
            shares,
            "is outside the kernel's range",
            "give a weight from 2 to 262144; 1024 is normal",
        )),
        shares => Ok(shares),
    }
}

fn list(field: &str, text: Option<&str>, host: &CpuList, noun: &str) -> Result<Option<String>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let Some(list) = CpuList::parse(text) else {
        return Err(Invalid::new(
            field,
            text,
            "is no list of numbers",
            "write numbers and ranges, such as 0-2,7",
        ));
    };
    if !host.contains(&list) {
        return Err(Invalid::new(
            field,
            text,
            format!("names {noun} that this host does not have"),
            format!("choose from {host}"),
        ));
    }
    Ok(Some(list.to_string()))
}

fn memory(memory: Option<i64>) -> Result<Option<i64>, Invalid> {
    match memory {
        None | Some(-1) => Ok(memory),
        // Docker's way to say: none.
        Some(0) => Ok(Some(-1)),
        Some(bytes) if bytes < MIN_MEMORY => Err(Invalid::new(
            "resources.memory",
            bytes,
            "is below the smallest limit, 6 MiB",
            format!("give at least {MIN_MEMORY}, or -1 for none"),
        )),
        memory => Ok(memory),
    }
}

fn memory_swap(swap: Option<i64>, memory: Option<i64>) -> Result<Option<i64>, Invalid> {
    let limited = memory.filter(|bytes| *bytes > 0);
    match (swap.filter(|bytes| *bytes != 0), limited) {
        (None, None) => Ok(memory.map(|_| -1)),
        (None, Some(memory)) => Ok(Some(memory.saturating_mul(2))),
        (Some(-1), _) => Ok(Some(-1)),
        (Some(swap), None) => Err(Invalid::new(
            "resources.memorySwap",
            swap,
            "limits memory and swap together, but memory is not limited",
            "give resources.memory as well",
        )),
        (Some(swap), Some(memory)) if swap < memory => Err(Invalid::new(
            "resources.memorySwap",
            swap,
            "is below resources.memory, but counts memory and swap together",
            format!("give at least {memory} (no swap), or -1 for unlimited swap"),
        )),
        (Some(swap), Some(_)) => Ok(Some(swap)),
    }
}

fn memory_reservation(reservation: Option<i64>, memory: Option<i64>) -> Result<Option<i64>, Invalid> {
    let Some(bytes) = reservation else { return Ok(None) };
    let invalid =
        |problem, fix: String| Err(Invalid::new("resources.memoryReservation", bytes, problem, fix));
    match bytes {
        -1 | 0 => Ok(Some(-1)),
        bytes if bytes < MIN_MEMORY => {
            invalid("is below the smallest one, 6 MiB", format!("give at least {MIN_MEMORY}"))
        }
        bytes => match memory {
            Some(memory) if memory > 0 && bytes > memory => {
                invalid("is above resources.memory", format!("give at most {memory}"))
            }
            _ => Ok(Some(bytes)),
        },
    }
}

fn pids(limit: Option<i64>) -> Result<i64, Invalid> {
    /// PID_MAX_LIMIT: the kernel refuses larger numbers.
    const MOST: i64 = 4 << 20;
    match limit {
        None => Ok(DEFAULT_PIDS),
        Some(-1 | 0) => Ok(-1),
        Some(limit) if !(1..=MOST).contains(&limit) => Err(Invalid::new(
            "resources.pidsLimit",
            limit,
            "is no number of processes",
            format!("give a number from 1 to {MOST}, or -1 for no limit"),
        )),
        Some(limit) => Ok(limit),
    }
}

fn blkio_weight(weight: Option<u16>) -> Result<Option<u16>, Invalid> {
    match weight {
        // Docker's way to say: the default.
        None | Some(0) => Ok(None),
        Some(weight) if !(10..=1000).contains(&weight) => Err(Invalid::new(
            "resources.blkioWeight",
            weight,
            "is outside the kernel's range",
            "give a weight from 10 to 1000",
        )),
        weight => Ok(weight),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checked(resources: Resources) -> Result<Limits, Invalid> {
        limits(&resources, &Host::example())
    }

    fn field_of(resources: Resources) -> String {
        checked(resources).unwrap_err().field
    }

    #[test]
    fn nothing_said_limits_only_processes() {
        assert_eq!(
            checked(Resources::default()).unwrap(),
            Limits { pids_max: Some(512), ..Limits::default() }
        );
    }

    #[test]
    fn cpus_become_a_quota() {
        for (cpus, quota) in [(0.5, 50_000), (0.01, 1_000), (2.0, 200_000), (1.2345, 123_450), (0.0, -1)] {
            let limits = checked(Resources { cpus: Some(cpus), ..Resources::default() }).unwrap();
            assert_eq!((limits.cpu_quota_us, limits.cpu_period_us), (Some(quota), Some(100_000)), "{cpus}");
        }
    }

    #[test]
    fn cpus_above_the_host_are_refused_with_its_number() {
        let error = checked(Resources { cpus: Some(2.5), ..Resources::default() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"resources.cpus "2.5" is more than this host has (2 CPUs); give at most 2"#
        );
        for cpus in [-1.0, 0.001, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(field_of(Resources { cpus: Some(cpus), ..Resources::default() }), "resources.cpus");
        }
    }

    #[test]
    fn cpu_lists_must_fit_the_host() {
        let with = |text: &str| Resources { cpuset_cpus: Some(text.into()), ..Resources::default() };
        assert_eq!(checked(with("1,0")).unwrap().cpuset_cpus.as_deref(), Some("0-1"));
        for text in ["", "x", "0-", "1-0", "0,2", "0-7", "0\n1"] {
            assert_eq!(field_of(with(text)), "resources.cpusetCpus", "{text:?}");
        }
        let error = checked(with("5")).unwrap_err();
        assert_eq!(error.fix, "choose from 0-1");
        let mems = Resources { cpuset_mems: Some("3".into()), ..Resources::default() };
        assert_eq!(field_of(mems), "resources.cpusetMems");
    }

    #[test]
    fn swap_follows_dockers_rules() {
        const M: i64 = 1 << 20;
        let with = |memory, swap| Resources { memory, memory_swap: swap, ..Resources::default() };
        for (memory, swap, memory_max, swap_max) in [
            (None, None, None, None),
            (Some(64 * M), None, Some(64 * M), Some(128 * M)),
            (Some(64 * M), Some(0), Some(64 * M), Some(128 * M)),
            (Some(64 * M), Some(64 * M), Some(64 * M), Some(64 * M)),
            (Some(64 * M), Some(-1), Some(64 * M), Some(-1)),
            (Some(-1), None, Some(-1), Some(-1)),
            (Some(0), None, Some(-1), Some(-1)),
            (None, Some(-1), None, Some(-1)),
        ] {
            let limits = checked(with(memory, swap)).unwrap();
            assert_eq!((limits.memory_max, limits.memory_swap_max), (memory_max, swap_max));
        }
        assert_eq!(field_of(with(None, Some(64 * M))), "resources.memorySwap");
        assert_eq!(field_of(with(Some(64 * M), Some(63 * M))), "resources.memorySwap");
        assert_eq!(field_of(with(Some(64 * M), Some(-2))), "resources.memorySwap");
    }

    #[test]
    fn memory_has_a_floor_and_no_overflow() {
        let with = |memory| Resources { memory: Some(memory), ..Resources::default() };
        for bytes in [1, MIN_MEMORY - 1, -2, i64::MIN] {
            assert_eq!(field_of(with(bytes)), "resources.memory", "{bytes}");
        }
        assert_eq!(checked(with(MIN_MEMORY)).unwrap().memory_max, Some(MIN_MEMORY));
        assert_eq!(checked(with(i64::MAX)).unwrap().memory_swap_max, Some(i64::MAX));
    }

    #[test]
    fn the_rest_has_ranges() {
        let reservation = |bytes| Resources {
            memory: Some(64 << 20),
            memory_reservation: Some(bytes),
            ..Resources::default()
        };
        assert_eq!(checked(reservation(32 << 20)).unwrap().memory_reservation, Some(32 << 20));
        assert_eq!(field_of(reservation(65 << 20)), "resources.memoryReservation");
        assert_eq!(field_of(reservation(5)), "resources.memoryReservation");
        for limit in [-2, i64::MAX, (4 << 20) + 1] {
            let resources = Resources { pids_limit: Some(limit), ..Resources::default() };
            assert_eq!(field_of(resources), "resources.pidsLimit");
        }
        for limit in [-1, 0] {
            let resources = Resources { pids_limit: Some(limit), ..Resources::default() };
            assert_eq!(checked(resources).unwrap().pids_max, Some(-1));
        }
        assert_eq!(
            field_of(Resources { cpu_shares: Some(1), ..Resources::default() }),
            "resources.cpuShares"
        );
        assert_eq!(
            field_of(Resources { blkio_weight: Some(9), ..Resources::default() }),
            "resources.blkioWeight"
        );
        assert!(oom_score_adj(Some(1001)).is_err() && oom_score_adj(Some(-1000)).is_ok());
    }
}
