//! Outbound connections.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{Handler, Reactor, TIMEOUT_MAX};
use crate::poller::{Interest, Poller, Readiness, Token};
use crate::slots::{Waiting, live};
use crate::sys::{self, ConnectOptions, Connecting};
use crate::{Addr, Error};

impl<S: AsFd, P: Poller> Reactor<S, P> {
    /// Starts an outbound connection. `make` gets the socket and makes the source of it;
    /// [`Handler::connected`] says how it ended, by `timeout` at the latest.
    ///
    /// `interest` is what to watch for, then and afterwards. The end of the handshake makes the
    /// socket writable, so [`Interest::WRITE`] is added to it; a source that is level-triggered
    /// will want to [`modify`](Reactor::modify) that once it is connected.
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
        // Also if it is connected already: that is told from within a turn too.
        let token = self
            .insert(make(fd), interest | Interest::WRITE, Waiting::CONNECTING)
            .map_err(failed)?;
        if connecting == Connecting::InProgress {
            self.set_deadline(token, Instant::now() + timeout.min(TIMEOUT_MAX));
        }
        Ok(token)
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
