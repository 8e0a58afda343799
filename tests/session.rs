//! A session gives the same replies however its input is cut and however little is sent at once.

mod support {
    pub(crate) mod drive;
}

use c10k::Session;
use c10k::framing::{Chunk, Delimiter, Framing, JsonValue};
use c10k::service::{self, Echo, PrefixEcho, Service};
use c10k::session::SendBuffer;
use proptest::collection::vec;
use proptest::prelude::*;

use support::drive::{End, drive, drive_with, flush};

/// A train of requests, and what comes of it.
struct Case {
    train: &'static [u8],
    echo: &'static [u8],
    frames: usize,
    unfinished: bool,
}

const LINES: &[Case] = &[
    Case { train: b"", echo: b"", frames: 0, unfinished: false },
    Case { train: b"\n", echo: b"\n", frames: 1, unfinished: false },
    Case { train: b"a\n\n\nbc\n\n", echo: b"a\n\n\nbc\n\n", frames: 5, unfinished: false },
    Case {
        train: b"\0\n\xff\xfe\r\n\x80\n",
        echo: b"\0\n\xff\xfe\r\n\x80\n",
        frames: 3,
        unfinished: false,
    },
    Case { train: b"one\ntwo\nthr", echo: b"one\ntwo\n", frames: 2, unfinished: true },
    Case { train: b"never", echo: b"", frames: 0, unfinished: true },
];

const VALUES: &[Case] = &[
    Case { train: b" \n\t\r ", echo: b"", frames: 0, unfinished: false },
    Case { train: b"{}{}[]", echo: b"{}{}[]", frames: 3, unfinished: false },
    Case {
        train: b" {\"A\":7,\"B\":4}\n\n{\"a\" : [1, {\"}\": 2}]} ",
        echo: b"{\"A\":7,\"B\":4}{\"a\" : [1, {\"}\": 2}]}",
        frames: 2,
        unfinished: false,
    },
    // Scalars end where something else begins; the last one, at EOF.
    Case {
        train: b"12 -3.5e7{}true[]null",
        echo: b"12-3.5e7{}true[]null",
        frames: 6,
        unfinished: false,
    },
    Case { train: b"7\n8", echo: b"78", frames: 2, unfinished: false },
    // Quotes and backslashes, within and without.
    Case {
        train: br#""" "\"" "\\"["]\\\"["]"\\\\""#,
        echo: br#""""\"""\\"["]\\\"["]"\\\\""#,
        frames: 5,
        unfinished: false,
    },
    Case {
        train: b"\"\xff\0\xfe\"[\x01]",
        echo: b"\"\xff\0\xfe\"[\x01]",
        frames: 2,
        unfinished: false,
    },
    Case { train: b"[[[[]]]] {\"a\":{\"b\":[]", echo: b"[[[[]]]]", frames: 1, unfinished: true },
    Case { train: br#"1 "open\""#, echo: b"1", frames: 1, unfinished: true },
    // What begins no value is a value of one byte, for the service to refuse.
    Case { train: b"}x]", echo: b"}x]", frames: 3, unfinished: false },
];

/// All ways to cut `bytes` that are tried: not at all, everywhere, and at every two places.
fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut all = vec![vec![bytes], bytes.chunks(1).collect()];
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            all.push(vec![&bytes[..first], &bytes[first..second], &bytes[second..]]);
        }
    }
    all
}

/// Whatever the cut, these are the replies, this many requests are served, and it ends so.
fn assert_replies<F: Framing, S: Service>(
    make: impl Fn() -> Session<F, S>,
    train: &[u8],
    replies: &[u8],
    served: usize,
    unfinished: bool,
) {
    for pieces in cuts(train) {
        let end = drive(make(), &pieces);
        let cut: Vec<String> = pieces.iter().map(|p| p.escape_ascii().to_string()).collect();
        assert_eq!(
            end.replies.escape_ascii().to_string(),
            replies.escape_ascii().to_string(),
            "{cut:?}"
        );
        assert_eq!((end.served, end.unfinished), (served, unfinished), "{cut:?}");
    }
}

#[test]
fn echo_of_lines() {
    for case in LINES {
        let make = || Session::new(Delimiter::new(b'\n'), Echo);
        assert_replies(make, case.train, case.echo, case.frames, case.unfinished);
    }
}

#[test]
fn echo_of_json_values() {
    for case in VALUES {
        let make = || Session::new(JsonValue::new(), Echo);
        assert_replies(make, case.train, case.echo, case.frames, case.unfinished);
    }
}

#[test]
fn any_byte_may_be_the_delimiter() {
    for delimiter in [0, b'x', 0x1e, 0xff] {
        let train =
            [b"a\nb", &[delimiter][..], b"", &[delimiter], b"c", &[delimiter], b"tail"].concat();
        let make = || Session::new(Delimiter::new(delimiter), Echo);
        assert_replies(make, &train, &train[..train.len() - 4], 3, true);
    }
}

#[test]
fn a_prefix_before_each_reply() {
    let service = PrefixEcho::new(*b"> ");
    let lines = || Session::new(Delimiter::new(b'\n'), service.clone());
    assert_replies(lines, b"one\n\ntwo\nthr", b"> one\n> \n> two\n", 3, true);
    let values = || Session::new(JsonValue::new(), service.clone());
    assert_replies(values, b" {\"a\":1} 2 []", b"> {\"a\":1}> 2> []", 3, false);
}

#[test]
fn ok_to_each_request_and_nothing_after_it() {
    for case in LINES {
        let make = || Session::new(Delimiter::new(b'\n'), service::Ok);
        assert_replies(make, case.train, &b"ok".repeat(case.frames), case.frames, case.unfinished);
    }
    for case in VALUES {
        let make = || Session::new(JsonValue::new(), service::Ok);
        assert_replies(make, case.train, &b"ok".repeat(case.frames), case.frames, case.unfinished);
    }
}

#[cfg(feature = "json")]
#[test]
fn sums() {
    use c10k::service::Sum;

    let lines = || Session::new(Delimiter::new(b'\n'), Sum);
    let train = b"{\"A\":7,\"B\":4}\nx\n{\"b\":-1}\n";
    let replies =
        b"{\"Sum\":11}\n{\"Error\":\"expected value at line 1 column 1\"}\n{\"Sum\":-1}\n";
    assert_replies(lines, train, replies, 3, false);

    let values = || Session::new(JsonValue::new(), Sum);
    assert_replies(values, b"{\"A\":7,\"B\":4}{} {\"a\":1", b"{\"Sum\":11}{\"Sum\":0}", 2, true);
    // There is no way on after a value that is none: what follows is not served.
    let replies = b"{\"Sum\":1}{\"Error\":\"expected value at line 1 column 1\"}";
    assert_replies(values, b"{\"A\":1}x{\"A\":2}", replies, 2, false);
}

/// The one framing for which the cut matters: a message is what one read returned. What holds is
/// that an echo is the stream, and that there are as many replies as reads.
#[test]
fn a_chunk_is_served_as_it_came() {
    let stream = b"a\n{}\0\xff bc";
    for pieces in cuts(stream) {
        let reads = pieces.iter().filter(|piece| !piece.is_empty()).count();
        let end = drive(Session::new(Chunk::new(), Echo), &pieces);
        assert_eq!((&end.replies[..], end.served, end.unfinished), (&stream[..], reads, false));
        let end = drive(Session::new(Chunk::new(), service::Ok), &pieces);
        assert_eq!(end.replies, b"ok".repeat(reads));
        let end = drive(Session::new(Chunk::new(), PrefixEcho::new(*b">")), &pieces);
        let want: Vec<u8> =
            pieces.iter().filter(|p| !p.is_empty()).flat_map(|p| [b">", *p].concat()).collect();
        assert_eq!(end.replies, want);
    }
}

// ---- Sending ----

const TRAIN: &[u8] = b"one\n\nthree\nfour and five\n\xff\0\nsix\n";

#[test]
fn short_writes_lose_nothing() {
    for n in 1..=TRAIN.len() {
        let mut session = Session::new(Delimiter::new(b'\n'), Echo);
        assert_eq!(session.receive(TRAIN), 6);
        let mut sent = Vec::new();
        while session.wants_write() {
            let now = &session.unsent()[..n.min(session.unsent().len())];
            sent.extend_from_slice(now);
            session.advance(now.len());
        }
        assert_eq!(sent, TRAIN, "{n} at a time");
        assert!(session.unsent().is_empty() && session.wants_read());
    }
}

#[test]
fn sessions_share_one_send_buffer() {
    for lent in [true, false] {
        for size in 1..=TRAIN.len() {
            let mut spare: Option<Box<SendBuffer>> = Some(Box::default());
            let mut sessions: Vec<_> = (0..3)
                .map(|_| (Session::new(Delimiter::new(b'\n'), Echo), TRAIN, Vec::new()))
                .collect();
            // Each in turn receives a little and sends a little, so that at any time some have
            // unsent replies and some have none.
            let mut turn = 0;
            while sessions
                .iter()
                .any(|(session, input, _)| session.wants_write() || !input.is_empty())
            {
                let (session, input, sent) = &mut sessions[turn % 3];
                if lent {
                    session.lend(&mut spare);
                }
                let (piece, rest) = input.split_at(input.len().min(1 + (size + turn) % 7));
                session.receive(piece);
                *input = rest;
                let n = session.unsent().len().min(1 + (turn % 3) * size / 3);
                sent.extend_from_slice(&session.unsent()[..n]);
                session.advance(n);
                if lent {
                    session.reclaim(&mut spare);
                    assert!(spare.is_some(), "it is lent to the next");
                }
                turn += 1;
            }
            for (_, _, sent) in &sessions {
                assert_eq!(sent, TRAIN, "size {size}, lent {lent}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "more was sent than there was")]
fn sending_more_than_there_was_is_a_bug() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    session.receive(b"ab\n");
    session.advance(4);
}

#[test]
fn a_driver_may_push_what_is_no_reply() {
    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    session.push(|_, reply| reply.extend(b"hello"));
    session.receive(b"a\n");
    session.push(|_, reply| {
        reply.extend(b"raw");
        reply.unterminated();
    });
    assert_eq!(flush(&mut session), b"hello\na\nraw");
}

/// A connection's share of memory is part of the promise: this is not to grow unnoticed.
#[test]
fn a_session_is_small() {
    assert!(size_of::<Session<Delimiter, Echo>>() <= 40);
    assert!(size_of::<Session<JsonValue, PrefixEcho>>() <= 48);
}

// ---- At random ----

/// A request, what separates it from the next, and whether that may be left out.
fn json_value() -> impl Strategy<Value = (String, bool)> {
    let closed = prop_oneof![
        Just("{}".to_owned()),
        "\\{\"[a\\]}{]{0,3}\":[0-9]{1,3}\\}",
        "\\[[0-9]{1,2}(,\\{\\}){0,3}\\]",
        r#""([a-z{}\[\]]|\\\\|\\"){0,5}""#,
    ];
    let scalar = prop_oneof!["-?[0-9]{1,4}", Just("true".to_owned()), Just("null".to_owned())];
    prop_oneof![3 => closed.prop_map(|v| (v, true)), 1 => scalar.prop_map(|v| (v, false))]
}

const LEN_MAX: usize = 12;

/// What should come of a train: the replies to the frames up to the first that is too long.
fn oracle(frames: &[Vec<u8>], end_of_reply: &[u8]) -> (Vec<u8>, bool) {
    let mut replies = Vec::new();
    for frame in frames {
        if frame.len() > LEN_MAX {
            replies.extend_from_slice(b"error: frame too long");
            replies.extend_from_slice(end_of_reply);
            return (replies, true);
        }
        replies.extend_from_slice(frame);
        replies.extend_from_slice(end_of_reply);
    }
    (replies, false)
}

/// How much is received, then how much is sent, over and over.
fn sizes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    vec((1..40_usize, 1..30_usize), 1..12)
}

fn check<F: Framing>(
    framing: F,
    train: &[u8],
    want: &(Vec<u8>, bool),
    unfinished: bool,
    pending_max: u32,
    sizes: &[(usize, usize)],
) -> Result<(), TestCaseError> {
    let make = || Session::new(framing.clone(), Echo).pending_max(pending_max);
    for lend in [false, true] {
        let End { replies, ended, unfinished: dropped, unsent_peak, .. } =
            drive_with(make(), train, sizes, lend);
        prop_assert_eq!(replies.escape_ascii().to_string(), want.0.escape_ascii().to_string());
        prop_assert_eq!(ended.is_some(), want.1);
        prop_assert_eq!(dropped, unfinished && !want.1);
        let reply_max = "error: frame too long\n".len();
        prop_assert!(unsent_peak <= pending_max as usize + reply_max, "{} unsent", unsent_peak);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn lines_as_the_oracle_says(
        frames in vec(vec(prop_oneof![any::<u8>(), Just(b'x')], 0..LEN_MAX + 2), 0..20),
        tail in vec(b'a'..=b'z', 0..LEN_MAX),
        pending_max in 0..60_u32,
        sizes in sizes(),
    ) {
        let frames: Vec<Vec<u8>> =
            frames.iter().map(|f| f.iter().map(|b| if *b == b'\n' { b'.' } else { *b }).collect()).collect();
        let mut train: Vec<u8> = frames.iter().flat_map(|f| [f, &b"\n"[..]].concat()).collect();
        train.extend_from_slice(&tail);
        let want = oracle(&frames, b"\n");
        let framing = Delimiter::new(b'\n').max_len(LEN_MAX as u32);
        check(framing, &train, &want, !tail.is_empty(), pending_max, &sizes)?;
    }

    #[test]
    fn json_values_as_the_oracle_says(
        values in vec((json_value(), "[ \n\t]{0,3}"), 0..20),
        tail in prop_oneof![Just(""), Just("{\"a\":["), Just("\"\\\"")],
        pending_max in 0..60_u32,
        sizes in sizes(),
    ) {
        let mut train = String::new();
        for ((value, closed), blank) in &values {
            train.push_str(value);
            train.push_str(if blank.is_empty() && !closed { " " } else { blank });
        }
        train.push_str(tail);
        let frames: Vec<Vec<u8>> =
            values.iter().map(|((value, _), _)| value.clone().into_bytes()).collect();
        let want = oracle(&frames, b"");
        let framing = JsonValue::new().max_len(LEN_MAX as u32);
        check(framing, train.as_bytes(), &want, !tail.is_empty(), pending_max, &sizes)?;
    }
}
