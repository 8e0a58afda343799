//! An open loop: requests are sent because they are due.

use std::time::{Duration, Instant};

use c10k::Reactor;
use c10k::poller::{Readiness, Token};

use super::{Engine, Peer};
use crate::load::arrivals::Arrivals;
use crate::load::checker::nanos;
use crate::load::plan::Plan;
use crate::load::schedule::Schedule;
use crate::load::steps::Steps;

impl Engine<'_> {
    /// Begins an open loop: from here on the requests are due when they are due.
    pub(super) fn start_open(&mut self, reactor: &mut Reactor<Peer>, schedule: &Schedule) {
        let Plan { ramp, warmup, duration, arrivals, .. } = *self.plan;
        self.ring = self.active();
        let now = Instant::now();
        self.timer = Some(reactor.set_timer(now + ramp + warmup));
        self.sending_since = nanos(now - self.run.began);
        let from = self.sending_since.saturating_add(nanos(ramp + warmup));
        self.run.window.set((from, from.saturating_add(nanos(duration))));
        if schedule.0.len() > 1 {
            self.run.recorder.borrow_mut().steps = Some(Steps::new(schedule, from));
        }
        let part = self.share.part;
        self.arrivals =
            (part.size > 0.0).then(|| Arrivals::new(schedule.after(ramp, warmup), arrivals, part));
        self.send_due(reactor);
    }

    /// Sends all requests that are due by now, each on the next connection in turn, and sees to it
    /// that the loop wakes for the next one.
    pub(super) fn send_due(&mut self, reactor: &mut Reactor<Peer>) {
        if self.arrivals.is_none() {
            return;
        }
        self.run.read_clock();
        let mut touched = Vec::new();
        while let Some((due, token)) = self.take_due(reactor) {
            self.run.is_due(due);
            let Some(peer) = reactor.source_mut(token) else { continue };
            let session = peer.session_mut();
            if session.service().may_send() {
                session.push(|checker, out| checker.request_due(due, out));
                // With few connections, what is due on one of them is sent at once.
                if touched.last() != Some(&token) {
                    touched.push(token);
                }
            } else {
                session.service_mut().wait(due);
            }
            if session.service().is_spent() {
                // What it still has under way is answered there; the next one is sent on another.
                self.ring[self.turn - 1] = self.reconnect(reactor, token).unwrap_or(token);
            }
        }
        self.wake_for_next(reactor);
        for token in touched {
            self.drive(reactor, token, Readiness::NONE);
        }
    }

    /// The next request that is due by now, and who is to send it.
    fn take_due(&mut self, reactor: &Reactor<Peer>) -> Option<(u64, Token)> {
        let now = self.run.now.get() - self.sending_since;
        let due = self.arrivals.as_mut()?.take_due(now)?;
        let token = next_in_turn(&mut self.ring, &mut self.turn, reactor)?;
        Some((self.sending_since + due, token))
    }

    fn wake_for_next(&mut self, reactor: &mut Reactor<Peer>) {
        let due = self.arrivals.as_ref().and_then(Arrivals::next_due);
        if let (None, Some(due)) = (self.due_timer, due) {
            let at = self.run.began + Duration::from_nanos(self.sending_since + due);
            self.due_timer = Some(reactor.set_timer(at));
        }
    }
}

/// Whose turn it is to send. Connections that are gone lose theirs.
fn next_in_turn(ring: &mut Vec<Token>, turn: &mut usize, reactor: &Reactor<Peer>) -> Option<Token> {
    while !ring.is_empty() {
        *turn %= ring.len();
        let token = ring[*turn];
        if reactor.source(token).is_some() {
            *turn += 1;
            return Some(token);
        }
        ring.remove(*turn);
    }
    None
}
