//! System calls that fail now and then, by the hand of `strace`. Skipped, with a message, where
//! it is not installed.

#![cfg(feature = "cli")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::client::is_end;
use common::kernel::state;
use common::strace::Strace;
use common::{
    BLOCKING, Candidate, EPOLL, EPOLL_LEVEL, EVENT_LOOPS, EVERY_MODEL, PROCESSES, Server, THREADS,
    WAITING, ask, each_model, each_of, ends, expect, expect_eof, wait_until,
};

/// A conversation in which each reply is exact.
fn converse(client: &mut TcpStream, name: &str, rounds: usize) {
    for round in 0..rounds {
        let request = format!("{name} {round}\n").into_bytes();
        ask(client, &request, &request);
    }
}

/// Every second call is interrupted, up to the ninth: if strace lets go of a process in the
/// middle of an injection, the call returns ENOSYS, and that would be nobody's fault.
const EVERY_SECOND: &str = "error=EINTR:when=1..9+2";

/// The calls that wait, of all models. The question mark allows for a name that is not known on
/// this machine.
const WAIT: &str = "?epoll_wait,?epoll_pwait,?poll,?ppoll,?select,?pselect6";

/// Attaches strace with one fault injected, or returns from the test.
macro_rules! inject {
    ($server:expr, $trace:expr, $fault:expr) => {
        match Strace::attach(
            $server,
            &[&format!("trace={}", $trace), &format!("inject={}:{}", $trace, $fault)],
        ) {
            Some(strace) => strace,
            None => return,
        }
    };
}

#[test]
fn an_interrupted_call_is_made_again() {
    for call in ["recvfrom", "sendto", WAIT, "accept4"] {
        each_of(WAITING, |model| {
            let server = Server::start(model, &["--idle-timeout", "20s"]);
            let mut before = server.connect();
            converse(&mut before, "before", 1);
            let strace = inject!(&server, call, EVERY_SECOND);
            let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
            for (n, client) in clients.iter_mut().enumerate() {
                converse(client, &format!("client {n}"), 10);
            }
            converse(&mut before, "still", 10);
            drop((before, clients));
            // No call is being interrupted while the loop waits.
            wait_until("the loop to wait again", || {
                server.connections() == 0 && state(server.pid()) == Some('S')
            });
            let injected = strace.detach().iter().filter(|line| line.contains("INJECTED")).count();
            assert!(injected > 0, "{call}: strace did nothing");
            let summary = server.stop().summary();
            assert_eq!(summary.requests, 1 + 50 + 10, "{call}");
            assert_eq!((summary.connections, summary.errors), (6, 0), "{call}");
        });
    }
}

#[test]
fn an_interrupted_wait_loses_no_timer() {
    each_of(EVENT_LOOPS, |model| {
        let server = Server::start(model, &["--idle-timeout", "1s"]);
        let strace = inject!(&server, WAIT, EVERY_SECOND);
        let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| expect_eof(client));
        drop(clients);
        converse(&mut server.connect(), "and now past the last injection", 10);
        let calls = strace.detach().len();
        // A wait that ends too early is made again: a few more calls, but no spin.
        assert!(calls < 1_000, "{calls} calls for ten time-outs");
        assert_eq!(server.stop().count("idle_closed"), 10);
    });
}

#[test]
fn an_accept_that_fails_for_one_connection_is_followed_by_the_next() {
    for (name, errno) in [
        ("ECONNABORTED", libc::ECONNABORTED),
        ("EPROTO", libc::EPROTO),
        ("ENETDOWN", libc::ENETDOWN),
        ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ] {
        each_of(EVERY_MODEL, |model| {
            let server = Server::start(model, &[]);
            let strace = inject!(&server, "accept4", format!("error={name}:when=1..3"));
            // The injected error takes no connection from the queue: this one is there yet.
            let mut client = server.connect();
            converse(&mut client, name, 3);
            drop(strace);
            drop(client);
            let outcome = server.stop();
            assert_eq!(outcome.errors(errno), 3, "{name}");
            // But at the limit, which for this one is a connection.
            let pauses = u64::from(*model == BLOCKING);
            assert_eq!(outcome.count("pauses"), pauses, "there was no reason to rest");
            assert_eq!(outcome.summary().connections, 1);
        });
    }
}

#[test]
fn an_accept_that_fails_for_want_of_memory_is_tried_later() {
    for (name, errno) in [("ENOBUFS", libc::ENOBUFS), ("ENOMEM", libc::ENOMEM)] {
        each_model(|model| {
            let server = Server::start(model, &[]);
            let mut inside = server.connect();
            converse(&mut inside, "inside", 1);
            let strace = inject!(&server, "accept4", format!("error={name}:when=1..2"));
            let mut client = server.connect();
            client.write_all(b"newcomer\n").unwrap();
            converse(&mut inside, "still inside", 5);
            expect(&mut client, b"newcomer\n");
            drop(strace);
            drop((client, inside));
            let outcome = server.stop();
            assert_eq!(outcome.errors(errno), 2, "{name}");
            assert_eq!(outcome.count("pauses"), 2, "it did not insist");
            assert_eq!(outcome.summary().connections, 2);
        });
    }
}

#[test]
fn an_accept_without_a_descriptor_refuses_one() {
    for name in ["EMFILE", "ENFILE"] {
        each_of(WAITING, |model| {
            let server = Server::start(model, &[]);
            let strace = inject!(&server, "accept4", format!("error={name}:when=1"));
            let mut refused = server.connect();
            let _ = refused.write_all(b"hello\n");
            assert!(ends(&mut refused).is_empty());
            converse(&mut server.connect(), "next", 3);
            drop(strace);
            let outcome = server.stop();
            assert_eq!(outcome.count("refused_no_fd"), 1, "{name}");
            assert_eq!(outcome.summary().connections, 1);
        });
    }
}

/// Talks until the connection ends, which it must within so many rounds.
fn converse_until_lost(client: &mut TcpStream, rounds: usize) {
    for _ in 0..rounds {
        let mut reply = [0; 6];
        let sent = client.write_all(b"hello\n");
        match sent.and_then(|()| client.read_exact(&mut reply)) {
            Ok(()) => assert_eq!(&reply, b"hello\n"),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return,
            Err(error) => {
                assert!(is_end(&error), "{error}");
                return;
            }
        }
    }
    panic!("the connection should have ended");
}

/// One connection gets an error from a system call; nobody else does.
fn only_the_victim(model: &Candidate, call: &str, name: &str, errno: i32) {
    let server = Server::start(model, &[]);
    let mut other = server.connect();
    converse(&mut other, "before", 3);
    // Counted for each thread: the third one of the loop, or of the thread of the connection.
    let strace = inject!(&server, call, format!("error={name}:when=3"));
    let mut victim = server.connect();
    converse_until_lost(&mut victim, 10);
    drop(strace);
    converse(&mut other, "after", 3);
    converse(&mut server.connect(), "new", 3);
    drop(other);
    let outcome = server.stop();
    assert_eq!(outcome.errors(errno), 1, "{call} {name}");
    assert_eq!(outcome.summary().errors, 1, "{call} {name}");
    assert_eq!(outcome.summary().connections, 3, "{call} {name}");
}

#[test]
fn a_call_that_fails_closes_its_connection_only() {
    for call in ["recvfrom", "sendto"] {
        for (name, errno) in [
            ("ENOBUFS", libc::ENOBUFS),
            ("ENOMEM", libc::ENOMEM),
            ("ETIMEDOUT", libc::ETIMEDOUT),
            ("ECONNABORTED", libc::ECONNABORTED),
            ("EPIPE", libc::EPIPE),
        ] {
            each_of(WAITING, |model| only_the_victim(model, call, name, errno));
        }
    }
}

#[test]
fn a_connection_that_cannot_be_watched_is_closed() {
    for (name, errno) in [("ENOMEM", libc::ENOMEM), ("ENOSPC", libc::ENOSPC)] {
        each_of(&[EPOLL, EPOLL_LEVEL], |model| {
            let server = Server::start(model, &[]);
            let mut other = server.connect();
            converse(&mut other, "before", 3);
            let strace = inject!(&server, "epoll_ctl", format!("error={name}:when=1"));
            let mut victim = server.connect();
            assert!(ends(&mut victim).is_empty());
            converse(&mut server.connect(), "new", 3);
            drop(strace);
            converse(&mut other, "after", 3);
            drop(other);
            let outcome = server.stop();
            assert_eq!(outcome.errors(errno), 1);
            assert_eq!(outcome.count("open"), 0, "the refused one is not counted as open");
            assert_eq!(outcome.summary().connections, 2);
        });
    }
}

#[test]
fn a_connection_that_cannot_be_watched_for_room_is_closed() {
    let prefix = "p".repeat(10_000);
    each_of(&[EPOLL_LEVEL], |model| {
        let server = Server::start(model, &["--prefix", &prefix]);
        let mut victim = server.connect();
        ask(&mut victim, b"\n", format!("{prefix}\n").as_bytes());
        let strace = inject!(&server, "epoll_ctl", "error=ENOMEM:when=1");
        // Ten megabytes of replies that nobody reads: now it wants to know when there is room.
        victim.write_all(&b"\n".repeat(1000)).unwrap();
        wait_until("that to fail", || strace.injected() > 0);
        let mut found = 0;
        let mut part = vec![0; 1 << 16];
        while let Ok(n @ 1..) = victim.read(&mut part) {
            found += n;
        }
        assert!(found < 10_001 * 1000, "it was closed");
        drop(strace);
        ask(&mut server.connect(), b"\n", format!("{prefix}\n").as_bytes());
        assert_eq!(server.stop().errors(libc::ENOMEM), 1);
    });
}

#[test]
fn attached_and_detached_under_load() {
    each_of(WAITING, |model| {
        let server = Server::start(model, &[]);
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        let rounds = 3;
        for _ in 0..rounds {
            std::thread::scope(|scope| {
                for (n, client) in clients.iter_mut().enumerate() {
                    scope.spawn(move || converse(client, &format!("client {n}"), 200));
                }
                // Every call of the server is stopped at, wherever it is at the moment.
                let strace = Strace::attach(&server, &["trace=all"]);
                drop(strace);
            });
        }
        drop(clients);
        let summary = server.stop().summary();
        assert_eq!(summary.requests, 8 * 200 * rounds);
        assert_eq!(summary.errors, 0);
    });
}

/// It does not go away, and takes no connection from the queue: the loop must neither spin nor
/// put off its end.
#[test]
fn an_accept_that_always_fails_ends_neither_the_loop_nor_its_stopping() {
    each_of(WAITING, |model| {
        let server = Server::start(model, &[]);
        let mut client = server.connect();
        converse(&mut client, "before", 1);
        let strace = inject!(&server, "accept4", "error=EPERM");
        let waiting = server.connect();
        converse(&mut client, "beside it", 50);
        drop((client, waiting));
        server.signal(nix::sys::signal::Signal::SIGTERM);
        let outcome = server.wait();
        drop(strace);
        assert!(outcome.status.success(), "{outcome:?}");
        assert_eq!(outcome.summary().connections, 1);
    });
}

#[test]
fn a_task_that_cannot_be_started_refuses_one_connection() {
    each_of(&[THREADS, PROCESSES], |model| {
        let server = Server::start(model, &[]);
        let mut inside = server.connect();
        converse(&mut inside, "before", 1);
        let strace = inject!(&server, "?clone,?clone3,?fork,?vfork", "error=EAGAIN:when=1..2");
        for _ in 0..2 {
            assert!(ends(&mut server.connect()).is_empty());
        }
        converse(&mut server.connect(), "there is room again", 3);
        converse(&mut inside, "after", 3);
        drop((inside, strace));
        let outcome = server.stop();
        assert_eq!(outcome.count("refused_no_task"), 2);
        let summary = outcome.summary();
        assert_eq!((summary.connections, summary.refused, summary.errors), (2, 2, 0));
        assert!(outcome.stderr.contains("a connection was refused"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("the limit is"), "{}", outcome.stderr);
    });
}
