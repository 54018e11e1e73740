//! The last words of the container library: its log lines, kept in a memfd that its clones share with us.
//!
//! libcontainer flattens errors to one line when they cross a process boundary; the cause is only in its log.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata};

/// More than any failure says; keeps a loop that logs from eating memory.
const MAX_BYTES: u64 = 64 << 10;
/// What a [`wharf_protocol::Failure`] carries.
const MAX_LINES: usize = 20;

/// Where the lines go.
pub struct Journal {
    memfd: OwnedFd,
}

impl Journal {
    /// Take the log lines of this process and of all that it will clone.
    pub fn install() -> anyhow::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memfd =
            match rustix::fs::memfd_create(c"wharf-journal", flags | rustix::fs::MemfdFlags::NOEXEC_SEAL) {
                Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"wharf-journal", flags)?,
                other => other?,
            };
        // One subscriber per process; a second call (tests) leaves the first in place.
        let _ = tracing::subscriber::set_global_default(Lines { fd: memfd.as_raw_fd() });
        Ok(Self { memfd })
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        let mut bytes = vec![0; MAX_BYTES as usize];
        let length = rustix::io::pread(&self.memfd, &mut bytes, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(MAX_LINES)..].to_vec()
    }
}

/// Writes errors, one line each, with one write(2): the file offset is shared between clones.
struct Lines {
    fd: i32,
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        let text = format!("{}{}\n", line.message.replace('\n', " "), line.fields.replace('\n', " "));
        // SAFETY: the descriptor stays open as long as the process runs this program.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.fd) };
        let full =
            rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size as u64 + text.len() as u64 > MAX_BYTES);
        if !full {
            // A line that cannot be kept is no reason to fail what is being logged.
            let _ = rustix::io::write(fd, text.as_bytes());
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// The sentence for the user out of what the library returned and logged.
///
/// A failed mount is named by its destination; otherwise the first error that was logged is the cause, the later
/// ones repeat it on the way up.
pub fn sentence(returned: &str, lines: &[String]) -> String {
    for line in lines {
        let Some(rest) = line.strip_prefix("failed to mount ") else { continue };
        let Some(destination) = between(rest, "destination: \"", "\"") else { continue };
        let source = between(rest, "source: Some(\"", "\"").filter(|source| source.starts_with('/'));
        let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
        let options = between(rest, "options: Some([", "])").unwrap_or_default().replace('"', "");
        let with = if options.is_empty() { String::new() } else { format!(" with {options}") };
        let said = rest.rsplit_once(" }: ").map_or(rest, |(_, said)| said);
        // The library's words for "some system call failed"; which error it was stands in a later line.
        let cause = match said {
            "syscall" | "io error" | "nix error" => lines
                .iter()
                .find_map(|line| line.split_once("failed to prepare rootfs err="))
                .map_or(said, |(_, err)| between(err, "Nix(", ")").unwrap_or(err)),
            said => said,
        };
        return format!("mounting {destination}{from}{with} failed: {cause}");
    }
    match lines.first() {
        Some(first) => format!("making the container failed: {first} ({returned})"),
        None => format!("making the container failed: {returned}"),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = text[start..].find(after)?;
    Some(&text[start..start + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_mount_is_named_by_its_destination() {
        let lines = vec![
            "failed to mount Mount { destination: \"/data\", typ: Some(\"bind\"), source: Some(\"/m/0\"), options: \
             Some([\"bind\", \"ro\"]), uid_mappings: None, gid_mappings: None }: syscall"
                .to_owned(),
            "failed to prepare rootfs err=Mount(Syscall(Nix(EINVAL)))".to_owned(),
        ];
        let text = sentence("exec process failed", &lines);
        assert_eq!(text, "mounting /data from /m/0 with bind, ro failed: EINVAL");
    }

    #[test]
    fn otherwise_the_first_error_is_the_cause() {
        let lines = vec!["failed to set hostname err=EINVAL".to_owned(), "failed again".to_owned()];
        assert!(sentence("broken", &lines).contains("failed to set hostname err=EINVAL (broken)"));
        assert_eq!(sentence("broken", &[]), "making the container failed: broken");
    }
}
