//! `c10k client`: one socket, one reply for each message.

mod datagram;
mod stream;

use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use c10k::sys::ConnectOptions;
use c10k::{Addr, Error};

use self::datagram::DatagramClient;
use self::stream::StreamClient;
use crate::Failure;
use crate::protocol::{Protocol, datagrams_at};
use crate::units;

/// Sends messages to a server and prints the replies
///
/// Sends each message and prints its reply. Without messages, reads them from standard input, a
/// line each, until its end or `q`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  c10k client 127.0.0.1:7000 hello world
  c10k client 127.0.0.1:7000 --protocol sum '{\"A\":7,\"B\":4}' '7 4'
  c10k client unix:/tmp/c10k.sock
  c10k client 127.0.0.1:7000 --udp hello
  c10k client 127.0.0.1:7000 --source 127.0.0.1:10789 --reuse-port hello")]
pub(crate) struct Args {
    /// The server: HOST:PORT, [IPv6]:PORT, unix:PATH or unix:@NAME
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
    /// Send datagrams: each message is one
    #[arg(long, conflicts_with = "keepalive")]
    udp: bool,
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

/// What the messages go through.
enum Client {
    Stream(Box<StreamClient>),
    Datagram(DatagramClient),
}

impl Client {
    /// Tries each address that the name stands for, and keeps the first that answers. Of datagrams
    /// that is the first there is: nobody answers before he is asked.
    fn connect(args: &Args) -> Result<Client, Failure> {
        let options = ConnectOptions {
            source: args.source,
            reuse_port: args.reuse_port,
            keepalive: args.keepalive,
        };
        let mut failure = None;
        for addr in Addr::resolve(&args.addr)? {
            let client = match args.udp {
                false => {
                    StreamClient::connect(&addr, &options, args).map(Box::new).map(Client::Stream)
                }
                true => {
                    DatagramClient::connect(&datagrams_at(&addr)?, &options).map(Client::Datagram)
                }
            };
            match client {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(explained(error, args)),
            }
        }
        Err(failure.expect("a name stands for at least one address"))
    }

    fn ask_and_print(
        &mut self,
        message: &str,
        args: &Args,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let request = request(args.protocol, message);
        let reply = match self {
            Client::Stream(client) => client.ask(&request, args)?,
            Client::Datagram(client) => client.ask(request.as_bytes(), args.timeout)?,
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
