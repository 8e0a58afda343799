//! A connection that blocks: one thread of control does nothing else.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use super::account_for_end;
use crate::Session;
use crate::connection::Draining;
use crate::framing::Framing;
use crate::server::{Counters, Protocol};
use crate::service::Service;
use crate::session::LINGER;
use crate::sys::{self, Recv, Rest};

/// How many bytes one read takes at most. Each connection has its own buffer here, so it is
/// smaller than the event loop's one.
const RECV_SIZE: usize = 16 * 1024;

/// Between two looks at whether the replies have arrived, while stopping.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Serves one connection from here to its end.
///
/// `stopping` says whether the server is: then what has arrived is served, and the connection ends,
/// one in the middle of a request or before its first after that. `rest` is how it learns of that
/// while it blocks.
pub(crate) fn serve<F: Framing, S: Service, M: Fn() -> S>(
    fd: BorrowedFd<'_>,
    protocol: &Protocol<F, M>,
    counters: &Counters,
    idle_timeout: Option<Duration>,
    stopping: impl Fn() -> bool,
    rest: &Rest,
) {
    let mut session = protocol.session();
    if let Err(error) = converse(fd, &mut session, idle_timeout, counters, stopping, rest) {
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
    rest: &Rest,
) -> io::Result<()> {
    let mut buffer = vec![0; RECV_SIZE];
    let mut patience = Patience::new(fd, idle_timeout)?;
    let (mut before_first, mut at_rest) = (true, false);
    let mut draining = Draining::No;
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
            if rest.is_ended() {
                outlast_replies(fd);
            }
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
            Recv::Eof if rest.is_ended() && !session.is_closing() => {
                // Not the peer's EOF but the server's: after the replies, FIN and no reset.
                session.close();
                (0, 0)
            }
            Recv::Eof => (0, session.receive_eof()),
            Recv::WouldBlock if at_once => (0, 0),
            Recv::WouldBlock => return idle(session, counters),
        };
        before_first &= received == 0;
        let busy = before_first || session.is_mid_request();
        if at_rest == busy {
            at_rest = !busy;
            rest.set(at_rest);
        }
        match draining {
            // Not while it holds requests that wait for room for their replies.
            Draining::Arrived if received < buffer.len() && session.wants_read() => match busy {
                true => draining = Draining::LastRequest,
                false => session.close(),
            },
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

/// Waits until the peer's kernel has the replies, for as long as there is progress.
///
/// Stopping has shut down the receiving side, so there is no waiting for the peer's EOF. What is
/// worse, once both sides are shut down the kernel answers whatever the peer still sends by a
/// reset (RFC 1122, 4.2.2.13), and so does a close with something unread. Either destroys the
/// replies that are still on their way.
fn outlast_replies(fd: BorrowedFd<'_>) {
    let (mut left, mut since) = (usize::MAX, Instant::now());
    let mut discarded = [0; 4096];
    while since.elapsed() < LINGER {
        match sys::unacknowledged(fd) {
            Ok(0) | Err(_) => return,
            Ok(now) if now < left => (left, since) = (now, Instant::now()),
            Ok(_) => {}
        }
        if !matches!(sys::recv(fd, &mut discarded), Ok(Recv::Data(_))) {
            thread::sleep(LOOK_AGAIN);
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
        if self.timeout.is_some() {
            self.since = Instant::now();
            if self.shortened {
                sys::set_io_timeout(self.fd, self.timeout)?;
                self.shortened = false;
            }
        }
        Ok(true)
    }

    /// Something arrived that completed nothing: what is left of the time goes on running.
    /// Returns whether any is.
    fn spend(&mut self) -> io::Result<bool> {
        let Some(timeout) = self.timeout else { return Ok(true) };
        let left = timeout.saturating_sub(self.since.elapsed());
        sys::set_io_timeout(self.fd, Some(left))?;
        self.shortened = true;
        Ok(!left.is_zero())
    }
}
