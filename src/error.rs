//! Why something could not start.

use std::fmt;
use std::io;

use crate::Addr;

/// Why a server or a connection could not start. Each names the address or the operation, and
/// keeps the kernel's word as its [source](std::error::Error::source).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an address, or there is no such host.
    Resolve {
        /// The text as it was given.
        address: String,
        /// What to write instead ([`InvalidInput`](io::ErrorKind::InvalidInput)), or what the
        /// resolver said.
        source: io::Error,
    },
    /// `socket(2)`, `bind(2)` or `listen(2)` failed.
    Listen {
        /// The address asked for.
        addr: Addr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A connection could not be made.
    Connect {
        /// The address asked for.
        addr: Addr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A server was built without an address, a framing or a service.
    Missing(&'static str),
    /// Two of a server's settings exclude each other.
    Conflict(&'static str),
    /// The workers of a server fail again and again, and none serves. What each of them said is in
    /// the log.
    Workers {
        /// How the last one failed, as in "exit status 1".
        last: String,
    },
    /// A system call failed that only does so when the system is out of something, or refuses it to
    /// this process.
    System {
        /// What was being done, and by which call, as in "create an epoll instance (epoll_create1)".
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the operation that failed.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { operation, source }
    }

    /// For `map_err` of what has a poller watch a descriptor.
    pub(crate) fn watch(source: io::Error) -> Error {
        let operation = match source.raw_os_error() {
            Some(_) => "watch a descriptor (epoll_ctl)",
            // Not the kernel's error but the poller's own.
            None => "watch a descriptor",
        };
        Error::System { operation, source }
    }
}

/// So that `?` works where everything else is input and output. What the kernel said is the
/// [source](std::error::Error::source)'s.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match &error {
            Error::Resolve { source, .. }
            | Error::Listen { source, .. }
            | Error::Connect { source, .. }
            | Error::System { source, .. } => io::Error::new(source.kind(), error),
            _ => io::Error::other(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Resolve { address, source } if source.kind() == io::ErrorKind::InvalidInput => {
                write!(f, "'{address}' is not an address: {source}")
            }
            Error::Resolve { address, source } => {
                write!(f, "cannot resolve '{address}': {source}")
            }
            Error::Listen { addr, source } => {
                write!(f, "cannot listen on {addr}: {source}{}", way_out_at(addr, source))
            }
            Error::Connect { addr, source } => {
                write!(f, "cannot connect to {addr}: {source}{}", way_out_at(addr, source))
            }
            Error::Missing(what) => write!(f, "the server has no {what}"),
            Error::Conflict(what) => f.write_str(what),
            Error::Workers { last } => {
                write!(f, "the workers fail again and again ({last}); see the log")
            }
            Error::System { operation, source } => {
                write!(f, "cannot {operation}: {source}{}", way_out(source))
            }
        }
    }
}

/// What to do about an error of an address that people meet often.
fn way_out_at(addr: &Addr, error: &io::Error) -> &'static str {
    match (error.raw_os_error(), addr) {
        (Some(libc::ECONNREFUSED), _) => "; is the server running?",
        (Some(libc::EADDRINUSE), Addr::Unix(_)) => "; something else is there, or listens there",
        (Some(libc::EADDRINUSE), Addr::Tcp(_) | Addr::Udp(_)) => {
            "; stop the other program or choose another port (0 for any)"
        }
        (Some(libc::EACCES), Addr::Tcp(_) | Addr::Udp(_)) => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        }
        (Some(libc::EADDRNOTAVAIL), Addr::Tcp(_) | Addr::Udp(_)) => {
            "; no such address on this machine, or no free port left towards this destination"
        }
        _ => way_out(error),
    }
}

/// What to do about any other error that people meet often.
fn way_out(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit on open files (ulimit -n)",
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Resolve { source, .. }
            | Error::Listen { source, .. }
            | Error::Connect { source, .. }
            | Error::System { source, .. } => Some(source),
            Error::Missing(_) | Error::Conflict(_) | Error::Workers { .. } => None,
        }
    }
}
