//! A reset: what causes it, and what it does to the peer.

use std::os::fd::OwnedFd;

use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::Signal;
use nix::sys::socket::sockopt;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, write};

use super::{pair, peek, states};
use crate::lab::calls::{errno, flags, local};
use crate::lab::kernel::{PATIENCE, Protocol, forked, in_state, sockets};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::counter;

pub(super) const ABOUT: About = About {
    name: "reset",
    claim: "A close with unread data, or with SO_LINGER 0, sends RST instead of FIN: the peer gets \
            ECONNRESET, EPOLLERR|EPOLLHUP|EPOLLRDHUP, and then EPIPE and SIGPIPE for what it \
            writes; and nothing is left in TIME-WAIT.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("An orderly close, to compare: a FIN each, and TIME-WAIT at the side that was first.");
    let (listener, addr) = lab.listener("listener", 4)?;
    // A minute ago the port may have been that of somebody else's clients.
    let mut others = sockets(Protocol::Tcp, &[addr.port()])?;
    others.retain(|socket| socket.state == "TIME-WAIT");
    let (client, server) = pair(lab, &listener, "client", "server")?;
    let ends = [addr, local(&client)?];
    let overflows = counter("TcpExt:TCPTimeWaitOverflow")?;
    lab.close(server);
    lab.recv(&client, 64)?;
    lab.close(client);
    let seen = states(lab, ends, "TIME-WAIT, gone")?;
    if seen == "gone, gone" && counter("TcpExt:TCPTimeWaitOverflow")? > overflows {
        let why = "needs room for one more TIME-WAIT (net.ipv4.tcp_max_tw_buckets)".to_owned();
        return Err(Trouble::Skipped(why));
    }
    lab.expect("after an orderly close, server's end, client's", seen.as_str(), "TIME-WAIT, gone");

    lab.note("The server closes while data waits that it has not received.");
    let before = counter("TcpExt:TCPAbortOnClose")?;
    let (client, server) = pair(lab, &listener, "client", "server")?;
    lab.send(&client, b"unread")?;
    peek(lab, &server)?;
    lab.close(server);
    is_reset(lab, &client)?;
    let more = counter("TcpExt:TCPAbortOnClose")? - before;
    lab.expect_that("resets for unread data (TCPAbortOnClose)", more, "1 or more", more >= 1);

    lab.note("A write goes nowhere any more. With MSG_NOSIGNAL it is only an error.");
    let sent = lab.send(&client, b"hello?");
    lab.expect_errno("send to a connection that was reset", &sent, Some(Errno::EPIPE));
    lab.note(
        "Without it, it is a signal, of which a process dies. (Not a Rust program, which ignores \
         it, nor its children: so this one has the default restored.)",
    );
    let killed_by = child_that_writes(lab, &client)?;
    lab.expect("the child that wrote to it was killed by", killed_by.as_str(), "SIGPIPE");
    lab.close(client);

    lab.note("The same reset on purpose: a close that must not linger at all.");
    let (client, server) = pair(lab, &listener, "client", "server")?;
    let none = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    lab.set(&server, sockopt::Linger, &none, "SO_LINGER, {1, 0}")?;
    lab.close(server);
    is_reset(lab, &client)?;
    lab.close(client);

    let mut left = sockets(Protocol::Tcp, &[addr.port()])?;
    left.retain(|socket| !others.contains(socket));
    lab.show_sockets("the sockets (sock_diag)", &left);
    let waiting = in_state(&left, "TIME-WAIT");
    lab.expect("in TIME-WAIT, after one orderly close and two resets", waiting, 1);
    Ok(())
}

/// What the peer of a reset learns, and how.
fn is_reset(lab: &mut Lab, client: &OwnedFd) -> Result<(), Trouble> {
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, client, EpollFlags::EPOLLRDHUP, 1)?;
    let events = lab.epoll_wait(&epoll, 8, PATIENCE.as_millis() as i32)?;
    let mask = events.first().map_or("no event".to_owned(), |(mask, _)| flags(*mask));
    let received = lab.recv(client, 64);
    lab.expect("the mask", mask.as_str(), "EPOLLERR|EPOLLHUP|EPOLLRDHUP");
    lab.expect_errno("recv", &received, Some(Errno::ECONNRESET));
    Ok(())
}

/// How a child ends that writes to this socket as a C program would.
fn child_that_writes(lab: &mut Lab, fd: &OwnedFd) -> Result<String, Trouble> {
    let parent = std::process::id();
    let child = sys::fork(|| {
        let result = sys::end_with_parent(parent, Signal::SIGKILL as i32)
            .and_then(|()| sys::restore_signal(Signal::SIGPIPE as i32))
            .and_then(|()| Ok(write(fd, b"hello?")?));
        i32::from(result.is_err())
    });
    let child = lab.call("fork()", child.map(|pid| pid as usize).map_err(|error| errno(&error)));
    let child = forked(child.map(|pid| pid as u32).map_err(Into::into))?;
    let status = waitpid(Pid::from_raw(child as i32), None)?;
    let ended = match status {
        WaitStatus::Signaled(_, signal, _) => signal.as_str().to_owned(),
        status => format!("{status:?}"),
    };
    lab.called(format!("  (in it) write({}, \"hello?\", 6)", lab.names.of(fd)), "?".to_owned());
    lab.called(format!("waitpid({child})"), format!("{child} {{killed by {ended}}}"));
    Ok(ended)
}
