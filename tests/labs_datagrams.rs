//! The labs of datagrams.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in, seen};

#[test]
fn a_datagram_is_a_message_and_needs_no_connection() {
    if let Some(report) = observed("datagrams") {
        assert_eq!(seen(&report, "senders that it saw"), "10");
        assert_eq!(seen(&report, "sockets of the server"), "1");
    }
    // As if sending to nobody failed at once.
    falsified("datagrams", "sendto:error=ECONNREFUSED:when=5");
    // As if MSG_TRUNC told no more than what was received.
    falsified("datagrams", "recvfrom:retval=4:when=4");
}

#[test]
fn a_forged_datagram_is_answered_without_end() {
    observed("udp-loop");
    // As if the first answer to an answer got lost, which ends it.
    falsified("udp-loop", "sendto:retval=7:when=3");
}

#[test]
fn the_guide_quotes_what_the_labs_print() {
    quoted_in("datagrams.md", &["datagrams", "udp-loop"]);
}
