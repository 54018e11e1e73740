//! A container in the foreground: its streams are ctl's, its signals and window size too, and its exit code.
//!
//! Streams come from the container's keeper, not from wharfd, so they go on when the daemon is replaced; only the
//! exit code has to be asked for again then. A container with `--rm` may be gone before anybody could ask: its
//! `exited` event, subscribed to before the start, has the code too.

use crate::connection::{Client, Signals};
use crate::failure::{self, StdoutClosed};
use crate::output;
use crate::record::SHORT_ID;
use crate::relay::{self, Output, Report};
use crate::terminal::{self, DetachKeys};
use anyhow::{Context, anyhow, bail};
use clap::{ArgAction, Args};
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use wharf_bus::proxy::ContainerProxy;
use wharf_bus::types::{EventRecord, StartOptions, Streams};

/// Passed on to the container. The others belong to ctl itself (WINCH, CHLD, PIPE, TSTP, …) or cannot be caught.
const PASSED_ON: [i32; 7] = [HUP, INT, QUIT, 10, 12, 14, TERM];
const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const TERM: i32 = 15;

/// What SIGKILL makes of an exit code.
const KILLED: i32 = 128 + 9;
/// The daemon sends both at once, by two tasks.
const EVENT_LAG: Duration = Duration::from_millis(200);

/// After so many attempts to end it, ctl leaves a container that does not listen, as docker does.
const PATIENCE: u32 = 3;

/// How long a daemon that has gone may take to come back once there is nothing else to do. A package upgrade
/// restarts it within a second or two.
pub const RETURN: Duration = Duration::from_secs(10);
/// How often it is tried.
pub const RETRY: Duration = Duration::from_millis(200);

/// The grace that a container has when the reader of its output has gone. A program of the host would be ended
/// at once by SIGPIPE; pid 1 of a container ignores that.
const PIPE_GRACE: i64 = 1000;

/// How a stay in the foreground ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The container did, with this code.
    Exited(i32),
    /// The user typed the detach keys.
    Detached,
    /// This signal ended ctl; the container goes on.
    Left(i32),
}

impl Ending {
    /// ctl's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(failure::OURS),
            Self::Detached => 0,
            Self::Left(signal) => u8::try_from(128 + signal).unwrap_or(failure::OURS),
        }
    }
}

/// Signals to ctl, caught from the moment this exists.
#[derive(Debug)]
pub struct Caught(mpsc::UnboundedReceiver<i32>);

impl Caught {
    /// Catch them.
    pub fn new() -> anyhow::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for number in PASSED_ON {
            let mut stream =
                signal(SignalKind::from_raw(number)).with_context(|| format!("catching signal {number}"))?;
            let sender = sender.clone();
            tokio::spawn(
                async move { while stream.recv().await.is_some() && sender.send(number).is_ok() {} },
            );
        }
        Ok(Self(receiver))
    }

    /// The next one.
    pub async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(number) => number,
            // The tasks that hold the sender end with ctl only.
            None => std::future::pending().await,
        }
    }
}

/// Exits that were announced, by container.
#[derive(Debug, Clone, Default)]
pub struct Exits(Arc<Mutex<HashMap<String, Exit>>>);

/// An exit as its event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exit {
    code: i32,
    oom_killed: bool,
}

impl Exits {
    /// Take note of every exit from now on.
    pub async fn watch(client: &Client) -> anyhow::Result<Self> {
        let exits = Self::default();
        let mut events: Signals = client.signals("Event").await?;
        let noted = exits.clone();
        tokio::spawn(async move {
            while let Some(message) = events.next().await {
                // Another version's event that we cannot read is no exit that we know of.
                if let Ok(event) = message.body().deserialize::<EventRecord>() {
                    noted.note(&event);
                }
            }
        });
        Ok(exits)
    }

    fn note(&self, event: &EventRecord) {
        if event.kind == "exited"
            && let Some(code) = event.details.get("exitCode").and_then(|code| code.parse().ok())
        {
            let oom_killed = event.details.get("oomKilled").is_some_and(|killed| killed == "true");
            let exit = Exit { code, oom_killed };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event.container.clone(), exit);
        }
    }

    fn of(&self, id: &str) -> Option<Exit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}

/// How the user's keys and ctl's signals are taken.
#[derive(Debug, Args)]
pub struct Manners {
    /// Keys that leave it running, on a terminal; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Pass ctl's signals on to it; else they end ctl
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
}

impl Manners {
    /// Every key is the container's.
    pub fn without_detaching(self) -> Self {
        Self { detach_keys: DetachKeys::none(), ..self }
    }
}

/// What a start is asked for by who stays in the foreground.
pub fn attached(terminal: bool, stdin: bool) -> StartOptions {
    let size = if terminal { terminal::size() } else { None };
    StartOptions {
        attach: true,
        stdin,
        rows: size.map(|(rows, _)| rows),
        columns: size.map(|(_, columns)| columns),
    }
}

/// Join a container that exists, and stay until it ends or the user leaves; returns ctl's exit code. `connect` is
/// told whether the container has a terminal, and whether to ask for its standard input.
pub async fn join(
    client: Client,
    name: &str,
    wants_stdin: bool,
    manners: Manners,
    connect: impl AsyncFnOnce(&ContainerProxy<'static>, bool, bool) -> anyhow::Result<Streams>,
) -> anyhow::Result<u8> {
    let container = client.container(name).await?;
    let id = container.id().await?;
    let spec = wharf_bus::Spec::parse(&container.spec().await?)?;
    let interactive = wants_stdin && spec.stdin;
    terminal::require(interactive, spec.terminal)?;
    let mut caught = Caught::new()?;
    let exits = Exits::watch(&client).await?;
    let streams = connect(&container, spec.terminal, interactive).await?;
    let foreground = Foreground {
        client,
        container,
        id,
        streams,
        exits,
        interactive,
        manners,
        ours: false,
        private: false,
    };
    Ok(foreground.attend(&mut caught).await?.code())
}

/// A container in the foreground.
#[derive(Debug)]
pub struct Foreground {
    /// The daemon.
    pub client: Client,
    /// The container.
    pub container: ContainerProxy<'static>,
    /// Its id.
    pub id: String,
    /// Its streams.
    pub streams: Streams,
    /// Exits that were announced since before it started.
    pub exits: Exits,
    /// Pass ctl's standard input on.
    pub interactive: bool,
    /// How to part from it.
    pub manners: Manners,
    /// It runs for this ctl: when the reader of its output goes away, it ends too.
    pub ours: bool,
    /// Its daemon does too: when ctl leaves, it is removed.
    pub private: bool,
}

impl Foreground {
    /// Stay until it ends, or the user leaves.
    pub async fn attend(mut self, caught: &mut Caught) -> anyhow::Result<Ending> {
        let (sender, mut reports) = mpsc::unbounded_channel();
        let mut window = signal(SignalKind::window_change()).context("catching window changes")?;
        let has_terminal = self.streams.contains_key("terminal");
        let mut open = self.connect(&sender)?;
        let (all_written, outputs) = watch::channel(open == 0);
        let mut exit = tokio::spawn(exit_code(
            self.client.clone(),
            self.container.clone(),
            self.id.clone(),
            self.exits.clone(),
            outputs,
        ));
        let mut code: Option<anyhow::Result<i32>> = None;
        let mut broken = None;
        let mut asked_to_end = 0;
        loop {
            if open == 0
                && let Some(code) = code
            {
                return match (code, broken) {
                    (Ok(0), Some(error)) => {
                        Err(anyhow::Error::from(error).context("copying the container's output"))
                    }
                    (code, _) => {
                        let code = code?;
                        self.explain(code).await;
                        Ok(Ending::Exited(code))
                    }
                };
            }
            tokio::select! {
                Some(report) = reports.recv() => match report {
                    Report::OutputEnded | Report::ReaderGone(Output::Stderr) => open -= 1,
                    Report::ReaderGone(Output::Stdout) => {
                        if self.ours && self.manners.sig_proxy {
                            // It may have ended by itself meanwhile.
                            let _ = self.container.stop(PIPE_GRACE).await;
                        }
                        return Err(StdoutClosed.into());
                    }
                    Report::Broken(error) => {
                        open -= 1;
                        broken = Some(error);
                    }
                    Report::Detach => {
                        terminal::restore();
                        let name = &self.id[..SHORT_ID.min(self.id.len())];
                        output::say_below(&format!("detached; it goes on, and `ctl attach {name}` comes back to it"));
                        return Ok(Ending::Detached);
                    }
                },
                result = &mut exit, if code.is_none() => {
                    code = Some(result.unwrap_or_else(|error| Err(anyhow!("waiting for the exit: {error}"))));
                }
                number = caught.next() => {
                    if !self.manners.sig_proxy {
                        return Ok(Ending::Left(number));
                    }
                    if matches!(number, INT | TERM | QUIT) {
                        asked_to_end += 1;
                    }
                    if asked_to_end >= PATIENCE {
                        output::say(&self.impatience());
                        return Ok(Ending::Left(number));
                    }
                    tokio::spawn(pass_on(self.client.clone(), self.container.clone(), self.id.clone(), number));
                }
                _ = window.recv(), if has_terminal => {
                    if let Some((rows, columns)) = terminal::size() {
                        self.resize(rows, columns).await;
                    }
                }
            }
            if open == 0 {
                all_written.send_replace(true);
            }
        }
    }

    /// If it fails, the next change, or none, will do.
    async fn resize(&self, rows: u16, columns: u16) {
        if self.container.resize(rows, columns).await.is_err_and(|error| failure::is_lost(&error))
            && let Ok(client) = Client::connect(&self.client.socket).await
            && let Ok(container) = client.container(&self.id).await
        {
            let _ = container.resize(rows, columns).await;
        }
    }

    /// A program that was killed for want of memory could not say so itself.
    async fn explain(&self, code: i32) {
        // The event may come a moment after the answer to `Wait`. Other codes need no explanation.
        let patience = if code == KILLED { EVENT_LAG } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        let exit = loop {
            match self.exits.of(&self.id) {
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                exit => break exit,
            }
        };
        if exit.is_some_and(|exit| exit.oom_killed) {
            output::say(
                "the container ran out of memory, and the kernel killed it or a part of it; -m sets its limit",
            );
        }
    }

    fn impatience(&self) -> String {
        let asked = format!("it was asked {PATIENCE} times to end and still runs");
        if self.private {
            format!("{asked}; killing it")
        } else {
            format!("{asked}; leaving it\n  `ctl kill {}` ends it", &self.id[..SHORT_ID.min(self.id.len())])
        }
    }

    /// Start copying; returns how many streams of output there are.
    fn connect(&mut self, reports: &mpsc::UnboundedSender<Report>) -> anyhow::Result<usize> {
        let mut take = |name: &str| self.streams.remove(name).map(OwnedFd::from);
        let (terminal, stdin, stdout, stderr) =
            (take("terminal"), take("stdin"), take("stdout"), take("stderr"));
        let mut outputs = 0;
        if let Some(terminal) = terminal {
            if self.interactive {
                let writer = terminal.try_clone().context("the terminal's stream")?;
                if terminal::is_terminal() {
                    terminal::make_raw()?;
                    relay::input(writer, Some(self.manners.detach_keys.clone()), reports.clone());
                } else {
                    relay::input(writer, None, reports.clone());
                }
            }
            relay::output(terminal, Output::Stdout, reports.clone());
            outputs += 1;
        }
        if let Some(stdin) = stdin.filter(|_| self.interactive) {
            relay::input(stdin, None, reports.clone());
        }
        for (stream, target) in [(stdout, Output::Stdout), (stderr, Output::Stderr)] {
            if let Some(stream) = stream {
                relay::output(stream, target, reports.clone());
                outputs += 1;
            }
        }
        Ok(outputs)
    }
}

async fn pass_on(client: Client, container: ContainerProxy<'static>, id: String, number: i32) {
    let result = match container.kill(number).await {
        Err(error) if failure::is_lost(&error) => kill_anew(&client, &id, number).await,
        result => result.map_err(anyhow::Error::from),
    };
    match result {
        Ok(()) => {}
        // It has ended; that is about to be seen.
        Err(error) if has_ended(&error) => {}
        Err(error) => {
            output::say(&format!("signal {number} was not passed on: {}", failure::message(&error)))
        }
    }
}

async fn kill_anew(client: &Client, id: &str, number: i32) -> anyhow::Result<()> {
    let client = Client::connect(&client.socket).await?;
    Ok(client.container(id).await?.kill(number).await?)
}

fn has_ended(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<wharf_bus::Error>() {
        Some(wharf_bus::Error::NotRunning(_)) => true,
        Some(error) => failure::is_gone(error),
        None => false,
    }
}

/// The exit code of a container, when it has ended, however long the daemon may be away meanwhile.
pub async fn wait(client: Client, container: ContainerProxy<'static>) -> anyhow::Result<i32> {
    let id = container.id().await?;
    let exits = Exits::watch(&client).await?;
    let (_nothing_to_copy, ended) = watch::channel(true);
    exit_code(client, container, id, exits, ended).await
}

/// The exit code of a container, whatever becomes of the daemon and of the container's object meanwhile.
async fn exit_code(
    client: Client,
    container: ContainerProxy<'static>,
    id: String,
    exits: Exits,
    outputs_ended: watch::Receiver<bool>,
) -> anyhow::Result<i32> {
    match container.wait().await {
        Ok(code) => return Ok(code),
        Err(error) if failure::is_gone(&error) => {
            return announced(&client, &exits, &id)
                .await
                .ok_or_else(|| anyhow!("the container was removed before its exit code could be asked for"));
        }
        Err(error) if failure::is_lost(&error) => {}
        Err(error) => return Err(error.into()),
    }
    // An exit may have been the daemon's last words.
    if let Some(exit) = exits.of(&id) {
        return Ok(exit.code);
    }
    let attempts = RETURN.as_millis() / RETRY.as_millis();
    let mut tried = 0;
    while tried < attempts {
        sleep(RETRY).await;
        // As long as output flows, the container is there, and so is the time to wait for the daemon.
        if *outputs_ended.borrow() {
            tried += 1;
        }
        let Ok(client) = Client::connect(&client.socket).await else { continue };
        match ask_again(&client, &id).await {
            Ok(code) => return Ok(code),
            Err(error) => match error.downcast_ref::<wharf_bus::Error>() {
                Some(error) if failure::is_lost(error) => {}
                Some(error) if failure::is_gone(error) => {
                    if let Some(code) = announced(&client, &exits, &id).await {
                        return Ok(code);
                    }
                    bail!(
                        "wharfd was replaced while the container ran, and has removed it: the exit code is lost"
                    );
                }
                Some(_) | None => return Err(error),
            },
        }
    }
    bail!(
        "wharfd has gone and did not come back in {} s: the exit code is not known\n  when it is back, `ctl wait {id}` or `ctl inspect {id}` tells it",
        RETURN.as_secs()
    )
}

async fn ask_again(client: &Client, id: &str) -> anyhow::Result<i32> {
    Ok(client.container(id).await?.wait().await?)
}

/// The code from an `exited` event: noted already, or kept by the daemon.
async fn announced(client: &Client, exits: &Exits, id: &str) -> Option<i32> {
    if let Some(exit) = exits.of(id) {
        return Some(exit.code);
    }
    for event in client.manager().await.ok()?.events_since(0).await.ok()? {
        exits.note(&event);
    }
    exits.of(id).map(|exit| exit.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_containers_or_a_shells() {
        assert_eq!(Ending::Exited(137).code(), 137);
        assert_eq!(Ending::Exited(-1).code(), 125);
        assert_eq!(Ending::Left(INT).code(), 130);
        assert_eq!(Ending::Detached.code(), 0);
    }

    #[test]
    fn announced_exit_is_remembered_by_container() {
        let exits = Exits::default();
        let event = |kind: &str, code: &str| EventRecord {
            sequence: 1,
            time: 1,
            kind: kind.to_owned(),
            container: "abc".to_owned(),
            name: "web".to_owned(),
            details: HashMap::from([("exitCode".to_owned(), code.to_owned())]),
        };
        exits.note(&event("started", "5"));
        exits.note(&event("exited", "what"));
        assert_eq!(exits.of("abc"), None);
        exits.note(&event("exited", "3"));
        let exit = Exit { code: 3, oom_killed: false };
        assert_eq!((exits.of("abc"), exits.of("other")), (Some(exit), None));
    }
}
