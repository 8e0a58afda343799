//! `c10k load --udp`: what is lost, late, out of order or wrong is counted as what it is.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use common::load::{complete, good, load, report};
use common::server::c10k;
use common::{EPOLL, Server, kernel, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A server that answers each datagram with those that `answer` makes of it, which is told its
/// number too.
fn answering(
    mut answer: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    // It ends with the test: nobody says that there will be no more datagrams.
    thread::spawn(move || {
        let mut request = [0; 2_000];
        for number in 0.. {
            let (len, from) = socket.recv_from(&mut request)?;
            for reply in answer(number, request[..len].to_vec()) {
                socket.send_to(&reply, from)?;
            }
        }
        Ok::<(), std::io::Error>(())
    });
    addr
}

const ONE: &[&str] = &["--udp", "--connections", "1"];

fn failure(report: &Value, kind: &str) -> u64 {
    report["failures"][kind].as_u64().unwrap_or_else(|| panic!("no {kind}: {report:#}"))
}

#[test]
fn every_datagram_is_answered() {
    let server = Server::start(&EPOLL, &["--udp"]);
    let addr = server.udp_addr().to_string();
    let cases: [&[&str]; 6] = [
        &["--connections", "50", "--requests-each", "20"],
        &["--connections", "5", "--requests-each", "200", "--pipeline", "10"],
        &["--connections", "5", "--requests-each", "200", "--size", "1..1400"],
        &["--connections", "5", "--requests-each", "200", "--message", "{conn} {seq}"],
        &["--connections", "4", "--requests-each", "250", "--workers", "2"],
        &["--connections", "10", "--requests-each", "100", "--source", "127.0.0.8/30"],
    ];
    for args in cases {
        let report = good(&load(&addr, &[&["--udp"], args].concat()));
        assert_eq!((&report["requests"], &report["reordered"]), (&1_000.into(), &0.into()));
    }
    let report = complete(&load(&addr, &["--udp", "--rate", "1k", "--duration", "1s"]));
    let open = report["requests_total"].as_u64().unwrap();
    assert!((999..=1_001).contains(&open), "{report:#}");
    let churn = ["--udp", "--connections", "2", "--churn", "5", "--requests", "100"];
    let report = good(&load(&addr, &churn));
    let total = report["requests_total"].as_u64().unwrap();
    assert!(report["reconnects"].as_u64() >= Some(total / 5 - 2), "{report:#}");
    assert_eq!(server.stop().count("datagrams"), 6_000 + open + total);

    let sum = Server::start(&EPOLL, &["--udp", "--protocol", "sum"]);
    let args = ["--udp", "--protocol", "sum", "--requests-each", "3"];
    assert_eq!(good(&load(&sum.udp_addr().to_string(), &args))["requests"], 300);
}

#[test]
fn what_is_lost_is_counted_and_the_next_is_sent() {
    let addr = answering(|number, datagram| match number % 10 {
        7 => vec![],
        _ => vec![datagram],
    });
    let args = [ONE, &["--requests-each", "100", "--timeout", "50ms", "--pipeline", "2"]].concat();
    let output = load(&addr.to_string(), &args);
    let report = report(&output);
    assert_eq!((failure(&report, "lost"), failure(&report, "mismatched")), (10, 0), "{report:#}");
    assert_eq!((&report["requests_total"], &report["reordered"]), (&90.into(), &0.into()));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn whoever_loses_the_last_request_is_replaced_too() {
    let addr = answering(|number, datagram| match number % 10 {
        7 => vec![],
        _ => vec![datagram],
    });
    let args = ["--udp", "--connections", "2", "--churn", "1", "--requests", "100"];
    let report = report(&load(&addr.to_string(), &[&args[..], &["--timeout", "50ms"]].concat()));
    // Of a hundred, one in ten was lost.
    let requests = report["requests"].as_u64().unwrap();
    assert!((80..100).contains(&requests), "{report:#}");
}

#[test]
fn a_search_goes_on_after_losses() {
    let addr = answering(|number, datagram| match number % 2 {
        0 => vec![],
        _ => vec![datagram],
    });
    let args = ["--udp", "--connections", "1", "--find-rate", "p99<1s", "--warmup", "0s"];
    let times = ["--duration", "50ms", "--timeout", "200ms"];
    let found = report(&load(&addr.to_string(), &[&args[..], &times].concat()));
    let trials = found["trials"].as_array().expect("some").iter();
    let answered = trials.filter(|trial| trial["requests_per_s"].as_f64() > Some(0.0)).count();
    assert!(answered >= 3, "{found:#}");
}

#[test]
fn replies_that_overtake_others_are_right_and_counted() {
    // Each second one is held back until the next has been answered.
    let mut held = None;
    let addr = answering(move |number, datagram| match number % 2 {
        0 => held.replace(datagram).into_iter().collect(),
        _ => vec![datagram, held.take().expect("the one before")],
    });
    let args = [ONE, &["--requests-each", "100", "--pipeline", "4"]].concat();
    let report = good(&load(&addr.to_string(), &args));
    assert_eq!((&report["requests"], &report["reordered"]), (&100.into(), &50.into()));
}

#[test]
fn what_is_late_is_not_lost() {
    // The first is answered when the second comes, which is sent when the first is given up.
    let mut held = None;
    let addr = answering(move |number, datagram| match number {
        0 => held.replace(datagram).into_iter().collect(),
        _ => held.take().into_iter().chain([datagram]).collect(),
    });
    let args = [ONE, &["--requests-each", "20", "--timeout", "50ms"]].concat();
    let output = load(&addr.to_string(), &args);
    let report = report(&output);
    assert_eq!((failure(&report, "late"), failure(&report, "lost")), (1, 0), "{report:#}");
    assert_eq!(failure(&report, "mismatched"), 0, "{report:#}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_is_wrong_is_found() {
    // One comes twice, one comes with a byte changed, and one is somebody else's.
    let addr = answering(|number, mut datagram| match number {
        10 => vec![datagram.clone(), datagram],
        20 => {
            datagram[30] ^= 1;
            vec![datagram]
        }
        30 => vec![b"hello".to_vec(), datagram],
        _ => vec![datagram],
    });
    let args = [ONE, &["--requests-each", "100", "--timeout", "100ms"]].concat();
    let output = load(&addr.to_string(), &args);
    let report = report(&output);
    assert_eq!((failure(&report, "mismatched"), failure(&report, "lost")), (3, 1), "{report:#}");
    assert_eq!(report["requests_total"], 99);
    assert_eq!(output.status.code(), Some(1));
}

/// What the kernel has dropped for want of room in the receive buffer of this socket: the last
/// column of `/proc/net/udp`.
fn drops(addr: SocketAddr) -> u64 {
    let table = fs::read_to_string("/proc/net/udp").expect("a table");
    let port = format!(":{:04X}", addr.port());
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).expect("its line")
}

#[test]
fn the_loss_is_what_the_kernel_says() {
    let server = Server::start(&EPOLL, &["--udp"]);
    let addr = server.udp_addr();
    server.signal(Signal::SIGSTOP);
    wait_until("it is stopped", || kernel::state(server.pid()) == Some('T'));
    let args = ["load", &addr.to_string(), "--udp", "--json", "--warmup", "0ms", "--timeout", "5s"];
    let open = ["--rate", "20k", "--duration", "500ms"];
    let load = c10k(&[&args[..], &open].concat()).spawn().expect("the program");
    wait_until("its receive buffer is full", || drops(addr) > 1_000);
    server.signal(Signal::SIGCONT);
    let output = load.wait_with_output().expect("a child of ours");
    let report = report(&output);
    assert_eq!(failure(&report, "lost"), drops(addr), "{report:#}");
    let sent = report["requests_total"].as_u64().unwrap() + drops(addr);
    assert!((9_999..=10_001).contains(&sent), "{report:#}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(server.stop().count("datagrams"), report["requests_total"].as_u64().unwrap());
}

#[test]
fn nobody_there_is_said_by_icmp() {
    let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let args = [ONE, &["--requests-each", "3", "--timeout", "50ms"]].concat();
    let output = load(&addr, &args);
    let report = report(&output);
    assert_eq!((failure(&report, "lost"), failure(&report, "refused")), (3, 3), "{report:#}");
    assert_eq!(output.status.code(), Some(1));

    let output = c10k(&["load", "--udp", "unix:/tmp/c10k"]).output().expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--udp is for IP addresses"), "{stderr}");
}
