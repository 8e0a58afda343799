//! `c10k load`: what it counts, and that it notices what is wrong.

#![cfg(feature = "cli")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::thread;

use common::server::c10k;
use common::{EPOLL, Server, each_model};
use serde_json::Value;

fn load(addr: &str, args: &[&str]) -> Output {
    let common = ["load", addr, "--json", "--warmup", "0ms", "--timeout", "1s"];
    c10k(&[&common, args].concat()).output().expect("the program")
}

/// Its report, whatever its exit status.
#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A run that must find nothing wrong.
#[track_caller]
fn good(output: &Output) -> Value {
    let report = report(output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    for kind in ["mismatched", "lost", "not_connected", "closed_by_server", "broken"] {
        assert_eq!(report["failures"][kind], 0, "{kind}");
    }
    report
}

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
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--protocol", "sum"], &["--protocol", "sum", "--pipeline", "4"]),
        (&["--prefix", "got:"], &["--prefix", "got:"]),
        (&["--delimiter", "0"], &["--delimiter", "0"]),
        (&[], &["--size", "1"]),
        (&[], &["--size", "60000", "--pipeline", "8"]),
        // More under way than either side holds unsent by default.
        (&["--max-frame", "8MiB"], &["--size", "2MiB", "--pipeline", "8", "--requests", "20"]),
    ];
    for (serve, args) in cases {
        let server = Server::start(&EPOLL, serve);
        let addr = server.addr().to_string();
        good(&load(&addr, &[&["--connections", "4", "--duration", "200ms"], args].concat()));
    }
}

/// A server that echoes lines, and hands each reply to `tamper` first, with its number.
fn tampering(tamper: fn(usize, Vec<u8>) -> Option<Vec<u8>>) -> SocketAddr {
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
    // None at all: with others under way, the next reply is to the wrong request.
    let dropped: Tamper = |number, line| (number != 9_000).then_some(line);
    let addr = tampering(dropped).to_string();
    let args = ["--connections", "1", "--pipeline", "4", "--requests", "10k"];
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
}

#[test]
fn it_waits_to_be_told() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = ["load", &addr, "--connections", "7", "--wait", "--requests", "10"];
    let mut child = c10k(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "connected 7\n");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert!(text.contains("0 mismatched, 0 lost"), "{text}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_start_says_why() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, part) in [
        (&[gone.as_str()][..], "Connection refused"),
        (&["nowhere.invalid:1"], "nowhere.invalid"),
        (&[&gone, "--connections", "10M"], "descriptors"),
        (&[&gone, "--connections", "18446744073709551615"], "descriptors"),
        (&[&gone, "--cpu", "9999"], "CPU 9999"),
    ] {
        let output = c10k(&[&["load"], args].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn the_race_has_a_row_for_each_model_and_load() {
    let args = ["race", "--connections", "60", "--duration", "100ms", "--warmup", "10ms"];
    let output = c10k(&[&args[..], &["--active", "5"]].concat()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    let heads: Vec<_> = rows[1..].iter().map(|row| row[..3].join(" ")).collect();
    let models = ["select", "poll", "epoll", "threads"];
    let want = ["60 60", "60 5"].map(|load| models.map(|model| format!("{model} {load}")));
    assert_eq!(heads, want.concat());
    // Threads: the last column. One for the loop, and one for each connection.
    let threads: Vec<_> = rows[1..].iter().map(|row| *row.last().unwrap()).collect();
    assert_eq!(threads, ["1", "1", "1", "61", "1", "1", "1", "61"]);

    let output = c10k(&[&args[..], &["--json"]].concat()).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcomes: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(outcomes.len(), 8);
    for outcome in outcomes {
        assert!(outcome["load"]["requests"].as_u64() > Some(0), "{outcome:#}");
        assert!(outcome["load"]["server_cpu_us_per_request"].as_f64() > Some(0.0));
    }
}
