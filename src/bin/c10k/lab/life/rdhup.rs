//! What epoll says of a connection that ends: the masks.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollFlags};
use nix::sys::socket::{Shutdown, sockopt};

use super::pair;
use crate::lab::calls::flags;
use crate::lab::kernel::PATIENCE;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "rdhup",
    claim: "The end of a connection has its masks: IN|RDHUP when the peer has closed its \
            direction, IN|RDHUP|HUP when both are closed, IN|OUT|ERR|HUP|RDHUP after a reset \
            (what came before can still be read, then ECONNRESET once, then 0). A socket never \
            connected is OUT|HUP at once.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    let everything = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP;

    lab.note("A fresh socket: asked for all there is, and not connected to anything.");
    let epoll = lab.epoll("epoll")?;
    let fresh = lab.tcp("fresh")?;
    lab.epoll_add(&epoll, &fresh, everything, 1)?;
    let mask = wait(lab, &epoll)?;
    lab.expect("never connected", mask.as_str(), "EPOLLOUT|EPOLLHUP");
    lab.close(fresh);

    lab.note(
        "A connection whose peer sends its FIN. (Interest in EPOLLOUT would add it each time.)",
    );
    let (listener, _) = lab.listener("listener", 4)?;
    let (ours, peer) = pair(lab, &listener, "ours", "peer")?;
    lab.epoll_add(&epoll, &ours, EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, 2)?;
    lab.shutdown(&peer, Shutdown::Write)?;
    let mask = wait(lab, &epoll)?;
    lab.expect("half closed, by the peer", mask.as_str(), "EPOLLIN|EPOLLRDHUP");
    let end = lab.recv(&ours, 64)?;
    lab.expect("bytes to receive: the end of the stream", end.len(), 0);
    let mask = wait(lab, &epoll)?;
    lab.expect("and again, as the end stays the end", mask.as_str(), "EPOLLIN|EPOLLRDHUP");
    lab.note("We close our direction too.");
    lab.shutdown(&ours, Shutdown::Write)?;
    let mask = wait(lab, &epoll)?;
    lab.expect("both closed", mask.as_str(), "EPOLLIN|EPOLLHUP|EPOLLRDHUP");
    lab.close(ours);
    lab.close(peer);

    lab.note(
        "A connection whose peer sends something and a reset. Nothing is asked for at first: ERR \
         and HUP are reported regardless.",
    );
    let (ours, peer) = pair(lab, &listener, "ours", "peer")?;
    lab.send(&peer, b"last words")?;
    abort(lab, peer)?;
    lab.epoll_add(&epoll, &ours, EpollFlags::empty(), 3)?;
    let mask = wait(lab, &epoll)?;
    lab.expect("reset, with no interest in anything", mask.as_str(), "EPOLLERR|EPOLLHUP");
    lab.epoll_modify(&epoll, &ours, everything, 3)?;
    let mask = wait(lab, &epoll)?;
    let all = "EPOLLIN|EPOLLOUT|EPOLLERR|EPOLLHUP|EPOLLRDHUP";
    lab.expect("reset, with all", mask.as_str(), all);

    lab.note("ERR does not mean that there is nothing to read.");
    let words = lab.recv(&ours, 64);
    let text = words.map(|words| String::from_utf8_lossy(&words).into_owned());
    lab.expect("received before the reset", text.unwrap_or_default().as_str(), "last words");
    let reset = lab.recv(&ours, 64);
    lab.expect_errno("then", &reset, Some(Errno::ECONNRESET));
    let end = lab.recv(&ours, 64)?;
    lab.expect("then bytes to receive, the error being taken", end.len(), 0);
    let mask = wait(lab, &epoll)?;
    lab.expect("the mask without the error", mask.as_str(), "EPOLLIN|EPOLLOUT|EPOLLHUP|EPOLLRDHUP");
    Ok(())
}

/// The mask of the one socket that is watched.
fn wait(lab: &mut Lab, epoll: &Epoll) -> nix::Result<String> {
    let events = lab.epoll_wait(epoll, 8, PATIENCE.as_millis() as i32)?;
    Ok(events.first().map_or("no event".to_owned(), |(mask, _)| flags(*mask)))
}

/// A close that sends a reset.
fn abort(lab: &mut Lab, fd: OwnedFd) -> nix::Result<()> {
    let none = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    lab.set(&fd, sockopt::Linger, &none, "SO_LINGER, {1, 0}")?;
    lab.close(fd);
    Ok(())
}
