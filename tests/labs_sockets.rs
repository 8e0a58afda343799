//! The labs of sockets and the four-tuple.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in, seen};

#[test]
fn a_connection_is_the_four_tuple() {
    observed("four-tuple");
    // As if the kernel let a port be bound twice.
    falsified("four-tuple", "bind:retval=0:when=4");
}

#[test]
fn a_full_send_queue_is_writable_when_a_third_of_it_is_free() {
    if let Some(report) = observed("socket-queues") {
        assert_eq!(seen(&report, "the writer's Send-Q and the reader's Recv-Q"), "5 and 0");
        assert_eq!(seen(&report, "the bytes have moved"), "0 and 5");
    }
    // As if room for one byte were reported.
    falsified("socket-queues", "epoll_wait:retval=1:when=1");
}

#[test]
fn a_stream_has_no_messages() {
    if let Some(report) = observed("framing") {
        let one_by_one = "o n e t w o t h r e e";
        assert_eq!(seen(&report, "a recv is a message, byte by byte"), one_by_one);
    }
    // As if the receive queue had room for all of a long send.
    falsified("framing", "setsockopt:retval=0:when=1");
}

#[test]
fn two_small_writes_wait_for_a_delayed_acknowledgement() {
    observed("nagle");
    // As if TCP_NODELAY made no difference; the four before it are time-outs.
    falsified("nagle", "setsockopt:retval=0:when=5");
}

#[test]
fn each_error_of_bind_and_connect_says_something_else() {
    observed("errors");
    // As if somebody listened on any port.
    falsified("errors", "connect:retval=0:when=1");
    // As if SO_ERROR did not know how the handshake ended.
    falsified("errors", "getsockopt:retval=0:when=1");
}

#[test]
fn the_guide_quotes_what_the_labs_print() {
    let labs = ["four-tuple", "socket-queues", "framing", "nagle", "errors"];
    quoted_in("sockets.md", &labs);
}
