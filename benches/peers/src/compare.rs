//! The comparison: every number of connections with every depth of the pipeline.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal};

use crate::bench::{self, Bench, or};
use crate::machine::Watch;
use crate::result::Comparison;
use crate::rounds::{self, Plan, Setup};
use crate::table;

/// With fewer connections their memory drowns in what the server takes anyway.
const CONNECTIONS_MEASURABLE: u64 = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the contenders, and which are left out
    #[arg(long)]
    pub(crate) list: bool,
    /// How many connections [default: 1,100,1000,10000; with --quick 100,1000]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    connections: Vec<u64>,
    /// Requests under way on each connection [default: 1,32,256; with --quick 1,32]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pipelines: Vec<u64>,
    /// How many are active among idle ones, where there are more
    #[arg(long, value_name = "M", default_value = "50")]
    active: u64,
    /// How often each is measured, in turn with the others [default: 7; with --quick 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    #[command(flatten)]
    bench: bench::Options,
}

pub(crate) fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let json = args.bench.json.as_deref().map(File::create).transpose()?;
    let watch = Watch::begin();
    let plan = plan(&args);
    let bench = Bench::new(args.bench)?;
    let mut measured = rounds::measure(&bench, &plan);
    measured.warnings.extend(watch.warnings());
    let comparison = Comparison {
        method: bench.method(plan.rounds),
        machine: watch.machine,
        left_out: bench.left_out,
        cells: measured.cells,
        warnings: measured.warnings,
    };
    if let Some(file) = json {
        serde_json::to_writer_pretty(file, &comparison)?;
    }
    print!("{}", table::text(&comparison, io::stdout().is_terminal()));
    rounds::outcome(measured.failed)
}

fn plan(args: &Args) -> Plan {
    let (connections, pipelines, rounds) = match args.bench.quick {
        true => (&[100, 1_000][..], &[1, 32][..], 3),
        false => (&[1, 100, 1_000, 10_000][..], &[1, 32, 256][..], 7),
    };
    let pipelines = or(&args.pipelines, pipelines);
    let setups = or(&args.connections, connections).into_iter().flat_map(|connections| {
        pipelines.iter().map(move |&pipeline| Setup { connections, pipeline })
    });
    Plan {
        setups: setups.collect(),
        active: args.active,
        rounds: args.rounds.unwrap_or(rounds),
        memory_from: CONNECTIONS_MEASURABLE,
        counts_calls: true,
    }
}
