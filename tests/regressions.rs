//! One case for each bug that really occurred.

mod support {
    pub(crate) mod heap;
    pub(crate) mod scripted;
}

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use c10k::framing::{Delimiter, Framing, Scan};
use c10k::poller::{Interest, Readiness, Token};
use c10k::service::Echo;
use c10k::session::Ended;
use c10k::sys::{self, ConnectOptions};
use c10k::{Addr, Reactor, Session};

use support::heap::peak_of;
use support::scripted::{Scripted, Told, any_fd, poll, quiet, scripted, tape, turn_until};

/// What was sent was let go of only when nothing was left to send. A peer that always stayed a
/// little behind, though never by more than is allowed, made the buffer grow for as long as it
/// was connected.
#[test]
fn a_reader_that_is_always_a_little_behind_does_not_make_the_send_buffer_grow() {
    let request = [&b"x".repeat(4095)[..], b"\n"].concat();
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    let mut first = 0;
    let mut behind = |session: &mut Session<_, _>, unsent: usize| {
        assert_eq!(session.receive(&request), 1);
        assert_eq!(session.unsent()[0], b'x');
        session.advance(first);
        assert_eq!(session.unsent().len(), unsent);
        first = 4096;
    };
    behind(&mut session, 4096);
    let peak = peak_of(|| (0..10_000).for_each(|_| behind(&mut session, 4096)));
    assert!(peak <= 64 * 1024, "{peak} bytes for one reply unsent");
}

/// A line framing that panics at a `!`.
#[derive(Clone)]
struct Explosive(Delimiter);

impl Framing for Explosive {
    type State = ();

    fn scan(&self, state: &mut (), carried: usize, bytes: &[u8]) -> Scan {
        if bytes.first() == Some(&b'!') {
            std::panic::resume_unwind(Box::new("as a panic, but without the noise"));
        }
        self.0.scan(state, carried, bytes)
    }

    fn end_reply(&self, reply: &mut Vec<u8>) {
        self.0.end_reply(reply);
    }
}

/// A panic in a framing, rather than in a service, cut off the last whole reply; and if some of
/// that had been sent, the next look at the session panicked outside of what catches it.
#[test]
fn a_panic_between_two_replies_cuts_off_neither() {
    for sent in 0..=4 {
        let mut session = Session::new(Explosive(Delimiter::new(b'\n')), Echo);
        session.receive(b"a\nb\n");
        session.advance(sent);
        assert_eq!(session.receive(b"!\n"), 0);
        assert_eq!(session.take_ended(), Some(Ended::Panicked));
        assert_eq!(session.unsent(), &b"a\nb\n"[sent..]);
    }
}

/// Each ask to be called again was one more call. A source that always has more to do, and that
/// the kernel reports in each turn as well, was called once more in each turn than in the one
/// before; and its first call again came in the same turn.
#[test]
fn a_busy_source_does_not_get_a_greater_share_each_turn() {
    let (mut reactor, script) = scripted();
    let busy = reactor.add(any_fd(), Interest::READ).unwrap();
    let mut tape = tape(|reactor: &mut Reactor<OwnedFd, Scripted>, _| reactor.again(busy));
    for turn in 0..100 {
        script.batch(&[(busy, Readiness::IN)]);
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.take().len(), if turn == 0 { 1 } else { 2 }, "turn {turn}");
    }
}

/// A server that speaks first, such as one with a banner: what it said arrived together with the
/// end of the handshake, in one event, of which only the latter was told. With edge triggering
/// the kernel does not repeat the former.
#[test]
fn what_comes_together_with_a_connection_is_told() {
    let (mut reactor, token, mut peer) = connecting(Duration::from_secs(3600), Interest::EDGE);
    peer.write_all(b"220 hello").unwrap();
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told[0], Told::Connected(token, Ok(())));
    assert_eq!(tape.told[1], Told::Ready(token, Readiness::IN | Readiness::OUT));
}

/// The one shot was spent on the end of the handshake, and the source never heard of anything
/// else.
#[test]
fn a_connection_has_its_one_shot_left() {
    let (mut reactor, token, _peer) = connecting(Duration::from_secs(3600), Interest::ONESHOT);
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 2);
    poll(&mut reactor, &mut tape);
    let ready = Told::Ready(token, Readiness::OUT);
    assert_eq!(tape.told, [Told::Connected(token, Ok(())), ready]);
}

/// `Duration::MAX` as a time-out, which is one way to say "none", was a panic.
#[test]
fn a_connection_may_take_for_ever() {
    let (mut reactor, token, _peer) = connecting(Duration::MAX, Interest::EDGE);
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told[0], Told::Connected(token, Ok(())));
}

/// A connection whose handshake is over, though the reactor has not looked yet.
fn connecting(timeout: Duration, how: Interest) -> (Reactor<OwnedFd>, Token, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = Addr::from(listener.local_addr().unwrap());
    let interest = Interest::READ | Interest::WRITE | how;
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.connect(&addr, &ConnectOptions::default(), timeout, interest, |fd| fd);
    (reactor, token.unwrap(), listener.accept().unwrap().0)
}

/// When the first of two timers that waited in one slot of a coarser wheel moved to a finer one,
/// the second was forgotten.
#[test]
fn two_timers_in_one_slot_of_a_coarser_wheel_both_come() {
    let mut reactor = Reactor::<OwnedFd>::new().unwrap();
    // Ticks 64 to 127 share a slot as long as now is before them.
    let begin = reactor.now();
    let first = reactor.set_timer(begin + Duration::from_millis(70));
    let second = reactor.set_timer(begin + Duration::from_millis(100));
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told, [Told::Timer(first), Told::Timer(second)]);
}

/// The time-out of a wait was worked out from the end of the last turn: a reactor whose owner was
/// busy elsewhere for a while fired its timers later by as much.
#[test]
fn time_that_the_owner_takes_is_not_added_to_a_timer() {
    let mut reactor = Reactor::<OwnedFd>::new().unwrap();
    reactor.set_timer(Instant::now() + Duration::from_millis(40));
    std::thread::sleep(Duration::from_millis(50));
    // The alarm goes off at once, and not when the turn has lasted 40 ms.
    let mut tape = quiet();
    reactor.turn(&mut tape, Some(Duration::from_millis(20))).unwrap();
    assert_eq!((tape.told.len(), reactor.counts().events), (1, 1));
}

/// In release it was an EOF, and in debug a panic.
#[test]
#[should_panic(expected = "an empty buffer would look like EOF")]
fn to_receive_into_nothing_is_a_bug_in_release_too() {
    let (ours, mut peers) = UnixStream::pair().unwrap();
    peers.write_all(b"x").unwrap();
    let _ = sys::recv(ours.as_fd(), &mut []);
}
