//! Which cells are shown together: those that differ in nothing but the model, and in a chart
//! against connections, their number.

use crate::race::result::{Cell, Limit, Load, Race};

/// In the order of the tables. `blocking` is not among them: it serves one connection.
pub(super) const MODELS: [&str; 7] =
    ["processes", "threads", "spin", "select", "poll", "epoll", "epoll x2"];

/// Cells that can be compared, and how many of their connections are active.
#[derive(Debug)]
pub(super) struct Picture<'a> {
    pub(super) cells: Vec<&'a Cell>,
    active: Option<u64>,
}

impl<'a> Picture<'a> {
    /// All connections are active.
    pub(super) fn busy(race: &'a Race) -> Picture<'a> {
        let cells = shown(race, |cell| cell.load == Load::Closed && is_busy(cell));
        Picture { cells, active: None }
    }

    /// So many are active, and the others are idle.
    pub(super) fn idle(race: &'a Race) -> Picture<'a> {
        let idle = shown(race, |cell| cell.load == Load::Closed && !is_busy(cell));
        let most = idle.iter().max_by_key(|cell| cell.connections);
        let active = most.map(|cell| cell.active);
        let cells = idle.into_iter().filter(|cell| Some(cell.active) == active).collect();
        Picture { cells, active }
    }

    /// One load for all models, to compare their latencies: an open loop if there was one, and
    /// the most connections that two models can be compared at.
    pub(super) fn tail(race: &'a Race) -> Picture<'a> {
        let open = shown(race, |cell| cell.load != Load::Closed);
        let alike = |a: &Cell, b: &Cell| {
            (a.connections, a.active, a.load) == (b.connections, b.active, b.load)
        };
        let shared = |cell: &Cell| open.iter().filter(|other| alike(cell, other)).count() > 1;
        let Some(shown) = open.iter().max_by_key(|cell| (shared(cell), cell.connections)) else {
            return Picture::busy(race).at_most_connections();
        };
        let cells = open.iter().filter(|cell| alike(cell, shown)).copied().collect();
        Picture { cells, active: (!is_busy(shown)).then_some(shown.active) }
    }

    /// The cells whose memory was measured, with the most connections.
    pub(super) fn memory(race: &'a Race) -> Picture<'a> {
        let measured = shown(race, |cell| cell.memory.is_some());
        let most = measured.iter().map(|cell| cell.connections).max();
        let mut cells: Vec<&Cell> = Vec::new();
        // A model's idle connections were measured under each load: one of them is shown.
        for cell in measured {
            let shown = cells.iter().any(|shown| shown.model == cell.model);
            if Some(cell.connections) == most && !shown {
                cells.push(cell);
            }
        }
        Picture { cells, active: None }
    }

    /// The cells with the most connections, or with as many as two models were measured with.
    pub(super) fn at_most_connections(&self) -> Picture<'a> {
        let counts = self.counts();
        let comparable = counts.iter().rev().find(|&&count| self.at(count).cells.len() > 1);
        let count = comparable.or(counts.last()).copied().unwrap_or(0);
        self.at(count)
    }

    pub(super) fn at(&self, connections: u64) -> Picture<'a> {
        let cells = self.cells.iter().filter(|cell| cell.connections == connections);
        Picture { cells: cells.copied().collect(), active: self.active }
    }

    /// The counts of connections that were measured, rising.
    pub(super) fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<u64> = self.cells.iter().map(|cell| cell.connections).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// The models that were measured, in the order of the tables.
    pub(super) fn models(&self) -> Vec<&'a str> {
        let mut models: Vec<&str> = self.cells.iter().map(|cell| cell.model.as_str()).collect();
        models.sort_by_key(|model| (place(model), *model));
        models.dedup();
        models
    }

    /// The cells of a model, by the number of connections.
    pub(super) fn of(&self, model: &str) -> Vec<&'a Cell> {
        let cells = self.cells.iter().filter(|cell| cell.model == model).copied();
        let mut cells: Vec<_> = cells.collect();
        cells.sort_by_key(|cell| cell.connections);
        cells
    }

    /// How many are active, for a title.
    pub(super) fn activity(&self) -> String {
        self.active.map_or("all active".to_owned(), |active| format!("{active} active"))
    }
}

/// Why a model's line ends before the others: it can hold no more.
pub(super) fn limit_of<'a>(
    race: &'a Race,
    picture: &Picture<'_>,
    model: &str,
) -> Option<&'a Limit> {
    let most = picture.counts().last().copied()?;
    let limit = race.limits.iter().find(|limit| limit.model == model)?;
    let last = picture.of(model).last()?.connections;
    (last < most && limit.connections < most).then_some(limit)
}

fn is_busy(cell: &Cell) -> bool {
    cell.active == cell.connections
}

fn shown(race: &Race, wanted: impl Fn(&Cell) -> bool) -> Vec<&Cell> {
    let mut cells: Vec<&Cell> = race.cells.iter().filter(|cell| wanted(cell)).collect();
    cells.retain(|cell| cell.model != "blocking");
    cells.sort_by_key(|cell| place(&cell.model));
    cells
}

/// A model's place in a table; one that is not in the list comes last.
fn place(model: &str) -> usize {
    MODELS.iter().position(|known| *known == model).unwrap_or(MODELS.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::report::sample::{self, cell};

    fn models(picture: &Picture<'_>) -> Vec<String> {
        picture.models().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_picture_has_the_models_in_order_and_never_blocking() {
        let race = sample::race();
        assert_eq!(models(&Picture::busy(&race)), ["threads", "select", "poll", "epoll"]);
        assert_eq!(models(&Picture::idle(&race)), ["threads", "poll", "epoll"]);
        assert_eq!(Picture::busy(&race).counts(), [100, 1_000, 10_000]);
        assert_eq!(Picture::idle(&race).activity(), "50 active");
    }

    #[test]
    fn tails_are_compared_at_a_load_that_models_share() {
        let mut race = sample::race();
        race.cells.clear();
        for (model, connections, rate) in
            [("epoll", 100, 5e3), ("poll", 100, 5e3), ("epoll", 100, 9e3), ("epoll", 1_000, 5e3)]
        {
            let mut open = cell(model, connections, connections, rate);
            open.load = Load::Open { rate_per_s: rate };
            race.cells.push(open);
        }
        let tail = Picture::tail(&race);
        assert_eq!((models(&tail).len(), tail.counts(), tail.cells.len()), (2, vec![100], 2));
    }

    #[test]
    fn a_model_has_a_limit_in_a_picture_only_if_its_line_stops_there() {
        let race = sample::race();
        let busy = Picture::busy(&race);
        assert!(limit_of(&race, &busy, "select").is_some());
        assert!(limit_of(&race, &busy, "epoll").is_none());
        // It was not measured there at all, or all others stop with it.
        assert!(limit_of(&race, &busy, "blocking").is_none());
        assert!(limit_of(&race, &busy.at(1_000), "select").is_none());
    }
}
