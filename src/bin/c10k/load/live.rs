//! How a load goes, while it does: a line that is drawn again on a terminal, and lines once a
//! second where somebody asks for them. They have no colour.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::progress::{Progress, Stage};
use super::report::micros;
use crate::stdio::note;
use crate::units::grouped;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Live {
    view: View,
    connections: u64,
    began: Instant,
    rate: Rate,
}

#[derive(Debug)]
enum View {
    Nothing,
    /// Lines on standard error, the next one then.
    Lines(Duration),
    /// It is drawn when it is told something, with no thread of its own: with one, workers could
    /// not be forked. Dropped, it is gone from the terminal.
    Terminal(ProgressBar),
}

impl Live {
    /// Of a load of so many connections. On a terminal it is seen anyway.
    pub(super) fn new(connections: u64, as_lines: bool) -> Live {
        let view = match (std::io::stderr().is_terminal(), as_lines) {
            (true, _) => {
                let style = ProgressStyle::with_template("{msg}").expect("the template is right");
                let bar = ProgressBar::no_length().with_finish(ProgressFinish::AndClear);
                View::Terminal(bar.with_style(style))
            }
            (false, true) => View::Lines(SECOND),
            (false, false) => View::Nothing,
        };
        Live { view, connections, began: Instant::now(), rate: Rate::default() }
    }

    /// Is told how far the load has got.
    pub(super) fn see(&mut self, progress: &Progress) {
        if matches!(self.view, View::Nothing) {
            return;
        }
        let elapsed = self.began.elapsed();
        let rate = self.rate.at(elapsed, progress.replies);
        let line = || line(elapsed, self.connections, progress, rate);
        match &mut self.view {
            View::Terminal(bar) => bar.set_message(line()),
            View::Lines(next) if elapsed >= *next => {
                note(line());
                while *next <= elapsed {
                    *next += SECOND;
                }
            }
            View::Lines(_) | View::Nothing => {}
        }
    }

    /// Makes room for something else on the terminal.
    pub(super) fn hide(&self) {
        if let View::Terminal(bar) = &self.view {
            bar.set_message("");
        }
    }
}

fn line(elapsed: Duration, connections: u64, progress: &Progress, rate: f64) -> String {
    let count = |n: u64| grouped(n as f64);
    let mut parts = vec![match progress.stage {
        Stage::Exchanging => format!("{} connected", count(progress.connected)),
        _ => format!("{} of {} connected", count(progress.connected), count(connections)),
    }];
    if progress.replies > 0 {
        parts.push(format!("{}/s", grouped(rate)));
    }
    if let Some([p50, p99]) =
        progress.latency.map(|both| both.map(|nanos| micros(nanos as f64 / 1e3)))
    {
        parts.push(format!("p50 {p50}, p99 {p99}"));
    }
    parts.push(format!("{} failures", count(progress.failures)));
    format!("{:5.1} s  {}", elapsed.as_secs_f64(), parts.join(", "))
}

/// Replies in the last second.
#[derive(Debug, Default)]
struct Rate {
    /// When there were how many, the oldest first: those of a second, and one before.
    seen: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Replies a second, where there are so many in all by now.
    fn at(&mut self, now: Duration, replies: u64) -> f64 {
        self.seen.push_back((now, replies));
        while self.seen.get(1).is_some_and(|(then, _)| now - *then >= SECOND) {
            self.seen.pop_front();
        }
        let (then, before) = self.seen[0];
        let seconds = (now - then).as_secs_f64();
        if seconds > 0.0 { replies.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut rate = Rate::default();
        let tenths = |n: u32| n * SECOND / 10;
        assert_eq!(rate.at(SECOND, 0), 0.0);
        // A thousand a second, and after three seconds five times as many.
        for n in 1..=30 {
            assert_eq!(rate.at(SECOND + tenths(n), u64::from(n) * 100).round(), 1_000.0);
        }
        for n in 1..=30 {
            let now = rate.at(4 * SECOND + tenths(n), 3_000 + u64::from(n) * 500);
            assert_eq!(now.round(), f64::from(n.min(10) * 400 + 1_000));
            assert!(rate.seen.len() <= 11, "{}", rate.seen.len());
        }
        // After a pause, the mean since.
        assert_eq!(rate.at(17 * SECOND, 18_000), 0.0);
        assert_eq!(rate.at(17 * SECOND, 18_000), 0.0);
    }

    #[test]
    fn a_line_fits_and_has_what_is_known() {
        let progress = |stage, replies, latency| Progress {
            stage,
            connected: 9_990,
            not_connected: 10,
            answered: 0,
            replies,
            failures: 11,
            latency,
            seconds: Vec::new(),
        };
        let text = |stage, replies, latency| {
            line(3 * SECOND, 1_000_000, &progress(stage, replies, latency), 123_456.7)
        };
        assert_eq!(
            text(Stage::Connecting, 0, None),
            "  3.0 s  9,990 of 1,000,000 connected, 11 failures"
        );
        let longest = text(Stage::Exchanging, 1, Some([535_000, 12_300_000]));
        assert_eq!(
            longest,
            "  3.0 s  9,990 connected, 123,457/s, p50 535 us, p99 12.3 ms, 11 failures"
        );
        assert!(longest.len() < 80, "{longest}");
    }
}
