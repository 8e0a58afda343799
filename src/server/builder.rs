//! How a server is put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Config, Server, Shared, Tally};
use crate::framing::Framing;
use crate::models::Model;
use crate::reactor::TIMEOUT_MAX;
use crate::server::listener::{Listener, Share};
use crate::service::Service;
use crate::session::PENDING_MAX;
use crate::sys::ListenOptions;
use crate::{Addr, Error, Session, Signals};

/// What each connection speaks: how its stream is cut, and who answers.
pub(crate) struct Protocol<F, M> {
    framing: F,
    service: M,
    pending_max: u32,
}

impl<F: Framing, S: Service, M: Fn() -> S> Protocol<F, M> {
    pub(crate) fn session(&self) -> Session<F, S> {
        Session::new(self.framing.clone(), (self.service)()).pending_max(self.pending_max)
    }
}

/// A server that is being put together; see [`Server::builder`].
///
/// `F` and `M` are `()` until [`framing`](Builder::framing) and [`service`](Builder::service)
/// were called, and a server without them cannot be built.
pub struct Builder<F = (), M = ()> {
    addrs: Vec<Addr>,
    listen: ListenOptions,
    config: Config,
    protocol: Protocol<F, M>,
    signals: bool,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            addrs: Vec::new(),
            listen: ListenOptions::default(),
            config: Config::default(),
            protocol: Protocol { framing: (), service: (), pending_max: PENDING_MAX },
            signals: false,
        }
    }
}

impl<F, M> Builder<F, M> {
    /// Listens on an address: `127.0.0.1:7000`, `[::1]:7000`, `localhost:7000` or
    /// `unix:/path`. May be called several times; port 0 lets the kernel choose
    /// ([`Server::local_addrs`] tells).
    ///
    /// # Errors
    /// [`Error::Resolve`].
    pub fn listen(mut self, address: &str) -> Result<Self, Error> {
        self.addrs.extend(Addr::resolve(address)?);
        Ok(self)
    }

    /// How streams are cut into requests.
    pub fn framing<G: Framing>(self, framing: G) -> Builder<G, M> {
        let Protocol { service, pending_max, .. } = self.protocol;
        let protocol = Protocol { framing, service, pending_max };
        let Builder { addrs, listen, config, signals, .. } = self;
        Builder { addrs, listen, config, protocol, signals }
    }

    /// Makes the service of each connection.
    pub fn service<S: Service, N: Fn() -> S>(self, service: N) -> Builder<F, N> {
        let Protocol { framing, pending_max, .. } = self.protocol;
        let protocol = Protocol { framing, service, pending_max };
        let Builder { addrs, listen, config, signals, .. } = self;
        Builder { addrs, listen, config, protocol, signals }
    }

    /// How connections are waited for. Default: [`Model::Epoll`], edge-triggered.
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.config.model = model;
        self
    }

    /// Serves at most this many connections at once; newcomers wait in the accept queue. Default:
    /// as many as there are descriptors for.
    #[must_use]
    pub fn max_connections(mut self, connections_max: u64) -> Self {
        self.config.connections_max = connections_max;
        self
    }

    /// Stops reading from a connection with more than this many bytes of replies unsent.
    /// Default: 1 MiB.
    #[must_use]
    pub fn max_pending(mut self, pending_max: u32) -> Self {
        self.protocol.pending_max = pending_max;
        self
    }

    /// Closes a connection that has completed no request, and taken nothing of a reply, for this
    /// long; `None` never does. Bytes of an unfinished frame do not count. Default: 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.idle_timeout = timeout.into().map(|timeout| timeout.min(TIMEOUT_MAX));
        self
    }

    /// How long to wait, once told to stop, for replies to be taken. Default: 5 s.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.config.drain = drain.min(TIMEOUT_MAX);
        self
    }

    /// Serves with this many processes, forked by [`run`](Server::run), each with a loop of its
    /// own; the calling one watches over them: it starts one that has died again, and adds up what
    /// they count. For [`Model::Epoll`], and while the process has no other thread. Default: 0,
    /// this process serves.
    ///
    /// They share the listeners, or have one each with [`reuse_port`](Builder::reuse_port).
    /// [`max_connections`](Builder::max_connections) is for each of them, and each takes at most
    /// as many as it has descriptors for: one that is full leaves newcomers to the others, where
    /// they share a listener.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = workers;
        self
    }

    /// Sets `SO_REUSEPORT` (`socket(7)`): other servers of this user may listen on the same port,
    /// and each of the workers has a listener of its own, over which the kernel spreads newcomers
    /// by a hash of their address, whether or not a worker is full: whoever falls to one that is
    /// waits for it, also while others have room. Default: false.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.listen.reuse_port = reuse;
        self
    }

    /// How many established connections may wait to be accepted; the kernel caps it at
    /// `net.core.somaxconn`. Default: 4,096.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.listen.backlog = backlog;
        self
    }

    /// The stack of each thread, in bytes, for models that have threads. Default: 128 KiB, of
    /// which only what is used takes memory.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.config.stack_size = bytes;
        self
    }

    /// Stops on SIGINT and SIGTERM too, not on the [`Handle`](super::Handle)'s word alone. They
    /// are blocked from [`build`](Builder::build) on in this thread and those it starts, and
    /// received by the loop; see [`Signals`].
    #[must_use]
    pub fn stop_on_signals(mut self, stop: bool) -> Self {
        self.signals = stop;
        self
    }
}

impl<F, S, M> Builder<F, M>
where
    F: Framing,
    S: Service,
    M: Fn() -> S,
{
    /// Opens the listening sockets. From here on clients can connect, and wait to be served.
    ///
    /// # Errors
    /// [`Error::Missing`] without an address, [`Error::Conflict`] for workers with a model that has
    /// none, [`Error::Listen`], [`Error::System`].
    pub fn build(self) -> Result<Server<F, M>, Error> {
        if self.addrs.is_empty() {
            return Err(Error::Missing("address to listen on"));
        }
        let workers = self.config.workers;
        if workers > 0 && !matches!(self.config.model, Model::Epoll(_)) {
            return Err(Error::Conflict("workers are for the model epoll"));
        }
        let mut listeners = Vec::new();
        let mut addrs = Vec::new();
        for addr in &self.addrs {
            let own = self.listen.reuse_port && matches!(addr, Addr::Tcp(_));
            let share = match workers {
                0 => Share::Nobody,
                _ if own => Share::Worker(0),
                _ => Share::Workers,
            };
            let first = Listener::open(addr, &self.listen, share)?;
            // The others listen where the first does, also if the kernel chose that.
            let addr = first.addr().clone();
            listeners.push(first);
            for worker in 1..if own { workers } else { 0 } {
                listeners.push(Listener::open(&addr, &self.listen, Share::Worker(worker))?);
            }
            addrs.push(addr);
        }
        let counters = Tally::new(workers).map_err(Error::system("map memory for counters"))?;
        Ok(Server {
            listeners,
            signals: self.signals()?,
            shared: Arc::new(Shared::new(addrs, counters)),
            protocol: Arc::new(self.protocol),
            config: self.config,
        })
    }
}

impl<F, M> Builder<F, M> {
    /// Has those signals received that somebody will wait for.
    fn signals(&self) -> Result<Option<Signals>, Error> {
        let mut signals = Vec::new();
        if self.signals {
            signals.extend([Signal::SIGINT, Signal::SIGTERM]);
        }
        if self.config.workers > 0 || self.config.model == Model::Processes {
            signals.push(Signal::SIGCHLD);
        }
        if signals.is_empty() {
            return Ok(None);
        }
        Signals::of(&signals).map(Some).map_err(Error::system("receive signals"))
    }
}

impl<F, M> fmt::Debug for Builder<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("addrs", &self.addrs)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
