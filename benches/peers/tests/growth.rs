//! `growth` measures what it says, and refuses what there is no room for.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn growth(args: &[&str]) -> Output {
    // On one CPU, as there may be no other: the figures are not judged.
    let usual = ["growth", "--quick", "--server-cpu", "0", "--load-cpu", "0"];
    Command::new(env!("CARGO_BIN_EXE_c10k-peers")).args(usual).args(args).output().unwrap()
}

/// Checks that ours and tokio are there, with positive figures of this name.
fn check_entries(entries: &Value, figures: &str) {
    let entries = entries.as_array().unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c10k", "tokio"]);
    for entry in entries {
        let [min, median, max] =
            ["min", "median", "max"].map(|end| entry[figures][end].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{figures}: {entry}");
    }
}

#[test]
fn cost_of_requests_and_of_idle_connections() {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("growth.json");
    let output = growth(
        &[
            &["--contenders", "tokio", "--connections", "10,1000"][..],
            &["--memory-to", "2500", "--per-process", "1000"],
            &["--json", json.to_str().unwrap()],
        ]
        .concat(),
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");

    let growth: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let pairs = |of: &str, figures: [&str; 2]| -> Vec<(u64, u64)> {
        let all = growth[of].as_array().unwrap().iter();
        all.map(|one| figures.map(|figure| one[figure].as_u64().unwrap()).into()).collect()
    };
    assert_eq!(pairs("cells", ["connections", "active"]), [(10, 10), (1000, 1000), (1000, 50)]);
    for cell in growth["cells"].as_array().unwrap() {
        check_entries(&cell["entries"], "server_cpu_us_per_request");
        check_entries(&cell["entries"], "requests_per_s");
    }
    assert_eq!(pairs("memory", ["connections", "processes"]), [(1000, 1), (2500, 3)]);
    for held in growth["memory"].as_array().unwrap() {
        check_entries(&held["entries"], "resident_bytes_per_idle_connection");
    }

    let text = String::from_utf8(output.stdout).unwrap();
    let columns = |line: &str| line.matches('|').count() - 1;
    let lines: Vec<usize> =
        text.lines().filter(|it| it.starts_with("| tokio")).map(columns).collect();
    assert_eq!(lines, [4, 4, 3], "{text}");
}

#[test]
fn what_does_not_fit_into_memory_is_refused() {
    let output = growth(&["--memory-to", "1000000000000"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(errors.contains("1000000000000 idle connections are too many"), "{errors}");
}
