//! How often epoll tells what it has told already.

use nix::sys::epoll::EpollFlags;

use crate::lab::calls::{flags, local};
use crate::lab::kernel::Socket;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "level-edge",
    claim: "Level-triggered, epoll tells of input until it has been read; edge-triggered, once for \
            each arrival, so that a reader who stops early hangs; with EPOLLONESHOT, once until \
            it is armed again.",
    run,
};

const IN: EpollFlags = EpollFlags::EPOLLIN;
/// How long a wait for what should come may take, and for what should not.
const SOON_MS: i32 = 5_000;
const NEVER_MS: i32 = 100;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A connection, and an epoll instance for the server's end of it.");
    let (listener, addr) = lab.listener("listener", 4)?;
    let (client, server) = lab.pair(&listener, "client", "server")?;
    let epoll = lab.epoll("epoll")?;

    lab.note("Level-triggered, the default. Ten bytes arrive, and the server reads four.");
    lab.epoll_add(&epoll, &server, IN, 1)?;
    lab.send(&client, b"0123456789")?;
    let first = lab.epoll_wait(&epoll, 8, SOON_MS)?;
    lab.recv(&server, 4)?;
    let again = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect(
        "level: told, and told again while there is more",
        told(&[first, again]).as_str(),
        "1, 1",
    );
    lab.recv(&server, 64)?;
    let drained = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("level: events once everything was read", drained.len(), 0);

    lab.note("The same with EPOLLET: now the wait that follows comes to nothing.");
    lab.epoll_modify(&epoll, &server, IN | EpollFlags::EPOLLET, 1)?;
    lab.send(&client, b"0123456789")?;
    let first = lab.epoll_wait(&epoll, 8, SOON_MS)?;
    lab.recv(&server, 4)?;
    let again = lab.epoll_wait(&epoll, 8, NEVER_MS)?;
    lab.expect("edge: told once, and not again", told(&[first, again]).as_str(), "1, 0");
    let sockets = lab.sockets(&[addr.port()])?;
    let of_server = |s: &&Socket| s.state == "ESTAB" && Ok(s.local) == local(&server);
    let left = sockets.iter().find(of_server).map_or(0, |socket| socket.recv_q);
    lab.expect("edge: bytes that lie there meanwhile (Recv-Q)", left, 6);

    lab.note(
        "A client that waits for its answer now waits for ever, and so does the server. Only \
         another segment makes epoll tell again; with it comes all that was left.",
    );
    lab.send(&client, b"ab")?;
    let new = lab.epoll_wait(&epoll, 8, SOON_MS)?;
    lab.expect("edge: told of the new segment", told(&[new]).as_str(), "1");
    let rest = lab.recv(&server, 64)?;
    lab.expect(
        "edge: what there is to read then",
        String::from_utf8_lossy(&rest).as_ref(),
        "456789ab",
    );

    lab.note(
        "With EPOLLONESHOT it is told once, whatever arrives: the kernel clears the mask, and \
         keeps the descriptor on its list.",
    );
    let oneshot = IN | EpollFlags::EPOLLONESHOT;
    lab.epoll_modify(&epoll, &server, oneshot, 1)?;
    lab.send(&client, b"c")?;
    let first = lab.epoll_wait(&epoll, 8, SOON_MS)?;
    lab.send(&client, b"d")?;
    lab.peek(&server, 2)?;
    let again = lab.epoll_wait(&epoll, 8, NEVER_MS)?;
    lab.expect(
        "oneshot: told once, also when more arrives",
        told(&[first, again]).as_str(),
        "1, 0",
    );
    let watched = lab.show_watched(&epoll.0)?;
    // "tfd: 5 events: 40000000 data: 1", in hexadecimal.
    let mask = watched.first().and_then(|line| line.split_whitespace().nth(3));
    let mask = mask.and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(u32::MAX);
    let mask = flags(EpollFlags::from_bits_retain(mask as i32));
    lab.expect("oneshot: what is left of the mask", mask.as_str(), "EPOLLONESHOT");
    lab.epoll_modify(&epoll, &server, oneshot, 1)?;
    let armed = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("oneshot: told at once when armed again", told(&[armed]).as_str(), "1");
    Ok(())
}

/// How many events each of these waits returned.
fn told<T>(waits: &[Vec<T>]) -> String {
    let counts: Vec<_> = waits.iter().map(|events| events.len().to_string()).collect();
    counts.join(", ")
}
