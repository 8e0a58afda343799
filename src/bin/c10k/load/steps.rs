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
    /// Of the requests that were due in it, and of what else went wrong then.
    pub(super) failures: u64,
    /// Of the requests that were due in it and answered ever: the buckets of a histogram of
    /// nanoseconds.
    pub(super) latency: Vec<(u64, u64)>,
}

impl StepSeen {
    pub(super) fn add(&mut self, other: StepSeen) {
        self.failures += other.failures;
        self.latency.extend(other.latency);
    }
}

/// The steps of a schedule while it is measured.
#[derive(Debug)]
pub(super) struct Steps {
    /// When each ends, on the clock of the run.
    ends: Vec<u64>,
    seen: Vec<(u64, Histogram<u64>)>,
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
            seen: schedule.0.iter().map(|_| (0, measured::histogram())).collect(),
        }
    }

    /// The step of a time; what comes after the last is the last one's.
    fn at(&mut self, time: u64) -> &mut (u64, Histogram<u64>) {
        let last = self.ends.len() - 1;
        let at = self.ends.partition_point(|&end| end <= time).min(last);
        &mut self.seen[at]
    }

    /// Something is wrong with a request that was due then.
    pub(super) fn failed(&mut self, due: u64) {
        self.at(due).0 += 1;
    }

    /// A request that was due then has had its reply.
    pub(super) fn record(&mut self, due: u64, latency: u64) {
        self.at(due).1.record(latency).expect("it grows");
    }

    pub(super) fn take(self) -> Vec<StepSeen> {
        let seen = self.seen.into_iter();
        seen.map(|(failures, latency)| StepSeen { failures, latency: measured::buckets(&latency) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Rate;

    #[test]
    fn a_step_has_the_requests_that_were_due_in_it() {
        let second = 1_000_000_000;
        let schedule = "1:1s,2:2s".parse::<Rate>().unwrap().schedule(Duration::ZERO);
        let mut steps = Steps::new(&schedule, 100);
        // Due in the first second, answered in the second one, and not well.
        steps.record(99 + second, 1_000);
        steps.failed(99 + second);
        steps.record(100 + second, 20);
        // Answered when all was over.
        steps.record(99 + 3 * second, 30);
        let seen = steps.take();
        assert_eq!((seen[0].failures, seen[1].failures), (1, 0));
        assert_eq!(seen[0].latency, [(1_000, 1)]);
        assert_eq!(seen[1].latency, [(20, 1), (30, 1)]);
    }
}
