//! `c10k client`: one connection, one reply for each message.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use c10k::connection::{Connection, Step, Traffic, Workspace};
use c10k::poller::{Interest, Readiness, Token};
use c10k::service::{Outcome, Reply, Service};
use c10k::sys::ConnectOptions;
use c10k::{Addr, Handler, Reactor, Session};

use crate::Failure;
use crate::protocol::{AnyFraming, Protocol};
use crate::units;

/// Sends each message and prints its reply. Without messages, reads them from standard input, a
/// line each, until its end or `q`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k client 127.0.0.1:7000 hello world
  c10k client 127.0.0.1:7000 --protocol sum '{\"A\":7,\"B\":4}' '7 4'
  c10k client unix:/tmp/c10k.sock
  c10k client 127.0.0.1:7000 --source 127.0.0.1:10789 --reuse-port hello")]
pub(crate) struct Args {
    /// The server: HOST:PORT, [IPv6]:PORT or unix:PATH
    addr: String,
    /// What to send; for sum, JSON or two numbers
    #[arg(value_name = "MESSAGE", allow_hyphen_values = true)]
    messages: Vec<String>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Echo)]
    protocol: Protocol,
    /// The byte that ends a message: x, '\n', '\t', '\0' or 0x1e
    #[arg(long, value_name = "BYTE", default_value = "\\n", value_parser = units::byte)]
    delimiter: u8,
    /// Connect from this address: IP or IP:PORT
    #[arg(long, value_name = "ADDR", value_parser = source)]
    source: Option<SocketAddr>,
    /// Let other sockets share the source port (SO_REUSEPORT); they must ask for it too
    #[arg(long)]
    reuse_port: bool,
    /// How long to wait for the connection
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = units::duration)]
    connect_timeout: Duration,
    /// How long to wait for each reply
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = units::duration)]
    timeout: Duration,
    /// Probe a silent server after this long (TCP keep-alive)
    #[arg(long, value_name = "DUR", value_parser = units::duration)]
    keepalive: Option<Duration>,
}

fn source(text: &str) -> Result<SocketAddr, String> {
    let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
    text.parse()
        .or_else(|_| text.parse().map(any_port))
        .map_err(|_| format!("'{text}' is not an address such as 127.0.0.2 or 127.0.0.1:10789"))
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args)?;
    let mut stdout = io::stdout().lock();
    if !args.messages.is_empty() {
        for message in &args.messages {
            client.ask_and_print(message, &args, &mut stdout)?;
        }
        return Ok(());
    }
    let prompts = io::stdin().is_terminal();
    let mut line = String::new();
    loop {
        if prompts {
            write!(stdout, "> ")?;
            stdout.flush()?;
        }
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.strip_suffix('\n').unwrap_or(&line) {
            "q" => return Ok(()),
            message => client.ask_and_print(message, &args, &mut stdout)?,
        }
    }
}

/// Two numbers, as a person would type them, become the request that adds them.
fn request(protocol: Protocol, message: &str) -> String {
    if protocol == Protocol::Sum {
        let mut terms = message.split_whitespace().map(str::parse::<i64>);
        if let (Some(Ok(a)), Some(Ok(b)), None) = (terms.next(), terms.next(), terms.next()) {
            return format!("{{\"A\":{a},\"B\":{b}}}");
        }
    }
    message.to_owned()
}

/// Keeps the replies that were received.
#[derive(Debug, Default)]
struct Replies(VecDeque<Vec<u8>>);

impl Service for Replies {
    fn call(&mut self, reply: &[u8], _: &mut Reply<'_>) -> Outcome {
        self.0.push_back(reply.to_vec());
        Outcome::Silence
    }
}

type Peer = Connection<AnyFraming, Replies>;

struct Client {
    reactor: Reactor<Peer>,
    token: Token,
    state: State,
}

#[derive(Default)]
struct State {
    work: Workspace,
    traffic: Traffic,
    connected: Option<io::Result<()>>,
    /// The connection is over, and this is how it ended.
    ended: Option<io::Result<()>>,
}

impl Client {
    /// Tries each address that the name stands for, and keeps the first that answers.
    fn connect(args: &Args) -> Result<Client, Failure> {
        let options = ConnectOptions {
            source: args.source,
            reuse_port: args.reuse_port,
            keepalive: args.keepalive,
        };
        let mut failure = None;
        for addr in Addr::resolve(&args.addr)? {
            match Client::connect_to(&addr, &options, args) {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("a name stands for at least one address").into())
    }

    fn connect_to(
        addr: &Addr,
        options: &ConnectOptions,
        args: &Args,
    ) -> Result<Client, c10k::Error> {
        let failed = |source| c10k::Error::Connect { addr: addr.clone(), source };
        let kind = args.protocol.usual_framing();
        let framing = AnyFraming::new(kind, args.delimiter, u32::MAX);
        let interest = Interest::READ | Interest::WRITE | Interest::EDGE;
        let mut reactor = Reactor::new().map_err(failed)?;
        let token = reactor.connect(addr, options, args.connect_timeout, interest, |fd| {
            Connection::new(
                fd,
                Session::new(framing, Replies::default()).pending_max(u32::MAX),
                interest,
                0,
            )
        })?;
        let mut state = State::default();
        while state.connected.is_none() {
            reactor.turn(&mut state, None).map_err(failed)?;
        }
        state.connected.take().expect("just looked").map_err(failed)?;
        Ok(Client { reactor, token, state })
    }

    fn ask_and_print(
        &mut self,
        message: &str,
        args: &Args,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let request = request(args.protocol, message);
        if args.protocol == Protocol::Echo && request.as_bytes().contains(&args.delimiter) {
            let why = format!("{message:?} has the delimiter in it, and would be several messages");
            return Err(Failure::Cannot(why));
        }
        // Under JSON framing a request needs no end, but a server that wants one is content too.
        let end: &[u8] = if args.protocol == Protocol::Sum { b"\n" } else { b"" };
        if let Some(peer) = self.reactor.source_mut(self.token) {
            peer.session_mut().push(|_, bytes| {
                bytes.extend(request.as_bytes());
                bytes.extend(end);
            });
            self.reactor.again(self.token);
        }
        let reply = self.next_reply(args.timeout)?;
        out.write_all(&reply)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    fn next_reply(&mut self, timeout: Duration) -> Result<Vec<u8>, Failure> {
        let start = Instant::now();
        loop {
            let replies = self.reactor.source_mut(self.token).map(Peer::session_mut);
            if let Some(reply) = replies.and_then(|session| session.service_mut().0.pop_front()) {
                return Ok(reply);
            }
            match &self.state.ended {
                Some(Ok(())) => {
                    return Err(Failure::Found("the server closed the connection".to_owned()));
                }
                Some(Err(error)) => return Err(Failure::Found(format!("no reply: {error}"))),
                None => {}
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Failure::Found(format!("no reply within {timeout:?}")));
            }
            self.reactor.turn(&mut self.state, Some(left))?;
        }
    }
}

impl Handler<Peer> for State {
    fn connected(&mut self, _: &mut Reactor<Peer>, _: Token, result: io::Result<()>) {
        self.connected = Some(result);
    }

    fn ready(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        let Some(peer) = reactor.source_mut(token) else { return };
        // The source stays when the connection has ended: it holds replies that came before.
        match peer.drive(readiness, 0, &mut self.work, &self.traffic) {
            Ok(Step::Wait) => {}
            Ok(Step::Again | Step::Linger) => reactor.again(token),
            Ok(Step::Close) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error)),
        }
    }
}
