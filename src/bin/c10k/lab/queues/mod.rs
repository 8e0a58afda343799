//! The listen queues.

mod accept_queue;
mod handshake;

use super::About;

pub(super) const LABS: &[&About] = &[&handshake::ABOUT, &accept_queue::ABOUT];
