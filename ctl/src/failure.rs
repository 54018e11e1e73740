//! What goes wrong, as the user reads it: one sentence, a hint where there is one, and ctl's exit code.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use wharf_bus::Error as BusError;
use zbus::DBusError;

/// ctl itself failed, where the container's own codes are passed through (run, exec), as in docker.
pub const OURS: u8 = 125;
/// The command is there but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub const NOT_FOUND: u8 = 127;
/// Standard output was closed by whoever read it: as if SIGPIPE (13) had ended ctl.
pub const STDOUT_CLOSED: u8 = 128 + 13;

/// The reader of standard output has gone. Nothing to say: nobody listens.
#[derive(Debug)]
pub struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for StdoutClosed {}

/// There is no daemon to talk to.
#[derive(Debug)]
pub struct NoDaemon {
    /// Where we looked.
    pub socket: PathBuf,
    /// What the kernel said.
    pub cause: io::Error,
}

impl fmt::Display for NoDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        let kind = self.cause.kind();
        if kind == io::ErrorKind::PermissionDenied {
            return write!(
                f,
                "no permission to talk to wharfd at {socket}: this needs root, try `sudo ctl …`"
            );
        }
        if !matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return write!(f, "wharfd at {socket} cannot be reached: {}", self.cause);
        }
        writeln!(f, "no wharfd listens at {socket}")?;
        if self.socket == Path::new(wharf_bus::names::PRIVATE_SOCKET) {
            write!(
                f,
                "  start it with `systemctl start wharfd` or `sudo wharfd`, choose another one with --socket,\n  or let ctl bring its own for one container: `sudo ctl run --standalone …`"
            )
        } else {
            write!(
                f,
                "  start one with `wharfd --runtime-dir {}`, or correct --socket (or WHARF_SOCKET)",
                self.socket.parent().unwrap_or(Path::new("/run/wharf")).display()
            )
        }
    }
}

impl std::error::Error for NoDaemon {}

/// The sentence for the user: contexts first, then what the daemon or the system said.
pub fn message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        // A bus error says it all; what lies beneath is how it travelled.
        if let Some(bus) = cause.downcast_ref::<BusError>() {
            parts.push(bus_message(bus));
            break;
        }
        if let Some(bus) = cause.downcast_ref::<zbus::Error>() {
            parts.push(transport_message(bus));
            break;
        }
        let mut text = cause.to_string();
        // The number says nothing that the words did not.
        if let Some(at) = text.rfind(" (os error ") {
            text.truncate(at);
        }
        if parts.last() != Some(&text) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// The exit code: the container's rules for a command that could not be run, else `otherwise`.
pub fn code(error: &anyhow::Error, otherwise: u8) -> u8 {
    if error.is::<StdoutClosed>() {
        return STDOUT_CLOSED;
    }
    if otherwise != OURS {
        return otherwise;
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<BusError>()) {
        Some(BusError::CommandNotFound(_)) => NOT_FOUND,
        Some(BusError::CommandNotExecutable(_)) => NOT_EXECUTABLE,
        Some(_) | None => otherwise,
    }
}

/// The object was there a moment ago.
pub fn is_gone(error: &BusError) -> bool {
    let BusError::ZBus(error) = error else { return matches!(error, BusError::NoSuchContainer(_)) };
    if let zbus::Error::FDO(inner) = error {
        names_a_missing_object(inner.name().as_str())
    } else {
        matches!(error, zbus::Error::MethodError(name, ..) if names_a_missing_object(name.as_str()))
    }
}

fn names_a_missing_object(name: &str) -> bool {
    matches!(
        name,
        "org.freedesktop.DBus.Error.UnknownObject"
            | "org.freedesktop.DBus.Error.UnknownInterface"
            | "org.freedesktop.DBus.Error.UnknownMethod"
    )
}

/// The daemon has gone, as opposed to: it answered with an error.
pub fn is_lost(error: &BusError) -> bool {
    let BusError::ZBus(error) = error else { return false };
    if let zbus::Error::FDO(inner) = error {
        matches!(
            inner.name().as_str(),
            "org.freedesktop.DBus.Error.Disconnected" | "org.freedesktop.DBus.Error.NoReply"
        )
    } else {
        matches!(error, zbus::Error::InputOutput(_))
    }
}

/// What a bus error says, without its name.
pub fn bus_message(error: &BusError) -> String {
    let (text, hint) = match error {
        BusError::ZBus(inner) => return transport_message(inner),
        BusError::NoSuchContainer(text) => (text, "see `ctl ps -a`"),
        BusError::Ambiguous(text) => (text, "give more digits of the id, or the name"),
        BusError::NameTaken(text) => (text, "choose another --name, or remove that container with `ctl rm`"),
        BusError::Running(text) => (text, "stop it first with `ctl stop`, or use -f where there is one"),
        BusError::NoSuchImage(text) => (text, "see `ctl image ls`; load one with `ctl image load FILE`"),
        BusError::ImageInUse(text) => (text, "remove its containers first, see `ctl ps -a`"),
        BusError::BadImage(text) => {
            (text, "nothing of it was loaded; save it anew, or fetch it from where it was made")
        }
        BusError::NotRunning(text)
        | BusError::WrongState(text)
        | BusError::InvalidSpec(text)
        | BusError::InvalidArgument(text)
        | BusError::CommandNotFound(text)
        | BusError::CommandNotExecutable(text)
        | BusError::Unsupported(text)
        | BusError::AccessDenied(text)
        | BusError::LimitReached(text)
        | BusError::Failed(text) => (text, ""),
    };
    // The daemon mostly says itself what to do, after a semicolon and with the names filled in.
    if hint.is_empty() || text.contains(';') { text.clone() } else { format!("{text}\n  {hint}") }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "zbus's list is long and open")]
fn transport_message(error: &zbus::Error) -> String {
    match error {
        zbus::Error::InputOutput(_) => {
            "the connection to wharfd was lost; see its log for the reason".to_owned()
        }
        zbus::Error::MethodError(name, description, _) => fdo_message(name.as_str(), description.as_deref()),
        zbus::Error::FDO(inner) => fdo_message(inner.name().as_str(), inner.description()),
        zbus::Error::Handshake(text) => {
            format!(
                "wharfd refused the connection: {text}\n  only root, and the user it runs as, may talk to it"
            )
        }
        other => format!("wharfd answered in a way that ctl does not understand: {other}"),
    }
}

fn fdo_message(name: &str, description: Option<&str>) -> String {
    let text = description.unwrap_or("no reason given");
    match name.rsplit('.').next().unwrap_or(name) {
        "UnknownObject" | "UnknownInterface" => "it has been removed meanwhile".to_owned(),
        "UnknownMethod" => {
            format!("this wharfd does not know the call ({text}); is it older than ctl? See `ctl version`")
        }
        "Disconnected" | "NoReply" => {
            "the connection to wharfd was lost; see its log for the reason".to_owned()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn bus_error_is_its_message_with_a_hint_and_no_name() {
        let error = anyhow::Error::from(BusError::NoSuchContainer("no container is called 'web'".into()));
        let text = message(&error);
        assert!(text.starts_with("no container is called 'web'"), "{text}");
        assert!(text.contains("ctl ps -a") && !text.contains("org.wharf1"), "{text}");
    }

    #[test]
    fn context_comes_first_and_nothing_is_said_twice() {
        let error: anyhow::Result<()> = Err(BusError::Failed("disk full".into())).context("web");
        assert_eq!(error.map_err(|error| message(&error)), Err("web: disk full".into()));
    }

    #[test]
    fn codes_are_dockers() {
        assert_eq!(code(&BusError::CommandNotFound("x".into()).into(), OURS), 127);
        assert_eq!(code(&BusError::CommandNotExecutable("x".into()).into(), OURS), 126);
        assert_eq!(code(&BusError::InvalidSpec("x".into()).into(), OURS), 125);
        assert_eq!(code(&BusError::CommandNotFound("x".into()).into(), 1), 1);
        assert_eq!(code(&anyhow!("x"), OURS), 125);
        assert_eq!(code(&StdoutClosed.into(), 1), 141);
    }

    #[test]
    fn missing_daemon_is_told_with_the_remedy() {
        let missing =
            |socket: &str, kind| NoDaemon { socket: socket.into(), cause: io::Error::from(kind) }.to_string();
        let text = missing(wharf_bus::names::PRIVATE_SOCKET, io::ErrorKind::NotFound);
        assert!(text.contains("systemctl start wharfd") && text.contains("--standalone"), "{text}");
        assert!(missing("/tmp/x/private", io::ErrorKind::ConnectionRefused).contains("--runtime-dir /tmp/x"));
        assert!(missing("/tmp/x/private", io::ErrorKind::PermissionDenied).contains("root"));
    }
}
