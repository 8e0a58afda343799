//! One connection's protocol, with no connection: bytes in, bytes out.
//!
//! A [`Session`] is given what was received, cuts it into frames, has a service answer them, and
//! holds the replies until they are sent. It never sees a descriptor, so whoever owns one drives
//! it: an event loop, a thread that blocks, a test with scripted input.
//!
//! ```text
//!     receive(bytes) -> framing -> service -> unsent() ... advance(n)
//!
//!     the driver    reads while  wants_read()
//!                   writes while wants_write()
//!                   shuts down its sending side when wants_shutdown(), and says so: shut_down()
//!                   closes when  is_done()
//! ```
//!
//! ```
//! use c10k::framing::Delimiter;
//! use c10k::service::Echo;
//! use c10k::Session;
//!
//! let mut session = Session::new(Delimiter::new(b'\n'), Echo);
//! assert_eq!(session.receive(b"one\ntwo\nthr"), 2, "two requests were whole");
//! assert_eq!(session.unsent(), b"one\ntwo\n");
//! session.advance(4); // as if `send` had taken four bytes
//! assert_eq!(session.unsent(), b"two\n");
//! session.advance(4);
//!
//! session.receive_eof(); // "thr" will never be whole
//! assert!(session.is_done() && session.dropped_unfinished());
//! ```
//!
//! **Memory.** An idle session owns no heap memory. What is received is served from the caller's
//! buffer; only the start of an unfinished frame is copied, and replies that the kernel would not
//! take. A driver of many sessions lends them one send buffer in turn ([`Session::lend`],
//! [`Session::reclaim`]).
//!
//! **Bounds.** No more is held than one frame of the longest allowed, one read, and as many
//! replies as `pending_max` plus the one that crossed it. Past that the session *suspends*: it
//! serves no more of what it holds, and wants no more, until all of it is sent.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::framing::{Framing, Scan};
pub use crate::send_buffer::SendBuffer;
use crate::service::{Outcome, Refusal, Reply, Service};

/// How many bytes of unsent replies suspend a session, where nothing else is said: 1 MiB.
pub const PENDING_MAX: u32 = 1024 * 1024;

/// How many bytes a closing session discards, waiting for the peer to have read what it was
/// sent: 1 MiB. A peer that sends more than this is cut off.
pub const LINGER_MAX: u32 = 1024 * 1024;

/// How long a connection that is being closed should be given to end by itself: two seconds.
pub const LINGER: Duration = Duration::from_secs(2);

/// The protocol state of one connection.
pub struct Session<F: Framing, S> {
    framing: F,
    service: S,
    /// Received and not yet served; `None` most of the time.
    held: Option<Box<Held<F::State>>>,
    /// Served and not yet sent; `None` most of the time.
    out: Option<Box<SendBuffer>>,
    /// While serving, how many bytes may be unsent; while lingering, how many more may be
    /// discarded. One field for both: a million sessions are to fit.
    bound: u32,
    phase: Phase,
    ended: Option<Ended>,
    unfinished: bool,
}

/// The life of a session. It only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are received and served.
    Open,
    /// The peer has sent EOF: what is held is still served, and replies are sent.
    PeerDone,
    /// Nothing is served any more: replies are sent, then the sending side is shut down.
    Closing,
    /// The sending side is shut down. What the peer still sends is discarded until its EOF:
    /// closing at once would send a reset, which may overtake the last reply and destroy it.
    Lingering,
    /// Nothing is left to do.
    Done,
}

/// Why a session stopped serving before the peer's EOF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// A frame was refused.
    Refused(Refusal),
    /// A request made no sense, and the framing cannot find the next one.
    Malformed,
    /// The service asked for it.
    ByService,
    /// The service panicked.
    Panicked,
    /// The driver asked for it.
    ByDriver,
}

/// Bytes that were received but could not be served yet.
///
/// ```text
///   0          head                     len
///   |  served  |  unfinished or unread  |
/// ```
#[derive(Debug, Default)]
struct Held<T> {
    bytes: Vec<u8>,
    head: usize,
    /// What the framing knows of the unfinished frame, all of which it has seen.
    scan: T,
    /// Instead: whole frames may be in here, and were not looked at, since there are more replies
    /// unsent than allowed.
    suspended: bool,
}

impl<F: Framing, S: Service> Session<F, S> {
    /// A session that has received nothing yet.
    pub fn new(framing: F, service: S) -> Session<F, S> {
        Session {
            framing,
            service,
            held: None,
            out: None,
            bound: PENDING_MAX,
            phase: Phase::Open,
            ended: None,
            unfinished: false,
        }
    }

    /// Suspends past this many bytes of unsent replies, instead of [`PENDING_MAX`].
    #[must_use]
    pub fn pending_max(self, pending_max: u32) -> Session<F, S> {
        Session { bound: pending_max, ..self }
    }

    /// The service, with the state it keeps for this connection.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// The service, with the state it keeps for this connection.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    // ---- What it wants ----

    /// Whether the driver should receive: there is room for more, or something to discard.
    #[inline]
    pub fn wants_read(&self) -> bool {
        match self.phase {
            Phase::Open => !self.is_suspended() && !self.is_over_pending(),
            Phase::Lingering => true,
            Phase::PeerDone | Phase::Closing | Phase::Done => false,
        }
    }

    /// Whether there are bytes to send.
    #[inline]
    pub fn wants_write(&self) -> bool {
        self.unsent_len() > 0
    }

    /// Whether the driver should shut down the sending side, and then call
    /// [`shut_down`](Session::shut_down).
    #[inline]
    pub fn wants_shutdown(&self) -> bool {
        self.phase == Phase::Closing && !self.wants_write()
    }

    /// Whether requests are held that were not served because too many replies were unsent, and
    /// now all of those are sent: [`resume`](Session::resume) it.
    #[inline]
    pub fn wants_resume(&self) -> bool {
        self.is_suspended() && !self.wants_write()
    }

    /// Whether the connection can be closed.
    #[inline]
    pub fn is_done(&self) -> bool {
        match self.phase {
            Phase::PeerDone => self.held.is_none() && !self.wants_write(),
            Phase::Done => true,
            Phase::Open | Phase::Closing | Phase::Lingering => false,
        }
    }

    /// Whether it has nothing to do until more is received: nothing is held, nothing is unsent.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Open && self.held.is_none() && !self.wants_write()
    }

    /// Whether it has stopped serving and only waits for the peer to be done.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Lingering | Phase::Done)
    }

    /// Why it stopped serving, if it did before the peer's EOF. Told once, so that it is counted
    /// once.
    pub fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// Whether the stream ended within a frame, which was dropped.
    pub fn dropped_unfinished(&self) -> bool {
        self.unfinished
    }

    #[inline]
    fn is_suspended(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.suspended)
    }

    // ---- Bytes in ----

    /// Takes what one read returned, serves each request that is whole, and returns how many.
    ///
    /// While closing, it is discarded.
    #[inline]
    pub fn receive(&mut self, input: &[u8]) -> usize {
        match self.phase {
            Phase::Open => {
                debug_assert!(!self.is_suspended(), "it did not want to read");
                self.guarded(|session, served| session.receive_open(input, served))
            }
            Phase::Lingering => {
                self.discard(input.len());
                0
            }
            Phase::PeerDone | Phase::Closing | Phase::Done => 0,
        }
    }

    /// Takes the peer's EOF: what is held and whole is still served. Returns how many requests
    /// were served, which is one for a frame that only EOF could end.
    pub fn receive_eof(&mut self) -> usize {
        match self.phase {
            Phase::Open => self.phase = Phase::PeerDone,
            Phase::Lingering => self.phase = Phase::Done,
            Phase::PeerDone | Phase::Closing | Phase::Done => {}
        }
        if self.phase == Phase::PeerDone && !self.is_suspended() {
            return self.guarded(Session::finish_held);
        }
        0
    }

    /// Serves what is held since the session suspended, and returns how many requests.
    pub fn resume(&mut self) -> usize {
        debug_assert!(self.wants_resume());
        self.guarded(Session::resume_held)
    }

    /// Stops serving: what is unsent is still sent, then the connection is closed in good order.
    pub fn close(&mut self) {
        if !self.is_done() {
            self.end(Ended::ByDriver);
        }
    }

    // ---- Bytes out ----

    /// Writes something of the driver's own to be sent, such as a client's first request. The
    /// framing ends it like a reply.
    pub fn push(&mut self, write: impl FnOnce(&mut S, &mut Reply<'_>)) {
        let out = SendBuffer::of(&mut self.out);
        out.append(&self.framing, |reply| {
            write(&mut self.service, reply);
            Outcome::Reply
        });
    }

    /// The bytes to send next.
    #[inline]
    pub fn unsent(&self) -> &[u8] {
        self.out.as_ref().map_or(&[], |out| out.unsent())
    }

    /// Says that the first `n` bytes of [`unsent`](Session::unsent) were sent.
    ///
    /// # Panics
    /// If there were not as many.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        let Some(out) = &mut self.out else {
            assert_eq!(n, 0, "nothing was unsent");
            return;
        };
        assert!(n <= out.len(), "more was sent than there was");
        out.sent += n;
        if out.len() == 0 {
            out.clear();
        }
    }

    /// Says that the sending side was shut down, as it [wanted](Session::wants_shutdown).
    pub fn shut_down(&mut self) {
        debug_assert!(self.wants_shutdown());
        self.phase = Phase::Lingering;
        self.bound = LINGER_MAX;
    }

    /// Lends the session a buffer to gather replies in, if it has none of its own.
    #[inline]
    pub fn lend(&mut self, spare: &mut Option<Box<SendBuffer>>) {
        if self.out.is_none() {
            self.out = spare.take();
        }
    }

    /// Takes the lent buffer back. What is unsent is copied to one of the session's own, of just
    /// that size, which in turn is dropped when it is empty.
    #[inline]
    pub fn reclaim(&mut self, spare: &mut Option<Box<SendBuffer>>) {
        if !self.wants_write() {
            if let Some(out) = self.out.take() {
                spare.get_or_insert(out);
            }
        } else if spare.is_none() {
            let bytes = self.unsent().to_vec();
            let own = Box::new(SendBuffer { whole: bytes.len(), bytes, sent: 0 });
            *spare = self.out.replace(own);
            spare.as_mut().expect("it was unsent").clear();
        }
    }

    // ---- Within ----

    /// Runs what calls the service; a panic there ends the session, with the replies before it
    /// intact.
    #[inline]
    fn guarded(&mut self, serve: impl FnOnce(&mut Self, &mut usize)) -> usize {
        let mut served = 0;
        // What a panic can leave half done is the service, which is not called again, and the
        // reply under way, which is cut off here.
        if catch_unwind(AssertUnwindSafe(|| serve(self, &mut served))).is_err() {
            if let Some(out) = &mut self.out {
                out.cut_off();
            }
            self.end(Ended::Panicked);
        }
        served
    }

    #[inline]
    fn receive_open(&mut self, mut input: &[u8], served: &mut usize) {
        if self.held.is_some() {
            let Some(end) = self.finish_frame(input) else { return };
            *served += 1;
            input = &input[end..];
        }
        let mut scan = F::State::default();
        let consumed = self.serve(input, &mut scan, served);
        let rest = &input[consumed..];
        if !rest.is_empty() && self.phase == Phase::Open {
            // All of an unfinished frame has been scanned; if there is no room for replies, none
            // of the rest has.
            let suspended = self.is_over_pending();
            self.held = Some(Box::new(Held { bytes: rest.to_vec(), head: 0, scan, suspended }));
        }
    }

    /// Completes the held frame with the start of `input` and serves it. Returns how much of the
    /// input it took, or `None` if all of it and the frame still goes on.
    fn finish_frame(&mut self, input: &[u8]) -> Option<usize> {
        let mut held = self.held.take().expect("the caller looked");
        let carried = held.bytes.len() - held.head;
        match self.framing.scan(&mut held.scan, carried, input) {
            Scan::Incomplete => {
                held.bytes.extend_from_slice(input);
                self.held = Some(held);
                None
            }
            Scan::Frame { end, trailer } => {
                held.bytes.extend_from_slice(&input[..end]);
                let frame = &held.bytes[held.head..held.bytes.len() - trailer];
                self.call(frame);
                Some(end)
            }
            Scan::TooLong => {
                self.refuse(Refusal::FrameTooLong);
                None
            }
            Scan::Skip(_) => unreachable!("a frame had begun"),
        }
    }

    /// Serves frames from the start of `input` for as long as there is room for the replies.
    /// Returns how many bytes that took.
    #[inline(always)]
    fn serve(&mut self, input: &[u8], scan: &mut F::State, served: &mut usize) -> usize {
        if self.phase == Phase::Closing || self.is_over_pending() {
            return 0;
        }
        let mut rest = input;
        let mut ended = None;
        while !rest.is_empty() && ended.is_none() {
            match self.framing.scan(scan, 0, rest) {
                Scan::Frame { end, trailer } => {
                    let (frame, after) = rest.split_at(end);
                    let out = SendBuffer::of(&mut self.out);
                    let request = &frame[..end - trailer];
                    ended = out.answer(&self.framing, &mut self.service, request);
                    rest = after;
                    *served += 1;
                    *scan = F::State::default();
                    if out.len() > self.bound as usize {
                        break;
                    }
                }
                Scan::Skip(blank) => rest = &rest[blank..],
                Scan::Incomplete => break,
                Scan::TooLong => {
                    self.refuse(Refusal::FrameTooLong);
                    break;
                }
            }
        }
        if let Some(why) = ended {
            self.end(why);
        }
        input.len() - rest.len()
    }

    fn resume_held(&mut self, served: &mut usize) {
        let mut held = self.held.take().expect("it was suspended");
        let mut scan = F::State::default();
        let consumed = self.serve(&held.bytes[held.head..], &mut scan, served);
        held.head += consumed;
        if held.head < held.bytes.len() && !self.is_closing() {
            held.suspended = self.is_over_pending();
            held.scan = scan;
            self.held = Some(held);
        }
        if self.phase == Phase::PeerDone && !self.is_suspended() {
            self.finish_held(served);
        }
    }

    /// After EOF: a frame that is whole because nothing follows is served, one that is not is
    /// dropped.
    fn finish_held(&mut self, served: &mut usize) {
        let Some(held) = self.held.take() else { return };
        let frame = &held.bytes[held.head..];
        if self.framing.complete_at_eof(&held.scan, frame.len()) {
            self.call(frame);
            *served += 1;
        } else {
            self.unfinished = true;
        }
    }

    /// Serves one request that is not served in a row with others.
    fn call(&mut self, request: &[u8]) {
        let out = SendBuffer::of(&mut self.out);
        if let Some(why) = out.answer(&self.framing, &mut self.service, request) {
            self.end(why);
        }
    }

    fn refuse(&mut self, why: Refusal) {
        let out = SendBuffer::of(&mut self.out);
        out.append(&self.framing, |reply| {
            self.service.refuse(why, reply);
            Outcome::Reply
        });
        self.end(Ended::Refused(why));
    }

    fn end(&mut self, why: Ended) {
        if !self.is_closing() {
            self.phase = Phase::Closing;
            self.ended = Some(why);
            self.held = None;
        }
    }

    fn discard(&mut self, n: usize) {
        match u32::try_from(n).ok().and_then(|n| self.bound.checked_sub(n)) {
            Some(left) => self.bound = left,
            None => self.phase = Phase::Done,
        }
    }

    #[inline]
    fn is_over_pending(&self) -> bool {
        self.unsent_len() > self.bound as usize
    }

    #[inline]
    fn unsent_len(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }
}

impl<F: Framing, S> fmt::Debug for Session<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("held", &self.held.as_ref().map_or(0, |held| held.bytes.len() - held.head))
            .field("unsent", &self.out.as_ref().map_or(0, |out| out.unsent().len()))
            .finish_non_exhaustive()
    }
}
