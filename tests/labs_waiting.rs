//! The labs of waiting.

#![cfg(feature = "cli")]

mod common;

use common::lab::{falsified, observed, quoted_in, seen};

#[test]
fn a_thread_sleeps_in_recv_or_in_poll_or_asks_without_end() {
    let Some(report) = observed("blocking") else { return };
    assert_eq!(seen(&report, "blocking: calls"), "2");
    assert_eq!(seen(&report, "epoll: calls"), "3");
}

#[test]
fn level_triggering_repeats_and_edge_triggering_does_not() {
    observed("level-edge");
    // As if EPOLLET, and then EPOLLONESHOT, had been set and changed nothing.
    falsified("level-edge", "epoll_ctl:retval=0:when=2");
    falsified("level-edge", "epoll_ctl:retval=0:when=3");
    // As if something had been told of that was not there.
    falsified("level-edge", "?epoll_wait,?epoll_pwait:retval=1:when=3");
}

#[test]
fn a_wait_by_epoll_costs_what_is_ready_and_one_by_poll_what_is_watched() {
    observed("o-of-n");
    // As if each poll took as long, whatever it watches.
    falsified("o-of-n", "?poll,?ppoll:delay_exit=2000");
}

#[test]
fn a_small_batch_starves_nobody() {
    observed("batch-fairness");
    // As if the third wait had found nothing.
    falsified("batch-fairness", "?epoll_wait,?epoll_pwait:retval=0:when=3");
    // As if the fourth connection were not watched.
    falsified("batch-fairness", "epoll_ctl:retval=0:when=4");
}

#[test]
fn an_event_outlives_its_connection() {
    observed("stale-event");
    // As if the connection that has the slot now had something to be read, too: the event might
    // be its own.
    falsified("stale-event", "recvfrom:retval=1:when=4");
}

#[test]
fn epoll_watches_the_description_rather_than_the_descriptor() {
    observed("dup-leak");
    // As if a close had taken it off the list.
    falsified("dup-leak", "?epoll_wait,?epoll_pwait:retval=0:when=1");
    // As if it could be deleted by another descriptor.
    falsified("dup-leak", "epoll_ctl:retval=0:when=3");
}

#[test]
fn what_a_child_adds_its_parent_is_told_of() {
    observed("fork-ghost");
    // As if the child had added nothing, or had not the parent's instance.
    falsified("fork-ghost", "epoll_ctl:retval=0:when=1");
}

#[test]
fn epoll_refuses_files_cycles_and_what_is_watched_already() {
    observed("refused-by-epoll");
    // A file, a cycle, a second one, EPOLLEXCLUSIVE with EPOLLRDHUP, and a modification.
    for nth in [1, 3, 6, 9, 11] {
        falsified("refused-by-epoll", &format!("epoll_ctl:retval=0:when={nth}"));
    }
}

#[test]
fn a_time_out_is_whole_milliseconds_unless_it_need_not_be() {
    observed("timeout-rounding");
    // As if epoll_wait did not sleep as long as it was told, and epoll_pwait2 longer.
    falsified("timeout-rounding", "?epoll_wait,?epoll_pwait:retval=0:when=1");
    falsified("timeout-rounding", "epoll_pwait2:delay_exit=2000");
}

#[test]
fn the_guide_quotes_what_they_print() {
    let labs = [
        "blocking",
        "level-edge",
        "o-of-n",
        "batch-fairness",
        "stale-event",
        "dup-leak",
        "fork-ghost",
        "refused-by-epoll",
        "timeout-rounding",
    ];
    quoted_in("waiting.md", &labs);
}
