//! A client over datagrams: one goes out, and one is to come back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use c10k::poller::{Epoll, Event, Interest, Poller, Token};
use c10k::sys::{self, ConnectOptions, DATAGRAM_LEN_MAX, Recv};
use c10k::{Addr, Error};

use crate::Failure;

/// A socket that is connected: it receives from that server only, and learns of it if there is none
/// (`udp(7)`).
pub(super) struct DatagramClient {
    fd: OwnedFd,
    poller: Epoll,
    events: Vec<Event>,
}

impl DatagramClient {
    pub(super) fn connect(addr: &Addr, options: &ConnectOptions) -> Result<DatagramClient, Error> {
        let failed = |source| Error::Connect { addr: addr.clone(), source };
        let (fd, _) = sys::connect(addr, options).map_err(failed)?;
        let mut poller = Epoll::new().map_err(failed)?;
        poller.add(&fd, Token(0), Interest::READ).map_err(failed)?;
        Ok(DatagramClient { fd, poller, events: Vec::new() })
    }

    /// Sends a datagram, and waits for the one that answers it.
    pub(super) fn ask(&mut self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + timeout;
        let mut reply = vec![0; DATAGRAM_LEN_MAX];
        // What has come since then is no answer to this one: a reply that came twice, or what the
        // network has said of an earlier request.
        while !matches!(sys::recv_datagram(self.fd.as_fd(), &mut reply), Ok(Recv::WouldBlock))
            && Instant::now() < deadline
        {}
        sys::send(self.fd.as_fd(), request).map_err(not_sent)?;
        loop {
            match sys::recv_datagram(self.fd.as_fd(), &mut reply) {
                Ok(Recv::Data(len)) => {
                    reply.truncate(len);
                    return Ok(reply);
                }
                Ok(Recv::WouldBlock | Recv::Eof) => {}
                Err(error) => return Err(no_reply(&error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = "it, or the reply, may be lost: there is nobody to send it again";
                return Err(Failure::Found(format!("no reply within {timeout:?}; {why}")));
            }
            self.poller.wait(&mut self.events, Some(left))?;
        }
    }
}

fn not_sent(error: io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Failure::Cannot(
            "the message is too long for a datagram, which holds 65,507 bytes over IPv4".to_owned(),
        ),
        _ => no_reply(&error),
    }
}

fn no_reply(error: &io::Error) -> Failure {
    let way_out = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "; is the server running, and with --udp?",
        _ => "",
    };
    Failure::Found(format!("no reply: {error}{way_out}"))
}
