//! The tables, as text.

use std::fmt::Write;

use crate::bench::OURS;
use crate::result::{Cell, Comparison, Entry, Spread};

/// Less than this is not a difference that one run can tell.
const TELLABLE: f64 = 0.005;

const HEADINGS: [&str; 6] =
    ["", "per CPU second, by ours", "requests/s", "p99 us", "B/idle", "calls/req"];

/// One table for each load, then where ours is behind, and how it was measured.
pub(crate) fn text(comparison: &Comparison, terminal: bool) -> String {
    let bold = |text: &str| match terminal {
        true => format!("\x1b[1m{text}\x1b[0m"),
        false => format!("**{text}**"),
    };
    let mut text = String::new();
    for cell in &comparison.cells {
        table(&mut text, cell, &bold, terminal);
    }
    behind(&mut text, comparison);
    method(&mut text, comparison);
    text
}

fn table(text: &mut String, cell: &Cell, bold: &dyn Fn(&str) -> String, terminal: bool) {
    let Cell { connections, active, pipeline, entries } = cell;
    let _ = match active < connections {
        true => write!(text, "{active} of {connections} connections active"),
        false => write!(text, "{connections} connections"),
    };
    let _ = writeln!(text, ", {pipeline} under way on each\n");
    let ours = entries.iter().find(|entry| entry.name == OURS);
    let rows: Vec<[(String, bool); 6]> = entries.iter().map(|entry| row(entry, ours)).collect();
    // Marks on a terminal take no room, stars do.
    let stars = |bold: bool| if bold && !terminal { 4 } else { 0 };
    let mut widths = HEADINGS.map(str::len);
    for row in &rows {
        for (width, (figure, behind)) in widths.iter_mut().zip(row) {
            *width = (*width).max(figure.chars().count() + stars(*behind));
        }
    }
    let headings = HEADINGS.map(|heading| (heading.to_owned(), false));
    for row in [headings].iter().chain(&rows) {
        let mut line = String::from("|");
        for (at, ((figure, behind), width)) in row.iter().zip(widths).enumerate() {
            let room = " ".repeat(width - figure.chars().count() - stars(*behind));
            let figure = if *behind { bold(figure) } else { figure.clone() };
            // Names to the left, figures to the right.
            line +=
                &if at == 0 { format!(" {figure}{room} |") } else { format!(" {room}{figure} |") };
        }
        let _ = writeln!(text, "{line}");
        if row[1].0 == HEADINGS[1] {
            let rule = |(at, width): (usize, usize)| {
                "-".repeat(width + 1) + if at == 0 { "-|" } else { ":|" }
            };
            let _ =
                writeln!(text, "|{}", widths.into_iter().enumerate().map(rule).collect::<String>());
        }
    }
    text.push('\n');
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
                entry.ratio_to_ours.is_some_and(|ratio| ratio.median >= 1.0 + TELLABLE),
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
        let ahead = |entry: &&Entry| {
            entry.name != OURS
                && entry.ratio_to_ours.is_some_and(|ratio| ratio.median >= 1.0 + TELLABLE)
        };
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

fn method(text: &mut String, comparison: &Comparison) {
    let (machine, method) = (&comparison.machine, &comparison.method);
    let _ = writeln!(
        text,
        "{}, {} CPUs, Linux {}; server on CPU {}, load on CPU {}; medians of {} interleaved rounds of\n\
         {} s, and the lowest and highest; {}-byte echo over loopback, every reply checked. The ratio\n\
         is to ours of the same round: above 1, ours is behind. Bytes: anonymous memory resident in\n\
         the server for each idle connection. Calls: system calls per request, all connections\n\
         active, as strace counted them in one more trial. In bold, where ours is behind.",
        machine.cpu,
        machine.cpus,
        machine.kernel,
        method.server_cpu,
        method.load_cpu,
        method.rounds,
        method.duration_s,
        method.message_bytes,
    );
    for left_out in &comparison.left_out {
        let _ = writeln!(text, "{} is left out: {}.", left_out.name, left_out.why);
    }
    if !comparison.warnings.is_empty() {
        text.push_str("\nWarnings\n");
        for warning in &comparison.warnings {
            let _ = writeln!(text, "- {warning}");
        }
    }
}

/// With commas between thousands.
fn grouped(figure: f64, digits: usize) -> String {
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
