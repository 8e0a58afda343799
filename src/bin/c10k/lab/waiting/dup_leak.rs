//! What epoll watches is not the descriptor.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollFlags, EpollOp};

use crate::lab::calls::errno;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "dup-leak",
    claim: "epoll watches the open file description, not the descriptor: while a duplicate is \
            open, closing the descriptor leaves it registered, and events come for a number that \
            is closed.",
    run,
};

const IN: EpollFlags = EpollFlags::EPOLLIN;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "A connection with input that nobody reads, watched; its data is the descriptor's number, \
         as is usual.",
    );
    let (listener, _) = lab.listener("listener", 4)?;
    let (client, server) = lab.pair(&listener, "client", "server")?;
    lab.send(&client, b"x")?;
    lab.peek(&server, 1)?;
    let epoll = lab.epoll("epoll")?;
    let number = server.as_raw_fd();
    lab.epoll_add(&epoll, &server, IN, number as u64)?;

    lab.note(
        "Something has made a duplicate: dup(2), fork(2), or a message over a unix socket. Now \
         the connection is closed as far as its owner can see.",
    );
    let copy = duplicate(lab, &server, "copy")?;
    lab.close(server);
    let watched = lab.show_watched(&epoll.0)?;
    lab.expect("still watched", watched.len(), 1);
    let events = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("events after the close", events.len(), 1);
    let of = events.first().map_or(0, |(_, data)| *data);
    lab.expect("number that the event is about", of, number as u64);
    let again = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("and again at each wait", again.len(), 1);

    lab.note(
        "It cannot be taken off the list: the kernel knows it by the description together with \
         the number, and the one number is closed, the other was never added.",
    );
    let by_number = delete(lab, &epoll, number);
    lab.expect_errno("to delete it by its number", &by_number, Some(Errno::EBADF));
    let by_copy = lab.epoll_delete(&epoll, &copy);
    lab.expect_errno("to delete it by the duplicate", &by_copy, Some(Errno::ENOENT));

    lab.note(
        "The ways out: give it its number back (a new descriptor has the lowest number that is \
         free), or close every duplicate.",
    );
    let back = duplicate(lab, &copy, "back")?;
    lab.expect("the number of one more duplicate", back.as_raw_fd(), number);
    let by_number = lab.epoll_delete(&epoll, &back);
    lab.expect_errno("to delete it by its number now", &by_number, None);

    lab.epoll_add(&epoll, &back, IN, number as u64)?;
    lab.close(back);
    lab.close(copy);
    let watched = lab.show_watched(&epoll.0)?;
    lab.expect("watched when the last duplicate is closed", watched.len(), 0);
    let events = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("events then", events.len(), 0);
    Ok(())
}

/// A descriptor for the same open file description, as `dup(2)` makes one.
fn duplicate(lab: &mut Lab, fd: &OwnedFd, name: &str) -> nix::Result<OwnedFd> {
    let result = fd.try_clone().map_err(|error| errno(&error));
    if let Ok(copy) = &result {
        lab.name(copy, name);
    }
    lab.call(format!("fcntl({}, F_DUPFD_CLOEXEC, 3)", lab.names.of(fd)), result)
}

/// Deletes by a number of which there is no descriptor, which the safe types would not do.
#[expect(deprecated, reason = "only the old interface takes a number")]
fn delete(lab: &mut Lab, epoll: &Epoll, number: RawFd) -> nix::Result<()> {
    let result =
        nix::sys::epoll::epoll_ctl(epoll.0.as_raw_fd(), EpollOp::EpollCtlDel, number, None);
    lab.call(format!("epoll_ctl({}, EPOLL_CTL_DEL, {number})", lab.names.of(&epoll.0)), result)
}
