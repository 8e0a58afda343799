//! One case for each bug that really occurred.

mod support {
    pub(crate) mod heap;
}

use c10k::Session;
use c10k::framing::Delimiter;
use c10k::service::Echo;

use support::heap::peak_of;

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
