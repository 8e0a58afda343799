//! polling: an event loop written by hand. Level-triggered, because it does not tell of a peer that
//! has shut down: with an edge each read would need a second one to see that there is no more.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;

use polling::{Event, Events, PollMode, Poller};
use slab::Slab;

use crate::session::{Buffers, Next, Session};

/// One less than the key that polling keeps for itself.
const LISTENER: usize = usize::MAX - 1;

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let poller = Poller::new()?;
    let mut events = Events::with_capacity(const { NonZeroUsize::new(128).unwrap() });
    // SAFETY: the listener is registered for as long as the poller is there.
    unsafe { poller.add_with_mode(&listener, Event::readable(LISTENER), PollMode::Level)? };
    let mut connections: Slab<Connection> = Slab::new();
    let mut buffers = Buffers::new();
    loop {
        events.clear();
        // It waits again by itself when interrupted by a signal.
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            if event.key == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    let entry = connections.vacant_entry();
                    let interest = Event::readable(entry.key());
                    // SAFETY: it is deleted below before it is dropped.
                    unsafe { poller.add_with_mode(&stream, interest, PollMode::Level)? };
                    entry.insert(Connection { stream, session: Session::default(), sends: false });
                }
                continue;
            }
            let Connection { stream, session, sends } = &mut connections[event.key];
            match session.drive(&*stream, &mut buffers, false).unwrap_or(Next::Close) {
                Next::Close => {
                    poller.delete(stream)?;
                    connections.remove(event.key);
                }
                next if (next == Next::Write) != *sends => {
                    *sends = !*sends;
                    let interest = match *sends {
                        true => Event::writable(event.key),
                        false => Event::readable(event.key),
                    };
                    poller.modify_with_mode(stream, interest, PollMode::Level)?;
                }
                _ => {}
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    /// Whether it waits to write, rather than to read.
    sends: bool,
}
