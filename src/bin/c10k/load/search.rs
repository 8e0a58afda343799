//! The highest rate at which a condition holds.

use std::io::{self, Write};

use serde::Serialize;

use super::engine::Load;
use super::measured::Measured;
use super::plan::Plan;
use super::progress::Watcher;
use super::report::{Failures, Latency, Report, micros};
use super::schedule::Schedule;
use super::threshold::Condition;
use super::workers::Workers;
use crate::stdio::stdout;
use crate::units::grouped;
use crate::{Failure, interrupt};

/// What is tried first, in requests a second.
pub(super) const FIRST_RATE: u64 = 1_000;

/// How near to each other the rate that holds and the one that does not are to be, at the end.
const NEAR: f64 = 0.05;

/// How often a rate that failed may hold after all. Where that goes on, the machine is at other
/// work, and the search has to end.
const REOPENED_MAX: u32 = 3;

/// A search in which no noisy trial decides, nor a noisy second. A rate fails when two trials in a
/// row have failed; and at the end both the lowest that failed and then the highest that held are
/// tried once more.
#[derive(Debug, Default)]
struct Search {
    /// The rates that held, rising. All are below those that failed.
    held: Vec<u64>,
    /// The rates that failed, falling.
    failed: Vec<u64>,
    /// The last trial failed, and its rate has another.
    doubtful: Option<u64>,
    /// The last of those that held has held once more, and the last of those that failed has
    /// failed once more.
    held_again: bool,
    failed_again: bool,
    reopened: u32,
}

impl Search {
    /// What to try next; `None` when it is found, or there is none.
    fn next(&self) -> Option<u64> {
        let (held, failed) = (self.held.last().copied(), self.failed.last().copied());
        let further = match (held, failed) {
            _ if self.doubtful.is_some() => self.doubtful,
            (None, None) => Some(FIRST_RATE),
            (Some(held), None) => held.checked_mul(2),
            (None, Some(failed)) => return Some(failed / 2).filter(|&rate| rate > 0),
            (Some(held), Some(failed)) => {
                let between = held + (failed - held) / 2;
                let near = (failed - held) as f64 <= NEAR * held as f64;
                (!near && between > held).then_some(between)
            }
        };
        further
            .or(failed.filter(|_| !self.failed_again && self.reopened < REOPENED_MAX))
            .or(held.filter(|_| !self.held_again))
    }

    fn saw(&mut self, rate: u64, held: bool) {
        let again = self.doubtful.take().is_some();
        let failed_before = self.failed.last() == Some(&rate);
        match held {
            true if self.held.last() == Some(&rate) => self.held_again = true,
            true => {
                if failed_before {
                    self.failed.pop();
                    self.failed_again = false;
                    self.reopened += 1;
                }
                self.held.push(rate);
                self.held_again = false;
            }
            false if failed_before => self.failed_again = true,
            false if again => {
                self.failed.push(rate);
                self.failed_again = false;
                self.held.retain(|&lower| lower < rate);
            }
            false => self.doubtful = Some(rate),
        }
    }

    /// The result for people; `None` if no rate held.
    fn line(&self, condition: &str) -> Option<String> {
        let number = |rate: u64| grouped(rate as f64);
        let held = number(*self.held.last()?);
        let failed = match self.failed.last() {
            Some(&failed) => format!("fails at {}", number(failed)),
            None => "did not fail".to_owned(),
        };
        let how = if self.held_again { "" } else { ", not confirmed" };
        Some(format!("found        {held} requests/s: {condition} ({failed}{how})"))
    }
}

/// What came of one rate.
#[derive(Debug, Serialize)]
struct Trial {
    rate_per_s: u64,
    requests_per_s: f64,
    latency_us: Latency,
    service_us: Latency,
    load_cpu_busy: f64,
    server_cpu_busy: Option<f64>,
    failures: Failures,
    verdict: String,
    held: bool,
    /// What did not hold, if it did not.
    why: Option<String>,
}

impl Trial {
    fn of(rate: u64, report: Report, condition: &Condition) -> Trial {
        let why = match report.verdict() {
            // Nothing takes no time at all.
            _ if report.requests == 0 => Some("nothing was answered".to_owned()),
            _ if !condition.holds(&report) => Some(condition.found(&report)),
            Err(Failure::Found(why) | Failure::Cannot(why)) => Some(why),
            Ok(()) | Err(Failure::Interrupted(_)) => None,
        };
        Trial {
            rate_per_s: rate,
            requests_per_s: report.requests_per_s,
            latency_us: report.latency_us,
            service_us: report.service_us,
            load_cpu_busy: report.load_cpu_busy,
            server_cpu_busy: report.server_cpu_busy,
            failures: report.failures,
            verdict: report.verdict,
            held: why.is_none(),
            why,
        }
    }

    fn line(&self) -> String {
        let [rate, reached] = [self.rate_per_s as f64, self.requests_per_s].map(grouped);
        let [p50, p99] = [self.latency_us.p50, self.latency_us.p99].map(micros);
        let held = match &self.why {
            None => "holds".to_owned(),
            Some(why) => format!("does not hold: {why}"),
        };
        format!("trial        {rate} requests/s: {reached}, p50 {p50}, p99 {p99}: {held}")
    }
}

/// The result. The names of the JSON carry the units.
#[derive(Debug, Serialize)]
struct Found {
    condition: String,
    /// The highest rate that held, and the lowest that failed: the limit is between them.
    rate_per_s: Option<u64>,
    failed_per_s: Option<u64>,
    /// It held in a trial of its own when all others were over.
    confirmed: bool,
    trials: Vec<Trial>,
    /// The signal that ended the search, and the trial under way with it.
    interrupted: Option<&'static str>,
}

/// Searches on the connections of one load, which stay open from trial to trial, and prints each
/// one and what was found.
pub(super) fn run(
    plan: &Plan,
    condition: &Condition,
    json: bool,
    watcher: &mut Watcher<'_>,
) -> Result<(), Failure> {
    super::check_limits(plan)?;
    let mut stdout = stdout();
    let mut see = |trial: &Trial| match json {
        true => Ok(()),
        false => writeln!(stdout, "{}", trial.line()),
    };
    let (search, trials) = match plan.workers {
        None => {
            let mut load = Load::connect(plan, plan.share(0), watcher)?;
            try_rates(plan, condition, &mut see, |rate| {
                load.renew()?;
                load.exchange(Some(&Schedule::steady(rate, plan.duration)), watcher)
            })?
        }
        Some(_) => {
            let mut workers = Workers::connect(plan, watcher)?;
            try_rates(plan, condition, &mut see, |rate| workers.exchange(Some(rate), watcher))?
        }
    };
    let (rate_per_s, interrupted) = (search.held.last().copied(), interrupt::came());
    let condition = condition.to_string();
    if json {
        let found = Found {
            condition: condition.clone(),
            rate_per_s,
            failed_per_s: search.failed.last().copied(),
            confirmed: search.held_again,
            trials,
            interrupted,
        };
        writeln!(stdout, "{}", serde_json::to_string(&found)?)?;
    } else {
        if let Some(line) = search.line(&condition) {
            writeln!(stdout, "{line}")?;
        }
        if let Some(signal) = interrupted {
            writeln!(stdout, "interrupted  by {signal}: the trial under way does not count")?;
        }
    }
    interrupt::check()?;
    match rate_per_s {
        Some(_) => Ok(()),
        None => Err(Failure::Found(format!("no rate was found at which {condition}"))),
    }
}

fn try_rates(
    plan: &Plan,
    condition: &Condition,
    see: &mut dyn FnMut(&Trial) -> io::Result<()>,
    mut exchange: impl FnMut(u64) -> Result<Measured, Failure>,
) -> Result<(Search, Vec<Trial>), Failure> {
    let (mut search, mut trials) = (Search::default(), Vec::new());
    while let Some(rate) = search.next() {
        let measured = exchange(rate)?;
        if interrupt::came().is_some() {
            break;
        }
        super::check_connected(plan, &measured)?;
        let schedule = Some(Schedule::steady(rate, plan.duration));
        let plan = Plan { schedule, ..plan.clone() };
        let unasked = measured.unasked > 0;
        let report = Report::of(&plan, measured);
        if unasked {
            // No rate would make it right.
            return Err(Failure::Found(report.verdict));
        }
        let trial = Trial::of(rate, report, condition);
        search.saw(rate, trial.held);
        see(&trial)?;
        trials.push(trial);
    }
    Ok((search, trials))
}

#[cfg(test)]
mod tests {
    use std::mem;

    use super::*;

    /// What is found, and after how many trials, if this says whether a rate holds.
    fn search(mut holds: impl FnMut(u64) -> bool) -> (Search, u32) {
        let (mut search, mut trials) = (Search::default(), 0);
        while let Some(rate) = search.next() {
            search.saw(rate, holds(rate));
            trials += 1;
        }
        (search, trials)
    }

    /// It is a bracket around the limit, and a narrow one.
    #[track_caller]
    fn assert_found(search: &Search, limit: u64) {
        let (found, failed) = (*search.held.last().unwrap(), *search.failed.last().unwrap());
        assert!(found <= limit && limit < failed && search.held_again, "{limit}: {search:?}");
        assert!(found as f64 * (1.0 + NEAR) >= limit as f64 - 1.0, "{limit}: {search:?}");
    }

    #[test]
    fn the_limit_is_found_to_within_a_twentieth() {
        for limit in [1, 2, 17, 999, 1_000, 1_001, 12_345, 1_000_000, 123_456_789] {
            let (search, trials) = search(|rate| rate <= limit);
            assert_found(&search, limit);
            assert!(trials < 40, "{limit}: {trials}");
        }
        let (search, trials) = search(|_| false);
        assert_eq!((search.held.len(), search.failed.last(), trials), (0, Some(&1), 20));
    }

    #[test]
    fn noisy_trials_do_not_decide() {
        // One, or two in a row, that fail though their rate would hold, wherever they come.
        for in_a_row in [1, 2] {
            for noisy in 0..20 {
                let (limit, mut number) = (20_000, 0..);
                let quiet = |number: i32| !(noisy..noisy + in_a_row).contains(&number);
                let (search, _) = search(|rate| rate <= limit && quiet(number.next().unwrap()));
                // At the very end there is nothing to tell them from a rate that fails.
                if in_a_row == 1 || search.failed.last() > Some(&limit) {
                    assert_found(&search, limit);
                }
            }
        }
    }

    #[test]
    fn a_rate_that_failed_twice_is_tried_again() {
        // The machine was busy at first.
        let mut number = 0..;
        let (search, _) = search(|rate| number.next().unwrap() >= 4 && rate <= 20_000);
        assert_found(&search, 20_000);
        assert_eq!(search.reopened, 2);
    }

    #[test]
    fn a_machine_that_changes_its_mind_ends_the_search() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1_000 {
            let (_, trials) = search(|rate| rate < 1_000_000_000 && random.bool());
            assert!(trials < 400, "{trials}");
        }
    }

    /// A trial may hold by chance, at a rate that is too high.
    #[test]
    fn what_held_once_is_tried_again() {
        let mut lucky = true;
        let (search, _) = search(|rate| rate <= 10_000 || (rate > 15_000 && mem::take(&mut lucky)));
        assert_found(&search, 10_000);
    }

    #[test]
    fn the_result_is_a_bracket() {
        let line = |held: &[u64], failed: &[u64], held_again| {
            let (held, failed) = (held.to_vec(), failed.to_vec());
            Search { held, failed, held_again, ..Search::default() }.line("p99<5ms")
        };
        assert_eq!(line(&[], &[1], false), None);
        assert_eq!(
            line(&[8_000, 11_000], &[16_000, 11_500], true).unwrap(),
            "found        11,000 requests/s: p99<5ms (fails at 11,500)"
        );
        assert_eq!(
            line(&[8_000], &[], false).unwrap(),
            "found        8,000 requests/s: p99<5ms (did not fail, not confirmed)"
        );
    }
}
