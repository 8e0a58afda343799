//! `c10k serve` beside the same echo server on other libraries, and beside three floors: bare epoll,
//! with level and edge triggering, and bare io_uring, which send back what they receive with no
//! framing at all.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick --contenders mio,tokio
//! ```
//!
//! All speak one protocol: a frame ends at a newline and is at most 64 KiB long, and is sent back
//! with its newline, however the input was split. A connection that sends a longer one is closed.
//! Each contender is written as its own community would write it, at its best; see
//! `src/contenders` and `native`. None has idle time-outs or limits on connections, which ours has.
//! Those in C, C++ and Go need libevent-dev, libuv1-dev, libasio-dev and golang-go (as Debian calls
//! them) when this is built, and are left out otherwise.
//!
//! Server and load are processes of their own, each pinned to a CPU. The contenders run in turn,
//! round after round, and what is compared is requests per CPU second of the server, each round's
//! with ours of the same round: it stays true when the load generator is the slower of the two, and
//! as the machine drifts. The load is `c10k load`, which checks every reply.

mod compare;
mod contenders;
mod processes;
mod result;
mod session;
mod socket;
mod table;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::contenders::Contender;

/// Runs `c10k serve` and the same on other libraries under the same load, and prints how they
/// compare
#[derive(Debug, Parser)]
#[command(name = "c10k-peers", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves with one contender until killed, and says where it listens
    Serve {
        /// Which; see --list
        name: String,
        /// Run on this CPU only
        #[arg(long, value_name = "N")]
        cpu: Option<usize>,
    },
}

/// What is compared, and how.
#[derive(Debug, clap::Args)]
struct Args {
    /// Print the contenders, and which are left out
    #[arg(long)]
    list: bool,
    /// Only these, beside ours
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    contenders: Vec<String>,
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
    /// How long a trial is [default: 1s; with --quick 300ms]
    #[arg(long, value_name = "DUR", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How long the load runs before that
    #[arg(long, value_name = "DUR", default_value = "200ms", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Fewer and shorter: for a first look
    #[arg(long)]
    quick: bool,
    /// The CPU of the server
    #[arg(long, value_name = "N", default_value = "0")]
    server_cpu: usize,
    /// The CPU of the load
    #[arg(long, value_name = "N", default_value = "1")]
    load_cpu: usize,
    /// This c10k, rather than the one that cargo builds of the repository
    #[arg(long, value_name = "PATH")]
    c10k: Option<PathBuf>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Serve { name, cpu }) => {
            let contender = Contender::named(&name).ok_or(format!("no contender {name}"))?;
            let serve = contender.serve.ok_or(format!("{name} was left out of this build"))?;
            socket::prepare(cpu)?;
            Ok(serve(socket::listen()?)?)
        }
        None if cli.compare.list => {
            for contender in contenders::ALL {
                let left_out = contender.missing().map(|why| format!(" (left out: {why})"));
                let left_out = left_out.unwrap_or_default();
                println!("{:<14}{}{left_out}", contender.name, contender.about);
            }
            Ok(())
        }
        None => compare::run(cli.compare),
    }
}
