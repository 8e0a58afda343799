//! A connection is named by both its ends, not by its local port.

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, sockopt};

use crate::lab::calls::ANY_PORT;
use crate::lab::kernel::in_state;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "four-tuple",
    claim: "One client port can hold two connections at once if their remote ends differ: a \
            connection is the four-tuple of both addresses and both ports.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("Two servers, and a client that chooses its port itself.");
    let (north, north_addr) = lab.listener("north", 8)?;
    let (south, south_addr) = lab.listener("south", 8)?;
    let first = lab.tcp("first")?;
    let source = lab.bind(&first, ANY_PORT)?;
    lab.connect(&first, north_addr)?;
    let first_accepted = lab.accept(&north, SockFlag::empty(), "first'")?;

    lab.note(
        "A second socket on the same port is refused, and at bind, not at connect: the kernel \
              does not know yet where it will connect to.",
    );
    let second = lab.tcp("second")?;
    let refused = lab.bind(&second, source);
    lab.expect_errno("bind without SO_REUSEPORT", &refused, Some(Errno::EADDRINUSE));
    lab.close(second);
    lab.close(first);
    lab.close(first_accepted);

    lab.note("If all sockets of the port say that they share it, they may.");
    let first = lab.tcp("first")?;
    lab.set(&first, sockopt::ReusePort, &true, "SO_REUSEPORT, 1")?;
    let source = lab.bind(&first, ANY_PORT)?;
    lab.connect(&first, north_addr)?;
    let _first_accepted = lab.accept(&north, SockFlag::empty(), "first'")?;
    let second = lab.tcp("second")?;
    lab.set(&second, sockopt::ReusePort, &true, "SO_REUSEPORT, 1")?;
    lab.bind(&second, source)?;
    let connected = lab.connect(&second, south_addr);
    lab.expect_errno("one port, another destination", &connected, None);
    let _second_accepted = lab.accept(&south, SockFlag::empty(), "second'")?;

    lab.note("But not twice to one destination: that four-tuple is taken.");
    let third = lab.tcp("third")?;
    lab.set(&third, sockopt::ReusePort, &true, "SO_REUSEPORT, 1")?;
    lab.bind(&third, source)?;
    let taken = lab.connect(&third, north_addr);
    lab.expect_errno("the same four-tuple twice", &taken, Some(Errno::EADDRNOTAVAIL));

    lab.note("What the kernel has of all this: of the shared port, then of one server.");
    let shared = lab.sockets(&[source.port()])?;
    lab.expect("sockets of two connections, both ends", in_state(&shared, "ESTAB"), 4);
    let server = lab.sockets(&[south_addr.port()])?;
    lab.expect("sockets of one connection", in_state(&server, "ESTAB"), 2);
    lab.expect("listeners of its server", in_state(&server, "LISTEN"), 1);
    Ok(())
}
