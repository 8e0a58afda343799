//! The labs of the life and death of a connection.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in, seen};

#[test]
fn a_close_goes_through_its_states_at_both_ends() {
    observed("close-states");
    // The first listener has no SO_REUSEADDR: that the second has is not enough.
    falsified("close-states", "setsockopt:retval=0:when=1");
}

#[test]
fn unread_data_and_no_lingering_make_a_close_a_reset() {
    observed("reset");
    // SO_LINGER is not set, whatever the kernel says.
    falsified("reset", "setsockopt:retval=0");
}

#[test]
fn the_end_of_a_connection_has_its_masks() {
    observed("rdhup");
    // No reset, but an orderly close.
    falsified("rdhup", "setsockopt:retval=0");
}

#[test]
fn a_close_with_unread_input_destroys_the_reply() {
    let Some(report) = observed("close-with-unread") else { return };
    assert_eq!(seen(&report, "unread bytes that the server drains"), "16");
    // The reply is not ended before the close.
    falsified("close-with-unread", "shutdown:retval=0");
}

#[test]
fn a_silent_dead_peer_is_found_by_probes_only() {
    observed("keepalive");
    // SO_KEEPALIVE is not set on the connection that should find out: eight sockets have had two
    // time-outs set before.
    falsified("keepalive", "setsockopt:retval=0:when=17");
}

#[test]
fn the_guide_quotes_what_the_labs_print() {
    quoted_in("life.md", &["close-states", "rdhup", "reset", "close-with-unread", "keepalive"]);
}
