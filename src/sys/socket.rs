//! Stream sockets: listen, accept, connect, receive, send. [`connect`] is for datagrams too, and
//! [`datagram`](super::datagram) has the rest of them.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage,
    UnixAddr, setsockopt, sockopt,
};
use nix::sys::time::TimeVal;

use super::call;
use crate::Addr;

/// What [`recv`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recv {
    /// This many bytes, at least one, are in the buffer.
    Data(usize),
    /// The peer has shut down its sending side, and everything it sent has been received.
    Eof,
    /// Nothing has arrived yet (or, on a blocking socket, its time-out ran out).
    WouldBlock,
}

/// Options of a listening socket.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// How many established connections may wait to be accepted. The kernel caps it at
    /// `net.core.somaxconn` (4,096 by default); see `listen(2)`.
    pub backlog: u32,
    /// `SO_REUSEPORT`: several sockets may listen on one port, and the kernel spreads newcomers
    /// over them by hash; see `socket(7)`. A unix socket has no port.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { backlog: 4096, reuse_port: false }
    }
}

/// Options of an outbound connection.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Bind to this local address first. With port 0 the port is chosen at `connect`, by the
    /// four-tuple (`IP_BIND_ADDRESS_NO_PORT`, `ip(7)`), so that one address is good for about
    /// 28,000 connections *to each destination*.
    pub source: Option<SocketAddr>,
    /// `SO_REUSEPORT` before the bind: several sockets may share the source port.
    pub reuse_port: bool,
    /// Probe a silent peer after this long, and again each tenth of it (`TCP_KEEPIDLE`,
    /// `TCP_KEEPINTVL`, `tcp(7)`); counted in whole seconds, at least one.
    pub keepalive: Option<Duration>,
}

/// What [`connect`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    /// The connection is established.
    Done,
    /// The handshake is under way: when the socket becomes writable, [`take_error`] says how it
    /// ended.
    InProgress,
    /// The accept queue of the unix listener is full, and the kernel, which has no handshake for
    /// it, does not wait: [`connect_again`] after a while.
    QueueFull,
}

/// Runs a system call until a signal no longer interrupts it.
#[inline(always)] // see sys/call.rs
pub(super) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            result => return result,
        }
    }
}

/// An [`Addr`] as the kernel takes it.
pub(super) fn with_sockaddr<T>(
    addr: &Addr,
    then: impl FnOnce(AddressFamily, &dyn SockaddrLike) -> nix::Result<T>,
) -> io::Result<T> {
    Ok(match addr {
        Addr::Tcp(SocketAddr::V4(v4)) | Addr::Udp(SocketAddr::V4(v4)) => {
            then(AddressFamily::Inet, &socket::SockaddrIn::from(*v4))?
        }
        Addr::Tcp(SocketAddr::V6(v6)) | Addr::Udp(SocketAddr::V6(v6)) => {
            then(AddressFamily::Inet6, &socket::SockaddrIn6::from(*v6))?
        }
        Addr::Unix(path) => {
            let unix = match path.as_os_str().as_bytes() {
                [0, name @ ..] => UnixAddr::new_abstract(name)?,
                _ => UnixAddr::new(path)?,
            };
            then(AddressFamily::Unix, &unix)?
        }
    })
}

fn from_sockaddr(storage: &SockaddrStorage) -> io::Result<Addr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        Ok(Addr::Tcp(SocketAddr::V4((*v4).into())))
    } else if let Some(v6) = storage.as_sockaddr_in6() {
        Ok(Addr::Tcp(SocketAddr::V6((*v6).into())))
    } else if let Some(unix) = storage.as_unix_addr() {
        // A client's unix socket is usually unnamed.
        Ok(Addr::Unix(match unix.as_abstract() {
            Some(name) => PathBuf::from(OsString::from_vec([b"\0", name].concat())),
            None => unix.path().map(PathBuf::from).unwrap_or_default(),
        }))
    } else {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// A non-blocking socket that listens on `addr`: `socket`, `bind` and `listen` in one.
///
/// `SO_REUSEADDR` is set, so that a restart does not wait for the TIME-WAIT of the last run, and
/// `TCP_NODELAY`, which the accepted sockets inherit (`tcp(7)`) at no cost for each. An IPv6
/// address takes IPv6 only (`IPV6_V6ONLY`, `ipv6(7)`): `0.0.0.0:80` and `[::]:80` do not collide.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` and the others of `bind(2)` and `listen(2)`.
pub fn listen(addr: &Addr, options: &ListenOptions) -> io::Result<OwnedFd> {
    with_sockaddr(addr, |family, sockaddr| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Stream, flags, None)?;
        if family != AddressFamily::Unix {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
            if options.reuse_port {
                setsockopt(&fd, sockopt::ReusePort, &true)?;
            }
        }
        if family == AddressFamily::Inet6 {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        socket::bind(fd.as_raw_fd(), sockaddr)?;
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        // nix refuses a backlog above its own idea of SOMAXCONN; the kernel caps it by sysctl.
        // SAFETY: listen(2) takes a descriptor, which `fd` keeps open, and an integer.
        Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
        Ok(fd)
    })
}

/// Takes one connection from a non-blocking listener's accept queue; `None` if it is empty.
///
/// The new socket is non-blocking if asked for, with no further system call (`accept4(2)`).
///
/// # Errors
/// `EMFILE` and `ENFILE` (out of descriptors), `ENOBUFS` and `ENOMEM`; and errors that belong to
/// the one connection that was to be accepted (`ECONNABORTED`, `EPROTO`, ...), after which the
/// next may be tried.
pub fn accept(listener: BorrowedFd<'_>, nonblocking: bool) -> io::Result<Option<OwnedFd>> {
    let mut flags = SockFlag::SOCK_CLOEXEC;
    flags.set(SockFlag::SOCK_NONBLOCK, nonblocking);
    match retry(|| socket::accept4(listener.as_raw_fd(), flags)) {
        // SAFETY: accept4 returned this descriptor just now, and nobody else has it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Starts a connection on a new non-blocking socket, with `TCP_NODELAY` if it is one of TCP.
///
/// A datagram socket is connected at once, with no packet sent: that only says where its datagrams
/// go to, and that it receives none from elsewhere (`udp(7)`).
///
/// # Errors
/// Those of `connect(2)` that are known at once: `EADDRNOTAVAIL` (no free port left towards this
/// destination), `ENETUNREACH`, `ECONNREFUSED`; and `EADDRINUSE` from the `bind(2)` to a source
/// port.
pub fn connect(addr: &Addr, options: &ConnectOptions) -> io::Result<(OwnedFd, Connecting)> {
    with_sockaddr(addr, |family, sockaddr| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let is_udp = matches!(addr, Addr::Udp(_));
        let kind = if is_udp { SockType::Datagram } else { SockType::Stream };
        let fd = socket::socket(family, kind, flags, None)?;
        if matches!(addr, Addr::Tcp(_)) {
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
            if let Some(idle) = options.keepalive {
                set_keepalive(&fd, idle)?;
            }
        }
        if family != AddressFamily::Unix {
            if options.reuse_port {
                setsockopt(&fd, sockopt::ReusePort, &true)?;
            }
            if let Some(source) = options.source {
                if source.port() == 0 {
                    setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
                }
                socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
            }
        }
        let connecting = connect_socket(&fd, family, sockaddr)?;
        Ok((fd, connecting))
    })
}

/// Tries again, with the same socket, what has come to [`Connecting::QueueFull`].
///
/// # Errors
/// As for [`connect`].
pub fn connect_again(fd: BorrowedFd<'_>, addr: &Addr) -> io::Result<Connecting> {
    with_sockaddr(addr, |family, sockaddr| connect_socket(fd, family, sockaddr))
}

fn connect_socket(
    fd: impl AsFd,
    family: AddressFamily,
    sockaddr: &dyn SockaddrLike,
) -> nix::Result<Connecting> {
    // connect is not retried on EINTR: the handshake goes on without us (connect(2)).
    match socket::connect(fd.as_fd().as_raw_fd(), sockaddr) {
        Ok(()) => Ok(Connecting::Done),
        Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(Connecting::InProgress),
        Err(Errno::EAGAIN) if family == AddressFamily::Unix => Ok(Connecting::QueueFull),
        Err(errno) => Err(errno),
    }
}

fn set_keepalive(fd: &OwnedFd, idle: Duration) -> nix::Result<()> {
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX).clamp(1, 32767);
    setsockopt(fd, sockopt::KeepAlive, &true)?;
    setsockopt(fd, sockopt::TcpKeepIdle, &seconds(idle))?;
    setsockopt(fd, sockopt::TcpKeepInterval, &seconds(idle / 10))
}

/// Receives into `buf` what has arrived, up to its length (`recv(2)`).
///
/// # Errors
/// `ECONNRESET` when the peer sent a reset, `ETIMEDOUT` when it stopped answering, and the others
/// of `recv(2)`. `EAGAIN` is [`Recv::WouldBlock`].
///
/// # Panics
/// If `buf` is empty and the kernel receives nothing into it, which would look like EOF.
#[inline(always)] // see sys/call.rs
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Recv> {
    match retry(|| call::recv(fd, buf)) {
        // Looked at here only, so that receiving something costs nothing more.
        Ok(0) => {
            assert!(!buf.is_empty(), "an empty buffer would look like EOF");
            Ok(Recv::Eof)
        }
        Ok(n) => Ok(Recv::Data(n)),
        Err(Errno::EAGAIN) => Ok(Recv::WouldBlock),
        Err(errno) => Err(errno.into()),
    }
}

/// Receives as [`recv`] does, and never blocks, also on a blocking socket (`MSG_DONTWAIT`).
///
/// # Errors
/// As for [`recv`].
pub(crate) fn recv_at_once(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Recv> {
    match retry(|| socket::recv(fd.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT)) {
        Ok(0) => Ok(Recv::Eof),
        Ok(n) => Ok(Recv::Data(n)),
        Err(Errno::EAGAIN) => Ok(Recv::WouldBlock),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends as much of `buf` as the socket's send buffer has room for, and returns how much; 0 when
/// there is no room (`send(2)`).
///
/// # Errors
/// `EPIPE` when the connection is gone (`MSG_NOSIGNAL`: never the signal), `ECONNRESET`, and the
/// others of `send(2)`. `EAGAIN` is 0.
#[inline(always)] // see sys/call.rs
pub fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    match retry(|| call::send(fd, buf)) {
        Ok(n) => Ok(n),
        Err(Errno::EAGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends FIN: the peer will see EOF after what was sent, and may go on sending (`shutdown(2)`).
///
/// # Errors
/// `ENOTCONN` when the connection is gone already.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(fd.as_raw_fd(), Shutdown::Write)?)
}

/// Makes [`recv`] return what has arrived and then EOF, also to a thread that is blocked in it.
///
/// # Errors
/// `ENOTCONN` when the connection is gone already.
pub fn shutdown_read(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(fd.as_raw_fd(), Shutdown::Read)?)
}

/// Ends both directions at once; a thread blocked in [`recv`] or [`send`] on it returns.
///
/// # Errors
/// `ENOTCONN` when the connection is gone already.
pub fn shutdown_both(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(fd.as_raw_fd(), Shutdown::Both)?)
}

/// Takes the error pending on a socket (`SO_ERROR`, `socket(7)`): how a non-blocking connect
/// ended, or why `EPOLLERR` was reported. Reading it clears it.
///
/// # Errors
/// The pending error itself.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    match socket::getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Bounds how long a *blocking* socket waits in `recv` and `send` (`SO_RCVTIMEO`,
/// `SO_SNDTIMEO`); `None` waits for ever.
///
/// # Errors
/// Those of `setsockopt(2)`; none in practice.
pub fn set_io_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    // Zero means for ever to the kernel: a time-out that has run out is the shortest there is.
    let (sec, usec) = timeout.map_or((0, 0), |t| {
        let t = t.max(Duration::from_millis(1));
        (i64::try_from(t.as_secs()).unwrap_or(i64::MAX), i64::from(t.subsec_micros()))
    });
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(sec, usec))?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(sec, usec))?;
    Ok(())
}

/// Makes the close of a *blocking* socket wait until the peer has acknowledged what was sent, or
/// this much time has passed (`SO_LINGER`, `socket(7)`); in whole seconds.
///
/// Zero makes it send a reset instead, and drop what was not sent.
///
/// # Errors
/// Those of `setsockopt(2)`; none in practice.
pub fn set_linger(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let seconds = i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    Ok(setsockopt(&fd, sockopt::Linger, &linger)?)
}

/// How much was sent, and not yet acknowledged by the peer's kernel (`SIOCOUTQ`, `tcp(7)`); the
/// FIN counts as a byte. For a unix socket, what the peer has not read.
///
/// # Errors
/// Those of `ioctl(2)`; `EINVAL` for a listening socket.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is called TIOCOUTQ too, writes an int to where the pointer points.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// The address a stream socket is bound to (`getsockname(2)`): after a bind to port 0, the port the
/// kernel chose.
///
/// # Errors
/// Those of `getsockname(2)`.
pub fn local_addr(fd: impl AsFd) -> io::Result<Addr> {
    from_sockaddr(&socket::getsockname(fd.as_fd().as_raw_fd())?)
}

/// The address at the other end (`getpeername(2)`).
///
/// # Errors
/// `ENOTCONN` when the connection is gone already.
pub fn peer_addr(fd: impl AsFd) -> io::Result<Addr> {
    from_sockaddr(&socket::getpeername(fd.as_fd().as_raw_fd())?)
}
