//! Datagrams that are not answered.

use std::time::{Duration, Instant};

use c10k::Reactor;

use super::sources::{Source, peer_mut};
use super::{Engine, unanswered};
use crate::load::checker::Checker;

/// How often datagrams are looked for that had no reply: ten times within the time-out, but not
/// much more often than the clock of the loop ticks, and so that the end does not wait for it.
const GIVE_UP_MIN: Duration = Duration::from_millis(5);
const GIVE_UP_MAX: Duration = Duration::from_millis(100);

impl Engine<'_> {
    /// Datagrams may be lost: nobody sends them again, and they are looked for now and then.
    pub(super) fn give_up_later(&mut self, reactor: &mut Reactor<Source>) {
        if self.plan.udp {
            let every = (self.plan.timeout / 10).clamp(GIVE_UP_MIN, GIVE_UP_MAX);
            self.give_up_timer = Some(reactor.set_timer(Instant::now() + every));
        }
    }

    /// Gives up those that have had no reply within the time-out, and sends others in their place.
    pub(super) fn give_up(&mut self, reactor: &mut Reactor<Source>) {
        self.run.read_clock();
        for token in reactor.tokens().collect::<Vec<_>>() {
            let Some(peer) = peer_mut(reactor, token) else { continue };
            let given_up = peer.checker_mut().give_up();
            for _ in 0..given_up {
                if peer.checker().waiting() > 0 {
                    peer.push(|checker, out| {
                        checker.next_waiting(out);
                    });
                } else if !self.run.open.get() && self.run.may_send() && peer.checker().has_more() {
                    peer.push(Checker::request);
                }
            }
            if self.run.pauses && given_up > 0 && unanswered(peer) == 0 {
                self.pause(reactor, token);
            }
        }
        self.give_up_later(reactor);
    }
}
