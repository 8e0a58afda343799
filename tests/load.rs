//! `c10k load`: what it counts, and that it notices what is wrong.

#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::thread;

use common::load::{complete, good, load, report, stalling, tampering};
use common::server::c10k;
use common::{EPOLL, Server, comes_true, each_model, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

#[test]
fn every_request_is_counted_on_both_sides() {
    each_model(|model| {
        let server = Server::start(model, &[]);
        let addr = server.addr().to_string();
        let args = ["--connections", "20", "--pipeline", "3", "--requests", "5k"];
        let report = good(&load(&addr, &args));
        let requests = report["requests"].as_u64().unwrap();
        assert!(requests >= 5_000, "{requests}");
        assert_eq!(report["connected"], 20);
        assert!(report["latency_us"]["p99_9"].as_f64() >= report["latency_us"]["p50"].as_f64());

        let summary = server.stop().summary();
        assert_eq!((summary.connections, summary.peak, summary.errors), (20, 20, 0));
        assert_eq!(report["requests_total"], summary.requests);
    });
}

#[test]
fn only_the_active_ones_send() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let report = good(&load(&addr, &["--connections", "50", "--active", "5", "--requests", "100"]));
    assert_eq!((&report["connected"], &report["active"]), (&50.into(), &5.into()));
    assert_eq!(server.stop().summary().connections, 50);
}

#[test]
fn sums_prefixes_delimiters_and_sizes() {
    let cases: [(&[&str], &[&str]); 11] = [
        (&["--protocol", "sum"], &["--protocol", "sum", "--pipeline", "4"]),
        (&["--prefix", "got:"], &["--prefix", "got:"]),
        (&["--delimiter", "0"], &["--delimiter", "0"]),
        (&[], &["--size", "1"]),
        (&[], &["--size", "60000", "--pipeline", "8"]),
        (&[], &["--size", "1..2KiB", "--pipeline", "8"]),
        (&["--prefix", "got:"], &["--message", "{conn}: {seq}\\t", "--prefix", "got:"]),
        (&["--protocol", "sum"], &["--protocol", "sum", "--no-verify"]),
        (&["--prefix", "other than it expects"], &["--no-verify"]),
        (&[], &["--protocol", "raw", "--message", "PING {seq}\\r\\n"]),
        // More under way than either side holds unsent by default.
        (&["--max-frame", "8MiB"], &["--size", "2MiB", "--pipeline", "8", "--requests", "20"]),
    ];
    for (serve, args) in cases {
        let server = Server::start(&EPOLL, serve);
        let addr = server.addr().to_string();
        good(&load(&addr, &[&["--connections", "4", "--duration", "200ms"], args].concat()));
    }
}

#[test]
fn connections_are_replaced_after_so_many_requests() {
    let cases: [&[&str]; 4] = [
        &["--requests", "500"],
        &["--requests", "500", "--pipeline", "4"],
        &["--rate", "2k", "--duration", "300ms"],
        &["--rate", "2k", "--duration", "300ms", "--pipeline", "1", "--workers", "2"],
    ];
    for args in cases {
        let server = Server::start(&EPOLL, &[]);
        let addr = server.addr().to_string();
        let common = ["--connections", "4", "--churn", "10", "--prefix", ""];
        let report = complete(&load(&addr, &[&common[..], args].concat()));
        let reconnects = report["reconnects"].as_u64().unwrap();
        let requests = report["requests_total"].as_u64().unwrap();
        assert!(reconnects >= 4 && requests >= 500, "{args:?}: {report:#}");
        assert_eq!(report["answered"], 4, "those that were replaced are still four");
        assert!(report["reconnect_us"]["p50"].as_f64() > Some(0.0));
        let summary = server.stop().summary();
        assert_eq!(summary.requests, requests);
        assert!(summary.requests <= 10 * summary.connections, "{summary:?}");
        // The last ones may have been begun and not be connected yet.
        let accepted = summary.connections - 4;
        assert!((reconnects..=reconnects + 4).contains(&accepted), "{summary:?}: {reconnects}");
    }
}

#[test]
fn whoever_thinks_sends_less() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = ["--connections", "10", "--duration", "300ms", "--think-time", "20ms"];
    // With churn too: a new connection is no reason not to think.
    for more in [&[][..], &["--churn", "3"], &["--ramp", "200ms", "--workers", "2"]] {
        let report = good(&load(&addr, &[&args[..], more].concat()));
        // Each of ten can have thought fifteen times, or twenty-five with the ramp; without a pause
        // there are thousands.
        let requests = report["requests_total"].as_u64().unwrap();
        assert!((10..=270).contains(&requests), "{more:?}: {report:#}");
        assert_eq!(report["answered"], 10);
    }
}

#[test]
fn thresholds_that_are_crossed_are_told() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let conditions = ["--fail-if", "rps<1M", "--fail-if", "errors>0", "--fail-if", "max>0us"];
    let common = ["--connections", "2", "--requests", "100"];
    let output = load(&addr, &[&common[..], &conditions].concat());
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with("c10k: rps<1M: it is "), "{stderr}");
    assert!(lines[1].starts_with("c10k: max>0us: it is "), "{stderr}");
    assert_eq!(report(&output)["crossed"].as_array().unwrap().len(), 2);
    good(&load(&addr, &[&common[..], &["--fail-if", "errors>0", "--fail-if", "rps<1"]].concat()));
}

#[test]
fn one_wrong_reply_in_ten_thousand_is_noticed() {
    type Tamper = fn(usize, Vec<u8>) -> Option<Vec<u8>>;
    let corrupt: Tamper = |number, mut line| {
        line[40] ^= u8::from(number == 9_000);
        Some(line)
    };
    let swapped: Tamper = |number, mut line| {
        // The digits of the request after it: as if two replies had changed places.
        let last = line[15];
        line[15] = if number == 9_000 { if last == b'0' { b'1' } else { b'0' } } else { last };
        Some(line)
    };
    let doubled: Tamper = |number, line| match number {
        9_000 => Some([line.as_slice(), b"\n", line.as_slice()].concat()),
        _ => Some(line),
    };
    for (tamper, what) in [(corrupt, "corrupt"), (swapped, "swapped"), (doubled, "doubled")] {
        let addr = tampering(tamper).to_string();
        let output = load(&addr, &["--connections", "1", "--requests", "10k"]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let report = report(&output);
        assert!(report["failures"]["mismatched"].as_u64() >= Some(1), "{what}: {report:#}");
        let first = report["failures"]["first_mismatch"].as_str().unwrap();
        assert!(first.starts_with("connection 0: "), "{first}");
    }
    // Two replies change places: each of them is wrong, and none is lost.
    let mut first = Vec::new();
    let reordered = move |number, line: Vec<u8>| match number {
        9_000 => {
            first = line;
            None
        }
        9_001 => Some([line.as_slice(), b"\n", &first].concat()),
        _ => Some(line),
    };
    let addr = tampering(reordered).to_string();
    let output = load(&addr, &["--connections", "1", "--pipeline", "4", "--requests", "10k"]);
    assert_eq!(output.status.code(), Some(1));
    let failures = &report(&output)["failures"];
    assert_eq!((&failures["mismatched"], &failures["lost"]), (&2.into(), &0.into()));

    // None at all: with others under way, the next reply is to the wrong request.
    let dropped: Tamper = |number, line| (number != 9_000).then_some(line);
    let addr = tampering(dropped).to_string();
    let args = ["--connections", "1", "--pipeline", "4", "--requests", "10k", "--timeout", "1s"];
    let output = load(&addr, &args);
    assert_eq!(output.status.code(), Some(1));
    let failures = &report(&output)["failures"];
    assert!(failures["mismatched"].as_u64() >= Some(1), "{failures:#}");
    assert!(failures["lost"].as_u64() >= Some(1), "{failures:#}");
}

#[test]
fn a_server_that_hangs_up_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 65]).unwrap();
    });
    let output = load(&addr, &["--connections", "1", "--duration", "10s"]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let failures = &report(&output)["failures"];
    assert_eq!((&failures["closed_by_server"], &failures["lost"]), (&1.into(), &1.into()));
    let report = report(&output);
    // It hung up in the warm-up, or while it was measured.
    let verdict = report["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("INVALID: it ended after 0.0 s of 10.0"), "{verdict}");
}

#[test]
fn failures_are_counted_each_by_its_kind() {
    let kind = |output: &Output, kind: &str, count: u64| {
        assert_eq!(output.status.code(), Some(1), "{kind}");
        let report = report(output);
        assert_eq!(report["failures"][kind], count, "{report:#}");
    };
    // Nobody listens at one of two targets.
    let server = Server::start(&EPOLL, &[]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = [&gone, "--connections", "10", "--requests-each", "1"];
    kind(&load(&server.addr().to_string(), &args), "refused", 5);

    // A reset, with four under way.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let resetting = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 65]).unwrap();
        common::reset(stream);
    });
    let output = load(&addr, &["--connections", "1", "--pipeline", "4", "--duration", "10s"]);
    resetting.join().unwrap();
    kind(&output, "reset", 1);
    kind(&output, "lost", 4);

    // Answered, but not in time.
    let args = ["--connections", "1", "--requests-each", "600", "--timeout", "50ms"];
    let output = load(&stalling().to_string(), &args);
    assert_eq!(output.status.code(), Some(1));
    assert!(report(&output)["failures"]["late"].as_u64() >= Some(1));
    assert_eq!(report(&output)["failures"]["lost"], 0);
}

/// A load that has connected, and waits to be told to go on.
struct Waiting {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Waiting {
    /// Starts one with `--wait`, and waits for it to have made all its connections.
    #[track_caller]
    fn start(args: &[&str], connections: usize) -> Waiting {
        let args = [&["load", "--wait"], args].concat();
        let mut child = c10k(&args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("connected {connections}\n"));
        Waiting { child, stdout }
    }

    fn go(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// Its exit status, and what it printed. One that goes on for ever fails the test.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        assert!(comes_true(|| self.child.try_wait().unwrap().is_some()), "it does not end");
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }

    /// The processes that it has forked.
    fn workers(&self) -> Vec<Pid> {
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

#[test]
fn it_waits_to_be_told() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for workers in [&[][..], &["--workers", "3"]] {
        let args = [addr.as_str(), "--connections", "7", "--requests", "10"];
        let mut load = Waiting::start(&[&args, workers].concat(), 7);
        load.go();
        let (status, text) = load.end();
        assert!(text.contains("0 mismatched, 0 lost"), "{text}");
        assert!(text.contains("7 (7 active, "), "{text}");
        assert_eq!(status, Some(0));
    }
}

#[test]
fn workers_add_up_to_one_load() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = ["--workers", "3", "--connections", "31", "--pipeline", "2", "--requests", "5k"];
    let pid = server.pid().to_string();
    let report = good(&load(&addr, &[&args[..], &["--server-pid", &pid]].concat()));
    assert_eq!((&report["connected"], &report["active"]), (&31.into(), &31.into()));
    assert_eq!(report["answered"], 31);
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests >= 5_000, "{requests}");
    let latency = |name| report["latency_us"][name].as_f64().unwrap();
    assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99"));
    assert!(latency("p99") <= latency("max"));
    assert!(report["load_cpu_us_per_request"].as_f64() > Some(0.0));
    assert!(report["server_cpu_us_per_request"].as_f64() > Some(0.0));

    let summary = server.stop().summary();
    assert_eq!((summary.connections, summary.peak, summary.errors), (31, 31, 0));
    assert_eq!(report["requests_total"], summary.requests);
}

#[test]
fn fewer_may_send_than_there_are_workers() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    // Whoever has none that sends keeps the connections open, and does not wait for requests.
    let args = ["--workers", "5", "--connections", "50", "--active", "2", "--requests", "300"];
    let report = good(&load(&addr, &[&args[..], &["--duration", "1h"]].concat()));
    assert_eq!((&report["active"], &report["answered"]), (&2.into(), &2.into()));
    // More workers than connections: as many as there are connections.
    let args = ["--workers", "9", "--connections", "4", "--requests", "100"];
    assert_eq!(good(&load(&addr, &args))["connected"], 4);
    let summary = server.stop().summary();
    assert_eq!((summary.connections, summary.peak), (54, 50));
}

#[test]
fn a_worker_that_dies_is_a_failure() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = [&addr, "--json", "--workers", "2", "--connections", "20", "--pipeline", "3"];
    let mut load = Waiting::start(&[&args[..], &["--requests", "100"]].concat(), 20);
    let workers = load.workers();
    assert_eq!(workers.len(), 2);
    kill(workers[0], Signal::SIGKILL).unwrap();
    wait_until("its connections are closed", || server.connections() == 10);
    load.go();
    let (status, text) = load.end();
    assert_eq!(status, Some(1), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let failures = &report["failures"];
    assert_eq!((&failures["dead_workers"], &failures["lost"]), (&1.into(), &30.into()));
    let errors = failures["errors"].as_object().unwrap();
    let (how, count) = errors.iter().next().expect("one");
    assert!(how.starts_with("worker ") && how.ends_with("killed by SIGKILL"), "{how}");
    assert_eq!((errors.len(), count), (1, &1.into()));
    // The other one has done its part.
    assert_eq!(report["answered"], 10);
    assert!(report["requests"].as_u64() >= Some(50), "{report:#}");
}

#[test]
fn workers_that_die_while_they_wait_for_replies_are_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let args = [&addr, "--workers", "2", "--connections", "2", "--requests-each", "5"];
    let mut load = Waiting::start(&[&args[..], &["--duration", "1h", "--json"]].concat(), 2);
    load.go();
    let mut streams = [silent.accept().unwrap().0, silent.accept().unwrap().0];
    for stream in &mut streams {
        stream.read_exact(&mut [0; 65]).unwrap();
    }
    for worker in load.workers() {
        kill(worker, Signal::SIGKILL).unwrap();
    }
    let (status, text) = load.end();
    assert_eq!(status, Some(1), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["failures"]["dead_workers"], 2);
    assert_eq!(report["failures"]["lost"], 10);
}

#[test]
fn a_worker_that_is_stopped_is_not_waited_for() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = [&addr, "--workers", "2", "--connections", "20", "--requests", "100"];
    let times = ["--duration", "100ms", "--warmup", "0ms", "--timeout", "100ms", "--json"];
    let mut load = Waiting::start(&[&args[..], &times].concat(), 20);
    let stopped = load.workers()[0];
    kill(stopped, Signal::SIGSTOP).unwrap();
    load.go();
    let (status, text) = load.end();
    assert_eq!(status, Some(1), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["failures"]["dead_workers"], 1, "{report:#}");
    let errors = report["failures"]["errors"].as_object().unwrap();
    assert!(
        errors.keys().any(|how| how.contains(": killed, since it had not ended")),
        "{errors:?}"
    );
    assert_eq!(report["answered"], 10, "the other one has done its part");
    assert_eq!(kill(stopped, None), Err(Errno::ESRCH), "it is gone");
}

#[test]
fn workers_die_with_their_parent() {
    let server = Server::start(&EPOLL, &["--idle-timeout", "off"]);
    let addr = server.addr().to_string();
    let mut load = Waiting::start(&[&addr, "--workers", "2", "--connections", "10"], 10);
    wait_until("all are accepted", || server.connections() == 10);
    load.child.kill().unwrap();
    wait_until("the workers' connections are closed", || server.connections() == 0);
}

#[test]
fn each_connection_sends_as_many_as_it_is_told() {
    for workers in [&[][..], &["--workers", "2"]] {
        for (pipeline, each) in [("1", 1), ("1", 7), ("4", 7), ("16", 7)] {
            let server = Server::start(&EPOLL, &[]);
            let addr = server.addr().to_string();
            let k = each.to_string();
            let args = ["--connections", "30", "--active", "20", "--requests-each", &k];
            let more = ["--pipeline", pipeline, "--duration", "1h", "--warmup", "1h"];
            let report = good(&load(&addr, &[&args[..], &more, workers].concat()));
            assert_eq!(report["answered"], 20);
            assert_eq!(
                (&report["requests"], &report["requests_total"]),
                (&(20 * each).into(), &(20 * each).into())
            );
            let summary = server.stop().summary();
            assert_eq!((summary.requests, summary.connections), (20 * each, 30));
        }
    }
}

#[test]
fn a_wrong_reply_is_no_answer() {
    let addr = tampering(|_, mut line| {
        line[40] ^= 1;
        Some(line)
    });
    let output = load(&addr.to_string(), &["--connections", "1", "--requests-each", "3"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((&report["answered"], &report["failures"]["mismatched"]), (&0.into(), &3.into()));
}

#[test]
fn several_targets_have_the_same_load() {
    let servers = [Server::start(&EPOLL, &[]), Server::start(&EPOLL, &[])];
    let addrs = servers.each_ref().map(|server| server.addr().to_string());
    let more = [&addrs[1], "--connections", "20", "--requests-each", "5", "--workers", "3"];
    let report = good(&load(&addrs[0], &more));
    assert_eq!((&report["connected"], &report["answered"]), (&20.into(), &20.into()));
    for server in servers {
        let summary = server.stop().summary();
        assert_eq!((summary.connections, summary.requests), (10, 50));
    }
}

#[test]
fn a_name_means_the_address_that_answers() {
    // Only one of the addresses that the name may stand for.
    let server = Server::start(&EPOLL, &[]);
    let addr = format!("localhost:{}", server.addr().port());
    good(&load(&addr, &["--connections", "3", "--requests-each", "2"]));
    assert_eq!(server.stop().summary().requests, 6);
}

#[test]
fn connections_come_from_the_sources_and_go_to_the_targets() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addrs = listeners.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let sources = ["--source", "127.1.2.4/30,127.0.0.9", "--source", "127.0.0.9"];
    let args = [&addrs[0], &addrs[1], "--connections", "40", "--workers", "2"];
    let _load = Waiting::start(&[&args[..], &sources].concat(), 40);
    let mut seen = BTreeMap::new();
    for (number, listener) in listeners.iter().enumerate() {
        for _ in 0..20 {
            let (_, peer) = listener.accept().unwrap();
            *seen.entry((peer.ip().to_string(), number)).or_insert(0) += 1;
        }
    }
    let ips = ["127.0.0.9", "127.1.2.4", "127.1.2.5", "127.1.2.6", "127.1.2.7"];
    let want = ips.into_iter().flat_map(|ip| [0, 1].map(|number| ((ip.to_owned(), number), 4)));
    assert_eq!(seen, want.collect());
}

/// The requests of connecting are none of those measured, or asked for.
#[test]
fn a_probe_is_one_request_more() {
    each_model(|model| {
        let server = Server::start(model, &[]);
        let addr = server.addr().to_string();
        let args = ["--connections", "40", "--probe", "--active", "10", "--requests-each", "3"];
        let report = good(&load(&addr, &args));
        assert_eq!(report["answered"], 40, "{report:#}");
        assert_eq!((&report["requests"], &report["requests_total"]), (&30.into(), &70.into()));
        assert_eq!(server.stop().summary().requests, 70);
    });
}

#[test]
fn a_probe_that_is_not_answered_is_lost() {
    // It accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let args = ["--connections", "2", "--probe", "--timeout", "100ms", "--requests-each", "1"];
    let output = load(&addr, &args);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((&report["failures"]["lost"], &report["answered"]), (&2.into(), &0.into()));
    assert!(report["failures"]["errors"]["a probe had no reply"] == 2, "{report:#}");
}

#[test]
fn paced_connections_are_all_made() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for workers in [&[][..], &["--workers", "3"]] {
        let args = ["--connections", "50", "--connect-rate", "1k", "--requests-each", "1"];
        let report = good(&load(&addr, &[&args[..], workers].concat()));
        assert_eq!((&report["connected"], &report["answered"]), (&50.into(), &50.into()));
    }
}

#[test]
fn what_it_lacks_is_told_before_it_starts() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let told = |fds: &str, args: &[&str]| {
        // A limit of its own, which it cannot raise.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {fds}; exec \"$@\""), "sh"]);
        shell.args([env!("CARGO_BIN_EXE_c10k"), "load", &addr]).args(args);
        let output = shell.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    };
    assert_eq!(
        told("200", &["--connections", "1,000"]),
        "c10k: needs 1,000 connections x 1 descriptor, and a process may have 200: \
         6 workers of 180 (--workers 6)\n"
    );
    assert!(told("200", &["--connections", "1k", "--workers", "5"]).contains("(--workers 6)"));
    // One address has no more than 64 k ports.
    let many = told("1000", &["--connections", "200k", "--workers", "300"]);
    assert!(many.contains("there is 1: add --source 127.1.0.0/24"), "{many}");
    assert_eq!(server.stop().summary().connections, 0);
}

#[test]
fn what_cannot_start_says_why() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, part) in [
        (&[gone.as_str()][..], "Connection refused"),
        (&["nowhere.invalid:1"], "nowhere.invalid"),
        (&[&gone, "--workers", "2"], "Connection refused"),
        (&[&gone, "--connections", "18446744073709551615"], "connections x 1"),
        (&[&gone, "--workers", "1001"], "--workers is 1000 at most"),
        (&["unix:/nowhere", "--source", "127.0.0.2"], "a unix socket has no source address"),
        (&[&gone, "--source", "::1"], "one is IPv4 and the other IPv6"),
        (&[&gone, "--source", "here"], "neither an address nor a network"),
        (&[&gone, "--source", "192.0.2.1"], "Cannot assign requested address"),
        (&[&gone, "--requests-each", "5G"], "not a count"),
        (&[&gone, "--rate", "1k,2k:5s"], "says not how long"),
        (&[&gone, "--protocol", "raw"], "needs a --message"),
        (&[&gone, "--fail-if", "p98>5ms"], "is not a condition"),
        (&[&gone, "--find-rate", "p99<5ms"], "Connection refused"),
        (&[&gone, "--find-rate", "p99<5ms", "--rate", "1k"], "cannot be used with"),
        (&[&gone, "--message", "a\\nb"], "has the delimiter in it"),
        (&[&gone, "--size", "5..4"], "ends before it begins"),
        (&[&gone, "--find-rate", "p99<5ms", "--hdr", "load.hlog"], "cannot be used with"),
        (&[&gone, "--find-rate", "p99<5ms", "--json", "--series"], "cannot be used with"),
        (&[&gone, "--arrivals", "poisson"], "--arrivals is for --rate"),
        (&[&gone, "--rate", "1k", "--seed", "1"], "--seed is for --arrivals poisson"),
        (&[&gone, "--server-pid", "999999999"], "there is no such process"),
        (&[&gone, "--duration", "0s"], "it is to last for some time"),
        (&[&gone, "--think-time", "1s", "--rate", "5"], "cannot be used with"),
        (&[&gone, "--rate", "1k", "--requests-each", "5"], "cannot be used with"),
        (&[&gone, "--requests-each", "5000M"], "4,294,967,294 at most"),
        // With its probe that would have been none at all.
        (&[&gone, "--requests-each", "4294967295", "--probe"], "4,294,967,294 at most"),
        (&[&gone, "--requests-each", "5", "--requests", "5"], "cannot be used with"),
        (&[], "required"),
        (&[&gone, "--cpu", "9999"], "CPU 9999"),
    ] {
        let output = c10k(&[&["load"], args].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    }
}
