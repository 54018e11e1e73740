//! Points in time, given by whoever calls.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since the host booted, suspend included (CLOCK_BOOTTIME): the only time that is reckoned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(
    /// Nanoseconds.
    pub u64,
);

impl Time {
    /// Later than everything: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long ago `earlier` was; zero if it is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A sum beyond the end of time is [`Time::NEVER`], so that `Duration::MAX` means "wait for ever".
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// When something happened, twice: for reckoning and for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Since boot. Of an event before the last boot: zero.
    pub boot: Time,
    /// Nanoseconds since 1970 as the host's clock showed them; never reckoned with.
    pub wall: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_grace_never_comes() {
        assert_eq!(Time(5) + Duration::MAX, Time::NEVER);
        assert_eq!(Time(5) + Duration::from_nanos(7), Time(12));
    }

    #[test]
    fn time_since_something_later_is_zero() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(9).since(Time(5)), Duration::from_nanos(4));
    }
}
