//! The command line: what there is, and who carries it out.

use crate::command;
use crate::failure;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use wharf_bus::names::PRIVATE_SOCKET;

const AFTER: &str = "\
Environment:
  WHARF_SOCKET  the socket of wharfd, as with --socket
  NO_COLOR      no colours, if not empty

`ctl COMMAND --help` explains a command, with examples.";

/// Run OCI containers on this host, with wharfd
#[derive(Debug, Parser)]
#[command(name = "ctl", version, after_help = AFTER, propagate_version = false, disable_help_subcommand = false,
    subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Socket of the wharfd to talk to
    #[arg(long, global = true, help_heading = "Global options", value_name = "PATH", env = "WHARF_SOCKET", default_value = PRIVATE_SOCKET,
        hide_env_values = true)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<command::run::Arguments>),
    Create(Box<command::create::Arguments>),
    Start(command::start::Arguments),
    Stop(command::stop::Arguments),
    Kill(command::kill::Arguments),
    Restart(command::restart::Arguments),
    ResetFailed(command::reset_failed::Arguments),
    #[command(visible_alias = "remove")]
    Rm(command::rm::Arguments),
    #[command(visible_alias = "list", alias = "ls")]
    Ps(command::ps::Arguments),
    Logs(command::logs::Arguments),
    Exec(command::exec::Arguments),
    Attach(command::attach::Arguments),
    Wait(command::wait::Arguments),
    Inspect(command::inspect::Arguments),
    Pause(command::pause::Arguments),
    Unpause(command::unpause::Arguments),
    Update(command::update::Arguments),
    Top(command::top::Arguments),
    Stats(command::stats::Arguments),
    Events(command::events::Arguments),
    Image(command::image::Arguments),
    Info(command::info::Arguments),
    Version(command::version::Arguments),
    Completion(command::completion::Arguments),
    #[command(hide = true)]
    Man(command::man::Arguments),
    // What docker users type.
    #[command(hide = true)]
    Images(command::image::ls::Arguments),
    #[command(hide = true)]
    Load(command::image::load::Arguments),
    #[command(hide = true)]
    Rmi(command::image::rm::Arguments),
    #[command(hide = true)]
    Tag(command::image::tag::Arguments),
}

impl Cli {
    /// Carry it out; returns ctl's exit code.
    pub async fn run(self) -> anyhow::Result<u8> {
        let socket = self.socket.as_path();
        match self.command {
            Command::Run(arguments) => arguments.run(socket).await,
            Command::Create(arguments) => arguments.run(socket).await,
            Command::Start(arguments) => arguments.run(socket).await,
            Command::Stop(arguments) => arguments.run(socket).await,
            Command::Kill(arguments) => arguments.run(socket).await,
            Command::Restart(arguments) => arguments.run(socket).await,
            Command::ResetFailed(arguments) => arguments.run(socket).await,
            Command::Rm(arguments) => arguments.run(socket).await,
            Command::Ps(arguments) => arguments.run(socket).await,
            Command::Logs(arguments) => arguments.run(socket).await,
            Command::Exec(arguments) => arguments.run(socket).await,
            Command::Attach(arguments) => arguments.run(socket).await,
            Command::Wait(arguments) => arguments.run(socket).await,
            Command::Inspect(arguments) => arguments.run(socket).await,
            Command::Pause(arguments) => arguments.run(socket).await,
            Command::Unpause(arguments) => arguments.run(socket).await,
            Command::Update(arguments) => arguments.run(socket).await,
            Command::Top(arguments) => arguments.run(socket).await,
            Command::Stats(arguments) => arguments.run(socket).await,
            Command::Events(arguments) => arguments.run(socket).await,
            Command::Image(arguments) => arguments.run(socket).await,
            Command::Info(arguments) => arguments.run(socket).await,
            Command::Version(arguments) => arguments.run(socket).await,
            Command::Completion(arguments) => arguments.run(),
            Command::Man(arguments) => arguments.run(),
            Command::Images(arguments) => arguments.run(socket).await,
            Command::Load(arguments) => arguments.run(socket).await,
            Command::Rmi(arguments) => arguments.run(socket).await,
            Command::Tag(arguments) => arguments.run(socket).await,
        }
    }

    /// The exit code of ctl's own failures: where the container's code is passed on, one that stands out.
    pub fn failure_code(&self) -> u8 {
        let passes_a_code_on = match &self.command {
            Command::Run(_) | Command::Create(_) | Command::Exec(_) | Command::Attach(_) => true,
            Command::Start(arguments) => arguments.attach,
            Command::Stop(_)
            | Command::Kill(_)
            | Command::Restart(_)
            | Command::ResetFailed(_)
            | Command::Rm(_)
            | Command::Ps(_)
            | Command::Logs(_)
            | Command::Wait(_)
            | Command::Inspect(_)
            | Command::Pause(_)
            | Command::Unpause(_)
            | Command::Update(_)
            | Command::Top(_)
            | Command::Stats(_)
            | Command::Events(_)
            | Command::Image(_)
            | Command::Info(_)
            | Command::Version(_)
            | Command::Completion(_)
            | Command::Man(_)
            | Command::Images(_)
            | Command::Load(_)
            | Command::Rmi(_)
            | Command::Tag(_) => false,
        };
        if passes_a_code_on { failure::OURS } else { 1 }
    }
}

/// The same for a command line that could not be read: by the first word that is no flag.
pub fn usage_failure_code(arguments: &[OsString]) -> u8 {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--socket") => {
                words.next();
            }
            Some("run" | "create" | "exec" | "attach") => return failure::OURS,
            Some(flag) if flag.starts_with('-') => {}
            Some(_) | None => return 1,
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_argument_and_command_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn limits_say_their_unit_and_default() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for flag in ["cpus", "memory", "memory_swap", "pids_limit", "stop_timeout", "shm_size", "cpu_shares"]
        {
            let argument = run.get_arguments().find(|argument| argument.get_id() == flag).unwrap();
            assert!(argument.get_help().unwrap().to_string().contains("[default"), "{flag}");
        }
    }

    #[test]
    fn usage_errors_of_run_and_exec_stand_out() {
        let code = |line: &str| usage_failure_code(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(code("ctl run --foo"), 125);
        assert_eq!(code("ctl --socket run exec --foo"), 125);
        assert_eq!(code("ctl --socket=/x ps --foo"), 1);
        assert_eq!(code("ctl rnu"), 1);
    }
}
