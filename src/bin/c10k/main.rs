//! The `c10k` program: serves, asks, loads, and races the ways to serve against each other.

mod bars;
mod child;
mod client;
mod hdr;
mod lab;
mod load;
mod merge;
mod million;
mod proc;
mod protocol;
mod race;
mod serve;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

/// A hand-rolled Linux epoll reactor, and the C10K argument on your own machine.
#[derive(Debug, Parser)]
#[command(name = "c10k", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    // What each does is told at its arguments: said here, it would hide what is said there.
    Serve(serve::Args),
    Client(client::Args),
    Load(Box<load::Args>),
    Merge(merge::Args),
    Race(race::Args),
    Lab(lab::Args),
    Million(million::Args),
}

/// How a run ended that did not simply succeed.
#[derive(Debug)]
enum Failure {
    /// The run found failures: a mismatch, a lost reply. Exit status 1.
    Found(String),
    /// Bad usage, or it could not start. Exit status 2.
    Cannot(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Cannot(error.to_string())
    }
}

/// Ends with status 2 and one line, where clap would print several.
fn refuse_usage(error: &clap::Error) -> ! {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoVerb;
    if !error.use_stderr() || error.kind() == NoVerb {
        error.exit();
    }
    let text = error.to_string();
    let is_cause = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more");
    let cause: Vec<_> =
        text.lines().take_while(is_cause).map(str::trim).filter(|line| !line.is_empty()).collect();
    let cause = cause.join(" ");
    eprintln!("c10k: {}; try --help", cause.strip_prefix("error: ").unwrap_or(&cause));
    std::process::exit(2);
}

/// Undoes what a parent may have left behind, which children would inherit too: signals that it has
/// blocked would not end this process, and ended children could not be waited for if it ignores
/// SIGCHLD.
fn start_clean() {
    let unblocked = SigSet::empty().thread_set_mask();
    debug_assert!(unblocked.is_ok());
    let restored = c10k::sys::restore_signal(Signal::SIGCHLD as i32);
    debug_assert!(restored.is_ok());
}

fn main() -> ExitCode {
    start_clean();
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse_usage(&error));
    let env = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(env).init();
    let result = match cli.verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Client(args) => client::run(args),
        Verb::Load(args) => load::run(*args),
        Verb::Merge(args) => merge::run(args),
        Verb::Race(args) => race::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Million(args) => million::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found(what)) => {
            eprintln!("c10k: {what}");
            ExitCode::from(1)
        }
        Err(Failure::Cannot(why)) => {
            eprintln!("c10k: {why}");
            ExitCode::from(2)
        }
    }
}
