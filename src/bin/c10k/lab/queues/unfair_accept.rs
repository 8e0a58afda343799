//! Who gets the connections, of several workers.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::epoll::EpollFlags;
use nix::sys::signal::Signal;

use super::children::{Count, Workers, ask, client, listeners, readiness};
use crate::lab::kernel::{Protocol, needs_descriptors, queued, sockets, until};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "unfair-accept",
    claim: "Of workers that share a listener one takes most connections, for the kernel asks them \
            in a fixed order; with a listener each (SO_REUSEPORT) a hash spreads them evenly, and \
            those of a slow worker wait for it, whoever else is idle.",
    run,
};

const WORKERS: usize = 4;
const CONNECTIONS: u64 = 200;
/// Connections with one worker stopped.
const HELD_UP: usize = 100;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(300)?;
    lab.note(format!(
        "{WORKERS} processes wait for one listener with EPOLLEXCLUSIVE, so that only one is \
         woken: the first in the listener's list that waits. {CONNECTIONS} connections, each when \
         all wait again.",
    ));
    let (listener, addr) = listeners(lab, 1)?;
    let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    let workers = Workers::start(WORKERS, &listener, events)?;
    let shares = distribution(&workers, addr)?;
    let most = shares.iter().max().copied().unwrap_or_default();
    lab.expect_that(
        "shared listener: connections of each worker",
        list(&shares),
        "one has more than the others together",
        most > CONNECTIONS / 2,
    );

    lab.note("The busy one is stopped, as if one request kept it. The next in the list steps in.");
    let busy = shares.iter().position(|share| *share == most).unwrap_or_default();
    let (clients, served) = with_one_stopped(lab, &workers, busy, addr)?;
    lab.expect("shared listener, one worker stopped: clients answered", served, HELD_UP);
    drop((clients, workers, listener));

    lab.note(
        "A listener for each: the kernel chooses one by a hash of the four-tuple, when the \
         handshake begins, and does not ask whose worker is idle.",
    );
    let (listeners, addr) = listeners(lab, WORKERS)?;
    let workers = Workers::start(WORKERS, &listeners, EpollFlags::EPOLLIN)?;
    let shares = distribution(&workers, addr)?;
    let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
    lab.expect_that(
        "SO_REUSEPORT: connections of each worker",
        list(&shares),
        "none has less than a third or more than twice an equal share",
        least >= Some(CONNECTIONS / WORKERS as u64 / 3)
            && most <= Some(CONNECTIONS / WORKERS as u64 * 2),
    );

    lab.note("One is stopped. To its clients the server is there: the kernel connects them.");
    let (clients, served) = with_one_stopped(lab, &workers, 0, addr)?;
    let found = sockets(Protocol::Tcp, &[addr.port()])?;
    let found: Vec<_> = found.into_iter().filter(|socket| socket.state == "LISTEN").collect();
    lab.show_sockets("the listeners (sock_diag)", &found);
    let with_queue = found.iter().filter(|socket| socket.recv_q > 0).count();
    lab.expect("listeners with connections that wait", with_queue, 1);
    lab.expect_that(
        "SO_REUSEPORT, one worker stopped: clients answered",
        served,
        "not all, and the rest waits",
        served < HELD_UP && served + queued(addr.port())? as usize == HELD_UP,
    );
    let mut idle = 0;
    for child in &workers.children {
        idle += usize::from(child.state()? == 'S');
    }
    lab.expect("workers that sleep meanwhile", idle, WORKERS - 1);

    lab.note("They wait until it goes on.");
    workers.children[0].signal(Signal::SIGCONT)?;
    lab.called("kill(worker 1, SIGCONT)".to_owned(), "0".to_owned());
    until(|| Ok(answered(&clients)? == HELD_UP))?;
    lab.expect("clients answered in the end", answered(&clients)?, HELD_UP);
    Ok(())
}

/// How many connections each accepts if they come one at a time.
fn distribution(workers: &Workers, addr: SocketAddr) -> Result<Vec<u64>, Trouble> {
    for _ in 0..CONNECTIONS {
        ask(addr)?;
        workers.wait_until_asleep()?;
    }
    Ok(workers.counts(Count::Accepted))
}

/// Connects many clients while this worker is stopped, and returns them, and how many are answered
/// when nobody has anything left to do.
fn with_one_stopped(
    lab: &mut Lab,
    workers: &Workers,
    number: usize,
    addr: SocketAddr,
) -> Result<(Vec<OwnedFd>, usize), Trouble> {
    workers.children[number].signal(Signal::SIGSTOP)?;
    lab.called(format!("kill(worker {}, SIGSTOP)", number + 1), "0".to_owned());
    until(|| Ok(workers.children[number].state()? == 'T'))?;
    let clients = (0..HELD_UP).map(|_| client(addr)).collect::<Result<Vec<_>, _>>()?;
    lab.called(format!("connect(..., {addr}) x {HELD_UP}"), "0".to_owned());
    until(|| {
        let known = answered(&clients)? + queued(addr.port())? as usize;
        Ok(known == HELD_UP && workers.wait_until_asleep()?)
    })?;
    let served = answered(&clients)?;
    Ok((clients, served))
}

/// How many of these have something to read, and are still open.
fn answered(clients: &[OwnedFd]) -> Result<usize, Trouble> {
    Ok(readiness(clients)?.iter().filter(|events| **events == libc::POLLIN).count())
}

fn list(shares: &[u64]) -> String {
    shares.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
