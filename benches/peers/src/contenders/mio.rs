//! mio: an event loop written by hand, edge-triggered as mio is, with every connection registered
//! once, for both directions.

use std::io;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::session::{Buffers, Next, Session};

const LISTENER: Token = Token(usize::MAX);

pub(super) fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(128);
    let mut listener = TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<(TcpStream, Session)> = Slab::new();
    let mut buffers = Buffers::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let entry = connections.vacant_entry();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(entry.key()), both)?;
                    entry.insert((stream, Session::default()));
                }
                continue;
            }
            let key = event.token().0;
            let Some((stream, session)) = connections.get_mut(key) else { continue };
            // Before an EOF a short read is not the last, and no other event will tell of it.
            let drain = event.is_read_closed() || event.is_error();
            // mio tells that a new connection can be written to: then there may be nothing to do.
            if !event.is_readable() && !event.is_error() && !session.is_sending() {
                continue;
            }
            if !matches!(session.drive(&*stream, &mut buffers, drain), Ok(Next::Read | Next::Write))
            {
                connections.remove(key);
            }
        }
    }
}
