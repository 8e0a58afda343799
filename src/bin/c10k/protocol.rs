//! What the command line can choose to speak: one framing and one service out of several.
//!
//! The library is generic over both. To compile every model for every pair would make a dozen
//! servers of each; a branch that always goes the same way costs next to nothing.

use c10k::framing::{Chunk, Delimiter, Framing, JsonState, JsonValue, Scan};
use c10k::service::{Echo, Ok as OkService, Outcome, PrefixEcho, Refusal, Reply, Service, Sum};
use clap::ValueEnum;

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

#[derive(Debug, Clone, Copy)]
pub(crate) enum AnyFraming {
    Delimiter(Delimiter),
    Json(JsonValue),
    Chunk(Chunk),
}

impl AnyFraming {
    pub(crate) fn new(kind: FramingKind, delimiter: u8, len_max: u32) -> AnyFraming {
        match kind {
            FramingKind::Delimiter => {
                AnyFraming::Delimiter(Delimiter::new(delimiter).max_len(len_max))
            }
            FramingKind::Json => AnyFraming::Json(JsonValue::new().max_len(len_max)),
            FramingKind::Chunk => AnyFraming::Chunk(Chunk::new().max_len(len_max)),
        }
    }
}

impl Framing for AnyFraming {
    type State = JsonState;

    #[inline]
    fn resyncs(&self) -> bool {
        match self {
            AnyFraming::Delimiter(framing) => framing.resyncs(),
            AnyFraming::Json(framing) => framing.resyncs(),
            AnyFraming::Chunk(framing) => framing.resyncs(),
        }
    }

    #[inline]
    fn scan(&self, state: &mut JsonState, carried: usize, bytes: &[u8]) -> Scan {
        match self {
            AnyFraming::Delimiter(framing) => framing.scan(&mut (), carried, bytes),
            AnyFraming::Json(framing) => framing.scan(state, carried, bytes),
            AnyFraming::Chunk(framing) => framing.scan(&mut (), carried, bytes),
        }
    }

    fn complete_at_eof(&self, state: &JsonState, carried: usize) -> bool {
        match self {
            AnyFraming::Delimiter(framing) => framing.complete_at_eof(&(), carried),
            AnyFraming::Json(framing) => framing.complete_at_eof(state, carried),
            AnyFraming::Chunk(framing) => framing.complete_at_eof(&(), carried),
        }
    }

    #[inline]
    fn end_reply(&self, reply: &mut Vec<u8>) {
        match self {
            AnyFraming::Delimiter(framing) => framing.end_reply(reply),
            AnyFraming::Json(framing) => framing.end_reply(reply),
            AnyFraming::Chunk(framing) => framing.end_reply(reply),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum AnyService {
    Echo(Echo),
    PrefixEcho(PrefixEcho),
    Sum(Sum),
    Ok(OkService),
}

impl AnyService {
    pub(crate) fn new(protocol: Protocol, prefix: Option<String>) -> AnyService {
        match (protocol, prefix) {
            (Protocol::Echo, None) => AnyService::Echo(Echo),
            (Protocol::Echo, Some(prefix)) => {
                AnyService::PrefixEcho(PrefixEcho::new(prefix.into_bytes()))
            }
            (Protocol::Sum, _) => AnyService::Sum(Sum),
            (Protocol::Ok, _) => AnyService::Ok(OkService),
        }
    }
}

impl Service for AnyService {
    #[inline]
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        match self {
            AnyService::Echo(service) => service.call(request, reply),
            AnyService::PrefixEcho(service) => service.call(request, reply),
            AnyService::Sum(service) => service.call(request, reply),
            AnyService::Ok(service) => service.call(request, reply),
        }
    }

    fn refuse(&mut self, why: Refusal, reply: &mut Reply<'_>) {
        match self {
            AnyService::Echo(service) => service.refuse(why, reply),
            AnyService::PrefixEcho(service) => service.refuse(why, reply),
            AnyService::Sum(service) => service.refuse(why, reply),
            AnyService::Ok(service) => service.refuse(why, reply),
        }
    }
}
