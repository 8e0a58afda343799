//! How the connections come to be, and come to be again.

use std::time::{Duration, Instant};

use c10k::poller::Token;
use c10k::sys::ConnectOptions;
use c10k::{Reactor, Session};

use super::Engine;
use super::peer::{INTEREST, Peer};
use super::sources::{Source, peer, peer_mut};
use crate::Failure;
use crate::load::checker::Checker;
use crate::load::limits;

impl Engine<'_> {
    pub(super) fn total(&self) -> u64 {
        self.share.connections.end - self.share.connections.start
    }

    /// Connections that are begun, and not as far as they are to be. A connection is established
    /// when the kernel says so, long before a busy server accepts it: those who probe it do not
    /// fill its queue.
    pub(super) fn under_way(&self) -> u64 {
        self.connecting + self.run.outstanding()
    }

    /// Begins connections, up to as many as may be under way, and no sooner than they are due.
    pub(super) fn connect_more(&mut self, reactor: &mut Reactor<Source>) -> Result<(), Failure> {
        while self.begun < self.total() && self.under_way() < self.share.connecting_max {
            let due = due_after(self.share.connect_rate, self.begun);
            if due > self.began.elapsed() {
                if self.pace.is_none() {
                    self.pace = Some(reactor.set_timer(self.began + due));
                }
                return Ok(());
            }
            self.connect_one(reactor)?;
        }
        Ok(())
    }

    fn connect_one(&mut self, reactor: &mut Reactor<Source>) -> Result<(), Failure> {
        let number = self.share.connections.start + self.begun;
        self.begun += 1;
        let checker = Checker::new(self.run.clone(), number as u32);
        if self.connect(reactor, checker)?.is_some() {
            self.connecting += 1;
        }
        Ok(())
    }

    /// Begins a connection. `None` if it has failed already.
    fn connect(
        &mut self,
        reactor: &mut Reactor<Source>,
        checker: Checker,
    ) -> Result<Option<Token>, Failure> {
        let (source, target) = self.plan.ends_of(u64::from(checker.connection()));
        let options = ConnectOptions { source, ..ConnectOptions::default() };
        // What may be unsent is what was asked for. Were it less, neither side might read.
        let session = Session::new(self.framing, checker).pending_max(u32::MAX);
        let begun = reactor.connect(target, &options, self.plan.timeout, INTEREST, |fd| {
            Source::Peer(Peer::new(target, fd, session))
        });
        match begun {
            Ok(token) => Ok(Some(token)),
            Err(c10k::Error::Connect { source: error, .. }) => {
                let error = limits::cause(error, target, source);
                self.run.fail(|failures| failures.unconnected(&error));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins another connection in the place of one that has sent as much as it was to.
    pub(super) fn reconnect(
        &mut self,
        reactor: &mut Reactor<Source>,
        spent: Token,
    ) -> Option<Token> {
        let checker = peer(reactor, spent)?.checker().renewed();
        let begun = Instant::now();
        // Any other error than that of connecting is one that the first connections had too.
        let token = self.connect(reactor, checker).ok().flatten()?;
        self.reconnecting.insert(token, begun);
        Some(token)
    }

    /// It is connected again.
    pub(super) fn reconnected(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        if let Some(begun) = self.reconnecting.remove(&token) {
            let took = begun.elapsed().as_nanos() as u64;
            self.reconnects.record(took).expect("it grows");
        }
        match self.plan.think_time {
            _ if self.run.open.get() => {}
            Some(time) => reactor.set_deadline(token, Instant::now() + time),
            None => self.begin(reactor, token),
        }
    }

    /// Sends the first request. What is ready is told next, and drives the connection.
    pub(super) fn probe(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        let Some(peer) = peer_mut(reactor, token) else { return };
        self.run.read_clock();
        peer.push(Checker::request);
        reactor.set_deadline(token, Instant::now() + self.plan.timeout);
    }

    /// Unsets the deadline of a connection whose probe was answered.
    pub(super) fn probed(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        let answered = |peer: &Peer| peer.checker().outstanding() == 0;
        if peer(reactor, token).is_some_and(answered) {
            reactor.clear_deadline(token);
        }
    }
}

/// How long after the first connection number `number` is to begin, at so many in a second.
fn due_after(rate: Option<f64>, number: u64) -> Duration {
    let seconds = rate.map_or(0.0, |rate| number as f64 / rate);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_due_at_their_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(due_after(None, 1_000_000), Duration::ZERO);
        assert_eq!(due_after(Some(500.0), 0), Duration::ZERO);
        assert_eq!(due_after(Some(500.0), 500), second);
        // Never more of them at once than one, whatever the rate.
        let due: Vec<_> = (0..1_000).map(|number| due_after(Some(1_000.0), number)).collect();
        assert!(due.is_sorted_by(|one, next| one < next));
        assert_eq!(due.iter().filter(|due| **due < second).count(), 1_000);
        assert_eq!(due_after(Some(0.2), 1), 5 * second);
        assert_eq!(due_after(Some(1e-300), u64::MAX), Duration::MAX);
    }
}
