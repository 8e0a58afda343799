//! What came of each step of a schedule.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::checker::nanos;
use super::measured;
use super::schedule::Schedule;

/// What one process has seen of a step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StepSeen {
    /// Replies that came in its time.
    pub(super) replies: u64,
    /// Failures that were found by the replies that came in its time.
    pub(super) failures: u64,
    /// Of the requests that were due in its time: the buckets of a histogram of nanoseconds.
    pub(super) latency: Vec<(u64, u64)>,
}

impl StepSeen {
    pub(super) fn add(&mut self, other: StepSeen) {
        self.replies += other.replies;
        self.failures += other.failures;
        self.latency.extend(other.latency);
    }
}

/// The steps of a schedule while it is measured.
#[derive(Debug)]
pub(super) struct Steps {
    /// When each ends, on the clock of the run.
    ends: Vec<u64>,
    seen: Vec<(StepSeen, Histogram<u64>)>,
    /// Failures counted so far.
    failures: u64,
}

impl Steps {
    /// Those of a schedule that begins at `from`.
    pub(super) fn new(schedule: &Schedule, from: u64) -> Steps {
        let end = |end: &mut Duration, duration: Duration| {
            *end += duration;
            Some(from.saturating_add(nanos(*end)))
        };
        let durations = schedule.0.iter().map(|step| step.duration);
        Steps {
            ends: durations.scan(Duration::ZERO, end).collect(),
            seen: schedule.0.iter().map(|_| (StepSeen::default(), measured::histogram())).collect(),
            failures: 0,
        }
    }

    /// The step of a time; what comes after the last is the last one's.
    fn at(&mut self, time: u64) -> &mut (StepSeen, Histogram<u64>) {
        let last = self.ends.len() - 1;
        let at = self.ends.partition_point(|&end| end <= time).min(last);
        &mut self.seen[at]
    }

    /// There were so many failures before the first step.
    pub(super) fn forget(&mut self, failures: u64) {
        self.failures = failures;
    }

    /// A reply has come `now`, when there had been so many failures.
    pub(super) fn replied(&mut self, now: u64, failures: u64) {
        let new = failures - self.failures;
        self.failures = failures;
        let in_time = self.ends.last().is_some_and(|&end| now < end);
        let (step, _) = self.at(now);
        step.failures += new;
        step.replies += u64::from(in_time);
    }

    /// A request that was due then has had its reply.
    pub(super) fn record(&mut self, due: u64, latency: u64) {
        self.at(due).1.record(latency).expect("it grows");
    }

    pub(super) fn take(self) -> Vec<StepSeen> {
        let seen = self.seen.into_iter();
        seen.map(|(step, latency)| StepSeen { latency: measured::buckets(&latency), ..step })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Rate;

    #[test]
    fn replies_are_those_of_their_time_and_latencies_those_of_when_they_were_due() {
        let second = 1_000_000_000;
        let schedule = "1:1s,2:2s".parse::<Rate>().unwrap().schedule(Duration::ZERO);
        let mut steps = Steps::new(&schedule, 100);
        steps.forget(2);
        // Due in the first second, answered in the second one, with a failure before it.
        steps.replied(100 + second, 3);
        steps.record(99 + second, 1_000);
        steps.replied(100 + second, 3);
        steps.record(100 + second, 20);
        // Answered when all was over.
        steps.replied(100 + 3 * second, 5);
        steps.record(99 + 3 * second, 30);
        let seen = steps.take();
        let counts: Vec<_> = seen.iter().map(|step| (step.replies, step.failures)).collect();
        assert_eq!(counts, [(0, 0), (2, 3)]);
        assert_eq!(seen[0].latency, [(1_000, 1)]);
        assert_eq!(seen[1].latency, [(20, 1), (30, 1)]);
    }
}
