//! What the command line can choose to speak.
//!
//! The library is generic over framing and service. The program chooses both by branches that always
//! go the same way: a server compiled for each framing, service and model took most of its build.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;

use c10k::Addr;
use c10k::framing::{Chunk, Delimiter, Framing, JsonState, JsonValue, Scan};
use c10k::service::{self, Echo, Outcome, Refusal, Reply, Service, Sum};
use clap::ValueEnum;

use crate::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Replies with the request
    Echo,
    /// Replies to {"A":7,"B":4} with {"Sum":11}
    Sum,
    /// Replies ok to anything
    Ok,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FramingKind {
    /// A message ends at the delimiter
    Delimiter,
    /// A message is one JSON value
    Json,
    /// A message is what one read returns
    Chunk,
}

impl Protocol {
    /// The framing that goes without saying.
    pub(crate) fn usual_framing(self) -> FramingKind {
        match self {
            Protocol::Echo => FramingKind::Delimiter,
            Protocol::Sum => FramingKind::Json,
            Protocol::Ok => FramingKind::Chunk,
        }
    }
}

/// The addresses that an argument names. The path of a unix socket need not be UTF-8.
pub(crate) fn resolve(address: &OsStr) -> Result<Vec<Addr>, Failure> {
    if let Some(address) = address.to_str() {
        return Ok(Addr::resolve(address)?);
    }
    match address.as_bytes().strip_prefix(b"unix:") {
        Some(path) => Ok(vec![Addr::Unix(OsStr::from_bytes(path).into())]),
        None => Err(Failure::Cannot(format!("{address:?} is no address: it is not UTF-8"))),
    }
}

/// Where datagrams go to that are meant for this address.
pub(crate) fn datagrams_at(addr: &Addr) -> Result<Addr, Failure> {
    let why = "--udp is for IP addresses, and not for the path of a unix socket";
    addr.udp().ok_or_else(|| Failure::Cannot(why.to_owned()))
}

/// One of the three, in eight bytes of each connection: the one meant is put together when it is
/// called, which the compiler sees through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnyFraming {
    len_max: u32,
    kind: FramingKind,
    delimiter: u8,
}

impl AnyFraming {
    pub(crate) fn new(kind: FramingKind, delimiter: u8, len_max: u32) -> AnyFraming {
        AnyFraming { kind, delimiter, len_max }
    }

    #[inline]
    pub(crate) fn delimited(&self) -> Delimiter {
        Delimiter::new(self.delimiter).max_len(self.len_max)
    }

    fn json(&self) -> JsonValue {
        JsonValue::new().max_len(self.len_max)
    }

    fn chunk(&self) -> Chunk {
        Chunk::new().max_len(self.len_max)
    }
}

impl Framing for AnyFraming {
    type State = JsonState;

    fn resyncs(&self) -> bool {
        match self.kind {
            FramingKind::Delimiter => self.delimited().resyncs(),
            FramingKind::Json => self.json().resyncs(),
            FramingKind::Chunk => self.chunk().resyncs(),
        }
    }

    #[inline]
    fn frame_len_max(&self) -> u32 {
        self.len_max
    }

    #[inline]
    fn scan(&self, state: &mut JsonState, carried: usize, bytes: &[u8]) -> Scan {
        match self.kind {
            FramingKind::Delimiter => self.delimited().scan(&mut (), carried, bytes),
            FramingKind::Json => self.json().scan(state, carried, bytes),
            FramingKind::Chunk => self.chunk().scan(&mut (), carried, bytes),
        }
    }

    fn complete_at_eof(&self, state: &JsonState, carried: usize) -> bool {
        match self.kind {
            FramingKind::Delimiter => self.delimited().complete_at_eof(&(), carried),
            FramingKind::Json => self.json().complete_at_eof(state, carried),
            FramingKind::Chunk => self.chunk().complete_at_eof(&(), carried),
        }
    }

    #[inline]
    fn end_reply(&self, reply: &mut Vec<u8>) {
        match self.kind {
            FramingKind::Delimiter => self.delimited().end_reply(reply),
            FramingKind::Json => self.json().end_reply(reply),
            FramingKind::Chunk => self.chunk().end_reply(reply),
        }
    }
}

/// One of the services, in one byte, for which a connection has room beside the framing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyService {
    Echo,
    /// With [`PREFIX`].
    PrefixEcho,
    Sum,
    Ok,
}

/// What this process puts before every reply of echo.
static PREFIX: OnceLock<Box<[u8]>> = OnceLock::new();

/// [`c10k::service::PrefixEcho`] with a prefix that takes no room in a connection.
struct PrefixEcho;

impl AnyService {
    /// A prefix is for echo, and ignored by the others. The first one given is kept.
    pub(crate) fn new(protocol: Protocol, prefix: Option<OsString>) -> AnyService {
        match (protocol, prefix) {
            (Protocol::Echo, None) => AnyService::Echo,
            (Protocol::Echo, Some(prefix)) => {
                PREFIX.get_or_init(|| prefix.into_vec().into());
                AnyService::PrefixEcho
            }
            (Protocol::Sum, _) => AnyService::Sum,
            (Protocol::Ok, _) => AnyService::Ok,
        }
    }
}

impl Service for PrefixEcho {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(prefix());
        reply.extend(request);
        Outcome::Reply
    }

    /// Each would be longer than the one before.
    fn is_reply(&self, datagram: &[u8]) -> bool {
        !prefix().is_empty() && datagram.starts_with(prefix())
    }
}

fn prefix() -> &'static [u8] {
    PREFIX.get().map_or(&[], |prefix| prefix)
}

impl Service for AnyService {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        match self {
            AnyService::Echo => Echo.call(request, reply),
            AnyService::PrefixEcho => PrefixEcho.call(request, reply),
            AnyService::Sum => Sum.call(request, reply),
            AnyService::Ok => service::Ok.call(request, reply),
        }
    }

    fn refuse(&mut self, why: Refusal, reply: &mut Reply<'_>) {
        match self {
            AnyService::Echo => Echo.refuse(why, reply),
            AnyService::PrefixEcho => PrefixEcho.refuse(why, reply),
            AnyService::Sum => Sum.refuse(why, reply),
            AnyService::Ok => service::Ok.refuse(why, reply),
        }
    }

    fn is_reply(&self, datagram: &[u8]) -> bool {
        match self {
            AnyService::Echo => Echo.is_reply(datagram),
            AnyService::PrefixEcho => PrefixEcho.is_reply(datagram),
            AnyService::Sum => Sum.is_reply(datagram),
            AnyService::Ok => service::Ok.is_reply(datagram),
        }
    }
}
