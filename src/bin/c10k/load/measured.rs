//! What one process has seen of a load, such that several add up to what one would have seen.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::report::Failures;
use super::steps::StepSeen;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) connected: u64,
    pub(super) active: u64,
    pub(super) answered: u64,
    /// Datagrams that were answered before older ones.
    pub(super) reordered: u64,
    /// From the first connect to the last one established.
    pub(super) connecting: Duration,
    pub(super) measuring: Duration,
    /// Requests that were due in the measured time.
    pub(super) due: u64,
    /// Those of them that were answered, whenever that was: their latencies, as the buckets of a
    /// histogram of nanoseconds.
    pub(super) latency: Vec<(u64, u64)>,
    /// Their service times, and how late requests left, likewise. Both are empty in a closed loop,
    /// where service times are latencies and nothing is late.
    pub(super) service: Vec<(u64, u64)>,
    pub(super) send_delay: Vec<(u64, u64)>,
    /// Replies to all requests.
    pub(super) requests_total: u64,
    /// Requests that were sent, and replies that none had asked for.
    pub(super) sent: u64,
    pub(super) unasked: u64,
    /// The steps of a schedule, if there are several.
    pub(super) steps: Vec<StepSeen>,
    /// Requests under way within the measured time, in the mean.
    pub(super) in_flight_mean: f64,
    /// Requests that were due and not answered: the most of them in the first half of an open
    /// loop, and those at the end.
    pub(super) backlog_first_half: u64,
    pub(super) backlog_end: u64,
    /// The shortest service time of any reply in an open loop, in nanoseconds.
    pub(super) fastest: Option<u64>,
    /// How long it took to connect again, as buckets of a histogram of nanoseconds.
    pub(super) reconnects: Vec<(u64, u64)>,
    /// CPU times, and how long it was from when they were read to when they were read again.
    pub(super) clocked: Duration,
    pub(super) load_cpu: Duration,
    /// `None` if no server was named, or it is not there.
    pub(super) server_cpu: Option<Duration>,
    /// Of the measured time, from 0 to 1: CPU time that the hypervisor took away, and time for
    /// which some task of the machine waited for a CPU.
    pub(super) cpu_stolen: f64,
    pub(super) cpu_pressure: f64,
    /// The longest for which the loop was not there when it was to wake.
    pub(super) stalled: Duration,
    /// How often its tasks were put on a CPU, from before the first request to after the last, and
    /// how many replies there were meanwhile.
    pub(super) server_switches: Option<u64>,
    pub(super) replies: u64,
    pub(super) failures: Failures,
}

/// The requests that were due in one second of the measured time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Since measuring began.
    pub(crate) start_s: u64,
    /// Since 1970.
    pub(crate) start: Duration,
    /// The last one may be shorter than a second.
    pub(crate) length: Duration,
    /// Those that were answered: their latencies are below.
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// Nanoseconds, and how often: the buckets of a histogram.
    pub(crate) latency: Vec<(u64, u64)>,
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

pub(super) fn sum<'a>(buckets: impl IntoIterator<Item = &'a (u64, u64)>) -> Histogram<u64> {
    let mut all = histogram();
    for &(nanos, count) in buckets {
        all.record_n(nanos, count).expect("it grows");
    }
    all
}

impl Second {
    /// Adds what another process has seen of it.
    pub(super) fn add(&mut self, other: Second) {
        debug_assert_eq!(self.start_s, other.start_s);
        self.start = self.start.min(other.start);
        self.length = self.length.max(other.length);
        self.requests += other.requests;
        self.failures += other.failures;
        let mut both = sum(&self.latency);
        both.add(sum(&other.latency)).expect("it grows");
        self.latency = buckets(&both);
    }
}

/// The seconds of all workers, each put together from those of all that have had it.
#[derive(Debug)]
pub(super) struct Seconds {
    /// Those that not all have settled, and the number of the first.
    parts: VecDeque<Second>,
    next: u64,
    /// How many each worker has settled; it settles no more when it has ended.
    settled: Vec<u64>,
}

impl Seconds {
    pub(super) fn new(workers: usize) -> Seconds {
        Seconds { parts: VecDeque::new(), next: 0, settled: vec![0; workers] }
    }

    pub(super) fn add(&mut self, worker: u64, second: Second) {
        self.settled[worker as usize] += 1;
        match self.parts.get_mut((second.start_s - self.next) as usize) {
            Some(all) => all.add(second),
            // Each worker settles one after the other.
            None => self.parts.push_back(second),
        }
    }

    pub(super) fn end(&mut self, worker: u64) {
        self.settled[worker as usize] = u64::MAX;
    }

    /// Those that all workers have settled.
    pub(super) fn take(&mut self) -> Vec<Second> {
        let by_all = self.settled.iter().copied().min().unwrap_or(0);
        let ready = (by_all.saturating_sub(self.next)).min(self.parts.len() as u64);
        self.next += ready;
        self.parts.drain(..ready as usize).collect()
    }
}

impl Measured {
    /// Adds what another process has seen at the same time. A bucket of one process is a bucket of
    /// them all, so nothing is lost.
    pub(super) fn add(&mut self, other: Measured) {
        self.connected += other.connected;
        self.active += other.active;
        self.answered += other.answered;
        self.reordered += other.reordered;
        self.connecting = self.connecting.max(other.connecting);
        self.measuring = self.measuring.max(other.measuring);
        self.due += other.due;
        self.latency.extend(other.latency);
        self.service.extend(other.service);
        self.send_delay.extend(other.send_delay);
        self.requests_total += other.requests_total;
        self.sent += other.sent;
        self.unasked += other.unasked;
        for (at, step) in other.steps.into_iter().enumerate() {
            match self.steps.get_mut(at) {
                Some(own) => own.add(step),
                None => self.steps.push(step),
            }
        }
        self.reconnects.extend(other.reconnects);
        self.in_flight_mean += other.in_flight_mean;
        self.backlog_first_half += other.backlog_first_half;
        self.backlog_end += other.backlog_end;
        self.fastest = self.fastest.into_iter().chain(other.fastest).min();
        self.clocked = self.clocked.max(other.clocked);
        self.load_cpu += other.load_cpu;
        // There is one server: who measured for longest has seen the most of it.
        self.server_cpu = self.server_cpu.max(other.server_cpu);
        self.cpu_stolen = self.cpu_stolen.max(other.cpu_stolen);
        self.cpu_pressure = self.cpu_pressure.max(other.cpu_pressure);
        self.stalled = self.stalled.max(other.stalled);
        self.replies += other.replies;
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
        let (mut merged, mut both) = (Measured::default(), Second::default());
        for process in 0..3_u64 {
            let mut own = histogram();
            for n in 0..1_000 {
                // From half a microsecond to minutes, and different for each.
                let nanos = 500 + n * n * n * (7 + process * 50);
                own.record(nanos).unwrap();
                alone.record(nanos).unwrap();
            }
            let latency = buckets(&own);
            let second = Second { requests: 1_000, failures: process, ..Second::default() };
            both.add(Second { latency: latency.clone(), ..second });
            merged.add(Measured { latency, ..Measured::default() });
        }
        assert_eq!(sum(&merged.latency), alone);
        assert_eq!((both.requests, both.failures), (3_000, 3));
        assert_eq!(both.latency, buckets(&alone));
    }

    #[test]
    fn a_second_is_told_when_all_workers_have_had_it() {
        let second = |start_s, requests| Second { start_s, requests, ..Second::default() };
        let told = |seconds: &mut Seconds| {
            let told = seconds.take().into_iter();
            told.map(|second| (second.start_s, second.requests)).collect::<Vec<_>>()
        };
        let mut seconds = Seconds::new(3);
        seconds.add(0, second(0, 1));
        seconds.add(0, second(1, 1));
        seconds.add(1, second(0, 10));
        assert_eq!(told(&mut seconds), []);
        // It has none at all.
        seconds.end(2);
        assert_eq!(told(&mut seconds), [(0, 11)]);
        seconds.add(1, second(1, 10));
        seconds.add(1, second(2, 10));
        assert_eq!(told(&mut seconds), [(1, 11)]);
        seconds.end(0);
        assert_eq!(told(&mut seconds), [(2, 10)]);
        seconds.end(1);
        assert_eq!(told(&mut seconds), []);
    }

    #[test]
    fn counts_are_added_and_times_are_the_longest() {
        let seen = |n: u64| Measured {
            connected: n,
            due: 10 * n,
            fastest: (n > 1).then_some(n),
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
        assert_eq!((all.connected, all.due, all.failures.lost), (6, 60, 6));
        assert_eq!(all.fastest, Some(2));
        assert_eq!(all.connecting.as_secs(), 3);
        assert_eq!(all.measuring.as_secs(), 6);
        assert_eq!(all.load_cpu.as_secs(), 6);
        assert_eq!(all.server_cpu.unwrap().as_secs(), 9);
        assert_eq!(all.failures.errors["reset"], 6);
        assert_eq!(all.failures.first_mismatch.as_deref(), Some("this"));
    }
}
