//! `c10k race`: every model under the same load.

mod report;
mod result;
mod runner;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::runner::{Cell, Outcome, Runner};
use crate::Failure;
use crate::units::{self, grouped};

/// Starts each server on one CPU, loads it from another with few and many connections, all of
/// them busy and 50 busy among idle ones, and prints one table.
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
    /// Race nothing: read what `--json` printed, and make a report of it
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write the report, a web page
    #[arg(long, value_name = "FILE", requires = "from")]
    report: Option<PathBuf>,
    /// Write the picture of the report, for a README
    #[arg(long, value_name = "FILE", requires = "from")]
    svg: Option<PathBuf>,
}

/// It serves one connection at a time, and so is not part of the rest.
const BLOCKING: Runner = Runner { name: "blocking", args: &["--model", "blocking"] };

/// The runners, in the order of the table.
const RUNNERS: [Runner; 7] = [
    Runner { name: "processes", args: &["--model", "processes"] },
    Runner { name: "threads", args: &["--model", "threads"] },
    Runner { name: "spin", args: &["--model", "spin"] },
    Runner { name: "select", args: &["--model", "select"] },
    Runner { name: "poll", args: &["--model", "poll"] },
    Runner { name: "epoll", args: &["--model", "epoll"] },
    Runner { name: "epoll x2", args: &["--model", "epoll", "--workers", "2"] },
];

/// More than `select(2)` has room for.
const SELECT_PROBE: u64 = 1_200;

/// Descriptors of a server or load generator that are not connections.
const FDS_BESIDES: u64 = 32;

/// A row of the table.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Ran(Box<Outcome>),
    /// More connections than the model has room for, which is a result too.
    Beyond {
        model: &'static str,
        connections: u64,
        active: u64,
        limit: u64,
        why: String,
    },
}

/// How many connections each model can hold, where it has a limit of its own.
#[derive(Debug, Clone, Copy)]
struct Limits {
    select: u64,
}

impl Limits {
    /// Why a model cannot hold so many connections, and how many it can.
    fn beyond(self, model: &str, connections: u64) -> Option<(u64, String)> {
        match model {
            "blocking" if connections > 1 => Some((1, "one at a time: the others wait".to_owned())),
            "select" if connections > self.select => {
                Some((self.select, format!("refused beyond {}", grouped(self.select as f64))))
            }
            _ => None,
        }
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if let Some(from) = &args.from {
        return render(&report::read(from)?, &args);
    }
    let mut notes = Vec::new();
    let counts = possible(&args.connections, &mut notes)?;
    let pinned = available_parallelism().is_ok_and(|cpus| cpus.get() >= 2);
    if !pinned {
        notes.push(
            "server and load share one CPU: the figures measure the scheduler too".to_owned(),
        );
    }
    let cells = cells(&args, &counts, pinned);
    let bar = progress(cells.len());
    let select = RUNNERS.into_iter().find(|runner| runner.name == "select").expect("in the list");
    let limits = Limits { select: runner::room(select, pinned, SELECT_PROBE)? };

    let mut rows = Vec::new();
    for cell in cells {
        let Cell { runner: Runner { name: model, .. }, connections, active, .. } = cell;
        bar.set_message(format!("{model}: {connections} connections, {active} active"));
        if let Some((limit, why)) = limits.beyond(model, connections) {
            rows.push(Row::Beyond { model, connections, active, limit, why });
        } else {
            match runner::run(cell) {
                Ok(outcome) => {
                    notes.extend(doubts(&outcome));
                    rows.push(Row::Ran(Box::new(outcome)));
                }
                Err(error) => notes.push(format!("{model} with {connections}: {error}")),
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut stdout = std::io::stdout().lock();
    if args.json {
        for row in &rows {
            writeln!(stdout, "{}", serde_json::to_string(row)?)?;
        }
    } else {
        writeln!(stdout, "{}\n{}", table::table(&rows), method(pinned))?;
    }
    for note in &notes {
        eprintln!("note: {note}");
    }
    verdict(&rows)
}

/// Writes what was asked for.
fn render(race: &result::Race, args: &Args) -> Result<(), Failure> {
    if let Some(path) = &args.report {
        report::write(path, &report::html(race))?;
    }
    if let Some(path) = &args.svg {
        report::write(path, &report::svg(race))?;
    }
    Ok(())
}

/// What is to be run, in the order of the table.
fn cells(args: &Args, counts: &[u64], pinned: bool) -> Vec<Cell> {
    let (warmup, duration) = (args.warmup, args.duration);
    let cell = |runner, connections, active| Cell {
        runner,
        connections,
        active,
        warmup,
        duration,
        pinned,
    };
    let mut cells = vec![cell(BLOCKING, 1, 1), cell(BLOCKING, counts[0], counts[0])];
    for idle in [false, true] {
        for &connections in counts {
            let active = if idle { args.active.min(connections) } else { connections };
            cells.extend(RUNNERS.map(|runner| cell(runner, connections, active)));
        }
    }
    cells
}

fn verdict(rows: &[Row]) -> Result<(), Failure> {
    let ran = || {
        rows.iter().filter_map(|row| match row {
            Row::Ran(outcome) => Some(outcome),
            Row::Beyond { .. } => None,
        })
    };
    let failed = ran().filter(|outcome| outcome.load.verdict().is_err()).count();
    match (failed, ran().count()) {
        (_, 0) => Err(Failure::Cannot("no server could be raced".to_owned())),
        (0, _) => Ok(()),
        (failed, _) => Err(Failure::Found(format!("{failed} runs had failures"))),
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
         generator's half taken off). Tasks are threads and processes.\nepoll x2 is two workers, \
         here on one CPU: what they are for is more CPUs, and more descriptors."
    )
}

/// On standard error, and only if that is a terminal.
fn progress(cells: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(cells as u64).with_style(style.expect("the template is right"))
}
