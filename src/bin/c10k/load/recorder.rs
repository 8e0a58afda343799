//! What is kept of the replies while a load is measured.

use std::mem;

use hdrhistogram::Histogram;

use super::measured::{self, Second};
use super::steps::{StepSeen, Steps};

const SECOND: u64 = 1_000_000_000;

/// The latencies of each second, and beside them the service times.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Of the second under way, in nanoseconds.
    latency: Histogram<u64>,
    /// Of all seconds. Where requests are sent as soon as they are due there is none.
    service: Histogram<u64>,
    /// If there are several.
    pub(super) steps: Option<Steps>,
    done: Vec<Second>,
    /// The median and the 99th percentile of the last of them that had any.
    recent: Option<[u64; 2]>,
    /// What is recorded from then on is another second's, in the clock of the run.
    ends: u64,
    /// The number of the last second. What comes after its end is still counted there.
    last: u64,
    /// Failures there were when the second began.
    failures: u64,
}

impl Recorder {
    pub(super) fn new() -> Recorder {
        Recorder {
            latency: measured::histogram(),
            service: measured::histogram(),
            steps: None,
            done: Vec::new(),
            recent: None,
            ends: u64::MAX,
            last: 0,
            failures: 0,
        }
    }

    /// Measuring begins `now`, and goes on for so many nanoseconds at most. Failures before it
    /// are none of its own.
    pub(super) fn start(&mut self, now: u64, nanos_max: u64, failures: u64) {
        self.last = nanos_max.div_ceil(SECOND).max(1) - 1;
        self.ends = now.saturating_add(SECOND);
        self.failures = failures;
        if let Some(steps) = &mut self.steps {
            steps.forget(failures);
        }
        self.close_last();
    }

    /// Whether a second is over, and [`roll`](Recorder::roll) is to be called.
    #[inline]
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.ends
    }

    pub(super) fn recent(&self) -> Option<[u64; 2]> {
        self.recent
    }

    #[inline]
    pub(super) fn record(&mut self, latency: u64) {
        self.latency.record(latency).expect("it grows");
    }

    pub(super) fn record_service(&mut self, service: u64) {
        self.service.record(service).expect("it grows");
    }

    /// Puts the seconds that are over aside.
    #[cold]
    pub(super) fn roll(&mut self, now: u64, failures: u64) {
        while self.is_due(now) {
            self.put_aside(failures);
            self.ends += SECOND;
            self.close_last();
        }
    }

    fn close_last(&mut self) {
        if self.done.len() as u64 == self.last {
            self.ends = u64::MAX;
        }
    }

    fn put_aside(&mut self, failures: u64) {
        let second = Second {
            start_s: self.done.len() as u64,
            requests: self.latency.len(),
            failures: failures - mem::replace(&mut self.failures, failures),
            latency: measured::buckets(&self.latency),
        };
        self.done.push(second);
        if !self.latency.is_empty() {
            self.recent = Some([0.5, 0.99].map(|part| self.latency.value_at_quantile(part)));
        }
        self.latency.reset();
    }

    /// All seconds, with the one under way; the service times; and the steps.
    pub(super) fn take(&mut self, failures: u64) -> (Vec<Second>, Vec<(u64, u64)>, Vec<StepSeen>) {
        self.put_aside(failures);
        let all = mem::replace(self, Recorder::new());
        let steps = all.steps.map(Steps::take).unwrap_or_default();
        (all.done, measured::buckets(&all.service), steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own() {
        let mut recorder = Recorder::new();
        let start = 5 * SECOND + 300;
        recorder.start(start, 4 * SECOND, 7);
        let mut see = |after: u64, latency, failures| {
            let now = start + after;
            if recorder.is_due(now) {
                recorder.roll(now, failures);
            }
            recorder.record(latency);
        };
        see(0, 1_000, 7);
        see(SECOND - 1, 1_000, 8);
        // Nothing at all in the second after it.
        see(2 * SECOND, 5, 9);
        see(4 * SECOND - 1, 6, 9);
        see(9 * SECOND, 7, 9);
        assert_eq!(recorder.recent(), Some([5, 5]));
        let (series, service, _) = recorder.take(11);
        let seen: Vec<_> =
            series.iter().map(|one| (one.start_s, one.requests, one.failures)).collect();
        assert_eq!(seen, [(0, 2, 2), (1, 0, 0), (2, 1, 0), (3, 2, 2)]);
        assert_eq!(series[0].latency, [(1_000, 2)]);
        assert_eq!(series[3].latency, [(6, 1), (7, 1)]);
        assert!(service.is_empty());
    }
}
