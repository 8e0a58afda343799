//! What `c10k load` measures: the requests that are due in the measured time, answered ever.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use common::load::{good, load, report, tampering};
use common::server::c10k;
use common::{EPOLL, Server, kernel, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("measured-{name}"))
}

/// How many requests a log has.
#[track_caller]
fn logged(log: &str) -> Value {
    let merged = c10k(&["merge", log, "--json"]).output().unwrap();
    let merged: Value = serde_json::from_slice(&merged.stdout).expect("JSON");
    merged["requests"].clone()
}

/// Its verdict, with the exit status that this has.
#[track_caller]
fn verdict(output: &Output, status: i32) -> String {
    let report = report(output);
    assert_eq!(output.status.code(), Some(status), "{report:#}");
    report["verdict"].as_str().unwrap().to_owned()
}

/// Each is in the counts, the log and the series, once.
#[test]
fn all_that_is_due_is_measured() {
    let server = Server::start(&EPOLL, &["--udp"]);
    let (tcp, udp) = (server.addr().to_string(), server.udp_addr().to_string());
    let log = scratch("all.hlog");
    let log = log.to_str().unwrap();
    for (addr, due, args) in [
        (&tcp, 1, &["--rate", "1", "--duration", "1s"][..]),
        (&tcp, 2, &["--rate", "2", "--duration", "1s", "--warmup", "500ms"]),
        (&tcp, 4, &["--rate", "4", "--duration", "1s", "--pipeline", "1"]),
        (&tcp, 10, &["--rate", "10", "--duration", "1s", "--warmup", "330ms"]),
        (&tcp, 60, &["--rate", "40", "--duration", "1500ms"]),
        (&tcp, 40, &["--rate", "40", "--duration", "1s", "--workers", "2"]),
        (&tcp, 30, &["--rate", "20:1s,50:200ms", "--warmup", "100ms"]),
        (&udp, 40, &["--rate", "40", "--duration", "1s", "--udp"]),
    ] {
        let seconds = ["--hdr", log, "--series", "--connections", "5"];
        let report = good(&load(addr, &[&seconds, args].concat()));
        let due = Value::from(due);
        assert_eq!((&report["requests_due"], &report["requests"]), (&due, &due), "{args:?}");
        assert_eq!(logged(log), due, "{args:?}");
        let series = report["series"].as_array().unwrap();
        let each = series.iter().map(|second| second["requests"].as_u64().unwrap());
        assert_eq!(Value::from(each.sum::<u64>()), due, "{args:?}");
    }
    // How many arrivals of another kind there are is not known before.
    let poisson = ["--rate", "40", "--duration", "1s", "--arrivals", "poisson", "--hdr", log];
    let report = good(&load(&tcp, &poisson));
    assert_eq!(report["requests_due"], report["requests"]);
    assert_eq!(logged(log), report["requests"]);
}

#[test]
fn so_many_requests_are_exactly_so_many() {
    let server = Server::start(&EPOLL, &["--udp"]);
    let (tcp, udp) = (server.addr().to_string(), server.udp_addr().to_string());
    for (addr, count, args) in [
        (&tcp, "1", &["--warmup", "100ms"][..]),
        (&tcp, "1", &["--workers", "3"]),
        (&tcp, "25", &["--pipeline", "4"]),
        (&tcp, "25", &["--pipeline", "4", "--workers", "2", "--warmup", "50ms"]),
        (&tcp, "25", &["--churn", "2"]),
        (&tcp, "25", &["--think-time", "1ms"]),
        (&tcp, "25", &["--ramp", "50ms"]),
        (&tcp, "10", &["--rate", "10"]),
        (&tcp, "1", &["--rate", "100", "--workers", "2"]),
        (&tcp, "25", &["--rate", "100", "--workers", "2", "--warmup", "35ms"]),
        (&tcp, "25", &["--rate", "100", "--arrivals", "poisson"]),
        (&tcp, "25", &["--rate", "50:200ms,500:10s", "--warmup", "35ms"]),
        (&udp, "25", &["--udp"]),
        (&udp, "25", &["--udp", "--rate", "100"]),
    ] {
        let requests = ["--connections", "10", "--requests", count];
        let report = good(&load(addr, &[&requests, args].concat()));
        assert_eq!(report["requests"].to_string(), count, "{args:?}: {report:#}");
        if args == ["--rate", "10"] {
            // Ten of them take a second, and not until the last one is answered.
            assert_eq!(report["measured_s"], 1.0);
        }
    }
}

/// An echo that answers when it has had so many lines, all of them.
fn holding(lines: usize) -> SocketAddr {
    let mut held = Vec::new();
    tampering(move |number, line| {
        held.extend(line);
        if number + 1 < lines {
            held.push(b'\n');
            return None;
        }
        Some(std::mem::take(&mut held))
    })
}

#[test]
fn a_reply_after_the_measured_time_counts() {
    let open = ["--connections", "1", "--rate", "100", "--duration", "200ms"];
    let report = good(&load(&holding(20).to_string(), &open));
    assert_eq!((&report["requests_due"], &report["requests"]), (&20.into(), &20.into()));
    assert_eq!((&report["measured_s"], &report["requests_per_s"]), (&0.2.into(), &100.0.into()));
    // In a closed loop a request is due when it is sent.
    let slow = tampering(|_, line| {
        thread::sleep(Duration::from_millis(200));
        Some(line)
    });
    let closed = ["--connections", "1", "--duration", "50ms", "--fail-if", "p99>100ms"];
    let output = load(&slow.to_string(), &closed);
    assert_eq!(verdict(&output, 1), "valid", "the condition is crossed");
    assert_eq!(self::report(&output)["requests"], 1);
}

#[test]
fn nothing_measured_is_a_failure() {
    // It accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let times = ["--duration", "50ms", "--timeout", "100ms", "--connections", "2"];
    for (args, why) in [
        (&["--fail-if", "p99>1h"][..], "INVALID: no request was answered"),
        (
            &["--warmup", "50ms", "--fail-if", "rps<0"],
            "INVALID: no request was due in the measured",
        ),
        (&["--rate", "100", "--fail-if", "p99>1h"], "INVALID: no request was answered"),
    ] {
        let output = load(&addr, &[&times, args].concat());
        assert!(verdict(&output, 1).starts_with(why), "{args:?}: {:#}", report(&output));
        let crossed = report(&output)["crossed"][0].as_str().unwrap().to_owned();
        assert!(crossed.ends_with(": nothing was measured"), "{crossed}");
    }
}

#[test]
fn a_time_of_nothing_has_no_rate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(common::reset));
    for args in [&[][..], &["--rate", "100"], &["--rate", "100:1s,200:1s"]] {
        let output = load(&addr, &[&["--connections", "20"], args].concat());
        if output.status.code() == Some(2) {
            continue; // All were reset before it had begun.
        }
        let verdict = verdict(&output, 1);
        assert!(verdict.ends_with("no connection was left"), "{verdict}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!verdict.contains("inf") && !verdict.contains("NaN"), "{verdict}");
        assert_eq!(
            report(&output)["in_flight_mean"].as_f64().map(f64::is_finite),
            Some(true),
            "{text}"
        );
    }
}

/// A load that is stopped for a while, when the server has had so many requests.
fn stopped(args: &[&str]) -> Output {
    let (tell, begun) = std::sync::mpsc::sync_channel(1);
    let addr = tampering(move |number, line| {
        if number == 10 {
            let _ = tell.send(());
        }
        Some(line)
    });
    let common = ["load", &addr.to_string(), "--json", "--warmup", "0s", "--connections", "1"];
    let load = c10k(&[&common, args].concat()).spawn().unwrap();
    begun.recv().unwrap();
    let pid = Pid::from_raw(load.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("it is stopped", || kernel::state(load.id()) == Some('T'));
    thread::sleep(Duration::from_millis(300));
    kill(pid, Signal::SIGCONT).unwrap();
    load.wait_with_output().unwrap()
}

/// The load generator was stopped, and not the server slow.
#[test]
fn what_leaves_late_is_not_the_servers_fault() {
    let output = stopped(&["--rate", "500", "--duration", "1s"]);
    let verdict = verdict(&output, 1);
    assert!(verdict.contains("the load generator sent requests late"), "{verdict}");
    let report = report(&output);
    assert!(report["send_delay_us"]["p99"].as_f64() > Some(200_000.0), "{report:#}");
    assert!(report["send_delay_us"]["max"].as_f64() <= report["latency_us"]["max"].as_f64());
    // With fewer than a hundred requests that is a doubt.
    let output = stopped(&["--rate", "40", "--duration", "1s"]);
    let report = good(&output);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("the load generator sent requests late"), "{warnings}");
    // A closed loop sends when a reply comes: nothing is late, but what it receives may be.
    let report = self::report(&stopped(&["--duration", "1s"]));
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("the load generator itself was away for "), "{warnings}");
    let server = Server::start(&EPOLL, &[]);
    let closed = load(&server.addr().to_string(), &["--requests", "10"]);
    assert!(good(&closed)["send_delay_us"].is_null());
}

/// What was settled is in the log, whatever becomes of the load.
#[test]
fn the_log_is_written_as_it_goes() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for args in [&[][..], &["--workers", "2"], &["--rate", "100"]] {
        let log = scratch("killed.hlog");
        let _ = fs::remove_file(&log);
        let log = log.to_str().unwrap();
        let usual = ["load", &addr, "--hdr", log, "--duration", "1h", "--warmup", "0s"];
        let mut load = c10k(&[&usual[..], &["--connections", "2"], args].concat()).spawn().unwrap();
        let seconds = || {
            let text = fs::read_to_string(log).unwrap_or_default();
            text.lines().filter(|line| line.contains(",HIST")).count()
        };
        wait_until("two seconds are there", || seconds() >= 2);
        load.kill().unwrap();
        load.wait().unwrap();
        assert!(logged(log).as_u64() > Some(10), "{args:?}");
    }
}

/// The trials that `c10k race` makes on the same connections.
struct Trials(Child, BufReader<std::process::ChildStdout>);

impl Trials {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    #[track_caller]
    fn run(&mut self, trial: &str) -> Value {
        writeln!(self.0.stdin.as_ref().unwrap(), "{trial}").unwrap();
        serde_json::from_str(&self.line()).expect("a report")
    }
}

impl Drop for Trials {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reply_of_an_earlier_exchange_does_not_count_in_a_later_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let answers = Arc::new(AtomicBool::new(false));
    let is_open = answers.clone();
    // It ends with the test.
    thread::spawn(move || {
        let (mut request, mut held) = ([0; 2_000], Vec::new());
        loop {
            let (len, from) = socket.recv_from(&mut request)?;
            held.push(request[..len].to_vec());
            if is_open.load(Relaxed) {
                for reply in held.drain(..) {
                    socket.send_to(&reply, from)?;
                }
            }
        }
        #[allow(unreachable_code, reason = "it names the type of the error")]
        Ok::<(), std::io::Error>(())
    });
    let times = ["--udp", "--trials", "--warmup", "0s", "--duration", "100ms", "--timeout", "1s"];
    let mut load = c10k(&[&["load", &addr, "--connections", "1"], &times[..]].concat())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(load.stdout.take().unwrap());
    let mut trials = Trials(load, stdout);
    assert_eq!(trials.line(), "connected 1\n");
    for (open, answered) in [(false, 0), (true, 10)] {
        answers.store(open, Relaxed);
        let report = trials.run("1 100");
        assert_eq!((&report["requests_due"], &report["requests"]), (&10.into(), &answered.into()));
        let failures = &report["failures"];
        let lost = 10 - answered;
        assert_eq!((&failures["lost"], &failures["late"]), (&lost.into(), &0.into()), "{report:#}");
        assert_eq!(failures["mismatched"], 0, "{report:#}");
    }
}
