//! Short texts without an allocator: file names, records, times.

use core::ffi::CStr;

/// A text of at most `N - 1` bytes; what does not fit is left out.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// Append bytes, none of them zero.
    pub fn put(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes.iter().take(N - 1 - self.length) {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        self
    }

    /// Append a number, decimal.
    pub fn number(self, mut number: u64) -> Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return self.put(&digits[at..]);
            }
        }
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// For the kernel.
    pub fn c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// A decimal number, and nothing beside it.
pub fn parse(text: &[u8]) -> Option<u64> {
    let digits = |number: Option<u64>, &byte: &u8| {
        number?.checked_mul(10)?.checked_add(u64::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?))
    };
    if text.is_empty() { None } else { text.iter().fold(Some(0), digits) }
}

/// How long a [`stamp`] is.
pub const STAMP: usize = 30;

/// RFC 3339 in UTC with nine digits of nanoseconds, always of one length.
pub fn stamp(realtime_ns: u64) -> [u8; STAMP] {
    let (seconds, mut nanos) = (realtime_ns / 1_000_000_000, realtime_ns % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);

    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut two = |at: usize, number: u64| {
        text[at] = b'0' + (number / 10 % 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    two(0, year / 100);
    two(2, year);
    two(5, month);
    two(8, day);
    two(11, second / 3_600);
    two(14, second / 60 % 60);
    two(17, second % 60);
    for at in (20..29).rev() {
        text[at] = b'0' + (nanos % 10) as u8;
        nanos /= 10;
    }
    text
}
