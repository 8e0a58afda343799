//! What `select(2)` cannot hold, and what each way to wait has to copy.

use std::fs;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use c10k::poller::{Interest, Poller, Select, Token};
use c10k::sys::{self, FD_SETSIZE, FdSet};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::lab::kernel::needs_descriptors;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "select-limit",
    claim: "An fd_set has no place for descriptor 1024, and poll has no such bound; both copy the \
            whole list at each call, in and out, and epoll_wait only what is ready.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(FD_SETSIZE as u64 + 16)?;
    lab.note(
        "One socket with something to read, and many descriptors with nothing. To see what each \
         call writes, what it may write to is filled with a pattern before.",
    );
    let (ready, peer) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    lab.name(&ready, "ready");
    lab.name(&peer, "quiet");
    let pair = format!("{}, {}", lab.names.of(&ready), lab.names.of(&peer));
    lab.called("socketpair(AF_UNIX, SOCK_STREAM)".to_owned(), pair);
    lab.send(&peer, b"!")?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&ready, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let mut quiet: Vec<OwnedFd> = Vec::new();
    let mut table = vec![format!(
        "{:>7}  {:>7}  {:>15}  {:>15}  {:>17}",
        "WATCHED", "HIGHEST", "SELECT IN, OUT", "POLL IN, OUT", "EPOLL_WAIT IN, OUT"
    )];
    let (mut by_select, mut by_poll, mut by_epoll) = (Vec::new(), Vec::new(), Vec::new());
    for watched in [10, 100, 1000] {
        while quiet.len() + 1 < watched {
            let fd = peer.try_clone()?;
            epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            quiet.push(fd);
        }
        let mut fds: Vec<_> = quiet.iter().map(|fd| fd.as_raw_fd()).collect();
        fds.push(ready.as_raw_fd());
        let highest = fds.iter().max().copied().unwrap_or_default();
        // Of each set the words up to that of the highest descriptor, of 64 bits each.
        let two_sets = 2 * 8 * (highest as usize / 64 + 1);
        let poll_in = watched * size_of::<libc::pollfd>();
        let (select, poll, wait) = (select(&fds, highest)?, poll(&fds)?, wait(&epoll)?);
        table.push(format!(
            "{watched:>7}  {highest:>7}  {two_sets:>8}, {select:>5}  {poll_in:>8}, {poll:>5}  \
             {:>10}, {wait:>6}",
            0
        ));
        by_select.push((select, two_sets));
        by_poll.push((poll, watched * size_of::<i16>()));
        by_epoll.push((wait, size_of::<libc::epoll_event>()));
    }
    lab.kernel("bytes that are handed in, and that were written, with one ready", table);
    let mut expect = |fact: &str, bytes: &[(usize, usize)]| {
        let list = |of: fn(&(usize, usize)) -> usize| {
            bytes.iter().map(|pair| of(pair).to_string()).collect::<Vec<_>>().join(", ")
        };
        lab.expect(fact, list(|pair| pair.0), list(|pair| pair.1));
    };
    expect("select writes back two sets, a bit for each number", &by_select);
    expect("poll writes two bytes, revents, for each that is watched", &by_poll);
    expect("epoll_wait writes one event, for the one that is ready", &by_epoll);
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.0.as_raw_fd()))?;
    let kept = fdinfo.lines().filter(|line| line.starts_with("tfd:")).count();
    lab.expect("descriptors in the list of epoll, which the kernel keeps", kept, 1000);

    lab.note("A few copies more of the descriptor that is ready, up to number 1024.");
    let mut copies = vec![ready.try_clone()?];
    while copies[copies.len() - 1].as_raw_fd() < FD_SETSIZE as RawFd {
        copies.push(copies[0].try_clone()?);
    }
    let last = &copies[copies.len() - 1];
    let fits = &copies[copies.len() - 2];
    lab.called(
        format!("dup({}) x {}", lab.names.of(&ready), copies.len()),
        format!("..., {}, {}", fits.as_raw_fd(), last.as_raw_fd()),
    );

    lab.called("sizeof(fd_set)".to_owned(), format!("{} bytes", size_of::<FdSet>()));
    let mut set = FdSet::new();
    set.insert(fits.as_raw_fd());
    let selected = sys::select(FD_SETSIZE, &mut set, &mut FdSet::new(), 0)?;
    lab.called("select(1024, {1023}, {}, NULL, 0)".to_owned(), selected.to_string());
    lab.expect("ready, of 1023 in a set, which is its last bit", selected, 1);
    lab.expect("bits in a set, of which the first is for 0", 8 * size_of::<FdSet>(), 1024);

    lab.note(
        "FD_SET(1024) would set a bit of whatever comes behind the set, and nothing would say so: \
         a program has to look first, as this crate's poller does. An array has a place for any.",
    );
    let refused = Select::new()?.add(last, Token(0), Interest::READ);
    let refused = refused.err().map_or("success".to_owned(), |error| error.to_string());
    lab.expect_that(
        "1024 given to the poller",
        &refused,
        "refused",
        refused.contains("below 1024"),
    );
    let mut one = [entry(last.as_raw_fd())];
    let polled = sys::poll(&mut one, 0)?;
    lab.called("poll([{1024, POLLIN}], 1, 0)".to_owned(), polled.to_string());
    lab.expect("ready, of 1024 in an array of poll", polled, 1);
    Ok(())
}

/// How many bytes of two sets `select` writes: the rest keeps its bits.
fn select(fds: &[RawFd], highest: RawFd) -> Result<usize, Trouble> {
    let (mut read, mut write) = (FdSet::new(), FdSet::new());
    fds.iter().for_each(|fd| read.insert(*fd));
    let limit = highest as usize + 1;
    for beyond in limit..FD_SETSIZE {
        read.insert(beyond as RawFd);
        write.insert(beyond as RawFd);
    }
    sys::select(limit, &mut read, &mut write, 0)?;
    let written = |set: &FdSet| {
        let kept = (limit..FD_SETSIZE).find(|bit| set.contains(*bit as RawFd));
        kept.unwrap_or(FD_SETSIZE).div_ceil(8)
    };
    Ok(written(&read) + written(&write))
}

/// A `revents` that the kernel never writes.
const PATTERN: i16 = 0x5a5a;

fn entry(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: PATTERN }
}

/// How many bytes of an array `poll` writes.
fn poll(fds: &[RawFd]) -> Result<usize, Trouble> {
    let mut entries: Vec<_> = fds.iter().map(|fd| entry(*fd)).collect();
    sys::poll(&mut entries, 0)?;
    let written = entries.iter().filter(|entry| entry.revents != PATTERN).count();
    Ok(written * size_of::<i16>())
}

/// How many bytes of an array of 1,000 events `epoll_wait` writes.
fn wait(epoll: &Epoll) -> Result<usize, Trouble> {
    let mut events = vec![EpollEvent::new(EpollFlags::empty(), u64::MAX); 1000];
    epoll.wait(&mut events, EpollTimeout::ZERO)?;
    let written = events.iter().filter(|event| event.data() != u64::MAX).count();
    Ok(written * size_of::<libc::epoll_event>())
}
