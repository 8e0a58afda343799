//! The labs of the listen queues.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed};

#[test]
fn a_connection_is_established_before_it_is_accepted() {
    observed("handshake");
    falsified("handshake", "accept4:error=EAGAIN");
}
