//! A socket of datagrams: each one that arrives is a request, and its reply goes back to its sender.
//!
//! There is no connection, so there is nothing to wait for that could be waited for in one way or
//! another: whatever the model, the loop that accepts connections serves datagrams too.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::counters::Counters;
use super::listener::Share;
use super::own_addrs::OwnAddrs;
use crate::poller::Interest;
use crate::service::{Outcome, Reply, Service};
use crate::sys::{self, Datagram, Datagrams};
use crate::{Addr, Error};

/// A socket that is bound, and not served yet.
#[derive(Debug)]
pub(crate) struct Bound {
    fd: OwnedFd,
    addr: SocketAddr,
    share: Share,
}

impl Bound {
    pub(crate) fn open(addr: &Addr, reuse_port: bool, share: Share) -> Result<Bound, Error> {
        let failed = |source| Error::Listen { addr: addr.clone(), source };
        let (fd, addr) = sys::bind_datagram(addr, reuse_port).map_err(failed)?;
        Ok(Bound { fd, addr, share })
    }

    /// Where it is bound, with the port that the kernel chose.
    pub(crate) fn addr(&self) -> Addr {
        Addr::Udp(self.addr)
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.addr
    }

    /// In a worker: whether it is to serve this.
    pub(crate) fn is_of_worker(&self, worker: usize) -> bool {
        self.share.is_of_worker(worker)
    }
}

/// A socket that is served.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    fd: OwnedFd,
    share: Share,
    /// One for all senders.
    service: S,
}

impl<S: Service> Socket<S> {
    pub(crate) fn new(bound: Bound, service: S) -> Socket<S> {
        Socket { fd: bound.fd, share: bound.share, service }
    }

    /// What to watch it for: each wait tells of it until everything was received.
    pub(crate) fn interest(&self) -> Interest {
        self.share.interest()
    }
}

impl<S> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the sockets of one loop share: room for requests, and for their replies.
#[derive(Debug)]
pub(crate) struct Desk {
    own: OwnAddrs,
    /// The longest request.
    len_max: usize,
    requests: Datagrams,
    replies: Vec<u8>,
    /// Which request each reply answers, and where in `replies` it is.
    answers: Vec<(usize, Range<usize>)>,
}

/// What came of one request.
enum Served {
    Reply,
    Silence,
    Panicked,
}

impl Desk {
    pub(crate) fn new(own: OwnAddrs, len_max: usize) -> Desk {
        let (replies, answers) = (Vec::new(), Vec::new());
        Desk { own, len_max, requests: Datagrams::new(len_max), replies, answers }
    }

    /// Receives what has arrived, as much as one call can, serves it, and sends the replies. Returns
    /// how many datagrams there were.
    pub(crate) fn serve<S: Service>(
        &mut self,
        socket: &mut Socket<S>,
        renew: impl Fn() -> S,
        counters: &Counters,
    ) -> io::Result<usize> {
        let received = self.requests.recv(socket.fd.as_fd())?;
        self.replies.clear();
        self.answers.clear();
        let (mut requests, mut bytes) = (0, 0);
        for at in 0..received {
            let Some(request) = self.requests.get(at) else { continue };
            bytes += request.bytes.len();
            if !is_to_be_served(&request, self.len_max, &mut self.own, &socket.service, counters) {
                continue;
            }
            requests += 1;
            let start = self.replies.len();
            match answer(&mut socket.service, request.bytes, &mut self.replies) {
                Served::Reply => self.answers.push((at, start..self.replies.len())),
                Served::Silence => self.replies.truncate(start),
                Served::Panicked => {
                    self.replies.truncate(start);
                    log::error!("the service panicked at a datagram of {}", request.from);
                    counters.panics.add(1);
                    socket.service = renew();
                }
            }
        }
        counters.datagrams.add(requests as u64);
        counters.traffic.add(requests, bytes, 0);
        let sent = self.send(socket.fd.as_fd(), counters);
        counters.traffic.add(0, 0, sent);
        Ok(received)
    }

    /// Sends the replies, and returns how many bytes that were. One that cannot be sent is dropped,
    /// as it might be on its way.
    fn send(&mut self, fd: BorrowedFd<'_>, counters: &Counters) -> usize {
        let (mut next, mut bytes) = (0, 0);
        while next < self.answers.len() {
            match self.requests.reply(fd, &self.replies, &self.answers[next..]) {
                Ok(sent) => {
                    let sent = &self.answers[next..next + sent.max(1)];
                    bytes += sent.iter().map(|(_, range)| range.len()).sum::<usize>();
                    next += sent.len();
                }
                Err(error) => {
                    counters.error(&error);
                    counters.replies_dropped.add(1);
                    next += 1;
                }
            }
        }
        bytes
    }
}

/// Whether a datagram is a request that may be answered. If not, it was counted.
fn is_to_be_served<S: Service>(
    datagram: &Datagram<'_>,
    len_max: usize,
    own: &mut OwnAddrs,
    service: &S,
    counters: &Counters,
) -> bool {
    if datagram.truncated || datagram.bytes.len() > len_max {
        counters.refused_datagram_too_long.add(1);
    } else if datagram.from.port() == 0 || own.contains(datagram.from) {
        counters.refused_own_address.add(1);
    } else if service.is_reply(datagram.bytes) {
        counters.refused_reply.add(1);
    } else {
        return true;
    }
    false
}

/// Has the service answer one request.
fn answer<S: Service>(service: &mut S, request: &[u8], replies: &mut Vec<u8>) -> Served {
    let mut reply = Reply::new(replies);
    // A panic can leave the service half changed, and the reply half written: both go.
    match catch_unwind(AssertUnwindSafe(|| service.call(request, &mut reply))) {
        Ok(Outcome::Silence) => Served::Silence,
        Ok(Outcome::Close) if reply.is_empty() => Served::Silence,
        Ok(Outcome::Reply | Outcome::Reject | Outcome::Close) => Served::Reply,
        Err(_) => Served::Panicked,
    }
}
