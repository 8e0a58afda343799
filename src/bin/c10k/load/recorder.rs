//! What is kept of the requests that are measured: those that were due in the measured time,
//! whenever their replies come.
//!
//! ```text
//!   from                                                        until
//!    |  second 0  |  second 1  |  second 2  |  second 3  |   ..   |
//!     handed out      earlier, oldest first     current
//! ```
//!
//! A second is settled when each request that was due in it is answered or lost. Seconds are handed
//! out in order, when they are settled; a moment later than that, when somebody looks.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::measured::{self, Second};
use super::steps::{StepSeen, Steps};

const SECOND: u64 = 1_000_000_000;

/// How many seconds may wait to be settled, each with up to 200 KB. If there are more, the oldest is
/// handed out as it is, and what is still to come of it counts for the oldest that is left: only a
/// reply that takes more than a minute does.
const EARLIER_MAX: usize = 64;

/// A second of the measured time. The last one may be shorter.
#[derive(Debug)]
struct Slot {
    start: u64,
    /// In nanoseconds; 0 where there is none.
    len: u64,
    /// Requests that were due in it, and those of them that will never be answered.
    due: u64,
    lost: u64,
    failures: u64,
    /// One for each that was answered, in nanoseconds.
    latency: Histogram<u64>,
}

impl Slot {
    fn new(start: u64, len: u64, latency: Histogram<u64>) -> Slot {
        Slot { start, len, due: 0, lost: 0, failures: 0, latency }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    fn unsettled(&self) -> u64 {
        self.due.saturating_sub(self.latency.len() + self.lost)
    }
}

/// The latencies of each second and of all, and beside them the service times.
#[derive(Debug)]
pub(super) struct Recorder {
    /// The measured time on the clock of the run, and the date of its start, since 1970.
    from: u64,
    until: u64,
    date: Duration,
    current: Slot,
    earlier: VecDeque<Slot>,
    /// Requests of seconds that were handed out before they were settled.
    owed: u64,
    /// Whether anybody wants the seconds.
    each_second: bool,
    settled: Vec<Second>,
    /// An empty histogram that has grown already.
    spare: Option<Histogram<u64>>,
    kept: Kept,
    steps: Option<Steps>,
    /// The median and the 99th percentile of the newest second that is over and had any.
    recent: Option<[u64; 2]>,
}

/// What is kept of all seconds. Histograms are of nanoseconds.
#[derive(Debug)]
pub(super) struct Kept {
    /// How long it is that was measured, in nanoseconds, and the requests that were due in it.
    pub(super) measured: u64,
    pub(super) due: u64,
    /// One for each that was answered.
    pub(super) latency: Histogram<u64>,
    /// In an open loop. In a closed one service times are latencies, and no request is late.
    pub(super) service: Histogram<u64>,
    pub(super) send_delay: Histogram<u64>,
    pub(super) steps: Vec<StepSeen>,
}

impl Kept {
    fn new() -> Kept {
        Kept {
            measured: 0,
            due: 0,
            latency: measured::histogram(),
            service: measured::histogram(),
            send_delay: measured::histogram(),
            steps: Vec::new(),
        }
    }
}

impl Recorder {
    /// Nothing is measured yet. It hands out seconds if somebody wants each of them.
    pub(super) fn new(each_second: bool) -> Recorder {
        Recorder {
            from: 0,
            until: 0,
            date: Duration::ZERO,
            current: Slot::new(0, 0, measured::histogram()),
            earlier: VecDeque::new(),
            owed: 0,
            each_second,
            settled: Vec::new(),
            spare: None,
            kept: Kept::new(),
            steps: None,
            recent: None,
        }
    }

    /// Measures the requests that are due from then and before `until`; `date` is that of the start.
    pub(super) fn start(&mut self, from: u64, until: u64, date: Duration, steps: Option<Steps>) {
        (self.from, self.until, self.date, self.steps) = (from, until, date, steps);
        self.current.start = from;
        self.current.len = SECOND.min(until - from);
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Where the current second ends, and [`roll`](Recorder::roll) is to be called.
    pub(super) fn ends(&self) -> u64 {
        if self.current.len == 0 { u64::MAX } else { self.current.end() }
    }

    pub(super) fn recent(&self) -> Option<[u64; 2]> {
        self.recent
    }

    /// A request is due. Each is due later than the one before it. Whether it is measured.
    pub(super) fn is_due(&mut self, due: u64) -> bool {
        if due >= self.ends() {
            self.roll(due);
        }
        let slot = self.slot(due);
        slot.map(|slot| slot.due += 1).is_some()
    }

    /// More requests were due in the current second.
    pub(super) fn were_due(&mut self, requests: u64) {
        if self.current.len > 0 {
            self.current.due += requests;
        }
    }

    /// Keeps the latency of a request that was due then. Whether it is measured.
    #[inline]
    pub(super) fn record(&mut self, due: u64, latency: u64) -> bool {
        // Nearly all are of the current second.
        if due.wrapping_sub(self.current.start) < self.current.len {
            self.current.latency.record(latency).expect("it grows");
            return true;
        }
        self.record_earlier(due, latency)
    }

    fn record_earlier(&mut self, due: u64, latency: u64) -> bool {
        let Some(slot) = self.slot_to_settle(due) else { return false };
        slot.latency.record(latency).expect("it grows");
        true
    }

    /// In an open loop: a request left so much later than it was due, or is kept back since its
    /// connection has too many under way.
    pub(super) fn left(&mut self, late: u64) {
        self.kept.send_delay.record(late).expect("it grows");
    }

    /// In an open loop: keeps what else there is of a request that is measured.
    pub(super) fn record_open(&mut self, due: u64, latency: u64, service: u64) {
        self.kept.service.record(service).expect("it grows");
        if let Some(steps) = &mut self.steps {
            steps.record(due, latency);
        }
    }

    /// A request that was due then will never be answered.
    pub(super) fn lost(&mut self, due: u64) {
        if let Some(slot) = self.slot_to_settle(due) {
            slot.lost += 1;
            self.failed(due);
        }
    }

    /// There is something wrong with a request that was due then, or something went wrong then.
    pub(super) fn failed(&mut self, due: u64) {
        if let Some(slot) = self.slot(due) {
            slot.failures += 1;
            if let Some(steps) = &mut self.steps {
                steps.failed(due);
            }
        }
    }

    /// The second of a time; if it was handed out, the oldest that is left.
    fn slot(&mut self, time: u64) -> Option<&mut Slot> {
        if !(self.from..self.until).contains(&time) {
            return None;
        }
        if self.current.len > 0 && (time >= self.current.start || self.earlier.is_empty()) {
            return Some(&mut self.current);
        }
        let first = self.earlier.front()?.start;
        let last = self.earlier.len() - 1;
        let at = time.saturating_sub(first) / SECOND;
        self.earlier.get_mut((at as usize).min(last))
    }

    /// The second in which a request is to be counted that was answered or lost.
    fn slot_to_settle(&mut self, due: u64) -> Option<&mut Slot> {
        let owed = self.owed;
        let slot = self.slot(due)?;
        if due < slot.start && owed > 0 {
            slot.due += 1;
            self.owed -= 1;
            self.kept.due -= 1;
        }
        self.slot(due)
    }

    /// All that was due before this time is known. Puts the seconds aside that are over by then.
    pub(super) fn roll(&mut self, time: u64) {
        while time >= self.ends() {
            let start = self.current.end();
            let latency = self.spare.take().unwrap_or_else(measured::histogram);
            let next = Slot::new(start, SECOND.min(self.until - start), latency);
            self.earlier.push_back(mem::replace(&mut self.current, next));
            let answered = self.earlier.iter().rev().find(|slot| !slot.latency.is_empty());
            if let Some(Slot { latency, .. }) = answered {
                self.recent = Some([0.5, 0.99].map(|part| latency.value_at_quantile(part)));
            }
        }
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while let Some(oldest) = self.earlier.front() {
            // Where one is owed a second must be left that it can be counted in.
            let spared = self.owed == 0 || self.earlier.len() > 1 || self.current.len > 0;
            if self.earlier.len() <= EARLIER_MAX && !(oldest.unsettled() == 0 && spared) {
                return;
            }
            self.hand_out_oldest();
        }
    }

    fn hand_out_oldest(&mut self) {
        let Some(mut slot) = self.earlier.pop_front() else { return };
        self.owed += slot.unsettled();
        self.kept.due += slot.due;
        self.kept.latency.add(&slot.latency).expect("it grows");
        if self.each_second {
            self.settled.push(Second {
                start_s: (slot.start - self.from) / SECOND,
                start: self.date + Duration::from_nanos(slot.start - self.from),
                length: Duration::from_nanos(slot.len),
                requests: slot.latency.len(),
                failures: slot.failures,
                latency: measured::buckets(&slot.latency),
            });
        }
        slot.latency.reset();
        self.spare = Some(slot.latency);
    }

    /// The measured time ends then, at the latest. What was due in it may still be answered.
    pub(super) fn end(&mut self, until: u64) {
        self.until = until.clamp(self.from, self.until);
        if self.current.len > 0 {
            self.current.len = SECOND.min(self.until.saturating_sub(self.current.start));
            let none = Slot::new(self.until, 0, measured::histogram());
            self.earlier.push_back(mem::replace(&mut self.current, none));
        }
        let is_after = |slot: &Slot| slot.start >= until && slot.due == 0;
        while self.earlier.back().is_some_and(is_after) {
            self.earlier.pop_back();
        }
        if let Some(last) = self.earlier.back_mut() {
            last.len = last.len.min(self.until.saturating_sub(last.start));
        }
        self.hand_out();
    }

    /// The seconds that were settled since this was last asked.
    pub(super) fn take_settled(&mut self) -> Vec<Second> {
        self.hand_out();
        mem::take(&mut self.settled)
    }

    /// Hands out all seconds, whatever is unanswered, and returns what is kept of them. Nothing is
    /// measured from here on.
    pub(super) fn finish(&mut self) -> Kept {
        self.end(self.until);
        while !self.earlier.is_empty() {
            self.hand_out_oldest();
        }
        let settled = mem::take(&mut self.settled);
        let all = mem::replace(self, Recorder::new(self.each_second));
        self.settled = settled;
        self.recent = all.recent;
        let steps = all.steps.map(Steps::take).unwrap_or_default();
        Kept { measured: all.until - all.from, steps, ..all.kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: u64 = 5 * SECOND + 300;

    fn recorder(len: u64) -> Recorder {
        let mut recorder = Recorder::new(true);
        recorder.start(FROM, FROM + len, Duration::from_secs(1_700_000_000), None);
        recorder
    }

    /// Number, requests, failures and milliseconds of each second.
    fn seen(seconds: &[Second]) -> Vec<(u64, u64, u64, u128)> {
        let each = seconds.iter();
        each.map(|one| (one.start_s, one.requests, one.failures, one.length.as_millis())).collect()
    }

    #[test]
    fn each_second_has_the_requests_that_were_due_in_it() {
        let mut recorder = recorder(3 * SECOND + SECOND / 2);
        assert!(!recorder.is_due(FROM - 1) && !recorder.record(FROM - 1, 7));
        for due in [0, SECOND - 1, SECOND, 3 * SECOND, 3 * SECOND + SECOND / 2 - 1] {
            assert!(recorder.is_due(FROM + due), "{due}");
        }
        assert!(!recorder.is_due(FROM + 3 * SECOND + SECOND / 2));
        // Nothing is settled: the first second is over, but has no replies.
        assert!(recorder.take_settled().is_empty());
        assert!(recorder.record(FROM + SECOND, 1_000));
        assert!(recorder.record(FROM + 3 * SECOND, 9 * SECOND));
        assert!(recorder.record(FROM, 2_000));
        assert!(recorder.take_settled().is_empty(), "one of the first second is left");
        recorder.lost(FROM + SECOND - 1);
        // The third had none.
        assert_eq!(
            seen(&recorder.take_settled()),
            [(0, 1, 1, 1_000), (1, 1, 0, 1_000), (2, 0, 0, 1_000)]
        );
        let kept = recorder.finish();
        let last = recorder.take_settled();
        assert_eq!(seen(&last), [(3, 1, 0, 500)]);
        assert_eq!(last[0].start, Duration::from_secs(1_700_000_003));
        assert_eq!((kept.due, kept.latency.len()), (5, 3));
        assert!(!recorder.record(FROM, 1), "it was measured before");
    }

    #[test]
    fn in_a_closed_loop_they_are_counted_when_a_second_is_over() {
        let mut recorder = recorder(10 * SECOND);
        (0..10).for_each(|_| assert!(recorder.record(FROM + 5, 1_000)));
        recorder.were_due(11);
        recorder.roll(FROM + 2 * SECOND);
        assert_eq!(recorder.recent(), Some([1_000, 1_000]));
        assert!(recorder.take_settled().is_empty());
        assert!(recorder.record(FROM + 6, SECOND));
        assert_eq!(seen(&recorder.take_settled()), [(0, 11, 0, 1_000), (1, 0, 0, 1_000)]);
    }

    #[test]
    fn what_ends_early_has_no_second_after_its_end() {
        let mut recorder = recorder(u64::MAX - FROM);
        recorder.were_due(1);
        recorder.roll(FROM + 5 * SECOND);
        // The last reply came long before it was seen to be the last.
        recorder.record(FROM, 1);
        recorder.end(FROM + SECOND / 4);
        let kept = recorder.finish();
        assert_eq!(kept.measured, SECOND / 4);
        assert_eq!(seen(&recorder.take_settled()), [(0, 1, 0, 250)]);
        assert_eq!((kept.due, kept.latency.len()), (1, 1));
    }

    #[test]
    fn nothing_measured_is_no_second() {
        let mut recorder = recorder(0);
        assert!(!recorder.is_due(FROM) && !recorder.record(FROM, 1));
        recorder.were_due(3);
        assert_eq!((recorder.ends(), recorder.finish().due), (u64::MAX, 0));
        assert!(recorder.take_settled().is_empty());
    }

    #[test]
    fn failures_are_counted_where_their_request_was_due() {
        let mut recorder = recorder(3 * SECOND);
        for due in [0, SECOND, 2 * SECOND] {
            recorder.is_due(FROM + due);
        }
        for due in [0, SECOND, 2 * SECOND, 3 * SECOND] {
            recorder.failed(FROM + due);
        }
        recorder.failed(FROM - 1);
        recorder.failed(FROM + SECOND);
        recorder.finish();
        let failures: Vec<_> = recorder.take_settled().iter().map(|one| one.failures).collect();
        assert_eq!(failures, [1, 2, 1]);
    }

    /// However long a reply takes, no more seconds are open than there is room for, and all are in
    /// the sum.
    #[test]
    fn a_straggler_does_not_keep_all_seconds() {
        let mut recorder = recorder(1_000 * SECOND);
        let mut seconds = Vec::new();
        for due in 0..1_000 {
            recorder.is_due(FROM + due * SECOND);
            if due > 0 {
                recorder.record(FROM + due * SECOND, 1_000);
            }
            assert!(recorder.earlier.len() <= EARLIER_MAX);
            seconds.extend(recorder.take_settled());
        }
        assert_eq!(seconds.len(), 999, "only the current one is left");
        recorder.end(FROM + 1_000 * SECOND);
        assert!(recorder.take_settled().is_empty(), "one is owed");
        assert!(recorder.record(FROM, 999 * SECOND));
        let kept = recorder.finish();
        seconds.extend(recorder.take_settled());
        assert_eq!((kept.due, kept.latency.len()), (1_000, 1_000));
        assert_eq!(seconds.iter().map(|one| one.requests).sum::<u64>(), 1_000);
        assert!(seconds.iter().zip(0..).all(|(one, number)| one.start_s == number));
        assert_eq!(seconds.len(), 1_000);
    }
}
