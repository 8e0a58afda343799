//! `c10k man`: the manual pages.

use std::io::Write;

use clap::Command;
use clap_mangen::Man;

use crate::Failure;
use crate::stdio::stdout;

/// Prints the manual page of the program or of a verb
///
/// Prints a page in the format of man(1), made of the definitions that --help prints.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k man > c10k.1
  c10k man load > c10k-load.1
  c10k man serve | man -l -")]
pub(crate) struct Args {
    /// The verb; without one, the page is that of the program
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

pub(crate) fn run(args: &Args, program: Command) -> Result<(), Failure> {
    let mut program = program.disable_help_subcommand(true);
    // Gives each verb the name of its page (c10k-load), and what all verbs have.
    program.build();
    let command = match &args.verb {
        None => &program,
        Some(verb) => program.find_subcommand(verb).ok_or_else(|| {
            let verbs = program.get_subcommands().map(Command::get_name);
            let verbs = verbs.collect::<Vec<_>>().join(", ");
            Failure::Cannot(format!("there is no verb {verb:?}; there are {verbs}"))
        })?,
    };
    let mut page = Vec::new();
    let version = concat!("c10k ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(version).render(&mut page)?;
    Ok(stdout().write_all(&page)?)
}
