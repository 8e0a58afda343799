//! `c10k serve`.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use c10k::Server;
use c10k::framing::Framing;
use c10k::server::{Model, Trigger};
use c10k::service::{Echo, Service};
use clap::ValueEnum;

use crate::Failure;
use crate::proc;
use crate::protocol::{AnyFraming, AnyService, FramingKind, Protocol};
use crate::stdio::stdout;
use crate::units;

/// Serves echo or sum, with an event loop or a thread per connection
///
/// Serves until SIGINT, SIGTERM or SIGHUP, then finishes what it has received or is about to, and
/// prints one line. A second signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k serve
  c10k serve --listen 127.0.0.1:0 --listen '[::1]:0' --listen unix:/tmp/c10k.sock
  c10k serve --protocol sum --model threads
  c10k serve --workers 4 --max-connections 4000
  c10k serve --udp --protocol sum
  c10k serve --delimiter '\\t' --prefix 'server got:'")]
pub(crate) struct Args {
    /// Where to listen: HOST:PORT, [IPv6]:PORT, unix:PATH or unix:@NAME; port 0 for any. May be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    listen: Vec<String>,
    /// How connections are waited for
    #[arg(long, value_enum, default_value_t = ModelKind::Epoll)]
    model: ModelKind,
    /// When epoll reports a ready connection: once for each change, or for as long as it is so
    /// [default: edge]
    #[arg(long, value_enum)]
    trigger: Option<TriggerKind>,
    /// Serve with N processes that share the listeners, watched over by this one (epoll)
    #[arg(long, value_name = "N", value_parser = units::some)]
    workers: Option<u64>,
    /// Let other servers listen on the same port; each worker gets a listener of its own, whose
    /// newcomers no other can take
    #[arg(long)]
    reuse_port: bool,
    /// What is served
    #[arg(long, value_enum, default_value_t = Protocol::Echo)]
    protocol: Protocol,
    /// How messages are told apart [default: delimiter for echo, json for sum, chunk for ok]
    #[arg(long, value_enum)]
    framing: Option<FramingKind>,
    /// The byte that ends a message: x, '\n', '\t', '\0' or 0x1e [default: '\n']
    #[arg(long, value_name = "BYTE", value_parser = units::byte)]
    delimiter: Option<u8>,
    /// Put before every reply of echo
    #[arg(long, value_name = "TEXT")]
    prefix: Option<OsString>,
    /// Serve datagrams too, at the same addresses: each is a message and has one reply
    #[arg(long)]
    udp: bool,
    /// Connections at once, for each worker; more wait in the accept queue [default: as many as
    /// descriptors allow]
    #[arg(long, value_name = "N", value_parser = units::some)]
    max_connections: Option<u64>,
    /// The longest message; a longer one is answered with an error, and the connection closed (a
    /// datagram is dropped)
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = units::size)]
    max_frame: u32,
    /// Bytes of unsent replies past which nothing more is read from a connection
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::size)]
    max_pending: u32,
    /// Closes a connection that completes no request for this long
    #[arg(long, value_name = "DUR|off", default_value = "30s", value_parser = units::duration_or_off)]
    idle_timeout: units::Timeout,
    /// When told to stop, how long clients have to finish a request that they have begun, or their
    /// first, and to take their replies
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = units::duration)]
    drain: Duration,
    /// Connections that may wait to be accepted
    #[arg(long, value_name = "N", default_value = "4096", value_parser = units::count)]
    backlog: u64,
    /// The stack of each thread (model threads) [default: 128KiB]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    stack_size: Option<u32>,
    /// Runs on this CPU only
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelKind {
    /// An event loop
    Epoll,
    /// The same event loop on poll(2)
    Poll,
    /// The same event loop on select(2): up to 1,023 descriptors
    Select,
    /// A thread for each connection
    Threads,
    /// A process for each connection
    Processes,
    /// One connection at a time
    Blocking,
    /// Never waiting: every connection is tried in turn, for ever
    Spin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TriggerKind {
    Edge,
    Level,
}

impl Args {
    fn model(&self) -> Model {
        match (self.model, self.trigger) {
            (ModelKind::Epoll, Some(TriggerKind::Level)) => Model::Epoll(Trigger::Level),
            (ModelKind::Epoll, _) => Model::Epoll(Trigger::Edge),
            (ModelKind::Poll, _) => Model::Poll,
            (ModelKind::Select, _) => Model::Select,
            (ModelKind::Threads, _) => Model::Threads,
            (ModelKind::Processes, _) => Model::Processes,
            (ModelKind::Blocking, _) => Model::Blocking,
            (ModelKind::Spin, _) => Model::Spin,
        }
    }

    /// An error if an option would do nothing.
    fn check(&self, framing: FramingKind) -> Result<(), Failure> {
        let why = if self.trigger.is_some() && self.model != ModelKind::Epoll {
            "--trigger is for --model epoll"
        } else if self.stack_size.is_some()
            && !matches!(self.model, ModelKind::Threads | ModelKind::Blocking)
        {
            "--stack-size is for --model threads"
        } else if self.delimiter.is_some() && framing != FramingKind::Delimiter {
            "--delimiter is for --framing delimiter"
        } else if self.prefix.is_some() && self.protocol != Protocol::Echo {
            "--prefix is for --protocol echo"
        } else {
            return Ok(());
        };
        Err(Failure::Cannot(why.to_owned()))
    }

    fn workers(&self) -> Result<usize, Failure> {
        match (self.workers, self.model) {
            (None, _) => Ok(0),
            (Some(workers), ModelKind::Epoll) if workers <= WORKERS_MAX => Ok(workers as usize),
            (Some(_), ModelKind::Epoll) => {
                Err(Failure::Cannot(format!("--workers is {WORKERS_MAX} at most")))
            }
            (Some(_), _) => Err(Failure::Cannot("--workers is for --model epoll".to_owned())),
        }
    }
}

/// More than that is a mistake: it is for one in each CPU, or one for as many descriptors as a
/// process may have.
const WORKERS_MAX: u64 = 1_000;

/// Of each thread, where nothing is said.
const STACK_SIZE: u32 = 128 << 10;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if let Some(cpu) = args.cpu {
        c10k::sys::pin_to_cpu(cpu)
            .map_err(|error| Failure::Cannot(format!("cannot run on CPU {cpu}: {error}")))?;
    }
    c10k::sys::reap_children();
    proc::raise_fd_limit();

    let kind = args.framing.unwrap_or(args.protocol.usual_framing());
    args.check(kind)?;
    let framing = AnyFraming::new(kind, args.delimiter.unwrap_or(b'\n'), args.max_frame);
    match AnyService::new(args.protocol, args.prefix.clone()) {
        // Compiled for itself, since it is what servers are compared by.
        AnyService::Echo if kind == FramingKind::Delimiter => {
            serve(&args, framing.delimited(), || Echo)
        }
        service => serve(&args, framing, move || service),
    }
}

fn serve<F, S, M>(args: &Args, framing: F, service: M) -> Result<(), Failure>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    let mut builder = Server::builder()
        .framing(framing)
        .service(service)
        .model(args.model())
        .max_connections(args.max_connections.unwrap_or(u64::MAX))
        .max_pending(args.max_pending)
        .idle_timeout(args.idle_timeout.0)
        .drain(args.drain)
        .backlog(u32::try_from(args.backlog).unwrap_or(u32::MAX))
        .stack_size(args.stack_size.unwrap_or(STACK_SIZE) as usize)
        .workers(args.workers()?)
        .reuse_port(args.reuse_port)
        .stop_on_signals(true);
    if args.udp {
        builder = builder.datagrams(args.max_frame);
    }
    for address in &args.listen {
        builder = builder.listen(address)?;
    }
    let server = builder.build()?;

    let mut out = stdout();
    for addr in server.local_addrs() {
        writeln!(out, "listening on {addr}")?;
    }
    out.flush()?;

    let stats = server.run()?;
    log_details(&stats);
    writeln!(stdout(), "{stats}")?;
    Ok(())
}

/// What the one line has no room for.
fn log_details(stats: &c10k::server::Stats) {
    for (&errno, count) in &stats.errors {
        log::info!("errors: {count} x {}", std::io::Error::from_raw_os_error(errno));
    }
    log::debug!("{stats:#?}");
}
