//! The rounds, and what comes of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::Args;
use crate::contenders::{self, Contender};
use crate::processes::{Counting, Load, Server, build_c10k, threads};
use crate::result::{Cell, Comparison, Entry, LeftOut, Machine, Method, Spread};
use crate::table;

pub(crate) const OURS: &str = "c10k";

/// With fewer connections their memory drowns in what the server takes anyway.
const CONNECTIONS_MEASURABLE: u64 = 1_000;

/// To attach to more takes longer than all else.
const THREADS_TRACED_MAX: usize = 200;

/// A server that got less than this of its CPU had not enough of it to say anything.
const SERVER_BUSY_MIN: f64 = 0.05;

/// Less of a CPU than this for both server and load is not what they need, but what they got.
const CPU_BUSY_MIN: f64 = 0.8;

/// What `c10k load` sends if it is not told otherwise.
const MESSAGE_BYTES: u64 = 64;

/// One server under one number of connections and requests under way: a start of both processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Setup {
    connections: u64,
    pipeline: u64,
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
    requests_per_cpu_s: f64,
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

struct Plan {
    args: Args,
    c10k: PathBuf,
    names: Vec<&'static str>,
    setups: Vec<Setup>,
    rounds: usize,
    duration: Duration,
}

pub(crate) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let json = args.json.as_deref().map(File::create).transpose()?;
    let (names, left_out) = choose(&args.contenders)?;
    for LeftOut { name, why } in &left_out {
        eprintln!("{name} is left out: {why}");
    }
    let machine = machine();
    let plan = plan(args, names)?;
    let overflows = listen_overflows();
    let mut warnings = Vec::new();
    let (samples, failed) = measure(&plan, &mut warnings);
    match listen_overflows().saturating_sub(overflows) {
        0 => {}
        times => warnings.push(format!("the queue of a listener was full {times} times")),
    }
    if machine.load_average > machine.cpus as f64 / 2.0 {
        let average = machine.load_average;
        warnings.push(format!("the machine was busy when it began: its load was {average:.1}"));
    }

    warnings.extend(starved(&samples));

    let cells = samples.iter().map(|(key, by_name)| cell(key, by_name, &plan.names)).collect();
    let comparison = Comparison {
        machine,
        method: Method {
            rounds: plan.rounds,
            duration_s: plan.duration.as_secs_f64(),
            warmup_s: plan.args.warmup.as_secs_f64(),
            message_bytes: MESSAGE_BYTES,
            server_cpu: plan.args.server_cpu,
            load_cpu: plan.args.load_cpu,
        },
        left_out,
        cells,
        warnings,
    };
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &comparison)?;
    }
    print!("{}", table::text(&comparison, io::stdout().is_terminal()));
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} runs failed").into()),
    }
}

/// Who takes part, ours first, and who cannot.
fn choose(wanted: &[String]) -> Result<(Vec<&'static str>, Vec<LeftOut>), String> {
    let contenders = match wanted {
        [] => contenders::ALL.to_vec(),
        wanted => {
            let found = wanted.iter().map(|name| {
                Contender::named(name).ok_or(format!("no contender {name}: see --list"))
            });
            found.collect::<Result<_, _>>()?
        }
    };
    let mut names = vec![OURS];
    let mut left_out = Vec::new();
    for contender in contenders {
        match contender.missing() {
            None => names.push(contender.name),
            Some(why) => {
                left_out.push(LeftOut { name: contender.name.to_owned(), why: why.to_owned() });
            }
        }
    }
    Ok((names, left_out))
}

fn plan(args: Args, names: Vec<&'static str>) -> io::Result<Plan> {
    let or = |wanted: &[u64], quick: &[u64], usual: &[u64]| match (wanted, args.quick) {
        ([], true) => quick.to_vec(),
        ([], false) => usual.to_vec(),
        (wanted, _) => wanted.to_vec(),
    };
    let connections = or(&args.connections, &[100, 1_000], &[1, 100, 1_000, 10_000]);
    let pipelines = or(&args.pipelines, &[1, 32], &[1, 32, 256]);
    let setups = connections.iter().flat_map(|&connections| {
        pipelines.iter().map(move |&pipeline| Setup { connections, pipeline })
    });
    let setups = setups.collect();
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 7 });
    let usual = if args.quick { Duration::from_millis(300) } else { Duration::from_secs(1) };
    let duration = args.duration.unwrap_or(usual);
    let c10k = match &args.c10k {
        Some(path) => path.clone(),
        None => build_c10k()?,
    };
    Ok(Plan { args, c10k, names, setups, rounds, duration })
}

/// All in turn, so often: what the machine does meanwhile falls on all of them. Returns how many
/// runs failed too, each of which is a warning.
fn measure(plan: &Plan, warnings: &mut Vec<String>) -> (Samples, usize) {
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
            let mut names = plan.names.clone();
            random.shuffle(&mut names);
            for name in names {
                let taken = one(plan, name, setup, round).map_err(|error| {
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
    plan: &Plan,
    name: &'static str,
    setup: Setup,
    round: usize,
) -> io::Result<Vec<(Key, Sample)>> {
    let Setup { connections, pipeline } = setup;
    settle();
    let server = Server::start(&mut server_command(plan, name)?)?;
    let mut load = Load::start(&mut load_command(plan, setup, &server), connections)?;
    // Everything is connected, was answered once, and is idle.
    let idle_bytes = server.memory_added()? / connections as f64;
    let idle_bytes = (connections >= CONNECTIONS_MEASURABLE).then_some(idle_bytes);

    let mut actives = vec![connections];
    actives.extend(Some(plan.args.active).filter(|&active| active < connections));
    let mut taken = Vec::new();
    let mut requests_before = 0;
    for active in actives {
        let report = load.run(active)?;
        requests_before = report.requests_total;
        let cpu_us = report.server_cpu_us_per_request.unwrap_or(f64::NAN);
        let server_busy = report.server_cpu_busy.unwrap_or(0.0);
        let key =
            Key { some_idle: active < connections, setup: Setup { connections, pipeline }, active };
        let sample = Sample {
            round,
            requests_per_cpu_s: 1e6 / cpu_us,
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
    if round == 0
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

/// Waits until the kernel has given back what the last run took, which it does in its own time;
/// for half a second at most.
fn settle() {
    let slab = || {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
        kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut before = slab();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(50));
        let now = slab();
        if now >= before {
            return;
        }
        before = now;
    }
}

fn server_command(plan: &Plan, name: &str) -> io::Result<Command> {
    let cpu = plan.args.server_cpu.to_string();
    let mut command;
    if name == OURS {
        command = Command::new(&plan.c10k);
        // The deadline is kept, and is one that does not come.
        command.args(["serve", "--listen", "127.0.0.1:0", "--idle-timeout", "10m", "--cpu", &cpu]);
        command.env("RUST_LOG", "error");
    } else {
        command = Command::new(std::env::current_exe()?);
        command.args(["serve", name, "--cpu", &cpu]);
    }
    Ok(command)
}

fn load_command(plan: &Plan, setup: Setup, server: &Server) -> Command {
    let mut command = Command::new(&plan.c10k);
    command
        .args(["load", &server.addr, "--trials", "--probe"])
        .args(["--connections", &setup.connections.to_string()])
        .args(["--pipeline", &setup.pipeline.to_string()])
        .args(["--warmup", &format!("{}ms", plan.args.warmup.as_millis())])
        .args(["--duration", &format!("{}ms", plan.duration.as_millis())])
        .args(["--server-pid", &server.pid().to_string()])
        .args(["--cpu", &plan.args.load_cpu.to_string()]);
    command
}

fn cell(key: &Key, by_name: &BTreeMap<&str, Vec<Sample>>, names: &[&str]) -> Cell {
    let none = Vec::new();
    let ours = by_name.get(OURS).unwrap_or(&none);
    let entries = names.iter().filter_map(|&name| {
        let samples = by_name.get(name)?;
        let of = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        let ratios = samples.iter().filter_map(|sample| {
            let same = ours.iter().find(|ours| ours.round == sample.round)?;
            Some(sample.requests_per_cpu_s / same.requests_per_cpu_s)
        });
        Some(Entry {
            name: name.to_owned(),
            ratio_to_ours: Spread::of(ratios),
            requests_per_cpu_s: of(|sample| sample.requests_per_cpu_s)?,
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

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let average = read("/proc/loadavg");
    Machine {
        cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_average: average.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
    }
}

/// Connections that any listener of this network had no room for, ever.
fn listen_overflows() -> u64 {
    let netstat = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "ListenOverflows").map_or(0, |(_, n)| n.parse().unwrap_or(0))
}
