//! What one process has seen of a load, such that several add up to what one would have seen.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::report::Failures;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) connected: u64,
    pub(super) active: u64,
    pub(super) answered: u64,
    /// From the first connect to the last one established.
    pub(super) connecting: Duration,
    pub(super) measuring: Duration,
    /// Replies within the measured time.
    pub(super) requests: u64,
    /// Replies to all requests.
    pub(super) requests_total: u64,
    /// Nanoseconds from request to reply, and how often: the buckets of a histogram.
    pub(super) latency: Vec<(u64, u64)>,
    pub(super) load_cpu: Duration,
    /// `None` if no server was named, or it is not there.
    pub(super) server_cpu: Option<Duration>,
    /// How often its tasks were put on a CPU.
    pub(super) server_switches: Option<u64>,
    pub(super) failures: Failures,
}

/// The values of all histograms here are exact to this many digits.
const DIGITS: u8 = 3;

/// An empty histogram of nanoseconds. It grows as needed, so that no sample is left out.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("so few digits are allowed")
}

pub(super) fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let recorded = histogram.iter_recorded();
    recorded.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
}

impl Measured {
    /// All latencies. A bucket of one process is a bucket of them all, so nothing is lost.
    pub(super) fn histogram(&self) -> Histogram<u64> {
        let mut all = histogram();
        for &(nanos, count) in &self.latency {
            all.record_n(nanos, count).expect("it grows");
        }
        all
    }

    /// Adds what another process has seen at the same time.
    pub(super) fn add(&mut self, other: Measured) {
        self.connected += other.connected;
        self.active += other.active;
        self.answered += other.answered;
        self.connecting = self.connecting.max(other.connecting);
        self.measuring = self.measuring.max(other.measuring);
        self.requests += other.requests;
        self.requests_total += other.requests_total;
        self.latency.extend(other.latency);
        self.load_cpu += other.load_cpu;
        // There is one server: who measured for longest has seen the most of it.
        self.server_cpu = self.server_cpu.max(other.server_cpu);
        self.server_switches = self.server_switches.max(other.server_switches);
        self.failures.add(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_latencies_are_those_of_one_process() {
        let mut alone = histogram();
        let mut merged = Measured::default();
        for process in 0..3_u64 {
            let mut own = histogram();
            for n in 0..1_000 {
                // From half a microsecond to minutes, and different for each.
                let nanos = 500 + n * n * n * (7 + process * 50);
                own.record(nanos).unwrap();
                alone.record(nanos).unwrap();
            }
            merged.add(Measured { latency: buckets(&own), ..Measured::default() });
        }
        assert_eq!(merged.histogram(), alone);
        assert_eq!(merged.histogram().len(), 3_000);
    }

    #[test]
    fn counts_are_added_and_times_are_the_longest() {
        let seen = |n: u64| Measured {
            connected: n,
            requests: 10 * n,
            connecting: Duration::from_secs(n),
            measuring: Duration::from_secs(2 * n),
            load_cpu: Duration::from_secs(n),
            server_cpu: Some(Duration::from_secs(3 * n)),
            server_switches: Some(n),
            failures: Failures {
                lost: n,
                errors: [("reset".to_owned(), n)].into(),
                first_mismatch: (n == 2).then(|| "this".to_owned()),
                ..Failures::default()
            },
            ..Measured::default()
        };
        let mut all = Measured::default();
        for n in [1, 3, 2] {
            all.add(seen(n));
        }
        assert_eq!((all.connected, all.requests, all.failures.lost), (6, 60, 6));
        assert_eq!(all.connecting.as_secs(), 3);
        assert_eq!(all.measuring.as_secs(), 6);
        assert_eq!(all.load_cpu.as_secs(), 6);
        assert_eq!(all.server_cpu.unwrap().as_secs(), 9);
        assert_eq!(all.failures.errors["reset"], 6);
        assert_eq!(all.failures.first_mismatch.as_deref(), Some("this"));
    }
}
