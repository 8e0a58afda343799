//! The race's result, for people.

use super::Row;
use super::runner::Outcome;
use crate::load::micros;
use crate::units::grouped;

const HEAD: [&str; 11] = [
    "model",
    "conns",
    "active",
    "req/s",
    "p50",
    "p99",
    "p99.9",
    "CPU us/req",
    "user B/conn",
    "kernel B/conn",
    "tasks",
];

/// The first column that a model can have no figure for.
const FIGURES: usize = 3;

/// A line for each row, the numbers aligned to the right.
pub(super) fn table(rows: &[Row]) -> String {
    let load_share = load_share(rows);
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| line(row, load_share)));
    // A reason takes the room of the figures that are not there.
    let is_figure = |line: &[String]| line.len() == HEAD.len();
    let width: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let of = |line: &Vec<String>| match column < FIGURES || is_figure(line) {
                true => line[column].len(),
                false => 0,
            };
            lines.iter().map(of).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for cells in &lines {
        let mut line = format!("{:<1$}", cells[0], width[0]);
        for (column, (cell, &width)) in cells.iter().zip(&width).enumerate().skip(1) {
            match column == FIGURES && !is_figure(cells) {
                true => line.push_str(&format!("  {cell}")),
                false => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The kernel's objects for one connection exist at both ends, and here both ends are on one
/// machine. Under epoll the two are alike (a socket, a file, an epoll entry), so half of the sum
/// is the load generator's. Under any model it is the same, and what is left is the server's.
fn load_share(rows: &[Row]) -> Option<f64> {
    let epoll = rows.iter().filter_map(|row| match row {
        Row::Ran(outcome) if outcome.model == "epoll" => Some(outcome),
        _ => None,
    });
    epoll
        .max_by_key(|outcome| outcome.load.connected)
        .and_then(|outcome| outcome.slab_bytes_both_ends)
        .map(|both| both / 2.0)
}

fn line(row: &Row, load_share: Option<f64>) -> Vec<String> {
    let count = |count: u64| grouped(count as f64);
    match row {
        Row::Ran(outcome) => figures(outcome, load_share).to_vec(),
        Row::Beyond { model, connections, active, why, .. } => {
            vec![(*model).to_owned(), count(*connections), count(*active), why.clone()]
        }
    }
}

fn figures(outcome: &Outcome, load_share: Option<f64>) -> [String; HEAD.len()] {
    let load = &outcome.load;
    let kernel = match (outcome.kernel_stack_bytes, outcome.slab_bytes_both_ends, load_share) {
        (Some(stacks), Some(slab), Some(load_share)) => Some(stacks + slab - load_share),
        _ => None,
    };
    let bytes = |bytes: Option<f64>| bytes.map_or("-".to_owned(), |bytes| grouped(bytes.round()));
    let cpu = load.server_cpu_us_per_request;
    [
        outcome.model.to_owned(),
        grouped(load.connected as f64),
        grouped(load.active as f64),
        grouped(load.requests_per_s.round()),
        micros(load.latency_us.p50),
        micros(load.latency_us.p99),
        micros(load.latency_us.p99_9),
        cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.2}")),
        bytes(outcome.resident_bytes),
        bytes(kernel),
        grouped(outcome.tasks as f64),
    ]
}
