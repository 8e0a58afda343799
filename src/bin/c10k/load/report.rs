//! What a load came to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::arrivals;
use super::measured::{self, Measured};
use super::plan::Plan;
use super::schedule::{Schedule, Step};
use super::steps::StepSeen;
use super::verdict::{Evidence, OpenLoop, Tail, Unasked, VALID, Verdict};
use crate::{Failure, interrupt};

/// The result of a run. The names of the JSON carry the units.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) connections: u64,
    /// Connections that were established.
    pub(crate) connected: u64,
    /// Connections that sent requests.
    pub(crate) active: u64,
    /// Connections that had a reply, and it was right.
    pub(crate) answered: u64,
    /// Datagrams that were answered after newer ones of their socket; `None` for streams, which
    /// keep their order.
    pub(crate) reordered: Option<u64>,
    /// Requests under way on each connection; in an open loop the most of them, if limited.
    pub(crate) pipeline: Option<u64>,
    /// Requests in a second that were due, if it was an open loop.
    pub(crate) target_per_s: Option<f64>,
    /// With it the same Poisson arrivals come again.
    pub(crate) seed: Option<u64>,
    /// The size of a message, or that of the largest and the smallest.
    pub(crate) message_bytes: u32,
    pub(crate) message_bytes_min: u32,
    /// From the first connect to the last one established.
    pub(crate) connect_s: f64,
    /// Time measured.
    pub(crate) measured_s: f64,
    /// Requests that were due within it and answered, whenever that was. In a closed loop a request
    /// is due when it is sent.
    pub(crate) requests: u64,
    /// Replies to all requests, those before and after the measured time included.
    pub(crate) requests_total: u64,
    pub(crate) requests_per_s: f64,
    /// From when a request was due to its reply. In a closed loop it is due when the one before
    /// it is answered: a slow server is asked less often, so that its slowness is seldom sampled,
    /// and these are no more than what the requests made saw.
    pub(crate) latency_us: Latency,
    /// The same at more quantiles, from 0 to 1, to draw a curve with.
    pub(crate) latency_curve_us: Vec<(f64, f64)>,
    /// From when a request was handed to the kernel to its reply.
    pub(crate) service_us: Latency,
    /// In an open loop: from when a request was due to when the load generator came to send it. It
    /// is a part of the latency that the server has no part in.
    pub(crate) send_delay_us: Option<Latency>,
    /// Connections that took the place of others, and how long it took to make one.
    pub(crate) reconnects: u64,
    pub(crate) reconnect_us: Latency,
    /// CPU time of the load generator.
    pub(crate) load_cpu_us_per_request: f64,
    /// CPU time of the server, if its process was named.
    pub(crate) server_cpu_us_per_request: Option<f64>,
    /// How often a task of the server was put on a CPU, likewise.
    pub(crate) server_switches_per_request: Option<f64>,
    /// What came of each step of a schedule, if there are several.
    pub(crate) steps: Vec<StepReport>,
    /// Of the CPUs that the load generator could use, one for each process, from 0 to 1.
    pub(crate) load_cpu_busy: f64,
    /// CPUs that the server kept busy, if its process was named.
    pub(crate) server_cpu_busy: Option<f64>,
    /// Requests that were due within the measured time, if it was an open loop.
    pub(crate) requests_due: Option<u64>,
    /// Requests that were sent and not answered, in the mean over the measured time.
    pub(crate) in_flight_mean: f64,
    pub(crate) failures: Failures,
    /// The signal that ended it before its time.
    pub(crate) interrupted: Option<String>,
    /// Whether this says something about the server: `valid`, or `INVALID:` and why not.
    pub(crate) verdict: String,
    pub(crate) warnings: Vec<String>,
    /// Conditions of `--fail-if` that hold.
    pub(crate) crossed: Vec<String>,
    /// All latencies: the buckets of a histogram of nanoseconds.
    #[serde(skip)]
    pub(super) latency: Vec<(u64, u64)>,
}

/// What came of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StepReport {
    /// Requests in a second that were due, at its start and at its end.
    pub(crate) from_per_s: f64,
    pub(crate) to_per_s: f64,
    pub(crate) duration_s: f64,
    /// Requests that were due in it and answered, whenever that was, in each second of it that was
    /// measured.
    pub(crate) requests_per_s: f64,
    /// Of those requests.
    pub(crate) latency_us: Latency,
    /// Of the requests that were due in it.
    pub(crate) failures: u64,
}

impl StepReport {
    /// Of a step of which so much was measured.
    fn of(step: &Step, measured: Duration, seen: &StepSeen) -> StepReport {
        let latency = measured::sum(&seen.latency);
        StepReport {
            from_per_s: step.from,
            to_per_s: step.to,
            duration_s: step.duration.as_secs_f64(),
            requests_per_s: rate(latency.len(), measured),
            latency_us: Latency::of(&latency),
            failures: seen.failures,
        }
    }

    fn all(schedule: &Schedule, measured: &Measured) -> Vec<StepReport> {
        let mut left = measured.measuring;
        let each = schedule.0.iter().zip(&measured.steps).map(|(step, seen)| {
            let measured = left.min(step.duration);
            left -= measured;
            StepReport::of(step, measured, seen)
        });
        each.collect()
    }
}

/// In a second. Nothing has no rate, however short a time it took.
fn rate(requests: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { requests as f64 / time.as_secs_f64() }
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StepReport { from_per_s, to_per_s, duration_s, requests_per_s, failures, .. } = *self;
        let [p50, p99] = [self.latency_us.p50, self.latency_us.p99].map(micros);
        write!(f, "{from_per_s:.0}")?;
        if from_per_s != to_per_s {
            write!(f, "..{to_per_s:.0}")?;
        }
        write!(
            f,
            " requests/s for {duration_s} s: {requests_per_s:.0}, p50 {p50}, p99 {p99}, \
             {failures} failures"
        )
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(nanos: &Histogram<u64>) -> Latency {
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            mean: nanos.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: nanos.max() as f64 / 1e3,
        }
    }
}

/// The quantiles of a curve: evenly spaced, were they drawn by how many lie beyond.
const QUANTILES: [f64; 15] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0];

fn curve(nanos: &Histogram<u64>) -> Vec<(f64, f64)> {
    let at = |quantile| (quantile, nanos.value_at_quantile(quantile) as f64 / 1e3);
    QUANTILES.map(at).to_vec()
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p90, p99, p99_9, max, .. } = *self;
        let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(micros);
        write!(f, "p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, max {max}")
    }
}

/// What went wrong, each kind counted apart, over the whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Failures {
    /// Connections that nobody listened for (ECONNREFUSED); over datagrams, how often that was said.
    pub(crate) refused: u64,
    /// Connections that could not be made for other reasons.
    pub(crate) not_connected: u64,
    /// Replies that were not those to their requests.
    pub(crate) mismatched: u64,
    /// Replies that came later than the time-out after their requests were due.
    pub(crate) late: u64,
    /// Requests that never had a reply; over datagrams, none within the time-out.
    pub(crate) lost: u64,
    /// Connections that the server closed.
    pub(crate) closed_by_server: u64,
    /// Connections that were reset (ECONNRESET, EPIPE).
    pub(crate) reset: u64,
    /// Connections that broke in other ways.
    pub(crate) broken: u64,
    /// Processes of the load generator that died, with their connections.
    pub(crate) dead_workers: u64,
    /// Errors of system calls, by name, and how workers died.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the first mismatch looked like.
    pub(crate) first_mismatch: Option<String>,
}

impl Failures {
    pub(crate) fn error(&mut self, error: &io::Error) {
        *self.errors.entry(error.to_string()).or_default() += 1;
    }

    /// Counts a connection that could not be made.
    pub(super) fn unconnected(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => self.refused += 1,
            _ => self.not_connected += 1,
        }
        self.error(error);
    }

    /// Counts a connection that broke.
    pub(super) fn broke(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => self.reset += 1,
            _ => self.broken += 1,
        }
        self.error(error);
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        let &Failures { refused, not_connected, mismatched, late, lost, .. } = self;
        let &Failures { closed_by_server, reset, broken, dead_workers, .. } = self;
        let connections = refused + not_connected + closed_by_server + reset + broken;
        connections + mismatched + late + lost + dead_workers
    }

    pub(super) fn add(&mut self, other: Failures) {
        self.refused += other.refused;
        self.not_connected += other.not_connected;
        self.mismatched += other.mismatched;
        self.late += other.late;
        self.lost += other.lost;
        self.closed_by_server += other.closed_by_server;
        self.reset += other.reset;
        self.broken += other.broken;
        self.dead_workers += other.dead_workers;
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.first_mismatch = self.first_mismatch.take().or(other.first_mismatch);
    }
}

impl Report {
    pub(super) fn of(plan: &Plan, measured: Measured) -> Report {
        let latency = measured::sum(&measured.latency);
        let requests = latency.len();
        let wall = measured.measuring.as_secs_f64();
        let target = |schedule: &Schedule| schedule.requests() / schedule.duration().as_secs_f64();
        let latency_us = Latency::of(&latency);
        let reconnects = measured::sum(&measured.reconnects);
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests.max(1) as f64;
        let busy = |time: Duration| match measured.clocked.is_zero() {
            true => 0.0,
            false => time.div_duration_f64(measured.clocked),
        };
        let open = plan.schedule.as_ref();
        let service_us = match open {
            Some(_) => Latency::of(&measured::sum(&measured.service)),
            None => latency_us.clone(),
        };
        let send_delay_us = open.map(|_| Latency::of(&measured::sum(&measured.send_delay)));
        let interrupted = interrupt::came();
        let has_all = match (plan.requests, plan.requests_each) {
            (None, None) => false,
            (Some(all), _) => measured.due >= all,
            (None, Some(_)) => true,
        };
        let evidence = Evidence {
            load_cpu_busy: busy(measured.load_cpu) / plan.processes().max(1) as f64,
            server_cpu_busy: measured.server_cpu.map(busy),
            cpu_stolen: measured.cpu_stolen,
            cpu_pressure: measured.cpu_pressure,
            stalled_us: measured.stalled.as_secs_f64() * 1e6,
            measured_s: wall,
            planned_s: (!has_all && interrupted.is_none()).then_some(plan.duration.as_secs_f64()),
            requests,
            due: measured.due,
            unasked: (measured.unasked > 0).then_some(Unasked {
                unasked: measured.unasked,
                replies: measured.requests_total + measured.unasked,
                requests: measured.sent,
            }),
            interrupted: interrupted.is_some(),
            in_flight_mean: measured.in_flight_mean,
            service_mean_us: service_us.mean,
            latency: Tail::of(&latency_us),
            open: open.zip(send_delay_us.as_ref()).map(|(schedule, delay)| OpenLoop {
                send_delay: Tail::of(delay),
                backlog_first_half: schedule.is_steady().then_some(measured.backlog_first_half),
                backlog_end: measured.backlog_end,
                rate_end: schedule.0.last().map_or(0.0, |step| step.to),
                fastest_us: measured.fastest.map_or(0.0, |nanos| nanos as f64 / 1e3),
            }),
        };
        let verdict = Verdict::of(&evidence);
        Report {
            connections: plan.connections,
            connected: measured.connected,
            active: measured.active,
            answered: measured.answered,
            reordered: plan.udp.then_some(measured.reordered),
            pipeline: plan.pipeline,
            target_per_s: plan.schedule.as_ref().map(target),
            seed: (plan.arrivals == arrivals::Kind::Poisson).then_some(plan.seed),
            message_bytes: plan.payload.sizes().1,
            message_bytes_min: plan.payload.sizes().0,
            connect_s: measured.connecting.as_secs_f64(),
            measured_s: wall,
            requests,
            requests_total: measured.requests_total,
            requests_per_s: rate(requests, measured.measuring),
            latency_curve_us: curve(&latency),
            service_us,
            latency_us,
            send_delay_us,
            reconnects: reconnects.len(),
            reconnect_us: Latency::of(&reconnects),
            load_cpu_us_per_request: per_request(measured.load_cpu),
            server_cpu_us_per_request: measured.server_cpu.map(per_request),
            server_switches_per_request: measured
                .server_switches
                .map(|switches| switches as f64 / measured.replies.max(1) as f64),
            steps: open.map_or(Vec::new(), |schedule| StepReport::all(schedule, &measured)),
            load_cpu_busy: evidence.load_cpu_busy,
            server_cpu_busy: evidence.server_cpu_busy,
            requests_due: open.map(|_| evidence.due),
            in_flight_mean: evidence.in_flight_mean,
            failures: measured.failures,
            interrupted: interrupted.map(str::to_owned),
            verdict: verdict.line(),
            warnings: verdict.warnings,
            crossed: Vec::new(),
            latency: measured.latency,
        }
    }

    /// An error if anything went wrong: a condition was crossed, something failed, or the result says
    /// nothing about the server.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let mut wrong: Vec<_> = self.crossed.clone();
        if self.failures.total() > 0 {
            wrong.push(self.failures.to_string());
        }
        if self.verdict != VALID {
            wrong.push(self.verdict.clone());
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::Found(wrong.join("\nc10k: "))),
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failures { mismatched, lost, late, refused, not_connected, .. } = self;
        let Failures { closed_by_server, reset, broken, .. } = self;
        write!(
            f,
            "{mismatched} mismatched, {lost} lost, {late} late, {refused} refused, \
             {not_connected} not connected, {closed_by_server} closed by the server, \
             {reset} reset, {broken} broken"
        )?;
        match self.dead_workers {
            0 => Ok(()),
            dead => write!(f, ", {dead} workers dead"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { connected, active, answered, message_bytes, .. } = self;
        writeln!(
            f,
            "connections  {connected} ({active} active, {answered} answered), in {:.2} s",
            self.connect_s
        )?;
        write!(f, "requests     {} of ", self.requests)?;
        if self.message_bytes_min < *message_bytes {
            write!(f, "{} to ", self.message_bytes_min)?;
        }
        write!(f, "{message_bytes} bytes")?;
        write!(f, " in {:.2} s", self.measured_s)?;
        match self.pipeline {
            Some(pipeline) => writeln!(f, ", {pipeline} under way on each")?,
            None => writeln!(f)?,
        }
        write!(f, "rate         {:.0} requests/s", self.requests_per_s)?;
        if let Some(target) = self.target_per_s {
            write!(f, " of {target:.0}")?;
        }
        match self.seed {
            Some(seed) => writeln!(f, " (--seed {seed})")?,
            None => writeln!(f)?,
        }
        writeln!(f, "latency      {}", self.latency_us)?;
        writeln!(f, "service      {}", self.service_us)?;
        if let Some(delay) = &self.send_delay_us {
            writeln!(f, "send delay   {delay}")?;
        }
        if self.reconnects > 0 {
            writeln!(f, "reconnects   {}: {}", self.reconnects, self.reconnect_us)?;
        }
        write!(f, "CPU          {:.2} us a request here", self.load_cpu_us_per_request)?;
        if let Some(server) = self.server_cpu_us_per_request {
            write!(f, ", {server:.2} us in the server")?;
        }
        write!(f, "; {:.0}% busy here", self.load_cpu_busy * 100.0)?;
        if let Some(server) = self.server_cpu_busy {
            write!(f, ", {:.0}% in the server", server * 100.0)?;
        }
        writeln!(f)?;
        for step in &self.steps {
            writeln!(f, "step         {step}")?;
        }
        writeln!(f, "under way    {:.1} requests in the mean", self.in_flight_mean)?;
        let failures = &self.failures;
        writeln!(f, "failures     {failures}")?;
        if let Some(reordered) = self.reordered {
            writeln!(f, "reordered    {reordered} datagrams")?;
        }
        for (error, count) in &failures.errors {
            writeln!(f, "             {count} x {error}")?;
        }
        if let Some(first) = &failures.first_mismatch {
            writeln!(f, "             the first mismatch: {first}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning      {warning}")?;
        }
        for crossed in &self.crossed {
            writeln!(f, "crossed      {crossed}")?;
        }
        if let Some(signal) = &self.interrupted {
            writeln!(f, "interrupted  by {signal}, after {:.2} s measured", self.measured_s)?;
        }
        writeln!(f, "verdict      {}", self.verdict)?;
        Ok(())
    }
}

/// A time in microseconds, for people: rounded first, so that 999.7 is 1.0 ms and not 1000 us.
pub(crate) fn micros(us: f64) -> String {
    let (tenths_of_ms, hundredths_of_s) = ((us / 1e2).round(), (us / 1e4).round());
    match us.round() {
        0.0..1e3 => format!("{us:.0} us"),
        _ if tenths_of_ms < 1e4 => format!("{:.1} ms", tenths_of_ms / 10.0),
        _ => format!("{:.2} s", hundredths_of_s / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_before_their_unit_is_chosen() {
        for (us, text) in [
            (0.0, "0 us"),
            (999.4, "999 us"),
            (999.7, "1.0 ms"),
            (1_000.0, "1.0 ms"),
            (12_340.0, "12.3 ms"),
            (999_940.0, "999.9 ms"),
            (999_960.0, "1.00 s"),
            (1_234_000.0, "1.23 s"),
            (5e9, "5000.00 s"),
        ] {
            assert_eq!(micros(us), text, "{us}");
        }
    }
}
