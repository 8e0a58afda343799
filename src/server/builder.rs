//! How a server is put together.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Config, Server, Setup, Shared, Sources, Tally, workers};
use crate::framing::Framing;
use crate::models::{self, Model};
use crate::reactor::TIMEOUT_MAX;
use crate::server::datagrams::Bound;
use crate::server::listener::{Listener, Share};
use crate::service::Service;
use crate::session::PENDING_MAX;
use crate::sys::{self, ListenOptions};
use crate::{Addr, Error, Session, Signals, signals};

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
    /// Those of each name.
    addrs: Vec<Vec<Addr>>,
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
    /// Listens on an address: `127.0.0.1:7000`, `[::1]:7000`, `localhost:7000`, `unix:/path` or
    /// `unix:@name` ([`Addr::resolve`]). May be called several times; port 0 lets the kernel choose
    /// ([`Server::local_addrs`] tells).
    ///
    /// Of a name that stands for several addresses, all that can be bound are listened on, and the
    /// log warns of the others. With port 0 they have the same port.
    ///
    /// # Errors
    /// [`Error::Resolve`].
    pub fn listen(mut self, address: &str) -> Result<Self, Error> {
        self.addrs.push(Addr::resolve(address)?);
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

    /// Once told to stop, how long a connection in the middle of a request, or before its first, has
    /// to finish that, and each to take its replies. One that has had them ends at once.
    /// Default: 5 s.
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

    /// Stops on SIGINT, SIGTERM and SIGHUP too, not on the [`Handle`](super::Handle)'s word alone.
    /// They are blocked from [`build`](Builder::build) on in this thread and those it starts, and
    /// received by the loop; see [`Signals`].
    #[must_use]
    pub fn stop_on_signals(mut self, stop: bool) -> Self {
        self.signals = stop;
        self
    }
}

impl<F, S, M> Builder<F, M>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    /// Opens the listening sockets, and makes all that the server needs to serve: a server that was
    /// built can run. From here on clients can connect, and wait to be served.
    ///
    /// The server has a loop from here on, which does not survive a `fork(2)`: a program that is to
    /// be a daemon becomes one before. What each worker will need it makes itself, after it was forked; all
    /// of that was made once here, and given back.
    ///
    /// # Errors
    /// [`Error::Missing`] without an address, [`Error::Conflict`] for workers with a model that has
    /// none, [`Error::Listen`] (of a name with several addresses, if none of them can be bound),
    /// [`Error::System`], which names the call: out of descriptors, refused by a sandbox, or the
    /// process is to fork and has threads.
    pub fn build(self) -> Result<Server, Error> {
        if self.addrs.is_empty() {
            return Err(Error::Missing("address to listen on"));
        }
        let workers = self.config.workers;
        if workers > 0 && !matches!(self.config.model, Model::Epoll(_)) {
            return Err(Error::Conflict("workers are for the model epoll"));
        }
        if self.config.forks() {
            sys::check_single_threaded().map_err(Error::system("fork"))?;
        }
        let mut sockets = Sockets::default();
        for addrs in &self.addrs {
            sockets.extend(self.open_name(addrs)?);
        }
        let Sockets { listeners, datagrams, addrs } = sockets;
        if self.datagrams.is_some() && datagrams.is_empty() {
            return Err(Error::Conflict("there are no datagrams at the path of a unix socket"));
        }
        let counters = Tally::new(workers).map_err(Error::system("share memory (mmap)"))?;
        let shared = Arc::new(Shared::new(addrs, counters));
        let signals = self.signals()?;
        let config = Config { datagram_len_max: self.datagrams.unwrap_or(0), ..self.config };
        let setup = Setup {
            sources: Sources { listeners, datagrams, signals },
            shared: Arc::clone(&shared),
            protocol: Arc::new(self.protocol),
            config: config.clone(),
        };
        let ready = match workers {
            0 => models::prepare(setup)?,
            _ => workers::prepare(setup)?,
        };
        Ok(Server { shared, config, ready })
    }
}

/// The sockets of a server.
#[derive(Default)]
struct Sockets {
    listeners: Vec<Listener>,
    datagrams: Vec<Bound>,
    addrs: Vec<Addr>,
}

impl Sockets {
    fn extend(&mut self, others: Sockets) {
        self.listeners.extend(others.listeners);
        self.datagrams.extend(others.datagrams);
        self.addrs.extend(others.addrs);
    }
}

/// How often a port is looked for that is free for streams and for datagrams, and at each address
/// of a name.
const PORTS_TRIED: usize = 100;

impl<F, M> Builder<F, M> {
    /// Opens the sockets at the addresses of one name, and does without those that cannot be bound
    /// if there is one that can.
    fn open_name(&self, addrs: &[Addr]) -> Result<Sockets, Error> {
        let mut tries = PORTS_TRIED;
        loop {
            tries -= 1;
            let (mut sockets, mut failures) = (Sockets::default(), Vec::new());
            for addr in addrs {
                match self.open(&with_port_of(addr, sockets.addrs.first())) {
                    Ok(opened) => sockets.extend(opened),
                    Err(error) => failures.push(error),
                }
            }
            let any_port = matches!(addrs.first(), Some(Addr::Tcp(addr)) if addr.port() == 0);
            if any_port && tries > 0 && failures.iter().any(is_taken) {
                // Somebody has the first one's port at another address.
                continue;
            }
            let mut failures = failures.into_iter();
            if sockets.addrs.is_empty()
                && let Some(first) = failures.next()
            {
                return Err(first);
            }
            failures.for_each(|error| log::warn!("{error}; it is left out"));
            return Ok(sockets);
        }
    }

    /// Opens the sockets at one address.
    fn open(&self, addr: &Addr) -> Result<Sockets, Error> {
        let mut sockets = Sockets::default();
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
        Ok(sockets)
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
            signals.extend(signals::ending());
        }
        if self.config.forks() {
            signals.push(Signal::SIGCHLD);
        }
        if signals.is_empty() {
            return Ok(None);
        }
        Signals::of(signals).map(Some).map_err(Error::system("receive signals (signalfd4)"))
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

/// An address whose port the kernel is to choose, with the port that it chose for another.
fn with_port_of(addr: &Addr, other: Option<&Addr>) -> Addr {
    match (addr, other) {
        (Addr::Tcp(addr), Some(Addr::Tcp(other))) if addr.port() == 0 => {
            Addr::Tcp(SocketAddr::new(addr.ip(), other.port()))
        }
        _ => addr.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::Delimiter;
    use crate::service::Echo;

    /// A server at the addresses of one name, for which no resolver is needed.
    fn listening(addrs: &[&str]) -> Result<Vec<Addr>, Error> {
        let mut builder = Server::builder().framing(Delimiter::new(b'\n')).service(|| Echo);
        builder.addrs.push(addrs.iter().map(|addr| Addr::Tcp(addr.parse().unwrap())).collect());
        Ok(builder.datagrams(100).build()?.local_addrs().to_vec())
    }

    /// An address of no machine (RFC 1112, section 4).
    const NOWHERE: &str = "240.0.0.1:0";

    fn port(addr: &Addr) -> u16 {
        let (Addr::Tcp(addr) | Addr::Udp(addr)) = addr else { panic!("{addr}") };
        addr.port()
    }

    #[test]
    fn a_name_is_served_at_those_of_its_addresses_that_can_be_bound() {
        for addrs in [[NOWHERE, "127.0.0.1:0"], ["127.0.0.1:0", NOWHERE]] {
            let bound = listening(&addrs).unwrap();
            assert_eq!(bound.len(), 2, "streams and datagrams at one address: {bound:?}");
        }
        let error = listening(&[NOWHERE, "240.0.0.2:0"]).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on tcp 240.0.0.1:0: "), "{error}");
    }

    #[test]
    fn the_addresses_of_a_name_have_one_port() {
        let bound = listening(&["127.0.0.1:0", NOWHERE, "127.0.0.2:0"]).unwrap();
        assert_eq!(bound.len(), 4);
        assert!(bound.iter().all(|addr| port(addr) == port(&bound[0])), "{bound:?}");
        // One that is taken at an address is left out like any other, if it was asked for.
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = here.local_addr().unwrap();
        let elsewhere = format!("127.0.0.2:{}", taken.port());
        let bound = listening(&[&taken.to_string(), &elsewhere]).unwrap();
        assert_eq!(bound[0].to_string(), format!("tcp {elsewhere}"));
        drop(here);
    }
}
