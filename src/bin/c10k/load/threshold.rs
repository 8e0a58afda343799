//! Conditions on a result: `p99<5ms`, `errors>0`, `rps<10000`.

use std::fmt;
use std::str::FromStr;

use super::report::{Latency, Report, micros};
use crate::units::{self, grouped};

/// A figure of a report, what it is compared with, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    text: String,
    figure: Figure,
    compare: Compare,
    /// Microseconds for a time.
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compare {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Latency(Point),
    Service(Point),
    Errors,
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Point {
    Mean,
    P50,
    P90,
    P95,
    P99,
    P99_9,
    Max,
}

impl Point {
    fn of(self, times: &Latency) -> f64 {
        match self {
            Point::Mean => times.mean,
            Point::P50 => times.p50,
            Point::P90 => times.p90,
            Point::P95 => times.p95,
            Point::P99 => times.p99,
            Point::P99_9 => times.p99_9,
            Point::Max => times.max,
        }
    }
}

impl Figure {
    fn named(name: &str) -> Option<Figure> {
        let (make, point): (fn(Point) -> Figure, _) = match name.strip_prefix("service_") {
            Some(point) => (Figure::Service, point),
            None => (Figure::Latency, name),
        };
        Some(make(match point {
            "mean" => Point::Mean,
            "p50" => Point::P50,
            "p90" => Point::P90,
            "p95" => Point::P95,
            "p99" => Point::P99,
            "p99.9" | "p99_9" => Point::P99_9,
            "max" => Point::Max,
            _ if name == "errors" => return Some(Figure::Errors),
            _ if name == "rps" => return Some(Figure::Rate),
            _ => return None,
        }))
    }

    fn is_time(self) -> bool {
        matches!(self, Figure::Latency(_) | Figure::Service(_))
    }

    fn of(self, report: &Report) -> f64 {
        match self {
            Figure::Latency(point) => point.of(&report.latency_us),
            Figure::Service(point) => point.of(&report.service_us),
            Figure::Errors => report.failures.total() as f64,
            Figure::Rate => report.requests_per_s,
        }
    }
}

impl Condition {
    pub(crate) fn holds(&self, report: &Report) -> bool {
        let found = self.figure.of(report);
        match self.compare {
            Compare::Less => found < self.bound,
            Compare::LessOrEqual => found <= self.bound,
            Compare::More => found > self.bound,
            Compare::MoreOrEqual => found >= self.bound,
        }
    }

    /// Whether it is an upper bound on a time: what a higher rate makes fail sooner or later, and a
    /// lower one does not.
    pub(crate) fn is_upper_bound_on_time(&self) -> bool {
        self.figure.is_time() && matches!(self.compare, Compare::Less | Compare::LessOrEqual)
    }

    /// What was found, beside the condition.
    pub(crate) fn found(&self, report: &Report) -> String {
        if report.requests == 0 {
            return format!("{self}: nothing was measured");
        }
        let found = self.figure.of(report);
        let found = if self.figure.is_time() { micros(found) } else { grouped(found) };
        format!("{self}: it is {found}")
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let bad = || {
            format!(
                "'{text}' is not a condition such as p99>5ms, service_p99>1ms, errors>0 or \
                 rps<10k (mean, p50, p90, p95, p99, p99.9, max)"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(bad)?;
        let figure = Figure::named(text[..at].trim()).ok_or_else(bad)?;
        let (less, rest) = (text.as_bytes()[at] == b'<', &text[at + 1..]);
        let (compare, bound) = match (less, rest.strip_prefix('=')) {
            (true, None) => (Compare::Less, rest),
            (true, Some(rest)) => (Compare::LessOrEqual, rest),
            (false, None) => (Compare::More, rest),
            (false, Some(rest)) => (Compare::MoreOrEqual, rest),
        };
        let bound = bound.trim();
        let bound = match figure.is_time() {
            true => units::duration(bound).map_err(|_| bad())?.as_secs_f64() * 1e6,
            false => units::count(bound).map_err(|_| bad())? as f64,
        };
        Ok(Condition { text: text.to_owned(), figure, compare, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::measured::Measured;
    use crate::load::plan::tests::plan;
    use crate::load::report::Failures;

    fn report() -> Report {
        let report = Report::of(&plan(&["127.0.0.1:1"], 1), Measured::default());
        Report {
            requests: 9_000,
            requests_per_s: 9_000.0,
            latency_us: Latency { p99: 5_000.0, p99_9: 7_000.0, ..Latency::default() },
            service_us: Latency { p99: 800.0, ..Latency::default() },
            failures: Failures { lost: 1, late: 2, ..Failures::default() },
            ..report
        }
    }

    #[test]
    fn conditions_hold_or_do_not() {
        for (text, holds) in [
            ("p99>5ms", false),
            ("p99>=5ms", true),
            ("p99 <= 5ms", true),
            ("p99<5ms", false),
            ("p99.9>6ms", true),
            ("p99_9>1s", false),
            ("service_p99<1ms", true),
            ("errors>0", true),
            ("errors>3", false),
            ("rps<10k", true),
            ("rps<9,000", false),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().holds(&report()), holds, "{text}");
        }
        let found = |text: &str| text.parse::<Condition>().unwrap().found(&report());
        assert_eq!(found("p99>4ms"), "p99>4ms: it is 5.0 ms");
        assert_eq!(found("errors>0"), "errors>0: it is 3");
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for bad in [
            "",
            "p99",
            "p99=5ms",
            "p99>5",
            "p98>5ms",
            "rps<5ms",
            "errors>",
            "service_rps<1",
            "<5ms",
        ] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
    }
}
