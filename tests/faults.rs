//! Out of descriptors, and services that panic.

#![cfg(feature = "cli")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use c10k::framing::Delimiter;
use c10k::service::{Outcome, Reply, Service};
use common::client::is_end;
use common::kernel::{next_fd, set_address_space_limit, set_fd_limit};
use common::strace::Strace;
use common::{
    LOCAL, Local, SELECT, SPIN, Server, THREADS, ask, descriptors, each_model, each_of, ends,
    expect, expect_eof, wait_until,
};

/// What became of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waits,
    Refused,
    Answered,
}

/// Looks, and does not wait.
fn fate(client: &mut TcpStream) -> Fate {
    client.set_nonblocking(true).unwrap();
    let result = client.read(&mut [0; 64]);
    client.set_nonblocking(false).unwrap();
    match result {
        Ok(0) => Fate::Refused,
        Ok(_) => Fate::Answered,
        Err(error) if is_end(&error) => Fate::Refused,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Fate::Waits,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn out_of_descriptors() {
    const INSIDE: usize = 20;
    const NEWCOMERS: usize = 60;
    const REFUSALS: usize = 8;
    each_model(|model| {
        let Some(_fds) = descriptors(INSIDE + NEWCOMERS) else { return };
        let server = Server::start(model, &[]);
        let mut inside: Vec<_> = (0..INSIDE).map(|_| server.connect()).collect();
        for client in &mut inside {
            ask(client, b"hello\n", b"hello\n");
        }
        // The parent of processes closes its copy of a socket when the child may have answered.
        wait_until("no more descriptors than needed", || server.connections() == INSIDE);
        // The limit is on the numbers, and the lowest free one is given out: there is none now.
        let limit = set_fd_limit(server.pid(), next_fd(server.pid()));
        let strace = Strace::attach(&server, &["trace=accept4"]);
        let began = Instant::now();

        let mut newcomers: Vec<_> = (0..NEWCOMERS).map(|_| server.connect()).collect();
        for client in &mut newcomers {
            // It may have been refused by now.
            let _ = client.write_all(b"newcomer\n");
        }
        let mut refused = 0;
        wait_until("some newcomers to be refused", || {
            newcomers.retain_mut(|client| match fate(client) {
                Fate::Waits => true,
                Fate::Refused => {
                    refused += 1;
                    false
                }
                Fate::Answered => panic!("there is no descriptor for it"),
            });
            refused >= REFUSALS
        });
        for client in &mut inside {
            ask(client, b"still here\n", b"still here\n");
        }
        if let Some(strace) = strace {
            let elapsed = began.elapsed() + Duration::from_secs(1);
            let accepts = strace.detach().iter().filter(|line| line.contains("accept4(")).count();
            assert!(accepts > 0, "strace saw nothing");
            let most = (20.0 * elapsed.as_secs_f64()) as usize;
            assert!(accepts <= most, "{accepts} accept4 in {elapsed:?}: it spins");
        }

        set_fd_limit(server.pid(), limit);
        let mut answered = 0;
        for client in &mut newcomers {
            let mut reply = [0; 9];
            match client.read_exact(&mut reply) {
                Ok(()) => {
                    assert_eq!(&reply, b"newcomer\n");
                    answered += 1;
                }
                // One more may have been refused just before there was room.
                Err(_) => refused += 1,
            }
        }
        assert!(answered > 0, "some were still in the queue");
        assert_eq!(answered + refused, NEWCOMERS, "nobody was forgotten");
        ask(&mut server.connect(), b"recovered\n", b"recovered\n");
        drop((inside, newcomers));

        let outcome = server.stop();
        assert_eq!(outcome.count("refused_no_fd"), refused as u64);
        assert_eq!(outcome.summary().connections, (INSIDE + answered + 1) as u64);
        assert_eq!(outcome.summary().errors, 0, "a newcomer refused is no error");
        // Without strace this is the proof that it did not spin: every turn had a reason, unless
        // it is to spin.
        let (turns, served) = (outcome.count("turns"), outcome.summary().requests);
        let reasons = served + 3 * (INSIDE + NEWCOMERS) as u64 + 4 * refused as u64 + 100;
        assert!(
            *model == SPIN || turns < 2 * reasons,
            "{turns} turns of the loop for {reasons} reasons"
        );
        let warnings = outcome.stderr.lines().filter(|line| line.contains("cannot accept")).count();
        assert!(warnings >= 1, "{}", outcome.stderr);
        assert!(warnings < refused.max(3), "{warnings} warnings for {refused} refusals");
    });
}

/// Panics when it is told to.
struct Touchy;

impl Service for Touchy {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        reply.extend(b"part of a reply to ");
        assert_ne!(request, b"panic", "as it was told");
        reply.extend(request);
        Outcome::Reply
    }
}

#[test]
fn a_panic_in_a_service_ends_its_connection_only() {
    each_of(LOCAL, |model| {
        let builder = c10k::Server::builder().listen("127.0.0.1:0").unwrap().model(model.model);
        let builder = builder.framing(Delimiter::new(b'\n')).service(|| Touchy);
        let server = Local::start(builder.build().unwrap());
        let mut other = server.connect();
        ask(&mut other, b"1\n", b"part of a reply to 1\n");

        let mut client = server.connect();
        client.write_all(b"first\npanic\nnot served\n").unwrap();
        expect(&mut client, b"part of a reply to first\n");
        expect_eof(&mut client);
        drop(client);

        ask(&mut other, b"2\n", b"part of a reply to 2\n");
        ask(&mut server.connect(), b"3\n", b"part of a reply to 3\n");
        drop(other);
        let stats = server.stop();
        assert_eq!(stats.panics, 1);
        assert_eq!(stats.errors(), 1, "and it is an error");
        assert_eq!(stats.requests, 4);
        assert_eq!(stats.accepted, 3);
    });
}

/// Takes long when it is told to.
struct Sleepy;

impl Service for Sleepy {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        if request == b"slow" {
            std::thread::sleep(Duration::from_millis(1300));
        }
        reply.extend(request);
        Outcome::Reply
    }
}

#[test]
fn a_slow_service_delays_and_loses_nothing() {
    each_of(LOCAL, |model| {
        let builder = c10k::Server::builder().listen("127.0.0.1:0").unwrap().model(model.model);
        // Less than the service takes: being served is not being idle.
        let builder = builder.idle_timeout(Duration::from_secs(1));
        let builder = builder.framing(Delimiter::new(b'\n')).service(|| Sleepy);
        let server = Local::start(builder.build().unwrap());
        let (mut slow, mut quick) = (server.connect(), server.connect());
        slow.write_all(b"slow\nquick\n").unwrap();
        quick.write_all(b"quick\n").unwrap();
        expect(&mut slow, b"slow\nquick\n");
        expect(&mut quick, b"quick\n");
    });
}

#[test]
fn threads_that_cannot_be_started_are_refusals() {
    // A stack that no address space has room for.
    let server = Server::start(&THREADS, &["--stack-size", "3GiB"]);
    set_address_space_limit(server.pid(), 4 << 30);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let mut refused = 0;
    for client in &mut clients {
        let _ = client.write_all(b"hello\n");
        let mut reply = [0; 6];
        if client.read_exact(&mut reply).is_err() {
            assert!(ends(client).is_empty());
            refused += 1;
        }
    }
    assert!(refused >= 3, "there was room for one");
    drop(clients);
    let outcome = server.stop();
    assert_eq!(outcome.count("refused_no_task"), refused);
    assert_eq!(outcome.summary().refused, refused);
}

#[test]
fn select_refuses_descriptors_that_do_not_fit() {
    const CLIENTS: usize = 1_100;
    let Some(_fds) = descriptors(CLIENTS) else { return };
    let server = Server::start(&SELECT, &[]);
    let mut clients = vec![server.connect()];
    // Once it has answered, it has all the descriptors that it needs for itself.
    ask(&mut clients[0], b"hello\n", b"hello\n");
    let room = 1 + (1024 - server.fds());
    clients.extend((1..CLIENTS).map(|_| server.connect()));
    for client in &mut clients[..room] {
        ask(client, b"hello\n", b"hello\n");
    }
    for client in &mut clients[room..] {
        assert!(ends(client).is_empty(), "refused, and told so");
    }
    // With one gone there is room for one.
    drop(clients.swap_remove(0));
    wait_until("there is room", || next_fd(server.pid()) < 1024);
    ask(&mut server.connect(), b"hello\n", b"hello\n");
    drop(clients);
    let outcome = server.stop();
    assert_eq!(outcome.count("refused_no_room"), (CLIENTS - room) as u64);
    assert_eq!(outcome.summary().connections, room as u64 + 1);
    assert_eq!(outcome.summary().errors, 0);
}
