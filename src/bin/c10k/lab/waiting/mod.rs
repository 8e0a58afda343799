//! Waiting: blocking to epoll.

use super::About;

pub(super) const LABS: &[&About] = &[];
