//! `c10k load` as a child, its report, and servers for it that do wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;

use super::comes_true;
use super::server::c10k;

pub(crate) fn load(addr: &str, args: &[&str]) -> Output {
    let common = ["load", addr, "--json"];
    let no_warmup: &[&str] = if args.contains(&"--warmup") { &[] } else { &["--warmup", "0ms"] };
    c10k(&[&common, no_warmup, args].concat()).output().expect("the program")
}

/// Its report, whatever its exit status.
#[track_caller]
pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A run that must find nothing wrong.
#[track_caller]
pub(crate) fn good(output: &Output) -> Value {
    let report = complete(output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    report
}

/// A run whose requests were all answered. On a machine that is busy otherwise an open loop may
/// find that it is not up to its rate, and that is another exit status.
#[track_caller]
pub(crate) fn complete(output: &Output) -> Value {
    let report = report(output);
    let kinds = ["mismatched", "lost", "late", "refused", "not_connected"];
    for kind in kinds.into_iter().chain(["closed_by_server", "reset", "broken"]) {
        assert_eq!(report["failures"][kind], 0, "{kind}: {report:#}");
    }
    report
}

/// A server that echoes lines, and hands each reply to `tamper` first, with its number.
pub(crate) fn tampering(
    mut tamper: impl FnMut(usize, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        // It ends with the client's connection; the test does not wait for it.
        let (mut stream, _) = listener.accept()?;
        let lines = BufReader::new(stream.try_clone()?).split(b'\n');
        for (number, line) in lines.enumerate() {
            let Some(mut reply) = tamper(number, line?) else { continue };
            reply.push(b'\n');
            stream.write_all(&reply)?;
        }
        Ok::<(), std::io::Error>(())
    });
    addr
}

/// A server that echoes lines, and of each thousand takes a tenth of a second for one.
pub(crate) fn stalling() -> SocketAddr {
    tampering(|number, line| {
        if number % 1_000 == 500 {
            thread::sleep(Duration::from_millis(100));
        }
        Some(line)
    })
}

/// A load that has connected, and waits to be told to go on.
pub(crate) struct Waiting {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Waiting {
    /// Starts one with `--wait`, and waits for it to have made all its connections.
    #[track_caller]
    pub(crate) fn start(args: &[&str], connections: usize) -> Waiting {
        let args = [&["load", "--wait"], args].concat();
        let mut child = c10k(&args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("connected {connections}\n"));
        Waiting { child, stdout }
    }

    pub(crate) fn go(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Its exit status, and what it printed. One that goes on for ever fails the test.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        assert!(comes_true(|| self.child.try_wait().unwrap().is_some()), "it does not end");
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    /// The processes that it has forked.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        let own = self.child.id().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // "123 (c10k) S 122 ...": after the name come its state and its parent (proc_pid_stat(5)).
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?;
            (parent == own).then_some(Pid::from_raw(pid))
        });
        processes.collect()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
