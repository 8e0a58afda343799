//! The loop's clock.

use std::time::{Duration, Instant};

use crate::sys::monotonic_ns;

/// Counts nanoseconds from when it was made (`CLOCK_MONOTONIC`).
///
/// A loop reads the clock twice in each turn, and then compares and subtracts. That is cheaper
/// with one integer than with [`Instant`], which it stands in for: on Linux both are the same
/// clock (`clock_gettime(2)`).
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Read just after `start`, so that this clock is behind the other if anything: what is due by
    /// this one is due by both.
    start_ns: u64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        // Another may have the CPU in between, by which all timers would be late for ever: the
        // tightest of ten.
        let clocks = (0..10).map(|_| {
            let (before_ns, start, start_ns) = (monotonic_ns(), Instant::now(), monotonic_ns());
            (start_ns - before_ns, Clock { start, start_ns })
        });
        let (_, clock) = clocks.min_by_key(|(took_ns, _)| *took_ns).expect("ten");
        clock
    }

    /// Nanoseconds since the start: enough for five centuries.
    #[inline]
    pub(crate) fn read(&self) -> u64 {
        monotonic_ns() - self.start_ns
    }

    /// What `CLOCK_MONOTONIC` reads when this clock reads `ns`.
    pub(crate) fn monotonic(&self, ns: u64) -> u64 {
        self.start_ns.saturating_add(ns)
    }

    /// The instant at which the clock read `ns`.
    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// What the clock reads at an instant; 0 for one before its start.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        let ns = instant.saturating_duration_since(self.start).as_nanos();
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_by_this_clock_is_due_by_the_other() {
        let clock = Clock::new();
        for _ in 0..1000 {
            let before = Instant::now();
            let ns = clock.read();
            assert!(clock.instant(ns) <= Instant::now());
            assert!(before - clock.instant(ns) < Duration::from_secs(1), "hardly behind");
            assert_eq!(clock.at(clock.instant(ns)), ns);
        }
        assert_eq!(clock.at(clock.start - Duration::from_secs(1)), 0);
    }
}
