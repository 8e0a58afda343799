//! The client's side of a session: the service that is "called" with each reply, checks it, and
//! "answers" with the next request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use c10k::service::{Outcome, Reply, Service};
use hdrhistogram::Histogram;

use super::measured;
use super::payload::Payload;

/// The phases of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Connecting,
    WarmUp,
    Measuring,
    /// No more requests are sent: replies are waited for.
    Draining,
    Over,
}

/// What all connections of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) payload: Payload,
    /// Requests of each connection that sends, a probe included.
    pub(crate) requests_each: Option<u32>,
    pub(crate) phase: Cell<Phase>,
    pub(crate) began: Instant,
    /// When what is being handled was received, in nanoseconds since the run began. One reading
    /// of the clock serves all replies of one read.
    pub(crate) now: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    pub(crate) replied: Cell<u64>,
    /// Replies within the measured time.
    pub(crate) measured: Cell<u64>,
    /// Connections that had a reply, and it was right.
    pub(crate) answered: Cell<u64>,
    pub(crate) mismatched: Cell<u64>,
    pub(crate) first_mismatch: RefCell<Option<String>>,
    /// In nanoseconds.
    pub(crate) latency: RefCell<Histogram<u64>>,
}

impl Run {
    pub(crate) fn new(payload: Payload, requests_each: Option<u32>) -> Run {
        Run {
            payload,
            requests_each,
            phase: Cell::new(Phase::Connecting),
            began: Instant::now(),
            now: Cell::new(0),
            sent: Cell::new(0),
            replied: Cell::new(0),
            measured: Cell::new(0),
            answered: Cell::new(0),
            mismatched: Cell::new(0),
            first_mismatch: RefCell::new(None),
            latency: RefCell::new(measured::histogram()),
        }
    }

    pub(crate) fn read_clock(&self) {
        self.now.set(self.began.elapsed().as_nanos() as u64);
    }

    /// Requests that have had no reply yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.sent.get() - self.replied.get()
    }
}

fn bump(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// When each request that has had no reply was sent, the oldest first. The time of a single one
/// is kept in place: with one request under way on each, a million connections need no more.
#[derive(Debug)]
enum SentAt {
    Nothing,
    One(u64),
    // Boxed, it takes 16 bytes less of each connection that has no use for it.
    #[allow(clippy::box_collection)]
    Many(Box<VecDeque<u64>>),
}

impl SentAt {
    fn len(&self) -> usize {
        match self {
            SentAt::Nothing => 0,
            SentAt::One(_) => 1,
            SentAt::Many(times) => times.len(),
        }
    }

    #[inline]
    fn push(&mut self, time: u64) {
        match self {
            SentAt::Nothing => *self = SentAt::One(time),
            SentAt::One(first) => *self = SentAt::Many(Box::new([*first, time].into())),
            SentAt::Many(times) => times.push_back(time),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<u64> {
        match self {
            SentAt::Nothing => None,
            &mut SentAt::One(time) => {
                *self = SentAt::Nothing;
                Some(time)
            }
            SentAt::Many(times) => times.pop_front(),
        }
    }
}

/// One connection's requests and replies.
#[derive(Debug)]
pub(crate) struct Checker {
    run: Rc<Run>,
    connection: u32,
    /// The number of the next request.
    next: u32,
    answered: bool,
    sent_at: SentAt,
}

impl Checker {
    pub(crate) fn new(run: Rc<Run>, connection: u32) -> Checker {
        Checker { run, connection, next: 0, answered: false, sent_at: SentAt::Nothing }
    }

    /// How many requests have had no reply yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent_at.len()
    }

    /// Writes the next request.
    #[inline]
    pub(crate) fn request(&mut self, out: &mut Reply<'_>) {
        self.run.payload.write(self.connection, self.next, out);
        self.next = self.next.wrapping_add(1);
        self.sent_at.push(self.run.now.get());
        bump(&self.run.sent);
    }

    #[cold]
    fn mismatch(&self, what: &str, reply: &[u8]) {
        bump(&self.run.mismatched);
        self.run.first_mismatch.borrow_mut().get_or_insert_with(|| {
            let start = String::from_utf8_lossy(&reply[..reply.len().min(80)]).into_owned();
            format!("connection {}: {what}: {start:?}, {} bytes", self.connection, reply.len())
        });
    }

    fn record(&self, nanos: u64) {
        bump(&self.run.measured);
        self.run.latency.borrow_mut().record(nanos).expect("it grows");
    }
}

impl Service for Checker {
    #[inline]
    fn call(&mut self, reply: &[u8], out: &mut Reply<'_>) -> Outcome {
        let number = self.next.wrapping_sub(self.sent_at.len() as u32);
        let Some(sent_at) = self.sent_at.pop() else {
            self.mismatch("a reply to no request", reply);
            return Outcome::Silence;
        };
        bump(&self.run.replied);
        if !self.run.payload.answers(self.connection, number, reply) {
            self.mismatch("not the reply to its request", reply);
        } else if !self.answered {
            self.answered = true;
            bump(&self.run.answered);
        }
        match self.run.phase.get() {
            Phase::Measuring => self.record(self.run.now.get() - sent_at),
            Phase::WarmUp => {}
            Phase::Connecting | Phase::Draining | Phase::Over => return Outcome::Silence,
        }
        if self.run.requests_each.is_some_and(|each| self.next >= each) {
            return Outcome::Silence;
        }
        self.request(out);
        Outcome::Reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_order() {
        let mut sent_at = SentAt::Nothing;
        assert_eq!((sent_at.pop(), sent_at.len()), (None, 0));
        // One at a time, then more and more under way.
        let (mut pushed, mut popped) = (0, 0);
        for under_way in [1, 1, 2, 3, 1] {
            while sent_at.len() < under_way {
                sent_at.push(pushed);
                pushed += 1;
            }
            while sent_at.len() > 0 {
                assert_eq!(sent_at.pop(), Some(popped));
                popped += 1;
            }
        }
        assert_eq!((pushed, popped, sent_at.pop()), (8, 8, None));
    }
}
