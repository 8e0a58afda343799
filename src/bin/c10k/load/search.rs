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

/// The rates between which it is.
#[derive(Debug, Default)]
struct Search {
    holds: Option<u64>,
    fails: Option<u64>,
}

impl Search {
    /// What to try next; `None` when it is found, or there is none.
    fn next(&self) -> Option<u64> {
        match (self.holds, self.fails) {
            (None, None) => Some(FIRST_RATE),
            (Some(holds), None) => holds.checked_mul(2),
            (None, Some(fails)) => Some(fails / 2).filter(|&rate| rate > 0),
            (Some(holds), Some(fails)) => {
                let between = holds + (fails - holds) / 2;
                let near = (fails - holds) as f64 <= NEAR * holds as f64;
                (!near && between > holds).then_some(between)
            }
        }
    }

    fn saw(&mut self, rate: u64, held: bool) {
        match held {
            true => self.holds = Some(rate),
            false => self.fails = Some(rate),
        }
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
    /// The highest rate that was tried and held.
    rate_per_s: Option<u64>,
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
    let trials = match plan.workers {
        None => {
            let mut load = Load::connect(plan, plan.share(0), watcher)?;
            try_rates(plan, condition, &mut see, |rate| {
                load.close_unanswered();
                load.exchange(Some(&Schedule::steady(rate, plan.duration)), watcher)
            })?
        }
        Some(_) => {
            let mut workers = Workers::connect(plan, watcher)?;
            try_rates(plan, condition, &mut see, |rate| workers.exchange(Some(rate), watcher))?
        }
    };
    let rate_per_s = trials.iter().filter(|trial| trial.held).map(|trial| trial.rate_per_s).max();
    let condition = condition.to_string();
    if let (false, Some(rate)) = (json, rate_per_s) {
        writeln!(stdout, "found        {} requests/s: {condition}", grouped(rate as f64))?;
    }
    let interrupted = interrupt::came();
    if let (false, Some(signal)) = (json, interrupted) {
        writeln!(stdout, "interrupted  by {signal}: the trial under way does not count")?;
    }
    if json {
        let found = Found { condition: condition.clone(), rate_per_s, trials, interrupted };
        writeln!(stdout, "{}", serde_json::to_string(&found)?)?;
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
) -> Result<Vec<Trial>, Failure> {
    let (mut search, mut trials) = (Search::default(), Vec::new());
    while let Some(rate) = search.next() {
        let measured = exchange(rate)?;
        if interrupt::came().is_some() {
            break;
        }
        super::check_connected(plan, &measured)?;
        let schedule = Some(Schedule::steady(rate, plan.duration));
        let plan = Plan { schedule, ..plan.clone() };
        let trial = Trial::of(rate, Report::of(&plan, measured), condition);
        search.saw(rate, trial.held);
        see(&trial)?;
        trials.push(trial);
    }
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, and after how many trials, if all rates up to `limit` hold.
    fn search(limit: u64) -> (Option<u64>, u32) {
        let (mut search, mut trials) = (Search::default(), 0);
        while let Some(rate) = search.next() {
            search.saw(rate, rate <= limit);
            trials += 1;
        }
        (search.holds, trials)
    }

    #[test]
    fn the_limit_is_found_to_within_a_twentieth() {
        for limit in [1, 2, 17, 999, 1_000, 1_001, 12_345, 1_000_000, 123_456_789] {
            let (found, trials) = search(limit);
            let found = found.unwrap();
            assert!(found <= limit && found as f64 * (1.0 + NEAR) >= limit as f64 - 1.0, "{limit}");
            assert!(trials < 30, "{limit}: {trials}");
        }
        assert_eq!(search(0).0, None);
    }
}
