//! Descriptors: none is left open, and a number that is used again confuses nobody. The tests
//! here look at all descriptors of the process, so they run one at a time, and in a process of
//! their own.

mod support {
    pub(crate) mod scripted;
}

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::{self, ConnectOptions};
use c10k::{Addr, Reactor};

use support::scripted::{Told, any_fd, poll, quiet, scripted, tape, turn_until};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

type Real = Reactor<OwnedFd>;

/// How many descriptors this process has open.
fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs `scenario` a few times; it must give back every descriptor each time.
fn assert_no_leak(name: &str, scenario: impl Fn()) {
    let before = open_fds();
    for _ in 0..3 {
        scenario();
        assert_eq!(open_fds(), before, "{name}");
    }
}

fn is_open(fd: RawFd) -> bool {
    std::path::Path::new(&format!("/proc/self/fd/{fd}")).exists()
}

#[test]
fn everything_gives_its_descriptors_back() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());

    assert_no_leak("a reactor with sources", || {
        let mut reactor = Real::new().unwrap();
        let waker = reactor.waker();
        for _ in 0..10 {
            let token = reactor.add(any_fd(), Interest::READ).unwrap();
            reactor.set_deadline(token, reactor.now() + Duration::from_secs(3600));
        }
        drop(reactor);
        waker.wake();
    });

    assert_no_leak("close, remove, pause", || {
        let mut reactor = Real::new().unwrap();
        let base = open_fds();
        for paused in [false, true] {
            for take_out in [false, true] {
                let token = reactor.add(any_fd(), Interest::READ).unwrap();
                let number = reactor.source(token).unwrap().as_raw_fd();
                if paused {
                    reactor.pause(token).unwrap();
                }
                if take_out {
                    let source = reactor.remove(token).unwrap();
                    assert!(is_open(number), "it was handed back");
                    drop(source);
                } else {
                    assert!(reactor.close(token));
                }
                assert!(!is_open(number));
            }
        }
        assert_eq!(open_fds(), base);
    });

    assert_no_leak("a source that cannot be watched", || {
        let mut reactor = Real::new().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        reactor.add(file.into(), Interest::READ).unwrap_err();
    });

    assert_no_leak("connections, made and failed", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = Addr::from(listener.local_addr().unwrap());
        let nobody = Addr::Unix("/proc/nobody.sock".into());
        let mut reactor = Real::new().unwrap();
        let long = Duration::from_secs(3600);
        let options = ConnectOptions::default();
        reactor.connect(&nobody, &options, long, Interest::READ, |fd| fd).unwrap_err();
        let wrong = ConnectOptions { source: Some("192.0.2.1:0".parse().unwrap()), ..options };
        reactor.connect(&addr, &wrong, long, Interest::READ, |fd| fd).unwrap_err();
        let options = ConnectOptions::default();
        reactor.connect(&addr, &options, long, Interest::READ, |fd| fd).unwrap();
        // Dropped while the handshake is under way, for all that the reactor knows.
        reactor.connect(&addr, &options, long, Interest::READ, |fd| fd).unwrap();
        let mut tape = quiet();
        turn_until(&mut reactor, &mut tape, 1);
    });

    assert_no_leak("a scripted poller", || {
        let (mut reactor, script) = scripted();
        let token = reactor.add(any_fd(), Interest::READ).unwrap();
        script.batch(&[(token, Readiness::IN)]);
        let mut tape = tape(|reactor: &mut Reactor<OwnedFd, _>, _| assert!(reactor.close(token)));
        poll(&mut reactor, &mut tape);
    });
}

/// Within one batch, the first event closes the second's source, and a newcomer gets the number
/// of its descriptor as well as its slot.
#[test]
fn a_newcomer_with_the_same_number_does_not_get_the_event() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poison| poison.into_inner());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Real::new().unwrap();
    let mut peers = Vec::new();
    let mut source = || {
        peers.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let accepted: OwnedFd = listener.accept().unwrap().0.into();
        sys::send(peers.last().unwrap().as_fd(), b"x").unwrap();
        accepted
    };
    let [a, b] = [(); 2].map(|()| reactor.add(source(), Interest::READ).unwrap());
    let mut newcomer: Option<Token> = None;
    // A newcomer of another kind, without anything to read: an event would have to be b's.
    let mut tape = tape(|reactor: &mut Real, told| {
        let Told::Ready(first, _) = told else { panic!("{told:?}") };
        if newcomer.is_some() {
            return;
        }
        let other = if first == a { b } else { a };
        let number = reactor.source(other).unwrap().as_raw_fd();
        assert!(reactor.close(other));
        let (one, two) = UnixStream::pair().unwrap();
        assert_eq!(one.as_raw_fd(), number, "or this test shows nothing");
        newcomer = Some(reactor.add(one.into(), Interest::READ).unwrap());
        // Kept open, or that would be an event.
        std::mem::forget(two);
    });
    for _ in 0..3 {
        poll(&mut reactor, &mut tape);
    }
    let told = tape.take();
    let newcomer = newcomer.unwrap();
    assert!(told.iter().all(|told| *told != Told::Ready(newcomer, Readiness::IN)), "{told:?}");
    assert_eq!(told.len(), 3, "the first is told in each turn: {told:?}");
    assert_eq!(reactor.counts().stale, 1);
    assert!([a, b].iter().any(|old| old.0 as u32 == newcomer.0 as u32));
}
