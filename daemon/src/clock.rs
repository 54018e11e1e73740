//! The clocks: since boot for reckoning, since 1970 for display.

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wharf_supervisor::{Stamp, Time};

/// What is due within the same hundredth of a second is done at once: hundreds of probes then wake us a hundred times a
/// second at most. Nobody gives such times more exactly.
const GRAIN: u64 = 10_000_000;

/// Nanoseconds since boot, suspend included.
pub fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Time(seconds * 1_000_000_000 + nanoseconds)
}

/// How long the host has been suspended since it was started.
pub fn suspended() -> Duration {
    // Both are read one after the other: a difference below what a suspend takes is none.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::from_nanos(now().0).saturating_sub(monotonic)
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

/// The next time at which several things may be done at once.
pub fn rounded_up(Time(nanoseconds): Time) -> Time {
    Time(nanoseconds.checked_next_multiple_of(GRAIN).unwrap_or(nanoseconds))
}

/// Rings at a time since boot. The clock of other timers stands still while the host is suspended; this one rings at
/// once when it wakes up too late.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Set to nothing. Must be called within a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self { timer: wharf_oci::readiness::watch(timer, Interest::READABLE)? })
    }

    /// Wait until then; without a time, for ever.
    pub async fn at(&self, time: Option<Time>) -> io::Result<()> {
        let Some(Time(nanoseconds)) = time else { return std::future::pending().await };
        let second = 1_000_000_000;
        let at = Timespec {
            tv_sec: i64::try_from(nanoseconds / second).unwrap_or(i64::MAX),
            // Nothing at all would switch it off.
            tv_nsec: i64::try_from(nanoseconds % second).unwrap_or(0).max(1),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.timer.readable().await?;
            let rung = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            if let Ok(rung) = rung {
                return rung.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alarm_rings_at_its_time_and_at_once_if_that_has_passed() {
        let alarm = Alarm::new().expect("a timer");
        alarm.at(Some(Time(0))).await.expect("long ago");
        let at = now() + Duration::from_millis(30);
        alarm.at(Some(at)).await.expect("rung");
        assert!(now() >= at);
        // What was set before is forgotten, also if it has rung meanwhile.
        let dropped =
            tokio::time::timeout(Duration::from_millis(5), alarm.at(Some(now() + Duration::from_millis(10))));
        dropped.await.expect_err("not yet");
        std::thread::sleep(Duration::from_millis(20));
        let later = now() + Duration::from_millis(30);
        alarm.at(Some(later)).await.expect("rung");
        assert!(now() >= later);
    }
}
