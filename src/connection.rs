//! A connection that never blocks: a socket and its session.
//!
//! This is where the bytes of an event loop pass, in [`Connection::drive`]. A server's loop and a
//! load generator's are both made of a [`Reactor`](crate::Reactor) and these.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Session;
use crate::framing::Framing;
use crate::poller::{Interest, Readiness};
use crate::service::Service;
use crate::session::{LINGER, SendBuffer};
use crate::sys::{self, Recv};

/// How many bytes one read takes at most, and so how much work one connection can make in a
/// turn.
const RECV_SIZE: usize = 64 * 1024;

/// What one loop lends to whichever connection it is driving: the buffers that an idle
/// connection does not have.
#[derive(Debug)]
pub struct Workspace {
    recv: Box<[u8]>,
    send: Option<Box<SendBuffer>>,
}

impl Workspace {
    /// A receive buffer of 64 KiB, of which only what is used takes memory, and a send buffer
    /// that grows as needed.
    #[must_use]
    pub fn new() -> Workspace {
        Workspace { recv: vec![0; RECV_SIZE].into_boxed_slice(), send: Some(Box::default()) }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace::new()
    }
}

/// What went through the connections of a loop. Any thread may read it.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
    /// Requests served, counted before their replies are sent.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Bytes received.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes that the kernel has taken.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// Moves the counts of a process that is gone here.
    pub(crate) fn take_from(&self, gone: &Traffic) {
        let take = |count: &AtomicU64| count.swap(0, Relaxed) as usize;
        self.add(take(&gone.requests), take(&gone.bytes_in), take(&gone.bytes_out));
    }

    /// For several writers.
    pub(crate) fn add(&self, requests: usize, bytes_in: usize, bytes_out: usize) {
        self.requests.fetch_add(requests as u64, Relaxed);
        self.bytes_in.fetch_add(bytes_in as u64, Relaxed);
        self.bytes_out.fetch_add(bytes_out as u64, Relaxed);
    }
}

/// Adds to a count that only this thread writes, which needs no locked instruction.
#[inline]
fn bump(count: &AtomicU64, n: usize) {
    count.store(count.load(Relaxed) + n as u64, Relaxed);
}

/// What is to be done with a connection that was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the kernel says that it is ready.
    Wait,
    /// It has more to do, and has had its share of this turn.
    Again,
    /// Its sending side was shut down just now: the peer has a limited time to finish.
    Linger,
    /// It is finished.
    Close,
}

/// What is known of the bytes to receive: two bits, so that a `recv` leaves what it has found with
/// one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Input(u8);

impl Input {
    /// A `recv` would return something.
    const READABLE: u8 = 1;
    /// None has returned anything yet.
    const NOTHING_YET: u8 = 2;

    #[inline]
    fn is_readable(self) -> bool {
        self.0 & Input::READABLE != 0
    }

    /// The kernel says that there is something, or not.
    #[inline]
    fn add_readable(&mut self, readable: bool) {
        self.0 |= u8::from(readable);
    }

    /// A `recv` has found nothing.
    #[inline]
    fn is_empty(&mut self) {
        self.0 &= !Input::READABLE;
    }

    /// A `recv` has returned something.
    #[inline]
    fn received(&mut self, more: bool) {
        self.0 = u8::from(more);
    }
}

/// How far a connection of a server that stops has come with ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draining {
    No,
    /// What has arrived is served.
    Arrived,
    /// All of that was. The peer is in the middle of a request, or before its first: when that is
    /// answered the connection ends, whatever has come besides.
    LastRequest,
}

/// A non-blocking socket and its session.
///
/// It remembers what the kernel has said: with edge triggering it is not said twice.
#[derive(Debug)]
pub struct Connection<F: Framing, S> {
    fd: OwnedFd,
    /// When a request was last completed, or something was last sent, by the loop's clock.
    active_ms: u32,
    session: Session<F, S>,
    /// Whether a `recv` would return something, and whether one ever has.
    input: Input,
    /// A `send` would take something.
    writable: bool,
    /// EOF is at the end of what there is to receive.
    peer_done: bool,
    draining: Draining,
    /// What the poller was last told to watch for.
    watched: Interest,
}

impl<F: Framing, S: Service> Connection<F, S> {
    /// A connection over a non-blocking socket that the poller watches for `watched`, at the
    /// time `now_ms` of the loop's clock.
    pub fn new(
        fd: OwnedFd,
        session: Session<F, S>,
        watched: Interest,
        now_ms: u32,
    ) -> Connection<F, S> {
        Connection {
            fd,
            active_ms: now_ms,
            session,
            input: Input(Input::NOTHING_YET),
            writable: true,
            peer_done: false,
            draining: Draining::No,
            watched,
        }
    }

    /// Its session.
    pub fn session(&self) -> &Session<F, S> {
        &self.session
    }

    /// Its session.
    pub fn session_mut(&mut self) -> &mut Session<F, S> {
        &mut self.session
    }

    /// When it last completed a request or had part of a reply taken, by the loop's clock.
    pub fn active_ms(&self) -> u32 {
        self.active_ms
    }

    /// With level triggering: what to watch for from now on, if that has changed. It is what the
    /// session would act upon; anything else would be reported in every turn.
    pub fn take_interest_change(&mut self) -> Option<Interest> {
        let mut wanted = Interest::NONE;
        if self.session.wants_read() {
            wanted |= Interest::READ;
        }
        if self.session.wants_write() {
            wanted |= Interest::WRITE;
        }
        let changed = wanted != self.watched;
        self.watched = wanted;
        changed.then_some(wanted)
    }

    /// Serves what has arrived by now, and then closes; in the middle of a request, or before the
    /// first, after that.
    pub fn drain(&mut self) {
        self.draining = Draining::Arrived;
        self.input.add_readable(true);
    }

    /// One connection's share of a turn: sends what is left over, receives once, serves, and
    /// sends once.
    ///
    /// # Errors
    /// The connection is lost, and is to be closed.
    #[inline(always)] // see sys/call.rs
    pub fn drive(
        &mut self,
        readiness: Readiness,
        now_ms: u32,
        work: &mut Workspace,
        traffic: &Traffic,
    ) -> io::Result<Step> {
        self.input.add_readable(readiness.is_readable());
        self.writable |= readiness.is_writable();
        self.peer_done |= readiness.is_read_closed();

        let mut served = 0;
        let idle = self.session.is_idle();
        self.session.lend(&mut work.send);
        if !idle {
            served += self.catch_up(now_ms, traffic)?;
        }
        if self.input.is_readable() && self.session.wants_read() {
            match sys::recv(self.fd.as_fd(), &mut work.recv)? {
                Recv::Data(n) => {
                    // A read that did not fill the buffer has emptied the socket (epoll(7)), but
                    // for an EOF, of which the kernel will not speak again.
                    self.input.received(n == work.recv.len() || self.peer_done);
                    bump(&traffic.bytes_in, n);
                    served += self.session.receive(&work.recv[..n]);
                }
                Recv::Eof => {
                    self.input.is_empty();
                    served += self.session.receive_eof();
                }
                Recv::WouldBlock => self.input.is_empty(),
            }
        }
        if served > 0 {
            bump(&traffic.requests, served);
            self.active_ms = now_ms;
        }
        self.flush(now_ms, traffic)?;
        self.session.reclaim(&mut work.send);
        // Nearly always that is all.
        if self.session.is_idle() && !self.input.is_readable() && self.draining == Draining::No {
            return Ok(Step::Wait);
        }
        self.next_step(served, now_ms)
    }

    /// Sends what was left over, and serves what had to wait for that. Returns how many requests.
    #[cold]
    fn catch_up(&mut self, now_ms: u32, traffic: &Traffic) -> io::Result<usize> {
        self.flush(now_ms, traffic)?;
        Ok(if self.session.wants_resume() { self.session.resume() } else { 0 })
    }

    /// Sends what the kernel will take.
    #[inline(always)] // see sys/call.rs
    fn flush(&mut self, now_ms: u32, traffic: &Traffic) -> io::Result<()> {
        if self.writable && self.session.wants_write() {
            let sent = sys::send(self.fd.as_fd(), self.session.unsent())?;
            self.session.advance(sent);
            // Taking less than it was given, the kernel will say when there is room again.
            self.writable = !self.session.wants_write();
            if sent > 0 {
                bump(&traffic.bytes_out, sent);
                self.active_ms = now_ms;
            }
        }
        Ok(())
    }

    #[cold]
    fn next_step(&mut self, served: usize, now_ms: u32) -> io::Result<Step> {
        if self.is_drained(served) {
            let idle_ms = now_ms.wrapping_sub(self.active_ms);
            if u128::from(idle_ms) >= LINGER.as_millis() && !self.session.wants_write() {
                // Its last reply has had all the time that lingering would give it.
                return Ok(Step::Close);
            }
            self.session.close();
        }
        if self.session.wants_shutdown() {
            sys::shutdown_write(self.fd.as_fd())?;
            self.session.shut_down();
            // What there is to discard, or the EOF, may have been reported already.
            self.input.add_readable(true);
            return Ok(Step::Linger);
        }
        if self.session.is_done() {
            return Ok(Step::Close);
        }
        let more =
            self.input.is_readable() && self.session.wants_read() || self.session.wants_resume();
        Ok(if more { Step::Again } else { Step::Wait })
    }

    /// Whether the server is stopping, and has served the last of this connection.
    fn is_drained(&mut self, served: usize) -> bool {
        // Not while it holds requests that wait for room for their replies.
        match self.draining {
            Draining::Arrived if !self.input.is_readable() && self.session.wants_read() => {
                let before_first = self.input.0 & Input::NOTHING_YET != 0;
                if before_first || self.session.is_mid_request() {
                    self.draining = Draining::LastRequest;
                    return false;
                }
                true
            }
            Draining::LastRequest => served > 0 && !self.session.is_closing(),
            Draining::No | Draining::Arrived => false,
        }
    }
}

impl<F: Framing, S> AsFd for Connection<F, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
