//! `c10k serve` as a person meets it: help, and one line that names the cause when it cannot start.

#![cfg(feature = "cli")]

mod common;

use std::net::TcpListener;
use std::process::Output;

use common::server::c10k;
use common::start::limit_descriptors;
use common::{EVERY_MODEL, Server, THREADS, each_of};

fn run(args: &[&str]) -> Output {
    c10k(args).output().expect("the program")
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// It could not start: exit status 2, one line that names the cause, and no panic.
#[track_caller]
fn assert_cannot(args: &[&str], cause: &str) {
    let output = run(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    let [line] = stderr.lines().collect::<Vec<_>>()[..] else {
        panic!("{args:?}: not one line: {stderr}")
    };
    assert!(line.starts_with("c10k: "), "{args:?}: {line}");
    assert!(line.contains(cause), "{args:?}: {line} should name {cause}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
}

#[test]
fn help_has_an_example() {
    for args in [&["--help"][..], &["serve", "--help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Usage: c10k"));
    }
    let help = run(&["serve", "--help"]);
    assert!(text(&help.stdout).contains("Examples:\n  c10k serve"));
    for default in ["127.0.0.1:7000", "30s", "64KiB", "1MiB", "5s", "4096"] {
        assert!(text(&help.stdout).contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn help_of_a_verb_says_more_than_the_list_of_verbs() {
    let list = run(&["help"]);
    for verb in ["serve", "client", "load", "merge", "race", "million"] {
        let help = run(&["help", verb]);
        let help = text(&help.stdout);
        let short = help.lines().next().unwrap();
        assert!(text(&list.stdout).contains(short), "{verb}: {short}");
        let intro = help.split("Usage:").next().unwrap();
        assert!(intro.lines().count() > 2, "{verb}: {intro}");
        assert!(help.contains(&format!("Examples:\n  c10k {verb}")), "{verb}");
    }
}

#[test]
fn bad_usage() {
    for (args, cause) in [
        (&["serve", "--no-such-flag"][..], "--no-such-flag"),
        (&["serve", "extra"], "extra"),
        (&["no-such-verb"], "no-such-verb"),
        (&["serve", "--model", "magic"], "magic"),
        (&["serve", "--delimiter", "ab"], "one byte"),
        (&["serve", "--delimiter", "0x100"], "one byte"),
        (&["serve", "--delimiter", ""], "one byte"),
        (&["serve", "--max-frame", "0"], "size"),
        (&["serve", "--max-frame", "1TiB"], "size"),
        (&["serve", "--max-connections", "many"], "count"),
        (&["serve", "--idle-timeout", "soon"], "duration"),
        (&["serve", "--drain", "5"], "duration"),
        (&["serve", "--listen"], "--listen"),
    ] {
        assert_cannot(args, cause);
    }
}

#[test]
fn what_cannot_be_listened_on() {
    for (addr, cause) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:port", "127.0.0.1:port"),
        ("127.0.0.1:65536", "127.0.0.1:65536"),
        ("", "''"),
        // Reserved for documentation: no machine has it.
        ("192.0.2.1:0", "192.0.2.1"),
        ("unix:/no/such/directory/socket", "/no/such/directory"),
    ] {
        assert_cannot(&["serve", "--listen", addr], cause);
    }
    let long = format!("unix:/tmp/{}", "x".repeat(200));
    assert_cannot(&["serve", "--listen", &long], "xxx");
}

#[test]
fn an_unknown_host() {
    // Reserved for this (RFC 6761).
    assert_cannot(&["serve", "--listen", "no-such-host.invalid:7000"], "no-such-host.invalid");
}

#[test]
fn an_address_in_use() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    assert_cannot(&["serve", "--listen", &addr], &addr);
    assert_cannot(&["serve", "--listen", &addr], "choose another port");
    // One of several is enough, and nothing is announced before all are there.
    assert_cannot(&["serve", "--listen", free, "--listen", &addr], &addr);
}

#[test]
fn what_does_not_go_together() {
    for (args, part) in [
        (&["--model", "threads", "--trigger", "level"][..], "--trigger is for"),
        (&["--model", "poll", "--trigger", "edge"], "--trigger is for"),
        (&["--model", "epoll", "--stack-size", "1MiB"], "--stack-size is for"),
        (&["--protocol", "sum", "--prefix", "x"], "--prefix is for"),
        (&["--protocol", "sum", "--delimiter", "x"], "--delimiter is for"),
        (&["--framing", "chunk", "--delimiter", "x"], "--delimiter is for"),
    ] {
        assert_cannot(&[&["serve", "--listen", "127.0.0.1:0"], args].concat(), part);
    }
    assert_cannot(&["serve", "--listen", "127.0.0.1:0", "--cpu", "1000"], "CPU 1000");
    assert_cannot(&["serve", "--listen", "127.0.0.1:0", "--cpu", "99999999"], "CPU 99999999");
}

#[test]
fn not_enough_descriptors() {
    each_of(EVERY_MODEL, |model| {
        // Enough to start the program, not to start the server.
        let mut command = c10k(&["serve", "--listen", "127.0.0.1:0"]);
        let output = limit_descriptors(command.args(model.args), 5).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("c10k: ") && stderr.contains("ulimit -n"), "{stderr}");
    });
}

#[test]
fn a_reader_that_went_away_is_no_panic() {
    // As in `c10k serve | head -1`.
    let server = Server::start(&THREADS, &[]);
    let outcome = server.stop();
    assert_eq!(outcome.stdout.len(), 1);
    let mut child = c10k(&["serve", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = common::comes_true(|| {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert!(ended);
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}
