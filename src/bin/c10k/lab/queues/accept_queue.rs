//! A full accept queue: the kernel no longer answers.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use crate::lab::calls::local;
use crate::lab::kernel::{queued, until};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::counter;

pub(super) const ABOUT: About = About {
    name: "accept-queue",
    claim: "The accept queue holds one connection more than the backlog; when it is full the \
            kernel drops each SYN without a word, and the client tries again after 1 s, then \
            2 s..., until it gives up with ETIMEDOUT.",
    run,
};

const BACKLOG: u32 = 4;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "A network of its own, so that the counters count nothing else, and clients that try \
         only once more (tcp_syn_retries is 6 otherwise, which takes two minutes), with the time \
         doubled from the first try on.",
    );
    lab.own_network()?;
    lab.sysctl("net/ipv4/tcp_syn_retries", "1")?;
    // Since Linux 6.5 the first tries may come at even intervals. Before, there is no such file.
    if fs::exists("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")? {
        lab.sysctl("net/ipv4/tcp_syn_linear_timeouts", "0")?;
    }

    lab.note("A server with a backlog of 4 that does not accept: how many can connect?");
    let (listener, addr) = lab.listener("server", BACKLOG as i32)?;
    let mut clients = Vec::new();
    for n in 1..=BACKLOG + 1 {
        let client = lab.tcp(&format!("client {n}"))?;
        lab.connect(&client, addr)?;
        clients.push(client);
    }
    // The last ACK of a handshake may still be on its way.
    until(|| Ok(queued(addr.port())? > BACKLOG))?;
    lab.expect("connections that fit listen(4)", queued(addr.port())?, BACKLOG + 1);
    lab.expect("SYNs dropped so far (ListenOverflows)", overflows()?, 0);

    lab.note(
        "One more. Its SYN is dropped, not refused: the queue may have room when it comes again.",
    );
    let last = lab.tcp_nonblocking("last")?;
    let start = Instant::now();
    let connected = lab.connect(&last, addr);
    lab.expect_errno("connect, which does not wait", &connected, Some(Errno::EINPROGRESS));
    until(|| Ok(overflows()? >= 1))?;
    lab.expect("SYNs dropped (ListenOverflows)", overflows()?, 1);
    let sockets = lab.sockets(&[local(&last)?.port()])?;
    let states: Vec<_> = sockets.iter().map(|socket| socket.state).collect();
    lab.expect("its sockets: the server's end has none", states.join(" "), "SYN-SENT".to_owned());

    lab.note("What it waits for is the time to try again: 1 s.");
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, &last, EpollFlags::EPOLLOUT, 1)?;
    until(|| Ok(overflows()? >= 2))?;
    let tried_again = start.elapsed();
    lab.expect("SYNs dropped (ListenOverflows)", overflows()?, 2);
    // A busy machine looks late, and never early.
    let so = tried_again >= Duration::from_millis(900);
    lab.expect_that("the second came after", seconds(tried_again), "1 s or more", so);

    lab.note("And the next time is 2 s later, when it gives up.");
    lab.epoll_wait(&epoll, 1, 10_000)?;
    let waited = start.elapsed();
    let so = waited >= Duration::from_millis(2_800);
    lab.expect_that("it ended after, in all", seconds(waited), "1 s and 2 s, or more", so);
    let error = lab.socket_error(&last)?;
    let shown = error.map_or("none".to_owned(), |errno| format!("{errno:?}"));
    lab.expect("its error", shown, "ETIMEDOUT".to_owned());
    lab.expect("connections in the queue, as before", queued(addr.port())?, BACKLOG + 1);
    lab.close(listener);
    Ok(())
}

/// SYNs that came to a full accept queue, as `nstat -az TcpExtListenOverflows` shows it.
fn overflows() -> Result<u64, Trouble> {
    Ok(counter("TcpExt:ListenOverflows")?)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
