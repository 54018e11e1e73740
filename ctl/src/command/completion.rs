//! `ctl completion`: what a shell can complete.

use crate::cli::Cli;
use crate::output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  ctl completion bash > /etc/bash_completion.d/ctl
  ctl completion zsh > \"${fpath[1]}/_ctl\"
  ctl completion fish > ~/.config/fish/completions/ctl.fish";

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Arguments {
    /// Carry it out.
    pub fn run(self) -> anyhow::Result<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ctl", &mut text);
        output::write(&String::from_utf8_lossy(&text))?;
        Ok(0)
    }
}
