//! Who is in a batch that is too small for all.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::epoll::EpollFlags;

use crate::lab::calls::ANY_PORT;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "batch-fairness",
    claim: "With more ready than a wait returns, level triggering rotates: of six, two at a time, \
            1 2, 3 4, 5 6, 1 2. A small batch starves nobody.",
    run,
};

/// How many events a wait returns.
const BATCH: usize = 2;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "Seven connections. Each of the first six has input, which nobody is going to read: they \
         stay ready. They are added in order.",
    );
    let listener = TcpListener::bind(ANY_PORT)?;
    let mut pairs = Vec::new();
    for _ in 0..7 {
        let client = TcpStream::connect(listener.local_addr()?)?;
        pairs.push((client, listener.accept()?.0));
    }
    lab.called("socket(...), connect(...), accept4(...)".to_owned(), "7 times".to_owned());
    let epoll = lab.epoll("epoll")?;
    for (number, (client, server)) in (1..).zip(&mut pairs) {
        if number <= 6 {
            becomes_ready(client, server)?;
        }
        lab.name(&*server, &number.to_string());
        lab.epoll_add(&epoll, &*server, EpollFlags::EPOLLIN, number)?;
    }

    lab.note("Who has been told of goes to the end of the ready list, if it is still ready.");
    let wait = |lab: &mut Lab| -> Result<String, Trouble> {
        let events = lab.epoll_wait(&epoll, BATCH, 0)?;
        let numbers: Vec<_> = events.iter().map(|(_, data)| data.to_string()).collect();
        Ok(numbers.join(" "))
    };
    let mut rounds = Vec::new();
    for _ in 0..4 {
        rounds.push(wait(lab)?);
    }
    lab.expect("who is told of", rounds.join(", ").as_str(), "1 2, 3 4, 5 6, 1 2");

    lab.note(
        "So does who becomes ready only now: it has to wait for all who were before it, and for \
         no one twice.",
    );
    let (client, server) = &mut pairs[6];
    becomes_ready(client, server)?;
    lab.called("send(...)".to_owned(), "1, to the seventh".to_owned());
    let mut rounds = Vec::new();
    for _ in 0..4 {
        rounds.push(wait(lab)?);
    }
    lab.expect("who is told of, with a seventh", rounds.join(", ").as_str(), "3 4, 5 6, 1 2, 7 3");
    Ok(())
}

/// Sends one byte, and waits until it has arrived.
fn becomes_ready(client: &mut TcpStream, server: &TcpStream) -> io::Result<usize> {
    client.write_all(b"x")?;
    server.peek(&mut [0])
}
