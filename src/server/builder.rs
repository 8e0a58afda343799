//! How a server is put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Config, Server, Shared, Tally};
use crate::framing::Framing;
use crate::models::Model;
use crate::reactor::TIMEOUT_MAX;
use crate::server::datagrams::Bound;
use crate::server::listener::{Listener, Share};
use crate::service::Service;
use crate::session::PENDING_MAX;
use crate::sys::ListenOptions;
use crate::{Addr, Error, Session, Signals};

/// What is spoken: how a stream is cut, and who answers.
pub(crate) struct Protocol<F, M> {
    framing: F,
    service: M,
    pending_max: u32,
}

impl<F, S, M: Fn() -> S> Protocol<F, M> {
    pub(crate) fn service(&self) -> S {
        (self.service)()
    }
}

impl<F: Framing, S: Service, M: Fn() -> S> Protocol<F, M> {
    pub(crate) fn session(&self) -> Session<F, S> {
        Session::new(self.framing.clone(), self.service()).pending_max(self.pending_max)
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
    /// The longest datagram, if they are served.
    datagrams: Option<usize>,
    signals: bool,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            addrs: Vec::new(),
            listen: ListenOptions::default(),
            config: Config::default(),
            protocol: Protocol { framing: (), service: (), pending_max: PENDING_MAX },
            datagrams: None,
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
        let Builder { addrs, listen, config, datagrams, signals, .. } = self;
        Builder { addrs, listen, config, protocol, datagrams, signals }
    }

    /// Makes the service of each connection.
    pub fn service<S: Service, N: Fn() -> S>(self, service: N) -> Builder<F, N> {
        let Protocol { framing, pending_max, .. } = self.protocol;
        let protocol = Protocol { framing, service, pending_max };
        let Builder { addrs, listen, config, datagrams, signals, .. } = self;
        Builder { addrs, listen, config, protocol, datagrams, signals }
    }

    /// How connections are waited for. Default: [`Model::Epoll`], edge-triggered.
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.config.model = model;
        self
    }

    /// Serves datagrams of up to this many bytes too, on UDP at the same addresses and ports, with
    /// the same service. Default: none are served.
    ///
    /// A datagram is a request, whatever the framing, and has one reply, which goes back to its
    /// sender and has nothing added. It is dropped and counted if it is longer, if it claims to come
    /// from this server itself, and if it [is a reply](Service::is_reply): a server must not become
    /// half of a reply loop. But whoever likes can claim to be somebody else, who then gets the
    /// replies: one that is much longer than its request makes this an amplifier.
    #[must_use]
    pub fn datagrams(mut self, len_max: u32) -> Self {
        self.datagrams = Some(len_max as usize);
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
        let mut sockets = Sockets::default();
        for addr in &self.addrs {
            self.open(addr, &mut sockets)?;
        }
        let Sockets { listeners, datagrams, addrs } = sockets;
        if self.datagrams.is_some() && datagrams.is_empty() {
            return Err(Error::Conflict("there are no datagrams at the path of a unix socket"));
        }
        let counters = Tally::new(workers).map_err(Error::system("map memory for counters"))?;
        Ok(Server {
            listeners,
            datagrams,
            signals: self.signals()?,
            shared: Arc::new(Shared::new(addrs, counters)),
            protocol: Arc::new(self.protocol),
            config: Config { datagram_len_max: self.datagrams.unwrap_or(0), ..self.config },
        })
    }
}

/// The sockets of a server.
#[derive(Default)]
struct Sockets {
    listeners: Vec<Listener>,
    datagrams: Vec<Bound>,
    addrs: Vec<Addr>,
}

/// How often a port is looked for that is free for streams and for datagrams.
const PORTS_TRIED: usize = 100;

impl<F, M> Builder<F, M> {
    /// Opens the sockets at one address.
    fn open(&self, addr: &Addr, sockets: &mut Sockets) -> Result<(), Error> {
        let own = self.listen.reuse_port && !matches!(addr, Addr::Unix(_));
        let share = match self.config.workers {
            0 => Share::Nobody,
            _ if own => Share::Worker(0),
            _ => Share::Workers,
        };
        let (first, datagrams) = self.open_first(addr, share)?;
        sockets.addrs.push(first.addr().clone());
        sockets.addrs.extend(datagrams.as_ref().map(Bound::addr));
        // The others listen where the first does, also if the kernel chose that.
        for worker in 1..if own { self.config.workers } else { 0 } {
            let share = Share::Worker(worker);
            sockets.listeners.push(Listener::open(first.addr(), &self.listen, share)?);
            if let Some(first) = &datagrams {
                let reuse_port = self.listen.reuse_port;
                sockets.datagrams.push(Bound::open(&first.addr(), reuse_port, share)?);
            }
        }
        sockets.listeners.push(first);
        sockets.datagrams.extend(datagrams);
        Ok(())
    }

    /// A listener, and a socket for datagrams at the same port. If the kernel chooses the port, it
    /// does so for the listener, and somebody else may have that of datagrams.
    fn open_first(&self, addr: &Addr, share: Share) -> Result<(Listener, Option<Bound>), Error> {
        let any_port = matches!(addr, Addr::Tcp(addr) if addr.port() == 0);
        let mut tries = if any_port { PORTS_TRIED } else { 1 };
        loop {
            let listener = Listener::open(addr, &self.listen, share)?;
            let Some(addr) = self.datagrams.and_then(|_| listener.addr().udp()) else {
                return Ok((listener, None));
            };
            tries -= 1;
            match Bound::open(&addr, self.listen.reuse_port, share) {
                Ok(datagrams) => return Ok((listener, Some(datagrams))),
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

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
