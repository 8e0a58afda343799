//! A connection, or what stands for one where there are only datagrams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use c10k::connection::{Connection, Step, Traffic, Workspace};
use c10k::poller::{Interest, Readiness};
use c10k::service::Reply;
use c10k::sys::{self, DATAGRAM_LEN_MAX, Recv};
use c10k::{Addr, Session};

use crate::load::checker::Checker;
use crate::protocol::AnyFraming;

pub(super) const INTEREST: Interest = Interest::READ.union(Interest::WRITE).union(Interest::EDGE);

/// How many datagrams that answer nothing a socket receives in a turn: whoever floods it with them is
/// not to keep the loop from the others, nor from its end.
const STRAYS_MAX: usize = 64;

#[derive(Debug)]
pub(in crate::load) enum Peer {
    Stream(Connection<AnyFraming, Checker>),
    Datagrams(Datagrams),
}

impl Peer {
    /// On a socket that is connected to `target`, or will be.
    pub(super) fn new(target: &Addr, fd: OwnedFd, session: Session<AnyFraming, Checker>) -> Peer {
        match target {
            Addr::Udp(_) => Peer::Datagrams(Datagrams { fd, session }),
            Addr::Tcp(_) | Addr::Unix(_) => Peer::Stream(Connection::new(fd, session, INTEREST, 0)),
        }
    }

    #[inline]
    pub(super) fn checker(&self) -> &Checker {
        match self {
            Peer::Stream(connection) => connection.session().service(),
            Peer::Datagrams(datagrams) => datagrams.session.service(),
        }
    }

    #[inline]
    pub(super) fn checker_mut(&mut self) -> &mut Checker {
        match self {
            Peer::Stream(connection) => connection.session_mut().service_mut(),
            Peer::Datagrams(datagrams) => datagrams.session.service_mut(),
        }
    }

    /// Writes a request. A stream sends it when it is driven, with all that were written by then.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Checker, &mut Reply<'_>)) {
        match self {
            Peer::Stream(connection) => connection.session_mut().push(write),
            Peer::Datagrams(datagrams) => {
                datagrams.session.push(write);
                datagrams.send();
            }
        }
    }

    #[inline(always)] // see sys/call.rs
    pub(super) fn drive(
        &mut self,
        readiness: Readiness,
        work: &mut Work,
        traffic: &Traffic,
    ) -> io::Result<Step> {
        match self {
            Peer::Stream(connection) => connection.drive(readiness, 0, &mut work.stream, traffic),
            Peer::Datagrams(datagrams) => Ok(datagrams.receive(&mut work.datagram)),
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Peer::Stream(connection) => connection.as_fd(),
            Peer::Datagrams(datagrams) => datagrams.fd.as_fd(),
        }
    }
}

/// What the peers of one loop receive into.
pub(super) struct Work {
    stream: Workspace,
    datagram: Vec<u8>,
}

impl Work {
    pub(super) fn new() -> Work {
        Work { stream: Workspace::new(), datagram: vec![0; DATAGRAM_LEN_MAX] }
    }
}

/// A socket of datagrams, each of which is a request or a reply. Nobody closes it, and what is sent
/// to a port where nobody is comes back as an error of a later call, if at all.
#[derive(Debug)]
pub(in crate::load) struct Datagrams {
    fd: OwnedFd,
    session: Session<AnyFraming, Checker>,
}

impl Datagrams {
    /// Receives as many replies as there may be, and sends the requests that they make.
    fn receive(&mut self, buffer: &mut [u8]) -> Step {
        // Beyond that there are only some that come late or twice. They stay where they are until
        // the next one comes, which the kernel tells of.
        let most = self.session.service().outstanding();
        let (mut received, mut strays) = (0, 0);
        while received < most {
            if strays == STRAYS_MAX {
                return Step::Again;
            }
            match sys::recv_datagram(self.fd.as_fd(), buffer) {
                Ok(Recv::Data(len)) => {
                    let before = self.session.service().replied();
                    self.session.receive(&buffer[..len]);
                    match before != self.session.service().replied() {
                        true => received += 1,
                        false => strays += 1,
                    }
                    self.send();
                }
                Ok(Recv::WouldBlock | Recv::Eof) => break,
                Err(error) => {
                    self.session.service().failed(&error);
                    strays += 1;
                }
            }
        }
        Step::Wait
    }

    /// Sends the request that was written, if one was. If that fails it is lost, as it might be on
    /// its way, and that is seen when no reply comes.
    fn send(&mut self) {
        let request = self.session.unsent();
        if request.is_empty() {
            return;
        }
        let len = request.len();
        if let Err(error) = sys::send(self.fd.as_fd(), request) {
            self.session.service().failed(&error);
        }
        self.session.advance(len);
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::rc::Rc;

    use c10k::sys::ConnectOptions;

    use super::*;
    use crate::load::checker::Run;
    use crate::load::plan::Plan;
    use crate::protocol::FramingKind;

    #[test]
    fn a_flood_of_what_answers_nothing_is_received_bit_by_bit() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = Addr::Udp(server.local_addr().unwrap());
        let (fd, _) = sys::connect(&target, &ConnectOptions::default()).unwrap();
        let plan = Plan { udp: true, ..Plan::new(vec![target.clone()], 1) };
        let checker = Checker::new(Rc::new(Run::new(plan.payload.clone(), &plan)), 0);
        let framing = AnyFraming::new(FramingKind::Chunk, b'\n', u32::MAX);
        let mut peer = Peer::new(&target, fd, Session::new(framing, checker));
        peer.push(Checker::request);

        let mut request = [0; 100];
        let (len, client) = server.recv_from(&mut request).unwrap();
        for _ in 0..STRAYS_MAX {
            server.send_to(b"nothing", client).unwrap();
        }
        server.send_to(&request[..len], client).unwrap();
        let (mut work, traffic) = (Work::new(), Traffic::default());
        let mut drive = || peer.drive(Readiness::NONE, &mut work, &traffic).unwrap();
        assert_eq!((drive(), drive()), (Step::Again, Step::Wait));
        assert_eq!(peer.checker().replied(), 1);
    }
}
