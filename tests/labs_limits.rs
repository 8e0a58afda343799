//! The labs of limits that are the client's, and select's.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in};

#[test]
fn a_client_has_one_port_for_each_connection_to_one_destination() {
    observed("client-limit");
    // As if there were a port more.
    falsified("client-limit", "connect:retval=0:when=17");
}

#[test]
fn a_set_of_select_ends_at_1023_and_is_copied_whole() {
    observed("select-limit");
    // As if poll did not look at the array.
    falsified("select-limit", "poll:retval=1");
}

#[test]
fn the_guide_quotes_what_these_labs_print() {
    quoted_in("limits.md", &["client-limit", "select-limit"]);
}
