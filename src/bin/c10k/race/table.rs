//! The race's result, for people.

use super::result::{Cell, Load, Race, Spread};
use crate::load::micros;
use crate::units::grouped;

/// A line of a table: its cells.
pub(super) type Line = Vec<String>;

/// The tables of a race: one for each kind of load.
pub(super) fn tables(race: &Race) -> String {
    let memory = race.cells.iter().any(|cell| cell.memory.is_some());
    let calls = race.cells.iter().any(|cell| cell.syscalls_per_request.is_some());
    let spread = race.cells.iter().any(|cell| cell.requests_per_s.range().is_some());
    let mut text = table(race, |load| load == Load::Closed, closed_loop(spread, memory, calls));
    let open = race.method.open_rate_per_s;
    if let Some(rate) = open {
        text.push_str(&format!("\nOpen loop, {} requests a second:\n\n", grouped(rate)));
        text.push_str(&table(race, |load| load != Load::Closed, open_loop()));
    }
    text
}

/// A column: its head, and what a cell has there.
type Column = (&'static str, fn(&Cell) -> String);

fn closed_loop(spread: bool, memory: bool, calls: bool) -> Vec<Column> {
    let mut columns: Vec<Column> =
        vec![("req/s", |cell| grouped(cell.requests_per_s.median.round()))];
    if spread {
        columns.push(("+-", |cell| within(cell.requests_per_s)));
    }
    let more: [Column; 5] = [
        ("p50", |cell| micros(cell.latency_us.p50)),
        ("p99", |cell| micros(cell.latency_us.p99)),
        ("p99.9", |cell| micros(cell.latency_us.p99_9)),
        ("CPU us/req", cpu),
        ("switches/req", switches),
    ];
    columns.extend(more);
    if calls {
        columns.push(("calls/req", |cell| {
            cell.syscalls_per_request.map_or("-".to_owned(), |n| format!("{n:.2}"))
        }));
    }
    if memory {
        columns.push(("user B/conn", |cell| bytes(cell.memory.map(|memory| memory.user_bytes))));
        columns.push(("kernel B/conn", |cell| {
            bytes(cell.memory.map(|memory| memory.total_bytes() - memory.user_bytes))
        }));
    }
    columns.push(("tasks", |cell| grouped(cell.tasks as f64)));
    columns
}

fn open_loop() -> Vec<Column> {
    vec![
        ("req/s", |cell| grouped(cell.requests_per_s.median.round())),
        ("p50", |cell| micros(cell.latency_us.p50)),
        ("p99", |cell| micros(cell.latency_us.p99)),
        ("p99.9", |cell| micros(cell.latency_us.p99_9)),
        ("max", |cell| micros(cell.latency_us.max)),
        ("CPU us/req", cpu),
        ("switches/req", switches),
    ]
}

fn cpu(cell: &Cell) -> String {
    cell.server_cpu_us_per_request.map_or("-".to_owned(), |cpu| format!("{:.2}", cpu.median))
}

fn switches(cell: &Cell) -> String {
    cell.context_switches_per_request.map_or("-".to_owned(), |n| format!("{n:.2}"))
}

fn bytes(bytes: Option<f64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| grouped(bytes.round()))
}

/// How far the rounds are from their median, at most; nothing of one round.
fn within(spread: Spread) -> String {
    let (median, Some((min, max))) = (spread.median, spread.range()) else {
        return "-".to_owned();
    };
    let furthest = (max - median).max(median - min);
    format!("{:.0}%", if median > 0.0 { furthest / median * 100.0 } else { 0.0 })
}

fn table(race: &Race, is_of: fn(Load) -> bool, columns: Vec<Column>) -> String {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Line>();
    let mut lines = vec![words(&["model", "conns", "active"])];
    lines[0].extend(columns.iter().map(|(head, _)| (*head).to_owned()));
    let mut last = None;
    for cell in race.cells.iter().filter(|cell| is_of(cell.load)) {
        let now = (cell.connections, cell.active);
        if last.replace(now).is_some_and(|last| last != now) {
            lines.push(Line::new());
        }
        let mut line = words(&[&cell.model]);
        line.extend([cell.connections, cell.active].map(|count| grouped(count as f64)));
        line.extend(columns.iter().map(|(_, figure)| figure(cell)));
        lines.push(line);
    }
    aligned(&lines)
}

/// Names to the left, and figures to the right.
pub(super) fn aligned(lines: &[Line]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line: &Line| Some(line.get(column)?.len())).max().unwrap_or(0)
    };
    let width: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        let mut line = String::new();
        for (at, cell) in cells.iter().enumerate() {
            match at {
                0 => line.push_str(&format!("{cell:<0$}", width[0])),
                _ => line.push_str(&format!("  {cell:>0$}", width[at])),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_furthest_from_the_median() {
        assert_eq!(within(Spread::of(&mut [100.0, 80.0, 110.0])), "20%");
        assert_eq!(within(Spread::of(&mut [0.0, 0.0])), "0%");
        assert_eq!(within(Spread::once(100.0)), "-");
    }

    #[test]
    fn figures_are_aligned() {
        let lines = [vec!["a", "10"], vec!["bcd", "5"]];
        let lines = lines.map(|line| line.into_iter().map(str::to_owned).collect::<Line>());
        assert_eq!(aligned(&lines), "a    10\nbcd   5\n");
    }
}
