//! The axes of the charts. A chart is drawn in the axis's own measure, which may be a logarithm;
//! the ticks say what it stands for.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::load::micros;
use crate::units::grouped;

/// How far it reaches, and where it says what.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) range: Range<f64>,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) name: &'static str,
}

impl Axis {
    /// Logarithmic, with a tick at each count that was measured.
    pub(super) fn connections(counts: &[u64]) -> Axis {
        let tick = |count: &u64| (decades(*count), grouped(*count as f64));
        let ticks: Vec<_> = counts.iter().map(tick).collect();
        let (first, last) = (ticks[0].0, ticks[ticks.len() - 1].0);
        // One count alone has its place at the right, beside the names.
        let width = if first == last { 1.0 } else { last - first };
        let before = if first == last { width } else { width * 0.04 };
        Axis { range: first - before..last + width * 0.04, ticks, name: "connections" }
    }

    /// From zero, since a bar or a rate that does not start there deceives.
    pub(super) fn from_zero(most: f64, name: &'static str) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let ticks = (0..).map(|tick| f64::from(tick) * step);
        let ticks: Vec<_> = ticks.take_while(|tick| tick - step < most * 0.999).collect();
        let label = |tick: f64| match decimals {
            0 => grouped(tick),
            _ => format!("{tick:.decimals$}"),
        };
        let range = 0.0..ticks[ticks.len() - 1];
        Axis { range, ticks: ticks.into_iter().map(|tick| (tick, label(tick))).collect(), name }
    }

    /// Logarithmic: from 1, 2 or 5 of some decade to another, with those between or, if they are
    /// many, only the decades. The bounds are times in microseconds, above zero.
    pub(super) fn times(least_us: f64, most_us: f64, name: &'static str) -> Axis {
        let series = (-3..10).flat_map(|decade| [1.0, 2.0, 5.0].map(|of| of * 10f64.powi(decade)));
        let series: Vec<f64> = series.collect();
        let first = series.iter().rposition(|tick| *tick <= least_us).unwrap_or(0);
        let last = series.iter().position(|tick| *tick >= most_us).unwrap_or(series.len() - 1);
        // Where the least is the most, there is an axis nevertheless.
        let first = first.min(series.len() - 2);
        let inside = &series[first..=last.max(first + 1)];
        let only_decades = inside.len() > TIMES_MAX;
        let shown = |us: &&f64| !only_decades || us.log10().fract().abs() < 1e-9;
        let ticks = inside.iter().filter(shown).map(|us| (us.log10(), short_time(*us))).collect();
        let range = inside[0].log10()..inside[inside.len() - 1].log10();
        Axis { range, ticks, name }
    }

    /// So that each further nine takes as much room as the one before.
    pub(super) fn percentile(most: f64) -> Axis {
        let range = 0.0..most.max(nines(0.999)) + 0.1;
        let ticks =
            [(0.5, "50%"), (0.9, "90%"), (0.99, "99%"), (0.999, "99.9%"), (0.9999, "99.99%")];
        let ticks = ticks.map(|(quantile, label)| (nines(quantile), label.to_owned()));
        let ticks = ticks.into_iter().filter(|tick| range.contains(&tick.0)).collect();
        Axis { range, ticks, name: "of the requests" }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        start + (share * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|tick| tick.0).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *value);
        tick.map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// More times than these are too many for one axis.
const TIMES_MAX: usize = 9;

/// Where a count is on a logarithmic axis.
pub(super) fn decades(count: u64) -> f64 {
    (count.max(1) as f64).log10()
}

/// Where a quantile below 1 is on its axis: 0.9 at 1, 0.99 at 2.
pub(super) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// `100 µs`, `1 ms`, `0.5 µs`.
fn short_time(us: f64) -> String {
    match us < 1.0 {
        true => format!("{us} µs"),
        false => time(us).replace(".00 ", " ").replace(".0 ", " "),
    }
}

/// A time in microseconds, for people.
pub(super) fn time(us: f64) -> String {
    micros(us).replace("us", "µs")
}

/// 1, 2 or 5 of some decade, so that at most five are as much as `most`.
fn step(most: f64) -> f64 {
    let rough = most / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn a_rate_starts_at_zero_and_ends_above_the_most() {
        let cases: [(f64, &[&str]); 5] = [
            (181_026.0, &["0", "50,000", "100,000", "150,000", "200,000"]),
            (100.0, &["0", "20", "40", "60", "80", "100"]),
            (1.1, &["0.0", "0.5", "1.0", "1.5"]),
            (0.04, &["0.00", "0.01", "0.02", "0.03", "0.04"]),
            (0.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ];
        for (most, expected) in cases {
            let axis = Axis::from_zero(most, "");
            assert_eq!(labels(&axis), expected, "{most}");
            assert!(axis.range.start == 0.0 && axis.range.end >= most);
        }
    }

    #[test]
    fn times_have_an_axis_that_reaches_around_them() {
        let cases: [(f64, f64, &[&str]); 4] = [
            (350.0, 1.44e6, &["1 ms", "10 ms", "100 ms", "1 s"]),
            (6.5, 35.0, &["5 µs", "10 µs", "20 µs", "50 µs"]),
            (0.3, 1.0, &["0.2 µs", "0.5 µs", "1 µs"]),
            (1.0, 1.0, &["1 µs", "2 µs"]),
        ];
        for (least, most, expected) in cases {
            let axis = Axis::times(least, most, "");
            assert_eq!(labels(&axis), expected);
            assert!(axis.range.start <= least.log10() && axis.range.end >= most.log10());
        }
    }

    #[test]
    fn percentiles_reach_as_far_as_they_were_measured() {
        let most = |quantile| Axis::percentile(nines(quantile));
        assert_eq!(labels(&most(0.9)), ["50%", "90%", "99%", "99.9%"]);
        assert_eq!(labels(&most(0.9999)), ["50%", "90%", "99%", "99.9%", "99.99%"]);
    }

    #[test]
    fn one_count_of_connections_has_an_axis_too() {
        let axis = Axis::connections(&[100]);
        assert_eq!(labels(&axis), ["100"]);
        assert!(axis.range.start < decades(100) && axis.range.end > decades(100));
    }
}
