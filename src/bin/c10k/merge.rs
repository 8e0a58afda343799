//! `c10k merge`: what several runs have logged, as one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Failure;
use crate::bars::bars;
use crate::files::Files;
use crate::hdr::{self, Interval};
use crate::load::{Latency, micros};
use crate::stdio::stdout;

/// Merges what several runs of load have logged into one summary
///
/// Reads HdrHistogram logs, such as load --hdr writes: those of a load that is larger than one
/// machine, say. Percentiles are those of all samples together, not means of percentiles.
///
/// The rate is that of the time that the intervals cover together. Logs are put side by side by
/// the time of day in them, so the clocks of the machines should agree. Values are taken to be
/// nanoseconds; tags are ignored.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k merge a.hlog b.hlog c.hlog
  c10k merge a.hlog b.hlog --json
  c10k merge *.hlog --hdr merged/all.hlog")]
pub(crate) struct Args {
    /// The logs
    #[arg(value_name = "FILE", required = true)]
    logs: Vec<PathBuf>,
    /// Write the merged log to this file, which is none of the logs: an interval for each second
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result. The names of the JSON carry the units.
#[derive(Debug, Serialize)]
struct Summary {
    logs: usize,
    intervals: usize,
    /// When the first interval began, since 1970. `None` if a log does not tell the time of day:
    /// then all are taken to have begun together.
    start_time_s: Option<f64>,
    /// Time that is in at least one interval.
    measured_s: f64,
    requests: u64,
    requests_per_s: f64,
    latency_us: Latency,
}

/// Each log counts once, and what is written must not be an input of the next run of the same
/// command (`merge *.hlog --hdr all.hlog`).
fn check_files(args: &Args) -> Result<(), Failure> {
    let mut files = Files::default();
    for log in &args.logs {
        if let Some(first) = files.add(log) {
            let (first, log) = (first.display(), log.display());
            return Err(Failure::Cannot(match first.to_string() == log.to_string() {
                true => format!("{log} is named twice, and would count twice"),
                false => format!("{first} and {log} are the same file, and would count twice"),
            }));
        }
    }
    match args.hdr.as_deref().map(|out| (out, files.add(out))) {
        Some((out, Some(_))) => Err(Failure::Cannot(format!(
            "{} is one of the logs: write --hdr to a file that is not, such as merged/all.hlog",
            out.display()
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    check_files(&args)?;
    let logs = args.logs.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let count = logs.len();
    let intervals = side_by_side(logs);
    let latency = sum(&intervals)?;
    if let Some(path) = &args.hdr {
        let cannot = |error| Failure::Cannot(format!("{}: {error}", path.display()));
        let mut out = BufWriter::new(File::create(path).map_err(cannot)?);
        hdr::write(&by_second(&intervals)?, &mut out).and_then(|()| out.flush()).map_err(cannot)?;
    }
    let summary = Summary::of(count, &intervals, &latency);
    let mut stdout = stdout();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string(&summary)?)?,
        false => write!(stdout, "{}\n{}", text(&summary), bars(&latency))?,
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Interval>, Failure> {
    let name = path.display();
    let log = fs::read(path).map_err(|error| Failure::Cannot(format!("{name}: {error}")))?;
    match hdr::read(&log) {
        Ok(intervals) if intervals.is_empty() => {
            Err(Failure::Cannot(format!("{name}: there is no interval in it")))
        }
        Ok(intervals) => Ok(intervals),
        Err(hdr::Broken { line, what }) => Err(Failure::Cannot(format!("{name}:{line}: {what}"))),
    }
}

/// All intervals in the order of their starts. If one does not tell the time of day, there is no
/// telling how the logs lay to each other: then each counts from its own first.
fn side_by_side(mut logs: Vec<Vec<Interval>>) -> Vec<Interval> {
    if !logs.iter().flatten().all(Interval::is_dated) {
        for log in &mut logs {
            let first = log.iter().map(|interval| interval.start).min().unwrap_or_default();
            for interval in log {
                interval.start -= first;
            }
        }
    }
    let mut all: Vec<_> = logs.into_iter().flatten().collect();
    all.sort_by_key(|interval| interval.start);
    all
}

/// The samples of all intervals.
fn sum<'a>(intervals: impl IntoIterator<Item = &'a Interval>) -> Result<Histogram<u64>, Failure> {
    let mut all = Histogram::new(3)?;
    for interval in intervals {
        all.add(&interval.latency)?;
    }
    Ok(all)
}

/// How much time is in at least one of the intervals, which are in the order of their starts.
fn covered(intervals: &[Interval]) -> Duration {
    let (mut covered, mut until) = (Duration::ZERO, Duration::ZERO);
    for interval in intervals {
        covered += interval.end().saturating_sub(until.max(interval.start));
        until = until.max(interval.end());
    }
    covered
}

/// One interval for each second, counted from the first start, of those that began in it. It is
/// as long as the longest of them: an interval cannot be cut, so its end may be in the next second.
fn by_second(intervals: &[Interval]) -> Result<Vec<Interval>, Failure> {
    let first = intervals.first().map(|interval| interval.start).unwrap_or_default();
    let mut seconds: BTreeMap<u64, Vec<&Interval>> = BTreeMap::new();
    for interval in intervals {
        seconds.entry((interval.start - first).as_secs()).or_default().push(interval);
    }
    let merged = seconds.into_iter().map(|(second, together)| {
        Ok(Interval {
            start: first + Duration::from_secs(second),
            length: together.iter().map(|interval| interval.length).max().unwrap_or_default(),
            latency: sum(together)?,
        })
    });
    merged.collect()
}

impl Summary {
    fn of(logs: usize, intervals: &[Interval], latency: &Histogram<u64>) -> Summary {
        let covered = covered(intervals).as_secs_f64();
        let requests = latency.len();
        let first = intervals.first().filter(|first| first.is_dated());
        Summary {
            logs,
            intervals: intervals.len(),
            start_time_s: first.map(|first| first.start.as_secs_f64()),
            measured_s: covered,
            requests,
            requests_per_s: if covered > 0.0 { requests as f64 / covered } else { 0.0 },
            latency_us: Latency::of(latency),
        }
    }
}

fn text(summary: &Summary) -> String {
    let began = match summary.start_time_s {
        Some(start) => {
            let time = UNIX_EPOCH + Duration::from_secs_f64(start);
            format!("from {}", humantime::format_rfc3339_seconds(time))
        }
        None => "taken to have begun together".to_owned(),
    };
    let &Summary { logs, intervals, requests, measured_s, requests_per_s, .. } = summary;
    let Latency { p50, p90, p99, p99_9, max, .. } = summary.latency_us;
    let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(micros);
    format!(
        "logs         {logs} with {intervals} intervals, {began}\n\
         requests     {requests} in {measured_s:.2} s\n\
         rate         {requests_per_s:.0} requests/s\n\
         latency      p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start_ms: u64, length_ms: u64, values: &[u64]) -> Interval {
        let mut latency = Histogram::new(3).unwrap();
        for &value in values {
            latency.record(value).unwrap();
        }
        let [start, length] = [start_ms, length_ms].map(Duration::from_millis);
        Interval { start, length, latency }
    }

    const TODAY: u64 = 1_700_000_000_000;

    #[test]
    fn time_in_two_intervals_counts_once() {
        for (intervals, ms) in [
            (&[(0, 1_000)][..], 1_000),
            (&[(0, 1_000), (1_000, 500)], 1_500),
            (&[(0, 1_000), (0, 1_000), (400, 1_000)], 1_400),
            (&[(0, 5_000), (1_000, 1_000), (7_000, 1_000)], 6_000),
        ] {
            for offset in [0, TODAY] {
                let intervals: Vec<_> =
                    intervals.iter().map(|&(at, long)| interval(offset + at, long, &[])).collect();
                assert_eq!(covered(&intervals), Duration::from_millis(ms), "{intervals:?}");
            }
        }
    }

    #[test]
    fn logs_are_put_side_by_side_by_the_time_of_day() {
        let a = vec![interval(TODAY, 1_000, &[1]), interval(TODAY + 1_000, 1_000, &[2])];
        let b = vec![interval(TODAY + 1_700, 1_000, &[3]), interval(TODAY + 2_700, 300, &[4])];
        let all = side_by_side(vec![b.clone(), a.clone()]);
        assert_eq!(all, [a[0].clone(), a[1].clone(), b[0].clone(), b[1].clone()]);
        let merged = by_second(&all).unwrap();
        assert_eq!(
            merged,
            [
                a[0].clone(),
                interval(TODAY + 1_000, 1_000, &[2, 3]),
                interval(TODAY + 2_000, 300, &[4]),
            ]
        );
        // One that does not tell it.
        let undated = vec![interval(9_000, 1_000, &[5])];
        let all = side_by_side(vec![a, undated]);
        let merged = by_second(&all).unwrap();
        assert_eq!(merged, [interval(0, 1_000, &[1, 5]), interval(1_000, 1_000, &[2])]);
    }
}
