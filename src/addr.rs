//! Where a socket is bound or connects to.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::Error;

/// The address of a socket, and what it speaks.
///
/// ```
/// use c10k::Addr;
///
/// let addrs = Addr::resolve("127.0.0.1:7000")?;
/// assert_eq!(addrs[0].to_string(), "tcp 127.0.0.1:7000");
/// assert_eq!(Addr::resolve("unix:/tmp/c10k.sock")?[0].to_string(), "unix /tmp/c10k.sock");
/// # Ok::<(), c10k::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An IPv4 or IPv6 address and port, for streams.
    Tcp(SocketAddr),
    /// The same for datagrams.
    Udp(SocketAddr),
    /// A path in the file system, for streams; see `unix(7)`.
    Unix(PathBuf),
}

impl Addr {
    /// Reads the address of a stream socket: `HOST:PORT`, `[IPv6]:PORT`, `NAME:PORT` or `unix:PATH`.
    ///
    /// A name may stand for several addresses (`localhost` for one of IPv4 and one of IPv6): all
    /// are returned, in the resolver's order.
    ///
    /// # Errors
    /// [`Error::Resolve`] if there is no port, or no such host.
    pub fn resolve(address: &str) -> Result<Vec<Addr>, Error> {
        let failed = |source| Error::Resolve { address: address.to_owned(), source };
        if let Some(path) = address.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "no path")));
            }
            return Ok(vec![Addr::Unix(PathBuf::from(path))]);
        }
        let mut addrs = Vec::new();
        for addr in address.to_socket_addrs().map_err(failed)? {
            let addr = Addr::Tcp(addr);
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "no address")));
        }
        Ok(addrs)
    }

    /// The same host and port for datagrams. `None` for a path, which is for streams only.
    #[must_use]
    pub fn udp(&self) -> Option<Addr> {
        match self {
            Addr::Tcp(addr) | Addr::Udp(addr) => Some(Addr::Udp(*addr)),
            Addr::Unix(_) => None,
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) => write!(f, "tcp {addr}"),
            Addr::Udp(addr) => write!(f, "udp {addr}"),
            Addr::Unix(path) if path.as_os_str().is_empty() => write!(f, "unix (unnamed)"),
            Addr::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Addr {
        Addr::Tcp(addr)
    }
}
