//! How many processes one connection wakes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::epoll::EpollFlags;

use super::children::{Count, Workers, ask, listeners};
use crate::lab::calls::flags;
use crate::lab::kernel::needs_descriptors;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "thundering-herd",
    claim: "Of several processes that wait for one listener with epoll, each connection wakes \
            all, and one gets it; EPOLLEXCLUSIVE, and a listener for each (SO_REUSEPORT), wake one.",
    run,
};

const WORKERS: usize = 8;
const CONNECTIONS: u64 = 50;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(100)?;
    lab.note(format!(
        "{WORKERS} processes wait, each with an epoll instance of its own. A client connects when \
         all of them sleep, {CONNECTIONS} times. How often they were woken the kernel knows: \
         whoever is woken in vain goes back to sleep, also where epoll_wait does not even return.",
    ));
    let (listener, addr) = listeners(lab, 1)?;
    let woken = herd(lab, &listener, addr, EpollFlags::EPOLLIN)?;
    lab.expect_that(
        "with EPOLLIN, woken for each connection",
        per_connection(woken),
        "all, or nearly all",
        woken > CONNECTIONS * (WORKERS as u64 - 2),
    );

    lab.note("EPOLLEXCLUSIVE asks to be woken only if nobody else was (epoll_ctl(2)).");
    let exclusive = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    let woken = herd(lab, &listener, addr, exclusive)?;
    lab.expect_that(
        "with EPOLLEXCLUSIVE, woken for each connection",
        per_connection(woken),
        "one, now and then two",
        (CONNECTIONS..2 * CONNECTIONS).contains(&woken),
    );

    lab.note("SO_REUSEPORT: a listener, and so a queue, for each. Nobody else waits for it.");
    drop(listener);
    let (listeners, addr) = listeners(lab, WORKERS)?;
    let woken = herd(lab, &listeners, addr, EpollFlags::EPOLLIN)?;
    lab.expect_that(
        "with SO_REUSEPORT, woken for each connection",
        per_connection(woken),
        "one, now and then two",
        (CONNECTIONS..2 * CONNECTIONS).contains(&woken),
    );
    Ok(())
}

/// How often all workers together were woken.
fn herd(
    lab: &mut Lab,
    listeners: &[OwnedFd],
    addr: SocketAddr,
    events: EpollFlags,
) -> Result<u64, Trouble> {
    let workers = Workers::start(WORKERS, listeners, events)?;
    lab.called(
        format!("each of {WORKERS}: epoll_ctl(EPOLL_CTL_ADD, its listener, {})", flags(events)),
        "0".to_owned(),
    );
    let asleep = |workers: &Workers| -> Result<u64, Trouble> {
        workers.children.iter().map(|child| child.times_asleep()).sum()
    };
    let before = asleep(&workers)?;
    for _ in 0..CONNECTIONS {
        ask(addr)?;
        if !workers.wait_until_asleep()? {
            return Err(Trouble::Failed("a worker does not sleep".to_owned()));
        }
    }
    let woken = asleep(&workers)? - before;
    let sum = |count| workers.counts(count).iter().sum::<u64>();
    let (accepted, in_vain) = (sum(Count::Accepted), sum(Count::InVain));
    lab.kernel(
        &format!("of {CONNECTIONS} connections"),
        vec![
            format!("accepted                                {accepted:>5}"),
            format!("accept4 gave EAGAIN, for it was too late {in_vain:>4}"),
            format!("woken (voluntary_ctxt_switches)         {woken:>5}"),
        ],
    );
    Ok(woken)
}

fn per_connection(woken: u64) -> String {
    format!("{:.2} of {WORKERS}", woken as f64 / CONNECTIONS as f64)
}
