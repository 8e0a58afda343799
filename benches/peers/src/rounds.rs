//! The rounds: every contender under every load, in turn.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::time::Instant;

use crate::bench::{Bench, OURS};
use crate::contenders::connections_max;
use crate::machine::settle;
use crate::processes::{Counting, threads};
use crate::result::{Cell, Entry, Spread};

/// To attach to more takes longer than all else.
const THREADS_TRACED_MAX: usize = 200;

/// A server that got less than this of its CPU had not enough of it to say anything.
const SERVER_BUSY_MIN: f64 = 0.05;

/// Less of a CPU than this for both server and load is not what they need, but what they got.
const CPU_BUSY_MIN: f64 = 0.8;

/// One server under one number of connections and requests under way: a start of both processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Setup {
    pub(crate) connections: u64,
    pub(crate) pipeline: u64,
}

/// What a load was: the key of all figures, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    some_idle: bool,
    setup: Setup,
    active: u64,
}

/// One trial. What was measured once for all trials of a setup is with each of them.
#[derive(Debug, Clone, Copy)]
struct Sample {
    round: usize,
    cpu_us: f64,
    requests_per_s: f64,
    p99_us: f64,
    server_busy: f64,
    /// How much of its CPU the busier of server and load got.
    cpu_busy: f64,
    idle_bytes: Option<f64>,
    syscalls: Option<f64>,
}

/// By load and name.
type Samples = BTreeMap<Key, BTreeMap<&'static str, Vec<Sample>>>;

/// What is measured.
pub(crate) struct Plan {
    pub(crate) setups: Vec<Setup>,
    /// How many are active among idle ones, where there are more.
    pub(crate) active: u64,
    pub(crate) rounds: usize,
    /// With fewer connections their memory is not told.
    pub(crate) memory_from: u64,
    /// Whether to count system calls, in one more trial of the first round.
    pub(crate) counts_calls: bool,
}

pub(crate) struct Measured {
    pub(crate) cells: Vec<Cell>,
    pub(crate) warnings: Vec<String>,
    /// Runs of which nothing is known but a warning.
    pub(crate) failed: usize,
}

/// What the program ends with.
pub(crate) fn outcome(failed: usize) -> Result<(), Box<dyn Error>> {
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} runs failed").into()),
    }
}

/// All in turn, so often: what the machine does meanwhile falls on all of them.
pub(crate) fn measure(bench: &Bench, plan: &Plan) -> Measured {
    let mut warnings = Vec::new();
    let (samples, failed) = samples(bench, plan, &mut warnings);
    warnings.extend(starved(&samples));
    let cells = samples.iter().map(|(key, by_name)| cell(key, by_name, &bench.names)).collect();
    Measured { cells, warnings, failed }
}

/// Returns how many runs failed too, each of which is a warning.
fn samples(bench: &Bench, plan: &Plan, warnings: &mut Vec<String>) -> (Samples, usize) {
    let began = Instant::now();
    let mut samples = Samples::new();
    let (mut void, mut failed) = (0, 0);
    let mut random = fastrand::Rng::with_seed(0);
    for round in 0..plan.rounds {
        for &setup in &plan.setups {
            let Setup { connections, pipeline } = setup;
            eprintln!(
                "{:5.0} s: round {} of {}: {connections} connections, {pipeline} under way on each",
                began.elapsed().as_secs_f64(),
                round + 1,
                plan.rounds,
            );
            // What one leaves behind in the machine is not always for the same one to bear. The
            // order is the same in every run, though.
            let mut names = bench.names.clone();
            random.shuffle(&mut names);
            for name in names {
                if connections > connections_max(name) {
                    continue;
                }
                let taken = one(bench, plan, name, setup, round).map_err(|error| {
                    let what = format!("{name} failed with {connections} x {pipeline}: {error}");
                    eprintln!("{what}");
                    warnings.push(what);
                    failed += 1;
                });
                for (key, sample) in taken.unwrap_or_default() {
                    if sample.server_busy < SERVER_BUSY_MIN {
                        void += 1;
                        continue;
                    }
                    samples.entry(key).or_default().entry(name).or_default().push(sample);
                }
            }
        }
    }
    if void > 0 {
        warnings.push(format!("{void} trials were thrown away: the server hardly got to run"));
    }
    (samples, failed)
}

/// One server, loaded with all connections active, and with some among idle ones.
fn one(
    bench: &Bench,
    plan: &Plan,
    name: &'static str,
    setup: Setup,
    round: usize,
) -> io::Result<Vec<(Key, Sample)>> {
    let Setup { connections, pipeline } = setup;
    settle();
    let server = bench.server(name)?;
    let mut load = bench.load(&server, connections, pipeline)?;
    // Everything is connected, was answered once, and is idle.
    let idle_bytes = server.memory_added()? / connections as f64;
    let idle_bytes = (connections >= plan.memory_from).then_some(idle_bytes);

    let mut actives = vec![connections];
    actives.extend(Some(plan.active).filter(|&active| active < connections));
    let mut taken = Vec::new();
    let mut requests_before = 0;
    for active in actives {
        let report = load.run(active)?;
        requests_before = report.requests_total;
        let server_busy = report.server_cpu_busy.unwrap_or(0.0);
        let key =
            Key { some_idle: active < connections, setup: Setup { connections, pipeline }, active };
        let sample = Sample {
            round,
            cpu_us: report.server_cpu_us_per_request.unwrap_or(f64::NAN),
            requests_per_s: report.requests_per_s,
            p99_us: report.latency_us.p99,
            server_busy,
            cpu_busy: server_busy.max(report.load_cpu_busy),
            idle_bytes,
            syscalls: None,
        };
        taken.push((key, sample));
    }
    // Once, in the end: to be traced slows a server down.
    if plan.counts_calls
        && round == 0
        && threads(server.pid()) <= THREADS_TRACED_MAX
        && let Some(counting) = Counting::start(server.pid())
    {
        let requests = load.run(connections)?.requests_total - requests_before;
        let calls = counting.stop()?;
        taken[0].1.syscalls = calls.map(|calls| calls as f64 / requests.max(1) as f64);
    }
    Ok(taken)
}

/// With many connections, one of the two has always something to do: if neither was busy, another
/// had their CPUs.
fn starved(samples: &Samples) -> Option<String> {
    let many = samples.iter().filter(|(key, _)| key.active >= 50);
    let busy: Vec<f64> = many
        .flat_map(|(_, by_name)| by_name.values().flatten().map(|sample| sample.cpu_busy))
        .collect();
    let starved = busy.iter().filter(|&&busy| busy < CPU_BUSY_MIN).count();
    (starved > busy.len() / 20).then(|| {
        format!(
            "in {starved} of {} trials neither server nor load had its CPU for itself: rates and p99 \
             tell of the machine, and only what is per CPU second counts",
            busy.len(),
        )
    })
}

fn cell(key: &Key, by_name: &BTreeMap<&str, Vec<Sample>>, names: &[&str]) -> Cell {
    let none = Vec::new();
    let ours = by_name.get(OURS).unwrap_or(&none);
    let entries = names.iter().filter_map(|&name| {
        let samples = by_name.get(name)?;
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        let ratios = samples.iter().filter_map(|sample| {
            let same = ours.iter().find(|ours| ours.round == sample.round)?;
            Some(same.cpu_us / sample.cpu_us)
        });
        Some(Entry {
            name: name.to_owned(),
            ratio_to_ours: Spread::of(ratios),
            requests_per_cpu_s: of(|sample| 1e6 / sample.cpu_us)?,
            server_cpu_us_per_request: of(|sample| sample.cpu_us)?,
            requests_per_s: of(|sample| sample.requests_per_s)?,
            p99_us: of(|sample| sample.p99_us)?,
            resident_bytes_per_idle_connection: Spread::of(
                samples.iter().filter_map(|sample| sample.idle_bytes),
            ),
            syscalls_per_request: samples.iter().find_map(|sample| sample.syscalls),
        })
    });
    let Key { setup: Setup { connections, pipeline }, active, .. } = *key;
    Cell { connections, active, pipeline, entries: entries.collect() }
}
