//! The labs of the listen queues.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in, seen};

#[test]
fn a_connection_is_established_before_it_is_accepted() {
    observed("handshake");
    // As if nothing had been sent.
    falsified("handshake", "sendto:retval=5:when=1");
}

#[test]
fn a_full_accept_queue_drops_the_syn_until_the_client_gives_up() {
    observed("accept-queue");
    // As if there had been room for one more.
    falsified("accept-queue", "connect:retval=0:when=6");
}

#[test]
fn a_listener_made_before_fork_has_one_queue_for_both() {
    observed("fork-listen");
    // As if the socket, which the child has too, did not listen.
    falsified("fork-listen", "listen:retval=0");
}

#[test]
fn a_connection_wakes_every_waiting_process_or_one() {
    // Not under strace, for which each process sleeps at each system call.
    observed("thundering-herd");
}

#[test]
fn one_worker_gets_most_of_a_shared_listener() {
    if let Some(report) = observed("unfair-accept") {
        let shares = seen(&report, "shared listener: connections of each worker");
        let shares = shares.split(", ").map(|share| share.parse::<u32>().expect("a number"));
        assert_eq!(shares.sum::<u32>(), 200);
    }
    // As if the slow worker, the first having been stopped and all of them ended, were not slow.
    falsified("unfair-accept", "kill:retval=0:when=6");
}

#[test]
fn closing_a_listener_resets_its_queue_unless_it_migrates() {
    observed("reuseport-close");
    // As if the parameter were set, and did nothing.
    falsified("reuseport-close", "write:retval=1:when=1");
}

#[test]
fn the_guide_quotes_what_the_labs_of_the_queues_print() {
    let labs = [
        "handshake",
        "accept-queue",
        "fork-listen",
        "thundering-herd",
        "unfair-accept",
        "reuseport-close",
    ];
    quoted_in("queues.md", &labs);
}
