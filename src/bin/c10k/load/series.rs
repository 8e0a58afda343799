//! What a load measured, one second after the other.

use serde::Serialize;

use super::measured::{self, Second};
use super::report::Latency;
use crate::hdr::Interval;

/// A second in the JSON. The names carry the units.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    start_s: u64,
    requests: u64,
    requests_per_s: f64,
    failures: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Row {
    pub(super) fn of(second: &Second) -> Row {
        let Latency { p50, p99, max, .. } = Latency::of(&measured::sum(&second.latency));
        let length = second.length.as_secs_f64();
        Row {
            start_s: second.start_s,
            requests: second.requests,
            requests_per_s: if length > 0.0 { second.requests as f64 / length } else { 0.0 },
            failures: second.failures,
            p50_us: p50,
            p99_us: p99,
            max_us: max,
        }
    }
}

/// A second as it is logged.
pub(super) fn interval(second: &Second) -> Interval {
    Interval { start: second.start, length: second.length, latency: measured::sum(&second.latency) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_row_is_of_its_second() {
        let half = Second {
            start_s: 2,
            start: Duration::from_millis(1_700_000_000_250),
            length: Duration::from_millis(500),
            requests: 50,
            failures: 2,
            latency: vec![(3_000, 50)],
        };
        let row = Row::of(&half);
        assert_eq!((row.start_s, row.requests_per_s, row.failures), (2, 100.0, 2));
        assert_eq!((row.p50_us, row.max_us), (3.001, 3.001));
        let interval = interval(&half);
        assert_eq!(interval.end(), half.start + half.length);
        assert_eq!(interval.latency.len(), 50);
        let none = Row::of(&Second::default());
        assert_eq!((none.requests_per_s, none.p99_us), (0.0, 0.0));
    }
}
