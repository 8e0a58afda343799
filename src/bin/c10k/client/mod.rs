//! `c10k client`: one socket, one reply for each message.

mod datagram;
mod stream;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use c10k::sys::ConnectOptions;
use c10k::{Addr, Error};

use self::datagram::DatagramClient;
use self::stream::StreamClient;
use crate::Failure;
use crate::protocol::{Protocol, datagrams_at, resolve};
use crate::stdio::{reader_gone, stdout};
use crate::units;

/// Sends messages to a server and prints the replies
///
/// Sends each message and prints its reply. Without messages, reads them from standard input, a
/// line each, until its end or `q`. Messages and replies are bytes: they need not be UTF-8.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k client 127.0.0.1:7000 hello world
  c10k client 127.0.0.1:7000 --protocol sum '{\"A\":7,\"B\":4}' '7 4'
  c10k client 127.0.0.1:7000 -- -x --udp    (what follows -- is sent as it is)
  c10k client unix:/tmp/c10k.sock
  c10k client 127.0.0.1:7000 --udp hello
  c10k client 127.0.0.1:7000 --source 127.0.0.1:10789 --reuse-port hello")]
pub(crate) struct Args {
    /// The server: HOST:PORT, [IPv6]:PORT, unix:PATH or unix:@NAME
    addr: OsString,
    /// What to send; for sum, JSON or two numbers. Write -- before those that begin with a hyphen
    /// and are not a number
    #[arg(value_name = "MESSAGE", allow_negative_numbers = true)]
    messages: Vec<OsString>,
    /// What the server speaks
    #[arg(long, value_enum, default_value_t = Protocol::Echo)]
    protocol: Protocol,
    /// The byte that ends a message of echo: x, '\n', '\t', '\0' or 0x1e [default: '\n']
    #[arg(long, value_name = "BYTE", value_parser = units::byte, conflicts_with = "udp")]
    delimiter: Option<u8>,
    /// Send datagrams: each message is one
    #[arg(long, conflicts_with = "keepalive")]
    udp: bool,
    /// Connect from this address: IP or IP:PORT
    #[arg(long, value_name = "ADDR", value_parser = source)]
    source: Option<SocketAddr>,
    /// Let other sockets share the source port (SO_REUSEPORT); they must ask for it too
    #[arg(long, requires = "source")]
    reuse_port: bool,
    /// How long to wait for the connection
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = units::some_time, conflicts_with = "udp")]
    connect_timeout: Duration,
    /// How long to wait for each reply
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = units::some_time)]
    timeout: Duration,
    /// Probe a silent server after this long, in whole seconds (TCP keep-alive): 1s to 32767s
    #[arg(long, value_name = "DUR", value_parser = keepalive)]
    keepalive: Option<Duration>,
}

fn source(text: &str) -> Result<SocketAddr, String> {
    let any_port = |ip: IpAddr| SocketAddr::new(ip, 0);
    text.parse()
        .or_else(|_| text.parse().map(any_port))
        .map_err(|_| format!("'{text}' is not an address such as 127.0.0.2 or 127.0.0.1:10789"))
}

/// What the kernel takes (`TCP_KEEPIDLE`, `tcp(7)`).
fn keepalive(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        time if (1..=32_767).contains(&time.as_secs()) => Ok(time),
        _ => Err("1s to 32767s is possible".to_owned()),
    }
}

/// The delimiter where nothing is said.
const DELIMITER: u8 = b'\n';

impl Args {
    /// An error if an option would do nothing.
    fn check(&self, addr: &Addr) -> Result<(), Failure> {
        let is_unix = matches!(addr, Addr::Unix(_));
        let why = if self.delimiter.is_some() && self.protocol != Protocol::Echo {
            "--delimiter is for --protocol echo"
        } else if is_unix && self.source.is_some() {
            "--source is for IP addresses: a unix socket has none to connect from"
        } else if is_unix && self.keepalive.is_some() {
            "--keepalive is for TCP"
        } else {
            return Ok(());
        };
        Err(Failure::Cannot(why.to_owned()))
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args)?;
    let mut stdout = stdout();
    if !args.messages.is_empty() {
        for message in &args.messages {
            client.ask_and_print(message.as_bytes(), &args, &mut stdout)?;
        }
        return Ok(());
    }
    let unread = |error| Failure::Cannot(format!("cannot read standard input: {error}"));
    let prompts = io::stdin().is_terminal();
    let mut line = Vec::new();
    loop {
        if prompts {
            write!(stdout, "> ")?;
            stdout.flush()?;
        }
        line.clear();
        if io::stdin().lock().read_until(b'\n', &mut line).map_err(unread)? == 0 {
            return Ok(());
        }
        match line.strip_suffix(b"\n").unwrap_or(&line) {
            b"q" | b"q\r" => return Ok(()),
            message => client.ask_and_print(message, &args, &mut stdout)?,
        }
        if reader_gone() {
            return Ok(());
        }
    }
}

/// Two numbers, as a person would type them, become the request that adds them.
fn request(protocol: Protocol, message: &[u8]) -> Cow<'_, [u8]> {
    if protocol == Protocol::Sum
        && let Ok(message) = str::from_utf8(message)
    {
        let mut terms = message.split_whitespace().map(str::parse::<i64>);
        if let (Some(Ok(a)), Some(Ok(b)), None) = (terms.next(), terms.next(), terms.next()) {
            return format!("{{\"A\":{a},\"B\":{b}}}").into_bytes().into();
        }
    }
    message.into()
}

/// What the messages go through.
enum Client {
    Stream(Box<StreamClient>),
    Datagram(DatagramClient),
}

impl Client {
    /// Tries each address that the name stands for, and keeps the first that answers. That of
    /// datagrams is known only when they are sent.
    fn connect(args: &Args) -> Result<Client, Failure> {
        let options = ConnectOptions {
            source: args.source,
            reuse_port: args.reuse_port,
            keepalive: args.keepalive,
        };
        let addrs = resolve(&args.addr)?;
        addrs.iter().try_for_each(|addr| args.check(addr))?;
        if args.udp {
            let addrs = addrs.iter().map(datagrams_at).collect::<Result<_, _>>()?;
            let client = DatagramClient::connect(addrs, options);
            return client.map(Client::Datagram).map_err(|error| explained(error, args));
        }
        let mut failure = None;
        for addr in addrs {
            match StreamClient::connect(&addr, &options, args) {
                Ok(client) => return Ok(Client::Stream(Box::new(client))),
                Err(error) => failure = Some(explained(error, args)),
            }
        }
        Err(failure.expect("a name stands for at least one address"))
    }

    fn ask_and_print(
        &mut self,
        message: &[u8],
        args: &Args,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let request = request(args.protocol, message);
        let reply = match self {
            Client::Stream(client) => client.ask(&request, args)?,
            Client::Datagram(client) => client.ask(&request, args.timeout)?,
        };
        out.write_all(&reply)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

/// What the kernel says of a source port that is taken is said of the server's address, and means
/// the source's.
fn explained(error: Error, args: &Args) -> Failure {
    let (Error::Connect { addr, source: cause }, Some(source)) = (&error, args.source) else {
        return error.into();
    };
    let is_ours = || UdpSocket::bind((source.ip(), 0)).is_ok();
    match cause.raw_os_error() {
        Some(libc::EADDRINUSE) if source.port() != 0 => Failure::Cannot(format!(
            "{source} is already bound: a second socket needs --reuse-port, and both must set it"
        )),
        Some(libc::EADDRNOTAVAIL) if !is_ours() => {
            Failure::Cannot(format!("{} is not an address of this machine", source.ip()))
        }
        Some(libc::EADDRNOTAVAIL) if source.port() != 0 => Failure::Cannot(format!(
            "there is a connection from {source} to {addr} already: the four addresses and ports \
             are what tells connections apart"
        )),
        _ => error.into(),
    }
}
