//! Waiting: blocking to epoll.

mod batch_fairness;
mod level_edge;

use super::About;

pub(super) const LABS: &[&About] = &[&level_edge::ABOUT, &batch_fairness::ABOUT];
