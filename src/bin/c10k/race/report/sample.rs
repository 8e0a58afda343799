//! A race to test with. Its figures are made up to have a winner here and a tie there.

use crate::race::result::{Cell, Latency, Limit, Load, Machine, Memory, Method, Race, Spread};

/// With a latency of a closed loop at that rate, and figures for all else.
pub(crate) fn cell(model: &str, connections: u64, active: u64, rate: f64) -> Cell {
    let us = 1e6 * active as f64 / rate.max(1.0);
    let threads = if model == "threads" { 1.0 } else { 0.0 };
    Cell {
        model: model.to_owned(),
        connections,
        active,
        load: Load::Closed,
        rounds: 1,
        requests_per_s: Spread::once(rate),
        requests_per_s_by_round: vec![Some(rate)],
        latency_us: Latency {
            mean: us,
            p50: us,
            p90: us * 1.5,
            p99: us * 2.0,
            p99_9: us * 4.0,
            max: us * 9.0,
        },
        latency_curve: Vec::new(),
        server_cpu_us_per_request: Some(Spread::once(1e6 / rate.max(1.0))),
        load_cpu_us_per_request: Spread::once(4.0),
        memory: (connections >= 10_000).then_some(Memory {
            user_bytes: 81.0 + threads * 18_600.0,
            kernel_object_bytes: 4_000.0 + threads * 8_000.0,
            kernel_stack_bytes: threads * 16_384.0,
            page_table_bytes: 0.0,
        }),
        context_switches_per_request: None,
        syscalls_per_request: Some(2.01),
        tasks: 1,
        failures: 0,
    }
}

pub(crate) fn race() -> Race {
    let rates = [
        ("select", [(100, 134_122.0), (1_000, 152_967.0)].as_slice(), [].as_slice()),
        ("poll", &[(100, 159_790.0), (10_000, 118_842.0)], &[(100, 174_689.0), (10_000, 28_495.0)]),
        (
            "epoll",
            &[(100, 181_026.0), (10_000, 120_600.0)],
            &[(100, 160_000.0), (10_000, 150_391.0)],
        ),
        (
            "threads",
            &[(100, 116_847.0), (10_000, 65_418.0)],
            &[(100, 120_236.0), (10_000, 113_413.0)],
        ),
    ];
    let mut cells = vec![cell("blocking", 1, 1, 20_000.0)];
    for (model, busy, idle) in rates {
        cells.extend(busy.iter().map(|&(count, rate)| cell(model, count, count, rate)));
        cells.extend(idle.iter().map(|&(count, rate)| cell(model, count, 50, rate)));
    }
    let limit = |model: &str, connections| Limit {
        model: model.to_owned(),
        connections,
        why: "it is full".to_owned(),
    };
    Race {
        c10k_version: "0.0.0".to_owned(),
        conclusion: Vec::new(),
        machine: Machine {
            cpu: "AMD EPYC".to_owned(),
            cpus: 2,
            memory_bytes: 24 << 30,
            kernel: "6.18".to_owned(),
        },
        method: Method {
            message_bytes: 64,
            pinned: true,
            rounds: 1,
            warmup_s: 0.5,
            duration_s: 1.5,
            open_rate_per_s: None,
        },
        cells,
        limits: vec![limit("select", 1_015), limit("blocking", 1)],
        warnings: vec!["a warning & its reason".to_owned()],
        interrupted: None,
    }
}
