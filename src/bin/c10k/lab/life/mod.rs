//! The life and death of a connection.

mod close_states;
mod close_with_unread;
mod keepalive;
mod rdhup;
mod reset;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags};

use super::kernel::{self, Protocol, until, with_patience};
use super::record::Lab;
use super::{About, Trouble};

pub(super) const LABS: &[&About] = &[
    &close_states::ABOUT,
    &rdhup::ABOUT,
    &reset::ABOUT,
    &close_with_unread::ABOUT,
    &keepalive::ABOUT,
];

/// A client and the server's end of it. Should what a lab claims not happen, neither waits for
/// ever.
fn pair(
    lab: &mut Lab,
    listener: &OwnedFd,
    client: &str,
    server: &str,
) -> Result<(OwnedFd, OwnedFd), Trouble> {
    let (client, server) = lab.pair(listener, client, server)?;
    with_patience(&client)?;
    with_patience(&server)?;
    Ok((client, server))
}

/// The states of the ends of a connection, shown once they are what is awaited; if that does not
/// happen, as they are then. `gone` is what the kernel knows no more.
fn states(lab: &mut Lab, ends: [SocketAddr; 2], awaited: &str) -> Result<String, Trouble> {
    let [a, b] = ends;
    let (mut sockets, mut seen) = (Vec::new(), String::new());
    until(|| {
        sockets = kernel::sockets(Protocol::Tcp, &[a.port()])?;
        sockets.retain(|s| [(a, b), (b, a)].contains(&(s.local, s.remote)));
        sockets.sort_by_key(|s| s.local != a);
        let state = |local| sockets.iter().find(|s| s.local == local).map_or("gone", |s| s.state);
        seen = format!("{}, {}", state(a), state(b));
        Ok(seen == awaited)
    })?;
    lab.show_sockets("the two ends (sock_diag)", &sockets);
    Ok(seen)
}

/// `recv(2)` that waits until something has arrived, and leaves it there.
fn peek(lab: &mut Lab, fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    let result = socket::recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK);
    let call = format!("recv({}, {}, MSG_PEEK)", lab.names.of(fd), buffer.len());
    lab.call(call, result.map(|n| buffer[..n].to_vec()))
}
