//! The page: the charts with their sentences, how it was measured, and every figure.

use super::chart::{self, Drawn, SIZE};
use super::picture::{Picture, limit_of};
use super::{ink, reading};
use crate::race::result::{Cell, Limit, Load, Race, Spread};
use crate::units::grouped;

/// A part of the page: charts and what they say.
struct Figure {
    id: &'static str,
    title: String,
    /// Each with a title of its own, if there are several.
    charts: Vec<(String, String)>,
    notes: Vec<String>,
    reading: String,
}

/// One self-contained HTML file. It runs no script and fetches nothing, and says so to the
/// browser, which then would not let it.
pub(crate) fn html(race: &Race) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>c10k race</title>\n<style>\n",
    );
    page.push_str(&ink::style());
    page.push_str(include_str!("page.css"));
    page.push_str("</style>\n</head>\n<body>\n<header>\n<h1>c10k race</h1>\n");
    for sentence in &race.conclusion {
        page.push_str(&format!("<p class=\"conclusion\">{}</p>\n", escaped(sentence)));
    }
    if let Some(signal) = &race.interrupted {
        let text = format!("Interrupted by {signal}: this is what was measured before.");
        page.push_str(&format!("<p>{}</p>\n", escaped(&text)));
    }
    page.push_str(&format!("<p>{}</p>\n", escaped(&lead(race))));
    page.push_str(&format!("<p>{}</p>\n</header>\n<main>\n", escaped(&machine(race))));
    page.push_str("<div class=\"charts\">\n");
    for shown in figures(race) {
        page.push_str(&figure(&shown));
    }
    page.push_str("</div>\n");
    page.push_str(&section("Warnings", &warnings(race)));
    page.push_str(&section("Machine and method", &method(race)));
    page.push_str(&section("The figures", &table(race)));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn lead(race: &Race) -> String {
    let bytes = race.method.message_bytes;
    format!("The same {bytes}-byte echo, served in different ways, under the same load.")
}

/// Where, and of what version.
pub(super) fn machine(race: &Race) -> String {
    let machine = &race.machine;
    let memory = machine.memory_bytes as f64 / f64::from(1 << 30);
    format!(
        "{}, {} CPUs, {memory:.0} GiB, Linux {}; c10k {}",
        machine.cpu, machine.cpus, machine.kernel, race.c10k_version
    )
}

/// The models whose lines end early, and why.
pub(super) fn limits(race: &Race, pictures: &[&Picture<'_>]) -> Vec<String> {
    let ends = |model: &str| pictures.iter().find_map(|picture| limit_of(race, picture, model));
    let models = race.limits.iter().map(|limit| limit.model.as_str());
    let line = |limit: &Limit| {
        let most = grouped(limit.connections as f64);
        format!("✕ {} stops at {most} connections: {}", limit.model, limit.why)
    };
    models.filter_map(ends).map(line).collect()
}

fn figures(race: &Race) -> [Figure; 5] {
    let (busy, idle) = (Picture::busy(race), Picture::idle(race));
    let (tail, memory) = (Picture::tail(race), Picture::memory(race));
    let rates = |picture: &Picture<'_>| draw(|area| chart::rates(area, race, picture));
    let cpu = |picture: &Picture<'_>| draw(|area| chart::cpu(area, race, picture));
    let one = |svg| vec![(String::new(), svg)];
    let count =
        |picture: &Picture<'_>| picture.cells.first().map(|cell| grouped(cell.connections as f64));
    let of_latency = count(&tail)
        .map_or(String::new(), |count| format!(": {count} connections, {}", tail.activity()));
    let of_memory = count(&memory).map_or(String::new(), |count| format!(", among {count}"));
    [
        Figure {
            id: "throughput",
            title: format!("Throughput against connections, {}", busy.activity()),
            charts: one(rates(&busy)),
            notes: limits(race, &[&busy]),
            reading: reading::throughput(race),
        },
        Figure {
            id: "idle",
            title: format!("Throughput against idle connections, {}", idle.activity()),
            charts: one(rates(&idle)),
            notes: limits(race, &[&idle]),
            reading: reading::idle(race),
        },
        Figure {
            id: "latency",
            title: format!("Latency by percentile{of_latency}"),
            charts: one(draw(|area| chart::latencies(area, &tail))),
            notes: latency_note(&tail),
            reading: reading::latency(race),
        },
        Figure {
            id: "memory",
            title: format!("Memory of an idle connection{of_memory}"),
            charts: one(draw(|area| chart::memory(area, &memory))),
            notes: Vec::new(),
            reading: reading::memory(race),
        },
        Figure {
            id: "cpu",
            title: "Server CPU per request against connections".to_owned(),
            charts: vec![(busy.activity(), cpu(&busy)), (idle.activity(), cpu(&idle))],
            notes: limits(race, &[&busy, &idle]),
            reading: reading::cpu(race),
        },
    ]
}

fn draw(chart: impl FnOnce(&chart::Area<'_>) -> Drawn) -> String {
    chart::drawing(SIZE, chart)
}

fn latency_note(tail: &Picture<'_>) -> Vec<String> {
    let note = |cell: &&Cell| match cell.load {
        Load::Closed => {
            "Closed loop: each connection asks again when it has its reply, so this is \
                         the number of connections divided by the rate, and the tail that \
                         scheduling adds."
                .to_owned()
        }
        Load::Open { rate_per_s } => format!(
            "Open loop at {} requests a second: latency counts from when a request was due.",
            grouped(rate_per_s)
        ),
    };
    tail.cells.first().map(note).into_iter().collect()
}

fn figure(figure: &Figure) -> String {
    let several = figure.charts.len() > 1;
    let mut html = match several {
        true => format!("<figure id=\"{}\" class=\"wide\">\n", figure.id),
        false => format!("<figure id=\"{}\">\n", figure.id),
    };
    html.push_str(&format!("<h2>{}</h2>\n", escaped(&figure.title)));
    html.push_str(if several { "<div class=\"pair\">\n" } else { "" });
    let (width, height) = SIZE;
    for (title, drawing) in &figure.charts {
        let label = format!("{} {title}: {}", figure.title, figure.reading);
        let heading = format!("<div><h3>{}</h3>\n", escaped(title));
        html.push_str(if several { &heading } else { "" });
        html.push_str(&format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{drawing}</svg>\n",
            escaped(&label)
        ));
        html.push_str(if several { "</div>\n" } else { "" });
    }
    html.push_str(if several { "</div>\n" } else { "" });
    html.push_str(&format!("<figcaption>{}", escaped(&figure.reading)));
    for note in &figure.notes {
        html.push_str(&format!("\n<p class=\"note\">{}</p>", escaped(note)));
    }
    html + "</figcaption>\n</figure>\n"
}

fn section(title: &str, inside: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{inside}</section>\n")
}

fn warnings(race: &Race) -> String {
    if race.warnings.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let items: String =
        race.warnings.iter().map(|warning| format!("<li>{}</li>\n", escaped(warning))).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn method(race: &Race) -> String {
    let method = &race.method;
    let place = match method.pinned {
        true => "The server has one CPU to itself and the load another.",
        false => "Server and load share their CPUs, so the figures measure the scheduler too.",
    };
    let rounds = match method.rounds {
        1 => "once, so there is no spread".to_owned(),
        rounds => format!(
            "{rounds} times, in turn with the others: a line goes through the medians, and its bars \
             reach from the least to the most"
        ),
    };
    let open = method.open_rate_per_s.map_or(String::new(), |rate| {
        format!(" Where the loop is open, {} requests a second are due over all.", grouped(rate))
    });
    let paragraphs = [
        format!(
            "{}-byte echo over loopback, every reply checked, one request under way on each active \
             connection.{open} {place} Each load ran for {} s after {} s of warm-up, {rounds}.",
            method.message_bytes, method.duration_s, method.warmup_s
        ),
        "Two models are called level if their medians differ by less than 5%; if they differ by \
         more, but the rounds of one overlap with those of the other, the difference is not clear. \
         Memory is what an idle connection adds in the server: resident memory of its own, and the \
         kernel's objects, stacks and page tables for it. Tasks are threads and processes."
            .to_owned(),
    ];
    paragraphs.map(|text| format!("<p>{}</p>\n", escaped(&text))).concat()
}

type Column = fn(&Cell) -> String;

/// The columns of the table, and what stands in them.
const COLUMNS: [(&str, Column); 26] = [
    ("model", |cell| cell.model.clone()),
    ("connections", |cell| grouped(cell.connections as f64)),
    ("active", |cell| grouped(cell.active as f64)),
    ("load", |cell| match cell.load {
        Load::Closed => "closed loop".to_owned(),
        Load::Open { rate_per_s } => format!("{}/s", grouped(rate_per_s)),
    }),
    ("rounds", |cell| cell.rounds.to_string()),
    ("requests/s", |cell| grouped(cell.requests_per_s.median)),
    ("min", |cell| whole(cell.requests_per_s.min)),
    ("max", |cell| whole(cell.requests_per_s.max)),
    ("mean µs", |cell| grouped(cell.latency_us.mean)),
    ("p50 µs", |cell| grouped(cell.latency_us.p50)),
    ("p90 µs", |cell| grouped(cell.latency_us.p90)),
    ("p99 µs", |cell| grouped(cell.latency_us.p99)),
    ("p99.9 µs", |cell| grouped(cell.latency_us.p99_9)),
    ("max µs", |cell| grouped(cell.latency_us.max)),
    ("server CPU µs/request", |cell| spread(cell.server_cpu_us_per_request)),
    ("load CPU µs/request", |cell| spread(Some(cell.load_cpu_us_per_request))),
    ("user B", |cell| whole(cell.memory.map(|memory| memory.user_bytes))),
    ("kernel objects B", |cell| whole(cell.memory.map(|memory| memory.kernel_object_bytes))),
    ("kernel stacks B", |cell| whole(cell.memory.map(|memory| memory.kernel_stack_bytes))),
    ("page tables B", |cell| whole(cell.memory.map(|memory| memory.page_table_bytes))),
    ("all B/connection", |cell| whole(cell.memory.map(|memory| memory.total_bytes()))),
    ("context switches/request", |cell| decimals(cell.context_switches_per_request)),
    ("system calls/request", |cell| decimals(cell.syscalls_per_request)),
    ("tasks", |cell| grouped(cell.tasks as f64)),
    ("failures", |cell| grouped(cell.failures as f64)),
    ("curve points", |cell| cell.latency_curve.len().to_string()),
];

fn table(race: &Race) -> String {
    let head: String = COLUMNS.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    let mut rows = String::new();
    let mut last = None;
    for cell in &race.cells {
        // A rule above each other load.
        let load = (cell.connections, cell.active);
        rows.push_str(if last == Some(load) { "<tr>" } else { "<tr class=\"group\">" });
        last = Some(load);
        for (at, (_, value)) in COLUMNS.iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            rows.push_str(&format!("<{tag}>{}</{tag}>", escaped(&value(cell))));
        }
        rows.push_str("</tr>\n");
    }
    for limit in &race.limits {
        let most = grouped(limit.connections as f64);
        rows.push_str(&format!(
            "<tr class=\"group\"><th>{}</th><td>{most}</td>\
             <td colspan=\"{}\" style=\"text-align:left\">at most: {}</td></tr>\n",
            escaped(&limit.model),
            COLUMNS.len() - 2,
            escaped(&limit.why)
        ));
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"The figures\">\n<table>\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

/// `6.56 (6.40 to 6.70)`.
fn spread(figure: Option<Spread>) -> String {
    figure.map_or("–".to_owned(), |spread| match spread.range() {
        None => format!("{:.2}", spread.median),
        Some((min, max)) => format!("{:.2} ({min:.2} to {max:.2})", spread.median),
    })
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or("–".to_owned(), grouped)
}

fn decimals(figure: Option<f64>) -> String {
    figure.map_or("–".to_owned(), |figure| format!("{figure:.2}"))
}

/// Text in HTML and XML, within an element or in quotes.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}
