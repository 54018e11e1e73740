//! Sizes, durations and shares: as users type them, and as they are shown.

use std::time::Duration;

const UNITS: [(char, u64); 5] =
    [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30), ('t', 1 << 40), ('p', 1 << 50)];

/// Bytes as docker and podman users type them: `64m`, `1.5g`, `512MiB`, `4096`. Suffixes are binary.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "a size is a number of bytes with an optional suffix b, k, m, g or t (binary), such as 64m or 1.5g; got '{text}'"
        )
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &lower[digits.len()..];
    let mut unit = 1;
    let rest = match suffix.chars().next() {
        Some(letter) => match UNITS.iter().find(|(name, _)| *name == letter) {
            Some((_, factor)) => {
                unit = *factor;
                &suffix[1..]
            }
            None => suffix,
        },
        None => "",
    };
    let suffix_is_known = matches!(rest, "" | "b") || (unit > 1 && rest == "ib");
    let number_is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !suffix_is_known || !number_is_plain {
        return Err(wrong());
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(|| format!("'{text}' is more than any machine has"));
    }
    let value = digits.parse::<f64>().map_err(|_| wrong())? * unit as f64;
    // Above 2^63 the conversion would saturate, which nobody meant.
    if value >= i64::MAX as f64 {
        Err(format!("'{text}' is more than any machine has"))
    } else {
        Ok(value as u64)
    }
}

/// Bytes, or -1 for «unlimited».
pub fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if matches!(text, "-1" | "unlimited") {
        return Ok(-1);
    }
    if text.starts_with('-') {
        return Err(format!("a size is not negative, and only -1 stands for unlimited; got '{text}'"));
    }
    i64::try_from(bytes(text)?).map_err(|_| format!("'{text}' is more than any machine has"))
}

/// CPUs' worth of time: `0.5`, `2`.
pub fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("a number of CPUs such as 0.5 or 2 (0 is unlimited); got '{text}'")),
    }
}

/// A time span in seconds (`10`, `1.5`) or with units (`1m30s`, `500ms`, `2h`).
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "a duration is seconds, such as 10 or 1.5, or has units, such as 1m30s or 500ms; got '{text}'"
        )
    };
    let from_seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return from_seconds(text.parse().map_err(|_| wrong())?);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let value: f64 = number.parse().map_err(|_| wrong())?;
        total = total.checked_add(from_seconds(value * factor)?).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// Bytes for people: `12.3MiB`.
pub fn show_bytes(bytes: u64) -> String {
    const NAMES: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would round to «1024», one unit too low.
    while value >= 1023.95 && unit + 1 < NAMES.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    let number = format!("{value:.digits$}");
    format!("{}{}", number.trim_end_matches(".0"), NAMES[unit])
}

/// Percent for people: `0.42%`, `12.3%`, `150%`.
pub fn show_percent(percent: f64) -> String {
    let digits = if percent >= 99.95 {
        0
    } else if percent >= 9.995 {
        1
    } else {
        2
    };
    format!("{percent:.digits$}%")
}

/// A time span for people, in its one or two largest units: `3m12s`, `5h`, `12d`.
pub fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 if !seconds.is_multiple_of(60) => format!("{}m{}s", seconds / 60, seconds % 60),
        60..3600 => format!("{}m", seconds / 60),
        3600..36000 if seconds % 3600 >= 60 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_have_binary_suffixes() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("10b", 10),
            ("1k", 1024),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_with_an_example() {
        for text in
            ["", "x", "10x", "m", "-5m", "1.2.3g", "1e3", "10ib", "5 m", "10mm", "99999999t", "0x10", "nan"]
        {
            let error = bytes(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
        assert!(bytes_or_unlimited("-2").is_err());
    }

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, millis) in
            [("10", 10_000), ("0.5", 500), ("1m30s", 90_000), ("500ms", 500), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["10x", "s", "-1", "1m30", "1..5s", "1e400"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_finite_and_not_negative() {
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["-1", "nan", "inf", "two", ""] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for (value, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            ((1 << 30) - 1, "1GiB"),
            (12_900_000, "12.3MiB"),
            (u64::MAX, "16384PiB"),
        ] {
            assert_eq!(show_bytes(value), expected);
        }
    }

    #[test]
    fn spans_are_shown_in_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (700, "11m"),
            (3600, "1h"),
            (5400, "1h30m"),
            (90_000, "25h"),
            (1_000_000, "11d"),
        ] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn percentages_have_about_three_digits() {
        assert_eq!(show_percent(0.0), "0.00%");
        assert_eq!(show_percent(12.34), "12.3%");
        assert_eq!(show_percent(399.6), "400%");
    }
}
