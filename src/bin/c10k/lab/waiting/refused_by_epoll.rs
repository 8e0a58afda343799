//! What cannot be watched.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use crate::lab::calls::{errno, flags};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "refused-by-epoll",
    claim: "epoll_ctl refuses a regular file (EPERM), instances that watch each other (ELOOP), \
            what is watched already (EEXIST), and EPOLLEXCLUSIVE with EPOLLRDHUP, or a \
            modification of it (EINVAL).",
    run,
};

const IN: EpollFlags = EpollFlags::EPOLLIN;
const EXCLUSIVE: EpollFlags = EpollFlags::EPOLLEXCLUSIVE;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    let epoll = lab.epoll("epoll")?;

    lab.note(
        "A regular file is always ready, also where a read has to wait for the disk; it has \
         nobody to tell of changes, and so epoll does not take it. poll says that it is ready.",
    );
    let file = File::open("/proc/self/exe")?;
    lab.name(&file, "file");
    lab.called("open(\"/proc/self/exe\", O_RDONLY)".to_owned(), lab.names.of(&file));
    let refused = lab.epoll_add(&epoll, &file, IN, 1);
    lab.expect_errno("a regular file", &refused, Some(Errno::EPERM));
    let mut polled = [libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    let ready = sys::poll(&mut polled, 0).map_err(|error| errno(&error));
    lab.call(format!("poll({{{}, POLLIN}}, 1, 0)", lab.names.of(&file)), ready)?;
    let revents = EpollFlags::from_bits_retain(polled[0].revents.into());
    lab.expect("what poll says of a regular file", flags(revents).as_str(), "EPOLLIN");

    lab.note(
        "An epoll instance is ready when something that it watches is, and can be watched \
         itself. Were two to watch each other, an event would go round for ever.",
    );
    let outer = lab.epoll("outer")?;
    lab.epoll_add(&outer, &epoll.0, IN, 1)?;
    let refused = lab.epoll_add(&epoll, &outer.0, IN, 1);
    lab.expect_errno("a cycle", &refused, Some(Errno::ELOOP));
    let refused = lab.epoll_add(&epoll, &epoll.0, IN, 1);
    lab.expect_errno("an instance in itself", &refused, Some(Errno::EINVAL));

    lab.note("To add twice is a mistake, also with another mask: that is EPOLL_CTL_MOD.");
    let (listener, _) = lab.listener("listener", 4)?;
    lab.epoll_add(&epoll, &listener, IN, 1)?;
    let refused = lab.epoll_add(&epoll, &listener, IN | EpollFlags::EPOLLOUT, 1);
    lab.expect_errno("a second EPOLL_CTL_ADD", &refused, Some(Errno::EEXIST));
    lab.epoll_delete(&epoll, &listener)?;
    let refused = lab.epoll_modify(&epoll, &listener, IN, 1);
    lab.expect_errno("EPOLL_CTL_MOD of what is not watched", &refused, Some(Errno::ENOENT));

    lab.note(
        "EPOLLEXCLUSIVE is for several instances that watch one listener: one of them is woken \
         for a connection. It goes with EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLWAKEUP and \
         EPOLLET, with nothing else, and only when added.",
    );
    let refused = lab.epoll_add(&epoll, &listener, IN | EpollFlags::EPOLLRDHUP | EXCLUSIVE, 1);
    lab.expect_errno("EPOLLEXCLUSIVE with EPOLLRDHUP", &refused, Some(Errno::EINVAL));
    let added = lab.epoll_add(&epoll, &listener, IN | EXCLUSIVE, 1);
    lab.expect_errno("EPOLLEXCLUSIVE with EPOLLIN", &added, None);
    let refused = lab.epoll_modify(&epoll, &listener, IN, 1);
    lab.expect_errno("a modification of it", &refused, Some(Errno::EINVAL));

    lab.note("What was refused has changed nothing.");
    let watched = lab.show_watched(epoll.0.as_fd())?;
    lab.expect("watched: the listener, once", watched.len(), 1);
    Ok(())
}
