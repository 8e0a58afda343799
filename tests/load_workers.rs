//! `c10k load --workers`: processes that add up to one load, and what comes of those that die.

#![cfg(feature = "cli")]

mod common;

use std::io::Read;
use std::net::TcpListener;

use common::load::{Waiting, good, load};
use common::{EPOLL, Server, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

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
    assert_eq!(report["requests"], 5_000);
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
    assert_eq!(server.stop().summary().connections, 50);
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
