//! `ctl logs`: what a container has written.

use crate::connection::Client;
use crate::cri::{Decoder, Stream};
use crate::failure::{self, StdoutClosed};
use crate::foreground::{RETRY, RETURN};
use crate::moment;
use crate::relay;
use anyhow::Context;
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::time::{Instant, sleep};
use wharf_bus::proxy::ContainerProxy;
use wharf_bus::types::LogOptions;

const EXAMPLES: &str = "\
What the container wrote to standard error comes out on standard error.

Examples:
  ctl logs web
  ctl logs -f --tail 20 web              the last 20 lines, and then what comes
  ctl logs --since 10m -t web            of the last ten minutes, with times
  ctl logs --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z web";

/// Bytes read at once: the capacity of the daemon's pipe.
const CHUNK: usize = 1 << 16;

/// Show what a container has written
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Number of lines from the end, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Only from this time on: RFC 3339, seconds since 1970, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Only before this time, in the same forms
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id, or unique beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `--tail`.
#[derive(Debug, Clone, Copy)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        // docker takes any negative number for «all».
        "all" | "-1" => Ok(Tail(None)),
        text => text
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| format!("a number of lines, or all; got '{text}'")),
    }
}

fn time(text: &str) -> Result<u64, String> {
    moment::parse(text, moment::now())
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let mut client = Client::connect(socket).await?;
        let mut container = client.container(&self.container).await?;
        let id = container.id().await?;
        let mut options =
            LogOptions { follow: self.follow, tail: self.tail.0, since: self.since, until: self.until };
        let mut decoder = Decoder::new(self.timestamps);
        loop {
            let source = File::from(OwnedFd::from(container.logs(options.clone()).await?));
            // In a thread of its own: the connection must be read on, or the daemon's signals would pile up.
            decoder = tokio::task::spawn_blocking(move || show(source, decoder)).await??;
            if !self.follow || !is_lost(&container).await {
                let mut sink = Sink::default();
                decoder.finish(|stream, bytes| sink.add(stream, bytes));
                sink.flush()?;
                return Ok(0);
            }
            // The daemon is being replaced; the log goes on where it broke off.
            client = reconnect(socket).await?;
            container = match client.container(&id).await {
                Ok(container) => container,
                Err(error) if error.downcast_ref().is_some_and(failure::is_gone) => return Ok(0),
                Err(error) => return Err(error),
            };
            if !decoder.last_time().is_empty() {
                options.tail = None;
                options.since = Some(moment::parse(decoder.last_time(), 0).map_err(anyhow::Error::msg)?);
            }
            decoder.resume();
        }
    }
}

/// Has the daemon gone, or just nothing more to say?
async fn is_lost(container: &ContainerProxy<'_>) -> bool {
    container.state().await.is_err_and(|error| failure::is_lost(&error.into()))
}

async fn reconnect(socket: &Path) -> anyhow::Result<Client> {
    let deadline = Instant::now() + RETURN;
    loop {
        sleep(RETRY).await;
        match Client::connect(socket).await {
            Ok(client) => return Ok(client),
            Err(_) if Instant::now() < deadline => {}
            Err(error) => return Err(error.context("wharfd has gone while the log was followed")),
        }
    }
}

/// Show the log until its source ends. The decoder knows how far it came.
fn show(mut source: File, mut decoder: Decoder) -> anyhow::Result<Decoder> {
    let mut sink = Sink::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(decoder),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(&source, PollFlags::IN)];
                poll(&mut ready, None).context("waiting for the log")?;
                continue;
            }
            Err(error) => return Err(error).context("reading the log"),
        };
        decoder.feed(&buffer[..count], |stream, bytes| sink.add(stream, bytes));
        sink.flush()?;
    }
}

/// Output in runs of one stream, so that a terminal shows both in the order in which they were written.
#[derive(Default)]
struct Sink {
    runs: Vec<(Stream, Vec<u8>)>,
}

impl Sink {
    fn add(&mut self, stream: Stream, bytes: &[u8]) {
        match self.runs.last_mut() {
            Some((last, text)) if *last == stream => text.extend_from_slice(bytes),
            _ => self.runs.push((stream, bytes.to_vec())),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        for (stream, text) in self.runs.drain(..) {
            let result = match stream {
                // Unbuffered: std would search every line end for its own buffer.
                Stream::Stdout => relay::write_all(rustix::stdio::stdout(), &text).map_err(io::Error::from),
                Stream::Stderr => io::stderr().lock().write_all(&text),
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(StdoutClosed.into()),
                Err(error) => return Err(error).context("writing the log"),
            }
        }
        Ok(())
    }
}
