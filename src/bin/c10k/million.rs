//! `c10k million`: as many connections as one machine holds, each of them answered.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use c10k::Addr;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::load::limits::Limits;
use crate::load::plan::Plan;
use crate::load::progress::{Progress, Stage};
use crate::load::source::sources;
use crate::load::{self, Report};
use crate::proc::{self, CpuTime, Memory};
use crate::stdio::{note, stdout};
use crate::units::{self, grouped};
use crate::{Failure, child, interrupt};

/// Holds a million connections on this machine, each of them answered
///
/// Opens a million connections between server and load processes on this machine, has each one
/// answered while it is opened and again when all are there, and says what they took.
///
/// It needs about 12 GB of free memory, nearly all of it the kernel's, and no setting: more
/// processes get around the limit on descriptors, and more source addresses around that on ports.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k million
  c10k million --connections 100k
  c10k million --json")]
pub(crate) struct Args {
    /// How many connections; fewer if there is not the memory for them
    #[arg(long, value_name = "N", default_value = "1M", value_parser = units::some)]
    connections: u64,
    /// How many requests each connection sends when all are there
    #[arg(long, value_name = "K", default_value = "1", value_parser = requests_each)]
    requests_each: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// As everywhere: 1,000 and 1k are numbers too.
fn requests_each(text: &str) -> Result<u32, String> {
    match units::some(text)? {
        n @ 1..=1_000_000 => Ok(n as u32),
        _ => Err("1,000,000 at most".to_owned()),
    }
}

/// What a connection takes, in bytes, both of its ends and all of it: 10.0 KB of the kernel and
/// 0.2 KB of the processes were measured on Linux 6.18; this leaves some room.
const BYTES_EACH: u64 = 11_500;

/// Memory to leave free: for the processes themselves and whatever else runs.
const BYTES_FREE: u64 = 1 << 30;

/// Files that server and load processes have open besides connections.
const FILES_BESIDES: u64 = 20_000;

/// Descriptors that the server as a child takes here.
const FDS_OF_SERVER: u64 = 4;

/// How long the exchange may take, and in it each reply.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Sources to connect from: 254 of them, each with far fewer connections than it has ports, since
/// the search for a free one takes longer the fewer there are.
const SOURCES: &str = "127.1.0.0/24";

/// The result. The names of the JSON carry the units.
#[derive(Debug, Serialize)]
struct Outcome {
    connections: u64,
    /// Processes of the server, and as many of the load.
    workers: u64,
    /// Connections that were open at once, each of them answered.
    held: u64,
    connect_s: f64,
    /// Of the kernel's objects, stacks and page tables, for both ends of a connection.
    kernel_bytes_per_connection: f64,
    /// Resident memory of the server's processes, and of the load's.
    server_bytes_per_connection: f64,
    load_bytes_per_connection: f64,
    /// Requests sent when all were there.
    requests: u64,
    exchange_s: f64,
    requests_per_s: f64,
    total_s: f64,
    /// How busy the CPUs were, from 0 to 1.
    cpu_busy_connecting: f64,
    cpu_busy_exchanging: f64,
    listen_overflows: u64,
    /// The signal that ended it before its time.
    interrupted: Option<&'static str>,
    limit: String,
    server_summary: String,
    load: Report,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let began = Instant::now();
    let mut limits = Limits::read()?;
    // The server's pipes are open when the load starts.
    limits.inherited += FDS_OF_SERVER;
    let (connections, scaled) = fit(args.connections, proc::available_memory(), &limits);
    if let Some(why) = &scaled {
        note(format_args!("note: {why}"));
    }
    if connections == 0 {
        return Err(Failure::Cannot(scaled.unwrap_or_default()));
    }
    let workers = connections.div_ceil(limits.worker_capacity());
    note(format_args!(
        "{} connections: {workers} server and {workers} load processes, {} descriptors each",
        grouped(connections as f64),
        grouped(limits.fds as f64),
    ));
    // What their loops say of slow turns is of no interest: a hundred processes share the CPUs.
    log::set_max_level(log::LevelFilter::Error);

    interrupt::watch()?;
    let server = Server::start(workers);
    interrupt::check()?;
    let mut server = server?;
    let plan = Plan {
        workers: Some(workers),
        sources: sources(SOURCES).expect("a network").0,
        requests_each: Some(args.requests_each),
        probe: true,
        // It ends when all are answered; who never is must not hold it up for ever.
        duration: TIME_MAX,
        // All ask at once: to be answered last is not to be late.
        timeout: TIME_MAX,
        ..Plan::new(Addr::resolve(&server.addr)?, connections)
    };
    let mut watch = Watch::new(connections, args.requests_each, server.child.id());
    let report = load::run_with(&plan, &mut |progress| {
        watch.see(progress);
        Ok(())
    })?;
    watch.bar.finish_and_clear();
    let exchanging = watch.cpu.busy_since();
    let server_summary = server.stop()?;

    // Interrupted before the first, there is nothing to divide among them.
    let held = report.connected.max(1) as f64;
    let outcome = Outcome {
        connections: args.connections,
        workers,
        held: report.connected,
        connect_s: report.connect_s,
        kernel_bytes_per_connection: watch.kernel as f64 / held,
        server_bytes_per_connection: watch.server as f64 / held,
        load_bytes_per_connection: watch.load as f64 / held,
        requests: report.requests,
        exchange_s: report.measured_s,
        requests_per_s: report.requests_per_s,
        total_s: began.elapsed().as_secs_f64(),
        cpu_busy_connecting: watch.connecting,
        cpu_busy_exchanging: exchanging,
        listen_overflows: proc::listen_overflows() - watch.overflows,
        interrupted: interrupt::came(),
        limit: scaled.unwrap_or_else(|| limit(watch.connecting, exchanging)),
        server_summary,
        load: report,
    };
    let mut stdout = stdout();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string(&outcome)?)?,
        false => write!(stdout, "{}", text(&outcome))?,
    }
    interrupt::check()?;
    outcome.load.verdict()?;
    if outcome.load.answered < connections {
        let missing = connections - outcome.load.answered;
        return Err(Failure::Found(format!("{missing} connections were not answered")));
    }
    Ok(())
}

/// How many connections there is room for, and what limits them if they are fewer than wanted.
fn fit(wanted: u64, memory: Option<u64>, limits: &Limits) -> (u64, Option<String>) {
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(BYTES_FREE) / BYTES_EACH);
    // Each connection is two open files.
    let by_files =
        limits.files.map_or(u64::MAX, |files| files.left().saturating_sub(FILES_BESIDES) / 2);
    let by_fds = limits.worker_capacity().saturating_mul(limits.workers_max());
    let possible = wanted.min(by_memory).min(by_files).min(by_fds);
    if possible == wanted {
        return (wanted, None);
    }
    let what = if possible == by_memory {
        format!(
            "memory: {} connections take about {}, and {} are available (1 GiB of it left free)",
            grouped(wanted as f64),
            size(wanted as f64 * BYTES_EACH as f64),
            size(memory.unwrap_or(0) as f64),
        )
    } else if possible == by_files {
        "open files of the whole system (fs.file-max)".to_owned()
    } else {
        format!("descriptors of a process: it may have {} (ulimit -n)", grouped(limits.fds as f64))
    };
    (possible, Some(format!("{} connections: the limit is {what}", grouped(possible as f64))))
}

/// What kept it from being faster, where nothing kept it from being more.
fn limit(connecting: f64, exchanging: f64) -> String {
    let percent = |share: f64| format!("{:.0}%", share * 100.0);
    format!(
        "none to the number; to the speed, the CPUs: {} busy while connecting, {} while exchanging",
        percent(connecting),
        percent(exchanging)
    )
}

fn text(outcome: &Outcome) -> String {
    let Outcome { held, connect_s, requests, exchange_s, requests_per_s, .. } = outcome;
    let kernel = outcome.kernel_bytes_per_connection;
    let failures = &outcome.load.failures;
    let count = |n: f64| grouped(n.round());
    let interrupted = outcome.interrupted.map_or(String::new(), |signal| {
        format!(
            "interrupted  by {signal}: memory and rates are those of what was done until then\n"
        )
    });
    format!(
        "held         {} connections at once, {} of them answered\n\
         connected    in {connect_s:.1} s, {} a second, each answered once\n\
         memory       kernel {} bytes a connection, both ends ({} in all)\n\
         \x20            server {} bytes, load {} bytes, resident\n\
         exchanged    {} requests in {exchange_s:.1} s, {} a second\n\
         failures     {} mismatched, {} lost, {} not connected, {} overflows of an accept queue\n\
         limit        {}\n\
         total        {:.1} s\n{interrupted}",
        count(*held as f64),
        count(outcome.load.answered as f64),
        count(*held as f64 / connect_s),
        count(kernel),
        size(kernel * *held as f64),
        count(outcome.server_bytes_per_connection),
        count(outcome.load_bytes_per_connection),
        count(*requests as f64),
        count(*requests_per_s),
        failures.mismatched,
        failures.lost,
        failures.not_connected,
        outcome.listen_overflows,
        outcome.limit,
        outcome.total_s,
    )
}

/// Rounded first, so that there is no 1000 MB.
fn size(bytes: f64) -> String {
    match (bytes / 1e6).round() {
        megabytes if megabytes.abs() < 1e3 => format!("{megabytes:.0} MB"),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

/// Looks at the machine as the load goes on.
struct Watch {
    server_pid: u32,
    requests_each: u32,
    bar: ProgressBar,
    before: Memory,
    overflows: u64,
    cpu: CpuTime,
    /// How busy the CPUs were until all was connected.
    connecting: f64,
    /// What was added by then, in bytes: to the kernel's memory, the server's and the load's.
    kernel: i64,
    server: i64,
    load: i64,
}

impl Watch {
    fn new(connections: u64, requests_each: u32, server_pid: u32) -> Watch {
        let style =
            ProgressStyle::with_template("{msg:10} {bar:24} {human_pos}/{human_len}  {elapsed}");
        let bar = ProgressBar::new(connections).with_style(style.expect("the template is right"));
        bar.set_message("connecting");
        Watch {
            server_pid,
            requests_each,
            bar,
            before: Memory::now(server_pid),
            overflows: proc::listen_overflows(),
            cpu: CpuTime::now(),
            connecting: 0.0,
            kernel: 0,
            server: 0,
            load: 0,
        }
    }

    fn see(&mut self, progress: Progress) {
        match progress.stage {
            Stage::Connecting => self.bar.set_position(progress.answered),
            Stage::Connected => self.measure(progress.connected),
            Stage::Exchanging => {
                // Those of connecting are among them.
                self.bar.set_position(progress.replies.saturating_sub(progress.connected));
            }
        }
    }

    /// All are there, and idle.
    fn measure(&mut self, connected: u64) {
        self.connecting = self.cpu.busy_since();
        let now = Memory::now(self.server_pid);
        let added = now.since(self.before);
        self.kernel = added.slab + added.stacks + added.tables;
        self.server = added.resident;
        // This process has two kinds of children: the server, and the load's.
        self.load = proc::resident(
            proc::family(std::process::id()).into_iter().filter(|&pid| pid != self.server_pid),
        );
        self.cpu = CpuTime::now();
        self.bar.set_message("exchanging");
        self.bar.set_length(connected * u64::from(self.requests_each));
        self.bar.set_position(0);
    }
}

/// The server: one process that watches, and the workers.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    addr: String,
}

/// How long to wait for the workers to be there.
const START_TIME_MAX: Duration = Duration::from_secs(10);

impl Server {
    fn start(workers: u64) -> Result<Server, Failure> {
        // A listener each, so that the queues of newcomers are as many as the processes that
        // open connections.
        let mut child = child::c10k("serve", None)?
            .args(["--listen", "127.0.0.1:0", "--idle-timeout", "off", "--reuse-port"])
            .args(["--workers", &workers.to_string()])
            .env("RUST_LOG", "error")
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let addr = child::expect_line(&mut stdout, "listening on tcp ")?;
        let server = Server { child, stdout, addr };
        let start = Instant::now();
        while (proc::family(server.child.id()).len() as u64) <= workers
            && interrupt::came().is_none()
        {
            if start.elapsed() > START_TIME_MAX {
                return Err(Failure::Cannot("the server's workers do not start".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Has it finish, and returns its summary.
    fn stop(&mut self) -> Result<String, Failure> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let mut summary = String::new();
        self.stdout.read_line(&mut summary)?;
        self.child.wait()?;
        Ok(summary.trim_end().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::limits::Files;

    const GIGABYTE: u64 = 1_000_000_000;

    #[test]
    fn there_are_as_many_as_there_is_room_for() {
        let limits = |fds, left: Option<u64>| Limits {
            fds,
            inherited: 0,
            ports: None,
            files: left.map(|left| Files { max: left, open: 0 }),
        };
        let (million, enough) = (1_000_000, Some(24 * GIGABYTE));
        let usual = limits(20_000, Some(2_400_000));
        assert_eq!(fit(million, enough, &usual), (million, None));
        assert_eq!(fit(million, None, &limits(20_000, None)), (million, None));

        let (fewer, why) = fit(million, Some(8 * GIGABYTE), &usual);
        assert_eq!(fewer, (8 * GIGABYTE - BYTES_FREE) / BYTES_EACH);
        let why = why.unwrap();
        assert!(why.contains("memory: 1,000,000 connections take about 11.5 GB, and 8.0"), "{why}");
        assert_eq!(fit(million, Some(GIGABYTE), &usual).0, 0);

        let (fewer, why) = fit(million, enough, &limits(20_000, Some(120_000)));
        assert_eq!((fewer, why.unwrap().contains("fs.file-max")), (50_000, true));
        let (fewer, why) = fit(million, enough, &limits(64, None));
        assert_eq!((fewer, why.unwrap().contains("may have 64")), (48 * 24, true));
        assert_eq!(fit(million, enough, &limits(10, None)).0, 0);
    }
}
