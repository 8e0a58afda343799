//! Sockets and the four-tuple.

mod errors;
mod four_tuple;
mod framing;
mod nagle;
mod socket_queues;

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use c10k::sys;

use super::kernel::{self, Protocol, Socket};
use super::{About, Trouble};

pub(super) const LABS: &[&About] =
    &[&four_tuple::ABOUT, &socket_queues::ABOUT, &framing::ABOUT, &nagle::ABOUT, &errors::ABOUT];

/// How long the kernel may take for what it does by itself: sending again, mostly.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has a blocking socket wait no longer than that: a lab ends also where its claim is false.
fn with_patience(fd: &OwnedFd) -> Result<(), Trouble> {
    Ok(sys::set_io_timeout(fd.as_fd(), Some(PATIENCE))?)
}

/// Reads the two ends of the one connection to this port, the client's first, until they are as
/// they should become, or patience ends.
fn ends_once(
    port: u16,
    as_they_should: impl Fn(&Socket, &Socket) -> bool,
) -> Result<[Socket; 2], Trouble> {
    let start = Instant::now();
    loop {
        let sockets = kernel::sockets(Protocol::Tcp, &[port])?;
        let end = |is_it: fn(&Socket, u16) -> bool| {
            sockets.iter().find(|s| s.state == "ESTAB" && is_it(s, port)).cloned()
        };
        let client = end(|socket, port| socket.remote.port() == port);
        let server = end(|socket, port| socket.local.port() == port);
        let (Some(client), Some(server)) = (client, server) else {
            return Err(Trouble::Failed("the connection is not there".to_owned()));
        };
        if as_they_should(&client, &server) || start.elapsed() > PATIENCE {
            return Ok([client, server]);
        }
        thread::sleep(Duration::from_millis(1));
    }
}
