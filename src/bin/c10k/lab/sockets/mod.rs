//! Sockets and the four-tuple.

mod errors;
mod four_tuple;
mod framing;
mod nagle;
mod socket_queues;

use super::kernel::{self, Protocol, Socket, until};
use super::{About, Trouble};

pub(super) const LABS: &[&About] =
    &[&four_tuple::ABOUT, &socket_queues::ABOUT, &framing::ABOUT, &nagle::ABOUT, &errors::ABOUT];

/// Reads the two ends of the one connection to this port, the client's first, until they are as
/// they should become, or patience ends.
fn ends_once(
    port: u16,
    as_they_should: impl Fn(&Socket, &Socket) -> bool,
) -> Result<[Socket; 2], Trouble> {
    let mut ends = None;
    until(|| {
        let sockets = kernel::sockets(Protocol::Tcp, &[port])?;
        let end = |is_it: fn(&Socket, u16) -> bool| {
            sockets.iter().find(|s| s.state == "ESTAB" && is_it(s, port)).cloned()
        };
        let client = end(|socket, port| socket.remote.port() == port);
        let server = end(|socket, port| socket.local.port() == port);
        ends = client.zip(server);
        let Some((client, server)) = &ends else {
            return Err(Trouble::Failed("the connection is not there".to_owned()));
        };
        Ok(as_they_should(client, server))
    })?;
    let (client, server) = ends.expect("it was an error if there are none");
    Ok([client, server])
}
