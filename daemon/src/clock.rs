//! The clocks: since boot for reckoning, since 1970 for display.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wharf_supervisor::{Stamp, Time};

/// Nanoseconds since boot, suspend included.
pub fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Time(seconds * 1_000_000_000 + nanoseconds)
}

/// Nanoseconds since 1970.
pub fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970.
pub fn wall_micros() -> u64 {
    wall() / 1000
}

/// Now, on both.
pub fn stamp() -> Stamp {
    Stamp { boot: now(), wall: wall() }
}

/// What the clock on the wall showed, or will show, when the boot clock shows this.
pub fn stamp_of(boot: Time) -> Stamp {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let now = now();
    let (ago, ahead) = (nanoseconds(now.since(boot)), nanoseconds(boot.since(now)));
    Stamp { boot, wall: wall().saturating_sub(ago).saturating_add(ahead) }
}

/// The kernel's name for this boot.
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}
