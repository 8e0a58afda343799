//! What `c10k load` writes of its result: the summary, JSON, and HdrHistogram logs.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::server::c10k;
use common::{EPOLL, Need, Server, has};
use serde_json::Value;

/// A file of a test's own.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load_output-{name}"))
}

/// 5 connections, each of which sends 200 requests: 1,000 samples, so that a thousandth of them
/// is one, and nobody's rounding matters.
const THOUSAND: [&str; 4] = ["--connections", "5", "--requests-each", "200"];

#[track_caller]
fn load(args: &[&str]) -> Output {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let output = c10k(&[&["load", &addr], args].concat()).output().expect("the program");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    serde_json::from_slice(&load(&[args, &["--json"]].concat()).stdout).expect("JSON")
}

#[test]
fn the_log_has_what_the_report_says() {
    let log = scratch("own.hlog");
    let log = log.to_str().unwrap();
    for workers in [&[][..], &["--workers", "2"]] {
        let report = json(&[&THOUSAND[..], &["--hdr", log], workers].concat());
        let merged = c10k(&["merge", log, "--json"]).output().unwrap();
        let merged: Value = serde_json::from_slice(&merged.stdout).expect("JSON");
        assert_eq!(merged["requests"], 1_000);
        for name in ["p50", "p90", "p99", "p99_9", "max"] {
            assert_eq!(merged["latency_us"][name], report["latency_us"][name], "{name}");
        }
        // The log has milliseconds.
        let seconds = |value: &Value| value.as_f64().unwrap();
        let difference = seconds(&merged["measured_s"]) - seconds(&report["measured_s"]);
        assert!(difference.abs() <= 0.001, "{difference}");
        assert!(merged["start_time_s"].as_f64() > Some(1.7e9));
    }
}

/// Reads a log as Python does, and prints the count, percentiles and the largest.
const SCRIPT: &str = "
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
everything = HdrHistogram(1, 24 * 3600 * 10**9, 3)
reader = HistogramLogReader(sys.argv[1], everything)
while reader.add_next_interval_histogram():
    pass
values = [everything.get_value_at_percentile(p) for p in (50, 90, 99, 99.9)]
print(everything.get_total_count(), *values, everything.get_max_value(), reader.get_start_time_sec())
";

#[test]
fn another_implementation_reads_the_same_from_the_log() {
    if !has(Need::Hdrh) {
        return;
    }
    let log = scratch("python.hlog");
    let log = log.to_str().unwrap();
    let report = json(&[&THOUSAND[..], &["--hdr", log]].concat());
    let output = Command::new("python3").args(["-c", SCRIPT, log]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let ours = ["p50", "p90", "p99", "p99_9", "max"]
        .map(|name| (report["latency_us"][name].as_f64().unwrap() * 1e3).round());
    assert_eq!((numbers[0], &numbers[1..6]), (1_000.0, &ours[..]));
    assert!(numbers[6] > 1.7e9, "{text}");
}

#[test]
fn a_series_has_all_requests() {
    let report = json(&[&THOUSAND[..], &["--series"]].concat());
    let series = report["series"].as_array().expect("a series");
    assert_eq!(series[0]["start_s"], 0);
    let sum = |field| series.iter().map(|second| second[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("requests"), sum("failures")), (1_000, 0));
    for second in series {
        let field = |name: &str| second[name].as_f64().unwrap();
        assert!(field("p50_us") <= field("p99_us") && field("p99_us") <= field("max_us"));
        assert!(field("requests_per_s") > 0.0 || field("requests") == 0.0, "{second}");
    }
    assert!(json(&THOUSAND)["series"].is_null(), "it was not asked for");
}

#[test]
fn every_field_is_in_the_readme() {
    let readme = include_str!("../README.md");
    let report = json(&[&THOUSAND[..], &["--series"]].concat());
    for object in [&report, &report["latency_us"], &report["failures"], &report["series"][0]] {
        for field in object.as_object().expect("an object").keys() {
            assert!(readme.contains(&format!("`{field}`")), "{field}");
        }
    }
}

#[test]
fn people_see_a_histogram() {
    let text = String::from_utf8(load(&THOUSAND).stdout).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.contains(" .. ")).collect();
    assert!((1..=12).contains(&rows.len()), "{text}");
    assert!(rows.iter().any(|row| row.ends_with(&"#".repeat(34))), "{text}");
    let count = |row: &&str| row[19..32].trim().replace(',', "").parse::<u64>().unwrap();
    assert_eq!(rows.iter().map(count).sum::<u64>(), 1_000, "{text}");
}

#[test]
fn a_log_that_cannot_be_written_is_known_before_the_load() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let output = c10k(&["load", &addr, "--hdr", "/nonexistent/a.hlog"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(stderr.starts_with("c10k: /nonexistent/a.hlog: No such file"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // Nobody connected.
    assert_eq!(server.stop().summary().connections, 0);

    let output = c10k(&["load", &addr, "--series"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "it needs --json");
}

#[test]
fn a_load_that_cannot_start_leaves_its_log_as_it_was() {
    let (new, old) = (scratch("new.hlog"), scratch("old.hlog"));
    let _ = fs::remove_file(&new);
    fs::write(&old, "another load").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for log in [&new, &old] {
        let output = c10k(&["load", &gone, "--hdr", log.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
    assert!(!new.exists());
    assert_eq!(fs::read_to_string(&old).unwrap(), "another load");

    // What is written to it is all that is in it then.
    fs::write(&old, "x".repeat(1 << 20)).unwrap();
    load(&[&THOUSAND[..], &["--hdr", old.to_str().unwrap()]].concat());
    let merged = c10k(&["merge", old.to_str().unwrap()]).output().unwrap();
    assert_eq!(merged.status.code(), Some(0));
}

#[test]
fn how_it_goes_is_told_where_it_is_asked_for() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for (workers, shows) in [(&[][..], "/s, p50 "), (&["--workers", "2"], "/s, ")] {
        let args = ["load", &addr, "--connections", "7", "--duration", "1h", "--progress"];
        let mut load = c10k(&[&args, workers].concat()).env("RUST_LOG", "info").spawn().unwrap();
        let stderr = BufReader::new(load.stderr.take().unwrap());
        let line = stderr.lines().map(Result::unwrap).find(|line| line.contains(shows)).unwrap();
        load.kill().unwrap();
        load.wait().unwrap();
        assert!(line.contains(" s  7 connected, "), "{line}");
        assert!(line.ends_with(", 0 failures"), "{line}");
        assert!(!line.contains('\x1b'), "{line:?}");
    }
    // Otherwise it is silent where nobody looks, however long it takes.
    let args = ["load", &addr, "--duration", "1200ms", "--warmup", "0ms", "--connections", "1"];
    // On a busy machine the loop may warn of a slow turn.
    let output = c10k(&args).env("RUST_LOG", "error").output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}
