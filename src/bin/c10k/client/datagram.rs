//! A client over datagrams: one goes out, and one is to come back.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
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
    options: ConnectOptions,
    /// Further addresses of the server, for when nobody is at this one.
    others: VecDeque<Addr>,
}

impl DatagramClient {
    /// Connects to the first of the addresses for which there is a route; at least one is needed.
    pub(super) fn connect(
        addrs: VecDeque<Addr>,
        options: ConnectOptions,
    ) -> Result<DatagramClient, Error> {
        let (mut others, mut failure) = (addrs, None);
        while let Some(addr) = others.pop_front() {
            match open(&addr, &options) {
                Ok((fd, poller)) => {
                    let events = Vec::new();
                    return Ok(DatagramClient { fd, poller, events, options, others });
                }
                Err(source) => failure = Some(Error::Connect { addr, source }),
            }
        }
        Err(failure.expect("at least one address"))
    }

    /// Sends a datagram, and waits for the one that answers it. Where nobody is at an address, asks
    /// at the next one.
    pub(super) fn ask(&mut self, request: &[u8], timeout: Duration) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.exchange(request, deadline) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {
                    let why = "it, or the reply, may be lost: there is nobody to send it again";
                    return Err(Failure::Found(format!("no reply within {timeout:?}; {why}")));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    let others = mem::take(&mut self.others);
                    match others.is_empty() {
                        true => return Err(no_reply(&error)),
                        false => *self = DatagramClient::connect(others, self.options.clone())?,
                    }
                }
                Err(error) => return Err(no_reply(&error)),
            }
        }
    }

    /// `None` if there is no reply by then.
    fn exchange(&mut self, request: &[u8], deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut reply = vec![0; DATAGRAM_LEN_MAX];
        // What has come since then is no answer to this one: a reply that came twice, or what the
        // network has said of an earlier request.
        while !matches!(sys::recv_datagram(self.fd.as_fd(), &mut reply), Ok(Recv::WouldBlock))
            && Instant::now() < deadline
        {}
        sys::send(self.fd.as_fd(), request)?;
        loop {
            if let Recv::Data(len) = sys::recv_datagram(self.fd.as_fd(), &mut reply)? {
                reply.truncate(len);
                return Ok(Some(reply));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.poller.wait(&mut self.events, Some(left))?;
        }
    }
}

fn open(addr: &Addr, options: &ConnectOptions) -> io::Result<(OwnedFd, Epoll)> {
    let (fd, _) = sys::connect(addr, options)?;
    let mut poller = Epoll::new()?;
    poller.add(&fd, Token(0), Interest::READ)?;
    Ok((fd, poller))
}

fn no_reply(error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Failure::Cannot(
            "the message is too long for a datagram, which holds 65,507 bytes over IPv4".to_owned(),
        ),
        Some(libc::ECONNREFUSED) => {
            Failure::Found(format!("no reply: {error}; is the server running, and with --udp?"))
        }
        _ => Failure::Found(format!("no reply: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::*;

    /// A socket that is connected elsewhere has no room for others' datagrams: they are refused, as
    /// if there was none.
    fn nobody() -> (UdpSocket, Addr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        let addr = Addr::Udp(socket.local_addr().unwrap());
        (socket, addr)
    }

    #[test]
    fn where_nobody_is_at_an_address_the_next_is_asked() {
        let ((_one, one), (_two, two)) = (nobody(), nobody());
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = Addr::Udp(server.local_addr().unwrap());
        let echo = thread::spawn(move || {
            let mut bytes = [0; 10];
            for _ in 0..2 {
                let (len, from) = server.recv_from(&mut bytes).unwrap();
                server.send_to(&bytes[..len], from).unwrap();
            }
        });
        let timeout = Duration::from_secs(20);
        let connect = |addrs: &[&Addr]| {
            let addrs = addrs.iter().map(|addr| (*addr).clone()).collect();
            DatagramClient::connect(addrs, ConnectOptions::default()).unwrap()
        };
        let mut client = connect(&[&one, &two, &addr]);
        for message in [b"a", b"b"] {
            assert_eq!(client.ask(message, timeout).unwrap(), message);
        }
        echo.join().unwrap();
        let mut client = connect(&[&one, &two]);
        let Err(Failure::Found(why)) = client.ask(b"c", timeout) else { panic!("an answer") };
        assert!(why.contains("Connection refused"), "{why}");
    }
}
