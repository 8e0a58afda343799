//! Labs on a machine that lacks something, or was started by somebody who left descriptors open.

#![cfg(feature = "cli")]

mod common;

use std::process::{Command, Stdio};

use common::server::c10k;
use common::skip;
use common::start::{limit_descriptors, refuse};
use serde_json::Value;

/// Runs labs, and returns their exit status and reports.
fn run(command: &mut Command) -> (Option<i32>, Vec<Value>) {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let reports = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    (output.status.code(), reports.collect())
}

/// Each lab, skipped for a reason that has this in it, or observed.
#[track_caller]
fn names_skipped(reports: &[Value], reason: &str) -> Vec<String> {
    let skipped = |report: &&Value| match report["verdict"].as_str().unwrap() {
        "observed" => false,
        "skipped" => report["why"].as_str().unwrap().contains(reason),
        _ => panic!("{report:#}"),
    };
    reports.iter().filter(skipped).map(|report| report["lab"].to_string()).collect()
}

#[test]
fn without_netlink_what_needs_it_is_skipped() {
    let netlink = (libc::SYS_socket, Some(libc::AF_NETLINK as u32));
    let mut command = c10k(&["lab", "--all", "--json"]);
    refuse(&mut command, netlink.0, netlink.1, libc::EPERM);
    if let Err(error) = c10k_runs_under_seccomp() {
        return skip(&format!("seccomp(2) cannot be used: {error}"));
    }
    let (status, reports) = run(&mut command);
    let skipped = names_skipped(&reports, "needs sock_diag");
    assert_eq!(status, Some(0));
    assert!(skipped.contains(&"\"handshake\"".to_owned()), "{skipped:?}");
    // Of these nobody asks the kernel for sockets.
    assert!(skipped.len() + 10 < reports.len(), "{skipped:?}");
}

fn c10k_runs_under_seccomp() -> std::io::Result<()> {
    let mut command = c10k(&["--version"]);
    refuse(&mut command, libc::SYS_socket, Some(libc::AF_NETLINK as u32), libc::EPERM);
    command.output().map(drop)
}

#[test]
fn with_few_descriptors_what_needs_more_is_skipped() {
    let mut command = c10k(&["lab", "--all", "--json"]);
    let (status, reports) = run(limit_descriptors(&mut command, 64));
    let skipped = names_skipped(&reports, "descriptors");
    assert_eq!(status, Some(0));
    for lab in ["\"server-limit\"", "\"thundering-herd\""] {
        assert!(skipped.contains(&lab.to_owned()), "{skipped:?}");
    }
}

/// The descriptors that a lab names in its system calls, in their order. `None`, and the test has
/// been reported as skipped, where the lab says that it cannot be run.
fn descriptors(lab: &str, inherited: bool) -> Option<Vec<String>> {
    let open: String = (3..10).map(|fd| format!("{fd}</dev/null ")).collect();
    let script = format!("exec \"$0\" lab \"$1\" --json {}", if inherited { &open } else { "" });
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_c10k"), lab]);
    let (status, reports) = run(&mut command);
    assert_eq!(status, Some(0), "{reports:?}");
    if reports[0]["verdict"] == "skipped" {
        skip(&format!("the lab {lab} {}", reports[0]["why"].as_str().unwrap()));
        return None;
    }
    let calls = reports[0]["steps"].as_array().unwrap().iter().filter_map(|step| {
        let call = &step["call"];
        Some(format!("{} = {}", call["call"].as_str()?, call["result"].as_str()?))
    });
    let text: Vec<_> = calls.collect();
    let words = text.iter().flat_map(|call| call.split([' ', '(', ',', '{']));
    Some(words.filter(|word| word.contains('<')).map(str::to_owned).collect())
}

/// `fork-listen` had the 3 of its listener written into its text.
#[test]
fn the_numbers_of_descriptors_are_the_same_whatever_was_inherited() {
    for lab in ["fork-listen", "dup-leak", "four-tuple"] {
        let Some(alone) = descriptors(lab, false) else { continue };
        assert!(alone.len() > 5, "{lab}: {alone:?}");
        assert_eq!(Some(alone), descriptors(lab, true), "{lab}");
    }
}
