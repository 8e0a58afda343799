//! How much memory a session takes: none when it is idle, and never more than its bounds say.

mod support {
    pub(crate) mod heap;
}

use c10k::Session;
use c10k::framing::{Delimiter, Framing, JsonValue};
use c10k::service::Echo;
use c10k::session::{PENDING_MAX, SendBuffer};

use support::heap::{held, peak_of};

const KIB: isize = 1024;

#[test]
fn an_idle_session_holds_nothing() {
    let mut spare: Option<Box<SendBuffer>> = Some(Box::default());
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    // The shared buffer grows once, and is not the session's.
    session.lend(&mut spare);
    session.receive(&b"x\n".repeat(1000));
    session.advance(2000);
    session.reclaim(&mut spare);

    let before = held();
    for piece in [&b"one\ntw"[..], b"o\nthr", b"ee\n"] {
        session.lend(&mut spare);
        session.receive(piece);
        // The kernel takes it in two portions.
        session.advance(1);
        session.reclaim(&mut spare);
        session.lend(&mut spare);
        session.advance(session.unsent().len());
        session.reclaim(&mut spare);
    }
    assert_eq!(held(), before);
}

/// Feeds 64 MiB of a frame that never ends, without ever reading a reply.
fn endless<F: Framing>(framing: F, piece: &[u8]) {
    let mut session = Session::new(framing, Echo);
    let peak = peak_of(|| {
        let mut fed = 0;
        while fed < 64 * 1024 * KIB as usize {
            session.receive(piece);
            fed += piece.len();
            if fed > 64 * KIB as usize {
                assert!(session.is_closing() && !session.wants_read());
                assert!(session.unsent().starts_with(b"error: frame too long"));
            } else {
                assert!(session.wants_read() && !session.wants_write());
            }
        }
    });
    // The frame of 64 KiB in a buffer that doubles, and for a moment its predecessor.
    assert!(peak <= 200 * KIB, "{peak} bytes for pieces of {}", piece.len());
    session.advance(session.unsent().len());
    session.shut_down();
    assert!(session.wants_read());
    let mut discarded = 0;
    while !session.is_done() {
        session.receive(piece);
        discarded += piece.len();
    }
    assert!(discarded <= 1024 * KIB as usize + piece.len());
}

#[test]
fn a_frame_that_never_ends_is_bounded() {
    for size in [1000, 4096, 65_536] {
        endless(Delimiter::new(b'\n'), &vec![b'x'; size]);
        endless(JsonValue::new(), &vec![b'['; size]);
        endless(JsonValue::new(), &vec![b'7'; size]);
    }
}

#[test]
fn a_flood_of_requests_is_bounded_by_its_replies() {
    let flood = b"0123456789abcde\n".repeat(4096);
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    let peak = peak_of(|| {
        while session.wants_read() {
            session.receive(&flood);
        }
    });
    assert!(session.unsent().len() > PENDING_MAX as usize);
    assert!(peak <= 3 * PENDING_MAX as isize + 200 * KIB, "{peak} bytes");
}
