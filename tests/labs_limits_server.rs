//! The labs of limits: descriptors, memory, threads.

#![cfg(feature = "cli")]

mod common;

use std::sync::{Mutex, PoisonError};

use common::lab::{falsified, observed, quoted_in, seen};

/// Held by whoever weighs what the whole system uses, or would disturb that.
static SCALES: Mutex<()> = Mutex::new(());

#[test]
fn descriptors_and_memory_bound_a_server_not_ports() {
    let _alone = SCALES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(report) = observed("server-limit") else { return };
    assert_eq!(seen(&report, "accepted, as many as the limit leaves"), "40");
    // The limit is not lowered, whatever the kernel says.
    falsified("server-limit", "prlimit64:retval=0:when=6");
}

#[test]
fn a_full_server_spins_unless_it_has_a_descriptor_in_reserve() {
    observed("emfile-spin");
}

#[test]
fn a_thread_costs_kilobytes_and_a_registration_bytes() {
    let _alone = SCALES.lock().unwrap_or_else(PoisonError::into_inner);
    observed("thread-cost");
}

#[test]
fn the_guide_quotes_what_the_labs_print() {
    let _alone = SCALES.lock().unwrap_or_else(PoisonError::into_inner);
    quoted_in("limits.md", &["server-limit", "emfile-spin", "thread-cost"]);
}
