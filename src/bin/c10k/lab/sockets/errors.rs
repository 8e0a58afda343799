//! The errors of bind and connect: each provoked, and what to do about it.

use std::net::{Ipv4Addr, SocketAddr};

use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::sockopt;

use crate::lab::calls::{ANY_PORT, errno};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "errors",
    claim: "The errors of bind and connect each say something else: nobody listens, nobody \
            answers, there is no way there, the address is taken, the address is not ours, or the \
            answer comes later, in SO_ERROR.",
    run,
};

// Addresses that are for documentation only (RFC 5737): nobody has them.
const NO_ROUTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REJECTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A network in which there is only the loopback interface.");
    lab.own_network()?;
    let (listener, addr) = lab.listener("listener", 8)?;

    lab.note(
        "EADDRINUSE: another socket has the address. For a server, as a rule: it runs already, or \
         its last run left connections in TIME-WAIT (then SO_REUSEADDR). Say so, and end.",
    );
    let socket = lab.tcp("second")?;
    let taken = lab.bind(&socket, addr);
    lab.expect_errno("bind to an address in use", &taken, Some(Errno::EADDRINUSE));

    lab.note(
        "EADDRNOTAVAIL at bind: no interface has the address. A mistake in the configuration. (At \
         connect: no port is left towards this destination.)",
    );
    let not_ours = lab.bind(&socket, SocketAddr::from((NO_ROUTE, 0)));
    lab.expect_errno("bind to a foreign address", &not_ours, Some(Errno::EADDRNOTAVAIL));

    lab.note(
        "ECONNREFUSED: the host answered, with RST: nobody listens on this port. The server is \
         down or restarts: try again, later each time.",
    );
    // Its port is nobody else's, and it does not listen.
    let closed = lab.bind(&socket, ANY_PORT)?;
    let client = lab.tcp("client")?;
    let refused = lab.connect(&client, closed);
    lab.expect_errno("connect to a port with no listener", &refused, Some(Errno::ECONNREFUSED));
    lab.close(client);

    lab.note(
        "EINPROGRESS: not an error, but a socket that does not block: the handshake has begun. \
         Wait until it is writable, then ask SO_ERROR. Reading it clears it.",
    );
    let epoll = lab.epoll("epoll")?;
    for (to, how, expected) in
        [(closed, "to nobody", Some(Errno::ECONNREFUSED)), (addr, "to a listener", None)]
    {
        let client = lab.tcp_nonblocking("client")?;
        let started = lab.connect(&client, to);
        let fact = format!("connect {how}, without blocking");
        lab.expect_errno(&fact, &started, Some(Errno::EINPROGRESS));
        lab.epoll_add(&epoll, &client, EpollFlags::EPOLLOUT, 0)?;
        lab.epoll_wait(&epoll, 1, 10_000)?;
        let ended = lab.socket_error(&client)?.map_or(Ok(()), Err);
        lab.expect_errno("how it ended", &ended, expected);
        if expected.is_some() {
            let again = lab.socket_error(&client)?.map_or(Ok(()), Err);
            lab.expect_errno("asked again", &again, None);
        }
        lab.close(client);
    }

    lab.note(
        "ETIMEDOUT: nobody answered; here, because what arrives at the listener is dropped. The \
         host is down, or a firewall is in between. The SYN is sent again after 1 s, 2 s, 4 s..., \
         for two minutes by default: set a shorter limit, and try again later, or another host.",
    );
    lab.drop_incoming(&listener, true)?;
    let client = lab.tcp("client")?;
    lab.set(&client, sockopt::TcpUserTimeout, &500, "TCP_USER_TIMEOUT, 500")?;
    let silent = lab.connect(&client, addr);
    lab.expect_errno("connect to a silent host", &silent, Some(Errno::ETIMEDOUT));

    lab.note(
        "ENETUNREACH: this host has no route there, not even a default one. EHOSTUNREACH: there \
         is a way, but a router on it says (by ICMP) that it ends there, the neighbour does not \
         answer, or, as here, a route says so. Try another address of the name (IPv4 after IPv6, \
         say), or later.",
    );
    let client = lab.tcp("client")?;
    let no_route = lab.connect(&client, SocketAddr::from((NO_ROUTE, 80)));
    lab.expect_errno("connect without a route", &no_route, Some(Errno::ENETUNREACH));
    let call = format!("ioctl(SIOCADDRT, {{{REJECTED}, RTF_HOST|RTF_REJECT}})");
    lab.call(call, sys::reject_route(REJECTED).map_err(|error| errno(&error)))?;
    let rejected = lab.connect(&client, SocketAddr::from((REJECTED, 80)));
    lab.expect_errno("connect to a rejected host", &rejected, Some(Errno::EHOSTUNREACH));
    Ok(())
}
