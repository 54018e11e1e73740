//! Points in time: as users type them, and as they are shown. All are microseconds since 1970, as on the bus.

use crate::quantity;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A time as users type it: RFC 3339, a date or date and time in the local zone, seconds since 1970, or how long
/// ago (`10m`).
pub fn parse(text: &str, now: u64) -> Result<u64, String> {
    let wrong = || {
        format!(
            "a time is RFC 3339 (2026-01-31T12:00:00Z), a local date and time (2026-01-31T12:00:00), seconds since 1970, or how long ago (10m, 1h30m); got '{text}'"
        )
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let seconds: f64 = text.parse().map_err(|_| wrong())?;
        return Ok((seconds * 1e6) as u64);
    }
    if let Ok(ago) = quantity::duration(text) {
        return Ok(now.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX)));
    }
    let micros = |stamp: Timestamp| u64::try_from(stamp.as_microsecond()).map_err(|_| wrong());
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return micros(stamp);
    }
    let civil = match text.parse::<DateTime>() {
        Ok(civil) => civil,
        Err(_) => text.parse::<Date>().map_err(|_| wrong())?.to_datetime(jiff::civil::Time::midnight()),
    };
    micros(civil.to_zoned(TimeZone::system()).map_err(|_| wrong())?.timestamp())
}

/// RFC 3339 in UTC; empty for 0, which stands for «never» on the bus.
pub fn rfc3339(micros: u64) -> String {
    if micros == 0 {
        return String::new();
    }
    match i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()) {
        Some(stamp) => format!("{stamp:.6}"),
        None => String::new(),
    }
}

/// How long ago, for people; empty for 0.
pub fn age(micros: u64, now: u64) -> String {
    if micros == 0 {
        String::new()
    } else {
        quantity::show_duration(Duration::from_micros(now.saturating_sub(micros)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000;

    #[test]
    fn every_documented_form_of_a_time_is_read() {
        assert_eq!(parse("2026-01-31T12:00:00Z", NOW), Ok(1_769_860_800_000_000));
        assert_eq!(parse("2026-01-31T12:00:00.5+01:00", NOW), Ok(1_769_857_200_500_000));
        assert_eq!(parse("1769860800", NOW), Ok(1_769_860_800_000_000));
        assert_eq!(parse("1769860800.25", NOW), Ok(1_769_860_800_250_000));
        assert_eq!(parse("10m", NOW), Ok(NOW - 600_000_000));
        assert!(parse("2026-01-31", NOW).is_ok());
        assert!(parse("2026-01-31T12:00:00", NOW).is_ok());
    }

    #[test]
    fn other_text_is_refused_with_examples() {
        for text in ["", "yesterday", "2026-13-01", "10x"] {
            assert!(parse(text, NOW).unwrap_err().contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn never_is_shown_as_nothing() {
        assert_eq!(rfc3339(0), "");
        assert_eq!(age(0, NOW), "");
        assert_eq!(rfc3339(1_769_860_800_000_000), "2026-01-31T12:00:00.000000Z");
        assert_eq!(age(NOW - 90_000_000, NOW), "1m30s");
    }
}
