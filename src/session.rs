//! One connection's protocol, with no connection: bytes in, bytes out.
//!
//! A [`Session`] is given what was received, cuts it into frames, has a service answer them, and
//! holds the replies until they are sent. It never sees a descriptor, so whoever owns one drives
//! it: an event loop, a thread that blocks, a test with scripted input.
//!
//! ```text
//!     receive(bytes) -> framing -> service -> unsent() ... advance(n)
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
//! # The contract
//!
//! A session says what it wants, and its driver obliges, in this order:
//!
//! | while the session | the driver | and tells the session |
//! |---|---|---|
//! | [`wants_write`](Session::wants_write) | sends the start of [`unsent`](Session::unsent) | [`advance`](Session::advance), with how much of it was sent |
//! | [`wants_resume`](Session::wants_resume) | does nothing | [`resume`](Session::resume): it serves what it held back |
//! | [`wants_shutdown`](Session::wants_shutdown) | shuts down the sending side (`shutdown(2)`) | [`shut_down`](Session::shut_down) |
//! | [`is_done`](Session::is_done) | closes the connection | nothing more |
//! | [`wants_read`](Session::wants_read) | receives | [`receive`](Session::receive), or [`receive_eof`](Session::receive_eof) at EOF |
//!
//! A session that is not done always wants one of these. A call that it does not want does nothing,
//! except that a suspended session holds what it `receive`s: its bounds are those of a driver that
//! keeps the contract. Only an `advance` past the end panics.
//!
//! `wants_resume` is the one to forget: a session that was given more requests than it may have
//! replies unsent ([suspended](#bounds)) holds the rest, and the peer, which waits for the replies,
//! sends nothing that would make it look at them.
//!
//! A driver that blocks, whole:
//!
//! ```
//! use std::io::{self, Read, Write};
//! use std::net::Shutdown;
//! use std::os::unix::net::UnixStream;
//! use c10k::framing::{Delimiter, Framing};
//! use c10k::service::{Echo, Service};
//! use c10k::Session;
//!
//! fn drive<F: Framing, S: Service>(
//!     session: &mut Session<F, S>,
//!     stream: &mut UnixStream,
//! ) -> io::Result<()> {
//!     let mut buffer = [0; 4096];
//!     loop {
//!         if session.wants_write() {
//!             let sent = stream.write(session.unsent())?;
//!             session.advance(sent);
//!         } else if session.wants_resume() {
//!             session.resume();
//!         } else if session.wants_shutdown() {
//!             stream.shutdown(Shutdown::Write)?;
//!             session.shut_down();
//!         } else if session.is_done() {
//!             return Ok(());
//!         } else {
//!             match stream.read(&mut buffer)? {
//!                 0 => session.receive_eof(),
//!                 n => session.receive(&buffer[..n]),
//!             };
//!         }
//!     }
//! }
//!
//! // A hundred requests in one read, and room for ten replies: it suspends, and resumes.
//! let (mut ours, mut peers) = UnixStream::pair()?;
//! peers.write_all(&b"request\n".repeat(100))?;
//! peers.shutdown(Shutdown::Write)?;
//! let mut session = Session::new(Delimiter::new(b'\n'), Echo).pending_max(80);
//! drive(&mut session, &mut ours)?;
//! drop(ours);
//! let mut replies = Vec::new();
//! peers.read_to_end(&mut replies)?;
//! assert_eq!(replies, b"request\n".repeat(100));
//!
//! // A request that is too long: the error arrives, and the session waits for the peer's EOF.
//! let (mut ours, mut peers) = UnixStream::pair()?;
//! peers.write_all(b"one\nand far too long\n")?;
//! peers.shutdown(Shutdown::Write)?;
//! let mut session = Session::new(Delimiter::new(b'\n').max_len(8), Echo);
//! drive(&mut session, &mut ours)?;
//! let mut replies = String::new();
//! peers.read_to_string(&mut replies)?; // its EOF is the shut-down
//! assert_eq!(replies, "one\nerror: frame too long\n");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # How it ends
//!
//! *By the peer's EOF.* What is held and whole is served, an unfinished frame is dropped, and the
//! session is done as soon as no reply is unsent. Until the driver closes, it may still
//! [`push`](Session::push): a driver that owes replies to requests it has seen counts them itself,
//! and closes when the session is done *and* it owes none. `is_done` is false again while what was
//! pushed is unsent.
//!
//! *From our side*, by [`close`](Session::close), a frame that was refused, a service that closes
//! or panics: nothing more is served and nothing more can be pushed; what is unsent is sent; the
//! sending side is shut down; what the peer still sends is discarded, up to [`LINGER_MAX`], until
//! its EOF. The driver should bound that wait ([`LINGER`]). Done is then final.
//!
//! # Bounds
//!
//! No more is held than one frame of the longest allowed, one read, and as many replies as
//! `pending_max` plus the one that crossed it. Past that the session *suspends*: it serves no more
//! of what it holds, and wants no more, until all of it is sent.
//!
//! **Memory.** An idle session owns no heap memory. What is received is served from the caller's
//! buffer; only the start of an unfinished frame is copied, and replies that the kernel would not
//! take. A driver of many sessions lends them one send buffer in turn ([`Session::lend`],
//! [`Session::reclaim`]).

mod serve;

use std::fmt;
use std::time::Duration;

use crate::framing::Framing;
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
    /// The service panicked, or the [framing](Framing) did.
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

    /// Whether the connection can be closed: the session holds nothing, and waits for nothing.
    ///
    /// After the peer's EOF that is so whenever no reply is unsent, and not so again while
    /// something that was [pushed](Session::push) since then is.
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

    /// Whether the start of a request is held, whose rest is still to come.
    pub(crate) fn is_mid_request(&self) -> bool {
        self.held.is_some() && !self.is_suspended()
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
    /// While [closing](Session::is_closing), and after EOF, it is discarded. If the session does
    /// not [want to read](Session::wants_read) because it is suspended, it is held, whatever the
    /// bound, and served in its turn.
    #[inline]
    pub fn receive(&mut self, input: &[u8]) -> usize {
        match self.phase {
            Phase::Open => self.guarded(|session, served| session.receive_open(input, served)),
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

    /// Serves what is held since the session suspended, and returns how many requests: 0 if it
    /// does not [want to](Session::wants_resume).
    pub fn resume(&mut self) -> usize {
        if !self.wants_resume() {
            return 0;
        }
        self.guarded(Session::resume_held)
    }

    /// Stops serving: what is unsent is still sent, then the connection is closed in good order.
    ///
    /// What is held unserved is dropped. A goodbye is [pushed](Session::push) before this. Nothing
    /// changes if the session is [closing](Session::is_closing) or [done](Session::is_done).
    pub fn close(&mut self) {
        if !self.is_done() {
            self.end(Ended::ByDriver);
        }
    }

    // ---- Bytes out ----

    /// Writes something of the driver's own to be sent, such as a client's first request. The
    /// framing ends it like a reply, also if nothing is written.
    ///
    /// It is sent after whatever is unsent, and counts towards `pending_max`, which does not stop
    /// it. It may be called after the peer's EOF. While the session is [closing](Session::is_closing) it does nothing, and
    /// `write` is not called: the last reply is the last.
    pub fn push(&mut self, write: impl FnOnce(&mut S, &mut Reply<'_>)) {
        if self.is_closing() {
            return;
        }
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

    /// Says that the sending side was shut down. Does nothing if the session did not
    /// [want that](Session::wants_shutdown).
    pub fn shut_down(&mut self) {
        if self.wants_shutdown() {
            self.phase = Phase::Lingering;
            self.bound = LINGER_MAX;
        }
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
