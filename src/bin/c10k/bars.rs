//! A histogram in characters.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::units::grouped;

/// Rows at most, and the longest bar: with what is beside it, a line has 80 columns.
const ROWS_MAX: usize = 12;
const BAR_MAX: f64 = 34.0;

/// Where a row may begin, in tenths of a power of ten: preferred numbers, the finest first. The
/// last is enough from microseconds to hours.
const STEPS: [&[u64]; 5] = [
    &[10, 12, 16, 20, 25, 32, 40, 50, 63, 80],
    &[10, 16, 25, 40, 63],
    &[10, 20, 50],
    &[10, 30],
    &[10],
];

/// A row for each range of times, each range as many times the one before: their bounds, how many
/// samples are within, and a bar. Empty if there are none.
pub(crate) fn bars(nanos: &Histogram<u64>) -> String {
    let all = nanos.len() as f64;
    let rows = rows(nanos);
    let most = rows.iter().map(|row| row.count).max().unwrap_or(0) as f64;
    let mut text = String::new();
    for Row { from, to, count } in rows {
        let count = count as f64;
        // Where there is any, something is to be seen.
        let bar = "#".repeat((count / most * BAR_MAX).ceil() as usize);
        let line = format!(
            "{:>7} .. {:>7} {:>12} {:>7.3}%  {bar}",
            time(from),
            time(to),
            grouped(count),
            count / all * 100.0,
        );
        writeln!(text, "{}", line.trim_end()).expect("into a String");
    }
    text
}

#[derive(Debug, PartialEq)]
struct Row {
    /// The first time within, and the first after it.
    from: u64,
    to: u64,
    count: u64,
}

/// The rows with the finest steps with which they are few enough. An empty one is among them only
/// between others.
fn rows(nanos: &Histogram<u64>) -> Vec<Row> {
    if nanos.is_empty() {
        return Vec::new();
    }
    // A sample is told by the largest value of its bucket.
    let (low, high) = (nanos.highest_equivalent(nanos.min()), nanos.max());
    let fits = |steps: &&'static [u64]| {
        let within = bounds(steps).filter(|&at| at > low && at <= high);
        within.count() < ROWS_MAX
    };
    let steps = STEPS.into_iter().find(fits).unwrap_or(STEPS[STEPS.len() - 1]);
    let mut rows: Vec<_> = bounds(steps)
        .zip(bounds(steps).skip(1).chain([u64::MAX]))
        .map(|(from, to)| Row { from, to, count: 0 })
        .filter(|row| row.to > low && row.from <= high)
        .collect();
    for bucket in nanos.iter_recorded() {
        let value = bucket.value_iterated_to();
        let row = rows.iter_mut().rfind(|row| row.from <= value).expect("the first is below all");
        row.count += bucket.count_at_value();
    }
    rows
}

/// Zero, and all steps from ten nanoseconds to a hundred hours.
fn bounds(steps: &'static [u64]) -> impl Iterator<Item = u64> {
    let decades = (1..15).map(|power| 10_u64.pow(power));
    [0].into_iter().chain(decades.flat_map(|one| steps.iter().map(move |tenths| one * tenths / 10)))
}

/// A bound, which has two digits that are not zero.
fn time(nanos: u64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    match units.into_iter().find(|&(unit, _)| nanos >= unit) {
        Some((unit, name)) => format!("{} {name}", nanos as f64 / unit as f64),
        None => format!("{nanos} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[(u64, u64)]) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        for &(value, count) in values {
            histogram.record_n(value, count).unwrap();
        }
        histogram
    }

    #[test]
    fn they_are_as_long_as_there_are_many() {
        let text =
            bars(&histogram(&[(250_000, 500), (390_000, 1_000), (560_000, 10), (1_300_000, 1)]));
        let want = "
 250 us ..  320 us          500  33.091%  #################
 320 us ..  400 us        1,000  66.181%  ##################################
 400 us ..  500 us            0   0.000%
 500 us ..  630 us           10   0.662%  #
 630 us ..  800 us            0   0.000%
 800 us ..    1 ms            0   0.000%
   1 ms ..  1.2 ms            0   0.000%
 1.2 ms ..  1.6 ms            1   0.066%  #
";
        assert_eq!(text, want[1..]);
        assert_eq!(bars(&histogram(&[])), "");
    }

    #[test]
    fn they_fit_and_leave_nothing_out() {
        let hour = 3_600_000_000_000;
        for low in [0, 1, 9, 999, 1_000, 31_999, 270_000, 999_999_999] {
            for high in [low, low + 1, 2 * low, 9 * low, 1_000 * low + 1, hour, 20 * hour] {
                // More than ten decades are nothing to be measured.
                let high = high.min((low + 1) * 10_000_000_000);
                let all = histogram(&[(low, 1 << 30), (low.midpoint(high), 7), (high, 2)]);
                let rows = rows(&all);
                assert!((1..=ROWS_MAX).contains(&rows.len()), "{rows:?}");
                assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), all.len());
                assert!(rows.iter().all(|row| row.from < row.to), "{rows:?}");
                assert!(rows[0].count > 0 && rows[rows.len() - 1].count > 0, "{rows:?}");
                let text = bars(&all);
                assert!(
                    text.lines().all(|line| line.len() <= 80 && !line.ends_with(' ')),
                    "{text}"
                );
            }
        }
    }
}
