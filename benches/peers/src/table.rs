//! The tables, as text.

use std::fmt::Write;

use crate::bench::OURS;
use crate::result::{Cell, Comparison, Entry, LeftOut, Machine, Method, Spread};

/// Less than this is not a difference that one run can tell.
const TELLABLE: f64 = 0.005;

const HEADINGS: [&str; 6] =
    ["", "per CPU second, by ours", "requests/s", "p99 us", "B/idle", "calls/req"];

const FIGURES: &str = "The ratio
is to ours of the same round: above 1, ours is behind. Bytes: anonymous memory resident in
the server for each idle connection. Calls: system calls per request, all connections
active, as strace counted them in one more trial. In bold, where ours is behind.";

/// One table for each load, then all ratios beside each other, where ours is behind, and how it was
/// measured.
pub(crate) fn text(comparison: &Comparison, terminal: bool) -> String {
    let mut text = String::new();
    for cell in &comparison.cells {
        table(&mut text, cell, terminal);
    }
    overview(&mut text, comparison, terminal);
    behind(&mut text, comparison);
    method(&mut text, &comparison.machine, &comparison.method, FIGURES);
    doubts(&mut text, &comparison.left_out, &comparison.warnings);
    text
}

fn table(text: &mut String, cell: &Cell, terminal: bool) {
    let Cell { connections, active, pipeline, entries } = cell;
    let _ = match active < connections {
        true => write!(text, "{active} of {connections} connections active"),
        false => write!(text, "{connections} connections"),
    };
    let _ = writeln!(text, ", {pipeline} under way on each\n");
    let ours = entries.iter().find(|entry| entry.name == OURS);
    let rows: Vec<_> = entries.iter().map(|entry| row(entry, ours).to_vec()).collect();
    grid(text, &HEADINGS.map(str::to_owned), &rows, terminal);
}

/// The ratios of all cells: a table for each number of requests under way.
fn overview(text: &mut String, comparison: &Comparison, terminal: bool) {
    let mut names: Vec<&str> = Vec::new();
    let mut pipelines: Vec<u64> = Vec::new();
    for cell in &comparison.cells {
        let others = cell.entries.iter().map(|entry| &*entry.name).filter(|name| *name != OURS);
        names.extend(others.filter(|name| !names.contains(name)).collect::<Vec<_>>());
        if !pipelines.contains(&cell.pipeline) {
            pipelines.push(cell.pipeline);
        }
    }
    for pipeline in pipelines {
        let _ = writeln!(text, "Per CPU second, by ours: {pipeline} under way on each of\n");
        let cells = comparison.cells.iter().filter(|cell| cell.pipeline == pipeline);
        let cells: Vec<&Cell> = cells.collect();
        let mut headings = vec![String::new()];
        headings.extend(cells.iter().map(|cell| match cell.active < cell.connections {
            true => format!("{} of {}", cell.active, grouped(cell.connections as f64, 0)),
            false => grouped(cell.connections as f64, 0),
        }));
        let rows = names.iter().map(|&name| {
            let figures = cells.iter().map(|cell| {
                let ratio = cell.entries.iter().find(|entry| entry.name == name)?.ratio_to_ours?;
                Some((format!("{:.2}", ratio.median), is_ahead(ratio)))
            });
            let figures = figures.map(|figure| figure.unwrap_or(("-".to_owned(), false)));
            [(name.to_owned(), false)].into_iter().chain(figures).collect()
        });
        grid(text, &headings, &rows.collect::<Vec<Vec<_>>>(), terminal);
    }
}

/// A table in Markdown, of figures of which some are to be bold.
pub(crate) fn grid(
    text: &mut String,
    headings: &[String],
    rows: &[Vec<(String, bool)>],
    terminal: bool,
) {
    let marked = |figure: &str, bold: bool| match (bold, terminal) {
        (false, _) => figure.to_owned(),
        (true, true) => format!("\x1b[1m{figure}\x1b[0m"),
        (true, false) => format!("**{figure}**"),
    };
    // Marks on a terminal take no room, stars do.
    let width =
        |figure: &str, bold: bool| figure.chars().count() + if bold && !terminal { 4 } else { 0 };
    let widths = headings.iter().enumerate().map(|(at, heading)| {
        let figures = rows.iter().map(|row| width(&row[at].0, row[at].1));
        figures.chain([width(heading, false)]).max().unwrap_or(0)
    });
    let widths: Vec<usize> = widths.collect();
    let line = |row: &[(String, bool)]| {
        let mut text = String::from("|");
        for (at, ((figure, bold), column)) in row.iter().zip(&widths).enumerate() {
            let room = " ".repeat(column - width(figure, *bold));
            let figure = marked(figure, *bold);
            // Names to the left, figures to the right.
            text += &match at {
                0 => format!(" {figure}{room} |"),
                _ => format!(" {room}{figure} |"),
            };
        }
        text + "\n"
    };
    let headings: Vec<_> = headings.iter().map(|heading| (heading.clone(), false)).collect();
    text.push_str(&line(&headings));
    text.push('|');
    for (at, width) in widths.iter().enumerate() {
        *text += &"-".repeat(width + 1);
        *text += if at == 0 { "-|" } else { ":|" };
    }
    text.push('\n');
    rows.iter().for_each(|row| text.push_str(&line(row)));
    text.push('\n');
}

/// Whether whoever has this ratio to ours needs less CPU, as far as one run can tell.
fn is_ahead(ratio_to_ours: Spread) -> bool {
    ratio_to_ours.median >= 1.0 + TELLABLE
}

/// The figures of one contender, and in which of them ours is behind.
fn row(entry: &Entry, ours: Option<&Entry>) -> [(String, bool); 6] {
    let ours = ours.filter(|ours| ours.name != entry.name);
    let more = |of: fn(&Entry) -> Option<f64>| {
        let beside = ours.and_then(|ours| Some(of(entry)? / of(ours)?));
        beside.is_some_and(|ratio| ratio >= 1.0 + TELLABLE)
    };
    let less = |of: fn(&Entry) -> Option<f64>| {
        let beside = ours.and_then(|ours| Some(of(entry)? / of(ours)?));
        beside.is_some_and(|ratio| ratio <= 1.0 - TELLABLE)
    };
    let ratio =
        |ratio: Spread| format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max);
    let known = |figure: Option<f64>, digits: usize| {
        figure.map_or("-".to_owned(), |figure| grouped(figure, digits))
    };
    let resident =
        |entry: &Entry| entry.resident_bytes_per_idle_connection.map(|bytes| bytes.median.max(0.0));
    [
        (entry.name.clone(), false),
        match ours {
            None => (format!("{} /CPU s", grouped(entry.requests_per_cpu_s.median, 0)), false),
            Some(_) => (
                entry.ratio_to_ours.map_or("-".to_owned(), ratio),
                entry.ratio_to_ours.is_some_and(is_ahead),
            ),
        },
        (grouped(entry.requests_per_s.median, 0), more(|entry| Some(entry.requests_per_s.median))),
        (grouped(entry.p99_us.median, 0), less(|entry| Some(entry.p99_us.median))),
        (
            known(resident(entry), 0),
            less(|entry| entry.resident_bytes_per_idle_connection.map(|bytes| bytes.median)),
        ),
        (known(entry.syscalls_per_request, 2), less(|entry| entry.syscalls_per_request)),
    ]
}

/// Every load under which someone needs less CPU than ours, the furthest first.
fn behind(text: &mut String, comparison: &Comparison) {
    let pairs = comparison.cells.iter().flat_map(|cell| {
        let ahead =
            |entry: &&Entry| entry.name != OURS && entry.ratio_to_ours.is_some_and(is_ahead);
        cell.entries.iter().filter(ahead).map(move |entry| (cell, entry))
    });
    let mut pairs: Vec<_> =
        pairs.filter_map(|(cell, entry)| Some((cell, entry, entry.ratio_to_ours?))).collect();
    pairs.sort_by(|(.., one), (.., other)| other.median.total_cmp(&one.median));
    let _ = writeln!(text, "Ours is behind in requests per CPU second of the server:");
    for (cell, entry, ratio) in &pairs {
        let Cell { connections, active, pipeline, .. } = cell;
        let _ = writeln!(
            text,
            "- {}: {:.2} ({:.2} to {:.2}{}), {active} of {connections} connections active, {pipeline} \
             under way",
            entry.name,
            ratio.median,
            ratio.min,
            ratio.max,
            if ratio.min > 1.0 { ": in every round" } else { "" },
        );
    }
    if pairs.is_empty() {
        text.push_str("- nowhere\n");
    }
    text.push('\n');
}

/// How it was measured, and what the figures are.
pub(crate) fn method(text: &mut String, machine: &Machine, method: &Method, figures: &str) {
    let _ = writeln!(
        text,
        "{}, {} CPUs, Linux {}; server on CPU {}, load on CPU {}; medians of {} interleaved rounds of\n\
         {} s, and the lowest and highest; {}-byte echo over loopback, every reply checked. {figures}",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        method.server_cpu,
        method.load_cpu,
        method.rounds,
        method.duration_s,
        method.message_bytes,
    );
}

/// Who is missing, and what may be wrong.
pub(crate) fn doubts(text: &mut String, left_out: &[LeftOut], warnings: &[String]) {
    for left_out in left_out {
        let _ = writeln!(text, "{} is left out: {}.", left_out.name, left_out.why);
    }
    if !warnings.is_empty() {
        text.push_str("\nWarnings\n");
        for warning in warnings {
            let _ = writeln!(text, "- {warning}");
        }
    }
}

/// With commas between thousands.
pub(crate) fn grouped(figure: f64, digits: usize) -> String {
    let plain = format!("{figure:.digits$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(999.4, 0), "999");
        assert_eq!(grouped(1_234_567.0, 0), "1,234,567");
        assert_eq!(grouped(2.005, 2), "2.00");
        assert_eq!(grouped(4_690.5, 1), "4,690.5");
    }
}
