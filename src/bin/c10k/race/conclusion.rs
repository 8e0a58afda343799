//! What a race's figures say of the argument, in sentences: that the event loop on epoll pays only
//! for the connections that are ready, `poll` for each that is open, and a thread in memory. The
//! figures choose the verb, whoever they favour.

use super::result::{Cell, Load, Race};
use crate::units::grouped;

/// One round has no spread to judge a difference by; a smaller one than this is not called one.
const LEVEL: f64 = 1.05;

/// Up to three sentences: on idle connections, on active ones, and on threads. One that the race
/// did not measure is left out.
pub(super) fn conclusion(race: &Race) -> Vec<String> {
    let among_idle = |cell: &Cell| cell.active < cell.connections;
    let all_active = |cell: &Cell| cell.active == cell.connections;
    let said: Vec<String> = [
        rates(race, "poll", among_idle),
        rates(race, "poll", all_active),
        memory(race).or_else(|| rates(race, "threads", all_active)),
    ]
    .into_iter()
    .flatten()
    .collect();
    match said.is_empty() {
        true => vec![
            "Nothing to conclude: epoll and another model were not measured under the same load."
                .to_owned(),
        ],
        false => said,
    }
}

/// epoll beside another, as fast as they answer, at the most connections that both were measured
/// with.
fn rates(race: &Race, other: &str, at: impl Fn(&Cell) -> bool) -> Option<String> {
    let (epoll, other) = side_by_side(race, other, |cell| cell.load == Load::Closed && at(cell))?;
    let nothing = |cell: &&Cell| cell.requests_per_s.low() <= 0.0;
    let said = match [epoll, other].into_iter().find(nothing) {
        None => Ratio::of(epoll, other).words("epoll", &other.model),
        Some(cell) => format!("{} answered nothing in a round: there is no ratio", cell.model),
    };
    Some(format!("With {}, {said}.", connections(epoll)))
}

/// The memory of an idle connection in the server, with threads and with epoll.
fn memory(race: &Race) -> Option<String> {
    let (epoll, threads) = side_by_side(race, "threads", |cell| cell.memory.is_some())?;
    let bytes = |cell: &Cell| cell.memory.map(|memory| memory.total_bytes());
    let (ours, theirs) = (bytes(epoll)?, bytes(threads)?);
    let count = grouped(epoll.connections as f64);
    let [ours_kb, theirs_kb] = [ours, theirs].map(|bytes| format!("{:.1} kB", bytes / 1e3));
    let (less, more) = (ours.min(theirs), ours.max(theirs));
    if less <= 0.0 {
        return None;
    }
    let compared = match (more <= less * LEVEL, theirs > ours) {
        (true, _) => "as much memory in a thread of its own as in epoll's loop".to_owned(),
        (_, true) => {
            format!(
                "{} as much memory in a thread of its own as in epoll's loop",
                times(more / less)
            )
        }
        (_, false) => {
            format!(
                "{} as much memory in epoll's loop as in a thread of its own",
                times(more / less)
            )
        }
    };
    Some(format!(
        "One of {count} connections takes {compared}: {theirs_kb} with threads, {ours_kb} with epoll."
    ))
}

/// The cells of epoll and of another under one load: that with the most connections, and among
/// those, with the fewest active ones.
fn side_by_side<'a>(
    race: &'a Race,
    other: &str,
    wanted: impl Fn(&Cell) -> bool,
) -> Option<(&'a Cell, &'a Cell)> {
    let of = |model: &str| {
        let wanted = &wanted;
        let model = model.to_owned();
        race.cells.iter().filter(move |cell| cell.model == model && wanted(cell))
    };
    let pairs = of("epoll").filter_map(|epoll| {
        let alike = |cell: &&Cell| {
            (cell.connections, cell.active, cell.load)
                == (epoll.connections, epoll.active, epoll.load)
        };
        Some((epoll, of(other).find(alike)?))
    });
    pairs.min_by_key(|(epoll, _)| (u64::MAX - epoll.connections, epoll.active))
}

/// `9,950 idle connections beside 50 active ones`, `10,000 connections, all active`.
fn connections(cell: &Cell) -> String {
    let count = |n: u64| grouped(n as f64);
    match cell.connections - cell.active {
        0 if cell.active == 1 => "1 connection".to_owned(),
        0 => format!("{} connections, all active", count(cell.connections)),
        idle => {
            let (idle_ones, ones) = (plural(idle), if cell.active == 1 { "one" } else { "ones" });
            format!("{} idle {idle_ones} beside {} active {ones}", count(idle), count(cell.active))
        }
    }
}

fn plural(connections: u64) -> &'static str {
    if connections == 1 { "connection" } else { "connections" }
}

/// How many times as many requests one model answers as another.
#[derive(Debug, Clone, Copy)]
struct Ratio {
    median: f64,
    /// The least and the most of the rounds, if there were several.
    range: Option<(f64, f64)>,
}

impl Ratio {
    /// From the rounds that both have: what else the machine did then, it did to both. In a file
    /// without them the range is the widest that the figures allow. Both answered something.
    fn of(one: &Cell, other: &Cell) -> Ratio {
        let (rate, other_rate) = (one.requests_per_s, other.requests_per_s);
        let rounds = one.requests_per_s_by_round.iter().zip(&other.requests_per_s_by_round);
        let mut ratios: Vec<f64> =
            rounds.filter_map(|(one, other)| Some((*one)? / (*other)?)).collect();
        ratios.sort_by(f64::total_cmp);
        match ratios[..] {
            [] => Ratio {
                median: rate.median / other_rate.median,
                range: rate
                    .range()
                    .zip(other_rate.range())
                    .map(|_| (rate.low() / other_rate.high(), rate.high() / other_rate.low())),
            },
            [ratio] => Ratio { median: ratio, range: None },
            [least, .., most] => {
                // Of an even number two are in the middle: their geometric mean, so that it is the
                // same whichever model is the first.
                let middle = ratios[(ratios.len() - 1) / 2] * ratios[ratios.len() / 2];
                Ratio { median: middle.sqrt(), range: Some((least, most)) }
            }
        }
    }

    fn inverse(self) -> Ratio {
        Ratio {
            median: 1.0 / self.median,
            range: self.range.map(|(least, most)| (1.0 / most, 1.0 / least)),
        }
    }

    /// `epoll answers 4.8 times as many requests as poll (4.1 to 5.3)`: the first is the one that
    /// answers more.
    fn words(self, one: &str, other: &str) -> String {
        // What is printed as 1.00 is not more than 1.
        let exceeds = |ratio: f64| ratio > 1.005;
        let (surely_more, surely_less) = match self.range {
            Some((least, most)) => (exceeds(least), exceeds(1.0 / most)),
            None => (self.median > LEVEL, self.median < 1.0 / LEVEL),
        };
        let range = |ratio: Ratio| {
            let figures = |(least, most)| format!(" ({} to {})", figure(least), figure(most));
            ratio.range.map_or(String::new(), figures)
        };
        match (surely_more, surely_less) {
            (true, _) => {
                let ratio = times(self.median);
                format!("{one} answers {ratio} as many requests as {other}{}", range(self))
            }
            (_, true) => {
                let inverse = self.inverse();
                let ratio = times(inverse.median);
                format!("{other} answers {ratio} as many requests as {one}{}", range(inverse))
            }
            _ => {
                let ratio = times(self.median);
                format!(
                    "{one} answers as many requests as {other} within the noise: {ratio} as many{}",
                    range(self)
                )
            }
        }
    }
}

fn times(ratio: f64) -> String {
    format!("{} times", figure(ratio))
}

/// With three digits below 2, where they matter, and with two above.
fn figure(ratio: f64) -> String {
    match ratio {
        ..1.995 => format!("{ratio:.2}"),
        ..9.95 => format!("{ratio:.1}"),
        _ => grouped(ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::report::sample::{self, cell};
    use crate::race::result::Spread;

    /// A cell with these rates in its rounds.
    fn rounds(model: &str, connections: u64, active: u64, rates: &[f64]) -> Cell {
        let mut cell = cell(model, connections, active, 1.0);
        cell.rounds = rates.len() as u32;
        cell.requests_per_s = Spread::of(&mut rates.to_vec());
        cell.requests_per_s_by_round = rates.iter().copied().map(Some).collect();
        cell.memory = None;
        cell
    }

    fn of(cells: Vec<Cell>) -> Vec<String> {
        conclusion(&Race { cells, ..sample::race() })
    }

    #[test]
    fn three_sentences_follow_from_the_figures() {
        assert_eq!(
            conclusion(&sample::race()),
            [
                "With 9,950 idle connections beside 50 active ones, epoll answers 5.3 times as many \
                 requests as poll.",
                "With 10,000 connections, all active, epoll answers as many requests as poll within \
                 the noise: 1.01 times as many.",
                "One of 10,000 connections takes 12 times as much memory in a thread of its own as \
                 in epoll's loop: 47.1 kB with threads, 4.1 kB with epoll.",
            ]
        );
    }

    #[test]
    fn the_spread_is_that_of_the_ratios_and_not_of_the_rates() {
        // Rates that differ by 3 between rounds, and ratios that are alike.
        let cells = vec![
            rounds("epoll", 100, 50, &[300.0, 100.0, 200.0]),
            rounds("poll", 100, 50, &[100.0, 50.0, 80.0]),
        ];
        let said = of(cells);
        let expected = "With 50 idle connections beside 50 active ones, epoll answers 2.5 times as \
                        many requests as poll (2.0 to 3.0).";
        assert_eq!(said, [expected]);
    }

    #[test]
    fn the_verb_follows_the_figures() {
        let cases: [(&[f64], &str); 5] = [
            (&[150.0, 120.0], "epoll answers 1.34 times as many requests as poll (1.20 to 1.50)."),
            (&[50.0, 80.0], "poll answers 1.58 times as many requests as epoll (1.25 to 2.0)."),
            (
                &[90.0, 130.0],
                "epoll answers as many requests as poll within the noise: 1.08 times as many (0.90 \
                 to 1.30).",
            ),
            // It would be printed as 1.00 to 1.20.
            (
                &[100.2, 120.0],
                "epoll answers as many requests as poll within the noise: 1.10 times as many (1.00 \
                 to 1.20).",
            ),
            (&[50.0], "poll answers 2.0 times as many requests as epoll."),
        ];
        for (epoll, expected) in cases {
            let poll = vec![100.0; epoll.len()];
            let said = of(vec![rounds("epoll", 9, 9, epoll), rounds("poll", 9, 9, &poll)]).concat();
            assert_eq!(said, format!("With 9 connections, all active, {expected}"));
        }
    }

    #[test]
    fn what_was_not_measured_is_not_said() {
        let nothing = of(Vec::new());
        assert!(nothing.len() == 1 && nothing[0].starts_with("Nothing to conclude"), "{nothing:?}");
        assert_eq!(of(vec![rounds("epoll", 9, 9, &[1.0]), rounds("spin", 9, 9, &[1.0])]), nothing);
        // Under another load.
        assert_eq!(of(vec![rounds("epoll", 9, 9, &[1.0]), rounds("poll", 8, 8, &[1.0])]), nothing);
        let said = of(vec![rounds("epoll", 9, 9, &[1.0]), rounds("poll", 9, 9, &[0.0])]).concat();
        assert!(said.ends_with("poll answered nothing in a round: there is no ratio."), "{said}");
        // Where few connections are open, no memory was measured: threads are compared by rate.
        let said = of(vec![rounds("epoll", 9, 9, &[3.0]), rounds("threads", 9, 9, &[2.0])]);
        assert_eq!(
            said,
            [
                "With 9 connections, all active, epoll answers 1.50 times as many requests as threads."
            ]
        );
        // Where poll failed at the most connections, it is compared at those it was measured with.
        let said = of(vec![
            rounds("epoll", 100, 5, &[9.0]),
            rounds("epoll", 20, 5, &[4.0]),
            rounds("poll", 20, 5, &[2.0]),
        ]);
        assert!(said[0].starts_with("With 15 idle connections beside 5 active ones"), "{said:?}");
    }

    #[test]
    fn rounds_that_one_of_them_lacks_are_left_out() {
        let mut poll = rounds("poll", 9, 9, &[1.0, 1.0, 1.0]);
        poll.requests_per_s_by_round[1] = None;
        let epoll = rounds("epoll", 9, 9, &[2.0, 100.0, 4.0]);
        let said = of(vec![epoll.clone(), poll.clone()]).concat();
        assert!(said.ends_with("epoll answers 2.8 times as many requests as poll (2.0 to 4.0)."));
        // A file of an earlier version has no rounds, only their bounds.
        let [mut epoll, mut poll] = [epoll, poll];
        epoll.requests_per_s_by_round.clear();
        poll.requests_per_s_by_round.clear();
        poll.requests_per_s = Spread::of(&mut [1.0, 2.0, 5.0]);
        let said = of(vec![epoll, poll]).concat();
        assert!(said.contains("within the noise: 2.0 times as many (0.40 to 100)."), "{said}");
    }
}
