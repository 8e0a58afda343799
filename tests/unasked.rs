//! Replies that no request asked for: they end a load, and make no request.

#![cfg(feature = "cli")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use common::load::{load, report, tampering};
use common::{EPOLL, Server};

const HTTP: [&str; 4] =
    ["--protocol", "raw", "--message", "GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"];

#[track_caller]
fn ends(addr: &str, args: &[&str]) -> serde_json::Value {
    let output = load(addr, &[&["--duration", "1h"], args].concat());
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let verdict = report["verdict"].as_str().unwrap();
    let told = verdict.contains("answered none of the") && verdict.contains("--delimiter");
    assert!(verdict.starts_with("INVALID: ") && told, "{report:#}");
    assert!(report["failures"]["mismatched"].as_u64() > Some(0), "{report:#}");
    assert_eq!(report["failures"]["lost"], 0, "{report:#}");
    report
}

/// An echo answers that request with three lines, of which each would make another request.
#[test]
fn several_lines_for_a_request_are_no_flood() {
    for args in [
        &[][..],
        &["--workers", "2"],
        &["--rate", "100"],
        &["--pipeline", "4"],
        &["--requests-each", "3"],
        &["--probe"],
        &["--think-time", "1ms"],
    ] {
        let server = Server::start(&EPOLL, &[]);
        let common = [&HTTP[..], &["--connections", "4"]].concat();
        ends(&server.addr().to_string(), &[&common, args].concat());
        // What was under way on the other connections may make some more, but not without end.
        let lines = server.stop().summary().requests;
        assert!(lines < 500, "{args:?}: {lines} lines");
    }
}

#[test]
fn one_line_for_a_request_is_right() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let raw = ["--protocol", "raw", "--requests", "1k"];
    // A byte that each reply has once is as good as a line of its own.
    for args in [&["--message", "PING\\n"][..], &["--message", "a\\nb\\n!\\n", "--delimiter", "!"]]
    {
        let output = load(&addr, &[&raw, args].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {:#}", report(&output));
    }
}

#[test]
fn a_second_reply_makes_no_request() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    // The second line comes with the first.
    let addr = tampering(move |_, line| {
        seen.fetch_add(1, Relaxed);
        Some([&line[..], b"\nmore"].concat())
    });
    ends(&addr.to_string(), &["--connections", "1"]);
    // The first reply has made the second.
    assert!(requests.load(Relaxed) <= 2);
}

#[test]
fn a_greeting_is_no_reply() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let greeting = thread::spawn(move || {
        let streams = [listener.accept().unwrap().0, listener.accept().unwrap().0];
        for mut stream in &streams {
            stream.write_all(b"220 hello\n").unwrap();
        }
        for mut stream in &streams {
            // Until it is closed, or reset since a greeting was not read.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    // The second connection sends nothing before it.
    ends(&addr, &["--connections", "2", "--ramp", "1h"]);
    greeting.join().unwrap();
}

#[test]
fn a_search_ends_too() {
    let server = Server::start(&EPOLL, &[]);
    let args = [&HTTP[..], &["--find-rate", "p99<5ms"]].concat();
    let output = load(&server.addr().to_string(), &args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("answered none of the"), "{stderr}");
}
