//! `c10k load`: what it counts, and that it notices what is wrong.

#![cfg(feature = "cli")]

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

use common::load::{complete, good, load, report, stalling, tampering};
use common::{EPOLL, Need, Server, each_model, has};

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
fn one_that_spins_never_waits() {
    if !has(Need::Strace) {
        return;
    }
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let requests = ["--connections", "1", "--requests", "20"];
    for (spin, timeout) in [(&[][..], "-1"), (&["--spin"], "0")] {
        good(&load(&addr, &[&requests[..], spin].concat()));
        let waits = Command::new("strace")
            .args(["-e", "trace=epoll_wait,epoll_pwait", env!("CARGO_BIN_EXE_c10k"), "load", &addr])
            .args(requests)
            .args(spin)
            .output()
            .expect("strace");
        let waits = String::from_utf8_lossy(&waits.stderr).into_owned();
        let waits: Vec<&str> = waits.lines().filter(|line| line.starts_with("epoll_")).collect();
        let with = format!("128, {timeout}");
        assert!(waits.len() > 20 && waits.iter().all(|wait| wait.contains(&with)), "{waits:?}");
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
    let verdict = report["verdict"].as_str().unwrap();
    assert!(verdict.contains("s of 10.0: no connection was left"), "{verdict}");
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
