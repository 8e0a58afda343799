//! SIGINT and SIGTERM end a measurement early, in each of its phases: what was measured is printed,
//! and the exit status is 130.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use common::kernel::{children, state};
use common::load::Waiting;
use common::server::c10k;
use common::{DEADLINE, EPOLL, Server, comes_true, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The program in a process group of its own, as a shell runs it. It is killed when dropped.
struct Run(Child);

impl Run {
    #[track_caller]
    fn start(args: &[&str]) -> Run {
        Run(c10k(args).process_group(0).spawn().expect("the program"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its standard error, up to a line that has this in it.
    #[track_caller]
    fn wait_for_line(&mut self, text: &str) {
        let mut lines = BufReader::new(self.0.stderr.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains(text));
        assert!(found, "it never says {text:?}");
        // Whatever else it says must not hold it up.
        thread::spawn(move || lines.for_each(drop));
    }

    /// Its status and what it printed. One that goes on for ever fails the test.
    #[track_caller]
    fn end(mut self) -> (ExitStatus, String) {
        assert!(comes_true(|| self.0.try_wait().unwrap().is_some()), "it does not end");
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap(), text)
    }

    /// The JSON of one that a signal has interrupted.
    #[track_caller]
    fn interrupted(self, signal: Signal) -> Value {
        let (status, text) = self.end();
        assert_eq!(status.code(), Some(130), "{status}: {text}");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(report["interrupted"], signal.as_str(), "{report:#}");
        report
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An echo of lines that answers this many and then only reads. It reports each line it has
/// answered, and the first that it does not answer.
fn answering(most: usize) -> (SocketAddr, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (report, seen) = sync_channel(1_000_000);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let report = report.clone();
            // It ends with the client's connection.
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone()?).split(b'\n');
                for (number, line) in lines.enumerate() {
                    if number < most {
                        (&stream).write_all(&[line?, b"\n".to_vec()].concat())?;
                    }
                    let _ = report.try_send(number);
                }
                Ok::<(), std::io::Error>(())
            });
        }
    });
    (addr, seen)
}

#[track_caller]
fn wait_for_request(seen: &Receiver<usize>, number: usize) {
    while seen.recv_timeout(DEADLINE).expect("requests") < number {}
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("interrupted-{name}"))
}

/// Load with these arguments, JSON and a log; the log's path.
#[track_caller]
fn load(addr: SocketAddr, name: &str, args: &[&str]) -> (Run, PathBuf) {
    let (addr, log) = (addr.to_string(), scratch(name));
    let _ = fs::remove_file(&log);
    let common = ["load", &addr, "--json", "--connections", "2", "--hdr", log.to_str().unwrap()];
    (Run::start(&[&common, args].concat()), log)
}

/// What no interruption may claim: failures.
#[track_caller]
fn assert_no_failures(report: &Value) {
    for (kind, count) in report["failures"].as_object().expect("failures") {
        assert!(count.as_u64().is_none_or(|count| count == 0), "{kind}: {report:#}");
    }
}

#[track_caller]
fn requests(report: &Value) -> u64 {
    report["requests"].as_u64().expect("a count")
}

#[test]
fn while_it_connects() {
    for (signal, workers) in SIGNALS.into_iter().zip([&[][..], &["--workers", "2"]]) {
        // It never answers a probe.
        let (addr, seen) = answering(0);
        let (run, log) = load(addr, "connecting.hlog", &[&["--probe"], workers].concat());
        wait_for_request(&seen, 0);
        run.signal(signal);
        let report = run.interrupted(signal);
        assert_eq!((requests(&report), &report["answered"]), (0, &0.into()));
        assert_no_failures(&report);
        assert!(log.metadata().is_ok_and(|log| log.len() > 0), "an empty log");
    }
}

#[test]
fn while_it_warms_up() {
    for (signal, rate) in SIGNALS.into_iter().zip([&[][..], &["--rate", "1k"]]) {
        let (addr, seen) = answering(usize::MAX);
        let (run, log) = load(addr, "warmup.hlog", &[&["--warmup", "1h"], rate].concat());
        wait_for_request(&seen, 50);
        run.signal(signal);
        let report = run.interrupted(signal);
        assert_eq!(requests(&report), 0);
        assert!(report["requests_total"].as_u64() >= Some(50), "{report:#}");
        assert_no_failures(&report);
        assert!(log.metadata().is_ok_and(|log| log.len() > 0), "an empty log");
    }
}

#[test]
fn while_it_measures() {
    for signal in SIGNALS {
        for args in [
            &[][..],
            &["--workers", "2"],
            &["--rate", "1k"],
            &["--rate", "1k", "--workers", "2"],
            &["--spin"],
            &["--requests", "1M"],
            &["--think-time", "1ms"],
        ] {
            let (addr, seen) = answering(usize::MAX);
            let usual = ["--warmup", "0s", "--duration", "1h"];
            let (run, log) = load(addr, "measuring.hlog", &[&usual, args].concat());
            wait_for_request(&seen, 200);
            run.signal(signal);
            let report = run.interrupted(signal);
            assert!(requests(&report) >= 150, "{args:?}: {report:#}");
            assert_no_failures(&report);
            let merged = c10k(&["merge", log.to_str().unwrap(), "--json"]).output().unwrap();
            let merged: Value = serde_json::from_slice(&merged.stdout).expect("JSON");
            assert_eq!(merged["requests"], report["requests"], "{args:?}");
        }
    }
}

/// A terminal's SIGINT goes to the workers too.
#[test]
fn with_its_whole_process_group() {
    let (addr, seen) = answering(usize::MAX);
    let usual = ["--warmup", "0s", "--duration", "1h", "--workers", "2"];
    let (run, _) = load(addr, "group.hlog", &usual);
    wait_for_request(&seen, 200);
    kill(Pid::from_raw(-run.pid().as_raw()), Signal::SIGINT).unwrap();
    let report = run.interrupted(Signal::SIGINT);
    assert!(requests(&report) >= 150, "{report:#}");
    assert_no_failures(&report);
}

#[test]
fn while_it_waits_for_the_last_replies() {
    for (signal, rate) in SIGNALS.into_iter().zip([&[][..], &["--rate", "100"]]) {
        let (addr, _) = answering(3);
        let short = ["--warmup", "0s", "--duration", "200ms", "--timeout", "1h", "--progress"];
        let (mut run, _) = load(addr, "draining.hlog", &[&short, rate].concat());
        // The phase after that one has begun by the second line, a second later.
        run.wait_for_line("  2.");
        run.signal(signal);
        let report = run.interrupted(signal);
        assert_eq!(report["requests_total"], 6, "{report:#}");
        assert_no_failures(&report);
    }
}

#[test]
fn while_it_waits_to_be_told() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for workers in [&[][..], &["--workers", "3"]] {
        let load = Waiting::start(&[&[addr.as_str(), "--connections", "7"], workers].concat(), 7);
        kill(Pid::from_raw(load.child.id() as i32), Signal::SIGINT).unwrap();
        let (status, text) = load.end();
        assert_eq!(status, Some(130), "{text}");
        assert!(text.contains("connections  7 ") && text.contains("by SIGINT"), "{text}");
    }
}

#[test]
fn between_the_trials_of_a_search() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for workers in [&[][..], &["--workers", "2"]] {
        let args = ["load", &addr, "--find-rate", "p99<1h", "--duration", "200ms"];
        let mut run = Run::start(&[&args, workers].concat());
        let mut stdout = BufReader::new(run.0.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        run.signal(Signal::SIGTERM);
        stdout.read_to_string(&mut line).unwrap();
        assert_eq!(run.0.wait().unwrap().code(), Some(130), "{line}");
        assert!(line.starts_with("trial  ") && line.contains("interrupted"), "{line}");
    }
}

#[test]
fn a_search_in_json() {
    let (addr, seen) = answering(usize::MAX);
    let addr = addr.to_string();
    let run = Run::start(&["load", &addr, "--find-rate", "p99<1h", "--json"]);
    wait_for_request(&seen, 5);
    run.signal(Signal::SIGINT);
    let found = run.interrupted(Signal::SIGINT);
    assert_eq!((&found["rate_per_s"], &found["trials"]), (&Value::Null, &Value::Array(vec![])));
}

#[test]
fn a_race() {
    let args = ["race", "--connections", "100", "--rounds", "1", "--duration", "20ms"];
    let run = Run::start(&[&args[..], &["--warmup", "0s", "--json"]].concat());
    // The first probes the limit of select. When there are others, one has been raced.
    let mut servers = Vec::new();
    wait_until("four servers", || {
        for pid in children(run.pid().as_raw() as u32) {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains("serve") && !servers.contains(&pid) {
                servers.push(pid);
            }
        }
        servers.len() >= 4
    });
    run.signal(Signal::SIGINT);
    let race = run.interrupted(Signal::SIGINT);
    let cells = race["cells"].as_array().unwrap();
    assert!(cells.iter().any(|cell| cell["model"] == "blocking"), "{cells:?}");
    assert_eq!(cells.iter().filter(|cell| cell["model"] == "epoll").count(), 0);
    wait_until("no server is left", || {
        servers.iter().all(|&pid| matches!(state(pid), None | Some('Z')))
    });
}

/// With the first server the limit of select is looked for; the second comes with a load, whose
/// trial would last an hour.
#[test]
fn a_race_before_anything_was_measured() {
    for (words, signal) in [("select", Signal::SIGTERM), ("--trials", Signal::SIGINT)] {
        let page = scratch(&format!("race-{words}.html"));
        let args = ["race", "--connections", "20", "--duration", "1h", "--json", "--report"];
        let run = Run::start(&[&args[..], &[page.to_str().unwrap()]].concat());
        let own = run.pid().as_raw() as u32;
        let mut seen = Vec::new();
        wait_until(words, || {
            seen = children(own);
            let command = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline"));
            seen.iter().any(|pid| command(pid).is_ok_and(|command| command.contains(words)))
        });
        assert!(!page.exists(), "it would be empty");
        run.signal(signal);
        let race = run.interrupted(signal);
        assert_eq!(race["cells"], Value::Array(vec![]));
        let html = fs::read_to_string(&page).unwrap();
        let said = format!("Interrupted by {}", signal.as_str());
        assert!(html.ends_with("</html>\n") && html.contains(&said), "{html}");
        fs::remove_file(&page).unwrap();
        wait_until("its children end", || {
            seen.iter().all(|&pid| matches!(state(pid), None | Some('Z')))
        });
    }
}

#[test]
fn a_million() {
    let args = ["--connections", "200", "--requests-each", "1M", "--json"];
    let run = Run::start(&[&["million"], &args[..]].concat());
    let own = run.pid().as_raw() as u32;
    wait_until("server and load", || children(own).len() >= 2);
    run.signal(Signal::SIGTERM);
    let outcome = run.interrupted(Signal::SIGTERM);
    assert_no_failures(&outcome["load"]);
}

/// The signals that a process has blocked (`proc(5)`).
fn blocked(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("that line");
    u64::from_str_radix(line.trim(), 16).expect("a set")
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (addr, seen) = answering(usize::MAX);
    let (run, _) = load(addr, "second.hlog", &["--duration", "1h", "--workers", "1"]);
    wait_for_request(&seen, 10);
    // A worker that is stopped does not end, and its parent waits for it.
    let worker = Pid::from_raw(children(run.pid().as_raw() as u32)[0] as i32);
    kill(worker, Signal::SIGSTOP).unwrap();
    run.signal(Signal::SIGINT);
    let bit = 1 << (Signal::SIGTERM as u64 - 1);
    wait_until("the first is read", || blocked(run.pid()) & bit == 0);
    run.signal(Signal::SIGTERM);
    let (status, text) = run.end();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "{status}: {text}");
    wait_until("the worker ends too", || matches!(state(worker.as_raw() as u32), None | Some('Z')));
}

#[test]
fn other_signals_keep_their_action() {
    let (addr, seen) = answering(usize::MAX);
    let (run, _) = load(addr, "other.hlog", &["--duration", "1h"]);
    wait_for_request(&seen, 10);
    run.signal(Signal::SIGQUIT);
    let (status, text) = run.end();
    assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32), "{status}: {text}");
}

/// It has no partial result: nothing could be connected.
#[test]
fn one_that_cannot_start_leaves_no_file() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (run, log) = load(gone, "none.hlog", &[]);
    let (status, text) = run.end();
    assert_eq!((status.code(), text.as_str()), (Some(2), ""));
    assert!(!log.exists());
}
