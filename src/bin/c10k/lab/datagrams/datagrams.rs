//! A datagram is a message, and a socket that is not connected speaks with everyone.

use std::collections::HashSet;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};

use super::{PATIENCE_MS, bound, quietly_recv_from, quietly_send_to, readable, recv_from, send_to};
use crate::lab::kernel::{Protocol, sockets};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "datagrams",
    claim: "A datagram is a message: one recv each, and what does not fit is lost. There is no \
            connection: one socket serves all clients, and sending to nobody succeeds.",
    run,
};

const CLIENTS: usize = 10;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("Three sends of a client, one of them of nothing; then the server looks.");
    let (server, addr) = bound(lab, "server")?;
    let (client, _) = bound(lab, "client")?;
    for message in ["one", "", "three"] {
        send_to(lab, &client, message.as_bytes(), addr)?;
    }
    let mut messages = Vec::new();
    for _ in 0..3 {
        readable(&[&server], PATIENCE_MS)?;
        let (bytes, _) = recv_from(lab, &server, 64)?;
        messages.push(format!("{:?}", String::from_utf8_lossy(&bytes)));
    }
    lab.expect("three recvs", messages.join(" "), "\"one\" \"\" \"three\"".to_owned());

    lab.note(
        "A datagram longer than the buffer. With MSG_TRUNC, recv says how long it was, not how \
         much of it there is.",
    );
    send_to(lab, &client, b"abcdefghij", addr)?;
    readable(&[&server], PATIENCE_MS)?;
    let mut buffer = [0; 4];
    let length = socket::recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC);
    let call =
        format!("recv({}, \"{}\", 4, MSG_TRUNC)", lab.names.of(&server), buffer.escape_ascii());
    let length = lab.call(call, length)?;
    lab.expect("length of the datagram, in a buffer of 4", length, 10);
    let rest = recv_from(lab, &server, 64);
    lab.expect_errno("the rest of it", &rest, Some(Errno::EAGAIN));

    lab.note("Nobody has this port any more. A datagram to it is sent all the same.");
    let (gone, nobody) = bound(lab, "gone")?;
    lab.close(gone);
    let sent = send_to(lab, &client, b"anyone?", nobody);
    lab.expect_errno("sendto nobody", &sent, None);
    let again = send_to(lab, &client, b"anyone?", nobody);
    lab.expect_errno("and again", &again, None);

    lab.note(
        "The refusal (ICMP) came back, but which of its sends was it to blame? A connected socket \
         has only one destination, and so learns of it: at its next call, once.",
    );
    let (connected, _) = bound(lab, "connected")?;
    lab.connect(&connected, nobody)?;
    let first = lab.send(&connected, b"anyone?");
    lab.expect_errno("the first send", &first, None);
    readable(&[&connected], PATIENCE_MS)?;
    let second = lab.send(&connected, b"anyone?");
    lab.expect_errno("the second send", &second, Some(Errno::ECONNREFUSED));
    let third = lab.send(&connected, b"anyone?");
    lab.expect_errno("the third send", &third, None);

    lab.note("Ten clients, and the server's one socket: it sees who wrote, and answers.");
    let mut clients = Vec::new();
    for i in 0..CLIENTS {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let client = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        quietly_send_to(&client, format!("client {i}").as_bytes(), addr)?;
        clients.push(client);
    }
    let call = format!("socket(AF_INET, SOCK_DGRAM), sendto({addr})");
    lab.called(call, format!("x {CLIENTS}"));
    let mut sources = HashSet::new();
    for _ in 0..CLIENTS {
        readable(&[&server], PATIENCE_MS)?;
        let (request, source) = quietly_recv_from(&server, 64)?;
        quietly_send_to(&server, &request, source)?;
        sources.insert(source);
    }
    let call = format!("recvfrom({0}, 64), sendto({0})", lab.names.of(&server));
    lab.called(call, format!("x {CLIENTS}"));
    lab.expect("senders that it saw", sources.len(), CLIENTS);
    let mut own = 0;
    for (i, client) in clients.iter().enumerate() {
        readable(&[client], PATIENCE_MS)?;
        let (reply, _) = quietly_recv_from(client, 64)?;
        own += usize::from(reply == format!("client {i}").as_bytes());
    }
    lab.expect("clients that got the answer to their own", own, CLIENTS);
    let servers = sockets(Protocol::Udp, &[addr.port()])?;
    lab.show_sockets("the sockets of the server's port (sock_diag)", &servers);
    lab.expect("sockets of the server", servers.len(), 1);
    Ok(())
}
