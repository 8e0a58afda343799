//! Why one drains before one closes.

use std::os::fd::{AsFd, OwnedFd};

use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, SockFlag, sockopt};

use super::peek;
use crate::lab::calls::{errno, local};
use crate::lab::kernel::with_patience;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "close-with-unread",
    claim: "Closing with unread input destroys the reply just sent, as far as it has not arrived \
            yet; shutting down the sending side and receiving until the end first delivers it.",
    run,
};

const REPLY: usize = 60_000;

/// What the client asks, and what the server reads of it.
const REQUEST: &[u8] = b"GET / and a long body";
const READ: usize = 5;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "A client with little room to receive in, so that a reply is on its way for a while. The \
         server reads a part of the request, replies, and closes.",
    );
    let (listener, addr) = lab.listener("listener", 4)?;
    let (client, server) = asked(lab, &listener)?;
    replies(lab, &server)?;
    let ends = lab.sockets(&[addr.port()])?;
    let waiting = ends.iter().find(|s| s.local == addr && s.state == "ESTAB");
    let waiting = waiting.map_or(0, |s| s.send_q);
    let fact = "of the reply, still with the server (Send-Q)";
    lab.expect_that(fact, waiting, "1 or more", waiting > 0);
    lab.close(server);
    let (received, end) = all(lab, &client);
    let fact = format!("of {REPLY} bytes of the reply, the client receives");
    lab.expect_that(&fact, received, "fewer", received < REPLY);
    lab.expect_errno("and then", &end, Some(Errno::ECONNRESET));
    lab.close(client);

    lab.note(
        "The same, but the server only shuts down its sending side, and receives (and throws \
         away) whatever comes until the client closes too. (A server that anyone can talk to \
         does so for a limited time.)",
    );
    let (client, server) = asked(lab, &listener)?;
    replies(lab, &server)?;
    lab.shutdown(&server, Shutdown::Write)?;
    let (received, end) = all(lab, &client);
    lab.expect(&fact, received, REPLY);
    lab.expect_errno("and then the end of the stream", &end, None);
    lab.close(client);
    let (drained, end) = all(lab, &server);
    lab.expect("unread bytes that the server drains", drained, REQUEST.len() - READ);
    lab.expect_errno("until the end of the stream", &end, None);
    lab.close(server);
    Ok(())
}

/// A connection whose client has sent its request, of which the server has read a part.
fn asked(lab: &mut Lab, listener: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Trouble> {
    let client = lab.tcp("client")?;
    lab.set(&client, sockopt::RcvBuf, &4096, "SO_RCVBUF, 4096")?;
    lab.connect(&client, local(listener)?)?;
    let server = lab.accept(listener, SockFlag::empty(), "server")?;
    with_patience(&client)?;
    with_patience(&server)?;
    // The whole reply is sent by one call that does not wait for the client.
    lab.set(&server, sockopt::SndBuf, &(4 * REPLY), "SO_SNDBUF, 240000")?;
    lab.send(&client, REQUEST)?;
    lab.recv(&server, READ)?;
    peek(lab, &server)?;
    Ok((client, server))
}

fn replies(lab: &mut Lab, server: &OwnedFd) -> nix::Result<()> {
    lab.send(server, &[b'r'; REPLY]).map(|_| ())
}

/// Receives to the end: how many bytes, and what ended it.
fn all(lab: &mut Lab, fd: &OwnedFd) -> (usize, nix::Result<()>) {
    let mut buffer = [0; 4096];
    let (mut calls, mut bytes) = (0, 0);
    let end = loop {
        calls += 1;
        match sys::recv(fd.as_fd(), &mut buffer) {
            Ok(Recv::Data(n)) => bytes += n,
            Ok(Recv::Eof) => break Ok(()),
            Ok(Recv::WouldBlock) => break Err(Errno::EAGAIN),
            Err(error) => break Err(errno(&error)),
        }
    };
    let name = lab.names.of(fd);
    lab.called(
        format!("recv({name}, {}) x {}", buffer.len(), calls - 1),
        format!("{bytes} in all"),
    );
    let _ = lab.call(format!("recv({name}, {})", buffer.len()), end.map(|()| 0_usize));
    (bytes, end)
}
