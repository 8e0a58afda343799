//! Frames at and over the limit: the error must arrive, and memory must not follow the frame.

#![cfg(feature = "cli")]

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use common::client::{assert_same, is_end, write_until_lost};
use common::kernel::peak_resident;
use common::{EVERY_MODEL, PROCESSES, Server, ask, each_model, each_of, ends, expect, expect_eof};
use nix::sys::socket::{setsockopt, sockopt};

const TOO_LONG: &[u8] = b"error: frame too long\n";

/// Frames of about the limit, for each framing: what makes one of a length, the reply, and the
/// reply to one that is too long.
struct Case {
    args: &'static [&'static str],
    frame: fn(usize) -> Vec<u8>,
    reply: fn(&[u8]) -> Vec<u8>,
    error: &'static [u8],
}

const CASES: &[Case] = &[
    Case {
        args: &[],
        frame: |len| [&vec![b'm'; len][..], b"\n"].concat(),
        reply: <[u8]>::to_vec,
        error: TOO_LONG,
    },
    Case {
        args: &["--protocol", "sum"],
        // The rest of the length is white space within the value.
        frame: |len| [br#"{"A":1"#, &vec![b' '; len - 7][..], b"}"].concat(),
        reply: |_| br#"{"Sum":1}"#.to_vec(),
        error: br#"{"Error":"frame too long"}"#,
    },
];

#[test]
fn the_limit_is_exact() {
    each_of(EVERY_MODEL, |model| {
        for case in CASES {
            // A limit below what one read takes, the default one (which is that), and one above.
            for (limit, text) in [(100, "100"), (64 << 10, "64KiB"), (300_000, "300000")] {
                let server = Server::start(model, &[case.args, &["--max-frame", text]].concat());
                let mut client = server.connect();
                for len in [limit - 1, limit, limit - 1] {
                    let frame = (case.frame)(len);
                    ask(&mut client, &frame, &(case.reply)(&frame));
                }
                // In one piece with a good one before it, and one after it that is not served.
                let good = (case.frame)(10);
                let train = [&good[..], &(case.frame)(limit + 1), &good].concat();
                client.write_all(&train).unwrap();
                expect(&mut client, &(case.reply)(&good));
                expect(&mut client, case.error);
                assert_same(&ends(&mut client), b"");
                drop(client);
                // Without its end, which is not waited for.
                let mut client = server.connect();
                client.write_all(&(case.frame)(limit + 2)[..=limit]).unwrap();
                expect(&mut client, case.error);
                expect_eof(&mut client);
                drop(client);
                // Byte by byte over the edge.
                let mut client = server.connect();
                let frame = (case.frame)(limit + 1);
                client.write_all(&frame[..limit]).unwrap();
                client.write_all(&frame[limit..=limit]).unwrap();
                expect(&mut client, case.error);
                expect_eof(&mut client);
                drop(client);
                let outcome = server.stop();
                assert_eq!(outcome.count("refused_frame_too_long"), 3);
                assert_eq!(outcome.summary().requests, 4);
                assert_eq!(outcome.summary().refused, 3);
            }
        }
    });
}

#[test]
fn a_chunk_over_the_limit_is_refused_too() {
    each_of(EVERY_MODEL, |model| {
        let args = ["--protocol", "ok", "--max-frame", "1000"];
        let server = Server::start(model, &args);
        let mut client = server.connect();
        ask(&mut client, &[b'x'; 1000], b"ok");
        client.write_all(&[b'x'; 1001]).unwrap();
        assert_same(&ends(&mut client), b"error: frame too long");
    });
}

#[test]
fn the_error_arrives_although_the_client_keeps_sending() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--max-frame", "1000"]);
        let mut client = server.connect();
        ask(&mut client, b"good\n", b"good\n");
        let mut sender = client.try_clone().unwrap();
        // Closing with all this unread would send a reset, which can overtake the error.
        let sending = thread::spawn(move || write_until_lost(&mut sender, &[b'm'; 4096], 1 << 30));
        expect(&mut client, TOO_LONG);
        // Only then EOF, or a reset for what was sent too much.
        match client.read(&mut [0; 16]) {
            Ok(n) => assert_eq!(n, 0, "nothing follows the error"),
            Err(error) => assert!(is_end(&error), "{error}"),
        }
        let sent = sending.join().unwrap();
        assert!(sent < 1 << 30, "the server took it all");
    });
}

#[test]
fn the_error_arrives_behind_replies_on_their_way() {
    // The replies are in the server's kernel when the frame is refused: a reset would destroy
    // them, and the error behind them.
    let prefix = "p".repeat(1000);
    let want = format!("{prefix}\n").repeat(1000) + "error: frame too long\n";
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", &prefix, "--max-frame", "100"]);
        let mut client = server.connect();
        setsockopt(&client, sockopt::RcvBuf, &(64 << 10)).unwrap();
        client.write_all(&b"\n".repeat(1000)).unwrap();
        for _ in 0..20 {
            client.write_all(&[b'm'; 100]).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        expect(&mut client, want.as_bytes());
        expect_eof(&mut client);
    });
}

#[test]
fn a_gigabyte_without_a_delimiter_is_not_held() {
    const GIGABYTE: u64 = 1 << 30;
    each_model(|model| {
        // Twice: with the usual limit, and with one that makes the frame grow on the heap first.
        for (limit, megabytes) in [("64KiB", 0), ("4MiB", 4)] {
            let server = Server::start(model, &["--max-frame", limit]);
            let mut other = server.connect();
            ask(&mut other, b"before\n", b"before\n");
            let before = peak_resident(server.pid());

            let mut client = server.connect();
            let sent = write_until_lost(&mut client, &[b'm'; 1 << 16], GIGABYTE);
            assert!(sent < GIGABYTE, "the server took it all");
            // What arrived before the reset can still be read.
            assert_same(&ends(&mut client), TOO_LONG);

            // A buffer that grows by doubling has up to three times its content while it moves.
            // Not known of a child that has ended; it does what a thread does.
            let grown = peak_resident(server.pid()).saturating_sub(before);
            if *model != PROCESSES {
                let most = (1 + 3 * megabytes) << 20;
                assert!(grown < most, "{grown} bytes for a limit of {limit}");
            }
            ask(&mut other, b"after\n", b"after\n");
            drop(other);
            assert_eq!(server.stop().count("refused_frame_too_long"), 1);
        }
    });
}
