//! The listen queues.

mod accept_queue;
mod children;
mod fork_listen;
mod handshake;
mod reuseport_close;
mod thundering_herd;
mod unfair_accept;

use super::About;

pub(super) const LABS: &[&About] = &[
    &handshake::ABOUT,
    &accept_queue::ABOUT,
    &fork_listen::ABOUT,
    &thundering_herd::ABOUT,
    &unfair_accept::ABOUT,
    &reuseport_close::ABOUT,
];
