//! `c10k load --rate`: requests that are sent because they are due.

#![cfg(feature = "cli")]

mod common;

use std::thread;
use std::time::Duration;

use common::load::{complete, good, load, report, stalling, tampering};
use common::{EPOLL, Server};

/// At a thousand requests a second, a tenth of them come while it stalls.
#[test]
fn a_stall_is_charged_to_all_that_it_delays() {
    let common = ["--connections", "1"];
    let open = ["--rate", "1k", "--duration", "3s"];
    for more in [&[][..], &["--pipeline", "1"], &["--arrivals", "poisson", "--seed", "3"]] {
        let report = report(&load(&stalling().to_string(), &[&common[..], &open, more].concat()));
        let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
        assert!(latency("p95") > 20_000.0, "{report:#}");
        assert!(latency("p99") > 80_000.0, "{report:#}");
        assert_eq!(report["seed"].as_u64(), more.contains(&"--seed").then_some(3));
        if more == ["--pipeline", "1"] {
            // Only one of them was with the server at that time.
            assert!(report["service_us"]["p95"].as_f64() < Some(20_000.0), "{report:#}");
        }
    }
    // Who waits for each reply meets a stall with one request.
    let closed = load(&stalling().to_string(), &[&common[..], &["--requests", "3k"]].concat());
    let report = good(&closed);
    assert!(report["latency_us"]["p99"].as_f64() < Some(20_000.0), "{report:#}");
    assert!(report["latency_us"]["max"].as_f64() > Some(80_000.0), "{report:#}");
    assert_eq!(report["service_us"], report["latency_us"]);
}

/// What is due is sent, and sent once, whoever has to send it and however much has to wait.
#[test]
fn every_request_that_is_due_is_sent() {
    let cases: [&[&str]; 7] = [
        &["--rate", "2k", "--duration", "1s"],
        &["--rate", "2k:1s", "--pipeline", "1"],
        &["--rate", "2k:1s", "--workers", "3"],
        &["--rate", "2k:1s", "--active", "1", "--workers", "2"],
        &["--rate", "1k:500ms,3k:500ms"],
        &["--rate", "0..4k:1s", "--warmup", "100ms"],
        // A ramp of half a second brings a quarter of a second's requests, before measuring.
        &["--rate", "1600:1s", "--ramp", "500ms"],
    ];
    for args in cases {
        let server = Server::start(&EPOLL, &[]);
        let addr = server.addr().to_string();
        let common = ["--connections", "10"];
        let report = complete(&load(&addr, &[&common[..], args].concat()));
        let target = if args.contains(&"--ramp") { 1_600.0 } else { 2_000.0 };
        assert_eq!(report["target_per_s"].as_f64().unwrap().round(), target);
        // Two thousand of them, give or take one a worker.
        let total = report["requests_total"].as_u64().unwrap();
        assert!((1_997..=2_003).contains(&total), "{args:?}: {report:#}");
        assert_eq!(server.stop().summary().requests, total);
    }
}

#[test]
fn a_server_that_does_not_keep_up_makes_an_open_loop_invalid() {
    // Two hundred a second, at most.
    let slow = tampering(|_, line| {
        thread::sleep(Duration::from_millis(5));
        Some(line)
    });
    // It waits for all of them: on a busy machine a sleep takes several times as long.
    let args = ["--connections", "1", "--rate", "1k", "--duration", "1s", "--timeout", "5m"];
    let output = load(&slow.to_string(), &args);
    assert_eq!(output.status.code(), Some(1));
    let found = report(&output);
    let verdict = found["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("INVALID: "), "{verdict}");
    assert!(verdict.contains("the server does not keep up"), "{verdict}");
    // All of them were answered in the end, and are in the latencies, the last ones too.
    assert_eq!((&found["requests_due"], &found["requests"]), (&1_000.into(), &1_000.into()));
    assert_eq!(found["failures"]["lost"], 0, "{found:#}");
    assert!(found["latency_us"]["max"].as_f64() > Some(3_000_000.0));
    assert!(found["in_flight_mean"].as_f64() > Some(300.0), "{found:#}");
}

#[test]
fn each_step_has_its_section() {
    // The second of three is the one that cannot be kept up with.
    let slow = tampering(|_, line| {
        thread::sleep(Duration::from_millis(2));
        Some(line)
    });
    let rate = "100:500ms,2k:500ms,100..0:500ms";
    let args = ["--connections", "1", "--rate", rate, "--timeout", "5m"];
    let output = load(&slow.to_string(), &args);
    let report = complete(&output);
    let verdict = report["verdict"].as_str().unwrap();
    assert!(verdict.contains("the server does not keep up"), "{verdict}");
    assert_eq!(output.status.code(), Some(1));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "{report:#}");
    assert_eq!((&steps[1]["from_per_s"], &steps[2]["to_per_s"]), (&2_000.0.into(), &0.0.into()));
    let p99 = |step: usize| steps[step]["latency_us"]["p99"].as_f64().unwrap();
    assert!(p99(0) < p99(1) && p99(1) > 500_000.0, "{report:#}");
    // A step has the requests that were due in it, however late they are answered.
    let rates = [0, 1, 2].map(|step| steps[step]["requests_per_s"].as_f64().unwrap());
    assert_eq!(rates, [100.0, 2_000.0, 50.0]);
}
