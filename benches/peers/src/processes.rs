//! One server and one load generator, processes of their own. They are killed by their number when
//! they are dropped, and by the kernel if this process dies first.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;
use serde_json::Value;

/// A child that does not outlive this value, nor this process.
struct Killed(Child);

impl Killed {
    fn spawn(command: &mut Command) -> io::Result<Killed> {
        // SAFETY: between fork and exec this makes one system call and does not allocate.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        command.spawn().map(Killed)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads one line and returns what follows `prefix` in it.
fn expect_line(out: &mut impl BufRead, prefix: &str) -> io::Result<String> {
    let mut line = String::new();
    out.read_line(&mut line)?;
    line.trim_end().strip_prefix(prefix).map(str::to_owned).ok_or_else(|| {
        io::Error::other(format!("a child should have said '{prefix}' but said {line:?}"))
    })
}

pub(crate) struct Server {
    child: Killed,
    pub(crate) addr: String,
    /// Before there was any connection.
    memory_at_start: u64,
}

impl Server {
    /// Starts a server that says where it listens, and asks it once: what it sets up for its first
    /// connection is not what a connection takes.
    pub(crate) fn start(command: &mut Command) -> io::Result<Server> {
        let mut child = Killed::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let mut stdout = BufReader::new(child.0.stdout.take().expect("piped"));
        let addr = expect_line(&mut stdout, "listening on tcp ")?;
        let mut client = TcpStream::connect(&addr)?;
        client.write_all(&[b"x".repeat(64), b"\n".to_vec()].concat())?;
        client.read_exact(&mut [0; 65])?;
        drop(client);
        let memory_at_start = anonymous_bytes(child.0.id())?;
        Ok(Server { child, addr, memory_at_start })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The anonymous memory that it has taken since it started.
    pub(crate) fn memory_added(&self) -> io::Result<f64> {
        Ok(anonymous_bytes(self.pid())? as f64 - self.memory_at_start as f64)
    }
}

/// As counted page by page: `/proc/PID/status` may be off by some pages for each CPU.
fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no Anonymous in smaps_rollup"))
}

/// What `c10k load --json` tells, as far as it is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests_total: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) server_cpu_us_per_request: Option<f64>,
    /// Of one CPU.
    pub(crate) server_cpu_busy: Option<f64>,
    pub(crate) load_cpu_busy: f64,
    pub(crate) latency_us: Latency,
    failures: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p99: f64,
}

impl Report {
    /// Each kind of failure that there was.
    fn failures(&self) -> String {
        let some = self.failures.iter().filter(|(_, count)| count.as_u64().is_some_and(|n| n > 0));
        some.map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// A load whose connections are open, for one trial after another.
pub(crate) struct Load {
    child: Killed,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    /// Returns when all are connected, and were answered once.
    pub(crate) fn start(command: &mut Command, connections: u64) -> io::Result<Load> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Killed::spawn(command)?;
        let mut stdout = BufReader::new(child.0.stdout.take().expect("piped"));
        let connected = expect_line(&mut stdout, "connected ")?;
        if connected != connections.to_string() {
            return Err(io::Error::other(format!("only {connected} of {connections} connected")));
        }
        Ok(Load { child, stdout })
    }

    /// Has so many of the connections send. It is an error if any reply was wrong or missing.
    pub(crate) fn run(&mut self, active: u64) -> io::Result<Report> {
        let stdin = self.child.0.stdin.as_mut().expect("piped");
        writeln!(stdin, "{active}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let report: Report = serde_json::from_str(&line)?;
        match report.failures() {
            failures if failures.is_empty() => Ok(report),
            failures => Err(io::Error::other(failures)),
        }
    }
}

/// A `strace` that counts the system calls of a process and its threads.
pub(crate) struct Counting {
    child: Killed,
    summary: PathBuf,
}

impl Counting {
    /// `None` where there is no strace, or it may not.
    pub(crate) fn start(pid: u32) -> Option<Counting> {
        let summary = std::env::temp_dir().join(format!("c10k-peers-{}", std::process::id()));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(&summary).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed::spawn(&mut command).ok()?;
        let mut said = BufReader::new(child.0.stderr.take().expect("piped")).lines();
        // "Process 7 attached", or "attached with 3 threads"; from then on it counts.
        if !said.next()?.ok()?.contains("attached") {
            return None;
        }
        // Whatever else it says must not hold it up.
        std::thread::spawn(move || said.for_each(drop));
        Some(Counting { child, summary })
    }

    /// Lets go of the process, and returns how many calls it has made meanwhile.
    pub(crate) fn stop(mut self) -> io::Result<Option<u64>> {
        kill_process(Pid::from_child(&self.child.0), Signal::INT)?;
        self.child.0.wait()?;
        let summary = fs::read_to_string(&self.summary)?;
        Ok(total(&summary))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.summary);
    }
}

/// In the last line of the table: "100.00    0.004713      2    2014      3 total".
fn total(summary: &str) -> Option<u64> {
    let line = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count())
}

/// Has cargo build the repository's c10k, and returns where it is.
pub(crate) fn build_c10k() -> io::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--bin", "c10k", "--message-format=json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = messages
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.ends_with("c10k"));
    match executable {
        Some(path) if output.status.success() => Ok(path),
        _ => Err(io::Error::other("c10k could not be built: name one with --c10k")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_read_with_and_without_errors() {
        let with = "100.00    0.154743           8     18530        12 total\n";
        let without = "100.00    0.154743           8     18530           total\n";
        assert_eq!(total(with), Some(18_530));
        assert_eq!(total(without), Some(18_530));
        assert_eq!(total("strace: no such process\n"), None);
    }
}
