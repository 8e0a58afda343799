//! What a load measured, one second after the other.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::measured::{self, Second};
use super::report::Latency;
use crate::hdr::Interval;

/// All latencies, in nanoseconds.
pub(super) fn histogram(series: &[Second]) -> Histogram<u64> {
    let mut all = measured::histogram();
    for &(nanos, count) in series.iter().flat_map(|second| &second.latency) {
        all.record_n(nanos, count).expect("it grows");
    }
    all
}

/// How long each second is: until the next begins, and the last until the end of the measured
/// time, if that is not past.
fn lengths(series: &[Second], measured_s: f64) -> impl Iterator<Item = f64> {
    let ends = series.iter().skip(1).map(|next| next.start_s as f64).chain([measured_s]);
    series.iter().zip(ends).map(|(second, end)| {
        let length = end - second.start_s as f64;
        if length > 0.0 { length } else { 1.0 }
    })
}

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

pub(super) fn rows(series: &[Second], measured_s: f64) -> Vec<Row> {
    let rows = series.iter().zip(lengths(series, measured_s)).map(|(second, length)| {
        let Latency { p50, p99, max, .. } = Latency::of(&histogram(std::slice::from_ref(second)));
        Row {
            start_s: second.start_s,
            requests: second.requests,
            requests_per_s: second.requests as f64 / length,
            failures: second.failures,
            p50_us: p50,
            p99_us: p99,
            max_us: max,
        }
    });
    rows.collect()
}

/// The series as it is logged, if measuring began then, since 1970.
pub(super) fn intervals(series: &[Second], measured_s: f64, began: Duration) -> Vec<Interval> {
    let intervals =
        series.iter().zip(lengths(series, measured_s)).map(|(second, length)| Interval {
            start: began + Duration::from_secs(second.start_s),
            length: Duration::from_secs_f64(length),
            latency: histogram(std::slice::from_ref(second)),
        });
    intervals.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Vec<Second> {
        let second = |start_s, requests| Second {
            start_s,
            requests,
            failures: start_s,
            latency: vec![(1_000 * (start_s + 1), requests)],
        };
        vec![second(0, 100), second(1, 0), second(2, 50)]
    }

    #[test]
    fn the_last_second_is_as_long_as_was_measured() {
        for (measured_s, last) in [(2.5, 0.5), (3.0, 1.0), (2.0, 1.0), (1.9, 1.0)] {
            assert_eq!(lengths(&series(), measured_s).collect::<Vec<_>>(), [1.0, 1.0, last]);
        }
        assert_eq!(lengths(&series()[..1], 7.5).collect::<Vec<_>>(), [7.5]);
    }

    #[test]
    fn a_row_is_of_its_second() {
        let rows = rows(&series(), 2.5);
        let rates: Vec<_> = rows.iter().map(|row| row.requests_per_s).collect();
        assert_eq!(rates, [100.0, 0.0, 100.0]);
        let p50: Vec<_> = rows.iter().map(|row| row.p50_us).collect();
        assert_eq!(p50, [1.0, 0.0, 3.001]);
        assert_eq!((rows[2].failures, rows[2].max_us), (2, 3.001));
    }

    #[test]
    fn what_is_logged_has_all_samples_at_their_time() {
        let began = Duration::from_millis(1_700_000_000_250);
        let intervals = intervals(&series(), 2.5, began);
        assert_eq!(intervals[2].start, began + Duration::from_secs(2));
        assert_eq!(intervals[2].end(), began + Duration::from_millis(2_500));
        let counts: Vec<_> = intervals.iter().map(|interval| interval.latency.len()).collect();
        assert_eq!(counts, [100, 0, 50]);
        assert_eq!(histogram(&series()).len(), 150);
    }
}
