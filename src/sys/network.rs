//! A network of one's own, and packets that do not arrive: for those who try things out.

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Moves the calling thread to a new network namespace, which has a loopback interface that is
/// down, and nothing else (`network_namespaces(7)`). It is gone when its last process ends. Who may
/// not make one has a user namespace made around it, if that is allowed (`user_namespaces(7)`).
///
/// # Errors
/// `EPERM` where neither is allowed; `EINVAL` if the process has other threads, and would need the
/// user namespace.
pub fn own_network() -> io::Result<()> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?,
        result => result?,
    }
    Ok(())
}

/// Sets an interface up or down (`SIOCSIFFLAGS`, `netdevice(7)`). The loopback interface is `lo`.
///
/// # Errors
/// `ENODEV` if there is no such interface; `EPERM`.
pub fn set_link_up(name: &str, up: bool) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an ifreq is made of integers and of a union of such, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of the ifreq that is pointed to.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request)
    })?;
    // SAFETY: the call above has written this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let is_up = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { flags | is_up } else { flags & !is_up };
    // SAFETY: SIOCSIFFLAGS reads the name and the flags.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })?;
    Ok(())
}

/// Has the calling thread's network answer that a host is unreachable, by a route that says so
/// (`SIOCADDRT` with `RTF_REJECT`, `route(8)`): who connects to it gets `EHOSTUNREACH`.
///
/// # Errors
/// `EPERM`; `EEXIST` if there is such a route.
pub fn reject_route(host: Ipv4Addr) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an rtentry is made of integers, pointers that may be null, and addresses that are
    // made of integers: zeroes are a value.
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    let destination = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(host).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: a sockaddr_in is a sockaddr, of the same size and made of integers, whose family
    // says what it is (ip(7)).
    route.rt_dst = unsafe { mem::transmute::<libc::sockaddr_in, libc::sockaddr>(destination) };
    route.rt_flags = libc::RTF_UP | libc::RTF_HOST | libc::RTF_REJECT;
    // SAFETY: SIOCADDRT reads the rtentry that is pointed to; the device it might name is null.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &route) })?;
    Ok(())
}

/// Has a socket drop every packet that arrives for it, before TCP sees it, or no longer: a filter
/// that lets nothing pass (`SO_ATTACH_FILTER`, `socket(7)`). To the peer it looks as if the line
/// were cut. It stays in force after the socket was closed, for as long as the kernel still has
/// something to do for it.
///
/// It used to need no privilege. Some kernels (a 6.18 was seen to) want `CAP_NET_ADMIN` in the
/// socket's network for it if it is a TCP socket; after [`own_network`] there is that.
///
/// # Errors
/// Those of `setsockopt(2)`; `EPERM`; `ENOENT` if nothing was dropped before.
pub fn drop_incoming(fd: BorrowedFd<'_>, drop: bool) -> io::Result<()> {
    // "Let 0 bytes pass", in the language of bpf(4).
    let mut nothing =
        [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: nothing.as_mut_ptr() };
    let option = if drop { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    // SAFETY: the pointer and the length are those of the program, which the kernel copies; to
    // detach it takes no value, and does not look.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const filter).cast(),
            mem::size_of_val(&filter) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}
