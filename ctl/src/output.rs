//! Standard output, and whether it is a terminal.

use crate::failure::StdoutClosed;
use rustix::termios;
use std::io::{self, IsTerminal, Write};

/// Write to standard output. A reader that has gone away is an error of its own, told to nobody.
pub fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(anyhow::Error::from(error).context("writing to standard output")),
    }
}

/// Write one line to standard output.
pub fn line(text: &str) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}

/// Say something on standard error, where a failure to do so has no one left to be told.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "ctl: {text}");
}

/// The same where the cursor may stand behind a prompt of the container.
pub fn say_below(text: &str) {
    let _ = writeln!(io::stderr().lock(), "\nctl: {text}");
}

/// Is standard output a terminal?
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Characters per line, if standard output is a terminal that says so.
pub fn width() -> Option<usize> {
    let size = termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// May standard output have colours? See <https://no-color.org>.
pub fn has_colours() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    !forbidden && !dumb && is_terminal()
}
