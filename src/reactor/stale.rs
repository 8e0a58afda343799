//! Events of sources that are gone.

use std::os::fd::AsFd;

use super::Reactor;
use crate::poller::Poller;

/// So many turns with nothing but stale events are a loop that spins, and not a descriptor that a
/// child had between its fork and its exec.
const WORTH_A_WARNING: u64 = 1_000;

/// How many of a turn's events were stale so far.
#[derive(Debug, Default)]
pub(super) struct StaleOnly {
    turn: u64,
    events: usize,
}

impl<S: AsFd, P: Poller> Reactor<S, P> {
    /// Drops an event whose source is gone. Out of the way of those whose source is not, so that
    /// it costs them nothing to have such events counted.
    #[cold]
    pub(super) fn drop_stale(&mut self) {
        self.counts.stale += 1;
        if self.stale_only.turn != self.counts.turns {
            self.stale_only = StaleOnly { turn: self.counts.turns, events: 0 };
        }
        self.stale_only.events += 1;
        if self.stale_only.events == self.events.len() {
            self.counts.stale_only += 1;
            if self.counts.stale_only == WORTH_A_WARNING {
                log::warn!(
                    "{WORTH_A_WARNING} turns of the loop held nothing but events of sources that \
                     are closed: somebody holds a duplicate of a descriptor that was closed here, \
                     and epoll goes on watching it (epoll(7), question 6)"
                );
            }
        }
    }
}
