//! The memory of idle connections: of one server as the rounds measured it, and of more connections
//! than one process may have, over several servers.

use std::io;

use crate::bench::Bench;
use crate::contenders::connections_max;
use crate::machine::{room_for, settle};
use crate::processes::Server;
use crate::result::{Cell, Held, HeldEntry, Spread};
use crate::rounds::Measured;

/// What the kernel and the load take for a connection, both ends of it: `c10k million` found 10.2 KB
/// on Linux 6.18, its server's among them. This leaves some room, which io_uring needs.
const BYTES_EACH: f64 = 11_500.0;

/// What a server takes before its first connection, and its share of the load.
const BYTES_PER_PROCESS: f64 = 16e6;

/// To be left free, for whatever else runs.
const BYTES_FREE: f64 = 1e9;

/// Taken for what the server itself needs for a connection, where nothing is known of it.
const BYTES_UNKNOWN: f64 = 16_384.0;

/// Refuses what nobody can have room for.
pub(super) fn check(connections: u64, per_process: u64) -> Result<(), String> {
    room_for(needed(connections, per_process, 0.0)).map_err(|why| {
        format!("{connections} idle connections are too many: {why}; see --memory-to")
    })
}

fn needed(connections: u64, per_process: u64, bytes_each: f64) -> u64 {
    let processes = connections.div_ceil(per_process) as f64;
    let connections = connections as f64;
    (connections * (BYTES_EACH + bytes_each) + processes * BYTES_PER_PROCESS + BYTES_FREE) as u64
}

/// As measured in each round, before anything was sent but the one request of each connection.
pub(super) fn in_one_process(cells: &[Cell]) -> Vec<Held> {
    let all_active = cells.iter().filter(|cell| cell.active == cell.connections);
    let held = all_active.map(|cell| {
        let entries = cell.entries.iter().filter_map(|entry| {
            let resident_bytes_per_idle_connection = entry.resident_bytes_per_idle_connection?;
            Some(HeldEntry { name: entry.name.clone(), resident_bytes_per_idle_connection })
        });
        Held { connections: cell.connections, processes: 1, entries: entries.collect() }
    });
    held.filter(|held| !held.entries.is_empty()).collect()
}

/// Each contender in turn, if there is room for it, to judge by what fewer connections took.
pub(super) fn measure(
    bench: &Bench,
    connections: u64,
    per_process: u64,
    memory: &mut Vec<Held>,
    measured: &mut Measured,
) {
    let processes = connections.div_ceil(per_process);
    let mut entries = Vec::new();
    for &name in &bench.names {
        if connections > connections_max(name) {
            continue;
        }
        eprintln!("{name}: {connections} idle connections, servers: {processes}");
        let known = memory.iter().rev().find_map(|held| {
            let entry = held.entries.iter().find(|entry| entry.name == name)?;
            Some(entry.resident_bytes_per_idle_connection.median)
        });
        let mut warn = |why: String| {
            let what = format!("{name} with {connections} idle connections: {why}");
            eprintln!("{what}");
            measured.warnings.push(what);
        };
        if let Err(why) = room_for(needed(connections, per_process, known.unwrap_or(BYTES_UNKNOWN)))
        {
            warn(why);
            continue;
        }
        match one(bench, name, connections, processes) {
            Ok(bytes) => entries.push(HeldEntry {
                name: name.to_owned(),
                resident_bytes_per_idle_connection: Spread {
                    median: bytes,
                    min: bytes,
                    max: bytes,
                },
            }),
            Err(error) => {
                warn(error.to_string());
                measured.failed += 1;
            }
        }
    }
    memory.push(Held { connections, processes, entries });
}

fn one(bench: &Bench, name: &str, connections: u64, processes: u64) -> io::Result<f64> {
    settle();
    let servers: Vec<Server> =
        (0..processes).map(|_| bench.server(name)).collect::<io::Result<_>>()?;
    let load = bench.idle_load(&servers, connections)?;
    let added: f64 = servers.iter().map(Server::memory_added).sum::<io::Result<_>>()?;
    drop(load);
    Ok(added / connections as f64)
}
