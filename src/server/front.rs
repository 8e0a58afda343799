//! The part of a server that all models share: accepting, refusing, pausing, stopping.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::datagrams::{Desk, Socket};
use super::own_addrs::OwnAddrs;
use super::serve::{Loop, Serve, Source, Sources};
use super::{Config, Listener, Shared};
use crate::models::Ready;
use crate::poller::{Interest, Poller, Readiness, Token};
use crate::{Error, Handler, Reactor, TimerId, sys};

/// How many connections one listener accepts in a turn, so that a flood of newcomers leaves time
/// for those who are in.
const ACCEPT_BATCH: usize = 64;

/// How long a listener rests when there is no descriptor for a newcomer, for each listener there
/// is. Each try costs two `accept4`: eight tries a second in all, where trying on every event
/// would make tens of thousands.
const BACK_OFF: Duration = Duration::from_millis(125);

/// How many waiting connections one listener takes in when it stops: as many as fit a large queue,
/// and not as many as a flood may bring meanwhile.
const LAST_ACCEPTS: usize = 65_536;

/// How many batches of datagrams one socket serves when it stops: as many as fit its receive
/// buffer, and not as many as a flood may bring meanwhile.
const LAST_BATCHES: usize = 64;

/// What one accept came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    Connection,
    /// A connection that was lost before it could be accepted; the next may be tried.
    Failure,
    /// None is there, or the listener now rests.
    Nothing,
}

/// Accepts connections and hands them to the model.
pub(crate) struct Front<V> {
    model: V,
    shared: Arc<Shared>,
    connections_max: u64,
    drain: Duration,
    listeners: Vec<Token>,
    /// Sockets of datagrams, and what they are served at, if there are any.
    datagrams: Vec<Token>,
    desk: Option<Desk>,
    /// The listeners are paused because there are as many connections as allowed.
    at_limit: bool,
    /// Given up for a moment to accept, and thereby refuse, a connection that there is no
    /// descriptor for; otherwise it would stay in the queue and be reported for ever.
    reserve: Option<EventFd>,
    drain_timer: Option<TimerId>,
    last_warning: Option<Instant>,
}

impl<V> Front<V> {
    /// Makes the loop, and has it watch all that it is to wait for. What it serves until it is
    /// stopped is only run then.
    pub(crate) fn prepare<P>(
        model: V,
        sources: Sources,
        shared: Arc<Shared>,
        config: &Config,
    ) -> Result<Ready, Error>
    where
        P: Poller + Send + 'static,
        V: Serve<P> + Send + 'static,
        V::Connection: Send + 'static,
        V::Service: Send + 'static,
    {
        let mut reactor: Loop<V, P> = Reactor::of_type()?;
        let Sources { listeners, datagrams, signals } = sources;
        let desk = (!datagrams.is_empty())
            .then(|| Desk::new(OwnAddrs::of(&datagrams), config.datagram_len_max));
        let reserve = reserve().map_err(Error::system("reserve a descriptor (eventfd2)"))?;
        let mut front = Front {
            model,
            desk,
            datagrams: Vec::new(),
            connections_max: config.connections_max,
            drain: config.drain,
            listeners: Vec::new(),
            at_limit: false,
            reserve: Some(reserve),
            drain_timer: None,
            last_warning: None,
            shared: Arc::clone(&shared),
        };
        let mut watch = |source, interest| reactor.add(source, interest).map_err(Error::watch);
        for listener in listeners {
            let interest = listener.interest();
            front.listeners.push(watch(Source::Listener(Box::new(listener)), interest)?);
        }
        for bound in datagrams {
            let socket = Box::new(Socket::new(bound, front.model.service()));
            let interest = socket.interest();
            front.datagrams.push(watch(Source::Datagrams(socket), interest)?);
        }
        if let Some(signals) = signals {
            watch(Source::Signals(Box::new(signals)), Interest::READ)?;
        }
        // Told to stop from here on, it is woken by that when it runs.
        shared.loop_is(reactor.waker());
        Ok(Box::new(move || {
            shared.counters.serving.set(1);
            reactor.run(&mut front).map_err(Error::system("run the event loop"))
        }))
    }

    // ---- Accepting ----

    /// Accepts what is waiting, up to the share of one turn.
    fn accept<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token)
    where
        V: Serve<P>,
    {
        self.queue_behind_others(reactor, token);
        let mut failures = 0;
        for _ in 0..ACCEPT_BATCH {
            if self.shared.counters.open.value() >= self.connections_max {
                self.pause_at_limit(reactor);
                return;
            }
            match self.accept_one(reactor, token) {
                Took::Connection => failures = 0,
                Took::Failure => failures += 1,
                Took::Nothing => return,
            }
        }
        if failures == ACCEPT_BATCH {
            // Not connections that were aborted, it seems, but something that lasts.
            self.back_off(reactor, token);
        }
    }

    /// Lets the other workers have the next newcomer.
    ///
    /// The kernel wakes the first of those who wait for a shared listener, in the order in which
    /// they added it, and whoever is not busy: left at that, one of four takes nine of ten
    /// connections. To add it again is to go to the end of the line.
    fn queue_behind_others<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token)
    where
        V: Serve<P>,
    {
        let Some(Source::Listener(listener)) = reactor.source(token) else { return };
        let interest = listener.interest();
        if !interest.contains(Interest::EXCLUSIVE) || listener.is_paused() {
            return;
        }
        let result = reactor.pause(token).and_then(|()| reactor.resume(token, interest));
        if let Err(error) = result {
            self.shared.counters.error(&error);
            self.back_off(reactor, token);
        }
    }

    /// Accepts one connection.
    fn accept_one<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token) -> Took
    where
        V: Serve<P>,
    {
        let Some(Source::Listener(listener)) = reactor.source(token) else { return Took::Nothing };
        match sys::accept(listener.as_fd(), V::NONBLOCKING) {
            Ok(Some(fd)) => {
                if let Err(error) = self.model.admit(reactor, fd) {
                    self.warn(|| refused(&error));
                }
                Took::Connection
            }
            Ok(None) => Took::Nothing,
            Err(error) => {
                if belongs_to_one_connection(&error) {
                    self.shared.counters.error(&error);
                    return Took::Failure;
                }
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    self.refuse_through_reserve(listener);
                } else {
                    self.shared.counters.error(&error);
                }
                self.warn(|| format!("cannot accept for now: {error}"));
                self.back_off(reactor, token);
                Took::Nothing
            }
        }
    }

    /// There is no descriptor for the first connection in the queue: makes room for it with the
    /// reserved one, and closes it, so that its peer knows.
    fn refuse_through_reserve(&mut self, listener: &Listener) {
        drop(self.reserve.take());
        if let Ok(Some(_refused)) = sys::accept(listener.as_fd(), true) {
            self.shared.counters.refused_no_fd.add(1);
        }
        // Another process may have been quicker (ENFILE); then the next try does without.
        self.reserve = reserve().ok();
    }

    /// At most once a second.
    fn warn(&mut self, what: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.last_warning.is_none_or(|last| now - last >= Duration::from_secs(1)) {
            self.last_warning = Some(now);
            log::warn!("{}", what());
        }
    }

    // ---- Datagrams ----

    /// Serves what one call receives: if there is more, the next wait says so. Returns how many
    /// datagrams there were.
    fn serve_datagrams<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token) -> usize
    where
        V: Serve<P>,
    {
        let Some(Source::Datagrams(socket)) = reactor.source_mut(token) else { return 0 };
        let Some(desk) = &mut self.desk else { return 0 };
        match desk.serve(socket, || self.model.service(), &self.shared.counters) {
            Ok(received) => received,
            Err(error) => {
                // The kernel is out of memory, and would say so again at once.
                self.shared.counters.error(&error);
                self.warn(|| format!("cannot receive datagrams for now: {error}"));
                reactor.set_deadline(token, Instant::now() + BACK_OFF);
                if let Err(error) = reactor.pause(token) {
                    self.shared.counters.error(&error);
                }
                0
            }
        }
    }

    /// The rest is over.
    fn resume_datagrams<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token)
    where
        V: Serve<P>,
    {
        let Some(Source::Datagrams(socket)) = reactor.source(token) else { return };
        let interest = socket.interest();
        if let Err(error) = reactor.resume(token, interest) {
            self.shared.counters.error(&error);
            reactor.set_deadline(token, Instant::now() + BACK_OFF);
        }
    }

    // ---- Pausing ----

    fn back_off<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token)
    where
        V: Serve<P>,
    {
        let until = Instant::now() + BACK_OFF * self.listeners.len().max(1) as u32;
        reactor.set_deadline(token, until);
        self.set_paused(reactor, token, |listener| listener.backing_off = true);
    }

    fn pause_at_limit<P: Poller>(&mut self, reactor: &mut Loop<V, P>)
    where
        V: Serve<P>,
    {
        log::debug!("{} connections: the listeners pause", self.connections_max);
        self.at_limit = true;
        for token in self.listeners.clone() {
            self.set_paused(reactor, token, |listener| listener.at_limit = true);
        }
    }

    /// Connections may have ended: there may be room for others, or nothing left to drain.
    fn connections_ended<P: Poller>(&mut self, reactor: &mut Loop<V, P>)
    where
        V: Serve<P>,
    {
        if self.drain_timer.is_none() && !self.at_limit {
            return;
        }
        let open = self.shared.counters.open.value();
        if self.drain_timer.is_some() && open == 0 {
            reactor.stop();
        }
        if self.at_limit && open < self.connections_max {
            self.at_limit = false;
            for token in self.listeners.clone() {
                self.set_paused(reactor, token, |listener| listener.at_limit = false);
            }
        }
    }

    /// Changes why a listener is paused, and watches it if there is no reason left. It is taken
    /// out and put back rather than modified: an exclusive one could not be.
    fn set_paused<P: Poller>(
        &mut self,
        reactor: &mut Loop<V, P>,
        token: Token,
        change: impl FnOnce(&mut Listener),
    ) where
        V: Serve<P>,
    {
        let Some(Source::Listener(listener)) = reactor.source_mut(token) else { return };
        let was = listener.is_paused();
        change(listener);
        let (is, interest) = (listener.is_paused(), listener.interest());
        let result = match (was, is) {
            (false, true) => {
                self.shared.counters.pauses.add(1);
                reactor.pause(token)
            }
            (true, false) => reactor.resume(token, interest),
            _ => Ok(()),
        };
        if let Err(error) = result {
            // The kernel is out of memory. Better to try again than to stop accepting for good.
            self.shared.counters.error(&error);
            if !is {
                self.back_off(reactor, token);
            }
        }
    }

    /// Something other than a connection is ready.
    #[cold]
    fn own_source_ready<P: Poller>(&mut self, reactor: &mut Loop<V, P>, token: Token)
    where
        V: Serve<P>,
    {
        match reactor.source(token) {
            Some(Source::Listener(_)) => self.accept(reactor, token),
            Some(Source::Datagrams(_)) => {
                self.serve_datagrams(reactor, token);
            }
            Some(Source::Signals(signals)) => match signals.read() {
                Ok(Some(libc::SIGCHLD)) => self.model.children_ended(),
                Ok(Some(signal)) => {
                    log::info!("received signal {signal}; a second one ends at once");
                    signals.unblock();
                    self.begin_drain(reactor);
                }
                Ok(None) | Err(_) => {}
            },
            Some(Source::Connection(_)) | None => {}
        }
    }

    // ---- Stopping ----

    /// Takes in what is waiting to be accepted, which would otherwise be reset, and serves what
    /// datagrams have arrived; closes their sockets, and has the model finish.
    fn begin_drain<P: Poller>(&mut self, reactor: &mut Loop<V, P>)
    where
        V: Serve<P>,
    {
        if self.drain_timer.is_some() {
            return;
        }
        for token in std::mem::take(&mut self.listeners) {
            for _ in 0..LAST_ACCEPTS {
                let full = self.shared.counters.open.value() >= self.connections_max;
                if full || self.accept_one(reactor, token) == Took::Nothing {
                    break;
                }
            }
            reactor.close(token);
        }
        for token in std::mem::take(&mut self.datagrams) {
            for _ in 0..LAST_BATCHES {
                if self.serve_datagrams(reactor, token) == 0 {
                    break;
                }
            }
            reactor.close(token);
        }
        log::info!("stopping: {} connections to finish", self.shared.counters.open.value());
        self.drain_timer = Some(reactor.set_timer(Instant::now() + self.drain));
        self.model.drain(reactor);
    }
}

impl<P: Poller, V: Serve<P>> Handler<Source<V::Connection, V::Service>, P> for Front<V> {
    #[inline(always)] // see sys/call.rs
    fn ready(&mut self, reactor: &mut Loop<V, P>, token: Token, readiness: Readiness) {
        let now_ms = reactor.now_ms();
        match reactor.source_mut(token) {
            Some(Source::Connection(connection)) => {
                let step = self.model.drive(connection, readiness, now_ms);
                self.model.carry_out(reactor, token, step);
            }
            _ => self.own_source_ready(reactor, token),
        }
    }

    fn deadline(&mut self, reactor: &mut Loop<V, P>, token: Token) {
        match reactor.source(token) {
            Some(Source::Connection(_)) => self.model.deadline(reactor, token),
            Some(Source::Listener(_)) => {
                self.set_paused(reactor, token, |listener| listener.backing_off = false);
            }
            Some(Source::Datagrams(_)) => self.resume_datagrams(reactor, token),
            _ => {}
        }
    }

    fn timer(&mut self, reactor: &mut Loop<V, P>, timer: TimerId) {
        if self.drain_timer == Some(timer) {
            let left = self.shared.counters.open.value();
            log::warn!("{left} connections did not finish within {:?}", self.drain);
            self.shared.counters.cut_off.add(left);
            self.model.cut_off(reactor);
            reactor.stop();
        }
    }

    fn woken(&mut self, reactor: &mut Loop<V, P>) {
        if self.shared.is_stopping() {
            self.begin_drain(reactor);
        }
    }

    fn turned(&mut self, reactor: &mut Loop<V, P>) {
        let counts = reactor.counts();
        self.shared.counters.turns.set(counts.turns);
        self.shared.counters.events.set(counts.events);
        self.connections_ended(reactor);
    }
}

/// A descriptor of a file of its own, so that to close it helps against `EMFILE` and `ENFILE`. Of an
/// eventfd, which needs no path: `/dev/null` is not everywhere.
fn reserve() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?)
}

/// Why a connection was refused after it was accepted.
fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        // No thread or process for it.
        Some(libc::EAGAIN) => {
            format!("a connection was refused: {error}: the limit is {}", sys::task_limit())
        }
        _ => format!("a connection was refused: {error}"),
    }
}

/// Whether an error from accept4 concerns the one connection that was to be accepted, so that
/// the next may be tried at once (`accept(2)`, "Error handling").
fn belongs_to_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}
