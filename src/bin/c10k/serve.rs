//! `c10k serve`.

use std::io::Write;
use std::time::Duration;

use c10k::Server;
use c10k::framing::Framing;
use c10k::server::{Model, Trigger};
use c10k::service::{self, Echo, PrefixEcho, Service, Sum};
use clap::ValueEnum;

use crate::Failure;
use crate::protocol::{AnyFraming, FramingKind, Protocol};
use crate::stdio::stdout;
use crate::units;

/// Serves echo or sum, with an event loop or a thread per connection
///
/// Serves until SIGINT or SIGTERM, then finishes what it has received and prints one line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k serve
  c10k serve --listen 127.0.0.1:0 --listen '[::1]:0' --listen unix:/tmp/c10k.sock
  c10k serve --protocol sum --model threads
  c10k serve --workers 4 --max-connections 4000
  c10k serve --udp --protocol sum
  c10k serve --delimiter '\\t' --prefix 'server got:'")]
pub(crate) struct Args {
    /// Where to listen: HOST:PORT, [IPv6]:PORT or unix:PATH; port 0 for any. May be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7000")]
    listen: Vec<String>,
    /// How connections are waited for
    #[arg(long, value_enum, default_value_t = ModelKind::Epoll)]
    model: ModelKind,
    /// When epoll tells of a ready connection: once for each change, or for as long as it is so
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
    /// The byte that ends a message: x, '\n', '\t', '\0' or 0x1e [default: \n]
    #[arg(long, value_name = "BYTE", value_parser = units::byte)]
    delimiter: Option<u8>,
    /// Put before every reply of echo
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
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
    /// How long to wait for clients to take their replies when told to stop
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
            (ModelKind::Epoll, None | Some(TriggerKind::Edge)) => Model::Epoll(Trigger::Edge),
            (ModelKind::Epoll, Some(TriggerKind::Level)) => Model::Epoll(Trigger::Level),
            (ModelKind::Poll, _) => Model::Poll,
            (ModelKind::Select, _) => Model::Select,
            (ModelKind::Threads, _) => Model::Threads,
            (ModelKind::Processes, _) => Model::Processes,
            (ModelKind::Blocking, _) => Model::Blocking,
            (ModelKind::Spin, _) => Model::Spin,
        }
    }

    fn framing(&self) -> FramingKind {
        self.framing.unwrap_or(self.protocol.usual_framing())
    }

    /// An option that would change nothing, or has no such value.
    fn refused(&self) -> Option<String> {
        let epoll = self.model == ModelKind::Epoll;
        let threads = matches!(self.model, ModelKind::Threads | ModelKind::Blocking);
        let refused = [
            (self.trigger.is_some() && !epoll, "--trigger is for --model epoll"),
            (self.workers.is_some() && !epoll, "--workers is for --model epoll"),
            (self.stack_size.is_some() && !threads, "--stack-size is for --model threads"),
            (
                self.prefix.is_some() && self.protocol != Protocol::Echo,
                "--prefix is for --protocol echo",
            ),
            (
                self.delimiter.is_some() && self.framing() != FramingKind::Delimiter,
                "--delimiter is for --framing delimiter",
            ),
        ];
        let why = refused.into_iter().find_map(|(refused, why)| refused.then(|| why.to_owned()));
        let many = self.workers > Some(WORKERS_MAX);
        why.or_else(|| many.then(|| format!("--workers is {WORKERS_MAX} at most")))
    }
}

/// More than that is a mistake: it is for one in each CPU, or one for as many descriptors as a
/// process may have.
const WORKERS_MAX: u64 = 1_000;

/// The stack of a thread where nothing is said.
const STACK_SIZE: u32 = 128 << 10;

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if let Some(why) = args.refused() {
        return Err(Failure::Cannot(why));
    }
    if let Some(cpu) = args.cpu {
        c10k::sys::pin_to_cpu(cpu)
            .map_err(|error| Failure::Cannot(format!("cannot run on CPU {cpu}: {error}")))?;
    }
    c10k::sys::raise_fd_limit()?;

    let kind = args.framing();
    let framing = AnyFraming::new(kind, args.delimiter.unwrap_or(b'\n'), args.max_frame);
    match (args.protocol, args.prefix.clone()) {
        // Compiled for itself, since it is what servers are compared by.
        (Protocol::Echo, None) if kind == FramingKind::Delimiter => {
            serve(&args, framing.delimited(), || Echo)
        }
        (Protocol::Echo, None) => serve(&args, framing, || Echo),
        (Protocol::Echo, Some(prefix)) => {
            let echo = PrefixEcho::new(prefix.into_bytes());
            serve(&args, framing, move || echo.clone())
        }
        (Protocol::Sum, _) => serve(&args, framing, || Sum),
        (Protocol::Ok, _) => serve(&args, framing, || service::Ok),
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
        .workers(args.workers.unwrap_or(0) as usize)
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
