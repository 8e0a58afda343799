//! What the loop watches: the connections, and in an open loop an alarm for the next request, since
//! the timers of the reactor are in milliseconds. It is to be watched edge-triggered.

use std::os::fd::{AsFd, BorrowedFd};

use c10k::Reactor;
use c10k::poller::Token;
use c10k::sys::Timer;

use super::peer::Peer;

#[derive(Debug)]
pub(in crate::load) enum Source {
    Peer(Peer),
    Alarm(Timer),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Peer(peer) => peer.as_fd(),
            Source::Alarm(alarm) => alarm.as_fd(),
        }
    }
}

/// The connection of a token, unless it was closed.
pub(super) fn peer(reactor: &Reactor<Source>, token: Token) -> Option<&Peer> {
    match reactor.source(token)? {
        Source::Peer(peer) => Some(peer),
        Source::Alarm(_) => None,
    }
}

/// The connection of a token, unless it was closed.
#[inline]
pub(super) fn peer_mut(reactor: &mut Reactor<Source>, token: Token) -> Option<&mut Peer> {
    match reactor.source_mut(token)? {
        Source::Peer(peer) => Some(peer),
        Source::Alarm(_) => None,
    }
}
