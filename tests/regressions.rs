//! One case for each bug that really occurred.

mod support {
    pub(crate) mod heap;
    pub(crate) mod scripted;
}

use std::os::fd::OwnedFd;

use c10k::framing::{Delimiter, Framing, Scan};
use c10k::poller::{Interest, Readiness};
use c10k::service::Echo;
use c10k::session::Ended;
use c10k::{Reactor, Session};

use support::heap::peak_of;
use support::scripted::{Scripted, any_fd, poll, scripted, tape};

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
