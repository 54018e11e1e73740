//! `ctl`, the command line of wharf: turns flags into calls of wharfd, and answers into text.
//!
//! It decides nothing about containers. What it does itself is to be a good process on both sides: of a
//! terminal or pipeline here, of a container's streams, signals and exit code there.

mod assignments;
mod cli;
mod command;
mod connection;
mod container_flags;
mod cri;
mod failure;
mod filter;
mod foreground;
mod id_file;
mod lifecycle_flags;
mod listing;
mod moment;
mod mounts;
mod output;
mod probe_flags;
mod probe_target;
mod quantity;
mod record;
mod relay;
mod restart_flags;
mod several;
mod signal;
mod standalone;
mod table;
mod template;
mod terminal;

use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;

fn main() {
    terminal::restore_on_panic();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => carry_out(cli),
        Err(error) => explain(&error, &arguments),
    };
    terminal::restore();
    // Not by returning: threads that copy may still wait for input that never comes.
    std::process::exit(i32::from(code));
}

fn carry_out(cli: cli::Cli) -> u8 {
    let otherwise = cli.failure_code();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(code) => code,
        Err(error) => {
            // Before anything is said: in raw mode a line break is half a one.
            terminal::restore();
            if !error.is::<failure::StdoutClosed>() {
                output::say(&failure::message(&error));
            }
            failure::code(&error, otherwise)
        }
    }
}

/// A command line that cannot be carried out, or a wish for help.
fn explain(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let wished = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if wished || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Help for a reader that has gone needs no complaint.
        let _ = error.print();
        return u8::from(!wished);
    }
    let text = error.render().to_string();
    output::say(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    cli::usage_failure_code(arguments)
}
