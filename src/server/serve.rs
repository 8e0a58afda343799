//! What a model is to the front: a way to serve the connections that the front accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::datagrams::{Bound, Socket};
use super::listener::Listener;
use crate::connection::Step;
use crate::poller::{Poller, Readiness, Token};
use crate::service::Service;
use crate::{Reactor, Signals};

/// What the loop of a server waits for.
#[derive(Debug)]
pub(crate) enum Source<C, S> {
    Connection(C),
    Listener(Box<Listener>),
    Datagrams(Box<Socket<S>>),
    Signals(Box<Signals>),
}

impl<C: AsFd, S> AsFd for Source<C, S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Connection(connection) => connection.as_fd(),
            Source::Listener(listener) => listener.as_fd(),
            Source::Datagrams(socket) => socket.as_fd(),
            Source::Signals(signals) => signals.as_fd(),
        }
    }
}

/// A way to serve the connections that the front accepts.
pub(crate) trait Serve<P: Poller>: Sized {
    /// What stands for a connection in the loop, if the loop is what serves it.
    type Connection: AsFd;

    /// What answers requests.
    type Service: Service;

    /// Whether accepted sockets are non-blocking.
    const NONBLOCKING: bool;

    /// A new service.
    fn service(&self) -> Self::Service;

    /// Takes in a new connection. On an error it is refused, and the cause was counted.
    fn admit(&mut self, reactor: &mut Loop<Self, P>, fd: OwnedFd) -> io::Result<()>;

    /// A connection is ready: gives it its share of the turn, at the time `now_ms` of the loop.
    ///
    /// # Errors
    /// The connection is lost.
    fn drive(
        &mut self,
        connection: &mut Self::Connection,
        readiness: Readiness,
        now_ms: u32,
    ) -> io::Result<Step>;

    /// Does what that has come to.
    fn carry_out(&mut self, reactor: &mut Loop<Self, P>, token: Token, step: io::Result<Step>);

    /// The deadline of a connection has passed.
    fn deadline(&mut self, reactor: &mut Loop<Self, P>, token: Token);

    /// No more connections will come: answers what was received, then ends each.
    fn drain(&mut self, reactor: &mut Loop<Self, P>);

    /// The time to drain is over: ends each connection at once.
    fn cut_off(&mut self, reactor: &mut Loop<Self, P>);

    /// SIGCHLD came, which a model with child processes has the server receive.
    fn children_ended(&mut self) {}
}

/// The loop of a server.
pub(crate) type Loop<V, P> =
    Reactor<Source<<V as Serve<P>>::Connection, <V as Serve<P>>::Service>, P>;

/// What the loop of a server is given to wait for.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) datagrams: Vec<Bound>,
    pub(crate) signals: Option<Signals>,
}
