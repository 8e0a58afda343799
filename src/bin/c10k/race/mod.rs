//! `c10k race`: every model under the same load.

mod baseline;
mod machine;
mod report;
mod result;
mod rounds;
mod runner;
mod syscalls;
mod table;
mod warnings;

use std::io::Write;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use self::result::{Limit, Machine, Method, Race};
use self::runner::{Model, Outcome, Setup, Trial};
use crate::files::Files;
use crate::stdio::stdout;
use crate::units::{self, grouped};
use crate::{Failure, interrupt};

/// Runs every model under the same load and prints one table
///
/// Starts each server on one CPU, loads it from another with few and many connections, all of
/// them busy and 50 busy among idle ones, as fast as it answers and at a fixed rate; in several
/// rounds, and prints the medians.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k race
  c10k race --quick
  c10k race --connections 100 --connections 5k --duration 2s
  c10k race --json > race.json
  c10k race --baseline race.json
  c10k race --from race.json --report race.html --svg race.svg")]
pub(crate) struct Args {
    /// How many connections; may be repeated [default: 100, 1k, 10k]
    #[arg(long, value_name = "N", value_parser = units::some)]
    connections: Vec<u64>,
    /// How many are active among idle ones
    #[arg(long, value_name = "M", default_value = "50", value_parser = units::some)]
    active: u64,
    /// Requests per second where the rate is fixed
    #[arg(long, value_name = "R", default_value = "10k", value_parser = units::some)]
    rate: u64,
    /// How often each is measured, in turn with the others [default: 3]
    #[arg(long, value_name = "N", value_parser = units::some)]
    rounds: Option<u64>,
    /// How long each is measured [default: 400ms]
    #[arg(long, value_name = "DUR", value_parser = units::some_time)]
    duration: Option<Duration>,
    /// How long each is loaded before that
    #[arg(long, value_name = "DUR", default_value = "100ms", value_parser = units::duration)]
    warmup: Duration,
    /// One round of 100 and 10k connections, each measured for 200 ms, without fixed rates, workers
    /// and a count of system calls
    #[arg(long)]
    quick: bool,
    /// Seven rounds, each measured for 2 s, of 100, 300, 1k, 3k, 10k and 18k connections: about an
    /// hour
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Compare with an earlier race, which --json has printed
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Race nothing: read what --json has printed
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write a report: one web page, with charts, that needs nothing but itself
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the pictures of throughput alone, for a README
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// It serves one connection at a time, and so takes part with one.
const BLOCKING: Model = Model { name: "blocking", args: &["--model", "blocking"] };

const SELECT: Model = Model { name: "select", args: &["--model", "select"] };

/// The models, in the order of the table.
const MODELS: [Model; 7] = [
    Model { name: "processes", args: &["--model", "processes"] },
    Model { name: "threads", args: &["--model", "threads"] },
    Model { name: "spin", args: &["--model", "spin"] },
    SELECT,
    Model { name: "poll", args: &["--model", "poll"] },
    Model { name: "epoll", args: &["--model", "epoll"] },
    Model { name: "epoll x2", args: &["--model", "epoll", "--workers", "2"] },
];

/// More than `select(2)` has room for.
const SELECT_PROBE: u64 = 1_200;

/// Descriptors of a server or load generator that are not connections.
const FDS_BESIDES: u64 = 32;

/// The size of a message: what `load` sends if it is not told otherwise.
const MESSAGE_BYTES: u32 = 64;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // Before the work: what cannot be read or written would make it vain.
    let baseline = args.baseline.as_deref().map(report::read).transpose()?;
    let earlier = args.from.as_deref().map(report::read).transpose()?;
    let mut files = Files::default();
    for path in args.baseline.iter().chain(&args.from) {
        files.add(path);
    }
    for path in args.report.iter().chain(&args.svg) {
        report::check(path)?;
        if files.add(path).is_some() {
            let why = "it would overwrite what is read, or written, by another option";
            return Err(Failure::Cannot(format!("{}: {why}", path.display())));
        }
    }
    interrupt::watch()?;
    let race = match earlier {
        Some(race) => race,
        None => race(&args)?,
    };
    if let Some(path) = &args.report {
        report::write(path, &report::html(&race))?;
    }
    if let Some(path) = &args.svg {
        report::write(path, &report::svg(&race))?;
    }
    let mut stdout = stdout();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string(&race)?)?,
        false => write!(stdout, "{}", text(&race))?,
    }
    if let Some(earlier) = baseline {
        write!(stdout, "\nBeside the baseline:\n\n{}", baseline::compare(&race, &earlier))?;
    }
    interrupt::check()?;
    match race.cells.iter().map(|cell| cell.failures).sum() {
        0 => Ok(()),
        failures => Err(Failure::Found(format!("{failures} requests or connections failed"))),
    }
}

fn race(args: &Args) -> Result<Race, Failure> {
    let mut warnings = Vec::new();
    let counts = counts(args, &mut warnings)?;
    let pinned = available_parallelism().is_ok_and(|cpus| cpus.get() >= 2);
    if !pinned {
        warnings.push(
            "server and load share one CPU: the figures measure the scheduler too".to_owned(),
        );
    }
    let select = runner::room(SELECT, pinned, SELECT_PROBE);
    interrupt::check()?;
    let select = select?;
    let setups = setups(args, &counts, select, pinned);
    let rounds = args.rounds.unwrap_or(if args.quick {
        1
    } else if args.full {
        7
    } else {
        3
    });
    let outcomes = run_all(setups, rounds, &mut warnings);
    if outcomes.iter().all(|(_, outcomes)| outcomes.is_empty()) {
        interrupt::check()?;
        return Err(Failure::Cannot("no server could be raced".to_owned()));
    }

    let load_slab_bytes = rounds::load_slab_bytes(&outcomes);
    let mut cells = Vec::new();
    for (setup, outcomes) in &outcomes {
        let of_setup = rounds::cells(setup, outcomes, load_slab_bytes);
        warnings.extend(warnings::doubts(setup, outcomes, &of_setup));
        cells.extend(of_setup);
    }
    // By load first: what is to be compared stands together.
    let key = |cell: &result::Cell| (cell.active != cell.connections, cell.connections);
    cells.sort_by_key(key);
    let limit =
        |model: &str, connections, why: String| Limit { model: model.to_owned(), connections, why };
    Ok(Race {
        c10k_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: Machine::here(),
        method: Method {
            message_bytes: MESSAGE_BYTES,
            pinned,
            rounds: rounds as u32,
            warmup_s: args.warmup.as_secs_f64(),
            duration_s: duration(args).as_secs_f64(),
            open_rate_per_s: open_rate(args),
        },
        cells,
        limits: vec![
            limit("blocking", 1, "one at a time: the others wait".to_owned()),
            limit("select", select, format!("refused beyond {}", grouped(select as f64))),
        ],
        warnings,
        interrupted: interrupt::came().map(str::to_owned),
    })
}

/// The counts of connections that the limits allow, and a warning of what they do not.
fn counts(args: &Args, warnings: &mut Vec<String>) -> Result<Vec<u64>, Failure> {
    let wanted: &[u64] = match &args.connections[..] {
        [] if args.quick => &[100, 10_000],
        [] if args.full => &[100, 300, 1_000, 3_000, 10_000, 18_000],
        [] => &[100, 1_000, 10_000],
        wanted => wanted,
    };
    let limit = c10k::sys::raise_fd_limit()?;
    let most = limit.saturating_sub(FDS_BESIDES);
    let mut counts: Vec<u64> = Vec::new();
    for &count in wanted {
        if count > most {
            warnings.push(format!(
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

fn duration(args: &Args) -> Duration {
    let usual = match (args.full, args.quick) {
        (true, _) => Duration::from_secs(2),
        (_, true) => Duration::from_millis(200),
        _ => Duration::from_millis(400),
    };
    args.duration.unwrap_or(usual)
}

/// The rate of the open loops, if there are any.
fn open_rate(args: &Args) -> Option<f64> {
    (!args.quick).then_some(args.rate as f64)
}

/// What each round runs. A model takes part as far as it can.
fn setups(args: &Args, counts: &[u64], select: u64, pinned: bool) -> Vec<Setup> {
    let trial = |active, rate_per_s| Trial { active, rate_per_s };
    let setup = |model, connections: u64| {
        let mut active = vec![connections];
        if args.active < connections {
            active.push(args.active);
        }
        let mut trials: Vec<Trial> = active.iter().map(|&active| trial(active, None)).collect();
        if let Some(rate) = open_rate(args) {
            trials.extend(active.iter().map(|&active| trial(active, Some(rate))));
        }
        // With few: attaching to thousands of tasks takes longer than all else.
        let fewest = counts.iter().min() == Some(&connections);
        let count_calls = fewest && connections <= 200 && !args.quick;
        let (warmup, duration) = (args.warmup, duration(args));
        Setup { model, connections, pinned, trials, warmup, duration, count_calls }
    };
    let takes_part = |model: &Model, connections| match model.name {
        "select" => connections <= select,
        "epoll x2" => !args.quick,
        _ => true,
    };
    let mut setups = vec![Setup { trials: vec![trial(1, None)], ..setup(BLOCKING, 1) }];
    for &connections in counts {
        let models = MODELS.into_iter().filter(|model| takes_part(model, connections));
        setups.extend(models.map(|model| setup(model, connections)));
    }
    setups
}

/// Runs all setups in turn, so often: what the machine does meanwhile falls on all of them.
fn run_all(
    setups: Vec<Setup>,
    rounds: u64,
    warnings: &mut Vec<String>,
) -> Vec<(Setup, Vec<Outcome>)> {
    let bar = progress(setups.len() as u64 * rounds);
    let mut outcomes: Vec<_> = setups.into_iter().map(|setup| (setup, Vec::new())).collect();
    'rounds: for round in 1..=rounds {
        for (setup, outcomes) in &mut outcomes {
            let (name, connections) = (setup.model.name, setup.connections);
            bar.set_message(format!("round {round}: {name}, {connections} connections"));
            let once = Setup { count_calls: setup.count_calls && round == 1, ..setup.clone() };
            match runner::run(&once) {
                Ok(outcome) => outcomes.push(outcome),
                Err(_) if interrupt::came().is_some() => break 'rounds,
                Err(error) => warnings.push(format!("{name} with {connections}: {error}")),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    outcomes
}

/// The tables, how they came about, and what to think of them.
fn text(race: &Race) -> String {
    let mut text = table::tables(race);
    text.push('\n');
    for limit in &race.limits {
        text.push_str(&format!("{}: {}\n", limit.model, limit.why));
    }
    text.push_str(&format!("\n{}\n", method(race)));
    if let Some(signal) = &race.interrupted {
        text.push_str(&format!("\nInterrupted by {signal}: not all was raced\n"));
    }
    if !race.warnings.is_empty() {
        text.push_str("\nWarnings\n");
        for warning in &race.warnings {
            text.push_str(&format!("- {warning}\n"));
        }
    }
    text
}

/// How it was measured, in a few lines.
fn method(race: &Race) -> String {
    let Method { message_bytes, rounds, duration_s, .. } = race.method;
    let place = match race.method.pinned {
        true => "server on CPU 0, load on CPU 1",
        false => "server and load together",
    };
    format!(
        "{message_bytes}-byte echo over loopback, every reply checked; {place}; medians of {rounds} \
         rounds of {duration_s} s,\nall in turn, and how far the furthest round was from them (+-).\n\
         Closed loop: one request under way on each active connection, and the next when it is\n\
         answered; latency is then connections divided by rate, and the tail that scheduling adds.\n\
         Open loop: requests are due at a fixed rate whatever the server does; latency is from when\n\
         they were due.\n\
         Memory is what an idle connection adds in the server: anonymous resident, and kernel stacks,\n\
         page tables and objects (the load generator's half taken off). Switches: how often a task\n\
         of the server was put on a CPU. They and the server's CPU time are those of a whole trial,\n\
         its warm-up included. Tasks are threads and processes. epoll x2 is two workers,\n\
         here on one CPU: what they are for is more CPUs, and more descriptors."
    )
}

/// On standard error, and only if that is a terminal.
fn progress(setups: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {msg}");
    ProgressBar::new(setups).with_style(style.expect("the template is right"))
}
