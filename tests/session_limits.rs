//! What a session does at its limits, and how it ends.

mod support {
    pub(crate) mod drive;
}

use std::panic::resume_unwind;

use c10k::Session;
use c10k::framing::{Chunk, Delimiter, Framing, JsonValue};
use c10k::service::{Echo, Outcome, PrefixEcho, Refusal, Reply, Service};
use c10k::session::{Ended, LINGER_MAX};

use support::drive::{drive, flush};

const TOO_LONG: Option<Ended> = Some(Ended::Refused(Refusal::FrameTooLong));

// ---- Frames that are too long ----

/// A train whose second frame is `frame`, whole and cut at each place: all of it is echoed if it
/// fits; if not, an error stands in its place and what follows is dropped.
fn assert_limit<F: Framing>(framing: F, train: [&[u8]; 3], fits: bool, error: &[u8]) {
    let whole = train.concat();
    let want = if fits { whole.clone() } else { [train[0], error].concat() };
    for cut in 0..=whole.len() {
        let (one, two) = whole.split_at(cut);
        let end = drive(Session::new(framing.clone(), Echo), &[one, two]);
        let train = whole.escape_ascii();
        assert_eq!(end.replies.escape_ascii().to_string(), want.escape_ascii().to_string());
        assert_eq!(end.ended, if fits { None } else { TOO_LONG }, "{train} cut at {cut}");
        assert_eq!(end.served, if fits { 3 } else { 1 }, "{train} cut at {cut}");
    }
}

#[test]
fn limits_are_exact() {
    let line = |n: usize| [&b"x".repeat(n)[..], b"\n"].concat();
    for (n, fits) in [(7, true), (8, true), (9, false), (30, false)] {
        let framing = Delimiter::new(b'\n').max_len(8);
        assert_limit(framing, [b"a\n", &line(n), b"b\n"], fits, b"error: frame too long\n");
    }
    // The limit of JSON counts the value, not the blanks before it.
    for (value, fits) in [
        ("[12345]", true),
        ("[123456]", true),
        ("[1234567]", false),
        ("\"123456\"", true),
        ("\"1234567\"", false),
        ("[[[[[[[[[[[[[[", false),
    ] {
        let framing = JsonValue::new().max_len(8);
        assert_limit(framing, [b"{}", value.as_bytes(), b"[]"], fits, b"error: frame too long");
    }
    // Of a scalar nobody knows that it is whole until something else begins.
    for (value, fits) in [("1234567", true), ("12345678", true), ("123456789", false)] {
        let framing = JsonValue::new().max_len(8);
        assert_limit(framing, [b"{}", value.as_bytes(), b"[]"], fits, b"error: frame too long");
    }
}

#[test]
fn blanks_between_json_values_have_no_limit() {
    let blank = b" \n".repeat(100);
    let mut session = Session::new(JsonValue::new().max_len(8), Echo);
    assert_eq!(session.receive(&[&blank[..], b"[12345]", &blank].concat()), 1);
    assert_eq!(session.receive(&blank), 0);
    assert_eq!(session.unsent(), b"[12345]");
    session.receive_eof();
    assert!(!session.dropped_unfinished());
}

#[test]
fn a_limit_of_nothing_allows_empty_lines() {
    let framing = Delimiter::new(b'\n').max_len(0);
    let end = drive(Session::new(framing, Echo), &[b"\n\n", b"x"]);
    assert_eq!((&end.replies[..], end.ended), (&b"\n\nerror: frame too long\n"[..], TOO_LONG));
}

#[test]
fn a_chunk_may_be_too_long_by_itself_only() {
    let framing = Chunk::new().max_len(8);
    let end = drive(Session::new(framing, Echo), &[&b"x".repeat(7), &b"y".repeat(8)]);
    assert_eq!((&end.replies[..], end.ended), (&b"xxxxxxxyyyyyyyy"[..], None));
    let end = drive(Session::new(framing, Echo), &[b"x", &b"y".repeat(9), b"z"]);
    assert_eq!((&end.replies[..], end.ended), (&b"xerror: frame too long"[..], TOO_LONG));
}

#[cfg(feature = "json")]
#[test]
fn sum_refuses_in_json() {
    use c10k::service::Sum;

    let long = [&b"{\"A\":"[..], &b"1".repeat(30)].concat();
    let end = drive(Session::new(JsonValue::new().max_len(16), Sum), &[b"{}", &long]);
    assert_eq!(end.replies, b"{\"Sum\":0}{\"Error\":\"frame too long\"}");
    let end = drive(Session::new(Delimiter::new(b'\n').max_len(16), Sum), &[b"{}\n", &long]);
    assert_eq!(end.replies, b"{\"Sum\":0}\n{\"Error\":\"frame too long\"}\n");
}

/// The steps from the refusal to the close, each in its turn.
#[test]
fn after_a_refusal_the_error_can_arrive() {
    let mut session = Session::new(Delimiter::new(b'\n').max_len(8), Echo);
    assert_eq!(session.receive(b"a\n0123456789"), 1);
    assert!(session.is_closing() && !session.is_done());
    assert!(session.wants_write() && !session.wants_read() && !session.wants_shutdown());
    assert_eq!(session.receive(b"b\n"), 0);
    session.receive_eof();
    assert_eq!(session.take_ended(), TOO_LONG);
    assert_eq!(session.take_ended(), None, "told once");

    session.advance(5);
    assert!(!session.wants_shutdown(), "there is more to send");
    assert_eq!(flush(&mut session), b"or: frame too long\n");
    assert!(session.wants_shutdown() && !session.wants_read() && !session.is_done());
    session.shut_down();
    assert!(session.wants_read() && !session.wants_shutdown() && !session.is_done());
    assert_eq!(session.receive(b"c\n"), 0, "it discards");
    assert!(!session.wants_write() && !session.is_done());
    session.receive_eof();
    assert!(session.is_done() && !session.wants_read());
}

#[test]
fn lingering_has_a_bound() {
    let closing = || {
        let mut session = Session::new(Delimiter::new(b'\n'), Echo);
        session.close();
        session.shut_down();
        session
    };
    let piece = vec![b'x'; LINGER_MAX as usize / 16];
    let mut session = closing();
    for _ in 0..16 {
        session.receive(&piece);
        assert!(!session.is_done());
    }
    session.receive(b"x");
    assert!(session.is_done() && !session.wants_read());

    // At once, beyond what the counter can hold.
    let mut session = closing();
    session.receive(&vec![0; LINGER_MAX as usize + 1]);
    assert!(session.is_done());
}

// ---- Backpressure ----

/// Ten numbered requests, each of eight bytes with its delimiter.
fn numbered() -> Vec<u8> {
    (0..10).flat_map(|i| format!("req {i:03}\n").into_bytes()).collect()
}

#[test]
fn past_pending_max_it_suspends() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo).pending_max(16);
    let train = numbered();
    assert_eq!(session.receive(&train), 3, "two fit, the third crosses the line");
    assert_eq!(session.unsent(), &train[..24]);
    assert!(!session.wants_read() && !session.wants_resume());

    session.advance(23);
    assert!(!session.wants_read() && !session.wants_resume(), "until all of it is sent");
    session.advance(1);
    assert!(session.wants_resume() && !session.wants_read() && !session.is_done());
    assert_eq!(session.resume(), 3);
    assert_eq!(flush(&mut session), &train[24..48]);
    assert_eq!(session.resume(), 3);
    assert_eq!(flush(&mut session), &train[48..72]);
    assert_eq!(session.resume(), 1);
    assert!(session.wants_read(), "nothing is held any more, and there is room");
    assert_eq!(flush(&mut session), &train[72..]);
    assert!(!session.wants_resume() && session.wants_read());
}

#[test]
fn nothing_held_means_no_more_than_a_pause() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo).pending_max(16);
    session.receive(&numbered()[..24]);
    assert!(!session.wants_read() && !session.wants_resume());
    session.advance(7);
    assert!(!session.wants_read(), "17 are left");
    session.advance(1);
    assert!(session.wants_read(), "16 are allowed");
}

#[test]
fn no_request_is_lost_whatever_the_bound() {
    let train = numbered();
    for pending_max in [0, 1, 7, 8, 9, 16, 79, 80, 1000] {
        for send in [1, 3, 8, 11, 100] {
            let session = || Session::new(Delimiter::new(b'\n'), Echo).pending_max(pending_max);
            let end = support::drive::drive_with(session(), &train, &[(33, send)], true);
            assert_eq!((end.replies, end.served), (train.clone(), 10), "{pending_max}, {send}");
            assert!(end.unsent_peak <= pending_max as usize + 8);
        }
    }
}

#[test]
fn eof_while_suspended_still_answers_everything() {
    let train = [&numbered()[..], b"unfinished"].concat();
    let mut session = Session::new(Delimiter::new(b'\n'), Echo).pending_max(16);
    let mut served = session.receive(&train);
    assert_eq!(session.receive_eof(), 0, "there is no room for more replies");
    assert!(!session.dropped_unfinished() && !session.is_done());
    let mut replies = flush(&mut session);
    while session.wants_resume() {
        assert!(!session.is_done());
        served += session.resume();
        replies.extend(flush(&mut session));
    }
    assert_eq!((replies, served), (numbered(), 10));
    assert!(session.is_done() && session.dropped_unfinished());
    assert_eq!(session.take_ended(), None, "that was the peer's own end");
}

#[test]
fn a_scalar_that_eof_ends_is_served_also_after_a_pause() {
    let mut session = Session::new(JsonValue::new(), Echo);
    assert_eq!(session.receive(b"12"), 0);
    assert_eq!(session.receive_eof(), 1);
    assert_eq!((flush(&mut session), session.is_done()), (b"12".to_vec(), true));

    let mut session = Session::new(JsonValue::new(), Echo).pending_max(0);
    assert_eq!(session.receive(b"{}34"), 1);
    assert_eq!(session.receive_eof(), 0);
    assert_eq!(flush(&mut session), b"{}");
    assert_eq!(session.resume(), 1);
    assert_eq!((flush(&mut session), session.is_done()), (b"34".to_vec(), true));
    assert!(!session.dropped_unfinished());
}

#[test]
fn half_close() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    session.receive(b"a\nb\n");
    session.receive_eof();
    assert!(!session.wants_read() && !session.is_done() && !session.is_closing());
    assert!(!session.wants_shutdown(), "closing is enough: the peer has nothing more to say");
    session.advance(3);
    assert!(!session.is_done());
    session.advance(1);
    assert!(session.is_done() && !session.dropped_unfinished());
}

// ---- Outcomes ----

/// Does what the first byte of a request says, and otherwise echoes.
struct Obey {
    calls: usize,
}

impl Service for Obey {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        self.calls += 1;
        reply.extend(request);
        match request.first() {
            Some(b's') => Outcome::Silence,
            Some(b't') => {
                reply.clear();
                assert!(reply.is_empty());
                reply.extend(b"cleared");
                assert_eq!(reply.len(), 7);
                Outcome::Reply
            }
            Some(b'r' | b'}') => Outcome::Reject,
            Some(b'c' | b'[') => Outcome::Close,
            // As a panic, but without the noise.
            Some(b'p' | b'n') => resume_unwind(Box::new("a panic of the service")),
            _ => Outcome::Reply,
        }
    }

    fn refuse(&mut self, _: Refusal, reply: &mut Reply<'_>) {
        reply.extend(b"half an err");
        resume_unwind(Box::new("a panic of the refusal"));
    }
}

#[test]
fn outcomes() {
    type Row = (&'static [u8], &'static [u8], usize, Option<Ended>);
    let lines: &[Row] = &[
        (b"a\ns\nb\nss\n", b"a\nb\n", 4, None),
        (b"s\n", b"", 1, None),
        (b"a\nt\nb\n", b"a\ncleared\nb\n", 3, None),
        (b"a\nr\nb\n", b"a\nr\nb\n", 3, None),
        (b"a\nc\nb\nc\n", b"a\nc\n", 2, Some(Ended::ByService)),
        (b"a\np\nb\n", b"a\n", 1, Some(Ended::Panicked)),
        (b"panic\n", b"", 0, Some(Ended::Panicked)),
        (b"a\n0123456789", b"a\n", 1, Some(Ended::Panicked)),
    ];
    let values: &[Row] = &[
        (b"1 2{}", b"12{}", 3, None),
        (b"1 }2", b"1}", 2, Some(Ended::Malformed)),
        (b"1[]2", b"1[]", 2, Some(Ended::ByService)),
        (b"1 null", b"1", 1, Some(Ended::Panicked)),
    ];
    for &(train, replies, served, ended) in lines {
        for cut in 0..=train.len() {
            for pending_max in [0, 1000] {
                let framing = Delimiter::new(b'\n').max_len(8);
                let session = Session::new(framing, Obey { calls: 0 }).pending_max(pending_max);
                let end = drive(session, &[&train[..cut], &train[cut..]]);
                let what = format!("{} cut at {cut}", train.escape_ascii());
                assert_eq!(end.replies, replies, "{what}");
                assert_eq!((end.served, end.ended), (served, ended), "{what}");
            }
        }
    }
    for &(train, replies, served, ended) in values {
        for cut in 0..=train.len() {
            for pending_max in [0, 1000] {
                let session = Session::new(JsonValue::new(), Obey { calls: 0 });
                let end = drive(session.pending_max(pending_max), &[&train[..cut], &train[cut..]]);
                let what = format!("{} cut at {cut}", train.escape_ascii());
                assert_eq!(end.replies, replies, "{what}");
                assert_eq!((end.served, end.ended), (served, ended), "{what}");
            }
        }
    }
}

#[test]
fn after_close_the_service_is_not_called() {
    let mut session = Session::new(Delimiter::new(b'\n'), Obey { calls: 0 });
    session.receive(b"a\nc\nb\nb\n");
    assert_eq!(session.service().calls, 2);
    session.receive(b"b\n");
    flush(&mut session);
    session.shut_down();
    session.receive(b"b\n");
    assert_eq!(session.service_mut().calls, 2);
}

#[test]
fn a_panic_after_most_was_sent_leaves_the_rest() {
    let mut session = Session::new(Delimiter::new(b'\n'), Obey { calls: 0 });
    session.receive(b"one\n");
    session.advance(3);
    assert_eq!(session.receive(b"panic\n"), 0);
    assert_eq!(session.unsent(), b"\n");
}

#[test]
fn a_panic_leaves_the_replies_before_it_whole() {
    let mut session = Session::new(Delimiter::new(b'\n'), Obey { calls: 0 });
    session.receive(b"one\n");
    session.advance(2); // a send fell short
    assert_eq!(session.receive(b"dos\npan"), 1);
    assert_eq!(session.receive(b"ic\nb\n"), 0);
    assert_eq!(session.unsent(), b"e\ndos\n");
    assert!(session.is_closing() && !session.wants_read());
    assert_eq!(session.take_ended(), Some(Ended::Panicked));
    assert_eq!(session.take_ended(), None);
    flush(&mut session);
    assert!(session.wants_shutdown());
}

// ---- The driver's close ----

#[test]
fn the_driver_may_close() {
    let mut session = Session::new(Delimiter::new(b'\n'), PrefixEcho::new(*b"> "));
    session.receive(b"a\nb\nunfin");
    session.close();
    session.close();
    assert!(session.is_closing() && !session.wants_read() && !session.wants_shutdown());
    assert_eq!(session.receive(b"ished\n"), 0, "it serves no more");
    assert_eq!(flush(&mut session), b"> a\n> b\n");
    assert!(session.wants_shutdown());
    session.shut_down();
    assert!(session.wants_read() && !session.is_done());
    session.receive_eof();
    assert!(session.is_done());
    assert_eq!(session.take_ended(), Some(Ended::ByDriver));
    assert_eq!(session.take_ended(), None);
}

#[test]
fn a_close_changes_nothing_that_has_ended() {
    let mut session = Session::new(Delimiter::new(b'\n').max_len(1), Echo);
    session.receive(b"xx");
    session.close();
    assert_eq!(session.take_ended(), TOO_LONG, "the first reason counts");
    flush(&mut session);
    session.shut_down();
    session.close();
    assert!(session.wants_read() && !session.wants_shutdown(), "it is past that");
    session.receive_eof();
    session.close();
    assert!(session.is_done());
    assert_eq!(session.take_ended(), None);
}

#[test]
fn a_close_drops_what_was_held_back() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo).pending_max(0);
    assert_eq!(session.receive(b"a\nb\n"), 1);
    session.close();
    assert_eq!(flush(&mut session), b"a\n");
    assert!(!session.wants_resume() && session.wants_shutdown());
}
