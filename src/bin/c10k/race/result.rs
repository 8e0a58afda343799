//! What a race found: what `race --json` prints, and what the report is made of.

use serde::{Deserialize, Serialize};

/// One race: every model under the same loads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Race {
    pub(crate) c10k_version: String,
    /// What the figures say of the argument, in sentences. Written anew from the figures whenever a
    /// race is read.
    #[serde(default)]
    pub(crate) conclusion: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) method: Method,
    pub(crate) cells: Vec<Cell>,
    /// The models that could not hold as many connections as were asked for.
    pub(crate) limits: Vec<Limit>,
    /// What a reader should know before believing the figures.
    pub(crate) warnings: Vec<String>,
    /// The signal that ended it before its time: not all was raced as often as it should.
    #[serde(default)]
    pub(crate) interrupted: Option<String>,
}

/// Where it ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// As the processor names itself.
    pub(crate) cpu: String,
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    /// Its version, as in `6.18.0`.
    pub(crate) kernel: String,
}

/// How it was measured; the same for every cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Method {
    pub(crate) message_bytes: u32,
    /// The server had one CPU to itself and the load another.
    pub(crate) pinned: bool,
    /// How often each cell was measured, in turn with the others.
    pub(crate) rounds: u32,
    pub(crate) warmup_s: f64,
    pub(crate) duration_s: f64,
    /// Of the cells with an open loop, if there are any.
    pub(crate) open_rate_per_s: Option<f64>,
}

/// One model under one load. A figure that was not measured is absent, never zero.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) model: String,
    pub(crate) connections: u64,
    /// The connections that send requests; the others are idle.
    pub(crate) active: u64,
    pub(crate) load: Load,
    pub(crate) rounds: u32,
    pub(crate) requests_per_s: Spread,
    /// In the order of the rounds: those with the same place ran one after the other. `None` for a
    /// round that failed. Empty in a file of an earlier version.
    #[serde(default)]
    pub(crate) requests_per_s_by_round: Vec<Option<f64>>,
    pub(crate) latency_us: Latency,
    /// Quantiles between 0 and 1 and their latencies in microseconds, both rising. May be empty.
    #[serde(default)]
    pub(crate) latency_curve: Vec<(f64, f64)>,
    pub(crate) server_cpu_us_per_request: Option<Spread>,
    pub(crate) load_cpu_us_per_request: Spread,
    pub(crate) memory: Option<Memory>,
    /// Of the server.
    pub(crate) context_switches_per_request: Option<f64>,
    /// Of the server.
    pub(crate) syscalls_per_request: Option<f64>,
    /// The server's threads and processes.
    pub(crate) tasks: u64,
    /// Requests and connections that went wrong, in all rounds.
    pub(crate) failures: u64,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Load {
    /// When the reply to the last one is there: a slow server is asked less often.
    Closed,
    /// When it is due, at this rate over all connections.
    Open { rate_per_s: f64 },
}

/// A figure over the rounds. One round has no spread: its `min` and `max` are absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Spread {
    /// The figure of one round.
    pub(crate) fn once(figure: f64) -> Spread {
        Spread { median: figure, min: None, max: None }
    }

    /// The least and the most, if there were several rounds.
    pub(crate) fn range(self) -> Option<(f64, f64)> {
        self.min.zip(self.max)
    }

    /// The least that was measured.
    pub(crate) fn low(self) -> f64 {
        self.min.unwrap_or(self.median)
    }

    /// The most that was measured.
    pub(crate) fn high(self) -> f64 {
        self.max.unwrap_or(self.median)
    }

    /// Of the figures of all rounds, which it sorts.
    ///
    /// # Panics
    ///
    /// Without any figure.
    pub(crate) fn of(figures: &mut [f64]) -> Spread {
        figures.sort_by(f64::total_cmp);
        if let [figure] = figures[..] {
            return Spread::once(figure);
        }
        let (min, max) = (figures[0], figures[figures.len() - 1]);
        // Of an even number of figures there are two in the middle.
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Spread { median: (low + high) / 2.0, min: Some(min), max: Some(max) }
    }
}

impl Cell {
    /// Earlier versions wrote the figure of one round as its own minimum and maximum.
    pub(crate) fn drop_spread_of_one_round(&mut self) {
        if self.rounds > 1 {
            return;
        }
        let spreads = [&mut self.requests_per_s, &mut self.load_cpu_us_per_request];
        for spread in spreads.into_iter().chain(&mut self.server_cpu_us_per_request) {
            *spread = Spread::once(spread.median);
        }
    }
}

/// From a request to its reply: in an open loop, from when the request was due.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

/// What an idle connection adds to the server, in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Anonymous memory that is resident.
    pub(crate) user_bytes: f64,
    /// Sockets, files, epoll entries, tasks.
    pub(crate) kernel_object_bytes: f64,
    pub(crate) kernel_stack_bytes: f64,
    pub(crate) page_table_bytes: f64,
}

impl Memory {
    pub(crate) fn total_bytes(self) -> f64 {
        self.user_bytes + self.kernel_object_bytes + self.kernel_stack_bytes + self.page_table_bytes
    }
}

/// A model that holds no more connections than this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) model: String,
    /// The most it can hold.
    pub(crate) connections: u64,
    pub(crate) why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let spread = |mut figures: Vec<f64>| {
            let spread = Spread::of(&mut figures);
            (spread.median, spread.range())
        };
        assert_eq!(spread(vec![7.0]), (7.0, None));
        assert_eq!(spread(vec![9.0, 1.0, 2.0]), (2.0, Some((1.0, 9.0))));
        assert_eq!(spread(vec![4.0, 1.0, 9.0, 2.0]), (3.0, Some((1.0, 9.0))));
        let json = serde_json::to_string(&Spread::once(7.0)).unwrap();
        assert_eq!(json, r#"{"median":7.0,"min":null,"max":null}"#);
    }

    #[test]
    fn a_load_is_told_plainly() {
        let json = |load| serde_json::to_string(&load).unwrap();
        assert_eq!(json(Load::Closed), r#"{"kind":"closed"}"#);
        assert_eq!(json(Load::Open { rate_per_s: 5.0 }), r#"{"kind":"open","rate_per_s":5.0}"#);
    }
}
