//! A race beside an earlier one.

use super::result::{Cell, Load, Race, Spread};
use super::table::{Line, aligned};
use crate::units::grouped;

/// A line for each cell that both have: how many times the rate and the CPU time per request of
/// the earlier one.
pub(super) fn compare(race: &Race, earlier: &Race) -> String {
    let head = ["model", "conns", "active", "load", "req/s", "p99", "CPU us/req"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for cell in &race.cells {
        if let Some(before) = earlier.cells.iter().find(|before| is_same(cell, before)) {
            lines.push(line(cell, before));
        }
    }
    if lines.len() == 1 {
        return "They have no cell in common.\n".to_owned();
    }
    let mut text = aligned(&lines);
    text.push_str("\nTimes the baseline's median; * where the two have no round in common.\n");
    let (now, before) = (&race.machine, &earlier.machine);
    if (&now.cpu, now.cpus, &now.kernel) != (&before.cpu, before.cpus, &before.kernel) {
        text.push_str("The baseline is of another machine or another kernel.\n");
    }
    text
}

fn is_same(one: &Cell, other: &Cell) -> bool {
    let key = |cell: &Cell| (cell.connections, cell.active);
    one.model == other.model && key(one) == key(other) && one.load == other.load
}

fn line(cell: &Cell, before: &Cell) -> Line {
    let load = match cell.load {
        Load::Closed => "closed".to_owned(),
        Load::Open { rate_per_s } => format!("{}/s", grouped(rate_per_s)),
    };
    let cpu = cell.server_cpu_us_per_request.zip(before.server_cpu_us_per_request);
    vec![
        cell.model.clone(),
        grouped(cell.connections as f64),
        grouped(cell.active as f64),
        load,
        ratio(cell.requests_per_s, before.requests_per_s),
        format!("{:.2} ", cell.latency_us.p99 / before.latency_us.p99),
        cpu.map_or("-".to_owned(), |(now, before)| ratio(now, before)),
    ]
}

fn ratio(now: Spread, before: Spread) -> String {
    let apart = now.low() > before.high() || now.high() < before.low();
    format!("{:.2}{}", now.median / before.median, if apart { "*" } else { " " })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_apart_is_marked() {
        let spread = |min, median, max| Spread { median, min: Some(min), max: Some(max) };
        let before = spread(90.0, 100.0, 120.0);
        assert_eq!(ratio(spread(110.0, 125.0, 130.0), before), "1.25 ");
        assert_eq!(ratio(spread(121.0, 125.0, 130.0), before), "1.25*");
        assert_eq!(ratio(spread(40.0, 50.0, 89.0), before), "0.50*");
    }
}
