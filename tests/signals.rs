//! Signals as the program was started with them, and as it passes them on: SIGHUP stops it like
//! SIGTERM, whatever its parent has blocked, and every child is reaped.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use common::client::{connect_unix, try_connect};
use common::kernel::{children, state, unacknowledged};
use common::server::c10k;
use common::start::{block_signals, ignore_signal};
use common::{
    Candidate, EPOLL, EVERY_MODEL, PROCESSES, Server, ask, each_of, expect_eof, scratch_path, skip,
    wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORKERS: Candidate = Candidate { name: "workers", args: &["--workers", "2"], ..EPOLL };

/// Every way to serve.
const ALL: &[Candidate] = &{
    let mut all = [WORKERS; EVERY_MODEL.len() + 1];
    let mut at = 0;
    while at < EVERY_MODEL.len() {
        all[at] = EVERY_MODEL[at];
        at += 1;
    }
    all
};

fn serve(model: &Candidate, listen: &str, args: &[&str]) -> Command {
    c10k(&[&["serve", "--listen", listen], model.args, args].concat())
}

fn start(command: Command) -> Server {
    Server::spawn(command, 1).expect("the program")
}

/// A line of `/proc/PID/status` that is a set of signals (`proc(5)`).
fn signals(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let set = status.lines().find_map(|line| line.strip_prefix(field)).expect("that line");
    u64::from_str_radix(set.trim_start_matches(':').trim(), 16).expect("a number")
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

#[test]
fn hangup_stops_it_as_sigterm_does() {
    each_of(ALL, |model| {
        let path = scratch_path("hangup", model);
        let server = start(serve(model, &format!("unix:{}", path.display()), &["--drain", "1h"]));
        let mut client = connect_unix(&path);
        ask(&mut client, b"hello\n", b"hello\n");
        // A terminal that is gone tells all its processes.
        for child in children(server.pid()) {
            let _ = kill(Pid::from_raw(child as i32), Signal::SIGHUP);
        }
        ask(&mut client, b"still here\n", b"still here\n");
        server.signal(Signal::SIGHUP);
        expect_eof(&mut client);
        drop(client);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        assert_eq!(outcome.summary().requests, 2);
        assert!(!path.exists());
    });
}

#[test]
fn nohup_keeps_it_from_hearing_that() {
    each_of(ALL, |model| {
        let mut command = serve(model, "127.0.0.1:0", &[]);
        ignore_signal(&mut command, Signal::SIGHUP);
        let server = start(command);
        server.signal(Signal::SIGHUP);
        let mut client = server.connect();
        ask(&mut client, b"hello\n", b"hello\n");
        server.signal(Signal::SIGHUP);
        ask(&mut client, b"still here\n", b"still here\n");
        drop(client);
        let outcome = server.stop();
        assert_eq!(outcome.summary().requests, 2);
        assert!(!outcome.stderr.contains("received signal 1;"), "{}", outcome.stderr);
    });
}

#[test]
fn the_second_one_ends_it_whatever_the_parent_had_blocked() {
    each_of(ALL, |model| {
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            let mut command = serve(model, "127.0.0.1:0", &["--drain", "1h"]);
            block_signals(&mut command);
            let server = start(command);
            // It has an hour for the rest of that.
            let mut client = server.connect();
            client.write_all(b"half of a requ").unwrap();
            wait_until("it to arrive", || unacknowledged(&client) == 0);
            server.signal(signal);
            wait_until("the first to be noticed", || try_connect(server.addr()).is_err());
            server.signal(signal);
            let outcome = server.wait();
            assert_eq!(outcome.status.signal(), Some(signal as i32), "{}", outcome.stderr);
            drop(client);
        }
    });
}

#[test]
fn no_process_inherits_a_mask() {
    let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].map(bit).iter().sum::<u64>();
    for (model, received) in [(PROCESSES, 0), (WORKERS, bit(Signal::SIGTERM))] {
        let mut command = serve(&model, "127.0.0.1:0", &[]);
        block_signals(&mut command);
        let server = start(command);
        let mut client = server.connect();
        ask(&mut client, b"hello\n", b"hello\n");
        let all = children(server.pid());
        assert!(!all.is_empty());
        for child in all {
            wait_until("its own mask", || signals(child, "SigBlk") == received);
            let ignored = ending & !bit(Signal::SIGTERM);
            wait_until("its parent to be in charge", || {
                signals(child, "SigIgn") & ending == ignored
            });
        }
        assert_eq!(signals(server.pid(), "SigBlk"), ending | bit(Signal::SIGCHLD));
        drop(client);
        server.stop();
    }
}

/// A shell has started two processes before it becomes the program: one ends at once, the other
/// when the pipe does.
#[test]
fn every_child_is_reaped_also_one_it_did_not_start() {
    const SCRIPT: &str =
        r#"exec 3<&0; true & read line <&3 & exec 3<&- 0</dev/null; exec "$0" "$@""#;
    each_of(ALL, |model| {
        let (reader, writer) = io::pipe().unwrap();
        let program = env!("CARGO_BIN_EXE_c10k");
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, program, "serve", "--listen", "127.0.0.1:0"]).args(model.args);
        c10k::sys::die_with_parent(&mut command);
        command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = start(command);
        let mut client = server.connect();
        ask(&mut client, b"hello\n", b"hello\n");
        let ours = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sh\n")
                && state(*pid) != Some('Z')
        };
        let mut cat = None;
        wait_until("the other to wait for the pipe", || {
            cat = children(server.pid()).into_iter().find(ours);
            cat.is_some()
        });
        let cat = cat.expect("just found");
        let zombie = |pid: &u32| state(*pid) == Some('Z');
        wait_until("no zombie", || !children(server.pid()).iter().any(zombie));
        drop(writer);
        wait_until("it to be reaped", || state(cat).is_none());
        ask(&mut client, b"hello\n", b"hello\n");
        drop(client);
        let outcome = server.stop();
        assert_eq!((outcome.summary().requests, outcome.summary().errors), (2, 0));
    });
}

/// The first process of a pid namespace, as in a container.
#[test]
fn as_process_1_it_ends_at_the_second_one_too() {
    let namespace = ["--pid", "--fork", "--kill-child"];
    let allowed = Command::new("unshare").args(namespace).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return skip("no pid namespace may be made, or unshare(1) is missing");
    }
    for model in [EPOLL, WORKERS] {
        let mut command = Command::new("unshare");
        command.args(namespace).arg(env!("CARGO_BIN_EXE_c10k"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--drain", "1h"]).args(model.args);
        c10k::sys::die_with_parent(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = start(command);
        let [first] = children(server.pid())[..] else { panic!("one process") };
        let mut client = server.connect();
        client.write_all(b"half of a requ").unwrap();
        wait_until("it to arrive", || unacknowledged(&client) == 0);
        let signal = || kill(Pid::from_raw(first as i32), Signal::SIGTERM).unwrap();
        signal();
        wait_until("the first to be noticed", || try_connect(server.addr()).is_err());
        signal();
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(128 + libc::SIGTERM), "{}", outcome.stderr);
    }
}
