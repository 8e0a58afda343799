//! Outbound connections.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{Handler, Reactor, TIMEOUT_MAX};
use crate::poller::{Interest, Poller, Readiness, Token};
use crate::slots::{Waiting, live};
use crate::sys::{self, ConnectOptions, Connecting};
use crate::{Addr, Error};

/// The first pause before a full queue is tried again, which doubles each time, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// A connection to a unix listener whose accept queue is full.
///
/// The kernel has no handshake that would go on by itself, and says EAGAIN (`connect(2)`). Nor does
/// it tell when there is room, and a socket that is not connected is always ready with a hang-up:
/// so it is not watched, and the deadline of its source is when to try again.
#[derive(Debug)]
pub(super) struct Queued {
    addr: Addr,
    interest: Interest,
    /// When to give up.
    until: Instant,
    pause: Duration,
}

impl<S: AsFd, P: Poller> Reactor<S, P> {
    /// Starts an outbound connection. `make` gets the socket and makes the source of it;
    /// [`Handler::connected`] says how it ended, by `timeout` at the latest.
    ///
    /// `interest` is what to watch for, then and afterwards. The end of the handshake makes the
    /// socket writable, so [`Interest::WRITE`] is added to it; a source that is level-triggered
    /// will want to [`modify`](Reactor::modify) that once it is connected.
    ///
    /// A unix listener whose queue is full is tried again, with pauses of 1 to 64 ms, until then. Its
    /// source is not watched, and so cannot be modified, before it is connected.
    ///
    /// # Errors
    /// [`Error::Connect`] for what is known at once; see [`sys::connect`].
    pub fn connect(
        &mut self,
        addr: &Addr,
        options: &ConnectOptions,
        timeout: Duration,
        interest: Interest,
        make: impl FnOnce(OwnedFd) -> S,
    ) -> Result<Token, Error> {
        let failed = |source| Error::Connect { addr: addr.clone(), source };
        let (fd, connecting) = sys::connect(addr, options).map_err(failed)?;
        let interest = interest | Interest::WRITE;
        let watched = (connecting != Connecting::QueueFull).then_some(interest);
        // Also if it is connected already: that is told from within a turn too.
        let token = self.insert(make(fd), watched, Waiting::CONNECTING).map_err(failed)?;
        let until = Instant::now() + timeout.min(TIMEOUT_MAX);
        match connecting {
            Connecting::Done => {}
            Connecting::InProgress => self.set_deadline(token, until),
            Connecting::QueueFull => {
                let addr = addr.clone();
                self.queue(token, Queued { addr, interest, until, pause: PAUSE_MIN });
            }
        }
        Ok(token)
    }

    /// Tries again after a pause.
    fn queue(&mut self, token: Token, queued: Queued) {
        self.set_deadline(token, queued.until.min(Instant::now() + queued.pause));
        let pause = PAUSE_MAX.min(queued.pause * 2);
        self.queued.insert(token, Queued { pause, ..queued });
    }

    /// The deadline of a connection under way has passed: time to try again, or to give up.
    #[cold]
    pub(super) fn connect_is_due<H: Handler<S, P>>(&mut self, handler: &mut H, token: Token) {
        let result = match self.queued.remove(&token) {
            Some(queued) => self.connect_again(token, queued),
            None => Err(io::ErrorKind::TimedOut.into()),
        };
        let Err(error) = result else { return };
        if let Some(slot) = live(&mut self.slots, token) {
            slot.waiting.clear(Waiting::CONNECTING);
        }
        handler.connected(self, token, Err(error));
    }

    /// If it is connected now, the next wait tells, as it does of any other.
    fn connect_again(&mut self, token: Token, queued: Queued) -> io::Result<()> {
        let Some(slot) = live(&mut self.slots, token) else { return Ok(()) };
        let fd = slot.source.as_fd();
        if sys::connect_again(fd, &queued.addr)? != Connecting::QueueFull {
            return self.poller.add(fd, token, queued.interest);
        }
        if Instant::now() >= queued.until {
            let why = "timed out: the listener's queue is full";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        self.queue(token, queued);
        Ok(())
    }

    /// The socket of a connection under way has something to say.
    pub(super) fn finish_connect<H>(&mut self, handler: &mut H, token: Token, readiness: Readiness)
    where
        H: Handler<S, P>,
    {
        self.clear_deadline(token);
        let slot = live(&mut self.slots, token).expect("the caller looked");
        slot.waiting.clear(Waiting::CONNECTING);
        let result = sys::take_error(slot.source.as_fd());
        let connected = result.is_ok();
        handler.connected(self, token, result);
        // The peer's first data may have come in the same event, of which edge triggering will
        // not speak again; and a one-shot has spent its shot.
        if connected && self.source(token).is_some() {
            self.ready(handler, token, readiness);
        }
    }
}
