//! The floor: bare epoll, which sends back whatever it receives, with no framing, buffers, limits
//! or time-outs. Nothing that uses epoll does less.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

/// More would let the sockets fall out of the cache between the wait and the read.
const BATCH: usize = 128;

/// `trigger` is `ET`, or nothing for level triggering.
pub(super) fn serve(listener: TcpListener, trigger: EventFlags) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listening = listener.as_raw_fd() as u64;
    epoll::add(&epoll, &listener, EventData::new_u64(listening), EventFlags::IN)?;
    // A connection's descriptor is its index: no look-up could be cheaper.
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let ready = match epoll::wait(&epoll, &mut events, None) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data.u64() == listening {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                while let Ok(fd) = accept_with(&listener, flags) {
                    let index = fd.as_raw_fd() as usize;
                    let mask = EventFlags::IN | EventFlags::RDHUP | trigger;
                    epoll::add(&epoll, &fd, EventData::new_u64(index as u64), mask)?;
                    if connections.len() <= index {
                        connections.resize_with(index + 1, || None);
                    }
                    connections[index] = Some(fd);
                }
                continue;
            }
            let connection = &mut connections[event.data.u64() as usize];
            // A short read is the last, except before an EOF, which an edge tells only once.
            let flags = event.flags;
            let drain = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if connection.as_ref().is_some_and(|fd| !echo(fd, &mut buffer, drain)) {
                *connection = None;
            }
        }
    }
}

/// Sends back what there is, and says whether the connection is to stay open.
fn echo(fd: &OwnedFd, buffer: &mut [u8], drain: bool) -> bool {
    loop {
        let n = match recv(fd, &mut *buffer, RecvFlags::empty()) {
            Ok((n, _)) if n > 0 => n,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return true,
            _ => return false,
        };
        if !send_all(fd, &buffer[..n]) {
            return false;
        }
        if n < buffer.len() && !drain {
            return true;
        }
    }
}

/// A client that takes its replies leaves room for all of them; one that does not holds up the
/// others, which no server could do: the floor keeps nothing for anyone.
fn send_all(fd: &OwnedFd, mut bytes: &[u8]) -> bool {
    loop {
        match send(fd, bytes, SendFlags::NOSIGNAL) {
            Ok(n) if n == bytes.len() => return true,
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(fd, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
}
