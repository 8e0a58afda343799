//! What more connections cost: the CPU time of a request, and the memory of an idle connection.

mod memory;
mod table;

use std::error::Error;
use std::fs::File;

use rustix::process::{Resource, getrlimit};

use crate::bench::{self, Bench, or};
use crate::machine::Watch;
use crate::result::Growth;
use crate::rounds::{self, Plan, Setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many connections in one server [default: 1,10,100,1000,10000,18000; with --quick
    /// 1,10,100,1000]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    connections: Vec<u64>,
    /// How many are active among idle ones, where there are more
    #[arg(long, value_name = "M", default_value = "50")]
    active: u64,
    /// How often each is measured, in turn with the others
    #[arg(long, value_name = "N", default_value = "3")]
    rounds: usize,
    /// Measure the memory of up to so many idle connections, over several servers: once each, and
    /// 0 for none of that [default: 1000000; with --quick 0]
    #[arg(long, value_name = "N")]
    memory_to: Option<u64>,
    /// How many of those one server has
    #[arg(long, value_name = "N", default_value = "18000", value_parser = clap::value_parser!(u64).range(1..))]
    per_process: u64,
    #[command(flatten)]
    bench: bench::Options,
}

/// With these a page of memory more or less is 41 bytes for each, and with fewer nothing else is
/// to be seen.
const CONNECTIONS_MEASURABLE: u64 = 100;

/// What a process has open besides connections, at most.
const FDS_BESIDES: u64 = 100;

pub(crate) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let quick = args.bench.quick;
    let usual = [1, 10, 100, 1_000, 10_000, 18_000];
    let connections = or(&args.connections, if quick { &usual[..4] } else { &usual });
    let in_one = connections.iter().copied().max().unwrap_or(0);
    let memory_to = args.memory_to.unwrap_or(if quick { 0 } else { 1_000_000 });
    let beyond = beyond(in_one, memory_to);
    check_fds(if beyond.is_empty() { in_one } else { in_one.max(args.per_process) })?;
    if let Some(&most) = beyond.last() {
        memory::check(most, args.per_process)?;
    }

    let json = args.bench.json.as_deref().map(File::create).transpose()?;
    let watch = Watch::begin();
    let bench = Bench::new(args.bench)?;
    let setups = connections.iter().map(|&connections| Setup { connections, pipeline: 1 });
    let plan = Plan {
        setups: setups.collect(),
        active: args.active,
        rounds: args.rounds,
        memory_from: CONNECTIONS_MEASURABLE,
        counts_calls: false,
    };
    let mut measured = rounds::measure(&bench, &plan);
    let mut memory = memory::in_one_process(&measured.cells);
    for connections in beyond {
        memory::measure(&bench, connections, args.per_process, &mut memory, &mut measured);
    }
    measured.warnings.extend(watch.warnings());
    let growth = Growth {
        method: bench.method(plan.rounds),
        machine: watch.machine,
        left_out: bench.left_out,
        cells: measured.cells,
        memory,
        warnings: measured.warnings,
    };
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &growth)?;
    }
    print!("{}", table::text(&growth, &bench.names));
    rounds::outcome(measured.failed)
}

/// The numbers of connections that are more than one server is given: powers of ten, and the last.
fn beyond(in_one: u64, memory_to: u64) -> Vec<u64> {
    let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
    let mut beyond: Vec<u64> = powers.filter(|&n| n > in_one && n < memory_to).collect();
    beyond.extend(Some(memory_to).filter(|&n| n > in_one));
    beyond
}

fn check_fds(connections: u64) -> Result<(), String> {
    // `None`: there is no limit.
    let Some(most) = getrlimit(Resource::Nofile).maximum else { return Ok(()) };
    if connections + FDS_BESIDES <= most {
        return Ok(());
    }
    Err(format!(
        "{connections} connections in one process need as many descriptors, and it may have {most}: \
         see --connections and --per-process"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_one_server_come_powers_of_ten_and_the_last() {
        assert_eq!(beyond(18_000, 1_000_000), [100_000, 1_000_000]);
        assert_eq!(beyond(18_000, 250_000), [100_000, 250_000]);
        assert_eq!(beyond(18_000, 18_001), [18_001]);
        assert_eq!(beyond(18_000, 18_000), [0; 0]);
        assert_eq!(beyond(1_000, 0), [0; 0]);
    }
}
