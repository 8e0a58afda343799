//! What a measurement found, as `--json` writes it. Names end in their units.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) machine: Machine,
    pub(crate) method: Method,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) kernel: String,
    /// Of the last minute, before it began.
    pub(crate) load_average: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Method {
    pub(crate) rounds: usize,
    pub(crate) duration_s: f64,
    pub(crate) warmup_s: f64,
    pub(crate) message_bytes: u64,
    pub(crate) server_cpu: usize,
    pub(crate) load_cpu: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// One load, and how each bore it; ours is the first.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) connections: u64,
    pub(crate) active: u64,
    pub(crate) pipeline: u64,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Requests per CPU second of the server, by ours of the same round: above 1, ours is behind.
    pub(crate) ratio_to_ours: Option<Spread>,
    pub(crate) requests_per_cpu_s: Spread,
    pub(crate) server_cpu_us_per_request: Spread,
    pub(crate) requests_per_s: Spread,
    pub(crate) p99_us: Spread,
    /// Anonymous memory of the server. `None` if there are too few connections to tell.
    pub(crate) resident_bytes_per_idle_connection: Option<Spread>,
    /// As `strace` counted them, once; `None` where it could not.
    pub(crate) syscalls_per_request: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub(crate) machine: Machine,
    pub(crate) method: Method,
    pub(crate) left_out: Vec<LeftOut>,
    /// One request under way on each active connection.
    pub(crate) cells: Vec<Cell>,
    pub(crate) memory: Vec<Held>,
    pub(crate) warnings: Vec<String>,
}

/// So many connections, each of which was answered once and is idle, and what they take.
#[derive(Debug, Serialize)]
pub(crate) struct Held {
    pub(crate) connections: u64,
    /// Server processes, which share them.
    pub(crate) processes: u64,
    /// Only of those that were measured.
    pub(crate) entries: Vec<HeldEntry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeldEntry {
    pub(crate) name: String,
    /// Anonymous memory of all the servers.
    pub(crate) resident_bytes_per_idle_connection: Spread,
}

/// Of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        // Of an even number of rounds, the mean of the two in the middle.
        let half = figures.len() / 2;
        let median = match figures.len() % 2 {
            1 => figures[half],
            _ => (figures[half - 1] + figures[half]) / 2.0,
        };
        Some(Spread { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let spread = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 9.0]), spread(3.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), spread(3.0, 1.0, 9.0));
    }
}
