//! Waiting: blocking to epoll.

mod batch_fairness;
mod blocking;
mod dup_leak;
mod fork_ghost;
mod level_edge;
mod o_of_n;
mod refused_by_epoll;
mod stale_event;
mod timeout_rounding;

use super::About;

pub(super) const LABS: &[&About] = &[
    &blocking::ABOUT,
    &level_edge::ABOUT,
    &o_of_n::ABOUT,
    &batch_fairness::ABOUT,
    &stale_event::ABOUT,
    &dup_leak::ABOUT,
    &fork_ghost::ABOUT,
    &refused_by_epoll::ABOUT,
    &timeout_rounding::ABOUT,
];
