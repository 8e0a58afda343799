//! Datagram sockets: bind, and receive and send many at a time.

use std::fmt;
use std::io;
use std::mem;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, setsockopt, sockopt};

use super::socket::{retry, with_sockaddr};
use super::{Recv, local_addr};
use crate::Addr;

/// The most bytes there can be in one datagram: what is left of 65,535 behind the header of UDP, over
/// IPv6. Over IPv4 it is 20 less, those of the header of IP: 65,507 (`udp(7)`).
pub const DATAGRAM_LEN_MAX: usize = 65_527;

/// How many datagrams one call receives or sends.
const BATCH: usize = 32;

/// Room for where a datagram was sent to, as `ip(7)` and `ipv6(7)` tell it.
const CONTROL_LEN: usize = 64;

/// A non-blocking socket that is bound to an [`Addr::Udp`], and the address with the port that the
/// kernel chose.
///
/// An IPv6 address takes IPv6 only (`IPV6_V6ONLY`). Bound to all addresses (`0.0.0.0`, `[::]`), it
/// is told which one each datagram was sent to (`IP_PKTINFO`, `IPV6_RECVPKTINFO`), so that replies
/// can come from there, or from an address of this machine if that was a multicast or broadcast
/// one.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` and the others of `bind(2)`.
pub fn bind_datagram(addr: &Addr, reuse_port: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let fd = with_sockaddr(addr, |family, sockaddr| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Datagram, flags, None)?;
        match family {
            AddressFamily::Inet6 => {
                setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
                setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
            _ => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        }
        if reuse_port {
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        socket::bind(fd.as_raw_fd(), sockaddr)?;
        Ok(fd)
    })?;
    match local_addr(&fd)? {
        Addr::Tcp(addr) | Addr::Udp(addr) => Ok((fd, addr)),
        Addr::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Receives one datagram on a connected socket (`recv(2)`). An empty one is data of no bytes.
///
/// # Errors
/// `ECONNREFUSED` when nobody is at the port that an earlier one was sent to, which its host has
/// said by ICMP; and the others of `recv(2)`. `EAGAIN` is [`Recv::WouldBlock`].
pub fn recv_datagram(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Recv> {
    match retry(|| socket::recv(fd.as_raw_fd(), buf, MsgFlags::empty())) {
        Ok(n) => Ok(Recv::Data(n)),
        Err(Errno::EAGAIN) => Ok(Recv::WouldBlock),
        Err(errno) => Err(errno.into()),
    }
}

/// Room to receive many datagrams with one call, and to answer them with another.
pub struct Datagrams {
    /// The bytes of each, one after another, `len_max` apart.
    bytes: Box<[u8]>,
    len_max: usize,
    envelopes: Box<[Envelope; BATCH]>,
    received: usize,
}

/// What comes with a datagram.
#[derive(Clone, Copy)]
struct Envelope {
    len: usize,
    truncated: bool,
    from: libc::sockaddr_storage,
    from_len: libc::socklen_t,
    /// Which of our addresses it was sent to. Sent along with the reply, it is where that comes
    /// from.
    control: Control,
    control_len: usize,
}

/// Control messages begin with a length, and are aligned as such (`cmsg(3)`).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What is in it, or as much of that as there was room for.
    pub bytes: &'a [u8],
    /// Who sent it, or claims to have.
    pub from: SocketAddr,
    /// It was longer than there was room for, and the rest is lost (`MSG_TRUNC`, `recv(2)`).
    pub truncated: bool,
}

impl Datagrams {
    /// Room for datagrams of up to this many bytes.
    #[must_use]
    pub fn new(len_max: usize) -> Datagrams {
        let len_max = len_max.clamp(1, DATAGRAM_LEN_MAX);
        // SAFETY: a sockaddr_storage is made of integers, for which zeroes are a value.
        let from = unsafe { mem::zeroed() };
        let control = Control([0; CONTROL_LEN]);
        let envelope =
            Envelope { len: 0, truncated: false, from, from_len: 0, control, control_len: 0 };
        Datagrams {
            bytes: vec![0; BATCH * len_max].into_boxed_slice(),
            len_max,
            envelopes: Box::new([envelope; BATCH]),
            received: 0,
        }
    }

    /// Receives what has arrived on a non-blocking socket, up to 32 datagrams, and returns how many
    /// (`recvmmsg(2)`). Those received before are gone.
    ///
    /// # Errors
    /// `ENOMEM`; and on a socket that asks for them the errors that ICMP has told of.
    pub fn recv(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.received = 0;
        let mut parts = [EMPTY_PART; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        let pieces = self.bytes.chunks_exact_mut(self.len_max).zip(self.envelopes.iter_mut());
        for ((part, header), (bytes, envelope)) in parts.iter_mut().zip(&mut headers).zip(pieces) {
            part.iov_base = bytes.as_mut_ptr().cast();
            part.iov_len = bytes.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut envelope.from).cast();
            header.msg_hdr.msg_namelen = mem::size_of_val(&envelope.from) as libc::socklen_t;
            header.msg_hdr.msg_control = (&raw mut envelope.control).cast();
            // Of one type with glibc, and of another with musl, as the flags below.
            header.msg_hdr.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: each header points to one part, and to the address and the control messages of
        // one envelope, with their lengths; each part to `len_max` bytes. All of them are borrowed
        // by this function alone until the call returns, and what it writes is bytes.
        let result = retry(|| unsafe {
            let (headers, len) = (headers.as_mut_ptr(), BATCH as libc::c_uint);
            Errno::result(libc::recvmmsg(fd.as_raw_fd(), headers, len, 0, ptr::null_mut()))
        });
        let received = match result {
            Ok(n) => n as usize,
            Err(Errno::EAGAIN) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        };
        for (envelope, header) in self.envelopes.iter_mut().zip(&headers[..received]) {
            envelope.len = (header.msg_len as usize).min(self.len_max);
            envelope.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            envelope.from_len = header.msg_hdr.msg_namelen;
            envelope.control_len = header.msg_hdr.msg_controllen as _;
            envelope.control.turn_round(envelope.control_len);
        }
        self.received = received;
        Ok(received)
    }

    /// One of those received. `None` behind the last, and for one whose sender is of no IP address.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<Datagram<'_>> {
        let envelope = self.envelopes[..self.received].get(at)?;
        let bytes = &self.bytes[at * self.len_max..][..envelope.len];
        Some(Datagram { bytes, from: envelope.from()?, truncated: envelope.truncated })
    }

    /// Sends replies (`sendmmsg(2)`): each says which of those received it answers, and which of
    /// `bytes` it is. It goes to whom that came from, from where that was sent to. Returns how many
    /// were sent.
    ///
    /// # Errors
    /// Why the first one could not be sent: `EAGAIN` if there is no room for it in the socket's
    /// send buffer, `EMSGSIZE` if it is too long, and the others of `send(2)`. Those after it may
    /// be tried.
    ///
    /// # Panics
    /// If one answers what was not received, or is not within `bytes`.
    pub fn reply(
        &mut self,
        fd: BorrowedFd<'_>,
        bytes: &[u8],
        replies: &[(usize, Range<usize>)],
    ) -> io::Result<usize> {
        let mut parts = [EMPTY_PART; BATCH];
        let mut headers = [EMPTY_HEADER; BATCH];
        let replies = &replies[..replies.len().min(BATCH)];
        for ((part, header), (at, range)) in parts.iter_mut().zip(&mut headers).zip(replies) {
            let reply = &bytes[range.clone()];
            // The kernel only reads it.
            part.iov_base = reply.as_ptr().cast_mut().cast();
            part.iov_len = reply.len();
            let envelope = &mut self.envelopes[..self.received][*at];
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut envelope.from).cast();
            header.msg_hdr.msg_namelen = envelope.from_len;
            if envelope.control_len > 0 {
                header.msg_hdr.msg_control = (&raw mut envelope.control).cast();
                header.msg_hdr.msg_controllen = envelope.control_len as _;
            }
        }
        // SAFETY: as many headers as replies are filled in. Each points to one part, which points
        // into `bytes`, and to the address and the control messages of one envelope, as the kernel
        // wrote them, with their lengths. All outlive the call, which only writes `msg_len`.
        let sent = retry(|| unsafe {
            let (headers, len) = (headers.as_mut_ptr(), replies.len() as libc::c_uint);
            Errno::result(libc::sendmmsg(fd.as_raw_fd(), headers, len, libc::MSG_NOSIGNAL as _))
        })?;
        Ok(sent as usize)
    }
}

const EMPTY_PART: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

// SAFETY: it is made of integers and of pointers, for which zeroes are a value.
const EMPTY_HEADER: libc::mmsghdr = unsafe { mem::zeroed() };

impl Envelope {
    fn from(&self) -> Option<SocketAddr> {
        let from: *const libc::sockaddr_storage = &self.from;
        match libc::c_int::from(self.from.ss_family) {
            libc::AF_INET => {
                // SAFETY: a sockaddr_storage is as large as any address and aligned for it, and
                // this one says that it is one of IPv4.
                let from = unsafe { &*from.cast::<libc::sockaddr_in>() };
                let ip = u32::from_be(from.sin_addr.s_addr).into();
                Some(SocketAddrV4::new(ip, u16::from_be(from.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above, of IPv6.
                let from = unsafe { &*from.cast::<libc::sockaddr_in6>() };
                let (ip, port) = (from.sin6_addr.s6_addr.into(), u16::from_be(from.sin6_port));
                let (flow, scope) = (from.sin6_flowinfo, from.sin6_scope_id);
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

impl Control {
    /// Makes of where a datagram was sent to, as the kernel has written it, where the reply is sent
    /// from.
    ///
    /// The interface it came in by is left out: the reply goes out by the one that leads to its
    /// receiver. A link-local address of IPv6 has the interface in the receiver's address.
    ///
    /// A multicast address of IPv6 is left out too: it is no source (RFC 4291, 2.7), and the kernel,
    /// which would say EINVAL, then chooses one of ours. Of IPv4 it tells ours besides
    /// (`ipi_spec_dst`, `ip(7)`), also of a datagram to a multicast or broadcast address, and sends
    /// from that.
    fn turn_round(&mut self, len: usize) {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        const ADDR: usize = mem::offset_of!(libc::in6_pktinfo, ipi6_addr);
        let info = &mut self.0[..len.min(CONTROL_LEN)];
        if info.len() < HEADER {
            return;
        }
        // SAFETY: there are as many bytes, which the kernel has written, and they are aligned as
        // it wants them.
        let header = unsafe { &*info.as_ptr().cast::<libc::cmsghdr>() };
        let (level, kind) = (header.cmsg_level, header.cmsg_type);
        let index = match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => mem::offset_of!(libc::in_pktinfo, ipi_ifindex),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                mem::offset_of!(libc::in6_pktinfo, ipi6_ifindex)
            }
            _ => return,
        };
        if let Some(index) = info.get_mut(HEADER + index..HEADER + index + 4) {
            index.fill(0);
        }
        // They begin with this byte, and no other address does.
        if let Some(addr @ [0xff, ..]) = info.get_mut(HEADER + ADDR..HEADER + ADDR + 16)
            && level == libc::IPPROTO_IPV6
        {
            addr.fill(0);
        }
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams")
            .field("len_max", &self.len_max)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
