//! Datagrams.

// The lab of the group's own name, in the file of its name.
#[allow(clippy::module_inception)]
mod datagrams;
mod udp_loop;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use c10k::sys;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage};

use super::About;
use super::calls::ANY_PORT;
use super::record::{Lab, quoted};

pub(super) const LABS: &[&About] = &[&datagrams::ABOUT, &udp_loop::ABOUT];

/// Longer than anything takes that happens at all.
const PATIENCE_MS: i32 = 5_000;

/// A UDP socket on a port of the loopback address that the kernel chooses. It does not block.
fn bound(lab: &mut Lab, name: &str) -> nix::Result<(OwnedFd, SocketAddr)> {
    let fd = lab.socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_NONBLOCK, name)?;
    let addr = lab.bind(&fd, ANY_PORT)?;
    Ok((fd, addr))
}

/// `sendto(2)`.
fn send_to(lab: &mut Lab, fd: &OwnedFd, bytes: &[u8], to: SocketAddr) -> nix::Result<usize> {
    let result = quietly_send_to(fd, bytes, to);
    lab.call(format!("sendto({}, {}, {to})", lab.names.of(fd), quoted(bytes)), result)
}

fn quietly_send_to(fd: &OwnedFd, bytes: &[u8], to: SocketAddr) -> nix::Result<usize> {
    socket::sendto(fd.as_raw_fd(), bytes, &SockaddrStorage::from(to), MsgFlags::empty())
}

/// `recvfrom(2)` of up to this many bytes: a datagram, and who sent it.
fn recv_from(lab: &mut Lab, fd: &OwnedFd, most: usize) -> nix::Result<(Vec<u8>, SocketAddr)> {
    let result = quietly_recv_from(fd, most);
    let shown = match &result {
        Ok((bytes, from)) => format!("{} {}, {from}", bytes.len(), quoted(bytes)),
        Err(errno) => format!("-1 {errno:?} ({})", errno.desc()),
    };
    lab.called(format!("recvfrom({}, {most})", lab.names.of(fd)), shown);
    result
}

fn quietly_recv_from(fd: &OwnedFd, most: usize) -> nix::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; most];
    let (n, from) = socket::recvfrom::<SockaddrStorage>(fd.as_raw_fd(), &mut buffer)?;
    buffer.truncate(n);
    let from = from.and_then(|from| Some(SocketAddr::V4((*from.as_sockaddr_in()?).into())));
    Ok((buffer, from.ok_or(Errno::EAFNOSUPPORT)?))
}

/// Waits until a datagram has arrived at one of these, or an error: `poll(2)`. Returns which have
/// one; none, if nothing came in this time.
fn readable(sockets: &[&OwnedFd], timeout_ms: i32) -> std::io::Result<Vec<usize>> {
    let poll =
        |fd: &&OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut fds: Vec<_> = sockets.iter().map(poll).collect();
    sys::poll(&mut fds, timeout_ms)?;
    Ok((0..fds.len()).filter(|i| fds[*i].revents != 0).collect())
}
