//! What the loop watches: the connections, and in an open loop an alarm.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use c10k::Reactor;
use c10k::poller::Token;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::peer::Peer;

#[derive(Debug)]
pub(in crate::load) enum Source {
    Peer(Peer),
    Alarm(Alarm),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Peer(peer) => peer.as_fd(),
            Source::Alarm(alarm) => alarm.0.as_fd(),
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

/// Becomes readable when it is time (`timerfd_create(2)`), to the microsecond: the timers of the
/// reactor and the time-outs of epoll are in milliseconds.
///
/// It is to be watched edge-triggered. Then it need not be read: what has gone off and is set
/// again is not readable any more.
#[derive(Debug)]
pub(in crate::load) struct Alarm(TimerFd);

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Alarm(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Goes off at that time, or at once if it has passed: nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn set(&self, at: u64) {
        let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at)));
        self.0.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).expect("a time that there is");
    }
}
