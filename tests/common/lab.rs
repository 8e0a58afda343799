//! Labs: run, made false, and compared with what the guide quotes of them.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use c10k::sys::{die_with_parent, raise_fd_limit};
use serde_json::Value;

use super::{Need, has, skip};

/// Runs a lab, which must observe what it claims, and returns its report. `None`, and the test has
/// been reported as skipped, where the lab says that it cannot be run.
#[track_caller]
pub(crate) fn observed(name: &str) -> Option<Value> {
    let (status, report) = report(&mut lab(name, &["--json"]));
    if was_skipped(name, &report) {
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
    if !has(Need::Strace) {
        return;
    }
    let call = inject.split(':').next().expect("a call");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={inject}"), "--"]);
    command.arg(env!("CARGO_BIN_EXE_c10k")).args(["lab", name, "--json"]);
    let (status, report) = report(&mut command);
    if was_skipped(name, &report) {
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

fn was_skipped(name: &str, report: &Value) -> bool {
    let skipped = report["verdict"] == "skipped";
    if skipped {
        skip(&format!("the lab {name} {}", report["why"].as_str().unwrap_or("does not say why")));
    }
    skipped
}

/// Checks that what a chapter of the guide quotes of its labs is what they print, but for numbers
/// and for where a line is folded, which depends on their digits: the words of each quoted line
/// come in the output, in this order; `...` stands for lines left out. All labs named are quoted.
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
        if let Some((_, why)) = output.split_once("\nskipped: ") {
            skip(&format!("the lab {name} {}", why.trim_end()));
            continue;
        }
        let printed = unfolded(output.lines());
        for quote in blocks {
            let mut rest = &printed[..];
            for line in quote.lines().filter(|line| !line.is_empty() && *line != "...") {
                let words = unfolded([line]);
                let Some(at) = rest.find(&words) else {
                    panic!("{chapter}: {name} prints no such line: {line}\n{output}")
                };
                // The space behind the words is also the one before the next.
                rest = &rest[at + words.len() - 1..];
            }
        }
    }
}

/// The words of these lines, with one space around each, and each number as `#`. The mark of a
/// comment, which each of its lines has, is no word of it.
fn unfolded<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let words = lines.into_iter().flat_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("# ").unwrap_or(line).split_whitespace()
    });
    words.fold(" ".to_owned(), |text, word| text + &masked(word) + " ")
}

fn masked(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '.' | ',' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    text
}

fn lab(name: &str, args: &[&str]) -> Command {
    // Inherited by the lab, whose system calls are then the same whatever the soft limit was.
    raise_fd_limit().expect("a limit on descriptors");
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
