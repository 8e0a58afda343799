//! The labs of sockets and the four-tuple.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed};

#[test]
fn a_connection_is_the_four_tuple() {
    observed("four-tuple");
    // As if the kernel let a port be bound twice.
    falsified("four-tuple", "bind:retval=0:when=4");
}
