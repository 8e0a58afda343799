//! The listen queues.

mod handshake;

use super::About;

pub(super) const LABS: &[&About] = &[&handshake::ABOUT];
