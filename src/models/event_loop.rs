//! The event loop as a server: every connection is a source of one reactor.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Trigger, account_for_end};
use crate::connection::{Connection, Step, Workspace};
use crate::framing::Framing;
use crate::poller::{Interest, Poller, Readiness, Token};
use crate::server::{Protocol, Serve, Shared, Source};
use crate::service::Service;
use crate::session::LINGER;
use crate::{Reactor, sys};

/// Serves connections from the loop that accepts them.
pub(crate) struct EventLoop<F, M> {
    protocol: Arc<Protocol<F, M>>,
    shared: Arc<Shared>,
    trigger: Trigger,
    idle_timeout: Option<Duration>,
    work: Workspace,
}

impl<F, M> EventLoop<F, M> {
    pub(crate) fn new(
        protocol: Arc<Protocol<F, M>>,
        shared: Arc<Shared>,
        trigger: Trigger,
        idle_timeout: Option<Duration>,
    ) -> EventLoop<F, M> {
        EventLoop { protocol, shared, trigger, idle_timeout, work: Workspace::new() }
    }
}

type Loop<F, S, P> = Reactor<Source<Connection<F, S>, S>, P>;

impl<F, S, M, P> Serve<P> for EventLoop<F, M>
where
    F: Framing,
    S: Service,
    M: Fn() -> S,
    P: Poller,
{
    type Connection = Connection<F, S>;
    type Service = S;
    const NONBLOCKING: bool = true;

    fn service(&self) -> S {
        self.protocol.service()
    }

    fn admit(&mut self, reactor: &mut Loop<F, S, P>, fd: OwnedFd) -> io::Result<()> {
        let interest = match self.trigger {
            Trigger::Edge => Interest::READ | Interest::WRITE | Interest::EDGE,
            Trigger::Level => Interest::READ,
        };
        // The turn may have gone on for a while, but its time is near enough for this.
        let connection = Connection::new(fd, self.protocol.session(), interest, reactor.now_ms());
        let token =
            reactor.add(Source::Connection(connection), interest).inspect_err(
                |error| match error.raw_os_error() {
                    Some(_) => self.shared.counters.error(error),
                    // Not the kernel's refusal but the poller's own: select has no room for it.
                    None => self.shared.counters.refused_no_room.add(1),
                },
            )?;
        if let Some(timeout) = self.idle_timeout {
            reactor.set_deadline(token, reactor.now() + timeout);
        }
        self.shared.counters.opened();
        Ok(())
    }

    #[inline(always)] // see sys/call.rs
    fn drive(
        &mut self,
        connection: &mut Connection<F, S>,
        readiness: Readiness,
        now_ms: u32,
    ) -> io::Result<Step> {
        connection.drive(readiness, now_ms, &mut self.work, &self.shared.counters.traffic)
    }

    #[inline(always)] // see sys/call.rs
    fn carry_out(&mut self, reactor: &mut Loop<F, S, P>, token: Token, step: io::Result<Step>) {
        match step {
            Ok(Step::Wait) if self.trigger == Trigger::Edge => {}
            Ok(Step::Wait) => self.watch(reactor, token),
            Ok(Step::Again) => reactor.again(token),
            Ok(Step::Linger) => self.linger(reactor, token),
            Ok(Step::Close) => self.close(reactor, token),
            Err(error) => {
                log::debug!("a connection is lost: {error}");
                self.shared.counters.error(&error);
                self.close(reactor, token);
            }
        }
    }

    /// Looks whether the connection has really been idle all the while: activity does not touch
    /// its deadline, which would cost every request something.
    fn deadline(&mut self, reactor: &mut Loop<F, S, P>, token: Token) {
        let now_ms = reactor.now_ms();
        let Some(Source::Connection(connection)) = reactor.source(token) else { return };
        // Lingering has a deadline of its own. Before that, replies that the peer is still taking
        // are activity, also if they are its last.
        let session = connection.session();
        let lingers = session.is_closing() && !session.wants_write();
        if !lingers && let Some(timeout) = self.idle_timeout {
            let idle = Duration::from_millis(now_ms.wrapping_sub(connection.active_ms()).into());
            if idle < timeout {
                let at = reactor.now() + (timeout - idle);
                reactor.set_deadline(token, at);
                return;
            }
            self.shared.counters.idle_closed.add(1);
        }
        self.close(reactor, token);
    }

    fn drain(&mut self, reactor: &mut Loop<F, S, P>) {
        for token in connections(reactor) {
            if let Some(Source::Connection(connection)) = reactor.source_mut(token) {
                connection.drain();
                reactor.again(token);
            }
        }
    }

    fn cut_off(&mut self, reactor: &mut Loop<F, S, P>) {
        for token in connections(reactor) {
            self.close(reactor, token);
        }
    }
}

impl<F, S, M> EventLoop<F, M>
where
    F: Framing,
    S: Service,
    M: Fn() -> S,
{
    /// With level triggering, has the poller watch for what the connection now wants.
    fn watch<P: Poller>(&mut self, reactor: &mut Loop<F, S, P>, token: Token) {
        let Some(Source::Connection(connection)) = reactor.source_mut(token) else { return };
        let Some(interest) = connection.take_interest_change() else { return };
        if let Err(error) = reactor.modify(token, interest) {
            self.shared.counters.error(&error);
            self.close(reactor, token);
        }
    }

    /// Its sending side was shut down just now: gives the peer a while to read and to finish.
    fn linger<P: Poller>(&mut self, reactor: &mut Loop<F, S, P>, token: Token) {
        let Some(Source::Connection(connection)) = reactor.source_mut(token) else { return };
        let ended = connection.session_mut().take_ended();
        account_for_end(ended, &self.shared.counters, || sys::peer_addr(&*connection));
        reactor.set_deadline(token, Instant::now() + LINGER);
        reactor.again(token);
    }

    fn close<P: Poller>(&mut self, reactor: &mut Loop<F, S, P>, token: Token) {
        let Some(Source::Connection(connection)) = reactor.source_mut(token) else { return };
        let counters = &self.shared.counters;
        // Unless it was accounted for when it began to linger.
        let ended = connection.session_mut().take_ended();
        account_for_end(ended, counters, || sys::peer_addr(&*connection));
        if connection.session().dropped_unfinished() {
            counters.unfinished.add(1);
        }
        reactor.close(token);
        counters.closed();
    }
}

fn connections<F, S, P>(reactor: &Loop<F, S, P>) -> Vec<Token>
where
    F: Framing,
    S: Service,
    P: Poller,
{
    let is_connection =
        |token: &Token| matches!(reactor.source(*token), Some(Source::Connection(_)));
    reactor.tokens().filter(is_connection).collect()
}
