//! An event may be about a connection that is no longer there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use c10k::poller::{Interest, Readiness, Token};
use c10k::sys;
use c10k::{Handler, Reactor};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::SockFlag;

use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "stale-event",
    claim: "A connection that is closed while an earlier event of the same batch is handled still \
            has its own event delivered; if its slot was used again, only a generation tells the \
            two apart.",
    run,
};

/// What epoll hands back: `12` is slot 1, in its generation 2.
fn data(slot: u64, generation: u64) -> u64 {
    slot * 10 + generation
}

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "Connections a and b, each with a byte to be read. The data that epoll hands back is the \
         server's slot for it and how many connections have had the slot: 11 and 21. A third \
         client waits to be accepted.",
    );
    let (listener, addr) = lab.listener("listener", 4)?;
    let (a_client, a) = lab.pair(&listener, "a'", "a")?;
    let (b_client, b) = lab.pair(&listener, "b'", "b")?;
    let third = lab.tcp("c'")?;
    lab.connect(&third, addr)?;
    for (client, server) in [(&a_client, &a), (&b_client, &b)] {
        lab.send(client, b"x")?;
        lab.peek(server, 1)?;
    }
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, &a, EpollFlags::EPOLLIN, data(1, 1))?;
    lab.epoll_add(&epoll, &b, EpollFlags::EPOLLIN, data(2, 1))?;
    let mut slots = BTreeMap::from([(1, 1), (2, 1)]);
    let batch = lab.epoll_wait(&epoll, 8, 0)?;
    let batch: Vec<_> = batch.iter().map(|(_, data)| *data).collect();
    lab.expect("the batch", format!("{batch:?}").as_str(), "[11, 21]");

    lab.note(
        "The first event has the server close b (a said so, or b was the idlest), and then accept \
         the third. The descriptor's number and the slot are free, and so they are used again.",
    );
    lab.recv(&a, 64)?;
    let number = b.as_raw_fd();
    lab.close(b);
    let c = lab.accept(&listener, SockFlag::SOCK_NONBLOCK, "c")?;
    lab.epoll_add(&epoll, &c, EpollFlags::EPOLLIN, data(2, 2))?;
    slots.insert(2, 2);
    lab.expect("c has the descriptor that b had", c.as_raw_fd(), number);

    lab.note(
        "The second event is in the server's own memory: the kernel cannot take it back. It names \
         slot 2, in which c is now, and c has sent nothing. To read from a c that blocks would \
         hold up everybody; to take a hang-up for c's would close it.",
    );
    let stale = batch.last().copied().unwrap_or_default();
    let received = lab.recv(&c, 64);
    lab.expect_errno(
        "the slot's connection, read as the event says",
        &received,
        Some(Errno::EAGAIN),
    );
    let generations = format!("{} and {}", stale % 10, slots[&(stale / 10)]);
    lab.expect("generation of the event and of the slot", generations.as_str(), "1 and 2");
    let news = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("events that a new wait has of b or c", news.len(), 0);

    lab.note("This crate's reactor looks at the generation, and drops what is stale.");
    let turned = turn(lab, &listener)?;
    lab.expect("events reported by epoll", turned.0, 2);
    lab.expect("events dropped as stale", turned.1, 1);
    lab.expect("calls of the handler", turned.2, 1);
    Ok(())
}

/// The same again with a [`Reactor`]: how many events came, were stale, and were delivered.
fn turn(lab: &mut Lab, listener: &OwnedFd) -> Result<(u64, u64, usize), Trouble> {
    let (a_client, a) = lab.pair(listener, "a'", "a")?;
    let (b_client, b) = lab.pair(listener, "b'", "b")?;
    let (_c_client, c) = lab.pair(listener, "c'", "c")?;
    for (client, server) in [(&a_client, &a), (&b_client, &b)] {
        lab.send(client, b"x")?;
        lab.peek(server, 1)?;
    }
    let mut reactor = Reactor::new()?;
    let tokens = [reactor.add(a, Interest::READ)?, reactor.add(b, Interest::READ)?];
    let mut kicker = Kicker { tokens, newcomer: Some(c), calls: 0 };
    reactor.turn(&mut kicker, Some(Duration::ZERO))?;
    let counts = reactor.counts();
    lab.called("reactor.turn(...)".to_owned(), format!("{counts:?}"));
    Ok((counts.events, counts.stale, kicker.calls))
}

/// Closes all other connections when one is ready, and puts a new one in their place.
struct Kicker {
    tokens: [Token; 2],
    newcomer: Option<OwnedFd>,
    calls: usize,
}

impl Handler<OwnedFd> for Kicker {
    fn ready(&mut self, reactor: &mut Reactor<OwnedFd>, token: Token, _: Readiness) {
        self.calls += 1;
        if let Some(source) = reactor.source(token) {
            let _ = sys::recv(source.as_fd(), &mut [0; 64]);
        }
        for other in self.tokens.into_iter().filter(|&other| other != token) {
            reactor.close(other);
        }
        if let Some(newcomer) = self.newcomer.take() {
            let _ = reactor.add(newcomer, Interest::READ);
        }
    }
}
