//! `ctl exec`: one more process in a container.

use crate::assignments;
use crate::connection::Client;
use crate::failure::StdoutClosed;
use crate::foreground::{Caught, Ending};
use crate::output;
use crate::relay::{self, Output, Progress, Report};
use crate::terminal;
use anyhow::{Context, bail};
use clap::Args;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::termios::{Winsize, tcsetwinsize};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use wharf_bus::proxy::ContainerProxy;
use wharf_bus::types::{ExecOptions, Streams};

const EXAMPLES: &str = "\
Exit code: the command's own; 128+N if signal N ended it, 127 if it does not exist, 126 if it cannot be executed, \
125 for any other failure of ctl or wharfd. Unlike docker's, ctl passes signals on, so ctrl-c ends the command.

Examples:
  ctl exec web ls /
  ctl exec -it web sh
  ctl exec -u nobody -w /tmp -e A=1 web env
  ctl exec -i db psql < dump.sql";

/// The process has ended, but a child of it may keep its output open, such as a daemon that it started. When so
/// long nothing comes from there, ctl leaves.
const QUIET: Duration = Duration::from_millis(250);

/// Run one more process in a running container
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "ctl exec [OPTIONS] CONTAINER COMMAND [ARG]...")]
pub struct Arguments {
    /// Pass standard input on to it
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for it and do not show its output
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable; KEY alone takes the value from ctl's environment
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file, one KEY=VALUE or KEY a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User, and group, by name or id [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory, absolute [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    // One list: whatever follows the container belongs to the command, even if ctl knows the flag.
    #[arg(value_name = "CONTAINER", required = true, trailing_var_arg = true)]
    container_and_command: Vec<String>,
}

impl Arguments {
    /// Carry it out.
    pub async fn run(self, socket: &Path) -> anyhow::Result<u8> {
        let Some((name, command)) = self.container_and_command.split_first() else {
            bail!("give a container and a command, such as `ctl exec web sh`");
        };
        if command.is_empty() {
            bail!("the command is missing: `ctl exec [OPTIONS] {name} COMMAND [ARG]...`");
        }
        if !self.detach {
            terminal::require(self.interactive, self.tty)?;
        }
        let size = if self.tty { terminal::size() } else { None };
        let options = ExecOptions {
            command: command.to_vec(),
            env: assignments::environment(&self.env_file, &self.env)?.into_iter().collect(),
            user: self.user,
            working_directory: self.workdir,
            terminal: self.tty,
            stdin: self.interactive && !self.tty,
            detach: self.detach,
            rows: size.map(|(rows, _)| rows),
            columns: size.map(|(_, columns)| columns),
        };
        let client = Client::connect(socket).await?;
        let container = client.container(name).await?;
        if self.detach {
            container.exec(options).await?;
            return Ok(0);
        }
        let mut caught = Caught::new()?;
        let (number, pid, streams) = container.exec(options).await?;
        let exec = Exec { container, number, process: Process::new(pid) };
        Ok(exec.attend(streams, self.interactive, &mut caught).await?.code())
    }
}

/// A process that ctl may signal. The pidfd is opened at once, and the pid checked again before it is used: it
/// can only belong to somebody else if it ended and was reused in the moment between.
#[derive(Debug)]
struct Process {
    pid: u32,
    handle: Option<OwnedFd>,
}

impl Process {
    fn new(pid: u32) -> Self {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self { pid, handle: raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) }
    }

    async fn signal(&self, container: &ContainerProxy<'_>, number: i32) -> anyhow::Result<()> {
        let (Some(handle), Some(signal)) = (&self.handle, Signal::from_named_raw(number)) else {
            return Ok(());
        };
        // One that has ended needs no signal.
        if container.processes().await?.iter().any(|process| process.pid == self.pid) {
            pidfd_send_signal(handle, signal)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Exec {
    container: ContainerProxy<'static>,
    number: u64,
    process: Process,
}

impl Exec {
    async fn attend(
        self,
        mut streams: Streams,
        interactive: bool,
        caught: &mut Caught,
    ) -> anyhow::Result<Ending> {
        let (sender, mut reports) = mpsc::unbounded_channel();
        let mut window = signal(SignalKind::window_change()).context("catching window changes")?;
        let mut take = |name: &str| streams.remove(name).map(OwnedFd::from);
        let (master, stdin, stdout, stderr) =
            (take("terminal"), take("stdin"), take("stdout"), take("stderr"));
        let mut outputs: Vec<Progress> = Vec::new();
        let mut to_resize = None;
        if let Some(master) = master {
            to_resize = Some(master.try_clone().context("the terminal's stream")?);
            if interactive {
                terminal::make_raw()?;
                relay::input(master.try_clone().context("the terminal's stream")?, None, sender.clone());
            }
            outputs.push(relay::output(master, Output::Stdout, sender.clone()));
        }
        if let Some(stdin) = stdin {
            relay::input(stdin, None, sender.clone());
        }
        for (stream, target) in [(stdout, Output::Stdout), (stderr, Output::Stderr)] {
            if let Some(stream) = stream {
                outputs.push(relay::output(stream, target, sender.clone()));
            }
        }
        let mut open = outputs.len();
        let waiting = self.container.clone();
        let number = self.number;
        let mut exit = tokio::spawn(async move { waiting.wait_exec(number).await });
        let mut code = None;
        let mut broken = None;
        let mut before: Vec<u64> = Vec::new();
        let mut look = tokio::time::interval(QUIET);
        loop {
            if let Some(code) = code
                && open == 0
            {
                return match broken {
                    Some(error) if code == 0 => Err(anyhow::Error::from(error).context("copying the output")),
                    Some(_) | None => Ok(Ending::Exited(code)),
                };
            }
            tokio::select! {
                Some(report) = reports.recv() => match report {
                    Report::OutputEnded | Report::ReaderGone(Output::Stderr) => open -= 1,
                    Report::ReaderGone(Output::Stdout) => {
                        // As a program of the host would end.
                        self.process.signal(&self.container, 13).await?;
                        return Err(StdoutClosed.into());
                    }
                    Report::Broken(error) => {
                        open -= 1;
                        broken = Some(error);
                    }
                    Report::Detach => {}
                },
                result = &mut exit, if code.is_none() => code = Some(result.context("waiting for the command")??),
                number = caught.next() => {
                    if let Err(error) = self.process.signal(&self.container, number).await {
                        output::say(&format!("signal {number} was not passed on: {}", crate::failure::message(&error)));
                        return Ok(Ending::Left(number));
                    }
                }
                _ = window.recv(), if to_resize.is_some() => {
                    if let (Some(master), Some((rows, columns))) = (&to_resize, terminal::size()) {
                        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                        // Its last user may just have gone.
                        let _ = tcsetwinsize(master, size);
                    }
                }
                _ = look.tick(), if code.is_some() => {
                    let now: Vec<u64> = outputs.iter().map(|output| output.load(Ordering::Relaxed)).collect();
                    let writing = now.iter().any(|reading| reading & 1 == 1);
                    if now == before && !writing {
                        open = 0;
                    }
                    before = now;
                }
            }
        }
    }
}
