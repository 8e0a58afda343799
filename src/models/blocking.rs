//! A connection that blocks: one thread of control does nothing else.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::account_for_end;
use crate::Session;
use crate::connection::Draining;
use crate::framing::Framing;
use crate::server::{Counters, Protocol};
use crate::service::Service;
use crate::session::LINGER;
use crate::sys::{self, Recv};

/// How many bytes one read takes at most. Each connection has its own buffer here, so it is
/// smaller than the event loop's one.
const RECV_SIZE: usize = 16 * 1024;

/// Serves one connection from here to its end.
///
/// `stopping` says whether the server is: then what has arrived is served, and the connection ends,
/// one in the middle of a request or before its first after that. When that becomes true, a `recv`
/// under way is to return [`Recv::WouldBlock`].
pub(crate) fn serve<F: Framing, S: Service, M: Fn() -> S>(
    fd: BorrowedFd<'_>,
    protocol: &Protocol<F, M>,
    counters: &Counters,
    idle_timeout: Option<Duration>,
    stopping: impl Fn() -> bool,
) {
    let mut session = protocol.session();
    if let Err(error) = converse(fd, &mut session, idle_timeout, counters, stopping) {
        log::debug!("a connection is lost: {error}");
        counters.error(&error);
    }
    // Unless it was accounted for when it began to linger.
    account_for_end(session.take_ended(), counters, || sys::peer_addr(fd));
}

/// Receives, serves and sends until one side has had enough.
///
/// # Errors
/// The connection is lost.
fn converse<F: Framing, S: Service>(
    fd: BorrowedFd<'_>,
    session: &mut Session<F, S>,
    idle_timeout: Option<Duration>,
    counters: &Counters,
    stopping: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; RECV_SIZE];
    let mut patience = Patience::new(fd, idle_timeout)?;
    let (mut before_first, mut draining) = (true, Draining::No);
    loop {
        while session.wants_write() {
            let sent = sys::send(fd, session.unsent())?;
            if sent == 0 {
                return idle(session, counters);
            }
            session.advance(sent);
            counters.traffic.add(0, 0, sent);
            patience.renew()?;
        }
        if session.wants_resume() {
            counters.traffic.add(session.resume(), 0, 0);
            continue;
        }
        if session.wants_shutdown() {
            account_for_end(session.take_ended(), counters, || sys::peer_addr(fd));
            sys::shutdown_write(fd)?;
            session.shut_down();
            patience = Patience::new(fd, Some(LINGER))?;
        }
        if session.is_done() {
            if session.dropped_unfinished() {
                counters.unfinished.add(1);
            }
            return Ok(());
        }
        if draining == Draining::No && stopping() {
            draining = Draining::Arrived;
        }
        let at_once = draining == Draining::Arrived && !session.is_closing();
        let result = match at_once {
            true => sys::recv_at_once(fd, &mut buffer)?,
            false => sys::recv(fd, &mut buffer)?,
        };
        let (received, served) = match result {
            Recv::Data(n) => (n, session.receive(&buffer[..n])),
            Recv::Eof => (0, session.receive_eof()),
            Recv::WouldBlock if at_once => (0, 0),
            // It was cut short, to look whether the server is stopping.
            Recv::WouldBlock if patience.spend()? => continue,
            Recv::WouldBlock => return idle(session, counters),
        };
        before_first &= received == 0;
        match draining {
            // Not while it holds requests that wait for room for their replies.
            Draining::Arrived if received < buffer.len() && session.wants_read() => {
                if before_first || session.is_mid_request() {
                    draining = Draining::LastRequest;
                } else if patience.since.elapsed() >= LINGER && !session.wants_write() {
                    // Its last reply has had all the time that lingering would give it.
                    return Ok(());
                } else {
                    session.close();
                }
            }
            Draining::LastRequest if served > 0 => session.close(),
            _ => {}
        }
        counters.traffic.add(served, received, 0);
        let in_time = if served > 0 { patience.renew()? } else { patience.spend()? };
        if !in_time {
            return idle(session, counters);
        }
    }
}

/// The time-out has run out. While lingering that is no more than an end.
fn idle<F: Framing, S: Service>(session: &Session<F, S>, counters: &Counters) -> io::Result<()> {
    if !session.is_closing() {
        counters.idle_closed.add(1);
    }
    Ok(())
}

/// How long a blocking call may take: until the idle time-out after the last request, so that
/// bytes that never make one do not prolong it.
struct Patience<'a> {
    fd: BorrowedFd<'a>,
    timeout: Option<Duration>,
    since: Instant,
    /// The socket's own time-out is less than the whole.
    shortened: bool,
}

impl<'a> Patience<'a> {
    fn new(fd: BorrowedFd<'a>, timeout: Option<Duration>) -> io::Result<Patience<'a>> {
        if timeout.is_some() {
            sys::set_io_timeout(fd, timeout)?;
        }
        Ok(Patience { fd, timeout, since: Instant::now(), shortened: false })
    }

    /// A request was completed, or part of a reply was taken.
    fn renew(&mut self) -> io::Result<bool> {
        self.since = Instant::now();
        if self.shortened {
            sys::set_io_timeout(self.fd, self.timeout)?;
            self.shortened = false;
        }
        Ok(true)
    }

    /// Something arrived that completed nothing, or nothing did: what is left of the time goes on
    /// running. Returns whether any is.
    fn spend(&mut self) -> io::Result<bool> {
        let left = self.timeout.map(|timeout| timeout.saturating_sub(self.since.elapsed()));
        sys::set_io_timeout(self.fd, left)?;
        self.shortened = true;
        Ok(left.is_none_or(|left| !left.is_zero()))
    }
}
