//! A connection that never blocks: a socket and its session.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::account_for_end;
use crate::Session;
use crate::framing::Framing;
use crate::poller::{Interest, Readiness};
use crate::server::Counters;
use crate::service::Service;
use crate::session::SendBuffer;
use crate::sys::{self, Recv};

/// How many bytes one read takes at most, and so how much work one connection can make in a
/// turn.
const RECV_SIZE: usize = 64 * 1024;

/// What one loop lends to whichever connection it is driving.
#[derive(Debug)]
pub(crate) struct Workspace {
    recv: Box<[u8]>,
    send: Option<Box<SendBuffer>>,
}

impl Workspace {
    pub(crate) fn new() -> Workspace {
        Workspace { recv: vec![0; RECV_SIZE].into_boxed_slice(), send: Some(Box::default()) }
    }
}

/// What is to be done with a connection that was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing until the kernel says that it is ready.
    Wait,
    /// It has more to do, and has had its share of this turn.
    Again,
    /// Its sending side was shut down just now: the peer has a limited time to finish.
    Linger,
    /// It is finished.
    Close,
}

/// A non-blocking socket and its session.
///
/// It remembers what the kernel has said: with edge triggering it is not said twice.
#[derive(Debug)]
pub(crate) struct Connection<F: Framing, S> {
    fd: OwnedFd,
    /// When a request was last completed, or something was last sent, by the loop's clock.
    pub(crate) active_ms: u32,
    session: Session<F, S>,
    /// A `recv` would return something.
    readable: bool,
    /// A `send` would take something.
    writable: bool,
    /// EOF is at the end of what there is to receive.
    peer_done: bool,
    /// The server is stopping: what has arrived is the last to be served.
    draining: bool,
    /// What the poller watches for. With edge triggering it never changes.
    pub(crate) watched: Interest,
}

impl<F: Framing, S: Service> Connection<F, S> {
    pub(crate) fn new(
        fd: OwnedFd,
        session: Session<F, S>,
        watched: Interest,
        now_ms: u32,
    ) -> Connection<F, S> {
        Connection {
            fd,
            active_ms: now_ms,
            session,
            readable: false,
            writable: true,
            peer_done: false,
            draining: false,
            watched,
        }
    }

    pub(crate) fn session(&self) -> &Session<F, S> {
        &self.session
    }

    /// What to watch for, with level triggering: that which it would act upon.
    pub(crate) fn interest(&self) -> Interest {
        match (self.session.wants_read(), self.session.wants_write()) {
            (true, true) => Interest::READ | Interest::WRITE,
            (true, false) => Interest::READ,
            (false, true) => Interest::WRITE,
            (false, false) => Interest::NONE,
        }
    }

    /// Serves what has arrived by now, and then closes.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.readable = true;
    }

    /// One connection's share of a turn: sends what is left over, receives once, serves, and
    /// sends once.
    ///
    /// # Errors
    /// The connection is lost.
    #[inline]
    pub(crate) fn drive(
        &mut self,
        readiness: Readiness,
        now_ms: u32,
        work: &mut Workspace,
        counters: &Counters,
    ) -> io::Result<Step> {
        self.readable |= readiness.is_readable();
        self.writable |= readiness.is_writable();
        self.peer_done |= readiness.is_read_closed();

        let mut served = 0;
        self.session.lend(&mut work.send);
        self.flush(now_ms, counters)?;
        if self.session.wants_resume() {
            served += self.session.resume();
        }
        if self.readable && self.session.wants_read() {
            match sys::recv(self.fd.as_fd(), &mut work.recv)? {
                Recv::Data(n) => {
                    // A read that did not fill the buffer has emptied the socket (epoll(7)), but
                    // for an EOF, of which the kernel will not speak again.
                    self.readable = n == work.recv.len() || self.peer_done;
                    counters.bytes_in.add(n as u64);
                    served += self.session.receive(&work.recv[..n]);
                }
                Recv::Eof => {
                    self.readable = false;
                    served += self.session.receive_eof();
                }
                Recv::WouldBlock => self.readable = false,
            }
        }
        if served > 0 {
            counters.requests.add(served as u64);
            self.active_ms = now_ms;
        }
        self.flush(now_ms, counters)?;
        self.session.reclaim(&mut work.send);
        self.next_step(counters)
    }

    /// Sends what the kernel will take.
    #[inline]
    fn flush(&mut self, now_ms: u32, counters: &Counters) -> io::Result<()> {
        if self.writable && self.session.wants_write() {
            let sent = sys::send(self.fd.as_fd(), self.session.unsent())?;
            self.session.advance(sent);
            // Taking less than it was given, the kernel will say when there is room again.
            self.writable = !self.session.wants_write();
            if sent > 0 {
                counters.bytes_out.add(sent as u64);
                self.active_ms = now_ms;
            }
        }
        Ok(())
    }

    #[inline]
    fn next_step(&mut self, counters: &Counters) -> io::Result<Step> {
        // Not while it holds requests that wait for room for their replies.
        if self.draining && !self.readable && self.session.wants_read() {
            self.session.close();
        }
        if self.session.wants_shutdown() {
            account_for_end(&mut self.session, counters, &self.fd);
            sys::shutdown_write(self.fd.as_fd())?;
            self.session.shut_down();
            // What there is to discard, or the EOF, may have been reported already.
            self.readable = true;
            return Ok(Step::Linger);
        }
        if self.session.is_done() {
            return Ok(Step::Close);
        }
        let more = self.readable && self.session.wants_read() || self.session.wants_resume();
        Ok(if more { Step::Again } else { Step::Wait })
    }
}

impl<F: Framing, S> AsFd for Connection<F, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
