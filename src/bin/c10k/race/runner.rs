//! One cell of the race: a server and a load generator, each a process of its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use crate::child;
use crate::load::Report;
use crate::proc::{self, Memory};

/// A way to serve, as a row of the race.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runner {
    pub(crate) name: &'static str,
    /// How `serve` is told.
    pub(crate) args: &'static [&'static str],
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) runner: Runner,
    pub(crate) connections: u64,
    pub(crate) active: u64,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    /// The server runs on the first CPU and the load on the second.
    pub(crate) pinned: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) model: &'static str,
    /// Per connection, while all are idle.
    pub(crate) resident_bytes: Option<f64>,
    /// Of the kernel's stacks and page tables, per connection.
    pub(crate) kernel_stack_bytes: Option<f64>,
    /// Of the kernel's objects, per connection, for both of its ends.
    pub(crate) slab_bytes_both_ends: Option<f64>,
    /// Threads and processes.
    pub(crate) tasks: u64,
    pub(crate) listen_overflows: u64,
    pub(crate) load: Report,
    /// The server's last word.
    pub(crate) summary: String,
    /// Warnings that the server logged.
    pub(crate) warnings: Vec<String>,
}

/// Fewer connections than this are too few to tell their memory from the noise of the machine.
const CONNECTIONS_MEASURABLE: u64 = 5_000;

/// Waits until the kernel has given back what the last run took, which it does in its own time;
/// for a second at most.
fn settle() {
    let mut slab = Memory::now(0).slab;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        let now = Memory::now(0).slab;
        if now >= slab {
            return;
        }
        slab = now;
    }
}

pub(crate) fn run(cell: Cell) -> io::Result<Outcome> {
    settle();
    let overflows = proc::listen_overflows();
    let mut server = Server::start(cell.runner, cell.pinned)?;
    let mut load = Load::start(cell, &server)?;

    // Everything is connected, was answered once, and is idle: this is what a connection takes.
    let idle = Memory::now(server.child.id()).since(server.memory_at_start);
    let tasks = proc::tasks(server.child.id());
    let report = load.go()?;
    let (summary, warnings) = server.stop()?;

    let per_connection = |bytes: i64| {
        let enough = report.connected >= CONNECTIONS_MEASURABLE;
        enough.then(|| bytes as f64 / report.connected as f64)
    };
    Ok(Outcome {
        model: cell.runner.name,
        resident_bytes: per_connection(idle.resident),
        kernel_stack_bytes: per_connection(idle.stacks_and_tables),
        slab_bytes_both_ends: per_connection(idle.slab),
        tasks,
        listen_overflows: proc::listen_overflows() - overflows,
        load: report,
        summary,
        warnings,
    })
}

/// How many connections a server that refuses some has room for: opens `probe` of them, and looks
/// at its summary.
pub(crate) fn room(runner: Runner, pinned: bool, probe: u64) -> io::Result<u64> {
    let mut server = Server::start(runner, pinned)?;
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
    fn start(runner: Runner, pinned: bool) -> io::Result<Server> {
        let mut child = child::c10k("serve", pinned.then_some(0))?
            .args(["--listen", "127.0.0.1:0", "--idle-timeout", "10m"])
            .args(runner.args)
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

struct Load {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    /// Starts the load generator, and returns when all its connections are open.
    fn start(cell: Cell, server: &Server) -> io::Result<Load> {
        let mut child = child::c10k("load", cell.pinned.then_some(1))?
            .args([&server.addr, "--json", "--wait", "--probe"])
            .args(["--connections", &cell.connections.to_string()])
            .args(["--active", &cell.active.to_string()])
            .args(["--warmup", &format!("{}ms", cell.warmup.as_millis())])
            .args(["--duration", &format!("{}ms", cell.duration.as_millis())])
            .args(["--server-pid", &server.child.id().to_string()])
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        child::expect_line(&mut stdout, "connected ")?;
        Ok(Load { child, stdout })
    }

    fn go(&mut self) -> io::Result<Report> {
        self.child.stdin.take().expect("piped").write_all(b"go\n")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        // Exit status 1 says that there were failures, and so does the report.
        self.child.wait()?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        child::end(&mut self.child);
    }
}
