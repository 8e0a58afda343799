//! The `c10k` program: serves, asks, loads, and races the ways to serve against each other.

mod client;
mod load;
mod protocol;
mod race;
mod serve;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A hand-rolled Linux epoll reactor, and the C10K argument on your own machine.
#[derive(Debug, Parser)]
#[command(name = "c10k", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves echo or sum, with an event loop or a thread per connection
    Serve(serve::Args),
    /// Sends messages to a server and prints the replies
    Client(client::Args),
    /// Loads a server with many connections and checks every reply
    Load(load::Args),
    /// Runs every model under the same load and prints one table
    Race(race::Args),
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let env = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(env).init();
    let result = match cli.verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Client(args) => client::run(args),
        Verb::Load(args) => load::run(args),
        Verb::Race(args) => race::run(args),
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
