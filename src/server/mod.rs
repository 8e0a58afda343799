//! A server: listeners, the connections they accept, and a [service](crate::service::Service) to
//! answer them.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use c10k::framing::Delimiter;
//! use c10k::service::Echo;
//! use c10k::{Addr, Server};
//!
//! let server = Server::builder()
//!     .listen("127.0.0.1:0")?
//!     .framing(Delimiter::new(b'\n').max_len(64 * 1024))
//!     .idle_timeout(Duration::from_secs(30))
//!     .service(|| Echo)
//!     .build()?;
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! let Addr::Tcp(addr) = handle.local_addrs()[0] else { unreachable!() };
//! let mut client = std::net::TcpStream::connect(addr)?;
//! client.write_all(b"hello\n")?;
//! let mut reply = [0; 6];
//! client.read_exact(&mut reply)?;
//! assert_eq!(&reply, b"hello\n");
//!
//! handle.stop();
//! drop(client);
//! let stats = running.join().unwrap()?;
//! assert_eq!((stats.accepted, stats.requests), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod counters;
mod datagrams;
mod front;
mod handle;
mod listener;
mod own_addrs;
mod serve;
mod tally;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::Builder;
pub use self::counters::Stats;
pub use self::handle::Handle;
pub use crate::models::{Model, Trigger};

pub(crate) use self::builder::Protocol;
pub(crate) use self::counters::Counters;
pub(crate) use self::front::Front;
pub(crate) use self::handle::Shared;
pub(crate) use self::listener::Listener;
pub(crate) use self::serve::{Serve, Source, Sources};
pub(crate) use self::tally::Tally;

use nix::sys::signal::Signal;

use crate::models::Ready;
use crate::{Error, sys};

/// How a server behaves, whatever it serves.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) model: Model,
    pub(crate) connections_max: u64,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) drain: Duration,
    pub(crate) stack_size: usize,
    /// The longest datagram.
    pub(crate) datagram_len_max: usize,
    /// How many processes serve; 0 if this one does.
    pub(crate) workers: usize,
}

impl Config {
    /// Whether the server is several processes.
    pub(crate) fn forks(&self) -> bool {
        self.workers > 0 || self.model == Model::Processes
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            model: Model::default(),
            connections_max: u64::MAX,
            idle_timeout: Some(Duration::from_secs(30)),
            drain: Duration::from_secs(5),
            stack_size: 128 * 1024,
            datagram_len_max: 0,
            workers: 0,
        }
    }
}

/// What a server is made of, before there is a loop.
pub(crate) struct Setup<F, M> {
    pub(crate) sources: Sources,
    pub(crate) shared: Arc<Shared>,
    pub(crate) protocol: Arc<Protocol<F, M>>,
    pub(crate) config: Config,
}

/// A server that listens, and has all that it needs to serve. [`run`](Server::run) serves.
pub struct Server {
    shared: Arc<Shared>,
    config: Config,
    ready: Ready,
}

impl Server {
    /// Starts to put a server together.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle to stop it with and to read its counters, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// The addresses it listens on, with the ports that the kernel chose.
    #[must_use]
    pub fn local_addrs(&self) -> &[crate::Addr] {
        self.shared.addrs()
    }

    /// Serves until told to stop, and then until what was received is answered. Returns what was
    /// counted.
    ///
    /// With workers, and with [`Model::Processes`], this process forks, gives SIGCHLD its default
    /// action, and waits for every child that it has. What is in a child of it is a copy: a
    /// [`Handle`] stops nothing from there.
    ///
    /// # Errors
    /// [`Error::System`] if the process cannot fork because it has threads by now;
    /// [`Error::Workers`] if the workers cannot live.
    pub fn run(self) -> Result<Stats, Error> {
        if self.config.forks() {
            sys::check_single_threaded().map_err(Error::system("fork"))?;
            // Ignored, ended children are not kept to be waited for (waitpid(2), "ERRORS").
            sys::default_action(Signal::SIGCHLD);
        }
        (self.ready)()?;
        Ok(self.shared.counters.stats())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addrs", &self.shared.addrs())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
