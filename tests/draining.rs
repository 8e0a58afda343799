//! A server that is told to stop in the middle of a request, or before a connection's first: the
//! peer has the time to drain for it. A connection that has had its replies ends at once.

#![cfg(feature = "cli")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use common::client::{connect_unix, try_connect};
use common::kernel::{state, unacknowledged};
use common::{
    Candidate, EPOLL, EVERY_MODEL, Server, ask, each_of, ends, expect, expect_eof, scratch_path,
    wait_until,
};
use nix::sys::signal::Signal;

const WORKERS: &[Candidate] = &[
    Candidate { name: "workers", args: &["--workers", "2"], ..EPOLL },
    Candidate { name: "workers of their own", args: &["--workers", "2", "--reuse-port"], ..EPOLL },
];

fn each_way(test: impl Fn(&Candidate) + Sync) {
    each_of(EVERY_MODEL, &test);
    each_of(WORKERS, &test);
}

/// Waits until the server's kernel has everything that was written.
fn arrived(client: &TcpStream) {
    wait_until("the server's kernel to have it all", || unacknowledged(client) == 0);
}

/// Tells it to stop, and waits until it has begun to.
fn tell(server: &Server) {
    server.signal(Signal::SIGTERM);
    wait_until("the listener to be closed", || try_connect(server.addr()).is_err());
}

#[test]
fn a_request_whose_second_half_comes_later_is_answered() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let mut client = server.connect();
        ask(&mut client, b"one\n", b"one\n");
        client.write_all(b"tw").unwrap();
        arrived(&client);
        tell(&server);
        client.write_all(b"o\n").unwrap();
        expect(&mut client, b"two\n");
        expect_eof(&mut client);
        drop(client);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        assert_eq!((outcome.summary().requests, outcome.summary().errors), (2, 0));
        assert_eq!(outcome.count("cut_off"), 0);
    });
}

/// A peer that always has the next one under way does not go on for as long as the time to drain.
#[test]
fn that_is_the_last_one_whatever_comes_with_it() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let mut client = server.connect();
        client.write_all(b"one\ntw").unwrap();
        expect(&mut client, b"one\n");
        tell(&server);
        client.write_all(b"o\nthr").unwrap();
        expect(&mut client, b"two\n");
        // That may have arrived before the server had looked; but then this has not.
        let _ = client.write_all(b"ee\nfou");
        let rest = ends(&mut client);
        assert!([&b""[..], b"three\n"].contains(&&rest[..]), "{}", rest.escape_ascii());
        drop(client);
        assert_eq!(server.wait().count("cut_off"), 0);
    });
}

#[test]
fn so_is_the_first_request_of_a_connection() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let mut client = server.connect();
        tell(&server);
        // In three pieces.
        for piece in [&b"on"[..], b"e", b"\n"] {
            client.write_all(piece).unwrap();
            arrived(&client);
        }
        expect(&mut client, b"one\n");
        expect_eof(&mut client);
        drop(client);
        let outcome = server.wait();
        assert_eq!((outcome.summary().requests, outcome.summary().errors), (1, 0));
        assert_eq!(outcome.count("cut_off"), 0);
    });
}

/// Of one that was stopped by a signal, all that comes has come before it is told.
#[test]
fn also_if_it_had_no_time_to_look() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let mut client = server.connect();
        ask(&mut client, b"one\n", b"one\n");
        server.signal(Signal::SIGSTOP);
        wait_until("it to be stopped", || state(server.pid()) == Some('T'));
        client.write_all(b"two\nthr").unwrap();
        arrived(&client);
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        expect(&mut client, b"two\n");
        client.write_all(b"ee\n").unwrap();
        expect(&mut client, b"three\n");
        expect_eof(&mut client);
        drop(client);
        assert_eq!(server.wait().summary().requests, 3);
    });
}

#[test]
fn one_that_has_had_its_replies_ends_at_once() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let mut client = server.connect();
        ask(&mut client, b"one\ntwo\n", b"one\ntwo\n");
        server.signal(Signal::SIGTERM);
        expect_eof(&mut client);
        drop(client);
        let outcome = server.wait();
        assert_eq!((outcome.summary().requests, outcome.summary().errors), (2, 0));
        assert_eq!(outcome.count("unfinished"), 0);
    });
}

#[test]
fn a_unix_socket_is_no_different() {
    each_way(|model| {
        let path = scratch_path("draining", model);
        let unix = format!("unix:{}", path.display());
        let server = Server::listening(model, &[&unix], &["--drain", "1h"]);
        let mut client = connect_unix(&path);
        ask(&mut client, b"one\n", b"one\n");
        client.write_all(b"tw").unwrap();
        wait_until("it to be received", || unacknowledged(&client) == 0);
        server.signal(Signal::SIGTERM);
        wait_until("the listener to be closed", || !path.exists());
        client.write_all(b"o\n").unwrap();
        expect(&mut client, b"two\n");
        expect_eof(&mut client);
        drop(client);
        assert_eq!(server.wait().summary().requests, 2);
    });
}

/// The rest of a request may be the end of what there is to send.
#[test]
fn the_peers_own_end_is_told_from_the_servers() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--protocol", "sum", "--framing", "json"]);
        let mut client = server.connect();
        ask(&mut client, br#"{"A":1}"#, br#"{"Sum":1}"#);
        client.write_all(br#"{"A":"#).unwrap();
        arrived(&client);
        tell(&server);
        client.write_all(b"2").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ends(&mut client), b"");
        drop(client);
        let outcome = server.wait();
        assert_eq!(outcome.summary().requests, 1);
        assert_eq!((outcome.count("unfinished"), outcome.count("cut_off")), (1, 0));
    });
}

#[test]
fn who_does_not_finish_is_cut_off() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "300ms"]);
        let mut client = server.connect();
        client.write_all(b"half").unwrap();
        arrived(&client);
        server.signal(Signal::SIGTERM);
        assert_eq!(ends(&mut client), b"");
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        assert_eq!((outcome.summary().requests, outcome.count("cut_off")), (0, 1));
    });
}

#[test]
fn the_idle_time_out_goes_on() {
    each_way(|model| {
        let server = Server::start(model, &["--drain", "1h", "--idle-timeout", "300ms"]);
        let mut client = server.connect();
        client.write_all(b"half").unwrap();
        arrived(&client);
        server.signal(Signal::SIGTERM);
        assert_eq!(ends(&mut client), b"");
        assert_eq!(server.wait().count("idle_closed"), 1);
    });
}

/// Clients that know nothing of the signal, each of whose requests comes in two halves.
#[test]
fn under_load_all_that_was_served_arrives() {
    each_of(common::MODELS, |model| {
        let server = Server::start(model, &["--drain", "1h"]);
        let clients: Vec<_> = (0..8)
            .map(|n| {
                let mut client = server.connect();
                ask(&mut client, b"ready\n", b"ready\n");
                thread::spawn(move || converse(&mut client, n))
            })
            .collect();
        server.signal(Signal::SIGTERM);
        let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        let outcome = server.wait();
        assert_eq!(outcome.summary().requests, answered + 8);
        assert_eq!(outcome.count("cut_off"), 0);
    });
}

/// Sends requests in two halves until the server ends the connection, and returns how many were
/// answered.
fn converse(client: &mut TcpStream, n: u64) -> u64 {
    for answered in 0.. {
        let line = format!("client {n}, request {answered}\n").into_bytes();
        let (first, second) = line.split_at(5);
        let sent = client.write_all(first).and_then(|()| client.write_all(second));
        let mut reply = vec![0; line.len()];
        match sent.and_then(|()| client.read_exact(&mut reply)) {
            Ok(()) => assert_eq!(reply, line),
            Err(error) => {
                let gone =
                    [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(gone.contains(&error.kind()), "{error}");
                return answered;
            }
        }
    }
    unreachable!("it ends")
}
