//! The handshake is the kernel's.

use nix::sys::socket::SockFlag;

use crate::lab::kernel::{Protocol, queued, sockets, until};
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

    lab.note(
        "Data can be sent, and is acknowledged: by the server's kernel, for it waits in a socket \
         that no process has.",
    );
    lab.send(&client, b"early")?;
    // The last ACK of the handshake and the data may still be on their way.
    until(|| {
        let now = sockets(Protocol::Tcp, &[addr.port()])?;
        Ok(now.iter().any(|s| s.recv_q == 5) && now.iter().all(|s| s.send_q != 5))
    })?;
    let sockets = lab.sockets(&[addr.port()])?;
    let of = |state: &str, at_server: bool| {
        let socket = sockets.iter().find(|s| s.state == state && (s.local == addr) == at_server);
        socket.map(|s| (s.recv_q, s.send_q))
    };
    let none = (u32::MAX, u32::MAX);
    let (waiting, most) = of("LISTEN", true).unwrap_or(none);
    lab.expect("connections in the accept queue (Recv-Q of the listener)", waiting, 1);
    lab.expect("as many as may wait, the backlog (its Send-Q)", most, 4);
    let (received, _) = of("ESTAB", true).unwrap_or(none);
    lab.expect("bytes in the socket that waits to be accepted", received, 5);
    let (_, unacknowledged) = of("ESTAB", false).unwrap_or(none);
    lab.expect("bytes that the client still has to keep (its Send-Q)", unacknowledged, 0);

    lab.note("accept only takes it out of the queue: there is nothing to wait for.");
    let server = lab.accept(&listener, SockFlag::SOCK_NONBLOCK, "accepted")?;
    let early = lab.recv(&server, 64)?;
    lab.expect("what was sent before accept", String::from_utf8_lossy(&early).as_ref(), "early");
    lab.sockets(&[addr.port()])?;
    lab.expect("connections in the queue after accept", queued(addr.port())?, 0);
    Ok(())
}
