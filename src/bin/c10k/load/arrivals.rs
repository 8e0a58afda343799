//! When requests are due, whatever the server does.

use clap::ValueEnum;
use fastrand::Rng;

use super::schedule::Schedule;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Evenly, one after another
    Constant,
    /// Each independent of all others, as those of many people are
    Poisson,
}

/// The part of all arrivals that one process makes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// Of the rate, from 0 to 1.
    pub(crate) size: f64,
    /// What those before it have. It begins later by as much, so that all together are even.
    pub(crate) before: f64,
    pub(crate) seed: u64,
}

/// The times at which requests are due, in order.
#[derive(Debug)]
pub(crate) struct Arrivals {
    schedule: Schedule,
    kind: Kind,
    part: Part,
    rng: Rng,
    /// How many were before the next one; with Poisson arrivals, as many as were to be expected.
    count: f64,
    /// In nanoseconds since the start of the schedule.
    next: Option<u64>,
}

impl Arrivals {
    pub(crate) fn new(schedule: Schedule, kind: Kind, part: Part) -> Arrivals {
        let rng = Rng::with_seed(part.seed);
        let mut arrivals = Arrivals { schedule, kind, part, rng, count: 0.0, next: None };
        arrivals.count = match kind {
            Kind::Constant => part.before,
            Kind::Poisson => arrivals.gap(),
        };
        arrivals.find_next();
        arrivals
    }

    /// When the next one is due, in nanoseconds since the start; `None` after the last.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.next
    }

    /// Takes the next one if it is due by `now`.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<u64> {
        let due = self.next.filter(|&due| due <= now)?;
        self.count += match self.kind {
            Kind::Constant => 1.0,
            Kind::Poisson => self.gap(),
        };
        self.find_next();
        Some(due)
    }

    /// Exponentially distributed, 1 in the mean.
    fn gap(&mut self) -> f64 {
        -(1.0 - self.rng.f64()).ln()
    }

    fn find_next(&mut self) {
        let of_all = self.count / self.part.size;
        self.next = self.schedule.reaches(of_all).map(|after| after.as_nanos() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::schedule::Rate;
    use std::time::Duration;

    fn due(rate: &str, kind: Kind, part: Part) -> Vec<u64> {
        let schedule = rate.parse::<Rate>().unwrap().schedule(Duration::from_secs(2));
        let mut arrivals = Arrivals::new(schedule, kind, part);
        std::iter::from_fn(|| arrivals.take_due(u64::MAX)).collect()
    }

    const ALL: Part = Part { size: 1.0, before: 0.0, seed: 7 };

    #[test]
    fn constant_arrivals_are_even_over_all_processes() {
        let millisecond = 1_000_000;
        let alone = due("1k", Kind::Constant, ALL);
        assert_eq!(alone.len(), 2_000);
        let even = |times: &[u64]| {
            times.iter().zip(0..).all(|(&due, n)| due.abs_diff(n * millisecond) < 10)
        };
        assert!(even(&alone));

        // Whoever has more connections has more of the requests.
        for parts in [[0.25; 4], [0.1, 0.2, 0.3, 0.4]] {
            let mut before = 0.0;
            let mut together = Vec::new();
            for size in parts {
                together.extend(due("1k", Kind::Constant, Part { size, before, ..ALL }));
                before += size;
            }
            together.sort_unstable();
            assert!((1_999..=2_001).contains(&together.len()), "{}", together.len());
            assert!(parts != [0.25; 4] || even(&together));
        }
    }

    #[test]
    fn poisson_arrivals_vary_as_much_as_they_should() {
        let times = due("100k", Kind::Poisson, ALL);
        let n = times.len() as f64;
        // 200,000 in the mean, and a standard deviation of 447.
        assert!((n - 200_000.0).abs() < 2_500.0, "{n}");
        assert!(times.is_sorted());
        let gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / n;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / n;
        let variation = variance.sqrt() / mean;
        assert!((variation - 1.0).abs() < 0.02, "{variation}");

        assert_eq!(times, due("100k", Kind::Poisson, ALL), "the same seed");
        assert_ne!(times, due("100k", Kind::Poisson, Part { seed: 8, ..ALL }));
    }

    #[test]
    fn none_is_taken_before_it_is_due() {
        let schedule = "1k".parse::<Rate>().unwrap().schedule(Duration::from_secs(1));
        let mut arrivals = Arrivals::new(schedule, Kind::Constant, ALL);
        assert_eq!(arrivals.take_due(0), Some(0));
        assert_eq!((arrivals.next_due(), arrivals.take_due(999_999)), (Some(1_000_000), None));
        assert_eq!(arrivals.take_due(5_000_000), Some(1_000_000), "late, and it says since when");
    }
}
