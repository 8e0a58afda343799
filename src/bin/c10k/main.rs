//! The `c10k` program: serves, asks, loads, and races the ways to serve against each other.

// They panic when the reader has gone: see `stdio`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod bars;
mod child;
mod client;
mod completions;
mod files;
mod hdr;
mod interrupt;
mod lab;
mod load;
mod man;
mod merge;
mod million;
mod proc;
mod protocol;
mod race;
mod serve;
mod stdio;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};

use crate::stdio::{note, stdout};

/// A hand-rolled Linux epoll reactor, and the C10K argument on your own machine.
#[derive(Debug, Parser)]
#[command(name = "c10k", version, max_term_width = 100)]
#[command(
    after_help = "Durations are written 250ms, 30s, 5m (30d is the most); sizes 512, 64KiB, \
    1MiB; counts 100, 10k, 1M.

Exit status: 0 done; 1 the run found failures; 2 bad usage, or it could not start; \
    130 interrupted."
)]
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
    Completions(completions::Args),
    Man(man::Args),
}

/// How a run ended that did not simply succeed.
#[derive(Debug)]
enum Failure {
    /// The run found failures: a mismatch, a lost reply. Exit status 1.
    Found(String),
    /// Bad usage, or it could not start. Exit status 2.
    Cannot(String),
    /// This signal ended it early, and it has printed what it had measured. Exit status 130.
    Interrupted(&'static str),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Cannot(error.to_string())
    }
}

/// What clap has instead of arguments: help and version, which are printed, or an error. It has
/// several lines for that, and gets one here.
fn help_or_refuse(error: &clap::Error) -> Result<(), Failure> {
    let printed = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Cli::command().print_long_help(),
        _ if !error.use_stderr() => error.print(),
        _ => return Err(refused(error)),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Cannot(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn refused(error: &clap::Error) -> Failure {
    let cause = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        // clap does not say what it is.
        (ErrorKind::InvalidUtf8, _) => {
            let args = std::env::args_os().filter(|arg| arg.to_str().is_none());
            let args: Vec<_> = args.map(|arg| format!("{arg:?}")).collect();
            format!("not UTF-8: {}", args.join(", "))
        }
        // Nor that it may be a value.
        (ErrorKind::UnknownArgument, Some(ContextValue::String(arg)))
            if arg.starts_with('-') && !arg.starts_with("--") =>
        {
            format!(
                "unexpected argument '{arg}' found; the value of an option is written \
                 --OPTION={arg}, and an argument after --: -- {arg}"
            )
        }
        _ => first_lines(error),
    };
    Failure::Cannot(format!("{cause}; try --help"))
}

/// The cause and the tips, which clap has in lines of their own, before the usage.
fn first_lines(error: &clap::Error) -> String {
    let text = error.to_string();
    let is_cause = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more");
    let cause: Vec<_> =
        text.lines().take_while(is_cause).map(str::trim).filter(|line| !line.is_empty()).collect();
    let cause = cause.join(" ").replace(" tip: ", "; ");
    cause.strip_prefix("error: ").unwrap_or(&cause).to_owned()
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

/// `[2026-11-27T12:19:09Z INFO  c10k::server] what it says`: as the logger itself would write it, with
/// the crate for times that durations are read with.
fn log_line(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> io::Result<()> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let level = record.level();
    let style = out.default_level_style(level);
    let (target, what) = (record.target(), record.args());
    writeln!(out, "[{time} {style}{level:<5}{style:#} {target}] {what}")
}

fn run(verb: Verb) -> Result<(), Failure> {
    let env = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(env).format(log_line).init();
    match verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Client(args) => client::run(args),
        Verb::Load(args) => load::run(*args),
        Verb::Merge(args) => merge::run(args),
        Verb::Race(args) => race::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Million(args) => million::run(args),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
        Verb::Man(args) => man::run(&args, Cli::command()),
    }
}

fn main() -> ExitCode {
    start_clean();
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli.verb),
        Err(error) => help_or_refuse(&error),
    };
    // The runtime would flush it too, and ignore an error.
    let (why, status) = match result.and_then(|()| Ok(stdout().flush()?)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Found(what)) => (what, 1),
        Err(Failure::Cannot(why)) => (why, 2),
        Err(Failure::Interrupted(signal)) => {
            (format!("interrupted by {signal}"), interrupt::EXIT_STATUS)
        }
    };
    note(format_args!("c10k: {why}"));
    ExitCode::from(status)
}
