//! The client's side of a session: the service that is "called" with each reply, checks it, and
//! "answers" with the next request.

mod under_way;
mod unordered;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use c10k::service::{Outcome, Reply, Service};
use c10k::sys;

use self::under_way::{Times, UnderWay};
use self::unordered::Matched;
use super::payload::Payload;
use super::plan::Plan;
use super::recorder::{Kept, Recorder};
use super::report::Failures;
use super::steps::Steps;

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
    pub(super) payload: Payload,
    /// Requests and replies are datagrams.
    pub(super) udp: bool,
    /// Requests are sent because they are due, not because a reply has come.
    pub(super) open: Cell<bool>,
    /// How many a connection may have under way. If more are due, they wait.
    pub(super) under_way_max: usize,
    /// A reply that comes later than this is late, in nanoseconds.
    pub(super) timeout: u64,
    /// Requests on one connection, after which another takes its place.
    pub(super) churn: Option<u32>,
    /// A reply makes the next request only after a while.
    pub(super) thinks: bool,
    /// The engine is to look at a connection that has nothing under way.
    pub(super) pauses: bool,
    /// Requests of each connection that sends, a probe included.
    pub(crate) requests_each: Option<u32>,
    pub(crate) phase: Cell<Phase>,
    /// When what is being handled was received, in nanoseconds of `CLOCK_MONOTONIC`. One reading of
    /// the clock serves all replies of one read.
    pub(crate) now: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    pub(crate) replied: Cell<u64>,
    /// Requests that were sent and will never have a reply.
    pub(super) gone: Cell<u64>,
    /// Replies over streams that no request had asked for. They end the run.
    pub(super) unasked: Cell<u64>,
    /// Requests that are due and could not be sent yet.
    pub(super) waiting: Cell<u64>,
    /// In a closed loop: how many may be sent in all, by now. None while nothing is to be sent.
    pub(super) sent_max: Cell<u64>,
    /// When the next second of a closed loop's measured time begins; and how many of those sent are
    /// counted in the seconds before.
    next_second: Cell<u64>,
    counted: Cell<u64>,
    /// When this exchange began: what was sent before has nothing to do with it.
    began: Cell<u64>,
    /// In an open loop: the most requests there were at a time that had no reply, until half of the
    /// measured time is over.
    half: Cell<u64>,
    pub(super) backlog_first_half: Cell<u64>,
    /// The shortest service time of any reply of an open loop.
    pub(super) fastest: Cell<u64>,
    /// Nanoseconds that requests have been under way, all of them together.
    pub(super) in_flight_time: Cell<u64>,
    /// Datagrams that were answered after newer ones.
    pub(super) reordered: Cell<u64>,
    /// Connections that had a reply, and it was right.
    pub(crate) answered: Cell<u64>,
    pub(super) failures: RefCell<Failures>,
    pub(super) recorder: RefCell<Recorder>,
}

impl Run {
    pub(super) fn new(payload: Payload, plan: &Plan) -> Run {
        Run {
            payload,
            udp: plan.udp,
            open: Cell::new(plan.schedule.is_some()),
            under_way_max: plan.pipeline.map_or(usize::MAX, |n| n as usize),
            timeout: nanos(plan.timeout),
            churn: plan.churn,
            thinks: plan.think_time.is_some(),
            pauses: plan.think_time.is_some() || plan.churn.is_some(),
            requests_each: plan.requests_each.map(|n| n + u32::from(plan.probe)),
            phase: Cell::new(Phase::Connecting),
            now: Cell::new(0),
            sent: Cell::new(0),
            replied: Cell::new(0),
            gone: Cell::new(0),
            unasked: Cell::new(0),
            waiting: Cell::new(0),
            sent_max: Cell::new(0),
            next_second: Cell::new(u64::MAX),
            counted: Cell::new(0),
            began: Cell::new(0),
            half: Cell::new(0),
            backlog_first_half: Cell::new(0),
            fastest: Cell::new(u64::MAX),
            in_flight_time: Cell::new(0),
            reordered: Cell::new(0),
            answered: Cell::new(0),
            failures: RefCell::default(),
            recorder: RefCell::new(Recorder::new(plan.each_second)),
        }
    }

    #[inline]
    pub(crate) fn read_clock(&self) {
        let before = self.now.replace(sys::monotonic_ns());
        let passed = self.now.get() - before;
        let time = self.in_flight_time.get();
        self.in_flight_time.set(time.saturating_add(self.in_flight() * passed));
        if self.now.get() >= self.next_second.get() {
            self.begin_second();
        }
    }

    /// Requests that were sent and may still have a reply.
    fn in_flight(&self) -> u64 {
        self.sent.get() - self.replied.get() - self.gone.get()
    }

    /// Requests that may still have a reply: those sent, and those that wait to be.
    pub(crate) fn outstanding(&self) -> u64 {
        self.in_flight() + self.waiting.get()
    }

    /// Whether a connection of a closed loop may send another request.
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        self.sent.get() < self.sent_max.get()
    }

    /// An exchange begins, and nothing of it is measured yet.
    pub(super) fn start(&self, open: bool) {
        self.phase.set(Phase::WarmUp);
        self.open.set(open);
        self.read_clock();
        self.began.set(self.now.get());
        self.sent_max.set(u64::MAX);
        self.fastest.set(u64::MAX);
    }

    /// Measures the requests that are due from then and before `until`. In a closed loop `from` is
    /// now.
    pub(super) fn measure(&self, from: u64, until: u64, steps: Option<Steps>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = now + Duration::from_nanos(from - self.now.get());
        let mut recorder = self.recorder.borrow_mut();
        recorder.start(from, until, date, steps);
        self.half.set(from + (until - from) / 2);
        if !self.open.get() {
            self.counted.set(self.sent.get());
            self.next_second.set(recorder.ends());
        }
    }

    pub(super) fn measured_from(&self) -> u64 {
        self.recorder.borrow().from()
    }

    /// In a closed loop a request is due when it is sent: so those of a second are known when the
    /// next one begins.
    #[cold]
    fn begin_second(&self) {
        let mut recorder = self.recorder.borrow_mut();
        self.count_sent(&mut recorder);
        recorder.roll(self.now.get());
        self.next_second.set(recorder.ends());
    }

    fn count_sent(&self, recorder: &mut Recorder) {
        if !self.open.get() {
            let before = self.counted.replace(self.sent.get());
            recorder.were_due(self.sent.get().saturating_sub(before));
        }
    }

    /// The measured time ends then, if not before.
    pub(super) fn end_measured(&self, until: u64) {
        let mut recorder = self.recorder.borrow_mut();
        self.count_sent(&mut recorder);
        self.next_second.set(u64::MAX);
        recorder.end(until);
    }

    /// The exchange is over.
    pub(super) fn finish(&self) -> Kept {
        self.sent_max.set(0);
        self.next_second.set(u64::MAX);
        self.recorder.borrow_mut().finish()
    }

    /// In an open loop: a request is due on a connection. Whether it is measured.
    pub(super) fn is_due(&self, due: u64) -> bool {
        self.recorder.borrow_mut().is_due(due)
    }

    /// The same, and it is sent now, or is kept back because too many are under way.
    pub(super) fn leaves(&self, due: u64) -> bool {
        let mut recorder = self.recorder.borrow_mut();
        let measured = recorder.is_due(due);
        if measured {
            recorder.left(self.now.get() - due);
            if due < self.half.get() {
                self.backlog_first_half.set(self.backlog_first_half.get().max(self.outstanding()));
            }
        }
        measured
    }

    /// Keeps the times of a request that has had its reply just now.
    #[inline]
    fn record(&self, times: Times) {
        let now = self.now.get();
        let latency = now - times.due;
        if latency > self.timeout {
            self.is_wrong(times.due, |failures| failures.late += 1);
        }
        let mut recorder = self.recorder.borrow_mut();
        let measured = recorder.record(times.due, latency);
        if self.open.get() {
            let service = now - times.sent;
            self.fastest.set(self.fastest.get().min(service));
            if measured {
                recorder.record_open(times.due, latency, service);
            }
        }
    }

    /// There is something wrong with a request that was due then.
    #[cold]
    fn is_wrong(&self, due: u64, count: impl FnOnce(&mut Failures)) {
        count(&mut self.failures.borrow_mut());
        self.recorder.borrow_mut().failed(due);
    }

    /// Something went wrong now, which is none of a single request.
    #[cold]
    pub(super) fn fail(&self, count: impl FnOnce(&mut Failures)) {
        self.is_wrong(self.now.get(), count);
    }

    /// Requests that were due then will never be answered.
    pub(super) fn lost(&self, due: Vec<u64>) {
        self.failures.borrow_mut().lost += due.len() as u64;
        let mut recorder = self.recorder.borrow_mut();
        due.into_iter().for_each(|due| recorder.lost(due));
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn bump(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// One connection's requests and replies.
#[derive(Debug)]
pub(crate) struct Checker {
    run: Rc<Run>,
    connection: u32,
    /// The number of the next request.
    next: u32,
    /// How many more it is to send before another connection takes its place.
    left: u32,
    answered: bool,
    under_way: UnderWay,
}

impl Checker {
    pub(crate) fn new(run: Rc<Run>, connection: u32) -> Checker {
        let left = run.churn.unwrap_or(u32::MAX);
        let under_way = match run.udp {
            true => UnderWay::Unordered(Box::default()),
            false => UnderWay::Nothing,
        };
        Checker { run, connection, next: 0, left, answered: false, under_way }
    }

    /// That of the connection which takes the place of this one: its requests are others.
    pub(super) fn renewed(&self) -> Checker {
        // Those that wait are still sent here.
        let next = self.next.wrapping_add(self.waiting() as u32);
        let new = Checker::new(self.run.clone(), self.connection);
        Checker { next, answered: self.answered, ..new }
    }

    pub(super) fn connection(&self) -> u32 {
        self.connection
    }

    /// Whether it has been given as many requests as it was to have.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Whether it is to send more.
    pub(super) fn has_more(&self) -> bool {
        self.left > 0 && self.run.requests_each.is_none_or(|each| self.next < each)
    }

    fn is_given_one(&mut self) {
        // Without a limit there are always more left than can be numbered.
        if self.run.churn.is_some() {
            // One that could not be replaced goes on.
            self.left = self.left.saturating_sub(1);
        }
    }

    /// How many requests were sent and have had no reply yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.under_way.len()
    }

    /// When those were due that have had no reply, or were not sent yet.
    pub(super) fn all_due(&self) -> Vec<u64> {
        self.under_way.all_due()
    }

    /// How many are due and were not sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.under_way.waiting()
    }

    /// Writes the next request, which is due now.
    #[inline]
    pub(crate) fn request(&mut self, out: &mut Reply<'_>) {
        self.request_due(self.run.now.get(), out);
    }

    /// Writes the next request, which was due at a time in the past.
    #[inline]
    pub(super) fn request_due(&mut self, due: u64, out: &mut Reply<'_>) {
        self.is_given_one();
        self.write(due, out);
    }

    #[inline]
    fn write(&mut self, due: u64, out: &mut Reply<'_>) {
        self.run.payload.write(self.connection, self.next, out);
        self.next = self.next.wrapping_add(1);
        self.under_way.push(Times { due, sent: self.run.now.get() });
        bump(&self.run.sent);
    }

    /// Whether a request that is due can be sent now.
    pub(super) fn may_send(&self) -> bool {
        self.under_way.len() < self.run.under_way_max
    }

    /// Keeps a request that is due until there are fewer under way.
    pub(super) fn wait(&mut self, due: u64) {
        self.is_given_one();
        self.under_way.wait(due);
        bump(&self.run.waiting);
    }

    /// In an open loop: writes a request that had to wait for the reply that came just now.
    pub(super) fn next_waiting(&mut self, out: &mut Reply<'_>) -> Outcome {
        let Some(due) = self.under_way.pop_waiting() else { return Outcome::Silence };
        self.run.waiting.set(self.run.waiting.get() - 1);
        self.write(due, out);
        Outcome::Reply
    }

    /// Replies to requests of all connections.
    pub(super) fn replied(&self) -> u64 {
        self.run.replied.get()
    }

    /// A datagram could not be sent or received.
    pub(super) fn failed(&self, error: &io::Error) {
        self.run.fail(|failures| match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => failures.unconnected(error),
            _ => failures.broke(error),
        });
    }

    /// Gives up the datagrams that have had no reply within the time-out, and returns how many.
    pub(super) fn give_up(&mut self) -> u64 {
        let UnderWay::Unordered(requests) = &mut self.under_way else { return 0 };
        let sent_before = self.run.now.get().saturating_sub(self.run.timeout);
        let due = requests.give_up(self.next, sent_before);
        let lost = due.len() as u64;
        self.run.gone.set(self.run.gone.get() + lost);
        self.run.lost(due);
        lost
    }

    /// Gives up all datagrams, which were counted as lost already.
    pub(super) fn forget(&mut self) {
        let UnderWay::Unordered(requests) = &mut self.under_way else { return };
        let gone = requests.give_up(self.next, u64::MAX);
        self.run.gone.set(self.run.gone.get() + gone.len() as u64);
        let waiting = requests.waiting.drain(..).count() as u64;
        self.run.waiting.set(self.run.waiting.get() - waiting);
    }

    /// Finds the request that a datagram is the reply to.
    fn take_unordered(&mut self, reply: &[u8]) -> Option<Times> {
        let UnderWay::Unordered(requests) = &mut self.under_way else { return None };
        let payload = &self.run.payload;
        let answers = |number| payload.answers(self.connection, number, reply);
        match requests.take(self.next, answers) {
            Matched::Answers(times, overtaken) => {
                self.run.reordered.set(self.run.reordered.get() + u64::from(overtaken));
                return Some(times);
            }
            // It was lost in an exchange that is over.
            Matched::TooLate(sent) if sent < self.run.began.get() => {}
            Matched::TooLate(_) => {
                let mut failures = self.run.failures.borrow_mut();
                failures.lost = failures.lost.saturating_sub(1);
                failures.late += 1;
            }
            Matched::Nothing => self.mismatch(self.run.now.get(), "a reply to no request", reply),
        }
        None
    }

    /// A reply that no request had asked for: where each reply ends is not known. It makes no
    /// request, or a server that sends three lines for one would be flooded, and ends the run.
    #[cold]
    fn unasked(&self, reply: &[u8], was_unsent: bool) -> Outcome {
        self.mismatch(self.run.now.get(), "a reply to no request", reply);
        bump(&self.run.unasked);
        let unsent = u64::from(was_unsent);
        self.run.sent.set(self.run.sent.get() - unsent);
        self.run.phase.set(Phase::Over);
        Outcome::Silence
    }

    fn is_right(&mut self) {
        if !self.answered {
            self.answered = true;
            bump(&self.run.answered);
        }
    }

    #[cold]
    fn mismatch(&self, due: u64, what: &str, reply: &[u8]) {
        self.run.is_wrong(due, |failures| failures.mismatched += 1);
        let mut failures = self.run.failures.borrow_mut();
        failures.first_mismatch.get_or_insert_with(|| {
            let start = String::from_utf8_lossy(&reply[..reply.len().min(80)]).into_owned();
            format!("connection {}: {what}: {start:?}, {} bytes", self.connection, reply.len())
        });
    }
}

impl Service for Checker {
    #[inline]
    fn call(&mut self, reply: &[u8], out: &mut Reply<'_>) -> Outcome {
        let times = if self.run.udp {
            let Some(times) = self.take_unordered(reply) else { return Outcome::Silence };
            self.is_right();
            times
        } else {
            let number = self.next.wrapping_sub(self.under_way.len() as u32);
            let times = match self.under_way.pop() {
                // What was written since these replies were received is not sent yet. (Other requests
                // were written before the clock was last read.)
                Some(times) if times.sent != self.run.now.get() => times,
                unsent => return self.unasked(reply, unsent.is_some()),
            };
            match self.run.payload.answers(self.connection, number, reply) {
                true => self.is_right(),
                false => self.mismatch(times.due, "not the reply to its request", reply),
            }
            times
        };
        bump(&self.run.replied);
        self.run.record(times);
        if self.run.open.get() {
            return self.next_waiting(out);
        }
        if self.run.thinks || !self.run.may_send() || !self.has_more() {
            return Outcome::Silence;
        }
        self.request(out);
        Outcome::Reply
    }
}
