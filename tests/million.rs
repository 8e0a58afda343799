//! `c10k million`, with fewer.

#![cfg(feature = "cli")]

mod common;

use common::server::c10k;
use serde_json::Value;

#[test]
fn every_connection_is_held_and_answered() {
    let args = ["million", "--connections", "500", "--requests-each", "3", "--json"];
    let output = c10k(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&result["held"], &result["load"]["answered"]), (&500.into(), &500.into()));
    assert_eq!(result["requests"], 1_500);
    let failures = &result["load"]["failures"];
    assert_eq!((&failures["mismatched"], &failures["lost"]), (&0.into(), &0.into()));
    // Each was answered once while it was opened, too.
    let summary = result["server_summary"].as_str().unwrap();
    let all = "served 2000 requests on 500 connections, peak 500, refused 0, errors 0";
    assert_eq!(summary, all);
}
