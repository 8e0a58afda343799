//! `c10k load`: many connections, every reply checked.

mod checker;
mod engine;
mod payload;
mod report;

use std::io::Write;
use std::time::Duration;

pub(crate) use self::report::{Report, micros};

use crate::Failure;
use crate::protocol::Protocol;
use crate::units;

/// Opens connections, keeps requests under way on each, checks every reply byte for byte, and
/// says how many and how fast. Exit status 1 if any was wrong or missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k load 127.0.0.1:7000 --connections 10k --duration 10s
  c10k load 127.0.0.1:7000 --connections 10k --active 50 --json
  c10k load 127.0.0.1:7000 --connections 100 --pipeline 32 --size 512
  c10k load 127.0.0.1:7000 --protocol sum --requests 1M")]
pub(crate) struct Args {
    /// The server: HOST:PORT, [IPv6]:PORT or unix:PATH
    addr: String,
    /// How many connections to open
    #[arg(long, value_name = "N", default_value = "100", value_parser = units::some)]
    connections: u64,
    /// How many of them send; the others stay open and idle [default: all]
    #[arg(long, value_name = "M", value_parser = units::some)]
    active: Option<u64>,
    /// Requests under way on each connection
    #[arg(long, value_name = "N", default_value = "1", value_parser = units::some)]
    pipeline: u64,
    /// The size of a message in bytes, without its delimiter (echo)
    #[arg(long, value_name = "SIZE", default_value = "64", value_parser = units::size)]
    size: u32,
    /// How long to measure
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = units::duration)]
    duration: Duration,
    /// Stop after this many measured replies, if that comes first
    #[arg(long, value_name = "N", value_parser = units::some)]
    requests: Option<u64>,
    /// How long to load before measuring
    #[arg(long, value_name = "DUR", default_value = "500ms", value_parser = units::duration)]
    warmup: Duration,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Echo)]
    protocol: Protocol,
    /// The byte that ends a message: x, '\n', '\t', '\0' or 0x1e
    #[arg(long, value_name = "BYTE", default_value = "\\n", value_parser = units::byte)]
    delimiter: u8,
    /// What the server puts before each reply of echo
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// How long to wait for a connection, and at the end for the last replies
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = units::duration)]
    timeout: Duration,
    /// When connected, print a line and wait for one on standard input before sending anything
    #[arg(long)]
    wait: bool,
    /// Tell the CPU time per request of this process too, if it is on this machine
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Run on this CPU only
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Descriptors that the program needs besides those of connections.
const FDS_BESIDES: u64 = 16;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if args.protocol == Protocol::Ok {
        let why = "the replies of --protocol ok cannot be told apart: try echo or sum";
        return Err(Failure::Cannot(why.to_owned()));
    }
    if let Some(cpu) = args.cpu {
        c10k::sys::pin_to_cpu(cpu)
            .map_err(|error| Failure::Cannot(format!("cannot run on CPU {cpu}: {error}")))?;
    }
    let limit = c10k::sys::raise_fd_limit()?;
    let needed = args.connections.saturating_add(FDS_BESIDES);
    if needed > limit {
        return Err(Failure::Cannot(format!(
            "{} connections need {needed} descriptors, and this process may have {limit}: \
             raise it (ulimit -n) or run several",
            args.connections,
        )));
    }

    let report = engine::run(&args)?;
    let mut stdout = std::io::stdout().lock();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string(&report)?)?,
        false => write!(stdout, "{report}")?,
    }
    report.verdict()
}
