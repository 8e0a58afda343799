//! The race's result, for people.

use super::runner::Outcome;
use crate::load::micros;

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
    "threads",
];

/// One row for each outcome, the numbers aligned to the right.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let load_share = load_share(outcomes);
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| row(outcome, load_share)));
    let width: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], width[0]);
        for (cell, width) in row.iter().zip(&width).skip(1) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The kernel's objects for one connection exist at both ends, and here both ends are on one
/// machine. Under epoll the two are alike (a socket, a file, an epoll entry), so half of the sum
/// is the load generator's. Under any model it is the same, and what is left is the server's.
fn load_share(outcomes: &[Outcome]) -> Option<f64> {
    let epoll = outcomes.iter().filter(|outcome| outcome.model == "epoll");
    epoll
        .max_by_key(|outcome| outcome.load.connected)
        .and_then(|outcome| outcome.slab_bytes_both_ends)
        .map(|both| both / 2.0)
}

fn row(outcome: &Outcome, load_share: Option<f64>) -> [String; HEAD.len()] {
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
        outcome.threads.to_string(),
    ]
}

/// `12345` as `12,345`.
fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (-1234567.0, "-1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
