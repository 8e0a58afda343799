//! Waiting: blocking to epoll.

mod level_edge;

use super::About;

pub(super) const LABS: &[&About] = &[&level_edge::ABOUT];
