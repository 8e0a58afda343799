//! `c10k race`: a row for each model and load, and the limits of the models.

#![cfg(feature = "cli")]

mod common;

use common::server::c10k;
use serde_json::Value;

const QUICK: [&str; 5] = ["race", "--duration", "100ms", "--warmup", "10ms"];

/// Those that can hold many, in the order of the table.
const MODELS: [&str; 7] = ["processes", "threads", "spin", "select", "poll", "epoll", "epoll x2"];

fn race(args: &[&str]) -> String {
    let output = c10k(&[&QUICK[..], args].concat()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

#[test]
fn there_is_a_row_for_each_model_and_load() {
    let table = race(&["--connections", "60", "--active", "5"]);
    // Columns are two spaces apart at least, and words of a cell one.
    let rows: Vec<Vec<&str>> = table
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let heads: Vec<_> = rows[1..].iter().map(|row| row[..3].join(" ")).collect();
    let many = ["60 60", "60 5"].map(|load| MODELS.map(|model| format!("{model} {load}")));
    let want = [&["blocking 1 1".to_owned(), "blocking 60 60".to_owned()][..], &many.concat()];
    assert_eq!(heads, want.concat());
    assert_eq!(rows[2][3..], ["one at a time: the others wait"]);
    // Processes and threads: one for each connection, and one that accepts.
    let tasks: Vec<_> = rows[3..].iter().map(|row| *row.last().unwrap()).collect();
    assert_eq!(tasks, ["61", "61", "1", "1", "1", "1", "3"].repeat(2));
}

#[test]
fn the_limit_of_select_is_a_result() {
    let lines = race(&["--connections", "1100", "--active", "20", "--json"]);
    let rows: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2 + 2 * MODELS.len());
    let (beyond, ran): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["why"].is_string());
    for row in ran {
        // On a busy machine none of them may fall into so short a time of measuring.
        assert!(row["load"]["requests_total"].as_u64() > Some(0), "{row:#}");
        assert!(row["load"]["server_cpu_us_per_request"].is_number(), "{row:#}");
    }
    let models: Vec<_> = beyond.iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["blocking", "select", "select"]);
    // 1,024 descriptors, less those that are not connections.
    let limit = beyond[1]["limit"].as_u64().unwrap();
    assert!((900..1_024).contains(&limit), "{limit}");
}
