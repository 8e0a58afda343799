//! What becomes of the connections in the queue of a listener that is closed.

use std::os::fd::{AsFd, OwnedFd};

use c10k::sys;
use nix::errno::Errno;

use super::children::{client, listeners, readiness};
use crate::lab::calls::errno;
use crate::lab::kernel::{Protocol, needs_descriptors, queued, sockets, until};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::counter;

pub(super) const ABOUT: About = About {
    name: "reuseport-close",
    claim: "Closing one of two SO_REUSEPORT listeners resets the connections that wait in its \
            queue; with net.ipv4.tcp_migrate_req=1 they move to the other one.",
    run,
};

/// So many that each of the two queues gets some, whatever the hash.
const CLIENTS: usize = 40;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(100)?;
    lab.note("A network of its own, in which a parameter can be changed for nobody else.");
    lab.own_network()?;

    lab.note("Two listeners on one port, and nobody accepts. A hash spreads the clients.");
    let Outcome { before, reset, queued, .. } = close_one_of_two(lab)?;
    lab.expect_that(
        "clients reset, all of which were connected",
        reset,
        "the length of one of the queues",
        before.contains(&reset) && reset > 0,
    );
    lab.expect("left, in the queue of the other", queued, CLIENTS - reset);

    lab.note("The same with the parameter set (since Linux 5.14).");
    lab.sysctl("net/ipv4/tcp_migrate_req", "1")?;
    let Outcome { before, reset, queued, left, _clients } = close_one_of_two(lab)?;
    lab.expect("clients reset", reset, 0);
    lab.expect("in the queue of the other, with those that moved", queued, CLIENTS);
    let moved = counter("TcpExt:TCPMigrateReqSuccess")? as usize;
    lab.expect_that(
        "moved (TCPMigrateReqSuccess)",
        moved,
        "the length of one of the queues",
        before.contains(&moved) && moved > 0,
    );
    let mut accepted = 0;
    while sys::accept(left.as_fd(), false)?.is_some() {
        accepted += 1;
    }
    lab.called("accept4(listener 1, 0), until EAGAIN".to_owned(), format!("{accepted} times"));
    lab.expect("connections that it accepts", accepted, CLIENTS);
    Ok(())
}

/// What was seen before a listener was closed, and after.
struct Outcome {
    /// The length of each queue.
    before: Vec<usize>,
    /// Clients whose connection was reset.
    reset: usize,
    /// The length of the queue of the listener that is left.
    queued: usize,
    left: OwnedFd,
    /// Still open: a connection that its client has reset leaves the queue.
    _clients: Vec<OwnedFd>,
}

fn close_one_of_two(lab: &mut Lab) -> Result<Outcome, Trouble> {
    let (mut both, addr) = listeners(lab, 2)?;
    let clients = (0..CLIENTS).map(|_| client(addr)).collect::<Result<Vec<_>, _>>()?;
    lab.called(format!("connect(..., {addr}) x {CLIENTS}"), "0".to_owned());
    // Of the last ones the handshake may still be under way at the server's end.
    until(|| Ok(queued(addr.port())? as usize == CLIENTS))?;
    let before = queues(lab, addr.port())?;

    let left = both.remove(0);
    lab.close(both.remove(0));
    let ready = || -> Result<usize, Trouble> {
        Ok(readiness(&clients)?.iter().filter(|events| **events != 0).count())
    };
    until(|| Ok(ready()? + queued(addr.port())? as usize == CLIENTS))?;
    let queued = queues(lab, addr.port())?.iter().sum();
    lab.called(format!("poll(the {CLIENTS} clients, POLLIN, 0)"), ready()?.to_string());
    let mut reset = 0;
    for (client, events) in clients.iter().zip(readiness(&clients)?) {
        if events != 0 {
            let result = sys::recv(client.as_fd(), &mut [0]).map_err(|error| errno(&error));
            reset += usize::from(result == Err(Errno::ECONNRESET));
        }
    }
    if reset > 0 {
        let result = "-1 ECONNRESET (Connection reset by peer)".to_owned();
        lab.called(format!("recv x {reset}"), result);
    }
    Ok(Outcome { before, reset, queued, left, _clients: clients })
}

/// Shows the listeners of a port, and returns how many connections wait at each.
fn queues(lab: &mut Lab, port: u16) -> Result<Vec<usize>, Trouble> {
    let mut found = sockets(Protocol::Tcp, &[port])?;
    found.retain(|socket| socket.state == "LISTEN");
    lab.show_sockets("the listeners (sock_diag)", &found);
    Ok(found.iter().map(|socket| socket.recv_q as usize).collect())
}
