//! Outbound connections: how each way to succeed and to fail is told.

mod support {
    pub(crate) mod scripted;
}

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::{self, ConnectOptions, Connecting, ListenOptions};
use c10k::{Addr, Error, Reactor};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use support::scripted::{Told, poll, quiet, tape, turn_until};

type Real = Reactor<OwnedFd>;

const LONG: Duration = Duration::from_secs(3600);
const INTERESTS: [Interest; 3] = [Interest::READ, Interest::WRITE, Interest::NONE];

fn connect(
    reactor: &mut Real,
    addr: &Addr,
    timeout: Duration,
    interest: Interest,
) -> Result<Token, Error> {
    reactor.connect(addr, &ConnectOptions::default(), timeout, interest, |fd| fd)
}

fn no_timers(reactor: &Real) -> bool {
    format!("{reactor:?}").contains("timers: 0,")
}

fn send(to: impl AsFd, bytes: &[u8]) {
    assert_eq!(sys::send(to.as_fd(), bytes).unwrap(), bytes.len());
}

/// A socket that has an address but does not listen: nobody else can have it meanwhile.
fn deaf() -> (OwnedFd, SocketAddr) {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let fd = fd.unwrap();
    socket::bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let Addr::Tcp(addr) = sys::local_addr(&fd).unwrap() else { unreachable!() };
    (fd, addr)
}

/// A listener whose accept queue is full, so that the handshakes of others go unanswered, and
/// the connection that fills it.
fn full_listener() -> (OwnedFd, TcpStream, Addr) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = sys::listen(&any.into(), &ListenOptions { backlog: 0, reuse_port: false });
    let listener = listener.unwrap();
    let addr = sys::local_addr(&listener).unwrap();
    let Addr::Tcp(tcp) = addr else { unreachable!() };
    let first = TcpStream::connect(tcp).unwrap();
    // The client may be connected a moment before the connection is in the queue.
    let mut fds = [nix::poll::PollFd::new(listener.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
    (listener, first, addr)
}

/// A path for a unix socket, which is removed at the end.
struct TempPath(PathBuf);

impl TempPath {
    fn new(name: &str) -> TempPath {
        let name = format!("c10k-test-{}-{name}.sock", std::process::id());
        TempPath(std::env::temp_dir().join(name))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn connected_and_then_watched_for_what_was_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::from(listener.local_addr().unwrap());
    for trigger in [Interest::NONE, Interest::EDGE] {
        for interest in INTERESTS {
            let mut reactor = Real::new().unwrap();
            let token = connect(&mut reactor, &addr, LONG, interest | trigger).unwrap();
            assert_eq!(reactor.len(), 1);
            let (peer, _) = listener.accept().unwrap();
            let mut tape = quiet();
            turn_until(&mut reactor, &mut tape, 1);
            let writable = Told::Ready(token, Readiness::OUT);
            assert_eq!(tape.take(), [Told::Connected(token, Ok(())), writable]);
            assert!(no_timers(&reactor), "its time-out is called off");

            // WRITE was added: with level triggering that goes on until it is modified.
            poll(&mut reactor, &mut tape);
            let again = if trigger == Interest::NONE { vec![writable] } else { vec![] };
            assert_eq!(tape.take(), again, "{interest:?}");
            reactor.modify(token, interest | trigger).unwrap();
            poll(&mut reactor, &mut tape);
            let writes = interest.contains(Interest::WRITE);
            assert_eq!(tape.take(), if writes { vec![writable] } else { vec![] }, "{interest:?}");

            send(&peer, b"x");
            poll(&mut reactor, &mut tape);
            let told = tape.take();
            let readable =
                |told: &Told| matches!(told, Told::Ready(_, readiness) if readiness.is_readable());
            assert_eq!(told.iter().any(readable), interest.contains(Interest::READ), "{told:?}");
        }
    }
}

#[test]
fn refused() {
    let (_deaf, addr) = deaf();
    for interest in INTERESTS {
        let mut reactor = Real::new().unwrap();
        let token = match connect(&mut reactor, &addr.into(), LONG, interest) {
            Ok(token) => token,
            // Allowed to be known at once, though Linux says so later.
            Err(Error::Connect { addr: of, source }) => {
                assert_eq!((of, source.kind()), (addr.into(), ErrorKind::ConnectionRefused));
                assert!(reactor.is_empty());
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let mut tape = tape(|reactor: &mut Real, told| {
            assert_eq!(told, Told::Connected(token, Err(ErrorKind::ConnectionRefused)));
            assert!(reactor.source(token).is_some(), "still there to be looked at");
            assert!(reactor.close(token));
        });
        turn_until(&mut reactor, &mut tape, 1);
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told.len(), 1);
        assert!(reactor.is_empty() && no_timers(&reactor));
    }
}

#[test]
fn timed_out() {
    let (_listener, _first, addr) = full_listener();
    let mut reactor = Real::new().unwrap();
    let timeout = Duration::from_millis(20);
    let begin = Instant::now();
    let patient = connect(&mut reactor, &addr, LONG, Interest::READ).unwrap();
    let token = connect(&mut reactor, &addr, timeout, Interest::READ).unwrap();
    let at_once = connect(&mut reactor, &addr, Duration::ZERO, Interest::READ).unwrap();
    let closed = connect(&mut reactor, &addr, Duration::ZERO, Interest::READ).unwrap();
    reactor.close(closed);
    let mut tape = tape(|reactor: &mut Real, told| {
        let Told::Connected(which, result) = told else { panic!("{told:?}") };
        assert_eq!(result, Err(ErrorKind::TimedOut));
        assert!(which != token || reactor.now() >= begin + timeout, "early");
        assert!(reactor.close(which));
    });
    turn_until(&mut reactor, &mut tape, 2);
    let timed_out = |token| Told::Connected(token, Err(ErrorKind::TimedOut));
    assert_eq!(tape.told, [timed_out(at_once), timed_out(token)]);
    assert_eq!(reactor.tokens().collect::<Vec<_>>(), [patient]);
}

#[test]
fn a_time_out_of_centuries_does_not_overflow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::from(listener.local_addr().unwrap());
    let mut reactor = Real::new().unwrap();
    let centuries = Duration::from_secs(86_400 * 365 * 500);
    let token = connect(&mut reactor, &addr, centuries, Interest::READ).unwrap();
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told[0], Told::Connected(token, Ok(())));
}

#[test]
fn a_unix_socket_is_connected_at_once_and_told_in_a_turn() {
    let path = TempPath::new("connect");
    let addr = Addr::Unix(path.0.clone());
    let error = connect(&mut Real::new().unwrap(), &addr, LONG, Interest::READ).unwrap_err();
    assert!(
        matches!(&error, Error::Connect { source, .. } if source.kind() == ErrorKind::NotFound)
    );

    let _listener = UnixListener::bind(&path.0).unwrap();
    for interest in INTERESTS {
        let mut reactor = Real::new().unwrap();
        let token = connect(&mut reactor, &addr, LONG, interest).unwrap();
        assert!(no_timers(&reactor), "there is nothing to wait for");
        let mut tape = quiet();
        turn_until(&mut reactor, &mut tape, 1);
        let writable = Told::Ready(token, Readiness::OUT);
        assert_eq!(tape.told, [Told::Connected(token, Ok(())), writable]);
    }
}

/// A unix listener whose accept queue is full.
fn full_unix_listener(path: &TempPath) -> (OwnedFd, OwnedFd, Addr) {
    let addr = Addr::Unix(path.0.clone());
    let listener = sys::listen(&addr, &ListenOptions { backlog: 0, reuse_port: false }).unwrap();
    let (first, connecting) = sys::connect(&addr, &ConnectOptions::default()).unwrap();
    assert_eq!(connecting, Connecting::Done);
    let (other, connecting) = sys::connect(&addr, &ConnectOptions::default()).unwrap();
    assert_eq!(connecting, Connecting::QueueFull);
    let again = sys::connect_again(other.as_fd(), &addr).unwrap();
    assert_eq!(again, Connecting::QueueFull);
    (listener, first, addr)
}

#[test]
fn a_full_unix_listener_is_tried_again() {
    let path = TempPath::new("full");
    let (listener, _first, addr) = full_unix_listener(&path);
    for interest in INTERESTS {
        let mut reactor = Real::new().unwrap();
        let token = connect(&mut reactor, &addr, LONG, interest).unwrap();
        let mut tape = quiet();
        while reactor.counts().turns < 5 {
            reactor.turn(&mut tape, None).unwrap();
        }
        assert!(tape.told.is_empty(), "there is no room, and nobody else to wake the loop");
        sys::accept(listener.as_fd(), true).unwrap().unwrap();
        turn_until(&mut reactor, &mut tape, 1);
        let writable = Told::Ready(token, Readiness::OUT);
        assert_eq!(tape.told, [Told::Connected(token, Ok(())), writable], "{interest:?}");
        assert!(no_timers(&reactor));
    }
}

#[test]
fn a_full_unix_listener_times_out() {
    let path = TempPath::new("stays-full");
    let (_listener, _first, addr) = full_unix_listener(&path);
    let mut reactor = Real::new().unwrap();
    let timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let token = connect(&mut reactor, &addr, timeout, Interest::READ).unwrap();
    let at_once = connect(&mut reactor, &addr, Duration::ZERO, Interest::READ).unwrap();
    let closed = connect(&mut reactor, &addr, timeout, Interest::READ).unwrap();
    assert!(reactor.close(closed));
    let removed = connect(&mut reactor, &addr, timeout, Interest::READ).unwrap();
    assert!(reactor.remove(removed).is_some());
    let mut tape = tape(|reactor: &mut Real, told| {
        let Told::Connected(which, result) = told else { panic!("{told:?}") };
        assert_eq!(result, Err(ErrorKind::TimedOut));
        assert!(which != token || reactor.now() >= begin + timeout, "early");
        assert!(reactor.close(which));
    });
    turn_until(&mut reactor, &mut tape, 2);
    let timed_out = |token| Told::Connected(token, Err(ErrorKind::TimedOut));
    assert_eq!(tape.told, [timed_out(at_once), timed_out(token)]);
    assert!(reactor.is_empty() && no_timers(&reactor));
    // Each pause is twice as long as the one before: 1, 2, 4, ... 64 ms. The rest is waiting.
    let turns = reactor.counts().turns;
    assert!(turns <= 20, "{turns} turns");
}

#[test]
fn a_listener_that_is_gone_ends_the_waiting_for_its_queue() {
    let path = TempPath::new("full-and-gone");
    let (listener, _first, addr) = full_unix_listener(&path);
    let mut reactor = Real::new().unwrap();
    let token = connect(&mut reactor, &addr, LONG, Interest::READ).unwrap();
    drop(listener);
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told, [Told::Connected(token, Err(ErrorKind::ConnectionRefused))]);
}

#[test]
fn many_at_once_from_one_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::from(listener.local_addr().unwrap());
    let options = ConnectOptions {
        source: Some("127.0.0.3:0".parse().unwrap()),
        keepalive: Some(Duration::from_millis(1)),
        ..ConnectOptions::default()
    };
    let mut reactor = Real::new().unwrap();
    let mut tokens: Vec<Token> = Vec::new();
    for _ in 0..50 {
        let token = reactor.connect(&addr, &options, LONG, Interest::READ, |fd| fd).unwrap();
        tokens.push(token);
    }
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, tokens.len());
    for token in tokens {
        assert!(tape.told.contains(&Told::Connected(token, Ok(()))));
    }
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.3");
}
