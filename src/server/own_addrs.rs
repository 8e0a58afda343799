//! Which senders of datagrams are the server itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;

use super::datagrams::Bound;
use crate::{Addr, sys};

/// The addresses that a datagram may not come from: the server's own. A reply to one would be a
/// request, and so on without end, as fast as the machine can (RFC 862 has no word on that, and
/// source addresses can be spoofed).
#[derive(Debug)]
pub(crate) struct OwnAddrs {
    bound: Vec<SocketAddr>,
    machine: Machine,
}

/// How to tell whether an address is this machine's. It matters where a socket is bound to all of
/// them, and for datagrams from the server's own port number only.
#[derive(Debug)]
enum Machine {
    /// By an attempt to bind a socket to it, which fails with `EADDRNOTAVAIL` if it is not.
    Bind(Probes),
    /// The kernel binds a socket to any address (`net.ipv4.ip_nonlocal_bind`, `ip(7)`): these are
    /// those that its interfaces had at the start.
    Listed(Vec<IpAddr>),
    /// Nor does it list them: any address may be.
    Unknown,
}

impl OwnAddrs {
    pub(crate) fn of(sockets: &[Bound]) -> OwnAddrs {
        let bound: Vec<_> = sockets.iter().map(Bound::socket_addr).collect();
        // Of no machine: they are for documentation (RFC 5737, RFC 3849).
        let nowhere = |own: &SocketAddr| match own {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        let is_fooled = |own: &SocketAddr| can_bind(SocketAddr::new(nowhere(own), 0));
        let machine = match bound.iter().filter(|own| own.ip().is_unspecified()).any(is_fooled) {
            false => Machine::Bind(Probes::default()),
            true => listed().map_or_else(unknown, Machine::Listed),
        };
        OwnAddrs { bound, machine }
    }

    pub(crate) fn contains(&mut self, from: SocketAddr) -> bool {
        let OwnAddrs { bound, machine } = self;
        bound.iter().any(|own| {
            own.port() == from.port()
                && own.is_ipv4() == from.is_ipv4()
                && (own.ip() == from.ip() || own.ip().is_unspecified() && machine.has(from))
        })
    }
}

impl Machine {
    fn has(&mut self, from: SocketAddr) -> bool {
        match self {
            _ if from.ip().is_loopback() => true,
            Machine::Bind(probes) => probes.can_bind(from),
            // The scope of a link-local address is not a part of it.
            Machine::Listed(addrs) => addrs.contains(&from.ip()),
            Machine::Unknown => true,
        }
    }
}

/// The addresses of all interfaces, by `netlink(7)`.
fn listed() -> io::Result<Vec<IpAddr>> {
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        v4.or(address.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
    };
    Ok(getifaddrs()?.filter_map(|interface| ip(interface.address?)).collect())
}

fn unknown(error: io::Error) -> Machine {
    log::warn!(
        "no datagram from the server's own port number is served: net.ipv4.ip_nonlocal_bind is on, \
         and the addresses of this machine cannot be listed (netlink): {error}"
    );
    Machine::Unknown
}

/// Whether a socket can be bound to an address. If that fails for any reason but that the address
/// is not this machine's, it may be: better to refuse a stranger than to answer oneself.
fn can_bind(addr: SocketAddr) -> bool {
    match sys::bind_datagram(&Addr::Udp(addr), false) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// What was found of the addresses that were last asked for: a bind takes a few system calls, and
/// a peer that happens to use the server's port number is to cost them once a second.
///
/// An address has one place in the table, and pushes out whichever had that before.
#[derive(Debug)]
struct Probes(Box<[Option<Probe>; Probes::LEN]>);

#[derive(Debug, Clone, Copy)]
struct Probe {
    /// With port 0, and the scope of a link-local one.
    addr: SocketAddr,
    can_bind: bool,
    at: Instant,
}

impl Probes {
    const LEN: usize = 64;
    /// Addresses come and go.
    const AGE_MAX: Duration = Duration::from_secs(1);

    fn can_bind(&mut self, from: SocketAddr) -> bool {
        let mut addr = from;
        addr.set_port(0);
        let now = Instant::now();
        let place = &mut self.0[place(addr.ip())];
        let known = place.filter(|it| it.addr == addr && now - it.at < Probes::AGE_MAX);
        let probe = known.unwrap_or_else(|| Probe { addr, can_bind: can_bind(addr), at: now });
        *place = Some(probe);
        probe.can_bind
    }
}

impl Default for Probes {
    fn default() -> Self {
        Probes(Box::new([None; Probes::LEN]))
    }
}

fn place(ip: IpAddr) -> usize {
    let number = match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => u128::from(ip),
    };
    // The last byte is what tells neighbours apart.
    (number % Probes::LEN as u128) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listener::Share;

    fn bound_at(addr: &str) -> OwnAddrs {
        let addr = Addr::Udp(addr.parse().unwrap());
        OwnAddrs::of(&[Bound::open(&addr, false, Share::Nobody).unwrap()])
    }

    #[test]
    fn own_is_what_can_be_bound_and_has_the_port() {
        let mut own = bound_at("0.0.0.0:0");
        let port = own.bound[0].port();
        let of = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        for _ in 0..3 {
            assert!(own.contains(of([127, 0, 0, 1], port)));
            assert!(own.contains(of([127, 99, 0, 1], port)), "all of 127.0.0.0/8");
            assert!(!own.contains(of([127, 0, 0, 1], port ^ 1)));
            assert!(!own.contains(of([192, 0, 2, 1], port)));
            // The same place in the table.
            assert!(!own.contains(of([192, 0, 2, 65], port)));
        }
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        assert!(!own.contains(v6), "it receives none of IPv6");
        for ip in listed().unwrap_or_default() {
            assert!(!ip.is_ipv4() || own.contains(SocketAddr::new(ip, port)), "{ip}");
        }
    }

    #[test]
    fn one_address_is_itself_and_no_other() {
        let mut own = bound_at("127.0.0.1:0");
        let itself = own.bound[0];
        assert!(own.contains(itself));
        assert!(!own.contains(SocketAddr::from(([127, 0, 0, 2], itself.port()))));
    }

    #[test]
    fn where_any_address_can_be_bound_a_list_is_asked_and_without_it_all_are_refused() {
        let addr = SocketAddr::from(([0, 0, 0, 0], 7));
        let from = |ip: [u8; 4]| SocketAddr::from((ip, 7));
        let listed = Machine::Listed(vec![[10, 0, 0, 1].into()]);
        let mut own = OwnAddrs { bound: vec![addr], machine: listed };
        assert!(own.contains(from([10, 0, 0, 1])) && own.contains(from([127, 0, 0, 1])));
        assert!(!own.contains(from([10, 0, 0, 2])));
        own.machine = Machine::Unknown;
        assert!(own.contains(from([10, 0, 0, 2])));
    }
}
