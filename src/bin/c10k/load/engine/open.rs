//! An open loop: requests are sent because they are due.

use std::io;
use std::time::{Duration, Instant};

use c10k::Reactor;
use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::Timer;

use super::Engine;
use super::sources::{Source, peer, peer_mut};
use crate::load::arrivals::{self, Arrivals};
use crate::load::checker::{Phase, nanos};
use crate::load::plan::Plan;
use crate::load::schedule::Schedule;
use crate::load::steps::Steps;

/// How many datagrams are sent in a turn. A loop that is behind its time would send thousands, more
/// than a receive buffer has room for, and meanwhile hear no reply. What goes over streams waits
/// there, and many requests go with one call: those are all sent.
const SEND_BATCH: usize = 64;

/// How far alarms are apart at least. To be woken takes the CPU ten times as long as to send: more
/// requests than one in that time share a wake.
const ALARMS_APART: Duration = Duration::from_micros(100);

impl Engine<'_> {
    /// Begins an open loop: from here on the requests are due when they are due.
    pub(super) fn start_open(
        &mut self,
        reactor: &mut Reactor<Source>,
        schedule: &Schedule,
    ) -> io::Result<()> {
        let Plan { ramp, warmup, duration, arrivals, .. } = *self.plan;
        self.ring = self.active();
        if self.alarm.is_none() {
            let alarm = Source::Alarm(Timer::new()?);
            self.alarm = Some(reactor.add(alarm, Interest::READ | Interest::EDGE)?);
        }
        let (now, part) = (Instant::now(), self.share.part);
        self.run.read_clock();
        self.sending_since = self.run.now.get();
        self.quota = self.share.requests;
        // So many that are evenly due take as long as so many of the schedule, wherever in it they
        // begin. Others are counted.
        let reached = |n| schedule.reaches(n as f64 / part.size).filter(|_| part.size > 0.0);
        let most = match (self.quota, arrivals) {
            (Some(0), _) => Duration::ZERO,
            (Some(n), arrivals::Kind::Constant) => reached(n).unwrap_or(duration),
            _ => duration,
        };
        let most = most.min(duration);
        let from = self.sending_since.saturating_add(nanos(ramp + warmup));
        self.due_until = from.saturating_add(nanos(most));
        let steps = (schedule.0.len() > 1).then(|| Steps::new(schedule, from));
        self.run.measure(from, self.due_until, steps);
        self.window_ends = now + ramp + warmup + most;
        self.arrivals =
            (part.size > 0.0).then(|| Arrivals::new(schedule.after(ramp, warmup), arrivals, part));
        match (ramp + warmup).is_zero() {
            true => self.next_phase(reactor),
            false => self.timer = Some(reactor.set_timer(now + ramp + warmup)),
        }
        self.send_due(reactor);
        Ok(())
    }

    /// Sends the requests that are due by now, each on the next connection in turn, and sees to it
    /// that the loop wakes for the next one. A loop that is busy comes round late, and then there
    /// are several.
    pub(super) fn send_due(&mut self, reactor: &mut Reactor<Source>) {
        if self.arrivals.is_none() {
            return;
        }
        self.run.read_clock();
        let mut touched = Vec::new();
        let most = if self.plan.udp { SEND_BATCH } else { usize::MAX };
        for _ in 0..most {
            let Some((due, token)) = self.take_due(reactor) else { break };
            let Some(peer) = peer_mut(reactor, token) else { continue };
            if peer.checker().may_send() {
                peer.push(|checker, out| checker.request_due(due, out));
                // With few connections, what is due on one of them is sent at once.
                if touched.last() != Some(&token) {
                    touched.push(token);
                }
            } else {
                peer.checker_mut().wait(due);
            }
            if peer.checker().is_spent() {
                // What it still has under way is answered there; the next one is sent on another.
                self.ring[self.turn - 1] = self.reconnect(reactor, token).unwrap_or(token);
            }
        }
        self.wake_for_next(reactor);
        // They are sent before anything is received: a reply may be there at once.
        self.run.read_clock();
        for token in touched {
            self.drive(reactor, token, Readiness::NONE);
        }
    }

    /// What was due before this time and has not been sent was due all the same. Nothing more is
    /// sent.
    pub(super) fn count_unsent(&mut self, before: u64) {
        let Some(mut arrivals) = self.arrivals.take() else { return };
        let after = before.saturating_sub(self.sending_since);
        while let Some(due) = arrivals.take_due(after) {
            if !self.run.is_due(self.sending_since + due)
                && self.sending_since + due >= self.due_until
            {
                return;
            }
        }
    }

    /// From time to time: all requests are known that were due by now, or by the next one.
    pub(super) fn all_due_by_now(&mut self) {
        self.run.read_clock();
        if self.run.open.get() {
            let next = self.arrivals.as_ref().and_then(Arrivals::next_due);
            let next = next.map_or(u64::MAX, |after| self.sending_since + after);
            self.run.recorder.borrow_mut().roll(next.min(self.run.now.get()));
        }
    }

    /// The next request that is due by now, and who is to send it.
    fn take_due(&mut self, reactor: &mut Reactor<Source>) -> Option<(u64, Token)> {
        let now = self.run.now.get() - self.sending_since;
        let due = self.sending_since + self.arrivals.as_mut()?.take_due(now)?;
        if due >= self.due_until {
            self.arrivals = None;
            return None;
        }
        let token = next_in_turn(&mut self.ring, &mut self.turn, reactor)?;
        if self.run.leaves(due)
            && let Some(left) = &mut self.quota
        {
            *left -= 1;
            if *left == 0 {
                self.arrivals = None;
                self.end_at_last(reactor, due);
            }
        }
        Some((due, token))
    }

    /// The last request of those that are measured was due then. Where they are evenly due it is
    /// known when the next one would have been.
    fn end_at_last(&mut self, reactor: &mut Reactor<Source>, due: u64) {
        if self.plan.arrivals == arrivals::Kind::Poisson {
            self.due_until = due + 1;
            self.run.end_measured(self.due_until);
            self.window_ends = Instant::now();
            if self.run.phase.get() == Phase::Measuring {
                self.timer = Some(reactor.set_timer(self.window_ends));
            }
        }
    }

    fn wake_for_next(&mut self, reactor: &Reactor<Source>) {
        // One that has yet to go off does so before anything else is due.
        if self.alarm_at.is_some_and(|at| at > self.run.now.get()) {
            return;
        }
        let due = self.arrivals.as_ref().and_then(Arrivals::next_due);
        let soonest = self.alarm_at.map_or(0, |at| at + nanos(ALARMS_APART));
        let at = due.map(|due| (self.sending_since + due).max(soonest));
        if let (Some(at), Some(alarm)) = (at, self.alarm)
            && let Some(Source::Alarm(alarm)) = reactor.source(alarm)
        {
            alarm.set(Some(at)).expect("a time that there is");
            self.alarm_at = Some(at);
        }
    }
}

/// Whose turn it is to send. Connections that are gone lose theirs.
fn next_in_turn(
    ring: &mut Vec<Token>,
    turn: &mut usize,
    reactor: &Reactor<Source>,
) -> Option<Token> {
    while !ring.is_empty() {
        *turn %= ring.len();
        let token = ring[*turn];
        if peer(reactor, token).is_some() {
            *turn += 1;
            return Some(token);
        }
        ring.remove(*turn);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use c10k::Addr;

    use super::*;
    use crate::load::engine::Load;

    #[test]
    fn a_loop_that_is_behind_sends_a_batch_in_a_turn() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = Addr::Udp(server.local_addr().unwrap());
        let schedule = Schedule::steady(1_000_000_000, Duration::from_millis(1));
        let plan = Plan { udp: true, duration: schedule.duration(), ..Plan::new(vec![target], 1) };
        let plan = Plan { schedule: Some(schedule.clone()), pipeline: None, ..plan };
        let mut load = Load::connect(&plan, plan.share(0), &mut |_| Ok(())).unwrap();
        let Load { engine, reactor } = &mut load;
        engine.start(reactor, Some(&schedule)).unwrap();
        while engine.run.now.get() - engine.sending_since < nanos(plan.duration) {
            engine.run.read_clock();
        }
        let sent = engine.run.sent.get();
        engine.send_due(reactor);
        assert_eq!(engine.run.sent.get() - sent, SEND_BATCH as u64);
        // And the rest is not forgotten.
        engine.run.phase.set(Phase::Draining);
        engine.next_phase(reactor);
        assert_eq!(engine.run.finish().due, 1_000_000);
    }
}
