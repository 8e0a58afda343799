//! What goes over the wire, to the letter, whatever serves it.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::Shutdown;

use common::client::assert_same;
use common::{EVERY_MODEL, Server, ask, each_of, ends, exchange, expect, expect_eof};

#[test]
fn echo_replies_each_frame() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &[]);
        let mut client = server.connect();
        // Several frames in one write, empty ones, and bytes that mean something elsewhere.
        for request in
            [&b"hello\n"[..], b"one\ntwo\nthree\n", b"\n", b"\n\n\n", b"a\r\n", b"\0\t\x1e\xff\n"]
        {
            ask(&mut client, request, request);
        }
        // Part of a frame is not answered; the rest of it is.
        client.write_all(b"first\nsec").unwrap();
        expect(&mut client, b"first\n");
        ask(&mut client, b"ond\n", b"second\n");
        drop(client);
        let outcome = server.stop();
        let summary = outcome.summary();
        assert_eq!((summary.requests, summary.connections, summary.peak), (12, 1, 1));
        assert_eq!((summary.refused, summary.errors), (0, 0));
        assert_eq!(outcome.count("bytes_in"), outcome.count("bytes_out"));
    });
}

#[test]
fn delimiters_and_prefix() {
    // How the delimiter is written on the command line, and the byte.
    let cases: &[(&[&str], u8, &str)] = &[
        (&[], b'\n', ""),
        (&["--delimiter", r"\t"], b'\t', ""),
        (&["--delimiter", r"\0"], 0, ""),
        (&["--delimiter", "0x1e"], 0x1e, ""),
        (&["--delimiter", "x"], b'x', ""),
        (&["--prefix", "server got:"], b'\n', "server got:"),
        (&["--prefix", "> ", "--delimiter", r"\0"], 0, "> "),
    ];
    each_of(EVERY_MODEL, |model| {
        for (args, byte, prefix) in cases {
            let server = Server::start(model, args);
            let mut client = server.connect();
            let (mut request, mut reply) = (Vec::new(), Vec::new());
            // Other delimiters are content. `x` stands for none of the text.
            for text in ["7", "", "a\tb", "a\nb", "a\0b", "a\u{1e}b"] {
                for part in text.as_bytes().split(|found| found == byte) {
                    request.extend([part, &[*byte]].concat());
                    reply.extend([prefix.as_bytes(), part, &[*byte]].concat());
                }
            }
            ask(&mut client, &request, &reply);
            client.shutdown(Shutdown::Write).unwrap();
            expect_eof(&mut client);
        }
    });
}

#[test]
fn one_byte_at_a_time_and_every_cut() {
    let train = b"one\n\ntwo two\nthree\n";
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", ">"]);
        let want = b">one\n>\n>two two\n>three\n";
        let mut client = server.connect();
        for byte in train {
            client.write_all(&[*byte]).unwrap();
        }
        expect(&mut client, want);
        // Waiting for each reply makes the server see each byte alone.
        let (mut sent, mut replies) = (0, want.split_inclusive(|byte| *byte == b'\n'));
        for byte in train {
            client.write_all(&[*byte]).unwrap();
            sent += 1;
            if *byte == b'\n' {
                expect(&mut client, replies.next().unwrap());
            }
        }
        assert_eq!(sent, train.len());
        // Any cut in two, and the second part only when the first was answered.
        for cut in 0..=train.len() {
            let (first, second) = train.split_at(cut);
            let whole = first.iter().filter(|byte| **byte == b'\n').count();
            let lines: Vec<&[u8]> = want.split_inclusive(|byte| *byte == b'\n').collect();
            ask(&mut client, first, &lines[..whole].concat());
            ask(&mut client, second, &lines[whole..].concat());
        }
    });
}

#[test]
fn sum_under_json_framing() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--protocol", "sum"]);
        let mut client = server.connect();
        // The client of the book: it writes a value with nothing after it, and waits.
        for (request, reply) in [
            (r#"{"A":7,"B":4}"#, r#"{"Sum":11}"#),
            (r#" { "b" : -4 , "a" : 7 } "#, r#"{"Sum":3}"#),
            (r#"{"A":7}"#, r#"{"Sum":7}"#),
            ("\n{}\r\n", r#"{"Sum":0}"#),
            (r#"{"C":[1,{"D":"}"}],"B":1}"#, r#"{"Sum":1}"#),
            (r#"{"A":9223372036854775807,"B":-9223372036854775808}"#, r#"{"Sum":-1}"#),
            (r#"{"A":1,"B":1}{"A":2,"B":2}"#, r#"{"Sum":2}{"Sum":4}"#),
        ] {
            ask(&mut client, request.as_bytes(), reply.as_bytes());
        }
        client.shutdown(Shutdown::Write).unwrap();
        expect_eof(&mut client);

        // After what makes no sense there is no finding the next value: an error, then EOF.
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for (request, part) in [
            (r#"{"A":9223372036854775807,"B":1}{"A":1}"#, "64 bits"),
            (r#"{"A":9223372036854775808}"#, "line 1"),
            (r#"{"A":"7"}"#, "line 1"),
            (r#"{"A":1.5}"#, "line 1"),
            (r#"{"A":1e99999}"#, "line 1"),
            (r#"{"A" 7}"#, "line 1"),
            ("[1,2]", "line 1"),
            ("}", "line 1"),
            ("x", "line 1"),
            ("12 ", "12"),
            ("\0", "line 1"),
            (&deep, "line 1"),
        ] {
            let mut client = server.connect();
            client.write_all(br#"{"A":1}"#).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client.write_all(br#"{"A":1}"#).unwrap();
            let replies = String::from_utf8(ends(&mut client)).unwrap();
            let error = replies.strip_prefix(r#"{"Sum":1}"#).expect(&replies);
            assert_is_error(error, part);
        }
        // A number is whole only when something follows, or nothing does.
        let replies = exchange(server.connect(), b"12");
        assert_is_error(std::str::from_utf8(&replies).unwrap(), "12");
        let outcome = server.stop();
        assert_eq!(outcome.count("malformed"), 12 + 1, "each was counted");
    });
}

#[track_caller]
fn assert_is_error(reply: &str, part: &str) {
    let value: serde_json::Value = serde_json::from_str(reply).expect(reply);
    let why = value["Error"].as_str().expect(reply);
    assert!(why.contains(part), "{why} should name {part}");
}

#[test]
fn sum_under_delimiter_framing() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--protocol", "sum", "--framing", "delimiter"]);
        let mut client = server.connect();
        ask(&mut client, b"{\"A\":7,\"B\":4}\n", b"{\"Sum\":11}\n");
        // The connection goes on after any of these.
        for request in ["{\"A\":", "", "junk", "{\"A\":9223372036854775807,\"B\":1}", "\u{fffd}"] {
            client.write_all(request.as_bytes()).unwrap();
            client.write_all(b"\n{\"B\":5}\n").unwrap();
            let mut reply = read_line(&mut client);
            assert_eq!(reply.pop(), Some(b'\n'));
            assert_is_error(std::str::from_utf8(&reply).unwrap(), "");
            expect(&mut client, b"{\"Sum\":5}\n");
        }
        ask(&mut client, b"\xff\xfe\n{}\n", &{
            let mut want = Vec::new();
            want.extend(b"{\"Error\":\"expected value at line 1 column 1\"}\n{\"Sum\":0}\n");
            want
        });
    });
}

/// Byte by byte: nothing after the line may be taken.
fn read_line(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the rest of the line");
        line.push(byte[0]);
    }
    line
}

#[test]
fn ok_replies_ok_to_each_message() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--protocol", "ok"]);
        let mut client = server.connect();
        for message in [&b"x"[..], b"hello\nworld\n", &[0; 1000]] {
            ask(&mut client, message, b"ok");
        }
        client.shutdown(Shutdown::Write).unwrap();
        expect_eof(&mut client);
        drop(client);

        let server = Server::start(model, &["--protocol", "ok", "--framing", "delimiter"]);
        ask(&mut server.connect(), b"one\ntwo\n", b"okok");
    });
}

#[test]
fn half_close_gets_every_reply_and_then_eof() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", "reply to "]);
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        for n in 0..20_000 {
            writeln!(requests, "{n}").unwrap();
            writeln!(replies, "reply to {n}").unwrap();
        }
        assert_same(&exchange(server.connect(), &requests), &replies);
        // Nothing at all, and EOF in the same packet as a request.
        assert_same(&exchange(server.connect(), b""), b"");
        assert_same(&exchange(server.connect(), b"last\n"), b"reply to last\n");
        let outcome = server.stop();
        assert_eq!(outcome.summary().requests, 20_001);
        assert_eq!(outcome.count("unfinished"), 0);
        assert_eq!(outcome.summary().errors, 0);
    });
}

#[test]
fn an_unfinished_frame_at_eof_is_dropped_and_counted() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &[]);
        assert_same(&exchange(server.connect(), b"whole\nunfinished"), b"whole\n");
        assert_same(&exchange(server.connect(), b"unfinished"), b"");
        let outcome = server.stop();
        assert_eq!(outcome.count("unfinished"), 2);
        assert_eq!(outcome.summary().requests, 1);

        let server = Server::start(model, &["--protocol", "sum"]);
        assert_same(&exchange(server.connect(), br#"{"A":1}{"A":"#), br#"{"Sum":1}"#);
        assert_eq!(server.stop().count("unfinished"), 1);
    });
}

#[test]
fn large_replies_in_small_windows() {
    // Far more than the socket buffers hold, both ways at once.
    let frame = [&[b'm'; 50_000][..], b"\n"].concat();
    let requests = frame.repeat(200);
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--max-pending", "64KiB"]);
        assert_same(&exchange(server.connect(), &requests), &requests);
        assert_eq!(server.stop().summary().requests, 200);
    });
}
