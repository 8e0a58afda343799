//! What the command line can choose to speak.
//!
//! The library is generic over framing and service. The service, which may have fields in each
//! connection, is compiled in, a server for each; the framing is chosen by a branch that always
//! goes the same way, which costs next to nothing and saves compiling three times as many.

use c10k::Addr;
use c10k::framing::{Chunk, Delimiter, Framing, JsonState, JsonValue, Scan};
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
