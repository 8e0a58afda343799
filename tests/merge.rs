//! `c10k merge`: logs of HdrHistogram, its own and those of others.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::server::c10k;
use serde_json::Value;

/// Written by the Python package `hdrhistogram`, an implementation that shares no code with ours.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python.hlog");

/// A file of a test's own.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("merge-{name}"))
}

fn merge(args: &[&str]) -> Output {
    c10k(&[&["merge"], args].concat()).output().expect("the program")
}

#[track_caller]
fn merged(args: &[&str]) -> Value {
    let output = merge(&[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What Python said of that log (`get_value_at_percentile`, `get_max_value`).
#[track_caller]
fn is_as_python_says(latency: &Value) {
    for (name, us) in [
        ("p50", 267.775),
        ("p90", 754.687),
        ("p99", 2_142.207),
        ("p99_9", 436_469.759),
        ("max", 613_416.959),
    ] {
        assert_eq!(latency[name], us, "{name}");
    }
}

#[test]
fn a_log_of_another_implementation_is_read() {
    let summary = merged(&[PYTHON]);
    is_as_python_says(&summary["latency_us"]);
    assert_eq!((&summary["logs"], &summary["intervals"]), (&1.into(), &3.into()));
    assert_eq!((&summary["requests"], &summary["measured_s"]), (&3_000.into(), &3.0.into()));
    assert_eq!(summary["requests_per_s"], 1_000.0);
    assert_eq!(summary["start_time_s"], 1_700_000_000.0);
}

#[test]
fn logs_add_up_and_what_is_merged_can_be_merged() {
    let (copy, twice) = (scratch("copy.hlog"), scratch("twice.hlog"));
    fs::copy(PYTHON, &copy).unwrap();
    let [copy, twice] = [&copy, &twice].map(|path| path.to_str().unwrap());
    let summary = merged(&[PYTHON, copy, "--hdr", twice]);
    // Of each value there are two, in the same three seconds.
    is_as_python_says(&summary["latency_us"]);
    assert_eq!((&summary["requests"], &summary["intervals"]), (&6_000.into(), &6.into()));
    assert_eq!(summary["requests_per_s"], 2_000.0);

    let again = merged(&[twice]);
    assert_eq!((&again["requests"], &again["intervals"]), (&6_000.into(), &3.into()));
    for field in ["latency_us", "requests_per_s", "start_time_s", "measured_s"] {
        assert_eq!(again[field], summary[field], "{field}");
    }
}

#[test]
fn logs_of_which_one_has_no_time_of_day_are_taken_to_have_begun_together() {
    let log = fs::read_to_string(PYTHON).unwrap();
    let undated = scratch("undated.hlog");
    let no_time = log.lines().filter(|line| !line.contains("Time:")).collect::<Vec<_>>();
    fs::write(&undated, no_time.join("\n")).unwrap();
    let summary = merged(&[PYTHON, undated.to_str().unwrap()]);
    assert_eq!((&summary["requests"], &summary["measured_s"]), (&6_000.into(), &3.0.into()));
    assert_eq!(summary["start_time_s"], Value::Null);
}

#[test]
fn people_see_a_histogram() {
    let output = merge(&[PYTHON]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("logs         1 with 3 intervals, from 2023-11-14T22:13:20Z\n"),
        "{text}"
    );
    assert!(text.contains("requests     3000 in 3.00 s\n"), "{text}");
    let longest = text.lines().find(|line| line.ends_with(&"#".repeat(34))).expect("a bar");
    assert!(longest.starts_with(" 100 us ..  300 us        1,318  43.933%  "), "{longest}");
}

#[test]
fn what_is_no_log_is_named_with_its_line() {
    let log = fs::read(PYTHON).unwrap();
    let cut = scratch("cut.hlog");
    fs::write(&cut, &log[..log.len() - 100]).unwrap();
    let empty = scratch("empty.hlog");
    fs::write(&empty, "#[Histogram log format version 1.3]\n").unwrap();
    let [cut, empty] = [&cut, &empty].map(|path| path.to_str().unwrap());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (path, at, what) in [
        (cut, ":8", "the histogram is "),
        (source, ":1", "this is no line of an HdrHistogram log"),
        (env!("CARGO_BIN_EXE_c10k"), ":1", "this is no line of an HdrHistogram log"),
        (empty, "", "there is no interval in it"),
        ("/nonexistent/a.hlog", "", "No such file or directory"),
    ] {
        let output = merge(&[PYTHON, path]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with(&format!("c10k: {path}{at}: {what}")), "{stderr}");
        assert_eq!((stderr.lines().count(), output.stdout.len()), (1, 0), "{stderr}");
    }
    let output = merge(&[PYTHON, "--hdr", "/nonexistent/all.hlog"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(stderr.starts_with("c10k: /nonexistent/all.hlog: No such file"), "{stderr}");
}

#[test]
fn a_log_counts_once_and_is_not_written_to() {
    let [log, link, hard] = ["once.hlog", "link.hlog", "hard.hlog"].map(scratch);
    for path in [&log, &link, &hard] {
        let _ = fs::remove_file(path);
    }
    fs::copy(PYTHON, &log).unwrap();
    std::os::unix::fs::symlink(&log, &link).unwrap();
    fs::hard_link(&log, &hard).unwrap();
    let [log, link, hard] = [&log, &link, &hard].map(|path| path.to_str().unwrap());
    for (args, why) in [
        (&[log, log][..], "is named twice"),
        (&[log, PYTHON, link], "are the same file"),
        (&[hard, log], "are the same file"),
        (&[log, "--hdr", log], "is one of the logs"),
        (&[PYTHON, log, "--hdr", link], "is one of the logs"),
        (&[log, "--hdr", hard], "is one of the logs"),
    ] {
        let output = merge(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("c10k: ") && stderr.contains(why), "{args:?}: {stderr}");
    }
    assert_eq!(fs::read(log).unwrap(), fs::read(PYTHON).unwrap());
    // What is no file may be named as often as anybody likes.
    assert_eq!(merged(&[log, "--hdr", "/dev/null"])["logs"], 1);
}
