//! Bugs that there were in `c10k serve`. Each is here with the least that shows it.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use c10k::framing::Delimiter;
use c10k::service::Echo;
use common::client::{assert_same, try_connect};
use common::kernel::{peak_resident, unacknowledged};
use common::strace::Strace;
use common::{
    EVENT_LOOPS, EVERY_MODEL, LOCAL, Local, PROCESSES, Server, ask, each_of, expect, scratch_path,
    wait_until,
};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

/// Asked to listen at the path of a file, it took the file for the socket of a dead server, and
/// removed it: `connect(2)` says ECONNREFUSED of anything that is not a socket.
#[test]
fn listening_at_a_file_does_not_remove_it() {
    each_of(EVERY_MODEL, |model| {
        let path = scratch_path("file", model);
        fs::write(&path, "precious").unwrap();
        let listen = format!("unix:{}", path.display());
        let mut args = vec!["serve", "--listen", &listen];
        args.extend(model.args);
        let mut child = common::server::c10k(&args).spawn().unwrap();
        let ended = common::comes_true(|| child.try_wait().unwrap().is_some() || !path.exists());
        let _ = child.kill();
        let content = fs::read_to_string(&path);
        let _ = fs::remove_file(&path);
        assert!(ended);
        assert_eq!(content.expect("the file is still there"), "precious");
        assert_eq!(child.wait().unwrap().code(), Some(2));
    });
}

/// What had been sent was given back only once *everything* was sent: with a peer that is always
/// a little behind, the buffer grew with all that was ever sent.
#[test]
fn a_peer_that_is_always_behind_does_not_grow_the_send_buffer() {
    const MEGABYTE: usize = 1 << 20;
    const BEHIND: usize = 24;
    const TOTAL: usize = 192;
    let frame = [&[b'm'; (64 << 10) - 1][..], b"\n"].concat();
    let frames = |megabytes: usize| 0..megabytes * MEGABYTE / frame.len();
    // A thread that is blocked in `send` reads nothing meanwhile.
    each_of(EVENT_LOOPS, |model| {
        let server = Server::start(model, &["--max-pending", "32MiB"]);
        let mut client = server.connect();
        // What is under way must be in the server, not in the kernel.
        setsockopt(&client, sockopt::RcvBuf, &(64 << 10)).unwrap();
        ask(&mut client, b"x\n", b"x\n");
        let before = peak_resident(server.pid());
        frames(BEHIND).for_each(|_| client.write_all(&frame).unwrap());
        let mut reply = vec![0; frame.len()];
        for _ in frames(TOTAL) {
            client.read_exact(&mut reply).expect("a reply");
            assert_same(&reply, &frame);
            client.write_all(&frame).unwrap();
        }
        let grown = peak_resident(server.pid()).saturating_sub(before);
        assert!(grown < (4 * BEHIND * MEGABYTE) as u64, "{grown} bytes");
    });
}

/// Once a connection was to be closed after its last replies, the idle deadline cut it off
/// whether the peer was taking them or not.
#[test]
fn a_peer_that_takes_its_last_replies_slowly_gets_them_all() {
    let prefix = "p".repeat(10_000);
    let mut requests = b"\n".repeat(1600);
    requests.extend([b'm'; 101]);
    let mut replies = format!("{prefix}\n").repeat(1600).into_bytes();
    replies.extend(b"error: frame too long\n");
    each_of(EVERY_MODEL, |model| {
        // All 16 MB may be pending at once, so the end is seen at once; the kernel takes a quarter.
        let args = ["--prefix", &prefix, "--max-frame", "100", "--idle-timeout", "1500ms"];
        let server = Server::start(model, &[&args[..], &["--max-pending", "64MiB"]].concat());
        let mut client = server.connect();
        client.write_all(&requests).unwrap();
        let mut found = Vec::new();
        let mut part = vec![0; 200_000];
        loop {
            // For three seconds in all, which is twice the time-out.
            thread::sleep(Duration::from_millis(40));
            match client.read(&mut part).expect("a reply") {
                0 => break,
                n => found.extend_from_slice(&part[..n]),
            }
        }
        assert_same(&found, &replies);
        drop(client);
        assert_eq!(server.stop().count("idle_closed"), 0);
    });
}

/// A time-out that no clock can reach was added to the time of day, and the loop panicked.
#[test]
fn a_timeout_of_centuries_is_no_panic() {
    const LONGEST: &str = "30d";
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--idle-timeout", LONGEST, "--drain", LONGEST]);
        ask(&mut server.connect(), b"hello\n", b"hello\n");
        assert_eq!(server.stop().summary().requests, 1);
    });
    each_of(LOCAL, |model| {
        let builder = c10k::Server::builder().listen("127.0.0.1:0").unwrap().model(model.model);
        let builder = builder.idle_timeout(Duration::MAX).drain(Duration::MAX);
        let builder = builder.framing(Delimiter::new(b'\n')).service(|| Echo);
        let server = Local::start(builder.build().unwrap());
        ask(&mut server.connect(), b"hello\n", b"hello\n");
        assert_eq!(server.stop().requests, 1);
    });
}

/// Told to stop, a thread closed its connection as soon as it had sent the replies. If the peer
/// went on sending, that was a reset, which destroyed those still on their way.
#[test]
fn a_peer_that_goes_on_sending_gets_its_replies_at_the_end() {
    const REQUESTS: usize = 1000;
    let prefix = "p".repeat(1000);
    let replies = format!("{prefix}\n").repeat(REQUESTS);
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", &prefix, "--drain", "20s"]);
        let mut client = server.connect();
        // So that most of the replies are still in the server's kernel.
        setsockopt(&client, sockopt::RcvBuf, &(64 << 10)).unwrap();
        client.write_all(&b"\n".repeat(REQUESTS)).unwrap();
        wait_until("the requests to arrive", || unacknowledged(&client) == 0);
        server.signal(Signal::SIGTERM);
        wait_until("the listener to be closed", || try_connect(server.addr()).is_err());
        for _ in 0..20 {
            // It may be lost by now, or not be served any more. That is not the question.
            let _ = client.write(b"\n");
            thread::sleep(Duration::from_millis(2));
        }
        expect(&mut client, replies.as_bytes());
        drop(client);
        assert!(server.wait().summary().requests >= REQUESTS as u64);
    });
}

/// A server that ended removed the path it had listened at, though by then another one listened
/// there.
#[test]
fn the_path_of_another_server_is_not_removed() {
    each_of(EVERY_MODEL, |model| {
        let path = scratch_path("other", model);
        let listen = format!("unix:{}", path.display());
        let first = Server::listening(model, &[&listen], &[]);
        fs::remove_file(&path).unwrap();
        let second = Server::listening(model, &[&listen], &[]);
        first.stop();
        ask(&mut common::client::connect_unix(&path), b"hello\n", b"hello\n");
        second.stop();
        assert!(!path.exists());
    });
}

/// The first signal to stop had the second one unblocked, also in the children that were forked
/// from then on for who was still in the queue. One that was told to finish before it was ready to
/// be told was killed by that.
#[test]
fn a_process_that_was_just_started_is_told_to_finish_and_not_killed() {
    let server = Server::start(&PROCESSES, &["--drain", "20s"]);
    // The first thing that a child does takes a while.
    let slow = ["trace=close_range", "inject=close_range:delay_enter=100000"];
    let Some(strace) = Strace::attach(&server, &slow) else { return };
    server.signal(Signal::SIGSTOP);
    // More than are accepted in the turn in which the signal is seen.
    let mut clients: Vec<_> = (0..80).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello\n").unwrap();
    }
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for client in &mut clients {
        expect(client, b"hello\n");
    }
    drop((clients, strace));
    let outcome = server.wait();
    assert_eq!((outcome.summary().requests, outcome.summary().errors), (80, 0));
}
