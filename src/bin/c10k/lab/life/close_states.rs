//! The four-way close, state by state.

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, sockopt};

use super::{pair, states};
use crate::lab::calls::{ANY_PORT, local};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "close-states",
    claim: "Each side closes its own direction with a FIN that the other acknowledges: FIN-WAIT-1, \
            FIN-WAIT-2 and TIME-WAIT at the side that closes first, CLOSE-WAIT and LAST-ACK at the \
            other, which can still send until it closes too. TIME-WAIT stays, and blocks a bind \
            without SO_REUSEADDR.",
    run,
};

/// What is read off at each step.
const BOTH: &str = "server's end, client's end";

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "A connection, in a network of its own: there the lab may have packets dropped. The server, \
         which has SO_REUSEADDR, will close first.",
    );
    lab.own_network()?;
    let listener = lab.tcp("listener")?;
    lab.set(&listener, sockopt::ReuseAddr, &true, "SO_REUSEADDR, 1")?;
    let addr = lab.bind(&listener, ANY_PORT)?;
    lab.listen(&listener, 4)?;
    let (client, server) = pair(lab, &listener, "client", "server")?;
    let ends = [addr, local(&client)?];

    lab.note(
        "It sends its FIN. The answer is an ACK: it is dropped before it reaches the server, or \
         the server's state would be over too soon to be seen.",
    );
    lab.drop_incoming(&server, true)?;
    lab.shutdown(&server, Shutdown::Write)?;
    let end = lab.recv(&client, 64)?;
    lab.expect("bytes the client receives: the end of the stream", end.len(), 0);
    let waits = "FIN-WAIT-1, CLOSE-WAIT";
    let seen = states(lab, ends, waits)?;
    lab.expect(BOTH, seen.as_str(), waits);

    lab.note(
        "The line is mended. The connection is half closed: the client can still send, and \
         what it sends acknowledges the FIN, too.",
    );
    lab.drop_incoming(&server, false)?;
    lab.send(&client, b"not done yet")?;
    let late = lab.recv(&server, 64)?;
    lab.expect(
        "received after the server's FIN",
        String::from_utf8_lossy(&late).as_ref(),
        "not done yet",
    );
    let waits = "FIN-WAIT-2, CLOSE-WAIT";
    let seen = states(lab, ends, waits)?;
    lab.expect(BOTH, seen.as_str(), waits);

    lab.note("Now the client sends its FIN, and this time its ACK is dropped.");
    lab.drop_incoming(&client, true)?;
    lab.shutdown(&client, Shutdown::Write)?;
    let waits = "TIME-WAIT, LAST-ACK";
    let seen = states(lab, ends, waits)?;
    lab.expect(BOTH, seen.as_str(), waits);

    lab.note(
        "The line is mended. The client hears nothing, sends its FIN again after 200 ms or more, \
         and the socket in TIME-WAIT is there to acknowledge it. That is one of its two uses.",
    );
    lab.drop_incoming(&client, false)?;
    let waits = "TIME-WAIT, gone";
    let seen = states(lab, ends, waits)?;
    lab.expect(BOTH, seen.as_str(), waits);

    lab.note(
        "Everything is closed, the listener too. TIME-WAIT stays for 60 s, with the side that \
         closed first: a server that is started again is refused its port, unless it has \
         SO_REUSEADDR, as the sockets before it had.",
    );
    lab.close(client);
    lab.close(server);
    lab.close(listener);
    let again = lab.tcp("again")?;
    let refused = lab.bind(&again, addr);
    lab.expect_errno("bind to the port that has a TIME-WAIT", &refused, Some(Errno::EADDRINUSE));
    lab.set(&again, sockopt::ReuseAddr, &true, "SO_REUSEADDR, 1")?;
    let bound = lab.bind(&again, addr);
    lab.expect_errno("bind with SO_REUSEADDR", &bound, None);
    lab.listen(&again, 4)?;
    let waits = "TIME-WAIT, gone";
    let seen = states(lab, ends, waits)?;
    lab.expect("and the TIME-WAIT is still there", seen.as_str(), waits);
    Ok(())
}
