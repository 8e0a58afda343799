//! `c10k race`: every model under the same load.

mod baseline;
mod conclusion;
mod machine;
mod outlook;
mod report;
mod result;
mod rounds;
mod runner;
mod syscalls;
mod table;
mod warnings;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use self::outlook::{Outlook, Progress};
use self::result::{Limit, Machine, Method, Race};
use self::runner::{Model, Outcome, Setup, Trial};
use crate::files::Files;
use crate::stdio::{note, stdout};
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
    #[arg(long, value_name = "R", default_value = "10k", value_parser = rate)]
    rate: u64,
    /// How often each is measured, in turn with the others [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: Option<u64>,
    /// How long each is measured [default: 400ms]
    #[arg(long, value_name = "DUR", value_parser = units::some_time)]
    duration: Option<Duration>,
    /// How long each is loaded before that
    #[arg(long, value_name = "DUR", default_value = "100ms", value_parser = units::duration)]
    warmup: Duration,
    /// One round of 100 and 10k connections, each measured for 200 ms, without fixed rates, workers
    /// and a count of system calls
    #[arg(long, conflicts_with = "rate")]
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["connections", "active", "rate", "rounds", "duration", "warmup", "quick", "full"])]
    from: Option<PathBuf>,
    /// Write a report: one web page, with charts, that needs nothing but itself
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the pictures of throughput alone, for a README
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn rate(text: &str) -> Result<u64, String> {
    units::rate(text).and_then(|rate| units::some(text).map(|_| rate))
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

/// Connections that `select(2)` has room for, beside a few descriptors of the server's own; how
/// many exactly is measured with more than it has.
const SELECT_ROOM: u64 = 1_000;
const SELECT_PROBE: u64 = 1_200;

/// Descriptors of a server or load generator that are not connections.
const FDS_BESIDES: u64 = 32;

/// The size of a message: what `load` sends if it is not told otherwise.
const MESSAGE_BYTES: u32 = 64;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    // Before the work: what cannot be read or written would make it vain.
    let baseline = args.baseline.as_deref().map(report::read).transpose()?;
    let earlier = args.from.as_deref().map(report::read).transpose()?;
    interrupt::watch()?;
    check_files(&args)?;
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

/// Whether what is to be written can be, to files that are not read. Leaves none that was not there:
/// it would be empty until the race is over.
fn check_files(args: &Args) -> Result<(), Failure> {
    let mut files = Files::default();
    for path in args.baseline.iter().chain(&args.from) {
        files.add(path);
    }
    let mut created = Vec::new();
    let result = args.report.iter().chain(&args.svg).try_for_each(|path| {
        if report::check(path)? {
            created.push(path);
        }
        match files.add(path) {
            None => Ok(()),
            Some(_) => {
                let why = "it would overwrite what is read, or written, by another option";
                Err(Failure::Cannot(format!("{}: {why}", path.display())))
            }
        }
    });
    for path in created {
        let _ = fs::remove_file(path);
    }
    result
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
    let rounds = args.rounds.unwrap_or(if args.quick {
        1
    } else if args.full {
        7
    } else {
        3
    });
    // Said before anything is started, so as if select had room for as many as it promises.
    let expected = setups(args, &counts, SELECT_ROOM, pinned);
    note(Outlook::of(&expected, rounds));
    let select = match runner::room(SELECT, pinned, SELECT_PROBE) {
        Ok(select) => Some(select),
        Err(_) if interrupt::came().is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let setups = select.map(|select| setups(args, &counts, select, pinned));
    let outcomes = run_all(setups.unwrap_or_default(), rounds, &mut warnings);
    let measured = outcomes.iter().any(|(_, outcomes)| !outcomes.is_empty());
    if !measured && interrupt::came().is_none() {
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
    let blocking = limit("blocking", 1, "one at a time: the others wait".to_owned());
    let select = select
        .map(|most| limit("select", most, format!("refused beyond {}", grouped(most as f64))));
    let mut race = Race {
        c10k_version: env!("CARGO_PKG_VERSION").to_owned(),
        conclusion: Vec::new(),
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
        limits: [blocking].into_iter().chain(select).collect(),
        warnings,
        interrupted: interrupt::came().map(str::to_owned),
    };
    race.conclusion = conclusion::conclusion(&race);
    Ok(race)
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

/// Runs all setups in turn, in each round: what the machine does meanwhile falls on all of them.
/// A signal ends it early, with what was measured so far.
fn run_all(
    setups: Vec<Setup>,
    rounds: u64,
    warnings: &mut Vec<String>,
) -> Vec<(Setup, Vec<Outcome>)> {
    let mut progress = Progress::new(&setups, rounds);
    let mut outcomes: Vec<_> = setups.into_iter().map(|setup| (setup, Vec::new())).collect();
    'rounds: for round in 1..=rounds {
        for (setup, outcomes) in &mut outcomes {
            let (name, connections) = (setup.model.name, setup.connections);
            let once = Setup { count_calls: setup.count_calls && round == 1, ..setup.clone() };
            match runner::run(&once, round, &|stage| progress.show(setup, round, stage)) {
                Ok(outcome) => outcomes.push(outcome),
                Err(_) if interrupt::came().is_some() => {}
                Err(error) => warnings.push(format!("{name} with {connections}: {error}")),
            }
            if interrupt::came().is_some() {
                break 'rounds;
            }
            progress.done(setup);
        }
        progress.round_done(round);
    }
    outcomes
}

/// The tables, what follows from them, how they came about, and what to think of them.
fn text(race: &Race) -> String {
    let mut text = String::new();
    if !race.cells.is_empty() {
        text.push_str(&table::tables(race));
        text.push('\n');
    }
    for sentence in &race.conclusion {
        text.push_str(&format!("{sentence}\n"));
    }
    text.push('\n');
    for limit in &race.limits {
        text.push_str(&format!("{}: {}\n", limit.model, limit.why));
    }
    text.push_str(&format!("\n{}\n", method(race)));
    if let Some(signal) = &race.interrupted {
        text.push_str(&format!("\nInterrupted by {signal}: this is what was measured before\n"));
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
    let rounds = match rounds {
        1 => format!("one round of {duration_s} s"),
        _ => format!(
            "medians of {rounds} rounds of {duration_s} s,\nall in turn, and how far the furthest \
             round was from them (+-)"
        ),
    };
    let place = match race.method.pinned {
        true => "server on CPU 0, load on CPU 1",
        false => "server and load together",
    };
    format!(
        "{message_bytes}-byte echo over loopback, every reply checked; {place}; {rounds}.\n\
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
