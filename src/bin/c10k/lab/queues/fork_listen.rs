//! One listener, two processes that accept.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use c10k::Addr;
use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::children::Child;
use crate::lab::calls::{ANY_PORT, errno, local};
use crate::lab::kernel::{needs_descriptors, queued, until};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "fork-listen",
    claim: "A process that binds, forks and then listens has one accept queue in common with its \
            child: both accept from it, and each connection goes to exactly one of them.",
    run,
};

const MANY: u8 = 200;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(300)?;
    lab.note(
        "A socket that has an address and does not listen yet, and a child that inherits the \
         descriptor: it is the same socket (fork(2)).",
    );
    let server = lab.tcp_nonblocking("server")?;
    let addr = lab.bind(&server, ANY_PORT)?;
    // On which the child is told how many connections to take, and answers whose they were.
    let (ours, its) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    sys::set_io_timeout(ours.as_fd(), Some(Duration::from_secs(5)))?;
    let child = Child::start(|| obey(&server, &its))?;
    lab.called("fork()".to_owned(), child.pid().to_string());
    let early = lab.tcp("early")?;
    let refused = lab.connect(&early, addr);
    lab.expect_errno("connect, before anyone listens", &refused, Some(Errno::ECONNREFUSED));

    lab.note("Only the parent listens. That is a state of the socket, and so of the child's too.");
    lab.listen(&server, MANY.into())?;
    let mut clients = Vec::new();
    for n in 1..=4 {
        let client = lab.tcp(&format!("client {n}"))?;
        let connected = lab.connect(&client, addr);
        if n == 1 {
            lab.expect_errno("connect, when the parent listens", &connected, None);
        }
        connected?;
        clients.push((local(&client)?.port(), client));
        // Its place in the queue is that of the last ACK of the handshake, which may be late.
        until(|| Ok(queued(addr.port())? == n))?;
    }

    lab.note("They accept by turns: what one has taken is no longer there for the other.");
    let mut turns = Vec::new();
    for turn in 0..4 {
        let (who, ports) = match turn % 2 {
            0 => ("parent", take(&server, 1)?),
            _ => ("child", take_in_child(&ours, 1)?),
        };
        let of = |port| clients.iter().position(|client| client.0 == port).map_or(0, |n| n + 1);
        let taken: Vec<_> = ports.iter().map(|port| format!("client {}", of(*port))).collect();
        lab.called(format!("{who}: accept4({}, 0)", lab.names.of(&server)), taken.join(", "));
        turns.push(format!("{who} {}", taken.join(", ")));
    }
    let expected = "parent client 1, child client 2, parent client 3, child client 4".to_owned();
    lab.expect("who accepted which", turns.join(", "), expected);

    lab.note("And both at the same time, until the queue is empty.");
    for _ in 0..MANY {
        let client = sys::connect(&Addr::Tcp(addr), &sys::ConnectOptions::default())?.0;
        clients.push((local(&client)?.port(), client));
    }
    lab.called(format!("connect(..., {addr}) x {MANY}"), "0".to_owned());
    until(|| Ok(queued(addr.port())? == u32::from(MANY)))?;
    sys::send(ours.as_fd(), &[MANY])?;
    let by_parent = take(&server, MANY)?;
    let by_child = answer(&ours)?;
    for (who, taken) in [("parent", &by_parent), ("child", &by_child)] {
        let call = format!("{who}: accept4({}, 0), until EAGAIN", lab.names.of(&server));
        lab.called(call, format!("{} connections", taken.len()));
    }
    let both = by_parent.iter().chain(&by_child);
    lab.expect("accepted by both together", both.clone().count(), MANY.into());
    let different: HashSet<_> = both.collect();
    let of_clients = clients[4..].iter().filter(|(port, _)| different.contains(port)).count();
    lab.expect("connections among them, each counted once", of_clients, MANY.into());
    lab.expect("left in the queue", queued(addr.port())?, 0);
    Ok(())
}

/// In the child.
fn obey(server: &OwnedFd, its: &OwnedFd) -> nix::Result<()> {
    let mut most = [0];
    loop {
        sys::recv(its.as_fd(), &mut most).map_err(|error| errno(&error))?;
        let taken: Vec<u8> =
            take(server, most[0])?.into_iter().flat_map(u16::to_ne_bytes).collect();
        // A packet cannot be empty: that would be the end of the stream.
        sys::send(its.as_fd(), &[&most[..], &taken].concat()).map_err(|error| errno(&error))?;
    }
}

/// Has the child take this many, and returns the ports of their clients.
fn take_in_child(ours: &OwnedFd, most: u8) -> Result<Vec<u16>, Trouble> {
    sys::send(ours.as_fd(), &[most])?;
    answer(ours)
}

fn answer(ours: &OwnedFd) -> Result<Vec<u16>, Trouble> {
    let mut packet = [0; 1 + 2 * MANY as usize];
    match sys::recv(ours.as_fd(), &mut packet)? {
        Recv::Data(n) => {
            let ports = packet[1..n].chunks_exact(2);
            Ok(ports.map(|port| u16::from_ne_bytes([port[0], port[1]])).collect())
        }
        other => Err(Trouble::Failed(format!("the child does not answer: {other:?}"))),
    }
}

/// Accepts as many, if there are, and returns the ports of their clients.
fn take(server: &OwnedFd, most: u8) -> nix::Result<Vec<u16>> {
    let mut ports = Vec::new();
    while ports.len() < most.into()
        && let Some(fd) = sys::accept(server.as_fd(), false).map_err(|error| errno(&error))?
    {
        if let Ok(Addr::Tcp(peer)) = sys::peer_addr(&fd) {
            ports.push(peer.port());
        }
        // Ended by a reset, it leaves no TIME-WAIT.
        let _ = sys::set_linger(fd.as_fd(), Duration::ZERO);
        drop(fd);
        // On one CPU it is the other's turn.
        thread::yield_now();
    }
    Ok(ports)
}
