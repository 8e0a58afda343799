//! Replies on their way out.

use crate::framing::Framing;
use crate::service::{Outcome, Reply, Service};
use crate::session::Ended;

/// Replies on their way out.
///
/// ```text
///   0          sent                 whole          len
///   |   sent   |        unsent        |  being written |
/// ```
#[derive(Debug, Default)]
pub struct SendBuffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sent: usize,
    /// Where the last whole reply ends. Only while a service writes is there anything after it.
    pub(crate) whole: usize,
}

/// A send buffer that grew beyond this is not kept for the next session.
const SPARE_CAPACITY_MAX: usize = 256 * 1024;

impl SendBuffer {
    #[inline]
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The send buffer of a session, to be written to: one is made if it has none, and what was sent
    /// is let go of.
    #[inline]
    pub(crate) fn of(out: &mut Option<Box<SendBuffer>>) -> &mut SendBuffer {
        let out = out.get_or_insert_default();
        out.compact();
        out
    }

    /// How many bytes are unsent.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Lets go of what was sent, before more is written. Only when that is more than what has to
    /// be moved, so that no byte costs more than one move.
    #[inline]
    pub(crate) fn compact(&mut self) {
        if self.sent > self.len() {
            self.bytes.drain(..self.sent);
            self.whole -= self.sent;
            self.sent = 0;
        }
    }

    /// Has the service answer one request. Returns why that was the last one, if it was.
    #[inline]
    pub(crate) fn answer<F: Framing, S: Service>(
        &mut self,
        framing: &F,
        service: &mut S,
        request: &[u8],
    ) -> Option<Ended> {
        match self.append(framing, |reply| service.call(request, reply)) {
            Outcome::Reject if !framing.resyncs() => Some(Ended::Malformed),
            Outcome::Close => Some(Ended::ByService),
            Outcome::Reply | Outcome::Silence | Outcome::Reject => None,
        }
    }

    /// Appends one reply, ended as the framing would have it.
    #[inline]
    pub(crate) fn append<F: Framing>(
        &mut self,
        framing: &F,
        write: impl FnOnce(&mut Reply<'_>) -> Outcome,
    ) -> Outcome {
        let mut reply = Reply::new(&mut self.bytes);
        let outcome = write(&mut reply);
        if outcome == Outcome::Silence {
            reply.clear();
        } else if outcome == Outcome::Close && reply.is_empty() {
            // A last word that is none is not ended: a bare delimiter would be an empty reply.
        } else if let Some(bytes) = reply.into_terminated() {
            framing.end_reply(bytes);
        }
        self.whole = self.bytes.len();
        outcome
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(SPARE_CAPACITY_MAX);
        self.sent = 0;
        self.whole = 0;
    }

    /// Takes back what a service had written of a reply when it panicked.
    pub(crate) fn cut_off(&mut self) {
        self.bytes.truncate(self.whole);
    }
}
