//! The usual system calls, each shown as it is made.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use c10k::Addr;
use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    self, AddressFamily, Backlog, MsgFlags, SetSockOpt, Shutdown, SockFlag, SockType,
    SockaddrStorage,
};

use super::record::{Lab, Shown, quoted};

/// What descriptors are called: `5<client>`.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<RawFd, String>);

impl Names {
    pub(super) fn of(&self, fd: impl AsFd) -> String {
        let number = fd.as_fd().as_raw_fd();
        match self.0.get(&number) {
            Some(name) => format!("{number}<{name}>"),
            None => number.to_string(),
        }
    }
}

/// The loopback address with a port that the kernel will choose.
pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

impl Lab {
    /// Calls a descriptor by a name from here on.
    pub(crate) fn name(&mut self, fd: impl AsFd, name: &str) {
        self.names.0.insert(fd.as_fd().as_raw_fd(), name.to_owned());
    }

    /// `socket(2)`.
    pub(crate) fn socket(
        &mut self,
        family: AddressFamily,
        kind: SockType,
        flags: SockFlag,
        name: &str,
    ) -> nix::Result<OwnedFd> {
        let result = socket::socket(family, kind, flags | SockFlag::SOCK_CLOEXEC, None);
        if let Ok(fd) = &result {
            self.name(fd, name);
        }
        let family = match family {
            AddressFamily::Inet => "AF_INET",
            AddressFamily::Inet6 => "AF_INET6",
            AddressFamily::Unix => "AF_UNIX",
            _ => "AF_...",
        };
        let kind = match kind {
            SockType::Stream => "SOCK_STREAM",
            SockType::Datagram => "SOCK_DGRAM",
            _ => "SOCK_...",
        };
        let nonblocking = match flags.contains(SockFlag::SOCK_NONBLOCK) {
            true => "|SOCK_NONBLOCK",
            false => "",
        };
        self.call(format!("socket({family}, {kind}{nonblocking})"), result)
    }

    /// A TCP socket over IPv4 that blocks.
    pub(crate) fn tcp(&mut self, name: &str) -> nix::Result<OwnedFd> {
        self.socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), name)
    }

    /// A TCP socket over IPv4 that does not block.
    pub(crate) fn tcp_nonblocking(&mut self, name: &str) -> nix::Result<OwnedFd> {
        self.socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, name)
    }

    /// `setsockopt(2)`; `shown` is how strace would show the option and its value, as in
    /// `SO_REUSEADDR, 1`.
    pub(crate) fn set<O: SetSockOpt>(
        &mut self,
        fd: &OwnedFd,
        option: O,
        value: &O::Val,
        shown: &str,
    ) -> nix::Result<()> {
        let result = socket::setsockopt(fd, option, value);
        self.call(format!("setsockopt({}, {shown})", self.names.of(fd)), result)
    }

    /// Has the kernel drop what arrives for a socket, as if the line were cut, or no longer. In a
    /// network of the lab's own, as some kernels want `CAP_NET_ADMIN` for it.
    pub(crate) fn drop_incoming(&mut self, fd: &OwnedFd, drop: bool) -> nix::Result<()> {
        let result = sys::drop_incoming(fd.as_fd(), drop).map_err(|error| errno(&error));
        let option = if drop { "SO_ATTACH_FILTER, {drop all}" } else { "SO_DETACH_FILTER" };
        self.call(format!("setsockopt({}, {option})", self.names.of(fd)), result)
    }

    /// `bind(2)`. Returns the address it is bound to, in which the kernel has chosen a port if it
    /// was 0.
    pub(crate) fn bind(&mut self, fd: &OwnedFd, addr: SocketAddr) -> nix::Result<SocketAddr> {
        let result = socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr));
        self.call(format!("bind({}, {addr})", self.names.of(fd)), result)?;
        let bound = local(fd)?;
        if addr.port() == 0 {
            self.called(format!("getsockname({})", self.names.of(fd)), bound.to_string());
        }
        Ok(bound)
    }

    /// `listen(2)`.
    pub(crate) fn listen(&mut self, fd: &OwnedFd, backlog: i32) -> nix::Result<()> {
        let result = Backlog::new(backlog).and_then(|backlog| socket::listen(fd, backlog));
        self.call(format!("listen({}, {backlog})", self.names.of(fd)), result)
    }

    /// A TCP socket that listens on a port of the loopback address: `socket`, `bind`, `listen`.
    pub(crate) fn listener(
        &mut self,
        name: &str,
        backlog: i32,
    ) -> nix::Result<(OwnedFd, SocketAddr)> {
        let fd = self.tcp(name)?;
        let addr = self.bind(&fd, ANY_PORT)?;
        self.listen(&fd, backlog)?;
        Ok((fd, addr))
    }

    /// `connect(2)`.
    pub(crate) fn connect(&mut self, fd: &OwnedFd, addr: SocketAddr) -> nix::Result<()> {
        let result = socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr));
        self.call(format!("connect({}, {addr})", self.names.of(fd)), result)
    }

    /// `accept4(2)`. The new socket blocks, unless `flags` say otherwise.
    pub(crate) fn accept(
        &mut self,
        listener: &OwnedFd,
        flags: SockFlag,
        name: &str,
    ) -> nix::Result<OwnedFd> {
        let nonblocking = flags.contains(SockFlag::SOCK_NONBLOCK);
        let result = match sys::accept(listener.as_fd(), nonblocking) {
            Ok(fd) => fd.ok_or(Errno::EAGAIN),
            Err(error) => Err(errno(&error)),
        };
        if let Ok(fd) = &result {
            self.name(fd, name);
        }
        let flags = if nonblocking { "SOCK_NONBLOCK" } else { "0" };
        self.call(format!("accept4({}, {flags})", self.names.of(listener)), result)
    }

    /// A client and the server's end of it, both blocking: `socket`, `connect`, `accept4`.
    pub(crate) fn pair(
        &mut self,
        listener: &OwnedFd,
        client: &str,
        server: &str,
    ) -> nix::Result<(OwnedFd, OwnedFd)> {
        let ours = self.tcp(client)?;
        self.connect(&ours, local(listener)?)?;
        let theirs = self.accept(listener, SockFlag::empty(), server)?;
        Ok((ours, theirs))
    }

    /// `send(2)` with `MSG_NOSIGNAL`.
    pub(crate) fn send(&mut self, fd: &OwnedFd, bytes: &[u8]) -> nix::Result<usize> {
        let result = match sys::send(fd.as_fd(), bytes) {
            Ok(0) if !bytes.is_empty() => Err(Errno::EAGAIN),
            Ok(n) => Ok(n),
            Err(error) => Err(errno(&error)),
        };
        let (name, text) = (self.names.of(fd), quoted(bytes));
        self.call(format!("send({name}, {text}, {})", bytes.len()), result)
    }

    /// `recv(2)` of up to this many bytes; none at the end of the stream.
    pub(crate) fn recv(&mut self, fd: &OwnedFd, most: usize) -> nix::Result<Vec<u8>> {
        let mut buffer = vec![0; most];
        let result = match sys::recv(fd.as_fd(), &mut buffer) {
            Ok(Recv::Data(n)) => {
                buffer.truncate(n);
                Ok(buffer)
            }
            Ok(Recv::Eof) => Ok(Vec::new()),
            Ok(Recv::WouldBlock) => Err(Errno::EAGAIN),
            Err(error) => Err(errno(&error)),
        };
        self.call(format!("recv({}, {most})", self.names.of(fd)), result)
    }

    /// `recv(2)` that takes nothing, and waits until so many bytes can be received. The socket must
    /// block.
    pub(crate) fn peek(&mut self, fd: &OwnedFd, bytes: usize) -> nix::Result<usize> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
        let result = socket::recv(fd.as_raw_fd(), &mut vec![0; bytes], flags);
        self.call(format!("recv({}, {bytes}, MSG_PEEK|MSG_WAITALL)", self.names.of(fd)), result)
    }

    /// `shutdown(2)`.
    pub(crate) fn shutdown(&mut self, fd: &OwnedFd, how: Shutdown) -> nix::Result<()> {
        let result = socket::shutdown(fd.as_raw_fd(), how);
        let how = match how {
            Shutdown::Read => "SHUT_RD",
            Shutdown::Write => "SHUT_WR",
            Shutdown::Both => "SHUT_RDWR",
        };
        self.call(format!("shutdown({}, {how})", self.names.of(fd)), result)
    }

    /// `close(2)`.
    pub(crate) fn close(&mut self, fd: OwnedFd) {
        let name = self.names.of(&fd);
        self.names.0.remove(&fd.as_raw_fd());
        drop(fd);
        self.called(format!("close({name})"), "0".to_owned());
    }

    /// The pending error of a socket, `SO_ERROR`, which reading it clears (`socket(7)`).
    pub(crate) fn socket_error(&mut self, fd: &OwnedFd) -> nix::Result<Option<Errno>> {
        let pending = match sys::take_error(fd.as_fd()) {
            Ok(()) => None,
            Err(error) => Some(errno(&error)),
        };
        let shown = pending.map_or("0".to_owned(), |errno| format!("{errno:?}"));
        self.called(format!("getsockopt({}, SO_ERROR)", self.names.of(fd)), shown);
        Ok(pending)
    }

    /// `epoll_create1(2)`.
    pub(crate) fn epoll(&mut self, name: &str) -> nix::Result<Epoll> {
        let result = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        if let Ok(epoll) = &result {
            self.name(&epoll.0, name);
        }
        self.call("epoll_create1(EPOLL_CLOEXEC)", result)
    }

    /// `epoll_ctl(2)`, to add.
    pub(crate) fn epoll_add(
        &mut self,
        epoll: &Epoll,
        fd: impl AsFd,
        events: EpollFlags,
        data: u64,
    ) -> nix::Result<()> {
        let result = epoll.add(&fd, EpollEvent::new(events, data));
        self.epoll_ctl(epoll, "EPOLL_CTL_ADD", &fd, &format!(", {}, {data}", flags(events)), result)
    }

    /// `epoll_ctl(2)`, to modify.
    pub(crate) fn epoll_modify(
        &mut self,
        epoll: &Epoll,
        fd: impl AsFd,
        events: EpollFlags,
        data: u64,
    ) -> nix::Result<()> {
        let result = epoll.modify(&fd, &mut EpollEvent::new(events, data));
        self.epoll_ctl(epoll, "EPOLL_CTL_MOD", &fd, &format!(", {}, {data}", flags(events)), result)
    }

    /// `epoll_ctl(2)`, to delete.
    pub(crate) fn epoll_delete(&mut self, epoll: &Epoll, fd: impl AsFd) -> nix::Result<()> {
        let result = epoll.delete(&fd);
        self.epoll_ctl(epoll, "EPOLL_CTL_DEL", &fd, "", result)
    }

    fn epoll_ctl(
        &mut self,
        epoll: &Epoll,
        op: &str,
        fd: &impl AsFd,
        rest: &str,
        result: nix::Result<()>,
    ) -> nix::Result<()> {
        let (epoll, fd) = (self.names.of(&epoll.0), self.names.of(fd));
        self.call(format!("epoll_ctl({epoll}, {op}, {fd}{rest})"), result)
    }

    /// `epoll_wait(2)` for up to `most` events; a time-out of -1 is for ever. Each event is its
    /// mask and its data.
    pub(crate) fn epoll_wait(
        &mut self,
        epoll: &Epoll,
        most: usize,
        timeout_ms: i32,
    ) -> nix::Result<Vec<(EpollFlags, u64)>> {
        let mut events = vec![EpollEvent::empty(); most];
        let timeout = EpollTimeout::try_from(timeout_ms).map_err(|_| Errno::EINVAL)?;
        let result = epoll.wait(&mut events, timeout).map(|n| {
            let seen = events[..n].iter();
            seen.map(|event| (event.events(), event.data())).collect::<Vec<_>>()
        });
        let call = format!("epoll_wait({}, {most}, {timeout_ms})", self.names.of(&epoll.0));
        self.call(call, result)
    }
}

impl Shown for Epoll {
    fn shown(&self, names: &Names) -> String {
        names.of(&self.0)
    }
}

/// Events as `epoll_wait` returns them: how many, then each.
impl Shown for Vec<(EpollFlags, u64)> {
    fn shown(&self, _: &Names) -> String {
        let mut text = self.len().to_string();
        for (events, data) in self {
            text.push_str(&format!(" {{{}, {data}}}", flags(*events)));
        }
        text
    }
}

/// A mask as it is written: `EPOLLIN|EPOLLRDHUP`.
pub(crate) fn flags(events: EpollFlags) -> String {
    let names: Vec<_> = events.iter_names().map(|(name, _)| name).collect();
    match names.is_empty() {
        true => "0".to_owned(),
        false => names.join("|"),
    }
}

/// The address that a socket is bound to.
pub(crate) fn local(fd: &OwnedFd) -> nix::Result<SocketAddr> {
    match sys::local_addr(fd) {
        Ok(Addr::Tcp(addr)) => Ok(addr),
        Ok(_) => Err(Errno::EAFNOSUPPORT),
        Err(error) => Err(errno(&error)),
    }
}

/// The number of an error that a system call gave.
pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
