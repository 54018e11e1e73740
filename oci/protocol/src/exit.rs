//! The exit record: the one file in which a keeper says how its container ended.
//!
//! The keeper has no allocator and writes plain lines; this is their reader. A record is complete or absent: it is
//! written under another name and renamed, and what a power cut leaves of one is refused here.

use std::collections::HashMap;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// As waitpid(2) gives it.
    pub wait_status: i32,
    /// CLOCK_REALTIME, nanoseconds since 1970; for display.
    pub finished_realtime_ns: u64,
    /// CLOCK_BOOTTIME, nanoseconds; for delays.
    pub finished_boottime_ns: u64,
    /// Output that could not be stored (disk full), in bytes.
    pub dropped_bytes: u64,
}

/// Why a file is no exit record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Written by a keeper that we do not know.
    #[error("version {0:?} of the exit record is unknown")]
    Version(String),
    /// A line is missing or no number.
    #[error("the exit record has no usable {0:?}")]
    Field(&'static str),
}

impl ExitRecord {
    /// The name of the record of run `run`, in [`crate::Create::record_dir`].
    pub fn file_name(run: u64) -> String {
        format!("exit.{run}")
    }

    /// Read the lines `key value`; unknown keys are skipped, so that a later keeper may say more.
    pub fn parse(text: &str) -> Result<Self, BadRecord> {
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        match fields.get("version") {
            Some(&"1") => {}
            other => return Err(BadRecord::Version(other.copied().unwrap_or_default().to_owned())),
        }
        fn field<T: std::str::FromStr>(
            fields: &HashMap<&str, &str>,
            name: &'static str,
        ) -> Result<T, BadRecord> {
            fields.get(name).and_then(|text| text.parse().ok()).ok_or(BadRecord::Field(name))
        }
        Ok(Self {
            wait_status: field(&fields, "status")?,
            finished_realtime_ns: field(&fields, "realtime_ns")?,
            finished_boottime_ns: field(&fields, "boottime_ns")?,
            dropped_bytes: field(&fields, "dropped_bytes")?,
        })
    }

    /// The exit code as a shell shows it: the code, or 128 + the signal.
    pub fn exit_code(&self) -> i32 {
        exit_code(self.wait_status)
    }
}

/// What waitpid(2) gives, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// It ended with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl From<i32> for WaitStatus {
    fn from(wait_status: i32) -> Self {
        match wait_status & 0x7f {
            0 => Self::Code(((wait_status >> 8) & 0xff) as u8),
            signal => Self::Signal(signal),
        }
    }
}

/// The exit code as a shell shows it, from what waitpid(2) gives: the code, or 128 + the signal.
pub fn exit_code(wait_status: i32) -> i32 {
    match wait_status.into() {
        WaitStatus::Code(code) => code.into(),
        WaitStatus::Signal(signal) => 128 + signal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_and_unknown_lines_are_skipped() {
        let text = "version 1\nstatus 1280\nrealtime_ns 5\nboottime_ns 7\ndropped_bytes 0\nlater thing\n";
        let record = ExitRecord::parse(text).expect("a complete record");
        assert_eq!((record.exit_code(), record.finished_realtime_ns), (5, 5));
    }

    #[test]
    fn killed_by_a_signal_is_128_plus_the_signal() {
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(0x80 | 6), 134);
    }

    #[test]
    fn wait_status_is_a_code_or_a_signal_and_the_core_dump_is_left_out() {
        assert_eq!(WaitStatus::from(0xff00), WaitStatus::Code(255));
        assert_eq!(WaitStatus::from(0x80 | 6), WaitStatus::Signal(6));
    }

    #[test]
    fn truncated_and_foreign_records_are_refused() {
        assert_eq!(ExitRecord::parse(""), Err(BadRecord::Version(String::new())));
        assert_eq!(ExitRecord::parse("version 2\n"), Err(BadRecord::Version("2".into())));
        assert_eq!(ExitRecord::parse("version 1\nstatus 0\n"), Err(BadRecord::Field("realtime_ns")));
    }
}
