//! How many requests are due in a second, as time goes on: steps and lines.

use std::str::FromStr;
use std::time::Duration;

use crate::units;

/// A stretch of time in which the rate is the same or changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// Requests in a second, at its start and at its end.
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) duration: Duration,
}

impl Step {
    /// How many requests are due in it.
    pub(crate) fn requests(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.duration.as_secs_f64()
    }

    /// Seconds from its start to when so many requests were due, which are no more than all.
    fn reaches(&self, requests: f64) -> f64 {
        // from * t + slope / 2 * t^2 = requests, solved so that no slope, or none at the start,
        // is nothing special.
        let slope = (self.to - self.from) / self.duration.as_secs_f64();
        let root = (self.from * self.from + 2.0 * slope * requests).max(0.0).sqrt();
        if requests <= 0.0 { 0.0 } else { 2.0 * requests / (self.from + root) }
    }
}

/// Steps that follow each other without a break.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule(pub(crate) Vec<Step>);

impl Schedule {
    /// The same rate all the time.
    pub(crate) fn steady(rate: u64, duration: Duration) -> Schedule {
        Schedule(vec![Step { from: rate as f64, to: rate as f64, duration }])
    }

    pub(crate) fn duration(&self) -> Duration {
        self.0.iter().map(|step| step.duration).sum()
    }

    /// Whether the rate never changes.
    pub(crate) fn is_steady(&self) -> bool {
        let rates = self.0.iter().flat_map(|step| [step.from, step.to]);
        rates.clone().all(|rate| Some(rate) == rates.clone().next())
    }

    /// How many requests are due in all of it.
    pub(crate) fn requests(&self) -> f64 {
        self.0.iter().map(Step::requests).sum()
    }

    /// How long after its start so many requests were due; `None` if that is never.
    pub(crate) fn reaches(&self, mut requests: f64) -> Option<Duration> {
        let mut before = Duration::ZERO;
        for step in &self.0 {
            if requests < step.requests() {
                return Some(before + Duration::from_secs_f64(step.reaches(requests)));
            }
            requests -= step.requests();
            before += step.duration;
        }
        None
    }

    /// The same with something before it: a line from nothing, and then its first rate.
    pub(crate) fn after(&self, ramp: Duration, warmup: Duration) -> Schedule {
        let first = self.0.first().map_or(0.0, |step| step.from);
        let lead = [
            Step { from: 0.0, to: first, duration: ramp },
            Step { from: first, to: first, duration: warmup },
        ];
        let lead = lead.into_iter().filter(|step| !step.duration.is_zero());
        Schedule(lead.chain(self.0.iter().copied()).collect())
    }
}

/// What `--rate` is given: `1k`, or steps and lines with a duration each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rate(Vec<(f64, f64, Option<Duration>)>);

impl Rate {
    /// Whether it says for how long it is to last.
    pub(crate) fn has_durations(&self) -> bool {
        self.0.iter().any(|(.., own)| own.is_some())
    }

    /// What does not say for how long it is to last lasts for `duration`.
    pub(crate) fn schedule(&self, duration: Duration) -> Schedule {
        let step = |&(from, to, own): &(f64, f64, Option<Duration>)| Step {
            from,
            to,
            duration: own.unwrap_or(duration),
        };
        Schedule(self.0.iter().map(step).collect())
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        // In a single number a comma groups its digits.
        let parts: Vec<_> = match units::count(text) {
            Ok(_) => vec![text],
            Err(_) => text.split(',').map(str::trim).collect(),
        };
        let alone = parts.len() == 1;
        let part = |part: &&str| {
            let (rate, duration) = match part.split_once(':') {
                Some((rate, duration)) => (rate, Some(units::duration(duration)?)),
                None if alone => (*part, None),
                None => return Err(format!("'{part}' is one of several, and says not how long")),
            };
            let (from, to) = match rate.split_once("..") {
                Some((from, to)) => (units::rate(from)?, units::rate(to)?),
                None => (units::rate(rate)?, units::rate(rate)?),
            };
            match (from.max(to), duration) {
                (0, _) => Err("a rate of at least 1 is needed".to_owned()),
                (_, Some(Duration::ZERO)) => Err(format!("'{part}' lasts for no time")),
                _ => Ok((from as f64, to as f64, duration)),
            }
        };
        let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        units::check_sum(parts.iter().filter_map(|(_, _, duration)| *duration))?;
        Ok(Rate(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(text: &str) -> Schedule {
        text.parse::<Rate>().unwrap().schedule(10 * SECOND)
    }

    #[test]
    fn rates_steps_and_lines() {
        let step = |from, to, seconds| Step { from, to, duration: seconds * SECOND };
        assert_eq!(schedule("1k").0, [step(1000.0, 1000.0, 10)]);
        assert_eq!(schedule("1,000").0, [step(1000.0, 1000.0, 10)]);
        assert_eq!(schedule("1k:2s,5k:3s").0, [step(1e3, 1e3, 2), step(5e3, 5e3, 3)]);
        assert_eq!(schedule("0..10k:30s").0, [step(0.0, 1e4, 30)]);
        for bad in [
            "",
            "x",
            "0",
            "0..0:1s",
            "1k,2k",
            "1k:1s,2k",
            "1k:0s",
            "1..:1s",
            "-1",
            "1k:",
            "1:300000000000y",
            "1:20d,2:20d",
            "11M",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_request_has_its_time() {
        let steps = schedule("100:2s,300:1s");
        assert_eq!(steps.duration(), 3 * SECOND);
        assert_eq!(steps.requests(), 500.0);
        assert_eq!(steps.reaches(0.0), Some(Duration::ZERO));
        assert_eq!(steps.reaches(100.0), Some(SECOND));
        assert_eq!(steps.reaches(200.0), Some(2 * SECOND));
        assert_eq!(steps.reaches(350.0), Some(Duration::from_millis(2500)));
        assert_eq!(steps.reaches(500.0), None);
    }

    #[test]
    fn on_a_line_as_many_are_due_as_its_area() {
        for (text, all) in [("0..100:2s", 100), ("100..0:2s", 100), ("50..150:2s", 200)] {
            let line = schedule(text);
            let Step { from, to, .. } = line.0[0];
            let mut last = -1.0;
            for n in 0..all {
                let t = line.reaches(f64::from(n)).unwrap().as_secs_f64();
                let area = from * t + (to - from) / 4.0 * t * t;
                assert!((area - f64::from(n)).abs() < 1e-4, "{text}: {n} at {t}");
                assert!(t > last && t < 2.0, "{text}: {n} at {t}");
                last = t;
            }
            assert_eq!(line.reaches(f64::from(all)), None);
        }
    }

    #[test]
    fn what_comes_before_leads_up_to_it() {
        let led = schedule("100:1s").after(2 * SECOND, 3 * SECOND);
        assert_eq!((led.duration(), led.requests()), (6 * SECOND, 500.0));
        assert_eq!(led.reaches(100.0), Some(2 * SECOND));
        assert_eq!(schedule("100:1s").after(Duration::ZERO, Duration::ZERO), schedule("100:1s"));
    }
}
