//! Peers that take too much, give too little, or come in crowds: they are bounded, and nobody
//! else notices.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::client::{connect_unix, try_connect, write_until_lost};
use common::kernel::{anonymous, peak_resident};
use common::{
    EVERY_MODEL, PROCESSES, Server, THREADS, WAITING, ask, descriptors, each_model, each_of, ends,
    expect, expect_eof, reset, scratch_path, wait_until,
};

/// A client that behaves, in a loop of its own, while others do not.
struct GoodClient<'a> {
    done: &'a AtomicBool,
    stream: TcpStream,
}

impl GoodClient<'_> {
    /// Asks until told that it is done, and returns how often it was answered, to the letter.
    fn run(mut self, prefix: &str) -> u64 {
        let mut asked = 0;
        while !self.done.load(Ordering::Relaxed) {
            let reply = format!("{prefix}request {asked}\n");
            ask(&mut self.stream, format!("request {asked}\n").as_bytes(), reply.as_bytes());
            asked += 1;
            // A pace at which it leaves the machine to the others.
            thread::sleep(Duration::from_millis(1));
        }
        asked
    }
}

/// Runs `hostile` while a client that behaves is being served. Returns how often that was.
fn beside_a_good_client(server: &Server, prefix: &str, hostile: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    /// So that the good client ends when `hostile` panics, too.
    struct SetOnDrop<'a>(&'a AtomicBool);
    impl Drop for SetOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let good = GoodClient { done: &done, stream: server.connect() };
        let good = scope.spawn(|| good.run(prefix));
        let set = SetOnDrop(&done);
        hostile();
        drop(set);
        good.join().unwrap()
    })
}

#[test]
fn a_client_that_never_reads_is_bounded_and_closed() {
    let prefix = "p".repeat(1000);
    // Each byte asks for a thousand: 64 KiB of them for 64 MB, if nothing held the server back.
    let requests = [b'\n'; 64 * 1024];
    each_of(WAITING, |model| {
        let args = ["--prefix", &prefix, "--max-pending", "64KiB", "--idle-timeout", "3s"];
        let server = Server::start(model, &args);
        ask(&mut server.connect(), b"\n", format!("{prefix}\n").as_bytes());
        let before = peak_resident(server.pid());
        let asked = beside_a_good_client(&server, &prefix, || {
            let mut client = server.connect();
            // Ends when the server closes the connection, and not before: there is more to send
            // than all the buffers on the way can hold.
            let sent = write_until_lost(&mut client, &requests, 1 << 30);
            assert!(sent < 1 << 30, "the server took it all");
        });
        // Not known of a child that has ended; it does what a thread does.
        let grown = peak_resident(server.pid()).saturating_sub(before);
        if *model != PROCESSES {
            assert!(grown < 4 << 20, "{grown} bytes for a limit of 64 KiB");
        }
        let outcome = server.stop();
        assert_eq!(outcome.count("idle_closed"), 1);
        assert!(outcome.summary().requests > asked, "both were served");
        assert_eq!(outcome.summary().connections, 3);
    });
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let requests: Vec<u8> = (0..20_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let prefix = "p".repeat(500);
    let replies: Vec<u8> =
        (0..20_000).flat_map(|n| format!("{prefix}{n}\n").into_bytes()).collect();
    each_model(|model| {
        let server = Server::start(model, &["--prefix", &prefix, "--max-pending", "10000"]);
        let mut client = server.connect();
        client.write_all(&requests).unwrap();
        // The server is held back now, or will be: 10 MB of replies are more than the socket
        // buffers take.
        ask(&mut server.connect(), b"other\n", format!("{prefix}other\n").as_bytes());
        expect(&mut client, &replies);
        ask(&mut client, b"again\n", format!("{prefix}again\n").as_bytes());
    });
}

#[test]
fn dribbling_is_not_activity() {
    const DRIBBLERS: usize = 200;
    each_model(|model| {
        let Some(_fds) = descriptors(DRIBBLERS) else { return };
        let server = Server::start(model, &["--idle-timeout", "3s"]);
        let asked = beside_a_good_client(&server, "", || {
            let mut clients: Vec<_> = (0..DRIBBLERS).map(|_| server.connect()).collect();
            // Each goes on with a frame that never ends, until it is thrown out.
            wait_until("every slow client to be closed", || {
                clients.retain_mut(|client| client.write_all(b"x").is_ok());
                thread::sleep(Duration::from_millis(30));
                clients.is_empty()
            });
        });
        let outcome = server.stop();
        assert_eq!(outcome.count("idle_closed"), DRIBBLERS as u64, "and the good one was not");
        assert_eq!(outcome.summary().requests, asked);
    });
}

#[test]
fn an_idle_connection_is_closed_with_an_eof() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--idle-timeout", "1s"]);
        let mut silent = server.connect();
        expect_eof(&mut silent);
        drop(silent);
        let mut once = server.connect();
        ask(&mut once, b"hello\n", b"hello\n");
        expect_eof(&mut once);
        drop(once);
        let outcome = server.stop();
        assert_eq!(outcome.count("idle_closed"), 2);
        assert_eq!(outcome.summary().errors, 0);
    });
}

#[test]
fn at_max_connections_newcomers_wait_and_none_is_lost() {
    const LIMIT: usize = 5;
    const CROWD: usize = 50;
    each_model(|model| {
        let server = Server::start(model, &["--max-connections", "5", "--idle-timeout", "off"]);
        let mut inside: Vec<_> = (0..LIMIT).map(|_| server.connect()).collect();
        for client in &mut inside {
            ask(client, b"inside\n", b"inside\n");
        }
        // The parent of processes closes its copy of a socket when the child may have answered.
        wait_until("the five to be in", || server.connections() == LIMIT);
        // The kernel makes these connections; nobody accepts them.
        let mut waiting: Vec<_> = (0..CROWD).map(|_| server.connect()).collect();
        for (n, client) in waiting.iter_mut().enumerate() {
            writeln!(client, "waiting {n}").unwrap();
        }
        for client in &mut inside {
            ask(client, b"still\n", b"still\n");
        }
        assert_eq!(server.connections(), LIMIT, "none was let in");
        // One goes, one comes, in the order in which they came.
        let mut leaving = inside.into_iter();
        for (n, mut client) in waiting.into_iter().enumerate() {
            drop(leaving.next());
            expect(&mut client, format!("waiting {n}\n").as_bytes());
            ask(&mut client, b"in now\n", b"in now\n");
        }
        drop(leaving);
        let outcome = server.stop();
        let summary = outcome.summary();
        assert_eq!(summary.connections, (LIMIT + CROWD) as u64);
        assert_eq!(summary.peak, LIMIT as u64);
        assert_eq!((summary.refused, summary.errors), (0, 0));
        assert!(outcome.count("pauses") > 0);
    });
}

#[test]
fn resets_by_the_thousand() {
    each_model(|model| {
        let server = Server::start(model, &["--prefix", "reply to "]);
        let asked = beside_a_good_client(&server, "reply to ", || {
            for n in 0..3_000 {
                let mut client = server.connect();
                match n % 4 {
                    // Before anything was said, within a frame, with a reply in flight, and with
                    // requests unread.
                    0 => {}
                    1 => client.write_all(b"half a fra").unwrap(),
                    2 => ask(&mut client, b"a\nb\n", b"reply to a\n"),
                    _ => client.write_all(&b"request\n".repeat(1000)).unwrap(),
                }
                reset(client);
            }
        });
        wait_until("every connection to be closed", || server.connections() == 0);
        assert!(asked > 0);
        let outcome = server.stop();
        // Some are gone before they are accepted, and none of those is an error.
        assert!(outcome.errors(libc::ECONNRESET) > 0, "resets are counted");
        assert_eq!(outcome.count("panics"), 0);
    });
}

#[test]
fn a_thousand_hostile_clients_leave_nothing_behind() {
    let prefix = "p".repeat(1000);
    each_of(WAITING, |model| {
        let Some(_fds) = descriptors(510) else { return };
        let path = scratch_path("hostile", model);
        let unix = format!("unix:{}", path.display());
        let args = ["--prefix", &prefix, "--max-pending", "64KiB", "--idle-timeout", "3s"];
        // glibc gives a buffer of this size or more back to the kernel when it is freed, rather
        // than when it happens to lie at the end of the heap (mallopt(3)).
        let environment = [("MALLOC_MMAP_THRESHOLD_", "4096")];
        let listen = ["127.0.0.1:0", &unix];
        let server = Server::in_environment(model, &listen, &args, &environment);

        let wave = || {
            let clients = |from: usize| 250 * from..250 * (from + 1);
            // They stop reading. Over a unix socket, whose buffers are small enough for that many.
            let deaf: Vec<_> = clients(0)
                .map(|_| {
                    let mut client = connect_unix(&path);
                    client.write_all(&[b'\n'; 1000]).unwrap();
                    client
                })
                .collect();
            // They never end the frame.
            let endless: Vec<_> = clients(1)
                .map(|_| {
                    let mut client = server.connect();
                    client.write_all(&[b'm'; 10_000]).unwrap();
                    client
                })
                .collect();
            // They reset, one half of them with replies unread.
            for n in clients(2) {
                let mut client = server.connect();
                if n % 2 == 0 {
                    client.write_all(&[b'\n'; 100]).unwrap();
                }
                reset(client);
            }
            // They send too much.
            for _ in clients(3) {
                let mut client = server.connect();
                let _ = client.write_all(&[b'm'; 70_000]);
            }
            wait_until("all but the good client to be closed", || server.connections() == 1);
            drop((deaf, endless));
            anonymous(server.pid())
        };
        let mut memory = Vec::new();
        let asked = beside_a_good_client(&server, &prefix, || memory.extend([wave(), wave()]));
        // A wave holds 18 MB of buffers at its height, and leaves small change. (And stacks, of
        // which glibc keeps 40 MB for the next threads; most of that was never touched.) Of
        // processes it is what the parent keeps for them.
        let (first, second) = (memory[0], memory[1]);
        let slack = if *model == THREADS { 8 << 20 } else { 1 << 20 };
        assert!(second < first + slack, "{first} bytes after one wave, {second} after another");
        assert!(asked > 0);
        let outcome = server.stop();
        // Where the machine is slow, the last bytes of what is too much may come too late.
        let (idle, refused) =
            (outcome.count("idle_closed"), outcome.count("refused_frame_too_long"));
        assert!(idle >= 2 * 500, "{idle} idle, {refused} refused");
        assert_eq!(idle + refused, 2 * 750);
        assert_eq!(outcome.count("panics"), 0);
    });
}

#[test]
fn every_way_to_end_gives_the_descriptors_back() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--max-frame", "100"]);
        let end_in_every_way = || {
            reset(server.connect());
            let mut client = server.connect();
            client.write_all(b"unfinished").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            expect_eof(&mut client);
            drop(client);
            let mut client = server.connect();
            ask(&mut client, b"whole\nhalf", b"whole\n");
            reset(client);
            let mut client = server.connect();
            ask(&mut client, &[b'm'; 101], b"error: frame too long\n");
            expect_eof(&mut client);
            drop(client);
            // Once it is answered those before it have been accepted.
            ask(&mut server.connect(), b"the last\n", b"the last\n");
        };
        // The first ones may open something that stays.
        end_in_every_way();
        wait_until("all of them to be over", || server.connections() == 0);
        let before = server.fds();
        (0..20).for_each(|_| end_in_every_way());
        wait_until("no more descriptors than before", || server.fds() == before);
        assert_eq!(server.stop().count("refused_frame_too_long"), 21);
    });
}

#[test]
fn a_write_to_a_peer_that_is_gone_is_no_signal() {
    each_of(EVERY_MODEL, |model| {
        // Much to write, and it goes on being written after the reset: EPIPE, not SIGPIPE.
        let server = Server::start(model, &["--prefix", &"p".repeat(1000)]);
        for _ in 0..50 {
            let mut client = server.connect();
            client.write_all(&[b'\n'; 20_000]).unwrap();
            expect(&mut client, b"p");
            reset(client);
        }
        ask(&mut server.connect(), b"\n", &[&[b'p'; 1000][..], b"\n"].concat());
        let outcome = server.stop();
        assert!(outcome.summary().errors > 0, "and each was counted");
    });
}

#[test]
fn a_full_accept_queue_loses_nobody() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &["--max-connections", "1", "--backlog", "4"]);
        let mut first = server.connect();
        ask(&mut first, b"first\n", b"first\n");
        // The queue holds five; the kernel drops the SYN of others, which try again by themselves.
        let addr = server.addr();
        let waiting: Vec<_> = (0..10)
            .map(|n| {
                thread::spawn(move || {
                    let mut client = try_connect(addr).expect("a place in the queue");
                    ask(&mut client, format!("{n}\n").as_bytes(), format!("{n}\n").as_bytes());
                    drop(client);
                })
            })
            .collect();
        drop(first);
        for client in waiting {
            client.join().unwrap();
        }
        assert_eq!(server.stop().summary().peak, 1);
    });
}

#[test]
fn an_ended_client_is_read_to_the_end() {
    // What a client sent before its FIN is served even if the reply can go nowhere.
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &[]);
        for _ in 0..100 {
            server.connect().write_all(b"one\ntwo\n").unwrap();
        }
        let mut last = server.connect();
        ask(&mut last, b"last\n", b"last\n");
        last.shutdown(Shutdown::Write).unwrap();
        assert!(ends(&mut last).is_empty());
        drop(last);
        assert_eq!(server.stop().summary().requests, 201);
    });
}
