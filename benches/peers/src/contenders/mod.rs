//! The contenders: each serves what is sent to the listener, until it is killed.

mod floor;
#[cfg(has_go)]
mod go;
mod mio;
mod monoio;
#[cfg(any(has_libevent, has_libuv, has_asio))]
mod native;
mod polling;
mod smol;
mod threads;
mod tokio;
mod uring;

use std::io;
use std::net::TcpListener;

use rustix::event::epoll::EventFlags;

/// A way to serve, in this program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What it is, for the table.
    pub(crate) about: &'static str,
    /// `None` if it could not be built.
    pub(crate) serve: Option<fn(TcpListener) -> io::Result<()>>,
}

#[cfg(has_libevent)]
const LIBEVENT: Option<fn(TcpListener) -> io::Result<()>> = Some(native::libevent);
#[cfg(not(has_libevent))]
const LIBEVENT: Option<fn(TcpListener) -> io::Result<()>> = None;
#[cfg(has_libuv)]
const LIBUV: Option<fn(TcpListener) -> io::Result<()>> = Some(native::libuv);
#[cfg(not(has_libuv))]
const LIBUV: Option<fn(TcpListener) -> io::Result<()>> = None;
#[cfg(has_asio)]
const ASIO: Option<fn(TcpListener) -> io::Result<()>> = Some(native::asio);
#[cfg(not(has_asio))]
const ASIO: Option<fn(TcpListener) -> io::Result<()>> = None;
#[cfg(has_go)]
const GO: Option<fn(TcpListener) -> io::Result<()>> = Some(go::serve);
#[cfg(not(has_go))]
const GO: Option<fn(TcpListener) -> io::Result<()>> = None;

/// All of them, in the order of the tables.
pub(crate) const ALL: [Contender; 15] = [
    new("floor-level", "bare epoll, level-triggered, no framing", Some(level)),
    new("floor-edge", "bare epoll, edge-triggered, no framing", Some(edge)),
    new("floor-uring", "bare io_uring, no framing", Some(uring::serve)),
    new("mio", "an event loop on mio", Some(mio::serve)),
    new("polling", "an event loop on polling", Some(polling::serve)),
    new("tokio", "tokio, all frames of a read in one write", Some(tokio::serve_in_batches)),
    new("tokio-line", "tokio, read_until and write_all", Some(tokio::serve_by_line)),
    new("smol", "smol, all frames of a read in one write", Some(smol::serve)),
    new("monoio-epoll", "monoio on epoll", Some(monoio::serve_on_epoll)),
    new("monoio-uring", "monoio on io_uring", Some(monoio::serve_on_uring)),
    new("threads", "a thread for each connection", Some(threads::serve)),
    new("libevent", "libevent, bufferevent (libevent-dev)", LIBEVENT),
    new("libuv", "libuv (libuv1-dev)", LIBUV),
    new("asio", "standalone asio (libasio-dev)", ASIO),
    new("go", "Go's net, a goroutine for each connection (golang-go)", GO),
];

const fn new(
    name: &'static str,
    about: &'static str,
    serve: Option<fn(TcpListener) -> io::Result<()>>,
) -> Contender {
    Contender { name, about, serve }
}

/// A thread takes a number of the kernel's, two mappings and two stacks: with more of them the
/// limits of the system are what is measured.
const THREADS_MAX: u64 = 10_000;

/// As many connections as one process of a contender is given.
pub(crate) fn connections_max(name: &str) -> u64 {
    if name == "threads" { THREADS_MAX } else { u64::MAX }
}

impl Contender {
    pub(crate) fn named(name: &str) -> Option<Contender> {
        ALL.into_iter().find(|contender| contender.name == name)
    }

    /// Why it cannot take part here, if it cannot.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        match self.name {
            _ if self.serve.is_none() => Some("what it needs was not there when this was built"),
            "floor-uring" if !uring::has_ring() => {
                Some("the kernel does not allow io_uring, or is older than 6.1")
            }
            "monoio-uring" if !monoio::has_uring() => Some("the kernel does not allow io_uring"),
            _ => None,
        }
    }
}

fn level(listener: TcpListener) -> io::Result<()> {
    floor::serve(listener, EventFlags::empty())
}

fn edge(listener: TcpListener) -> io::Result<()> {
    floor::serve(listener, EventFlags::ET)
}
