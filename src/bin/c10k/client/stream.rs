//! A client over one connection.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use c10k::connection::{Connection, Step, Traffic, Workspace};
use c10k::poller::{Interest, Readiness, Token};
use c10k::service::{Outcome, Reply, Service};
use c10k::sys::ConnectOptions;
use c10k::{Addr, Error, Handler, Reactor, Session};

use super::{Args, DELIMITER};
use crate::Failure;
use crate::protocol::{AnyFraming, Protocol};

/// Keeps the replies that were received.
#[derive(Debug, Default)]
struct Replies(VecDeque<Vec<u8>>);

impl Service for Replies {
    fn call(&mut self, reply: &[u8], _: &mut Reply<'_>) -> Outcome {
        self.0.push_back(reply.to_vec());
        Outcome::Silence
    }
}

type Peer = Connection<AnyFraming, Replies>;

/// One connection.
pub(super) struct StreamClient {
    reactor: Reactor<Peer>,
    token: Token,
    state: State,
}

#[derive(Default)]
struct State {
    work: Workspace,
    traffic: Traffic,
    connected: Option<io::Result<()>>,
    /// The connection is over, and this is how it ended.
    ended: Option<io::Result<()>>,
}

impl StreamClient {
    pub(super) fn connect(
        addr: &Addr,
        options: &ConnectOptions,
        args: &Args,
    ) -> Result<StreamClient, Error> {
        let failed = |source| Error::Connect { addr: addr.clone(), source };
        let kind = args.protocol.usual_framing();
        let delimiter = args.delimiter.unwrap_or(DELIMITER);
        let framing = AnyFraming::new(kind, delimiter, u32::MAX);
        let interest = Interest::READ | Interest::WRITE | Interest::EDGE;
        let mut reactor = Reactor::new()?;
        let token = reactor.connect(addr, options, args.connect_timeout, interest, |fd| {
            Connection::new(
                fd,
                Session::new(framing, Replies::default()).pending_max(u32::MAX),
                interest,
                0,
            )
        })?;
        let mut state = State::default();
        while state.connected.is_none() {
            reactor.turn(&mut state, None).map_err(failed)?;
        }
        state.connected.take().expect("just looked").map_err(failed)?;
        Ok(StreamClient { reactor, token, state })
    }

    /// Sends a request, and waits for the reply to it.
    pub(super) fn ask(&mut self, request: &[u8], args: &Args) -> Result<Vec<u8>, Failure> {
        let delimiter = args.delimiter.unwrap_or(DELIMITER);
        if args.protocol == Protocol::Echo && request.contains(&delimiter) {
            return Err(Failure::Cannot(format!(
                "\"{}\" has the delimiter in it, and would be several messages: see --delimiter",
                request.escape_ascii()
            )));
        }
        // Under JSON framing a request needs no end, but a server that wants one is content too.
        let end: &[u8] = if args.protocol == Protocol::Sum { b"\n" } else { b"" };
        if let Some(peer) = self.reactor.source_mut(self.token) {
            peer.session_mut().push(|_, bytes| {
                bytes.extend(request);
                bytes.extend(end);
            });
            self.reactor.again(self.token);
        }
        self.next_reply(args.timeout)
    }

    fn next_reply(&mut self, timeout: Duration) -> Result<Vec<u8>, Failure> {
        let start = Instant::now();
        loop {
            let replies = self.reactor.source_mut(self.token).map(Peer::session_mut);
            if let Some(reply) = replies.and_then(|session| session.service_mut().0.pop_front()) {
                return Ok(reply);
            }
            match &self.state.ended {
                Some(Ok(())) => {
                    return Err(Failure::Found("the server closed the connection".to_owned()));
                }
                Some(Err(error)) => return Err(Failure::Found(format!("no reply: {error}"))),
                None => {}
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Failure::Found(format!("no reply within {timeout:?}")));
            }
            self.reactor.turn(&mut self.state, Some(left))?;
        }
    }
}

impl Handler<Peer> for State {
    fn connected(&mut self, _: &mut Reactor<Peer>, _: Token, result: io::Result<()>) {
        self.connected = Some(result);
    }

    fn ready(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        let Some(peer) = reactor.source_mut(token) else { return };
        // The source stays when the connection has ended: it holds replies that came before.
        match peer.drive(readiness, 0, &mut self.work, &self.traffic) {
            Ok(Step::Wait) => {}
            Ok(Step::Again | Step::Linger) => reactor.again(token),
            Ok(Step::Close) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error)),
        }
    }
}
