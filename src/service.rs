//! What a server does with a request: the one thing that a user of the library must write.
//!
//! ```
//! use c10k::framing::Delimiter;
//! use c10k::service::{Outcome, Reply, Service};
//! use c10k::Session;
//!
//! /// Shouts back.
//! struct Shout;
//!
//! impl Service for Shout {
//!     fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
//!         reply.extend(&request.to_ascii_uppercase());
//!         Outcome::Reply
//!     }
//! }
//!
//! // No socket is needed to try it:
//! let mut session = Session::new(Delimiter::new(b'\n'), Shout);
//! session.receive(b"hello\nwor");
//! session.receive(b"ld\n");
//! assert_eq!(session.unsent(), b"HELLO\nWORLD\n");
//! ```

use std::fmt;
use std::io;
use std::sync::Arc;

/// Answers requests. Each connection has a service of its own, so its fields are the state of
/// that connection; what connections share goes behind an [`Arc`]. Datagrams have no connection: one
/// service answers all that arrive on a socket.
///
/// A call should be quick: in an event loop every other connection waits for it.
///
/// A panic closes the connection, is logged and counted, and disturbs no other connection (unless
/// the program is built with `panic = "abort"`).
pub trait Service {
    /// Answers one request by writing to `reply`.
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome;

    /// Says why a request was refused before it came here: a frame over its limit. The
    /// connection is closed after this reply, or without one if nothing is written.
    fn refuse(&mut self, why: Refusal, reply: &mut Reply<'_>) {
        write!(reply, "error: {why}");
    }

    /// Whether this is not a request but a reply such as this service would give. Over datagrams
    /// it is not answered: anybody can claim to be another such server, and the two would answer
    /// each other without end. Default: it never is, which is all that an echo can say.
    fn is_reply(&self, datagram: &[u8]) -> bool {
        let _ = datagram;
        false
    }
}

/// What becomes of a reply, and of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is sent, and the next request is served.
    Reply,
    /// Nothing is sent, whatever was written; the next request is served.
    Silence,
    /// The request made no sense, as the reply says. The next one is served if the framing can
    /// [find it](crate::framing::Framing::resyncs); otherwise the connection is closed.
    Reject,
    /// The reply is sent, then the connection is closed; what else was received is dropped. If
    /// nothing was written, nothing is sent, not even the framing's end of a reply.
    Close,
}

/// Why a frame did not become a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It is longer than the framing allows.
    FrameTooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::FrameTooLong => f.write_str("frame too long"),
        }
    }
}

/// Where a service writes its answer: the end of the connection's send buffer.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    terminated: bool,
}

impl<'a> Reply<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Reply<'a> {
        let start = out.len();
        Reply { out, start, terminated: true }
    }

    /// Appends bytes.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// What `write!(reply, "...")` calls: it cannot fail, so there is no result to look at.
    pub fn write_fmt(&mut self, args: fmt::Arguments<'_>) {
        // Only a formatting trait that lies returns an error.
        let _ = io::Write::write_fmt(self.out, args);
    }

    /// Leaves out what the framing puts at the end of a reply.
    pub fn unterminated(&mut self) {
        self.terminated = false;
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.out.truncate(self.start);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer, if the framing is to end the reply.
    pub(crate) fn into_terminated(self) -> Option<&'a mut Vec<u8>> {
        self.terminated.then_some(self.out)
    }
}

impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Result::Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Result::Ok(())
    }
}

/// Replies with the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Service for Echo {
    #[inline]
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(request);
        Outcome::Reply
    }
}

/// Replies with a prefix and the request.
#[derive(Debug, Clone)]
pub struct PrefixEcho {
    // Boxed once more to keep a connection's share of it at eight bytes.
    prefix: Arc<Box<[u8]>>,
}

impl PrefixEcho {
    /// An echo that puts `prefix` before each reply. Clones share it.
    pub fn new(prefix: impl Into<Box<[u8]>>) -> PrefixEcho {
        PrefixEcho { prefix: Arc::new(prefix.into()) }
    }
}

impl Service for PrefixEcho {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(&self.prefix);
        reply.extend(request);
        Outcome::Reply
    }

    /// Each would be longer than the one before.
    fn is_reply(&self, datagram: &[u8]) -> bool {
        !self.prefix.is_empty() && datagram.starts_with(&self.prefix)
    }
}

/// Replies `ok` to anything, with nothing after it whatever the framing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ok;

impl Service for Ok {
    fn call(&mut self, _: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(b"ok");
        reply.unterminated();
        Outcome::Reply
    }

    fn is_reply(&self, datagram: &[u8]) -> bool {
        datagram == b"ok"
    }
}

#[cfg(feature = "json")]
pub use crate::sum::Sum;
