//! Many rounds of a race become one figure for each cell, and the spread of it.

use super::result::{Cell, Latency, Load, Memory, Spread};
use super::runner::{Outcome, Setup};
use crate::load::Report;

/// Fewer connections than this are too few to tell their memory from the noise of the machine.
const CONNECTIONS_MEASURABLE: u64 = 5_000;

/// The cells of one setup: one for each of its trials that was measured in some round.
pub(super) fn cells(
    setup: &Setup,
    outcomes: &[Outcome],
    load_slab_bytes: Option<f64>,
) -> Vec<Cell> {
    let memory = load_slab_bytes.and_then(|load| memory(setup, outcomes, load));
    let tasks = outcomes.iter().map(|outcome| outcome.tasks).max().unwrap_or(0);
    let trials = setup.trials.iter().enumerate();
    trials
        .filter_map(|(at, trial)| {
            // One that was interrupted lacks its last trials.
            let rounds: Vec<&Report> =
                outcomes.iter().filter_map(|round| round.measured.get(at)).collect();
            if rounds.is_empty() {
                return None;
            }
            let median = |of: fn(&Report) -> f64| spread(&rounds, of).median;
            Some(Cell {
                model: setup.model.name.to_owned(),
                connections: setup.connections,
                active: trial.active,
                load: trial.rate_per_s.map_or(Load::Closed, |rate_per_s| Load::Open { rate_per_s }),
                rounds: rounds.len() as u32,
                requests_per_s: spread(&rounds, |round| round.requests_per_s),
                requests_per_s_by_round: by_round(outcomes, at),
                latency_us: Latency {
                    mean: median(|round| round.latency_us.mean),
                    p50: median(|round| round.latency_us.p50),
                    p90: median(|round| round.latency_us.p90),
                    p99: median(|round| round.latency_us.p99),
                    p99_9: median(|round| round.latency_us.p99_9),
                    max: median(|round| round.latency_us.max),
                },
                latency_curve: curve(&rounds),
                server_cpu_us_per_request: known(&rounds, |round| round.server_cpu_us_per_request),
                load_cpu_us_per_request: spread(&rounds, |round| round.load_cpu_us_per_request),
                memory,
                context_switches_per_request: known(&rounds, |round| {
                    round.server_switches_per_request
                })
                .map(|spread| spread.median),
                syscalls_per_request: match at {
                    0 => outcomes.iter().find_map(|round| round.syscalls_per_request),
                    _ => None,
                },
                tasks,
                failures: rounds.iter().map(|round| round.failures.total()).sum(),
            })
        })
        .collect()
}

/// The rates of a trial, each in the place of its round.
fn by_round(outcomes: &[Outcome], trial: usize) -> Vec<Option<f64>> {
    let rounds = outcomes.last().map_or(0, |last| last.round);
    let of = |round| outcomes.iter().find(|outcome| outcome.round == round)?.measured.get(trial);
    (1..=rounds).map(|round| Some(of(round)?.requests_per_s)).collect()
}

fn spread(rounds: &[&Report], of: impl Fn(&Report) -> f64) -> Spread {
    Spread::of(&mut rounds.iter().map(|round| of(round)).collect::<Vec<_>>())
}

/// `None` if some round does not know.
fn known(rounds: &[&Report], of: fn(&Report) -> Option<f64>) -> Option<Spread> {
    let mut figures = rounds.iter().map(|round| of(round)).collect::<Option<Vec<_>>>()?;
    Some(Spread::of(&mut figures))
}

/// The median of each point of the rounds' curves, which all have the same quantiles.
fn curve(rounds: &[&Report]) -> Vec<(f64, f64)> {
    let first = &rounds[0].latency_curve_us;
    let points = first.iter().enumerate().map(|(at, &(quantile, _))| {
        (quantile, spread(rounds, |round| round.latency_curve_us[at].1).median)
    });
    points.collect()
}

/// What an idle connection takes in the server: the median of the rounds. The kernel's objects are
/// counted on both ends, of which the load's part is taken off.
fn memory(setup: &Setup, outcomes: &[Outcome], load_slab_bytes: f64) -> Option<Memory> {
    if outcomes.is_empty() || setup.connections < CONNECTIONS_MEASURABLE {
        return None;
    }
    let each = |of: fn(&Outcome) -> i64| {
        let bytes = |round: &Outcome| of(round) as f64 / setup.connections as f64;
        Spread::of(&mut outcomes.iter().map(bytes).collect::<Vec<_>>()).median
    };
    // What was freed meanwhile may be more than what was added.
    let some = |bytes: f64| bytes.max(0.0);
    Some(Memory {
        user_bytes: some(each(|round| round.idle.resident)),
        kernel_object_bytes: some(each(|round| round.idle.slab) - load_slab_bytes),
        kernel_stack_bytes: some(each(|round| round.idle.stacks)),
        page_table_bytes: some(each(|round| round.idle.tables)),
    })
}

/// The kernel's objects for one connection exist at both ends, and here both ends are on one
/// machine. Under epoll the two are alike (a socket, a file, an epoll entry), so half of the sum
/// is the load generator's. Under any model it is the same, and what is left is the server's.
pub(super) fn load_slab_bytes(rounds: &[(Setup, Vec<Outcome>)]) -> Option<f64> {
    let epoll = rounds.iter().filter(|(setup, _)| setup.model.name == "epoll");
    let (setup, outcomes) = epoll.max_by_key(|(setup, _)| setup.connections)?;
    if outcomes.is_empty() || setup.connections < CONNECTIONS_MEASURABLE {
        return None;
    }
    let both = |round: &Outcome| round.idle.slab as f64 / setup.connections as f64;
    Some(Spread::of(&mut outcomes.iter().map(both).collect::<Vec<_>>()).median / 2.0)
}
