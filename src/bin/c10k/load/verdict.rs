//! Whether a load says something about the server, or about who made it.

use crate::units::grouped;

/// A CPU that is busier than this is what limits the process on it.
const BUSY: f64 = 0.9;
/// Of the requests that were due, so many must be answered within the measured time.
const REACHED: f64 = 0.98;
/// How far the number of requests under way may be from what their rate and times come to.
const LITTLE: f64 = 0.1;
/// In milliseconds: later than it takes to be woken, many times over.
const SENT_LATE_MS: f64 = 1.0;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    /// Of the CPUs that the load generator could use, one for each process.
    pub(super) load_cpu_busy: f64,
    /// In CPUs, if the server's process is known.
    pub(super) server_cpu_busy: Option<f64>,
    pub(super) measured_s: f64,
    /// How long was to be measured, if that was all that was to end it.
    pub(super) planned_s: Option<f64>,
    /// Replies within the measured time.
    pub(super) requests: u64,
    pub(super) unasked: Option<Unasked>,
    /// Requests that were due within it, in an open loop.
    pub(super) due: Option<u64>,
    /// Requests that were sent and not answered, in the mean over the measured time.
    pub(super) in_flight_mean: f64,
    pub(super) service_mean_us: f64,
    pub(super) latency_mean_us: f64,
    /// The most requests that were due and not answered in the first half of an open loop, and
    /// at its end.
    pub(super) backlog_first_half: u64,
    pub(super) backlog_end: u64,
    /// As many are due at the end as at the start.
    pub(super) steady: bool,
    /// There is no limit to the requests under way: whatever was sent late was so for want of time.
    pub(super) unlimited: bool,
}

/// Replies that no request had asked for, all replies, and all requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unasked {
    pub(super) unasked: u64,
    pub(super) replies: u64,
    pub(super) requests: u64,
}

/// What makes the result invalid, and what may make it less than it seems.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) invalid: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Verdict {
    pub(super) fn of(seen: &Evidence) -> Verdict {
        let mut verdict = Verdict::default();
        if let Some(why) = seen.unasked() {
            // All else would follow from it.
            verdict.invalid.push(why);
            return verdict;
        }
        verdict.invalid.extend(seen.nothing());
        verdict.invalid.extend(seen.bottleneck());
        verdict.invalid.extend(seen.short_of_rate());
        verdict.invalid.extend(seen.backlog());
        verdict.invalid.extend(seen.cut_short());
        verdict.warnings.extend(seen.little());
        verdict.warnings.extend(seen.sent_late());
        verdict
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        match self.invalid.is_empty() {
            true => "valid".to_owned(),
            false => format!("INVALID: {}", self.invalid.join("; ")),
        }
    }
}

impl Evidence {
    fn unasked(&self) -> Option<String> {
        let Unasked { unasked, replies, requests } = self.unasked?;
        let [unasked, replies, requests] = [unasked, replies, requests].map(|n| grouped(n as f64));
        Some(format!(
            "{unasked} of {replies} replies answered none of the {requests} requests, and the load \
             was ended: each --delimiter ends a reply, so ask for replies of one line, or name a \
             byte that each has once"
        ))
    }

    fn nothing(&self) -> Option<String> {
        (self.requests == 0).then(|| "no request was answered".to_owned())
    }

    fn bottleneck(&self) -> Option<String> {
        if self.load_cpu_busy <= BUSY || self.server_cpu_busy.is_some_and(|busy| busy >= BUSY) {
            return None;
        }
        let percent = |share: f64| format!("{:.0}%", share * 100.0);
        let server = match self.server_cpu_busy {
            Some(busy) => format!("the server only {}", percent(busy)),
            None => "what the server used is not known (--server-pid)".to_owned(),
        };
        let own = percent(self.load_cpu_busy);
        Some(format!("the load generator used {own} of its CPU, and {server}: try --workers"))
    }

    fn short_of_rate(&self) -> Option<String> {
        let due = self.due.filter(|&due| (self.requests as f64) < due as f64 * REACHED)?;
        let [reached, due] = [self.requests, due].map(|n| grouped(n as f64 / self.measured_s));
        Some(format!("{due} requests/s were due, and {reached} were answered"))
    }

    fn backlog(&self) -> Option<String> {
        let normal = self.backlog_first_half;
        let more = self.backlog_end > normal + normal / 2 + 10;
        (self.due.is_some() && self.steady && more).then(|| {
            format!(
                "{} requests were waiting at the end, {normal} at most in the first half: the \
                 server does not keep up",
                self.backlog_end
            )
        })
    }

    fn cut_short(&self) -> Option<String> {
        let planned = self.planned_s.filter(|planned| self.measured_s < planned * REACHED)?;
        let measured = self.measured_s;
        Some(format!("it ended after {measured:.1} s of {planned:.1}: no connection was left"))
    }

    /// Little's law: under way are as many as come in the time that each takes.
    fn little(&self) -> Option<String> {
        let rate = self.requests as f64 / self.measured_s;
        let expected = rate * self.service_mean_us / 1e6;
        let seen = self.in_flight_mean;
        // A few more or fewer at the ends of the measured time are none of its business.
        let apart = (seen - expected).abs() > LITTLE * expected.max(seen);
        let enough = (seen - expected).abs() * self.measured_s > 1.0 && self.requests >= 100;
        (apart && enough).then(|| {
            format!(
                "{seen:.1} requests were under way in the mean, and rate x service time is \
                 {expected:.1}: some were not answered, or the time was too short"
            )
        })
    }

    fn sent_late(&self) -> Option<String> {
        let late_ms = (self.latency_mean_us - self.service_mean_us) / 1e3;
        (self.unlimited && late_ms > SENT_LATE_MS).then(|| {
            format!("requests were sent {late_ms:.1} ms late in the mean: latency has that in it")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand a second for ten seconds, each answered after two milliseconds.
    const GOOD: Evidence = Evidence {
        load_cpu_busy: 0.3,
        server_cpu_busy: None,
        measured_s: 10.0,
        planned_s: Some(10.0),
        requests: 9_999,
        unasked: None,
        due: Some(10_000),
        in_flight_mean: 2.0,
        service_mean_us: 2_000.0,
        latency_mean_us: 2_900.0,
        backlog_first_half: 10,
        backlog_end: 3,
        steady: true,
        unlimited: true,
    };

    /// Three lines came for one request.
    const THREE: Unasked = Unasked { unasked: 2, replies: 3, requests: 1 };

    #[test]
    fn nothing_is_wrong_with_a_good_one() {
        let verdict = Verdict::of(&GOOD);
        assert_eq!((verdict.line().as_str(), verdict.warnings.len()), ("valid", 0));
        // A closed loop is due nothing.
        let verdict = Verdict::of(&Evidence { due: None, backlog_end: 5_000, ..GOOD });
        assert_eq!(verdict.line(), "valid");
        // Both are busy: then it is the server that counts.
        let busy = Evidence { load_cpu_busy: 0.95, server_cpu_busy: Some(1.0), ..GOOD };
        assert_eq!(Verdict::of(&busy).line(), "valid");
    }

    #[test]
    fn each_fault_is_told() {
        for (seen, what) in [
            (Evidence { load_cpu_busy: 0.95, ..GOOD }, "is not known"),
            (Evidence { load_cpu_busy: 0.95, server_cpu_busy: Some(0.5), ..GOOD }, "only 50%"),
            (Evidence { requests: 9_700, ..GOOD }, "1,000 requests/s were due, and 970 were"),
            (
                Evidence { measured_s: 4.0, requests: 3_999, due: None, ..GOOD },
                "after 4.0 s of 10.0",
            ),
            (Evidence { unasked: Some(THREE), ..GOOD }, "2 of 3 replies answered none of the 1"),
            (Evidence { backlog_end: 40, ..GOOD }, "40 requests were waiting at the end, 10 at"),
        ] {
            let line = Verdict::of(&seen).line();
            assert!(line.starts_with("INVALID: ") && line.contains(what), "{line}");
        }
        for (seen, what) in [
            (Evidence { in_flight_mean: 4.0, ..GOOD }, "4.0 requests were under way"),
            (Evidence { latency_mean_us: 9_000.0, ..GOOD }, "7.0 ms late"),
        ] {
            let verdict = Verdict::of(&seen);
            assert_eq!((verdict.line().as_str(), verdict.warnings.len()), ("valid", 1));
            assert!(verdict.warnings[0].contains(what), "{:?}", verdict.warnings);
        }
        // With more due at the end than before, more may be waiting.
        let line = Evidence { backlog_end: 40, steady: false, ..GOOD };
        assert_eq!(Verdict::of(&line).line(), "valid");
    }
}
