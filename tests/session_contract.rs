//! What a session promises to whoever drives it, and what it asks of a framing of one's own.

mod support {
    pub(crate) mod drive;
}

use std::net::UdpSocket;
use std::time::Duration;

use c10k::framing::{Delimiter, Framing, JsonValue, Scan};
use c10k::service::{Echo, Outcome, Refusal, Reply, Service};
use c10k::session::Ended;
use c10k::{Addr, Server, Session};
use proptest::collection::vec;
use proptest::prelude::*;

use support::drive::{drive, flush};

const TOO_LONG: Option<Ended> = Some(Ended::Refused(Refusal::FrameTooLong));

fn echo() -> Session<Delimiter, Echo> {
    Session::new(Delimiter::new(b'\n'), Echo)
}

// ---- Calls at the wrong time ----

#[test]
fn a_resume_that_is_not_wanted_serves_nothing() {
    let mut session = echo();
    assert_eq!(session.resume(), 0, "it has received nothing");
    session.receive(b"one\nunfin");
    assert_eq!(session.resume(), 0, "it is not suspended");
    session.receive(b"ished\n");
    assert_eq!(session.take_ended(), None);
    assert_eq!(flush(&mut session), b"one\nunfinished\n");

    let mut session = echo().pending_max(0);
    assert_eq!(session.receive(b"one\ntwo\n"), 1);
    assert_eq!(session.resume(), 0, "a reply is unsent");
    assert_eq!(flush(&mut session), b"one\n");
    assert_eq!(session.resume(), 1);
    assert_eq!(session.resume(), 0);
    session.close();
    assert_eq!(session.resume(), 0);
}

#[test]
fn a_shut_down_that_is_not_wanted_changes_nothing() {
    let mut session = echo();
    session.shut_down();
    assert!(session.wants_read() && !session.is_closing());
    session.receive(b"one\n");
    session.close();
    session.shut_down();
    assert!(session.wants_write() && !session.wants_read(), "a reply is unsent");
    assert_eq!(flush(&mut session), b"one\n");
    session.shut_down();
    assert!(session.wants_read() && !session.wants_shutdown());
    session.receive_eof();
    session.shut_down();
    assert!(session.is_done());
}

#[test]
fn what_is_received_while_suspended_is_served_in_its_turn() {
    let mut session = echo().pending_max(0);
    assert_eq!(session.receive(b"one\ntw"), 1);
    assert!(!session.wants_read());
    assert_eq!(session.receive(b"o\nthr"), 0);
    assert_eq!(session.receive(b"ee\n"), 0);
    let mut sent = flush(&mut session);
    while session.wants_resume() {
        assert_eq!(session.resume(), 1);
        sent.extend(flush(&mut session));
    }
    assert_eq!(sent, b"one\ntwo\nthree\n");

    // Also if a frame had begun, and it is the driver that filled the buffer.
    let mut session = echo().pending_max(0);
    session.receive(b"on");
    session.push(|_, out| out.extend(b"pushed"));
    assert_eq!(session.receive(b"e\n"), 0);
    assert_eq!(flush(&mut session), b"pushed\n");
    assert_eq!(session.resume(), 1);
    assert_eq!(flush(&mut session), b"one\n");
}

/// What a driver may do.
#[derive(Debug, Clone)]
enum Call {
    Receive(Vec<u8>),
    Eof,
    Resume,
    Advance(usize),
    Push,
    ShutDown,
    Close,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => vec(prop_oneof![Just(b'x'), Just(b'\n')], 0..30).prop_map(Call::Receive),
        3 => (0..40_usize).prop_map(Call::Advance),
        3 => Just(Call::Resume),
        1 => Just(Call::Push),
        1 => Just(Call::ShutDown),
        1 => Just(Call::Eof),
        1 => Just(Call::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// In any order and at any time: nothing panics, no byte of a reply is lost or changed, done
    /// stays done but for what is pushed after EOF, and a session that is not done wants something.
    #[test]
    fn no_order_of_calls_is_wrong(calls in vec(call(), 0..40), pending_max in 0..50_u32) {
        let mut session = echo().pending_max(pending_max);
        let (mut input, mut sent, mut pushed) = (Vec::new(), Vec::new(), 0);
        let (mut served, mut eof, mut closed) = (0, false, false);
        for call in calls {
            let (done, unsent) = (session.is_done(), session.unsent().len());
            let is_push = matches!(call, Call::Push);
            match call {
                Call::Receive(bytes) => {
                    if !eof && !closed {
                        input.extend_from_slice(&bytes);
                    }
                    served += session.receive(&bytes);
                }
                Call::Eof => {
                    served += session.receive_eof();
                    eof |= !closed;
                }
                Call::Resume => served += session.resume(),
                Call::Advance(n) => {
                    let n = n.min(unsent);
                    sent.extend_from_slice(&session.unsent()[..n]);
                    session.advance(n);
                }
                Call::Push => {
                    let is_closing = session.is_closing();
                    session.push(|_, out| out.extend(b"pushed"));
                    prop_assert_eq!(session.unsent().len() > unsent, !is_closing);
                    pushed += usize::from(!is_closing);
                }
                Call::ShutDown => session.shut_down(),
                Call::Close => {
                    session.close();
                    closed |= session.is_closing();
                }
            }
            let wants = session.wants_read() || session.wants_write() || session.wants_resume();
            prop_assert!(wants || session.wants_shutdown() || session.is_done());
            prop_assert!(!done || session.is_done() || is_push && eof);
        }
        prop_assert!(matches!(session.take_ended(), None | Some(Ended::ByDriver)));
        sent.extend_from_slice(session.unsent());
        let replies = String::from_utf8(sent).unwrap();
        prop_assert_eq!(replies.matches("pushed\n").count(), pushed);
        let replies = replies.replace("pushed\n", "");
        prop_assert!(input.starts_with(replies.as_bytes()));
        prop_assert_eq!(replies.matches('\n').count(), served);
    }
}

// ---- After EOF, and after a close ----

#[test]
fn a_reply_that_is_owed_at_eof_may_still_be_pushed() {
    let mut session = echo();
    session.receive(b"one\n");
    session.receive_eof();
    assert!(!session.is_done(), "a reply is unsent");
    assert_eq!(flush(&mut session), b"one\n");
    assert!(session.is_done(), "whatever the driver owes");
    session.push(|_, out| out.extend(b"owed"));
    assert!(!session.is_done() && session.wants_write() && !session.wants_shutdown());
    assert_eq!(flush(&mut session), b"owed\n");
    assert!(session.is_done());
}

#[test]
fn nothing_is_pushed_behind_a_close() {
    let push = |session: &mut Session<Delimiter, Echo>, word: &str| {
        session.push(|_, out| out.extend(word.as_bytes()));
    };
    let mut session = echo();
    push(&mut session, "goodbye");
    session.close();
    let mut late = false;
    session.push(|_, _| late = true);
    assert!(!late, "it is not even written");
    assert_eq!(flush(&mut session), b"goodbye\n");
    push(&mut session, "late");
    assert!(session.wants_shutdown() && !session.wants_write());
    session.shut_down();
    push(&mut session, "later");
    assert!(!session.wants_write(), "it could not be sent any more");
    session.receive_eof();
    push(&mut session, "latest");
    assert!(session.is_done());
}

// ---- Last words ----

/// Closes, with or without a word.
struct Leave(&'static str);

impl Service for Leave {
    fn call(&mut self, _: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(self.0.as_bytes());
        Outcome::Close
    }

    fn refuse(&mut self, _: Refusal, reply: &mut Reply<'_>) {
        reply.extend(self.0.as_bytes());
    }
}

#[test]
fn a_last_word_that_is_none_sends_nothing() {
    for (word, sent) in [("", ""), ("bye", "bye\n")] {
        for request in ["request\n", "one that is too long\n"] {
            let framing = Delimiter::new(b'\n').max_len(8);
            let end = drive(Session::new(framing, Leave(word)), &[request.as_bytes()]);
            assert_eq!(String::from_utf8(end.replies).unwrap(), sent, "{request:?}");
            assert!(end.ended.is_some());
        }
    }
    // Nothing before it is taken back, and an empty reply to anything else is one.
    let mut session = echo();
    session.receive(b"\n\n");
    assert_eq!(flush(&mut session), b"\n\n");
}

/// Over datagrams an end of a conversation is nothing, and so is its empty last word.
#[test]
fn a_last_word_that_is_none_is_no_datagram() {
    struct Leaving;
    impl Service for Leaving {
        fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
            match request {
                b"leave" => Outcome::Close,
                _ => Echo.call(request, reply),
            }
        }
    }
    let server = Server::builder().listen("127.0.0.1:0").unwrap().framing(Delimiter::new(b'\n'));
    let server = server.service(|| Leaving).datagrams(100).build().unwrap();
    let handle = server.handle();
    let Addr::Udp(addr) = handle.local_addrs()[1] else { panic!("no datagrams") };
    let running = std::thread::spawn(move || server.run());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for request in ["leave", "stay"] {
        client.send_to(request.as_bytes(), addr).unwrap();
    }
    let mut reply = [0; 10];
    assert_eq!(client.recv_from(&mut reply).unwrap(), (4, addr), "to the second one");
    handle.stop();
    running.join().unwrap().unwrap();
}

// ---- Framings of one's own ----

/// Lines that end with `\r\n`, which checks nothing itself.
#[derive(Debug, Clone)]
struct Crlf(u32);

impl Framing for Crlf {
    /// Whether the last byte was a `\r`.
    type State = bool;

    fn frame_len_max(&self) -> u32 {
        self.0
    }

    fn trailer_len_max(&self) -> u32 {
        2
    }

    fn scan(&self, cr: &mut bool, _: usize, bytes: &[u8]) -> Scan {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' && *cr {
                return Scan::Frame { end: at + 1, trailer: 2 };
            }
            *cr = byte == b'\r';
        }
        Scan::Incomplete
    }

    fn end_reply(&self, reply: &mut Vec<u8>) {
        reply.extend_from_slice(b"\r\n");
    }
}

#[test]
fn the_session_enforces_the_bound_of_any_framing() {
    for (len, fits) in [(0, true), (7, true), (8, true), (9, false), (10, false), (90, false)] {
        let train = [&b"a\r\n"[..], &b"x".repeat(len), b"\r\nb\r\n"].concat();
        let want = if fits { &train } else { &b"a\r\nerror: frame too long\r\n"[..] };
        let mut cuts = vec![train.chunks(1).collect::<Vec<_>>()];
        cuts.extend((0..=train.len()).map(|cut| vec![&train[..cut], &train[cut..]]));
        for pieces in cuts {
            for pending_max in [0, 1000] {
                let session = Session::new(Crlf(8), Echo).pending_max(pending_max);
                let end = drive(session, &pieces);
                assert_eq!(end.replies.escape_ascii().to_string(), want.escape_ascii().to_string());
                assert_eq!(end.ended, if fits { None } else { TOO_LONG }, "{len}: {pieces:?}");
                assert_eq!((end.served, end.unfinished), (if fits { 3 } else { 1 }, false));
            }
        }
    }
}

/// It is refused as soon as it is too long, not when it ends.
#[test]
fn no_more_than_the_bound_is_held() {
    let mut session = Session::new(Crlf(8), Echo);
    for _ in 0..9 {
        assert_eq!(session.receive(b"x"), 0);
        assert!(!session.is_closing(), "the ninth may be the start of the end");
    }
    session.receive(b"x");
    assert_eq!(session.take_ended(), TOO_LONG);
    // 64 KiB where a framing says nothing else.
    let mut session = Session::new(Nothing(Scan::Incomplete), Echo);
    session.receive(&vec![0; 64 * 1024]);
    assert!(!session.is_closing());
    session.receive(&[0]);
    assert_eq!(session.take_ended(), TOO_LONG);
    // A scalar that only EOF ends is as long as any other.
    for (value, fits) in [("12345678", true), ("123456789", false)] {
        for cut in 0..value.len() {
            let session = Session::new(JsonValue::new().max_len(8), Echo);
            let end = drive(session, &[&value.as_bytes()[..cut], &value.as_bytes()[cut..]]);
            assert_eq!(end.ended, if fits { None } else { TOO_LONG }, "{value} cut at {cut}");
        }
    }
}

/// Says the same of whatever it is shown.
#[derive(Debug, Clone)]
struct Nothing(Scan);

impl Framing for Nothing {
    type State = ();

    fn scan(&self, (): &mut (), _: usize, _: &[u8]) -> Scan {
        self.0
    }

    fn end_reply(&self, _: &mut Vec<u8>) {}
}

/// Frames of two bytes, of which it says something wrong if the first one came alone.
#[derive(Debug, Clone)]
struct WrongLater(Scan);

impl Framing for WrongLater {
    type State = ();

    fn scan(&self, (): &mut (), carried: usize, bytes: &[u8]) -> Scan {
        match (carried, bytes.len()) {
            (0, 1) => Scan::Incomplete,
            (0, _) => Scan::Frame { end: 2, trailer: 0 },
            _ => self.0,
        }
    }

    fn end_reply(&self, _: &mut Vec<u8>) {}
}

/// A framing that does not get on would keep a loop busy for ever, or serve bytes that are not
/// there. In either case the connection ends; what was served before is sent.
#[test]
fn a_framing_that_breaks_its_contract_ends_the_connection() {
    let beyond = Scan::Frame { end: 3, trailer: 0 };
    let no_frame = Scan::Frame { end: 0, trailer: 0 };
    let no_content = Scan::Frame { end: 1, trailer: 3 };
    for wrong in [Scan::Skip(0), Scan::Skip(3), no_frame, beyond, no_content] {
        let mut session = Session::new(Nothing(wrong), Echo);
        assert_eq!(session.receive(b"ab"), 0, "{wrong:?}");
        assert_eq!(session.take_ended(), Some(Ended::Panicked), "{wrong:?}");
        assert!(session.wants_shutdown(), "{wrong:?}");
    }
    for wrong in [Scan::Skip(0), Scan::Skip(1), beyond, no_content] {
        let mut session = Session::new(WrongLater(wrong), Echo);
        assert_eq!(session.receive(b"ab"), 1);
        session.receive(b"c");
        assert_eq!(session.receive(b"d"), 0, "{wrong:?}");
        assert_eq!(session.take_ended(), Some(Ended::Panicked), "{wrong:?}");
        assert_eq!(session.unsent(), b"ab", "{wrong:?}");
    }
}
