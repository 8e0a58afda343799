//! `c10k load --churn`, where a server is slower than connections are replaced.

#![cfg(feature = "cli")]

mod common;

use common::kernel::{fd_count, state};
use common::load::Waiting;
use common::{EPOLL, Server, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Each of the connections that had taken a place before its first reply counted as answered, as if
/// there had been more connections than there are.
#[test]
fn a_place_is_answered_once_however_many_connections_it_had() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let rate = ["--rate", "2k", "--duration", "500ms", "--warmup", "0ms", "--churn", "10"];
    let args = [&[&addr, "--json", "--connections", "4", "--timeout", "1m"], &rate[..]].concat();
    let mut load = Waiting::start(&args, 4);
    let before = fd_count(load.child.id());
    server.signal(Signal::SIGSTOP);
    wait_until("the server to be stopped", || state(server.pid()) == Some('T'));
    load.go();
    // The kernel makes connections for a server that is stopped.
    wait_until("each place to have been taken again", || fd_count(load.child.id()) >= before + 8);
    server.signal(Signal::SIGCONT);
    let (_, json) = load.end();
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert!(report["reconnects"].as_u64() >= Some(8), "{report:#}");
    assert_eq!(report["answered"], 4, "{report:#}");
}
