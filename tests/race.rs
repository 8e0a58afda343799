//! `c10k race`: a row for each model and load, and the limits of the models.

#![cfg(feature = "cli")]

mod common;

use std::path::PathBuf;

use common::descriptors;
use common::server::c10k;
use common::start::limit_descriptors;
use serde_json::Value;

const BRIEF: [&str; 7] = ["race", "--rounds", "2", "--duration", "100ms", "--warmup", "10ms"];

/// Those that can hold many, in the order of the table.
const MODELS: [&str; 7] = ["processes", "threads", "spin", "select", "poll", "epoll", "epoll x2"];

fn race(args: &[&str]) -> String {
    let output = c10k(&[&BRIEF[..], args].concat()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

/// Every `min` and `max` in a JSON, of spreads over rounds.
fn bounds(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) if fields.contains_key("median") => {
            vec![&fields["min"], &fields["max"]]
        }
        Value::Object(fields) => fields.values().flat_map(bounds).collect(),
        Value::Array(values) => values.iter().flat_map(bounds).collect(),
        _ => Vec::new(),
    }
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("race-{}-{name}", std::process::id()))
}

/// What one race has, and what is made of it.
#[test]
fn there_is_a_cell_for_each_model_and_load() {
    let args = ["--connections", "60", "--active", "5", "--json"];
    let json = race(&args);
    let result: Value = serde_json::from_str(&json).expect("one object");
    let cells = result["cells"].as_array().unwrap();
    let name = |cell: &Value| {
        let figures = [&cell["connections"], &cell["active"]];
        let load = cell["load"]["kind"].as_str().unwrap();
        format!("{} {} {} {load}", cell["model"].as_str().unwrap(), figures[0], figures[1])
    };
    let mut want = vec!["blocking 1 1 closed".to_owned()];
    for active in ["60", "5"] {
        for model in MODELS {
            want.extend(["closed", "open"].map(|load| format!("{model} 60 {active} {load}")));
        }
    }
    assert_eq!(cells.iter().map(name).collect::<Vec<_>>(), want);
    // Processes and threads: one for each connection, and one that accepts.
    let tasks = |model: &str| match model {
        "processes" | "threads" => 61,
        "epoll x2" => 3,
        "blocking" => 2,
        _ => 1,
    };
    for cell in cells {
        assert_eq!(cell["tasks"], tasks(cell["model"].as_str().unwrap()), "{cell:#}");
        assert_eq!((&cell["rounds"], &cell["failures"]), (&2.into(), &0.into()), "{cell:#}");
        for figure in ["server_cpu_us_per_request", "context_switches_per_request"] {
            assert!(!cell[figure].is_null(), "{figure}: {cell:#}");
        }
    }
    // 1,024 descriptors, less those that are not connections.
    let select = result["limits"].as_array().unwrap().iter().find(|l| l["model"] == "select");
    let limit = select.unwrap()["connections"].as_u64().unwrap();
    assert!((900..1_024).contains(&limit), "{limit}");

    // One value for each round, of which the median and the bounds are.
    for cell in cells {
        let rates = cell["requests_per_s_by_round"].as_array().unwrap();
        let rates: Vec<f64> = rates.iter().map(|rate| rate.as_f64().unwrap()).collect();
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!((rates.len(), cell["requests_per_s"]["min"].as_f64()), (2, Some(least)));
    }
    assert!(bounds(&result).iter().all(|bound| bound.is_f64()));
    let conclusion: Vec<&str> = result["conclusion"]
        .as_array()
        .unwrap()
        .iter()
        .map(|said| said.as_str().unwrap())
        .collect();
    let starts = [
        "With 55 idle connections beside 5 active ones, ",
        "With 60 connections, all active, ",
        "With 60 connections, all active, ",
    ];
    for (sentence, start) in conclusion.iter().zip(starts) {
        let compared = sentence.contains(" to ") || sentence.contains("nothing in a round");
        assert!(sentence.starts_with(start) && compared, "{sentence}");
    }
    assert!(conclusion.len() == 3 && conclusion[2].contains("threads"), "{conclusion:?}");

    let saved = scratch("saved.json");
    std::fs::write(&saved, &json).unwrap();
    let saved = saved.to_str().unwrap();
    // A race beside itself differs in nothing, and a line of the table is a line of it.
    let output = c10k(&["race", "--from", saved, "--baseline", saved]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (table, compared) = text.split_once("Beside the baseline:").expect("both");
    assert!(table.contains(&conclusion.join("\n")), "{text}");
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("epoll x2 ")).count();
    assert_eq!((rows(table), rows(compared)), (4, 4), "{text}");
    let line = compared.lines().find(|line| line.starts_with("poll ")).unwrap();
    let ratios: Vec<_> = line.split_whitespace().skip(4).collect();
    assert_eq!(ratios, ["1.00"; 3], "{line}");
    std::fs::remove_file(saved).unwrap();
}

#[test]
fn a_model_takes_part_within_its_limit() {
    // Not for this process, but for the two ends of the race.
    let Some(_fds) = descriptors(1_100) else { return };
    let table = race(&["--quick", "--connections", "1100", "--active", "20"]);
    let rows = |model: &str| table.lines().filter(|line| line.starts_with(model)).count();
    assert_eq!((rows("poll "), rows("select ")), (2, 0), "{table}");
    assert!(table.contains("select: refused beyond "), "{table}");
    assert!(table.contains("blocking: one at a time: the others wait"), "{table}");
}

/// To see how many connections select has room for, it opened more than a hard limit of 1,024
/// allows, and gave up.
#[test]
fn a_low_limit_on_descriptors_is_no_reason_to_give_up() {
    let mut command = c10k(&["race", "--quick", "--connections", "2000", "--active", "5"]);
    let output = limit_descriptors(&mut command, 200).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("than the limit of 200 (ulimit -Hn) allows: ran 168"), "{table}");
}

#[test]
fn one_round_has_no_spread_and_the_plan_is_said_first() {
    let args = ["race", "--quick", "--connections", "30", "--active", "5", "--duration", "20ms"];
    let output = c10k(&[&args[..], &["--warmup", "0s", "--json"]].concat()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let first = stderr.lines().next().unwrap_or_default();
    let plan = "racing 7 ways to serve with 30 connections in one round: about ";
    assert!(first.starts_with(plan), "{stderr}");

    let json = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(&json).unwrap();
    let bounds = bounds(&result);
    assert!(bounds.len() > 10 && bounds.iter().all(|bound| bound.is_null()), "{bounds:?}");
    let saved = scratch("once.json");
    let page = scratch("once.html");
    std::fs::write(&saved, &json).unwrap();
    let from = ["--from", saved.to_str().unwrap(), "--report", page.to_str().unwrap()];
    let output = c10k(&[&["race"], &from[..]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(!text.contains("+-"), "{text}");
    for sentence in result["conclusion"].as_array().unwrap() {
        let sentence = sentence.as_str().unwrap();
        assert!(text.contains(sentence) && html.contains(sentence), "{sentence}");
        assert!(!sentence.contains(" to "), "{sentence}");
    }
    std::fs::remove_file(saved).unwrap();
    std::fs::remove_file(page).unwrap();
}

#[test]
fn nobody_need_read_all_of_it() {
    let saved = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/race.json");
    let mut child = c10k(&["race", "--from", saved]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
}

#[test]
fn what_cannot_be_is_told_before_the_race() {
    let foreign = scratch("foreign.json");
    std::fs::write(&foreign, "{}").unwrap();
    let foreign = foreign.to_str().unwrap();
    for (args, part) in [
        (["race", "--from", "/nowhere/race.json"], "/nowhere/race.json: No such file"),
        (["race", "--baseline", foreign], "not a race's JSON"),
        // Before the race, not after it.
        (["race", "--report", "/nowhere/race.html"], "cannot write /nowhere/race.html"),
        (["race", "--svg", "/nowhere/race.svg"], "cannot write /nowhere/race.svg"),
        (["race", "--duration", "0s"], "at least 1us is needed"),
    ] {
        let output = c10k(&args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{stderr}");
    }
    std::fs::remove_file(foreign).unwrap();
}
