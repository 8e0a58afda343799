//! The two tables of growth, in Markdown: a line for each contender, a column for each number of
//! connections.

use crate::result::{Growth, Spread};
use crate::table::{doubts, grid, grouped, method};

const FIGURES: &str = "CPU: of the
server, all its threads, user and kernel. Bytes: what the anonymous memory of the server, as the
kernel counts it page by page (`Anonymous` in `/proc/PID/smaps_rollup`), has grown by since it had
served one connection, over the number of connections, each of which was answered once and is idle;
what the kernel keeps of them is not in it. Of more connections than the rounds have it was measured
once, as the sum of as many servers as they take. A dash: not more connections than active ones, too
many threads, or too little memory.";

/// With nothing for the terminal, as it is for the documents.
pub(super) fn text(growth: &Growth, names: &[&str]) -> String {
    let mut text = String::new();
    text.push_str(
        "CPU time of the server per request in microseconds, and requests per second, one under way \
         on\neach active connection, by the number of connections:\n\n",
    );
    cpu(&mut text, growth, names);
    text.push_str("Resident bytes of the server for each idle connection, by their number:\n\n");
    memory(&mut text, growth, names);
    method(&mut text, &growth.machine, &growth.method, FIGURES);
    doubts(&mut text, &growth.left_out, &growth.warnings);
    text
}

/// First with all of the connections active, then with some.
fn cpu(text: &mut String, growth: &Growth, names: &[&str]) {
    let (all, some): (Vec<_>, Vec<_>) =
        growth.cells.iter().partition(|cell| cell.active == cell.connections);
    let columns: Vec<u64> = all.iter().map(|cell| cell.connections).collect();
    let active = some.first().map_or(String::new(), |cell| cell.active.to_string());
    let mut rows = Vec::new();
    for (active, cells) in [("all", all), (&active, some)] {
        rows.extend(names.iter().filter(|_| !cells.is_empty()).map(|&name| {
            let figures = columns.iter().map(|&connections| {
                let cell = cells.iter().find(|cell| cell.connections == connections)?;
                let entry = cell.entries.iter().find(|entry| entry.name == name)?;
                let cpu = spread(entry.server_cpu_us_per_request, 2);
                let rate = grouped(entry.requests_per_s.median / 1e3, 1);
                Some(format!("{cpu}, {rate} k/s"))
            });
            row(&[name, active], figures)
        }));
    }
    grid(text, &headings(&["", "active"], &columns), &rows, false);
}

fn memory(text: &mut String, growth: &Growth, names: &[&str]) {
    let columns: Vec<u64> = growth.memory.iter().map(|held| held.connections).collect();
    let rows = names.iter().map(|&name| {
        let figures = growth.memory.iter().map(|held| {
            let entry = held.entries.iter().find(|entry| entry.name == name)?;
            Some(spread(entry.resident_bytes_per_idle_connection, 0))
        });
        row(&[name], figures)
    });
    grid(text, &headings(&[""], &columns), &rows.collect::<Vec<_>>(), false);
}

fn headings(first: &[&str], columns: &[u64]) -> Vec<String> {
    let columns = columns.iter().map(|&connections| grouped(connections as f64, 0));
    first.iter().map(|&name| name.to_owned()).chain(columns).collect()
}

fn row(first: &[&str], figures: impl Iterator<Item = Option<String>>) -> Vec<(String, bool)> {
    let figures = figures.map(|figure| figure.unwrap_or("-".to_owned()));
    let all = first.iter().map(|&name| name.to_owned()).chain(figures);
    all.map(|figure| (figure, false)).collect()
}

/// The median, and the ends where they are others.
fn spread(spread: Spread, digits: usize) -> String {
    // A server may have given back a page meanwhile.
    let [median, min, max] =
        [spread.median, spread.min, spread.max].map(|figure| grouped(figure.max(0.0), digits));
    if min == max { median } else { format!("{median} ({min} to {max})") }
}
