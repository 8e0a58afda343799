//! The sentences under the charts, written from the figures. They say who is ahead, whoever it is.

use super::axis::time;
use super::chart::kilobytes;
use super::picture::Picture;
use crate::race::result::{Cell, Load, Race, Spread};
use crate::units::grouped;

/// Those that are compared, where they were measured: the event loop, what it replaced, and what
/// it competes with.
const NAMED: [&str; 3] = ["epoll", "poll", "threads"];

/// Medians that differ by less are level, as single runs differ by more.
const LEVEL: f64 = 1.05;

const NOTHING: &str = "Not measured in this race.";

/// Who is ahead at one load, and by how much.
struct Standing<'a> {
    first: (&'a str, f64),
    /// As good as the first.
    level: Vec<(&'a str, f64)>,
    /// Worse, but not in every round.
    unclear: Vec<(&'a str, f64)>,
    behind: Vec<(&'a str, f64)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Best {
    Most,
    Least,
}

impl<'a> Standing<'a> {
    fn of(
        picture: &Picture<'a>,
        best: Best,
        figure: impl Fn(&Cell) -> Option<Spread>,
    ) -> Option<Standing<'a>> {
        let cells = picture.cells.iter();
        let mut figures: Vec<(&str, Spread)> =
            cells.filter_map(|cell| Some((cell.model.as_str(), figure(cell)?))).collect();
        figures.sort_by(|(_, a), (_, b)| match best {
            Best::Most => b.median.total_cmp(&a.median),
            Best::Least => a.median.total_cmp(&b.median),
        });
        let (&first, rest) = figures.split_first()?;
        let named = |(model, _): &(&str, Spread)| NAMED.contains(model);
        let any_named = rest.iter().any(named);
        let rest = rest.iter().filter(|figure| !any_named || named(figure));
        let mut standing = Standing {
            first: (first.0, first.1.median),
            level: Vec::new(),
            unclear: Vec::new(),
            behind: Vec::new(),
        };
        for (model, other) in rest {
            let place = match () {
                () if are_level(first.1, *other) => &mut standing.level,
                () if overlap(first.1, *other) => &mut standing.unclear,
                () => &mut standing.behind,
            };
            place.push((model, other.median));
        }
        Some(standing)
    }

    /// What follows the first and its figure: `, level with poll (9) and 2.0 times as many as
    /// threads (5)`.
    fn against(&self, number: impl Fn(f64) -> String, times: &str, unclear: &str) -> String {
        let mut parts = Vec::new();
        let figure = |&(model, value): &(&str, f64)| format!("{model} ({})", number(value));
        for (others, how) in [(&self.level, "level with"), (&self.unclear, unclear)] {
            if !others.is_empty() {
                let others: Vec<_> = others.iter().map(figure).collect();
                parts.push(format!("{how} {}", list(&others)));
            }
        }
        let behind = |other: &(&str, f64)| {
            let ratio = (self.first.1 / other.1).max(other.1 / self.first.1);
            format!("{} {times} {}", many(ratio), figure(other))
        };
        // Against nothing there is no ratio.
        let measurable = self.behind.iter().filter(|other| self.first.1 * other.1 > 0.0);
        parts.extend(measurable.map(behind));
        match parts.is_empty() {
            true => String::new(),
            false => format!(", {}", list(&parts)),
        }
    }
}

fn are_level(a: Spread, b: Spread) -> bool {
    a.median.max(b.median) <= a.median.min(b.median) * LEVEL
}

/// Whether the one that is worse was as good in some round.
fn overlap(a: Spread, b: Spread) -> bool {
    a.low() <= b.high() && b.low() <= a.high()
}

pub(super) fn throughput(race: &Race) -> String {
    rates(&Picture::busy(race))
}

pub(super) fn idle(race: &Race) -> String {
    rates(&Picture::idle(race))
}

fn rates(picture: &Picture<'_>) -> String {
    let rate = |cell: &Cell| Some(cell.requests_per_s);
    let most = picture.at_most_connections();
    let Some(standing) = Standing::of(&most, Best::Most, rate) else { return NOTHING.to_owned() };
    let (model, figure) = standing.first;
    let rest = standing.against(grouped, "as many as", "not clearly more than");
    let mut text = format!(
        "{}, {model} answers {} requests a second{rest}",
        capital(&with(&most)),
        grouped(figure)
    );
    // With few connections another may be ahead, and that is as true.
    let fewest = picture.at(picture.counts()[0]);
    let leader = fewest
        .cells
        .iter()
        .max_by(|a, b| a.requests_per_s.median.total_cmp(&b.requests_per_s.median));
    let of_model = fewest.of(model);
    if let (Some(leader), Some(same)) = (leader, of_model.first())
        && !are_level(leader.requests_per_s, same.requests_per_s)
        && !overlap(leader.requests_per_s, same.requests_per_s)
    {
        let (other, figure) = (&leader.model, leader.requests_per_s.median);
        text.push_str(&format!("; {}, {other} leads with {}", with(&fewest), grouped(figure)));
    }
    text + "."
}

pub(super) fn latency(race: &Race) -> String {
    let picture = Picture::tail(race);
    let tail = |cell: &Cell| Some(Spread::once(cell.latency_us.p99_9));
    let Some(standing) = Standing::of(&picture, Best::Least, tail) else {
        return NOTHING.to_owned();
    };
    let asked = match picture.cells[0].load {
        Load::Closed => String::new(),
        Load::Open { rate_per_s } => format!(" and {} requests a second", grouped(rate_per_s)),
    };
    let (model, figure) = standing.first;
    let rest = standing.against(time, "as long with", "not clearly less than with");
    let with = capital(&with(&picture));
    format!(
        "{with}{asked}, one request in 1,000 takes {} or more with {model}{rest}.",
        time(figure)
    )
}

pub(super) fn memory(race: &Race) -> String {
    let picture = Picture::memory(race);
    let total = |cell: &Cell| Some(cell.memory?.total_bytes());
    let mut totals: Vec<_> =
        picture.cells.iter().filter_map(|cell| Some((cell.model.as_str(), total(cell)?))).collect();
    totals.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (Some(&(least, few)), Some(&(most, many_bytes))) = (totals.first(), totals.last()) else {
        return NOTHING.to_owned();
    };
    let with = format!("With {} connections", grouped(picture.cells[0].connections as f64));
    let few_kb = kilobytes(few);
    if least == most {
        return format!("{with}, an idle one takes {few_kb} with {least}.");
    }
    let others: Vec<_> = totals[1..]
        .iter()
        .filter(|(model, _)| *model == most || NAMED.contains(model))
        .map(|(model, bytes)| format!("{} with {model}", kilobytes(*bytes)))
        .collect();
    let times = match few > 0.0 {
        true => format!(": {} as much as with {least}", many(many_bytes / few)),
        false => String::new(),
    };
    format!("{with}, an idle one takes {few_kb} with {least}, {}{times}.", list(&others))
}

pub(super) fn cpu(race: &Race) -> String {
    let cpu = |cell: &Cell| cell.server_cpu_us_per_request;
    let mut parts = Vec::new();
    for picture in [Picture::busy(race), Picture::idle(race)] {
        let most = picture.at_most_connections();
        if let Some(standing) = Standing::of(&most, Best::Least, cpu) {
            let (model, figure) = standing.first;
            let us = |us: f64| format!("{us:.1} µs");
            let rest = standing.against(us, "as much with", "not clearly less than with");
            parts.push(format!(
                "{}, a request costs {model} {} of CPU{rest}",
                with(&most),
                us(figure)
            ));
        }
    }
    match parts.is_empty() {
        true => NOTHING.to_owned(),
        false => format!("{}.", capital(&parts.join("; "))),
    }
}

/// `with 100 connections, all active`.
fn with(picture: &Picture<'_>) -> String {
    let connections = picture.cells.first().map_or(0, |cell| cell.connections);
    match connections {
        1 => "with 1 connection".to_owned(),
        _ => format!("with {} connections, {}", grouped(connections as f64), picture.activity()),
    }
}

/// `5.3 times`.
fn many(ratio: f64) -> String {
    match ratio < 9.95 {
        true => format!("{ratio:.1} times"),
        false => format!("{} times", grouped(ratio)),
    }
}

/// `a, b and c`.
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::report::sample::{self, cell};
    use crate::race::result::Memory;

    /// The sample with one rate changed.
    fn with_rate(model: &str, connections: u64, active: u64, rate: f64) -> Race {
        let mut race = sample::race();
        race.cells.retain(|cell| {
            (cell.model.as_str(), cell.connections, cell.active) != (model, connections, active)
        });
        race.cells.push(cell(model, connections, active, rate));
        race
    }

    /// A race of these cells.
    fn of(cells: Vec<Cell>) -> Race {
        Race { cells, ..sample::race() }
    }

    #[test]
    fn a_tie_is_called_one_and_the_rest_is_measured_against_it() {
        assert_eq!(
            throughput(&sample::race()),
            "With 10,000 connections, all active, epoll answers 120,600 requests a second, level \
             with poll (118,842) and 1.8 times as many as threads (65,418)."
        );
    }

    #[test]
    fn what_idle_connections_cost_is_said_in_figures_and_so_is_who_leads_without_them() {
        assert_eq!(
            idle(&sample::race()),
            "With 10,000 connections, 50 active, epoll answers 150,391 requests a second, 1.3 times \
             as many as threads (113,413) and 5.3 times as many as poll (28,495); with 100 \
             connections, 50 active, poll leads with 174,689."
        );
    }

    #[test]
    fn whoever_is_ahead_is_said_to_be() {
        for (winner, loser) in [("threads", "epoll"), ("poll", "epoll"), ("spin", "epoll")] {
            let race = with_rate(winner, 10_000, 10_000, 241_200.0);
            let text = throughput(&race);
            assert!(
                text.contains(&format!("{winner} answers 241,200 requests a second")),
                "{text}"
            );
            assert!(text.contains(&format!("2.0 times as many as {loser} (120,600)")), "{text}");
        }
    }

    #[test]
    fn rounds_that_overlap_show_no_clear_difference() {
        let mut race = with_rate("threads", 10_000, 10_000, 90_000.0);
        let threads = race.cells.last_mut().unwrap();
        threads.requests_per_s.max = Some(121_000.0);
        let text = throughput(&race);
        let expected = "level with poll (118,842) and not clearly more than threads (90,000).";
        assert!(text.ends_with(expected), "{text}");
        // And who led with few connections is said only if it did in every round.
        let mut race = sample::race();
        for cell in &mut race.cells {
            cell.requests_per_s.max = Some(cell.requests_per_s.median * 1.1);
        }
        assert!(!idle(&race).contains("leads"), "{}", idle(&race));
    }

    #[test]
    fn what_is_missing_is_not_compared() {
        assert_eq!(throughput(&of(Vec::new())), NOTHING);
        for reading in [idle, latency, memory, cpu] {
            assert_eq!(reading(&of(Vec::new())), NOTHING);
        }
        let alone = of(vec![cell("epoll", 100, 100, 5e4)]);
        assert_eq!(
            throughput(&alone),
            "With 100 connections, all active, epoll answers 50,000 requests a second."
        );
        assert_eq!(memory(&alone), NOTHING);
        // The most connections that two models were measured with, and not those of one alone.
        let text = throughput(&of(vec![
            cell("epoll", 100, 100, 5e4),
            cell("poll", 100, 100, 1e4),
            cell("epoll", 20_000, 20_000, 5e4),
        ]));
        assert!(text.starts_with("With 100 connections") && text.contains("5.0 times"), "{text}");
        // Nothing is not so many times as many as something.
        let text = throughput(&of(vec![cell("epoll", 9, 9, 5e4), cell("poll", 9, 9, 0.0)]));
        assert!(text.ends_with("50,000 requests a second."), "{text}");
    }

    #[test]
    fn a_tail_is_that_of_an_open_loop_where_there_is_one() {
        let mut race = sample::race();
        let text = latency(&race);
        assert!(text.starts_with("With 10,000 connections, all active, one request in"), "{text}");
        for (model, p99_9) in [("epoll", 500.0), ("threads", 2_000.0)] {
            let mut open = cell(model, 1_000, 1_000, 4e4);
            open.load = Load::Open { rate_per_s: 4e4 };
            open.latency_us.p99_9 = p99_9;
            race.cells.push(open);
        }
        assert_eq!(
            latency(&race),
            "With 1,000 connections, all active and 40,000 requests a second, one request in 1,000 \
             takes 500 µs or more with epoll, 4.0 times as long with threads (2.0 ms)."
        );
    }

    #[test]
    fn memory_is_compared_from_the_least_to_the_most() {
        let race = sample::race();
        assert_eq!(
            memory(&race),
            "With 10,000 connections, an idle one takes 4.1 kB with poll, 4.1 kB with epoll and \
             47.1 kB with threads: 12 times as much as with poll."
        );
        let mut one = cell("threads", 10_000, 10_000, 1.0);
        let kernel_stack_bytes = 16_384.0;
        one.memory = one.memory.map(|memory| Memory { kernel_stack_bytes, ..memory });
        assert!(memory(&of(vec![one])).ends_with("an idle one takes 47.1 kB with threads."));
    }

    #[test]
    fn cpu_is_compared_for_busy_and_for_idle_connections() {
        assert_eq!(
            cpu(&sample::race()),
            "With 10,000 connections, all active, a request costs epoll 8.3 µs of CPU, level with \
             poll (8.4 µs) and 1.8 times as much with threads (15.3 µs); with 10,000 connections, 50 \
             active, a request costs epoll 6.6 µs of CPU, 1.3 times as much with threads (8.8 µs) \
             and 5.3 times as much with poll (35.1 µs)."
        );
    }
}
