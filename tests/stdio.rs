//! Standard output and standard error that cannot be written to: a reader that has gone, as in
//! `c10k load ... | head -1`, and a device that is full.

#![cfg(feature = "cli")]

mod common;

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::process::{Child, Output, Stdio};

use common::server::c10k;
use common::{EPOLL, Server};

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python.hlog");
const RACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/race.json");

/// The end of a pipe whose reader has gone.
fn nobody_reads() -> PipeWriter {
    io::pipe().expect("a pipe").1
}

/// Every verb that ends by itself, with the exit status that its work has. `ADDR` is a server.
const ENDING: &[(&[&str], i32)] = &[
    (&["load", "ADDR", "--connections", "2", "--requests-each", "1"], 0),
    (&["load", "ADDR", "--connections", "2", "--requests-each", "1", "--json"], 0),
    (&["load", "ADDR", "--requests-each", "1", "--fail-if", "never"], 2),
    (&["load", "ADDR", "--connections", "2", "--requests-each", "1", "--fail-if", "max>0us"], 1),
    (&["load", "ADDR", "--connections", "2", "--requests-each", "1", "--wait"], 0),
    (&["client", "ADDR", "a", "b", "c"], 0),
    (&["merge", PYTHON], 0),
    (&["merge", PYTHON, "--json"], 0),
    (&["lab"], 0),
    (&["lab", "four-tuple"], 0),
    (&["lab", "four-tuple", "--json"], 0),
    (&["race", "--from", RACE], 0),
    (&["--help"], 0),
    (&["help", "serve"], 0),
    (&["--version"], 0),
    (&[], 0),
];

fn each_verb(test: impl Fn(&[&str], i32)) {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for (args, status) in ENDING {
        let args: Vec<_> = args.iter().map(|&a| if a == "ADDR" { &addr } else { a }).collect();
        test(&args, *status);
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    each_verb(|args, status| {
        let output = c10k(args).stdout(nobody_reads()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
        assert!(!stderr.contains("pipe") && !stderr.contains("panicked"), "{args:?}: {stderr}");
    });
}

#[test]
fn nor_is_one_of_standard_error() {
    each_verb(|args, status| {
        let output = c10k(args).stderr(nobody_reads()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}");
    });
    let cannot = c10k(&["serve", "--listen", "nowhere"]).stderr(nobody_reads()).output().unwrap();
    assert_eq!(cannot.status.code(), Some(2));
}

#[test]
fn a_full_device_is_named_in_one_line() {
    each_verb(|args, status| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = c10k(args).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        if status != 2 {
            let why = "c10k: cannot write to standard output: No space left on device";
            let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with(why)).collect();
            assert_eq!(lines.len(), 1, "{args:?}: {stderr}");
        }
    });
}

/// Waits for a child that ends although its standard input does not.
#[track_caller]
fn ends(mut child: Child) -> Output {
    let ended = common::comes_true(|| child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(ended, "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_client_whose_replies_nobody_reads_does_not_wait_for_more_messages() {
    let server = Server::start(&EPOLL, &[]);
    let mut client = c10k(&["client", &server.addr().to_string()]);
    let mut child = client.stdin(Stdio::piped()).stdout(nobody_reads()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "hello").unwrap();
    let output = ends(child);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    drop(stdin);
}

#[test]
fn progress_that_nobody_reads_is_no_failure() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let args = ["load", &addr, "--progress", "--duration", "1100ms", "--warmup", "0s"];
    let output = c10k(&args).stderr(nobody_reads()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("requests"));
}
