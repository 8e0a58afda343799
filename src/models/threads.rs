//! A thread for each connection. The loop only accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use slab::Slab;

use super::blocking;
use crate::Reactor;
use crate::connection::Step;
use crate::framing::Framing;
use crate::poller::{Poller, Readiness, Token};
use crate::server::{Config, Protocol, Serve, Shared, Source};
use crate::service::Service;
use crate::sys::{self, Interruptible};

/// Serves each connection in a thread of its own.
pub(crate) struct Threads<F, M> {
    protocol: Arc<Protocol<F, M>>,
    shared: Arc<Shared>,
    idle_timeout: Option<Duration>,
    stack_size: usize,
    /// What threads are blocked on, so that they can be told to stop.
    sockets: Arc<Mutex<Slab<Arc<Socket>>>>,
}

/// What a thread blocks on.
struct Socket {
    fd: OwnedFd,
    thread: Interruptible,
}

impl<F, M> Threads<F, M> {
    pub(crate) fn new(
        protocol: Arc<Protocol<F, M>>,
        shared: Arc<Shared>,
        config: &Config,
    ) -> Threads<F, M> {
        Threads {
            protocol,
            shared,
            idle_timeout: config.idle_timeout,
            stack_size: config.stack_size,
            sockets: Arc::default(),
        }
    }

    /// While this acts on one, its thread does not end.
    fn each_socket(&self, act: impl Fn(&Socket)) {
        for (_, socket) in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            act(socket);
        }
    }
}

/// In this loop no connection is a source.
#[derive(Debug)]
pub(crate) enum Never {}

impl AsFd for Never {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

type Loop<S, P> = Reactor<Source<Never, S>, P>;

impl<F, S, M, P> Serve<P> for Threads<F, M>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
    P: Poller,
{
    type Connection = Never;
    type Service = S;
    const NONBLOCKING: bool = false;

    fn service(&self) -> S {
        self.protocol.service()
    }

    fn admit(&mut self, _: &mut Loop<S, P>, fd: OwnedFd) -> io::Result<()> {
        let socket = Arc::new(Socket { fd, thread: Interruptible::new() });
        let key =
            self.sockets.lock().unwrap_or_else(PoisonError::into_inner).insert(socket.clone());
        let (protocol, shared, sockets) =
            (self.protocol.clone(), self.shared.clone(), self.sockets.clone());
        let idle_timeout = self.idle_timeout;

        let open = self.shared.counters.opening();
        let spawned = thread::Builder::new().stack_size(self.stack_size).spawn(move || {
            let stopping = || shared.is_stopping();
            socket.thread.is_this_thread();
            let (fd, counters) = (socket.fd.as_fd(), &shared.counters);
            blocking::serve(fd, &protocol, counters, idle_timeout, stopping);
            sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            // Closed before it is counted out: whoever reads the count may count descriptors.
            drop(socket);
            shared.counters.closed();
            shared.wake();
        });
        spawned.inspect_err(|_| {
            self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            self.shared.counters.refused_no_task.add(1);
            self.shared.counters.not_opened();
        })?;
        self.shared.counters.raise_peak(open);
        Ok(())
    }

    fn drive(&mut self, connection: &mut Never, _: Readiness, _: u32) -> io::Result<Step> {
        match *connection {}
    }

    fn carry_out(&mut self, _: &mut Loop<S, P>, _: Token, _: io::Result<Step>) {}

    fn deadline(&mut self, _: &mut Loop<S, P>, _: Token) {}

    fn drain(&mut self, _: &mut Loop<S, P>) {
        // Each thread sees that, if need be when its `recv` returns.
        self.shared.stop();
        sys::prepare_to_interrupt();
        self.each_socket(|socket| socket.thread.interrupt_recv(socket.fd.as_fd()));
    }

    fn cut_off(&mut self, _: &mut Loop<S, P>) {
        // It fails for a connection that has just ended, which is what is wanted.
        self.each_socket(|socket| _ = sys::shutdown_both(socket.fd.as_fd()));
    }
}
