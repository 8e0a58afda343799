//! What a reader should know before believing a race.

use super::result::{Cell, Load};
use super::runner::{Outcome, Setup};
use crate::Failure;
use crate::units::grouped;

/// A spread beyond which a median says little.
const NOISY: f64 = 0.25;

/// An open loop that falls behind by more than this was not one.
const BEHIND: f64 = 0.02;

/// A CPU that is less busy than this was not the limit.
const BUSY: f64 = 0.9;

/// Doubts about a setup and its cells.
pub(super) fn doubts(setup: &Setup, outcomes: &[Outcome], cells: &[Cell]) -> Vec<String> {
    let name =
        format!("{} with {} connections", setup.model.name, grouped(setup.connections as f64));
    let mut doubts = Vec::new();
    let overflows: u64 = outcomes.iter().map(|round| round.listen_overflows).sum();
    if overflows > 0 {
        doubts.push(format!(
            "{name}: the accept queue overflowed {overflows} times: see net.core.somaxconn"
        ));
    }
    for measured in outcomes.iter().flat_map(|round| &round.measured) {
        if let Err(Failure::Found(what)) = measured.verdict() {
            doubts.push(format!("{name}, {} active: {what}", measured.active));
        }
    }
    doubts.extend(cells.iter().flat_map(|cell| of_cell(&name, cell)));
    let last = outcomes.iter().flat_map(|round| &round.warnings).next_back();
    doubts.extend(last.map(|warning| {
        // Without the time and place that a line of the log begins with.
        let said = warning.split_once("] ").map_or(warning.as_str(), |(_, said)| said);
        format!("{name}: the server says: {said}")
    }));
    doubts
}

fn of_cell(name: &str, cell: &Cell) -> Vec<String> {
    let mut doubts = Vec::new();
    let rate = cell.requests_per_s;
    match cell.load {
        Load::Closed => {
            if let Some((min, max)) = rate.range()
                && max - min > NOISY * rate.median
            {
                let (min, max) = (grouped(min.round()), grouped(max.round()));
                doubts.push(format!("{} active: noisy: {min} to {max} requests/s", cell.active));
            }
            if let Some(busy) = idle_server(cell) {
                doubts.push(format!(
                    "{} active: the load generator was the limit (the server was busy {:.0}% of \
                     the time): compare CPU us/req, not req/s",
                    cell.active,
                    busy * 100.0
                ));
            }
        }
        Load::Open { rate_per_s } => {
            if rate.median < rate_per_s * (1.0 - BEHIND) {
                doubts.push(format!(
                    "{} active: {} requests/s were due, and {} were answered",
                    cell.active,
                    grouped(rate_per_s),
                    grouped(rate.median.round())
                ));
            }
        }
    }
    doubts.into_iter().map(|doubt| format!("{name}, {doubt}")).collect()
}

/// How busy the server's CPU was, if the load generator's had no time left and it had.
fn idle_server(cell: &Cell) -> Option<f64> {
    let share = |us: f64| us * cell.requests_per_s.median / 1e6;
    let server = share(cell.server_cpu_us_per_request?.median);
    let load = share(cell.load_cpu_us_per_request.median);
    (server < BUSY && load > 0.95).then_some(server)
}
