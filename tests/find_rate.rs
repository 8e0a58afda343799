//! `c10k load --find-rate`: the highest rate at which a condition holds.

#![cfg(feature = "cli")]

mod common;

use std::thread;
use std::time::Duration;

use common::load::{load, report, tampering};
use common::server::c10k;
use common::{EPOLL, Server};
use serde_json::Value;

fn trials(found: &Value) -> Vec<(u64, bool)> {
    let trial = |trial: &Value| Some((trial["rate_per_s"].as_u64()?, trial["held"].as_bool()?));
    found["trials"].as_array().expect("trials").iter().map(|one| trial(one).unwrap()).collect()
}

/// Two trials in a row decide that a rate fails, and two that the one found holds.
#[track_caller]
fn assert_decided_twice(found: &Value) {
    let trials = trials(found);
    let in_a_row = |rate: &Value, held| {
        let wanted = (rate.as_u64().unwrap(), held);
        trials.windows(2).any(|pair| pair == [wanted, wanted])
    };
    if !found["failed_per_s"].is_null() {
        assert!(in_a_row(&found["failed_per_s"], false), "{trials:?}");
    }
    if let Some(rate) = found["rate_per_s"].as_u64() {
        assert!(trials.iter().filter(|&&trial| trial == (rate, true)).count() >= 2, "{trials:?}");
        assert_eq!((&found["confirmed"], trials.last()), (&true.into(), Some(&(rate, true))));
        assert!(found["failed_per_s"].as_u64().is_none_or(|failed| failed > rate), "{trials:?}");
    }
}

#[test]
fn the_rate_that_holds_is_found() {
    // It answers one in five milliseconds: two hundred a second, at most.
    let slow = tampering(|_, line| {
        thread::sleep(Duration::from_millis(5));
        Some(line)
    });
    let common = ["--connections", "1", "--duration", "300ms"];
    let output = load(&slow.to_string(), &[&common[..], &["--find-rate", "p50<50ms"]].concat());
    let found = report(&output);
    assert_eq!(output.status.code(), Some(0), "{found:#}");
    let rate = found["rate_per_s"].as_u64().unwrap();
    assert!(rate <= 250, "{found:#}");
    assert_eq!(trials(&found)[0], (1_000, false));
    assert_decided_twice(&found);
    // The server has one connection to give: all trials were on the same.
    let all = found["trials"].as_array().unwrap();
    assert!(all.iter().all(|trial| trial["failures"]["lost"] == 0), "{found:#}");
}

#[test]
fn a_trial_that_fails_once_does_not_decide() {
    // A single reply of thousands is late.
    let addr = tampering(|number, line| {
        if number == 20 {
            thread::sleep(Duration::from_millis(1_500));
        }
        Some(line)
    });
    let args = ["--connections", "1", "--duration", "100ms", "--find-rate", "p99<1s"];
    let found = report(&load(&addr.to_string(), &args));
    let trials = trials(&found);
    assert_eq!((trials[0], trials[1].0), ((1_000, false), 1_000), "{found:#}");
    assert_decided_twice(&found);
}

#[test]
fn connections_stay_from_trial_to_trial() {
    // With workers, each at its part of the rate.
    let server = Server::start(&EPOLL, &[]);
    let args = ["--connections", "4", "--workers", "2", "--duration", "50ms"];
    let args = [&args[..], &["--find-rate", "p50<1us"]].concat();
    let found = report(&load(&server.addr().to_string(), &args));
    // Each twice, since none holds.
    let rates: Vec<_> = trials(&found).into_iter().map(|(rate, _)| rate).collect();
    let halves = std::iter::successors(Some(1_000), |rate| Some(rate / 2)).take(10);
    assert_eq!(rates, halves.flat_map(|rate| [rate, rate]).collect::<Vec<u64>>());
    assert_eq!((&found["rate_per_s"], &found["failed_per_s"]), (&Value::Null, &1.into()));
    assert_eq!(server.stop().summary().connections, 4);
}

/// Whoever has taken the place of another sends in the next trial.
#[test]
fn replaced_connections_send() {
    let server = Server::start(&EPOLL, &[]);
    let args = ["--connections", "2", "--churn", "2", "--duration", "100ms"];
    let args = [&args[..], &["--find-rate", "p50<1us"]].concat();
    let found = report(&load(&server.addr().to_string(), &args));
    // At lower rates than this one, none may be due in the time.
    let all = found["trials"].as_array().unwrap().iter();
    let busy = all.filter(|trial| trial["rate_per_s"].as_u64() > Some(60)).collect::<Vec<_>>();
    assert_eq!(busy.len(), 10, "{found:#}");
    assert!(busy.iter().all(|trial| trial["requests_per_s"].as_f64() > Some(0.0)), "{found:#}");
}

/// Trials on different numbers of connections do not compare.
#[test]
fn connections_that_were_lost_are_made_again() {
    let server = Server::start(&EPOLL, &["--idle-timeout", "100ms"]);
    let args = ["--connections", "3", "--active", "1", "--duration", "200ms"];
    for workers in [&[][..], &["--workers", "2"]] {
        let args = [&args[..], &["--find-rate", "p50<1us"], workers].concat();
        let found = report(&load(&server.addr().to_string(), &args));
        let all = found["trials"].as_array().unwrap();
        assert!(all.iter().all(|trial| trial["failures"]["not_connected"] == 0), "{found:#}");
        let closed =
            all.iter().filter(|one| one["failures"]["closed_by_server"].as_u64() > Some(0));
        assert!(closed.count() >= 2, "{found:#}");
    }
}

#[test]
fn people_read_a_bracket() {
    let slow = tampering(|_, line| {
        thread::sleep(Duration::from_millis(5));
        Some(line)
    });
    let addr = slow.to_string();
    let args = ["load", &addr, "--connections", "1", "--duration", "200ms", "--warmup", "0s"];
    let output = c10k(&[&args[..], &["--find-rate", "p50<50ms"]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = text.lines().last().unwrap();
    assert!(found.starts_with("found        ") && found.contains("p50<50ms (fails at "), "{text}");
}
