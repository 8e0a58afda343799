//! `c10k race`: every model under the same load.

mod proc;
mod runner;
mod table;

use std::io::Write;
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use self::runner::{Cell, Outcome};
use crate::Failure;
use crate::units;

/// Starts each server as a process on one CPU, loads it from another with few and many
/// connections, all of them busy and 50 busy among idle ones, and prints one table.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k race
  c10k race --connections 100 --connections 5k --duration 5s
  c10k race --json > race.json")]
pub(crate) struct Args {
    /// How many connections; may be repeated
    #[arg(long, value_name = "N", default_values = ["100", "1k", "10k"], value_parser = units::some)]
    connections: Vec<u64>,
    /// How many are active among idle ones, in the second half of the race
    #[arg(long, value_name = "M", default_value = "50", value_parser = units::some)]
    active: u64,
    /// How long each is measured
    #[arg(long, value_name = "DUR", default_value = "1500ms", value_parser = units::duration)]
    duration: Duration,
    /// How long each is loaded before that
    #[arg(long, value_name = "DUR", default_value = "500ms", value_parser = units::duration)]
    warmup: Duration,
    /// Print the results as JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// The runners, in the order of the table.
const MODELS: [&str; 4] = ["select", "poll", "epoll", "threads"];

/// What `select` has room for, less the descriptors that the server needs for itself.
const SELECT_CONNECTIONS_MAX: u64 = 1_000;

/// Descriptors of a server or load generator that are not connections.
const FDS_BESIDES: u64 = 32;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut notes = Vec::new();
    let counts = possible(&args.connections, &mut notes)?;
    let pinned = available_parallelism().is_ok_and(|cpus| cpus.get() >= 2);
    if !pinned {
        notes.push(
            "server and load share one CPU: the figures measure the scheduler too".to_owned(),
        );
    }

    if counts.iter().any(|&connections| connections > SELECT_CONNECTIONS_MAX) {
        notes.push("select: refuses descriptors above 1,023, and is left out there".to_owned());
    }

    let mut cells = Vec::new();
    for idle in [false, true] {
        for &connections in &counts {
            for model in MODELS {
                if model == "select" && connections > SELECT_CONNECTIONS_MAX {
                    continue;
                }
                let active = if idle { args.active.min(connections) } else { connections };
                let (warmup, duration) = (args.warmup, args.duration);
                cells.push(Cell { model, connections, active, warmup, duration, pinned });
            }
        }
    }

    let bar = progress(cells.len());
    let mut outcomes = Vec::new();
    for cell in cells {
        let Cell { model, connections, active, .. } = cell;
        bar.set_message(format!("{model}: {connections} connections, {active} active"));
        match runner::run(cell) {
            Ok(outcome) => {
                notes.extend(doubts(&outcome));
                outcomes.push(outcome);
            }
            Err(error) => notes.push(format!("{model} with {connections}: {error}")),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut stdout = std::io::stdout().lock();
    if args.json {
        for outcome in &outcomes {
            writeln!(stdout, "{}", serde_json::to_string(outcome)?)?;
        }
    } else {
        writeln!(stdout, "{}\n{}", table::table(&outcomes), method(pinned))?;
    }
    for note in &notes {
        eprintln!("note: {note}");
    }
    let failed = outcomes.iter().filter(|outcome| outcome.load.verdict().is_err()).count();
    match (failed, outcomes.is_empty()) {
        (_, true) => Err(Failure::Cannot("no server could be raced".to_owned())),
        (0, false) => Ok(()),
        (failed, false) => Err(Failure::Found(format!("{failed} runs had failures"))),
    }
}

/// The counts of connections that the limits allow, and a note of what they do not.
fn possible(wanted: &[u64], notes: &mut Vec<String>) -> Result<Vec<u64>, Failure> {
    let limit = c10k::sys::raise_fd_limit()?;
    let most = limit.saturating_sub(FDS_BESIDES);
    let mut counts: Vec<u64> = Vec::new();
    for &count in wanted {
        if count > most {
            notes.push(format!(
                "{count} connections need more descriptors than the limit of {limit} (ulimit -Hn) \
                 allows: ran {most}"
            ));
        }
        if !counts.contains(&count.min(most)) {
            counts.push(count.min(most));
        }
    }
    Ok(counts)
}

/// What a reader should know before believing the row.
fn doubts(outcome: &Outcome) -> Vec<String> {
    let Outcome { model, load, .. } = outcome;
    let row = format!("{model} with {} connections, {} active", load.connections, load.active);
    let mut doubts = Vec::new();
    if let Err(Failure::Found(what)) = load.verdict() {
        doubts.push(format!("{row}: {what}"));
    }
    if outcome.listen_overflows > 0 {
        doubts.push(format!(
            "{row}: the accept queue overflowed {} times: see net.core.somaxconn",
            outcome.listen_overflows
        ));
    }
    if let Some(server_cpu) = load.server_cpu_us_per_request {
        let busy = server_cpu * load.requests_per_s / 1e6;
        if busy < 0.9 && load.load_cpu_us_per_request * load.requests_per_s / 1e6 > 0.95 {
            doubts.push(format!(
                "{row}: the load generator was the limit (the server was busy {:.0}% of the time): \
                 compare CPU us/req, not req/s",
                busy * 100.0
            ));
        }
    }
    doubts.extend(outcome.warnings.last().map(|warning| format!("{row}: the server: {warning}")));
    doubts
}

/// How it was measured, in a few lines.
fn method(pinned: bool) -> String {
    let place = if pinned { "server on CPU 0, load on CPU 1" } else { "server and load together" };
    format!(
        "64-byte echo over loopback, one request under way on each active connection, every \
         reply checked; {place}.\nLatency is that of a closed loop: connections divided by rate, \
         and the tail that scheduling adds.\nMemory is what an idle connection adds in the \
         server: anonymous resident, and kernel stacks, page\ntables and objects (the load \
         generator's half taken off)."
    )
}

/// On standard error, and only if that is a terminal.
fn progress(cells: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(cells as u64).with_style(style.expect("the template is right"))
}
