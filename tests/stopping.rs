//! SIGTERM: what was received is answered, and the program ends, and says what it did.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::thread;

use common::client::{assert_same, connect_unix, try_connect};
use common::kernel::unacknowledged;
use common::{
    EVERY_MODEL, Server, ask, each_model, each_of, ends, expect, expect_eof, scratch_path,
    wait_until,
};
use nix::sys::signal::Signal;

/// Waits until the server's kernel has everything that was written.
fn all_arrived(client: &TcpStream) {
    wait_until("the server's kernel to have it all", || unacknowledged(client) == 0);
}

#[test]
fn every_request_that_arrived_is_answered() {
    const CLIENTS: usize = 20;
    const REQUESTS: usize = 500;
    each_model(|model| {
        let server = Server::start(model, &["--prefix", "reply ", "--drain", "20s"]);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        for (c, client) in clients.iter_mut().enumerate() {
            let train: String = (0..REQUESTS).map(|n| format!("{c} {n}\n")).collect();
            client.write_all(train.as_bytes()).unwrap();
        }
        clients.iter().for_each(all_arrived);
        server.signal(Signal::SIGTERM);
        for (c, client) in clients.iter_mut().enumerate() {
            let replies: String = (0..REQUESTS).map(|n| format!("reply {c} {n}\n")).collect();
            expect(client, replies.as_bytes());
            expect_eof(client);
        }
        drop(clients);
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        let summary = outcome.summary();
        assert_eq!(summary.requests, (CLIENTS * REQUESTS) as u64);
        assert_eq!((summary.connections, summary.peak), (CLIENTS as u64, CLIENTS as u64));
        assert_eq!((summary.refused, summary.errors), (0, 0));
        assert_eq!(outcome.count("cut_off"), 0, "all within the time to drain");
    });
}

#[test]
fn also_those_that_wait_for_room() {
    // The replies are a thousand times the requests: most requests are still unread, or held,
    // when the signal comes, since nobody takes the replies.
    const REQUESTS: usize = 1000;
    let prefix = "p".repeat(10_000);
    let replies = format!("{prefix}\n").repeat(REQUESTS);
    each_of(EVERY_MODEL, |model| {
        let args = ["--prefix", &prefix, "--max-pending", "64KiB", "--drain", "20s"];
        let server = Server::start(model, &args);
        let mut client = server.connect();
        client.write_all(&b"\n".repeat(REQUESTS)).unwrap();
        all_arrived(&client);
        server.signal(Signal::SIGTERM);
        wait_until("the listener to be closed", || try_connect(server.addr()).is_err());
        expect(&mut client, replies.as_bytes());
        expect_eof(&mut client);
        drop(client);
        let outcome = server.wait();
        assert_eq!(outcome.summary().requests, REQUESTS as u64);
        assert_eq!(outcome.count("cut_off"), 0);
    });
}

#[test]
fn also_those_that_were_not_accepted_yet() {
    // The limit is reached, and these wait in the queue until there is room, which there is at
    // the moment of the signal: they are let in rather than reset.
    each_model(|model| {
        let path = scratch_path("queued", model);
        let unix = format!("unix:{}", path.display());
        let server = Server::listening(model, &["127.0.0.1:0", &unix], &["--drain", "20s"]);
        let mut inside = connect_unix(&path);
        ask(&mut inside, b"inside\n", b"inside\n");
        // While it is stopped by a signal it accepts nobody; then it has two things to do.
        server.signal(Signal::SIGSTOP);
        let mut clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            writeln!(client, "{n}").unwrap();
        }
        clients.iter().for_each(all_arrived);
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        for (n, client) in clients.iter_mut().enumerate() {
            expect(client, format!("{n}\n").as_bytes());
            expect_eof(client);
        }
        drop((clients, inside));
        let outcome = server.wait();
        assert_eq!(outcome.summary().requests, 31);
        assert_eq!(outcome.summary().connections, 31);
    });
}

#[test]
fn under_load_every_reply_is_whole_and_in_order() {
    // Clients that know nothing of the signal: whatever they get must be a prefix of what they
    // are owed, and be counted.
    each_model(|model| {
        let server = Server::start(model, &["--drain", "20s"]);
        let addr = server.addr();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut client = common::connect(addr);
                ask(&mut client, b"ready\n", b"ready\n");
                thread::spawn(move || {
                    let mut answered = 1;
                    let line = |n: u64| format!("request {n}\n").into_bytes();
                    loop {
                        let train: Vec<u8> = (answered..answered + 16).flat_map(line).collect();
                        if client.write_all(&train).is_err() {
                            return answered;
                        }
                        let mut reply = vec![0; train.len()];
                        let mut len = 0;
                        while len < reply.len() {
                            match std::io::Read::read(&mut client, &mut reply[len..]) {
                                Ok(0) | Err(_) => break,
                                Ok(n) => len += n,
                            }
                        }
                        assert_same(&reply[..len], &train[..len]);
                        let whole = reply[..len].iter().filter(|byte| **byte == b'\n').count();
                        answered += whole as u64;
                        if len < train.len() {
                            return answered;
                        }
                    }
                })
            })
            .collect();
        server.signal(Signal::SIGTERM);
        let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        let outcome = server.wait();
        assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
        // All it served was received, up to the last reply.
        assert_eq!(outcome.summary().requests, answered);
        assert_eq!(outcome.summary().connections, 4);
    });
}

#[test]
fn sigint_does_the_same_and_an_idle_server_ends_at_once() {
    each_of(EVERY_MODEL, |model| {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let server = Server::start(model, &["--drain", "1h"]);
            server.signal(signal);
            let outcome = server.wait();
            assert_eq!(outcome.status.code(), Some(0));
            assert_eq!(outcome.summary().connections, 0);
        }
    });
}

/// A client that holds the server up: it takes no reply.
fn stuck_client(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(&b"\n".repeat(1000)).unwrap();
    all_arrived(&client);
    client
}

#[test]
fn the_time_to_drain_ends() {
    let prefix = "p".repeat(10_000);
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", &prefix, "--drain", "200ms"]);
        let mut client = stuck_client(&server);
        let outcome = server.stop();
        assert_eq!(outcome.count("cut_off"), 1);
        assert_eq!(outcome.summary().connections, 1);
        let replies = ends(&mut client);
        assert!(replies.len() < 10_001 * 1000, "it was cut off");
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    let prefix = "p".repeat(10_000);
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--prefix", &prefix, "--drain", "1h"]);
        let client = stuck_client(&server);
        server.signal(Signal::SIGTERM);
        wait_until("the first to be noticed", || try_connect(server.addr()).is_err());
        server.signal(Signal::SIGTERM);
        let outcome = server.wait();
        assert_eq!(outcome.status.signal(), Some(Signal::SIGTERM as i32));
        drop(client);
    });
}
