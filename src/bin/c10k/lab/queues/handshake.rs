//! The handshake is the kernel's.

use nix::sys::socket::SockFlag;

use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "handshake",
    claim: "connect returns before accept is called: the kernel does the handshake, and the \
            connection waits in the accept queue, established.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A server that listens, and does not accept.");
    let (listener, addr) = lab.listener("server", 4)?;
    let client = lab.tcp("client")?;
    let connected = lab.connect(&client, addr);
    lab.expect_errno("connect, with nobody in accept", &connected, None);

    lab.note("Data can be sent, and is acknowledged: it waits in a socket that no process has.");
    lab.send(&client, b"early")?;
    let sockets = lab.sockets(&[addr.port()])?;
    let of = |state: &str, local: bool| {
        sockets.iter().find(|s| s.state == state && (s.local == addr) == local)
    };
    let queue = of("LISTEN", true).map(|s| (s.recv_q, s.send_q)).unwrap_or_default();
    lab.expect("connections in the accept queue (Recv-Q of the listener)", queue.0, 1);
    lab.expect("as many as may wait, the backlog (its Send-Q)", queue.1, 4);
    let waiting = of("ESTAB", true).map(|s| s.recv_q).unwrap_or_default();
    lab.expect("bytes in the socket that waits to be accepted", waiting, 5);

    lab.note("accept only takes it out of the queue.");
    let server = lab.accept(&listener, SockFlag::empty(), "accepted")?;
    let early = lab.recv(&server, 64)?;
    lab.expect("what was sent before accept", String::from_utf8_lossy(&early).as_ref(), "early");
    let left = lab.sockets(&[addr.port()])?;
    let queued = left.iter().find(|s| s.state == "LISTEN").map_or(0, |s| s.recv_q);
    lab.expect("connections in the queue after accept", queued, 0);
    Ok(())
}
