//! Labs: run, made false, and compared with what the guide quotes of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use c10k::sys::die_with_parent;
use serde_json::Value;

/// Runs a lab, which must observe what it claims, and returns its report. `None`, and a message,
/// where it says that it cannot be run.
#[track_caller]
pub(crate) fn observed(name: &str) -> Option<Value> {
    let (status, report) = report(&mut lab(name, &["--json"]));
    if report["verdict"] == "skipped" {
        eprintln!("skipped: {name}: {}", report["why"]);
        return None;
    }
    assert_eq!(report["verdict"], "observed", "{name}: {:#}", failed(&report));
    assert_eq!(status, Some(0));
    assert!(facts(&report).next().is_some(), "{name} has facts");
    Some(report)
}

/// Runs a lab in a world where its claim is false: `strace` injects this into its system calls
/// (as in `listen:error=EPERM` or `bind:retval=0:when=3`). It must notice: not observed, status 1.
#[track_caller]
pub(crate) fn falsified(name: &str, inject: &str) {
    let call = inject.split(':').next().expect("a call");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={inject}"), "--"]);
    command.arg(env!("CARGO_BIN_EXE_c10k")).args(["lab", name, "--json"]);
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let (status, report) = report(&mut command);
    if report["verdict"] == "skipped" {
        eprintln!("skipped: {name}: {}", report["why"]);
        return;
    }
    assert_eq!(report["verdict"], "not_observed", "{name} with {inject}: {report:#}");
    assert_eq!(status, Some(1));
    let noticed = report["why"].is_string() || failed(&report) != Value::Array(Vec::new());
    assert!(noticed, "{name} with {inject}: {report:#}");
}

/// What a fact of this report was seen to be.
#[track_caller]
pub(crate) fn seen<'a>(report: &'a Value, fact: &str) -> &'a str {
    let fact = facts(report).find(|step| step["fact"] == fact);
    fact.and_then(|fact| fact["seen"].as_str())
        .unwrap_or_else(|| panic!("no such fact: {report:#}"))
}

/// Checks that what a chapter of the guide quotes of its labs is what they print, but for numbers:
/// each quoted line comes in the output, in this order; `...` stands for lines left out. All labs
/// named are quoted.
#[track_caller]
pub(crate) fn quoted_in(chapter: &str, labs: &[&str]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/guide").join(chapter);
    let text = fs::read_to_string(path).expect("the chapter");
    for name in labs {
        let command = format!("$ c10k lab {name}\n");
        let blocks: Vec<_> = text
            .split("```text\n")
            .filter_map(|block| block.strip_prefix(&command)?.split("```").next())
            .collect();
        assert!(!blocks.is_empty(), "{chapter} quotes {name}");
        let output = lab(name, &[]).output().expect("it runs");
        let output = String::from_utf8(output.stdout).expect("text");
        if output.contains("\nskipped: ") {
            eprintln!("skipped: {name} cannot be run here");
            continue;
        }
        for quote in blocks {
            let mut printed = output.lines().map(masked);
            for line in quote.lines().map(masked).filter(|line| !line.is_empty() && line != "...") {
                let found = printed.any(|printed| printed == line);
                assert!(found, "{chapter}: {name} prints no such line: {line}\n{output}");
            }
        }
    }
}

/// With each number as `#`, and each space as one.
fn masked(line: &str) -> String {
    let mut text = String::new();
    for c in line.trim().chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '.' | ',' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            ' ' if text.ends_with(' ') => {}
            c => text.push(c),
        }
    }
    text
}

fn lab(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c10k"));
    command.args(["lab", name]).args(args);
    command
}

fn report(command: &mut Command) -> (Option<i32>, Value) {
    let output = die_with_parent(command).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (output.status.code(), report)
}

fn facts(report: &Value) -> impl Iterator<Item = &Value> {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().filter_map(|step| step.get("fact"))
}

/// The facts that do not hold.
fn failed(report: &Value) -> Value {
    facts(report).filter(|fact| fact["holds"] == false).cloned().collect()
}
