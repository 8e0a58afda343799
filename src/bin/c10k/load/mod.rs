//! `c10k load`: many connections, every reply checked.

mod arrivals;
mod checker;
mod engine;
pub(crate) mod limits;
mod live;
mod measured;
mod output;
mod payload;
pub(crate) mod plan;
pub(crate) mod progress;
mod recorder;
mod report;
mod schedule;
mod search;
mod series;
pub(crate) mod source;
mod steps;
mod template;
mod threshold;
mod trials;
mod verdict;
mod workers;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use c10k::Addr;
use clap::builder::{OsStringValueParser, TypedValueParser};

use self::engine::Load;
use self::limits::{Limits, WORKERS_MAX};
use self::measured::Measured;
use self::output::Output;
use self::payload::{Dialect, Payload};
use self::plan::Plan;
use self::progress::{Stage, Watcher};
pub(crate) use self::report::{Latency, Report, micros};
use self::schedule::{Rate, Schedule};
use self::source::Sources;
use self::template::Template;
use self::threshold::Condition;
use self::workers::Workers;
use crate::proc;
use crate::protocol::datagrams_at;
use crate::stdio::stdout;
use crate::units::{self, grouped};
use crate::{Failure, interrupt};

/// Loads a server with many connections and checks every reply
///
/// Opens connections, keeps requests under way on each, checks every reply byte for byte, and
/// says how many and how fast. Exit status 1 if any was wrong or missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k load 127.0.0.1:7000 --connections 10k --duration 10s
  c10k load 127.0.0.1:7000 --connections 10k --active 50 --json
  c10k load 127.0.0.1:7000 --connections 100 --pipeline 32 --size 512
  c10k load 127.0.0.1:6379 --protocol raw --message 'PING\\r\\n'
  c10k load 127.0.0.1:7000 --udp --rate 20k --timeout 200ms
  c10k load 127.0.0.1:7000 --churn 10 --think-time 5ms --ramp 2s --size 64..1KiB
  c10k load 127.0.0.1:7000 --find-rate 'p99<5ms' --duration 5s
  c10k load 127.0.0.1:7000 --rate 5k --fail-if 'p99>5ms' --fail-if 'errors>0'
  c10k load 127.0.0.1:7000 --rate 50k --arrivals poisson --duration 30s
  c10k load 127.0.0.1:7000 --protocol sum --requests 1M
  c10k load 127.0.0.1:7000 --workers 6 --source 127.1.0.0/24 --connections 100k
  c10k load 127.0.0.1:7000 127.0.0.1:7001 --active 100
  c10k load 127.0.0.1:7000 --connections 10k --connect-rate 2k --requests-each 1")]
pub(crate) struct Args {
    /// The server: HOST:PORT, [IPv6]:PORT or unix:PATH. With several, connections are spread over
    /// them. A name means the first of its addresses that can be reached
    #[arg(value_name = "ADDR", required = true)]
    addrs: Vec<OsString>,
    /// How many connections to open
    #[arg(long, value_name = "N", default_value = "100", value_parser = units::some)]
    connections: u64,
    /// How many of them send; the others stay open and idle [default: all]
    #[arg(long, value_name = "M", value_parser = units::some)]
    active: Option<u64>,
    /// Send datagrams: a connection is a socket, each message a datagram, and the reply is one
    #[arg(long)]
    udp: bool,
    /// Share the load out over N processes, for more connections than one may have or one CPU can
    /// keep busy [default: this process does it]
    #[arg(long, value_name = "N", value_parser = units::some)]
    workers: Option<u64>,
    /// Connect from these addresses, spread over them: IP or NETWORK/BITS; not for unix sockets
    #[arg(long, value_name = "ADDR[,ADDR]...", value_delimiter = ',', value_parser = source::sources)]
    source: Vec<Sources>,
    /// Begin this many connections in a second [default: as many as can be made]
    #[arg(long, value_name = "R", value_parser = units::some)]
    connect_rate: Option<u64>,
    /// Have each connection answered once when it is opened: no more are opened at a time than the
    /// server keeps up with
    #[arg(long)]
    probe: bool,
    /// Requests under way on each connection; with --rate the most of them, further ones wait
    /// [default: 1; with --rate no limit]
    #[arg(long, value_name = "N", value_parser = units::some)]
    pipeline: Option<u64>,
    /// An open loop: so many requests in a second over all active connections, whatever the
    /// server does, and latencies from when each was due. R, or steps and lines: 1k:10s,1k..5k:30s
    #[arg(long, value_name = "R", conflicts_with = "requests_each")]
    rate: Option<Rate>,
    /// Find the highest rate at which this holds, such as p99<5ms: twice as much each time, then
    /// in halves to within 5%, each for --duration, with nothing lost and nothing left waiting. A
    /// rate fails when it has failed twice in a row, and both ends of what is found are tried again
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["rate", "requests", "requests_each", "think_time", "fail_if", "hdr", "series"])]
    find_rate: Option<Condition>,
    /// How the requests of --rate follow each other [default: constant]
    #[arg(long, value_enum)]
    arrivals: Option<arrivals::Kind>,
    /// Where the randomness of --arrivals poisson begins [default: anywhere]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The size of a message in bytes, without its delimiter (echo): 64, or a range: 64..1KiB
    /// [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = units::sizes)]
    size: Option<RangeInclusive<u32>>,
    /// The message (echo, raw), with the numbers of connection and request for {conn} and {seq},
    /// \n, \t, \r, \0 for bytes, and \{ for a brace
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "size", value_parser = OsStringValueParser::new().try_map(template))]
    message: Option<Template>,
    /// Only count the replies, whatever they say
    #[arg(long)]
    no_verify: bool,
    /// Close a connection after K requests and open another in its place
    #[arg(long, value_name = "K", value_parser = units::some, conflicts_with_all = ["requests_each", "probe"])]
    churn: Option<u64>,
    /// Wait so long between a reply and the next request of its connection (closed loop)
    #[arg(long, value_name = "DUR", value_parser = units::duration, conflicts_with_all = ["rate", "requests_each", "pipeline"])]
    think_time: Option<Duration>,
    /// Take so long until the rate is reached, or all active connections send
    #[arg(long, value_name = "DUR", default_value = "0s", value_parser = units::duration, conflicts_with = "requests_each")]
    ramp: Duration,
    /// How long to measure [default: 10s, or as long as the steps of --rate]
    #[arg(long, value_name = "DUR", value_parser = units::some_time)]
    duration: Option<Duration>,
    /// Measure exactly this many requests, if --duration is long enough for them
    #[arg(long, value_name = "N", value_parser = units::some)]
    requests: Option<u64>,
    /// Send this many requests on each active connection, without warm-up, and end when all are
    /// answered; --duration is then how long that may take
    #[arg(long, value_name = "K", value_parser = units::some, conflicts_with = "requests")]
    requests_each: Option<u64>,
    /// How long to load before measuring [default: 500ms]
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    warmup: Option<Duration>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Dialect::Echo)]
    protocol: Dialect,
    /// The byte that ends a message: x, '\n', '\t', '\0' or 0x1e [default: \n]
    #[arg(long, value_name = "BYTE", value_parser = units::byte, conflicts_with = "udp")]
    delimiter: Option<u8>,
    /// What the server puts before each reply of echo
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,
    /// How long to wait for a connection, and at the end for the last replies; how long until a
    /// datagram is lost [default: 10s; with --udp 1s]
    #[arg(long, value_name = "DUR", value_parser = units::some_time)]
    timeout: Option<Duration>,
    /// Exit with status 1 if this holds, such as p99>5ms, service_p99>1ms, errors>0, rps<10k; may
    /// be given many times
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// When connected, print a line and wait for one on standard input before sending anything
    #[arg(long)]
    wait: bool,
    /// Never sleep: ask again and again whether there are replies. A server that has to wake its
    /// client pays for that with its own CPU time
    #[arg(long, conflicts_with_all = ["rate", "find_rate"])]
    spin: bool,
    /// For c10k race: see trials.rs
    #[arg(long, hide = true)]
    trials: bool,
    /// Tell the CPU time per request of this process and its children too, if it is on this machine
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=i32::MAX.into()))]
    server_pid: Option<u32>,
    /// Run on this CPU only
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    #[command(flatten)]
    output: output::Args,
}

/// Bytes that need not be UTF-8.
fn template(text: OsString) -> Result<Template, String> {
    Template::parse(text.as_bytes())
}

/// More than that under way on one connection is a mistake: it takes memory, and nothing else.
const PIPELINE_MAX: u64 = 1_000_000;

/// How long to wait where nothing is said: for a connection or for the end, and for a datagram.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to load and then to measure where nothing is said.
const WARMUP: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(10);
const UDP_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests of a connection are counted in 32 bits, with its probe.
const REQUESTS_EACH_MAX: u64 = u32::MAX as u64 - 1;

impl Args {
    fn plan(&self) -> Result<Plan, Failure> {
        let cannot = |why: &str| Err(Failure::Cannot(why.to_owned()));
        if let Some(why) = self.contradiction() {
            return Err(Failure::Cannot(why));
        }
        if self.server_pid.is_some_and(|pid| proc::cpu_time(pid).is_none()) {
            return cannot("--server-pid: there is no such process on this machine");
        }
        if self.server_pid.is_some_and(|pid| proc::children(pid).is_none()) {
            log::warn!("no CPU figures of the server: /proc does not tell its children");
        }
        // A probe is one more.
        if self.requests_each > Some(REQUESTS_EACH_MAX) {
            return cannot("--requests-each is 4,294,967,294 at most");
        }
        let requests_each = self.requests_each.map(|n| n as u32);
        let mut sources: Vec<_> =
            self.source.iter().flat_map(|sources| &sources.0).copied().collect();
        let mut seen = HashSet::new();
        sources.retain(|&source| seen.insert(source));
        let Ok(churn) = self.churn.map(u32::try_from).transpose() else {
            return cannot("--churn is 4,294,967,295 at most");
        };
        let duration = self.duration.unwrap_or(DURATION);
        let mut schedule = self.rate.as_ref().map(|rate| rate.schedule(duration));
        if self.find_rate.is_some() {
            schedule = Some(Schedule::steady(search::FIRST_RATE, duration));
        }
        let timeout = self.timeout.unwrap_or(match self.udp {
            true => UDP_TIMEOUT,
            false => TIMEOUT,
        });
        let plan = Plan {
            udp: self.udp,
            targets: self.targets(timeout)?,
            sources,
            connections: self.connections,
            active: self.active,
            workers: self.workers,
            connect_rate: self.connect_rate,
            probe: self.probe,
            spin: self.spin,
            pipeline: match schedule.is_some() || self.trials {
                true => self.pipeline,
                false => self.pipeline.or(Some(1)),
            },
            arrivals: self.arrivals.unwrap_or(arrivals::Kind::Constant),
            seed: self.seed.unwrap_or_else(|| fastrand::u32(..).into()),
            requests: self.requests,
            requests_each,
            churn,
            think_time: self.think_time,
            ramp: self.ramp,
            warmup: self.warmup.unwrap_or(WARMUP),
            duration: schedule.as_ref().map_or(duration, Schedule::duration),
            schedule,
            timeout,
            dialect: self.protocol,
            delimiter: self.delimiter(),
            payload: self.payload()?,
            server_pid: self.server_pid,
            each_second: false,
        };
        plan.check_sources()?;
        Ok(plan)
    }
}

impl Args {
    /// Options that contradict each other, or one that would change nothing. Those that can never
    /// stand together clap refuses.
    fn contradiction(&self) -> Option<String> {
        let is = |protocol| self.protocol == protocol;
        let (connections, active) = (self.connections, self.active.unwrap_or(0));
        let workers = self.workers.unwrap_or(0);
        let open = self.rate.is_some() || self.find_rate.is_some();
        let steps = self.rate.as_ref().is_some_and(Rate::has_durations);
        let poisson = self.arrivals == Some(arrivals::Kind::Poisson);
        let downward = |condition: &Condition| !condition.is_upper_bound_on_time();
        let wrong = self.find_rate.as_ref().filter(|condition| downward(condition));
        let find = wrong.map_or(String::new(), |condition| {
            format!(
                "--find-rate {condition}: the highest rate is searched for at which a time is \
                 below a bound, such as p99<5ms"
            )
        });
        let refused = [
            (active > connections, format!("--active {active} of --connections {connections}")),
            (workers > WORKERS_MAX, format!("--workers is {WORKERS_MAX} at most")),
            (
                self.pipeline > Some(PIPELINE_MAX),
                format!("--pipeline is {} at most", grouped(PIPELINE_MAX as f64)),
            ),
            (
                workers > connections,
                format!("--workers {workers} for --connections {connections}: each needs one"),
            ),
            (
                steps && self.duration.is_some(),
                "--duration with a --rate whose steps have durations of their own".to_owned(),
            ),
            (
                self.arrivals.is_some() && !open,
                "--arrivals is for --rate or --find-rate".to_owned(),
            ),
            (
                self.requests_each.is_some() && self.warmup.is_some_and(|time| !time.is_zero()),
                "--warmup with --requests-each, whose first request counts".to_owned(),
            ),
            (self.seed.is_some() && !poisson, "--seed is for --arrivals poisson".to_owned()),
            (self.size.is_some() && !is(Dialect::Echo), "--size is for --protocol echo".to_owned()),
            (
                self.prefix.is_some() && !is(Dialect::Echo),
                "--prefix is for --protocol echo".to_owned(),
            ),
            (
                self.delimiter.is_some() && is(Dialect::Sum),
                "--delimiter is for --protocol echo or raw: sums are JSON".to_owned(),
            ),
            (wrong.is_some(), find),
        ];
        refused.into_iter().find_map(|(refused, why)| refused.then_some(why))
    }

    fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(b'\n')
    }

    fn targets(&self, timeout: Duration) -> Result<Vec<Addr>, Failure> {
        let targets = plan::targets(&self.addrs, timeout, self.udp)?;
        if !self.udp {
            return Ok(targets);
        }
        targets.iter().map(datagrams_at).collect()
    }

    fn payload(&self) -> Result<Payload, Failure> {
        let cannot = |why: &str| Err(Failure::Cannot(why.to_owned()));
        let (delimiter, prefix) =
            (self.delimiter(), self.prefix.as_deref().unwrap_or_default().as_bytes());
        let payload = match (self.protocol, self.message.clone()) {
            (Dialect::Echo, None) => {
                Payload::echo(self.size.clone().unwrap_or(64..=64), delimiter, prefix)
            }
            (Dialect::Echo, Some(message)) if message.contains(delimiter) && !self.udp => {
                return cannot(
                    "--message has the delimiter in it, and is ended by it: see --delimiter",
                );
            }
            (Dialect::Echo, Some(message)) => Payload::echoed(message, prefix),
            (Dialect::Sum, None) => Payload::sum(),
            (Dialect::Sum, Some(_)) => return cannot("--message is for --protocol echo or raw"),
            (Dialect::Raw, Some(message)) => Payload::raw(message),
            (Dialect::Raw, None) => return cannot("--protocol raw needs a --message"),
        };
        Ok(if self.no_verify { payload.unchecked() } else { payload })
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut plan = args.plan()?;
    if let Some(cpu) = args.cpu {
        c10k::sys::pin_to_cpu(cpu)
            .map_err(|error| Failure::Cannot(format!("cannot run on CPU {cpu}: {error}")))?;
    }
    if !args.trials {
        interrupt::watch()?;
    }
    let (wait, json) = (args.wait, args.output.json);
    let mut output = Output::open(args.output, &mut plan)?;
    let watcher: &mut Watcher<'_> = &mut |progress| {
        if wait && progress.stage == Stage::Connected {
            output.hide();
            wait_for_go(progress.connected)?;
        }
        output.see(progress)
    };
    if args.trials {
        return trials::run(&plan, watcher);
    }
    if let Some(condition) = &args.find_rate {
        return search::run(&plan, condition, json, watcher);
    }
    let mut report = run_with(&plan, watcher)?;
    // Nothing measured is no proof that anything holds.
    let crosses = |condition: &&Condition| report.requests == 0 || condition.holds(&report);
    let crossed = args.fail_if.iter().filter(crosses);
    report.crossed = crossed.map(|condition| condition.found(&report)).collect();
    output.print(&report)?;
    interrupt::check()?;
    report.verdict()
}

/// Says that the connections are there, and waits for somebody to have looked at them.
fn wait_for_go(connected: u64) -> io::Result<()> {
    let mut stdout = stdout();
    writeln!(stdout, "connected {connected}")?;
    stdout.flush()?;
    if interrupt::wait_readable(io::stdin().as_fd())? {
        io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// Runs a load, and tells `watcher` about ten times a second how far it has got. For a load with
/// workers this process is forked: it must have no other thread, and no reactor.
///
/// What went wrong on the way is in the report. An error is that it could not start: it lacks
/// something, or nothing could be connected.
pub(crate) fn run_with(plan: &Plan, watcher: &mut Watcher<'_>) -> Result<Report, Failure> {
    check_limits(plan)?;
    let measured = match plan.workers {
        None => {
            let mut load = Load::connect(plan, plan.share(0), watcher)?;
            load.exchange(plan.schedule.as_ref(), watcher)?
        }
        Some(_) => Workers::connect(plan, watcher)?.exchange(None, watcher)?,
    };
    check_connected(plan, &measured)?;
    Ok(Report::of(plan, measured))
}

fn check_limits(plan: &Plan) -> Result<(), Failure> {
    match Limits::read()?.lacking(plan) {
        Some(what) => Err(Failure::Cannot(what)),
        None => Ok(()),
    }
}

fn check_connected(plan: &Plan, measured: &Measured) -> Result<(), Failure> {
    if measured.connected == 0 && interrupt::came().is_none() && measured.failures.dead_workers == 0
    {
        let why = measured.failures.errors.keys().next().cloned().unwrap_or_default();
        let target = &plan.targets[0];
        return Err(Failure::Cannot(format!("cannot connect to {target}: {why}")));
    }
    Ok(())
}
