//! `c10k completions`: what a shell needs to complete this program's command lines.

use std::io::Write;

use clap::Command;
use clap_complete::{Shell, generate};

use crate::Failure;
use crate::stdio::stdout;

/// Prints the completions for a shell
///
/// Prints a script with which the shell completes verbs, options and their values. It is made of
/// the definitions that --help prints.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k completions bash > /usr/share/bash-completion/completions/c10k
  c10k completions zsh > ~/.zfunc/_c10k
  c10k completions fish > ~/.config/fish/completions/c10k.fish
  source <(c10k completions bash)    for this shell only")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut program: Command) -> Result<(), Failure> {
    let (mut script, name) = (Vec::new(), program.get_name().to_owned());
    generate(args.shell, &mut program, name, &mut script);
    Ok(stdout().write_all(&script)?)
}
