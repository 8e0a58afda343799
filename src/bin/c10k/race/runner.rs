//! One server and one load generator, processes of their own, and trials on their connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::syscalls::Counting;
use crate::child;
use crate::load::Report;
use crate::proc::{self, Memory};

/// A way to serve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// How `serve` is told.
    pub(crate) args: &'static [&'static str],
}

/// A server with so many connections, on which trials are run, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) model: Model,
    pub(crate) connections: u64,
    /// The server runs on the first CPU and the load on the second.
    pub(crate) pinned: bool,
    pub(crate) trials: Vec<Trial>,
    /// Of each trial.
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// Whether to count system calls in the end, which slows the server down while it is done.
    pub(crate) count_calls: bool,
}

/// What its connections are to do.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    /// How many of them send.
    pub(crate) active: u64,
    /// Requests per second of all together; `None` for one at a time on each.
    pub(crate) rate_per_s: Option<f64>,
}

/// What came of one round of a setup.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What all connections together added while they were idle. The kernel's part is that of both
    /// ends.
    pub(crate) idle: Memory,
    /// Threads and processes of the server.
    pub(crate) tasks: u64,
    pub(crate) listen_overflows: u64,
    /// In the order of the trials.
    pub(crate) measured: Vec<Report>,
    /// System calls of the server for each request of the first trial, if they were counted.
    pub(crate) syscalls_per_request: Option<f64>,
    /// Warnings that the server logged.
    pub(crate) warnings: Vec<String>,
}

/// Waits until the kernel has given back what the last run took, which it does in its own time;
/// for half a second at most.
fn settle() {
    let mut slab = Memory::now(0).slab;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(50));
        let now = Memory::now(0).slab;
        if now >= slab {
            return;
        }
        slab = now;
    }
}

pub(crate) fn run(setup: &Setup) -> io::Result<Outcome> {
    settle();
    let overflows = proc::listen_overflows();
    let mut server = Server::start(setup.model, setup.pinned)?;
    let pid = server.child.id();
    let mut load = Load::start(setup, &server)?;
    // Everything is connected, was answered once, and is idle: this is what a connection takes.
    let idle = Memory::now(pid).since(server.memory_at_start);
    let tasks = proc::tasks(pid);
    let measured = setup.trials.iter().map(|trial| load.run(trial));
    let measured = measured.collect::<io::Result<Vec<_>>>()?;
    let syscalls_per_request = match setup.count_calls {
        true => count_calls(setup, &mut load)?,
        false => None,
    };
    // Before the server stops, which would wait for it.
    drop(load);
    let (_, warnings) = server.stop()?;
    let listen_overflows = proc::listen_overflows() - overflows;
    Ok(Outcome { idle, tasks, listen_overflows, measured, syscalls_per_request, warnings })
}

/// Repeats the first trial while the server's system calls are counted.
fn count_calls(setup: &Setup, load: &mut Load) -> io::Result<Option<f64>> {
    let (pid, before) = (load.server_pid, load.requests);
    let Some(counting) = Counting::start(pid, &proc::family(pid)[1..]) else { return Ok(None) };
    load.run(&setup.trials[0])?;
    let requests = load.requests - before;
    let calls = counting.stop()?;
    Ok(calls.map(|calls| calls as f64 / requests.max(1) as f64))
}

/// How many connections a server that refuses some has room for: opens `probe` of them, and looks
/// at its summary.
pub(crate) fn room(model: Model, pinned: bool, probe: u64) -> io::Result<u64> {
    let mut server = Server::start(model, pinned)?;
    let clients = (0..probe).map(|_| TcpStream::connect(&server.addr));
    let clients = clients.collect::<io::Result<Vec<_>>>()?;
    // What was not accepted yet is accepted before it stops, or refused.
    let (summary, _) = server.stop()?;
    drop(clients);
    let peak = summary.split("peak ").nth(1).and_then(|rest| rest.split(',').next());
    peak.and_then(|peak| peak.parse().ok())
        .ok_or_else(|| io::Error::other(format!("not a summary: {summary}")))
}

struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Reads the log as it comes, so that the server is never held up by it.
    log: Option<JoinHandle<String>>,
    addr: String,
    memory_at_start: Memory,
}

impl Server {
    fn start(model: Model, pinned: bool) -> io::Result<Server> {
        let mut child = child::c10k("serve", pinned.then_some(0))?
            .args(["--listen", "127.0.0.1:0", "--idle-timeout", "10m"])
            .args(model.args)
            .env("RUST_LOG", "warn")
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stderr = child.stderr.take().expect("piped");
        let log = thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let addr = child::expect_line(&mut stdout, "listening on tcp ")?;
        let memory_at_start = Memory::now(child.id());
        Ok(Server { child, stdout, log: Some(log), addr, memory_at_start })
    }

    /// Has it finish, and returns its summary and what it warned of.
    fn stop(&mut self) -> io::Result<(String, Vec<String>)> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        let mut summary = String::new();
        self.stdout.read_line(&mut summary)?;
        self.child.wait()?;
        let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
        Ok((summary.trim_end().to_owned(), log.lines().map(str::to_owned).collect()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}

/// What a server and its children have used.
#[derive(Debug, Clone, Copy)]
struct Used {
    cpu: Duration,
    switches: u64,
}

impl Used {
    /// With ten thousand tasks it takes a tenth of a second to read.
    fn by(pid: u32) -> Used {
        let cpu = proc::family(pid).into_iter().filter_map(proc::cpu_time).sum();
        Used { cpu, switches: proc::switches(pid).unwrap_or_default() }
    }
}

struct Load {
    child: Child,
    stdout: BufReader<ChildStdout>,
    server_pid: u32,
    /// That were answered so far.
    requests: u64,
}

impl Load {
    /// Starts the load generator, and returns when all its connections are open.
    fn start(setup: &Setup, server: &Server) -> io::Result<Load> {
        let mut child = child::c10k("load", setup.pinned.then_some(1))?
            .args([&server.addr, "--trials", "--probe"])
            .args(["--connections", &setup.connections.to_string()])
            .args(["--warmup", &format!("{}us", setup.warmup.as_micros())])
            .args(["--duration", &format!("{}us", setup.duration.as_micros())])
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        child::expect_line(&mut stdout, "connected ")?;
        Ok(Load { child, stdout, server_pid: server.child.id(), requests: setup.connections })
    }

    /// Runs a trial, and reads before and after it what the server has used: were that done while
    /// requests are under way, they would wait for it.
    fn run(&mut self, trial: &Trial) -> io::Result<Report> {
        let before = Used::by(self.server_pid);
        let Trial { active, rate_per_s } = trial;
        let rate = rate_per_s.map_or(String::new(), |rate| format!(" {rate:.0}"));
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(format!("{active}{rate}\n").as_bytes())?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let after = Used::by(self.server_pid);
        let mut report: Report = serde_json::from_str(&line)?;
        let requests = report.requests_total.saturating_sub(self.requests).max(1) as f64;
        self.requests = report.requests_total;
        let cpu = after.cpu.saturating_sub(before.cpu);
        report.server_cpu_us_per_request = Some(cpu.as_secs_f64() * 1e6 / requests);
        let switches = after.switches.saturating_sub(before.switches);
        report.server_switches_per_request = Some(switches as f64 / requests);
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}
