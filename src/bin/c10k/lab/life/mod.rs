//! The life and death of a connection.

mod close_states;
mod close_with_unread;
mod keepalive;
mod rdhup;
mod reset;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use c10k::sys;
use nix::sys::socket::{self, MsgFlags};

use super::kernel::{self, Protocol};
use super::record::Lab;
use super::{About, Trouble};

pub(super) const LABS: &[&About] = &[
    &close_states::ABOUT,
    &rdhup::ABOUT,
    &reset::ABOUT,
    &close_with_unread::ABOUT,
    &keepalive::ABOUT,
];

/// How long a state is waited for. It comes within a second: what is lost is sent again after
/// 200 ms at the earliest, then after 400 ms, and so on.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client and the server's end of it. Should what a lab claims not happen, neither waits for
/// ever.
fn pair(
    lab: &mut Lab,
    listener: &OwnedFd,
    client: &str,
    server: &str,
) -> Result<(OwnedFd, OwnedFd), Trouble> {
    let (client, server) = lab.pair(listener, client, server)?;
    impatient(&client)?;
    impatient(&server)?;
    Ok((client, server))
}

/// Bounds how long a call on this socket waits, to no more than has to be waited for a state.
fn impatient(fd: &OwnedFd) -> io::Result<()> {
    sys::set_io_timeout(fd.as_fd(), Some(PATIENCE))
}

/// The states of the ends of a connection, shown once they are what is awaited; if that does not
/// happen, as they are then. `gone` is what the kernel knows no more.
fn states(lab: &mut Lab, ends: [SocketAddr; 2], awaited: &str) -> Result<String, Trouble> {
    let [a, b] = ends;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut sockets = kernel::sockets(Protocol::Tcp, &[a.port()])?;
        sockets.retain(|s| [(a, b), (b, a)].contains(&(s.local, s.remote)));
        sockets.sort_by_key(|s| s.local != a);
        let state = |local| sockets.iter().find(|s| s.local == local).map_or("gone", |s| s.state);
        let seen = format!("{}, {}", state(a), state(b));
        if seen == awaited || Instant::now() >= deadline {
            lab.show_sockets("the two ends (sock_diag)", &sockets);
            return Ok(seen);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// `recv(2)` that waits until something has arrived, and leaves it there.
fn peek(lab: &mut Lab, fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    let result = socket::recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK);
    let call = format!("recv({}, {}, MSG_PEEK)", lab.names.of(fd), buffer.len());
    lab.call(call, result.map(|n| buffer[..n].to_vec()))
}
