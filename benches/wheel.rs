//! What the timing wheel costs, with as many timers as there may be connections.
//!
//! `cargo bench --bench wheel`
//!
//! Timers are due at random times within a minute, and are armed, cancelled and expire in an order
//! that is not that of the memory. An element is a timer.

use std::hint::black_box;
use std::iter;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use wheel::{Key, Wheel};

// It is not public, and needs nothing of the crate around it.
#[allow(dead_code, reason = "the tests in it, and what only the reactor calls")]
#[path = "../src/wheel.rs"]
mod wheel;

/// In ticks of a millisecond.
const MINUTE: u64 = 60_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    wheel(&mut criterion);
    criterion.final_summary();
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    // With a million timers, to set up takes longer than what is measured.
    group.sample_size(10);
    for timers in [10_000, 1_000_000] {
        let mut random = fastrand::Rng::with_seed(1);
        let ticks: Vec<u64> = iter::repeat_with(|| random.u64(1..=MINUTE)).take(timers).collect();

        group.throughput(Throughput::Elements(timers as u64));
        group.bench_function(BenchmarkId::new("arm", timers), |b| {
            let arm = |wheel: &mut Wheel<u64>| {
                for &tick in &ticks {
                    black_box(wheel.insert(tick, 0));
                }
            };
            b.iter_batched_ref(Wheel::new, arm, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("cancel", timers), |b| {
            let cancel = |(wheel, keys): &mut (Wheel<u64>, Vec<Key>)| {
                for &key in &*keys {
                    black_box(wheel.remove(key));
                }
                assert_eq!(wheel.len(), 0);
            };
            b.iter_batched_ref(|| armed(&ticks), cancel, BatchSize::PerIteration);
        });
        // Tick by tick, with all moves from coarser wheels to finer ones on the way. Among 10,000
        // timers the ticks, six to each, count as well.
        group.bench_function(BenchmarkId::new("expire", timers), |b| {
            let expire = |(wheel, _): &mut (Wheel<u64>, Vec<Key>)| {
                for now in 1..=MINUTE {
                    while let Some(expired) = wheel.expire(now) {
                        black_box(expired);
                    }
                }
                assert_eq!(wheel.len(), 0);
            };
            b.iter_batched_ref(|| armed(&ticks), expire, BatchSize::PerIteration);
        });

        // Asked once a turn, not for each timer.
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("next_tick", timers), |b| {
            let (wheel, _) = armed(&ticks);
            b.iter(|| black_box(&wheel).next_tick());
        });
    }
    group.finish();
}

/// A wheel with a timer for each of `ticks`, and their keys, shuffled.
fn armed(ticks: &[u64]) -> (Wheel<u64>, Vec<Key>) {
    let mut wheel = Wheel::new();
    let mut keys: Vec<Key> = ticks.iter().map(|&tick| wheel.insert(tick, 0)).collect();
    fastrand::Rng::with_seed(2).shuffle(&mut keys);
    (wheel, keys)
}
