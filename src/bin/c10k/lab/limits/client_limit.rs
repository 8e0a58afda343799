//! How many connections one client can have to one server.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::lab::kernel::{Protocol, in_state, needs_descriptors, sockets};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "client-limit",
    claim: "From one source address to one destination there are as many connections as the \
            ephemeral range has ports; a second source address, or a second destination port, \
            allows as many again.",
    run,
};

/// The range of ports, which is outside of that from which the servers get theirs.
const RANGE: (u16, u16) = (61_000, 61_015);
const PORTS: usize = (RANGE.1 - RANGE.0) as usize + 1;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(100)?;
    lab.note(format!(
        "A network of its own, in which two servers listen, and clients then have {PORTS} ports \
         to choose from instead of 28,232.",
    ));
    lab.own_network()?;
    let (_one, one) = lab.listener("one", 64)?;
    let (_two, two) = lab.listener("two", 64)?;
    lab.sysctl("net/ipv4/ip_local_port_range", &format!("{} {}", RANGE.0, RANGE.1))?;
    let mut held = Vec::new();

    lab.note("Connections to the first server, until there is no port left.");
    let last = fill(lab, None, one, &mut held)?;
    lab.expect("connections from one address to one destination", held.len(), PORTS);
    lab.expect_errno("and the next", &last, Some(Errno::EADDRNOTAVAIL));

    lab.note(
        "The same from a second source address. IP_BIND_ADDRESS_NO_PORT has bind leave the port to \
         connect, which knows the destination (ip(7)).",
    );
    let last = fill(lab, Some(Ipv4Addr::new(127, 0, 0, 2)), one, &mut held)?;
    lab.expect("connections from two addresses", held.len(), 2 * PORTS);
    lab.expect_errno("and the next", &last, Some(Errno::EADDRNOTAVAIL));

    lab.note("The first address again, now to another port of the server.");
    let last = fill(lab, None, two, &mut held)?;
    lab.expect("connections with a second destination port", held.len(), 3 * PORTS);
    lab.expect_errno("and the next", &last, Some(Errno::EADDRNOTAVAIL));

    lab.note("All of them are there at once, and share the ports.");
    let mut clients = sockets(Protocol::Tcp, &[one.port(), two.port()])?;
    clients.retain(|socket| (RANGE.0..=RANGE.1).contains(&socket.local.port()));
    let shown: Vec<_> =
        clients.iter().filter(|socket| socket.local.port() == RANGE.0).cloned().collect();
    lab.show_sockets(&format!("the clients' ends on port {} (sock_diag)", RANGE.0), &shown);
    lab.expect("connections established", in_state(&clients, "ESTAB"), 3 * PORTS);
    let ports: HashSet<_> = clients.iter().map(|socket| socket.local.port()).collect();
    lab.expect("different local ports", ports.len(), PORTS);
    Ok(())
}

/// Connects until it fails, and returns how.
fn fill(
    lab: &mut Lab,
    source: Option<Ipv4Addr>,
    to: SocketAddr,
    held: &mut Vec<OwnedFd>,
) -> Result<nix::Result<()>, Trouble> {
    let before = held.len();
    let mut last = Ok(());
    // Of the calls that are always the same, those for the first socket are shown.
    let first = lab.tcp("first")?;
    if let Some(source) = source {
        lab.set(&first, sockopt::IpBindAddressNoPort, &true, "IP_BIND_ADDRESS_NO_PORT, 1")?;
        lab.bind(&first, SocketAddr::from((source, 0)))?;
    }
    let mut next = Some(first);
    // One that does not fit, and one more in case it does.
    while last.is_ok() && held.len() - before < PORTS + 2 {
        let fd = next.take().map_or_else(|| tcp_from(source), Ok)?;
        last = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
        if last.is_ok() {
            held.push(fd);
        }
    }
    lab.called(format!("connect(..., {to}) x {}", held.len() - before), "0".to_owned());
    Ok(lab.call(format!("connect(..., {to})"), last))
}

fn tcp_from(source: Option<Ipv4Addr>) -> nix::Result<OwnedFd> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(source) = source {
        setsockopt(&fd, sockopt::IpBindAddressNoPort, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((source, 0))))?;
    }
    Ok(fd)
}
