//! `c10k serve` beside the same echo server on other libraries, and beside three floors: bare epoll,
//! with level and edge triggering, and bare io_uring, which send back what they receive with no
//! framing at all.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick --contenders mio,tokio
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- growth
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
//! as the machine drifts. The load is `c10k load`, which checks every reply, and never sleeps: a server
//! that has to wake its client pays for that, and only those that are quick would be spared.
//!
//! `growth` measures what each of them costs as connections become more: the CPU time of a request
//! up to 18,000 connections, and the memory of an idle connection up to a million.

mod bench;
mod compare;
mod contenders;
mod growth;
mod machine;
mod processes;
mod result;
mod rounds;
mod session;
mod socket;
mod table;

use std::error::Error;

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
    compare: compare::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures what more connections cost: CPU time of a request, memory of an idle connection
    Growth(growth::Args),
    /// Serves with one contender until killed, and says where it listens
    Serve {
        /// Which; see --list
        name: String,
        /// Run on this CPU only
        #[arg(long, value_name = "N")]
        cpu: Option<usize>,
    },
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
        Some(Command::Growth(args)) => growth::run(args),
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
