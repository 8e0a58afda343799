//! Whether a load says something about the server, or about who made it.

use super::report::{Latency, micros};
use crate::units::grouped;

/// The word for a result that says something about the server. Any other verdict is an exit status
/// of 1.
pub(super) const VALID: &str = "valid";

/// A CPU that is busier than this is what limits the process on it.
const BUSY: f64 = 0.9;
/// Of the requests that were due, so many must be answered.
const REACHED: f64 = 0.98;
/// How far the number of requests under way may be from what their rate and times come to.
const LITTLE: f64 = 0.1;
/// In microseconds: later than it takes to be woken, many times over; and later than one who is woken
/// waits for a busy CPU, which is a slice of 3 or 4 ms.
const LATE_US: f64 = 1e3;
const LATE_US_ONCE: f64 = 5e3;
/// In microseconds: longer than the CPU is somebody else's for a while.
const STALLED_US: f64 = 2e4;
/// The part of a percentile that makes it.
const MOST: f64 = 0.5;
/// With fewer requests, the 99th percentile is one or two of them.
const REQUESTS_WITH_TAIL: u64 = 100;
/// Parts of the measured time for which others had the CPUs, from where it is told.
const STOLEN: f64 = 0.01;
const PRESSURE: f64 = 0.2;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    /// Of the CPUs that the load generator could use, one for each process.
    pub(super) load_cpu_busy: f64,
    /// In CPUs, if the server's process is known.
    pub(super) server_cpu_busy: Option<f64>,
    /// Of the measured time: CPU time of the machine that its hypervisor took, and time for which
    /// some task waited for a CPU.
    pub(super) cpu_stolen: f64,
    pub(super) cpu_pressure: f64,
    /// The longest for which the load generator was not there when it was to wake.
    pub(super) stalled_us: f64,
    pub(super) measured_s: f64,
    /// How long was to be measured, unless something else was to end it and did.
    pub(super) planned_s: Option<f64>,
    /// Requests that were due in the measured time, and those of them that were answered ever.
    pub(super) due: u64,
    pub(super) requests: u64,
    pub(super) unasked: Option<Unasked>,
    /// Nobody waited for replies to the last of them.
    pub(super) interrupted: bool,
    /// Requests that were sent and not answered, in the mean over the measured time.
    pub(super) in_flight_mean: f64,
    pub(super) service_mean_us: f64,
    pub(super) latency: Tail,
    pub(super) open: Option<OpenLoop>,
}

/// What is looked at of an open loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenLoop {
    pub(super) send_delay: Tail,
    /// The most requests that were due and not answered in the first half, if as many are due at
    /// the end as at the start; and how many there were at the end.
    pub(super) backlog_first_half: Option<u64>,
    pub(super) backlog_end: u64,
    /// Requests in a second that were due at the end.
    pub(super) rate_end: f64,
    /// The shortest service time of all.
    pub(super) fastest_us: f64,
}

/// In microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Tail {
    pub(super) fn of(times: &Latency) -> Tail {
        Tail { mean: times.mean, p50: times.p50, p99: times.p99, max: times.max }
    }
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
        verdict.invalid.extend(seen.unanswered());
        verdict.invalid.extend(seen.backlog());
        verdict.invalid.extend(seen.cut_short());
        match seen.sent_late() {
            Some((why, true)) => verdict.invalid.push(why),
            Some((why, false)) => verdict.warnings.push(why),
            None => {}
        }
        verdict.warnings.extend(seen.stalled());
        verdict.warnings.extend(seen.bottleneck());
        verdict.warnings.extend(seen.little());
        verdict.warnings.extend(seen.others());
        verdict
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        match self.invalid.is_empty() {
            true => VALID.to_owned(),
            false => format!("INVALID: {}", self.invalid.join("; ")),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
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
        match (self.requests, self.due) {
            (0, 0) => Some("no request was due in the measured time".to_owned()),
            (0, _) => Some("no request was answered".to_owned()),
            _ => None,
        }
    }

    fn unanswered(&self) -> Option<String> {
        let (due, answered) = (self.due as f64, self.requests as f64);
        let few = answered < due * REACHED && self.open.is_some() && !self.interrupted;
        (few && self.requests > 0).then(|| {
            format!("{} requests were due, and {} were answered", grouped(due), grouped(answered))
        })
    }

    /// A server that keeps up has as many requests under way at the end as before, or no more than
    /// are due in the time that the fastest of its replies took: it may be slow, and still keep up.
    fn backlog(&self) -> Option<String> {
        let open = self.open?;
        let in_time = open.rate_end * open.fastest_us / 1e6;
        let (normal, before) = match open.backlog_first_half {
            Some(most) => (in_time.max(most as f64), format!(", {most} at most in the first half")),
            // At another rate there were others. As many may wait as may be lost.
            None => (in_time + (1.0 - REACHED) * self.due as f64, String::new()),
        };
        let end = open.backlog_end;
        (end as f64 > normal * 1.5 + 10.0).then(|| {
            format!("{end} requests were waiting at the end{before}: the server does not keep up")
        })
    }

    fn cut_short(&self) -> Option<String> {
        let planned = self.planned_s.filter(|planned| self.measured_s < planned * REACHED)?;
        let measured = self.measured_s;
        Some(format!("it ended after {measured:.1} s of {planned:.1}: no connection was left"))
    }

    /// What is due when the load generator has no CPU, or was stopped, is sent later, and the server
    /// is not to blame for it. Where that makes most of the median or of the 99th percentile, the
    /// figures are the load generator's own, and the result is invalid. It is only told with fewer
    /// than a hundred requests, if it makes the largest latency alone, or if the slowest hundredth
    /// waited for no longer than one does on a busy machine. Returns why, and whether it is invalid.
    fn sent_late(&self) -> Option<(String, bool)> {
        let late = self.open.filter(|_| self.requests > 0)?.send_delay;
        let latency = self.latency;
        let makes = |late: f64, latency: f64, least: f64| late > least && late > MOST * latency;
        let of = [("p50", late.p50, latency.p50), ("p99", late.p99, latency.p99)];
        let most = [("max", late.max, latency.max), ("mean", late.mean, latency.mean)];
        let told = of.into_iter().chain(most).find(|&(_, late, of)| makes(late, of, LATE_US));
        let (name, _, latency) = told?;
        let [mean, p99, max, latency] = [late.mean, late.p99, late.max, latency].map(micros);
        let why = format!(
            "the load generator sent requests late (mean {mean}, p99 {p99}, max {max}), and {name} of \
             the latency, {latency}, has that in it"
        );
        let wrong = makes(late.p50, self.latency.p50, LATE_US)
            || makes(late.p99, self.latency.p99, LATE_US_ONCE);
        Some((why, wrong && self.requests >= REQUESTS_WITH_TAIL))
    }

    /// In a closed loop nothing is sent late, but replies are received late by who was stopped. To
    /// how many that happened is not known.
    fn stalled(&self) -> Option<String> {
        let makes = self.stalled_us > STALLED_US && self.stalled_us > MOST * self.latency.max;
        (makes && self.open.is_none() && self.requests > 0).then(|| {
            let [stalled, max] = [self.stalled_us, self.latency.max].map(micros);
            format!(
                "the load generator itself was away for {stalled} once, and max of the latency, \
                 {max}, has that in it"
            )
        })
    }

    /// With a load generator that cannot do more, a closed loop says how fast that is; the times
    /// are right. Of an open loop it is [`sent_late`](Evidence::sent_late) that says more.
    fn bottleneck(&self) -> Option<String> {
        if self.load_cpu_busy <= BUSY || self.server_cpu_busy.is_some_and(|busy| busy >= BUSY) {
            return None;
        }
        let server = match self.server_cpu_busy {
            Some(busy) => format!("the server only {}", percent(busy)),
            None => "what the server used is not known (--server-pid)".to_owned(),
        };
        let own = percent(self.load_cpu_busy);
        Some(format!("the load generator used {own} of its CPU, and {server}: try --workers"))
    }

    /// Little's law: under way are as many as come in the time that each takes.
    fn little(&self) -> Option<String> {
        let time_s = self.service_mean_us / 1e6;
        let expected =
            if self.measured_s > 0.0 { self.requests as f64 / self.measured_s } else { 0.0 };
        let (seen, expected) = (self.in_flight_mean, expected * time_s);
        let (difference, most) = ((seen - expected).abs(), seen.max(expected));
        // Those under way at the ends of the measured time are in it for a part of their time.
        let at_ends = most * time_s + 1.0;
        let apart = difference > LITTLE * most && difference * self.measured_s > at_ends;
        (apart && self.requests >= 100).then(|| {
            format!(
                "{seen:.1} requests were under way in the mean, and rate x service time is \
                 {expected:.1}: some were not answered"
            )
        })
    }

    /// Who else had the CPUs.
    fn others(&self) -> impl Iterator<Item = String> {
        let stolen = (self.cpu_stolen > STOLEN).then(|| {
            let part = percent(self.cpu_stolen);
            format!("the hypervisor gave {part} of this machine's CPU time to others (steal time)")
        });
        let pressure = (self.cpu_pressure > PRESSURE).then(|| {
            let part = percent(self.cpu_pressure);
            format!("for {part} of the time some task of this machine waited for a CPU (pressure)")
        });
        stolen.into_iter().chain(pressure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand a second for ten seconds, each answered after two milliseconds.
    const GOOD: Evidence = Evidence {
        load_cpu_busy: 0.3,
        server_cpu_busy: None,
        cpu_stolen: 0.001,
        cpu_pressure: 0.05,
        stalled_us: 2_000.0,
        measured_s: 10.0,
        planned_s: Some(10.0),
        due: 10_000,
        requests: 10_000,
        unasked: None,
        interrupted: false,
        in_flight_mean: 2.0,
        service_mean_us: 2_000.0,
        latency: Tail { mean: 2_100.0, p50: 2_000.0, p99: 8_000.0, max: 20_000.0 },
        open: Some(OPEN),
    };

    const OPEN: OpenLoop = OpenLoop {
        send_delay: Tail { mean: 100.0, p50: 50.0, p99: 300.0, max: 1_500.0 },
        backlog_first_half: Some(10),
        backlog_end: 3,
        rate_end: 1_000.0,
        fastest_us: 1_000.0,
    };

    /// The same with something else about its open loop.
    fn open(change: impl FnOnce(&mut OpenLoop)) -> Evidence {
        let mut open = OPEN;
        change(&mut open);
        Evidence { open: Some(open), ..GOOD }
    }

    fn late(p50: f64, p99: f64, max: f64) -> Evidence {
        open(|open| open.send_delay = Tail { mean: 100.0, p50, p99, max })
    }

    /// Three lines came for one request.
    const THREE: Unasked = Unasked { unasked: 2, replies: 3, requests: 1 };

    #[test]
    fn nothing_is_wrong_with_these() {
        for seen in [
            GOOD,
            // A closed loop has whatever rate it has.
            Evidence { open: None, due: 20_000, ..GOOD },
            // Both are busy: then it is the server that counts.
            Evidence { load_cpu_busy: 0.95, server_cpu_busy: Some(1.0), ..GOOD },
            // It takes a tenth of a second, and as long as that there were more and more.
            open(|open| (open.backlog_end, open.fastest_us) = (100, 1e5)),
            // With more due at the end than before, more may be waiting.
            open(|open| (open.backlog_end, open.backlog_first_half) = (150, None)),
            // Late, and still in the shade of the server's times.
            late(900.0, 3_900.0, 9_000.0),
            // Nobody waited for the last ones.
            Evidence { requests: 9_000, interrupted: true, planned_s: None, ..GOOD },
            // It takes a second, as long as was measured: half of the time there were fewer.
            Evidence {
                measured_s: 1.0,
                planned_s: Some(1.0),
                due: 100,
                requests: 100,
                in_flight_mean: 50.0,
                service_mean_us: 1e6,
                ..open(|open| (open.rate_end, open.backlog_end, open.fastest_us) = (1e2, 100, 1e6))
            },
        ] {
            let verdict = Verdict::of(&seen);
            assert_eq!((verdict.line().as_str(), verdict.warnings), ("valid", vec![]), "{seen:?}");
        }
    }

    #[test]
    fn each_fault_is_told() {
        for (seen, what) in [
            (Evidence { requests: 9_700, ..GOOD }, "10,000 requests were due, and 9,700 were ans"),
            (Evidence { requests: 0, ..GOOD }, "no request was answered"),
            (Evidence { requests: 0, due: 0, ..GOOD }, "no request was due"),
            (Evidence { requests: 0, due: 0, open: None, ..GOOD }, "no request was due"),
            (Evidence { measured_s: 4.0, open: None, ..GOOD }, "after 4.0 s of 10.0"),
            (open(|open| open.backlog_end = 40), "40 requests were waiting at the end, 10 at"),
            (
                open(|open| (open.backlog_end, open.backlog_first_half) = (400, None)),
                "400 requests were waiting at the end: the",
            ),
            (
                late(50.0, 5_100.0, 9_000.0),
                "late (mean 100 us, p99 5.1 ms, max 9.0 ms), and p99 of",
            ),
            (Evidence { unasked: Some(THREE), ..GOOD }, "2 of 3 replies answered none of the 1"),
            // A timer that sleeps too long.
            (late(1_100.0, 1_200.0, 1_300.0), "and p50 of the latency, 2.0 ms"),
        ] {
            let line = Verdict::of(&seen).line();
            assert!(line.starts_with("INVALID: ") && line.contains(what), "{line}");
        }
    }

    #[test]
    fn doubts_are_told_and_do_not_make_it_invalid() {
        for (seen, what) in [
            (Evidence { load_cpu_busy: 0.95, ..GOOD }, "is not known"),
            (Evidence { load_cpu_busy: 0.95, open: None, ..GOOD }, "is not known"),
            (Evidence { load_cpu_busy: 0.95, server_cpu_busy: Some(0.5), ..GOOD }, "only 50%"),
            (Evidence { in_flight_mean: 4.0, ..GOOD }, "4.0 requests were under way"),
            (late(50.0, 4_900.0, 9_000.0), "and p99 of the latency, 8.0 ms"),
            (late(50.0, 900.0, 15_000.0), "and max of the latency, 20.0 ms"),
            (
                Evidence { requests: 99, due: 99, in_flight_mean: 0.0, ..late(5e1, 7e3, 7e3) },
                "p99 of",
            ),
            (Evidence { stalled_us: 1.2e5, open: None, ..GOOD }, "was away for 120.0 ms"),
            (Evidence { cpu_stolen: 0.03, ..GOOD }, "gave 3% of"),
            (Evidence { cpu_pressure: 0.4, ..GOOD }, "for 40% of the time"),
        ] {
            let verdict = Verdict::of(&seen);
            assert_eq!((verdict.line().as_str(), verdict.warnings.len()), ("valid", 1), "{seen:?}");
            assert!(verdict.warnings[0].contains(what), "{:?}", verdict.warnings);
        }
    }

    /// No rate, however short the time was.
    #[test]
    fn a_time_of_nothing_has_no_rate() {
        let seen = Evidence { measured_s: 0.0, due: 1, requests: 0, in_flight_mean: 0.0, ..GOOD };
        let verdict = Verdict::of(&seen);
        let line = verdict.line();
        assert!(!line.contains("inf") && !line.contains("NaN"), "{line}");
        assert!(line.ends_with("it ended after 0.0 s of 10.0: no connection was left"), "{line}");
        assert!(verdict.warnings.is_empty());
    }
}
