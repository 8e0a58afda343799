//! What is true of one model and not of the others.

#![cfg(feature = "cli")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;

use c10k::Error;
use c10k::framing::Delimiter;
use c10k::server::{Builder, Model};
use c10k::service::Echo;
use common::kernel::{children, limit_tasks, socket_count, state, thread_count};
use common::server::c10k;
use common::{
    BLOCKING, EPOLL, Local, PROCESSES, SPIN, Server, THREADS, ask, each_of, ends, expect,
    expect_eof, skip, wait_until,
};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

// ---- blocking ----------------------------------------------------------------------------------

#[test]
fn the_second_client_waits_for_the_first() {
    let server = Server::start(&BLOCKING, &[]);
    let mut first = server.connect();
    ask(&mut first, b"1\n", b"1\n");
    let mut second = server.connect();
    second.write_all(b"2\n").unwrap();
    for _ in 0..100 {
        ask(&mut first, b"still 1\n", b"still 1\n");
    }
    assert_eq!(server.connections(), 1, "the second is not accepted yet");
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    second.set_nonblocking(false).unwrap();
    drop(first);
    expect(&mut second, b"2\n");
    drop(second);
    let summary = server.stop().summary();
    assert_eq!((summary.requests, summary.connections, summary.peak), (102, 2, 1));
}

#[test]
fn blocked_on_an_idle_client_it_ends_all_the_same() {
    let server = Server::start(&BLOCKING, &["--idle-timeout", "off", "--drain", "1h"]);
    let mut first = server.connect();
    ask(&mut first, b"1\n", b"1\n");
    let mut second = server.connect();
    server.signal(Signal::SIGTERM);
    expect_eof(&mut first);
    // There is no room for it, and there will be none.
    assert!(ends(&mut second).is_empty());
    drop(first);
    let outcome = server.wait();
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!((outcome.summary().connections, outcome.summary().errors), (1, 0));
}

// ---- spin --------------------------------------------------------------------------------------

fn builder(model: Model) -> Builder<Delimiter, fn() -> Echo> {
    let builder = c10k::Server::builder().listen("127.0.0.1:0").unwrap().model(model);
    builder.framing(Delimiter::new(b'\n')).service(|| Echo)
}

#[test]
fn it_goes_round_while_nobody_sends() {
    let [spinning, waiting] =
        [SPIN, EPOLL].map(|candidate| Local::start(builder(candidate.model).build().unwrap()));
    let mut clients = [&spinning, &waiting].map(Local::connect);
    clients.iter_mut().for_each(|client| ask(client, b"hello\n", b"hello\n"));
    let turns = |server: &Local| server.handle.stats().turns;
    let before = [&spinning, &waiting].map(turns);
    wait_until("ten thousand turns for nothing", || turns(&spinning) > before[0] + 10_000);
    // The one in which it answered may not have been over.
    assert!(turns(&waiting) <= before[1] + 1, "the other one sleeps meanwhile");
    drop(clients);
    spinning.stop();
    waiting.stop();
}

// ---- processes ---------------------------------------------------------------------------------

#[test]
fn each_connection_has_a_process() {
    let server = Server::start(&PROCESSES, &[]);
    for _ in 0..2 {
        let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
        for client in &mut clients {
            ask(client, b"hello\n", b"hello\n");
        }
        let pids = children(server.pid());
        assert_eq!(pids.len(), 5);
        for pid in pids {
            assert_eq!(socket_count(pid), 1, "its own connection, and no listener");
        }
        drop(clients);
        // One that nobody waited for would be a zombie, and still a child.
        wait_until("no child to be left", || children(server.pid()).is_empty());
    }
    assert_eq!(server.connections(), 0);
    let summary = server.stop().summary();
    assert_eq!((summary.requests, summary.connections, summary.peak), (10, 10, 5));
    assert_eq!(summary.errors, 0);
}

#[test]
fn a_process_that_is_killed_loses_its_connection_only() {
    let server = Server::start(&PROCESSES, &["--max-connections", "2"]);
    let mut victim = server.connect();
    ask(&mut victim, b"victim\n", b"victim\n");
    let [pid] = children(server.pid())[..] else { panic!("one child") };
    let mut other = server.connect();
    ask(&mut other, b"other\n", b"other\n");
    let mut waiting = server.connect();
    waiting.write_all(b"waiting\n").unwrap();

    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    assert!(ends(&mut victim).is_empty());
    expect(&mut waiting, b"waiting\n");
    ask(&mut other, b"other\n", b"other\n");
    assert!(!children(server.pid()).contains(&pid));
    drop((other, waiting));
    let outcome = server.stop();
    assert_eq!(outcome.count("lost"), 1);
    assert_eq!((outcome.summary().connections, outcome.summary().errors), (3, 1));
    assert!(outcome.stderr.contains(&format!("process {pid}")), "{}", outcome.stderr);
}

#[test]
fn a_parent_that_is_killed_leaves_no_child() {
    let server = Server::start(&PROCESSES, &["--idle-timeout", "off"]);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        ask(client, b"hello\n", b"hello\n");
    }
    let pids = children(server.pid());
    assert_eq!(pids.len(), 3);
    server.signal(Signal::SIGKILL);
    for client in &mut clients {
        assert!(ends(client).is_empty());
    }
    // Somebody else may be slow to wait for them.
    wait_until("the children to die", || {
        pids.iter().all(|&pid| matches!(state(pid), None | Some('Z')))
    });
}

/// As a terminal does for Ctrl-C.
#[test]
fn sigint_to_all_of_them_stops_them_well() {
    let mut command = c10k(&["serve", "--listen", "127.0.0.1:0", "--model", "processes"]);
    command.process_group(0);
    let server = Server::spawn(command, 1).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        ask(client, b"hello\n", b"hello\n");
    }
    killpg(Pid::from_raw(server.pid() as i32), Signal::SIGINT).unwrap();
    clients.iter_mut().for_each(|client| expect_eof(client));
    drop(clients);
    let outcome = server.wait();
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!((outcome.summary().requests, outcome.summary().errors), (5, 0));
    assert_eq!(outcome.count("lost") + outcome.count("cut_off"), 0);
}

/// A fork copies one thread, and leaves whatever the others hold locked for ever.
#[test]
fn a_process_with_threads_is_not_forked() {
    // The test itself is such a process.
    let error = c10k::sys::fork(|| 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for builder in [builder(Model::Processes), builder(EPOLL.model).workers(2)] {
        let Err(Error::System { source, .. }) = builder.build() else { panic!("it was built") };
        assert_eq!(source.kind(), ErrorKind::Unsupported);
        assert!(source.to_string().contains("threads"), "{source}");
    }
}

// ---- threads and processes ---------------------------------------------------------------------

#[test]
fn at_the_limit_on_tasks_a_newcomer_is_refused() {
    const ROOM: usize = 3;
    each_of(&[THREADS, PROCESSES], |model| {
        // Nobody else is this user. One task is the server's own.
        let uid = 60_000 + std::process::id() % 2_000 * 2 + u32::from(*model == THREADS);
        let all = [&["serve", "--listen", "127.0.0.1:0"], model.args].concat();
        let mut command = c10k(&all);
        limit_tasks(&mut command, uid, 1 + ROOM as u64);
        let server = match Server::spawn(command, 1) {
            Ok(server) => server,
            Err(error) => {
                return skip(&format!("the program cannot be run as another user: {error}"));
            }
        };
        let tasks = || thread_count(server.pid()) + children(server.pid()).len();
        let mut inside: Vec<_> = (0..ROOM).map(|_| server.connect()).collect();
        for client in &mut inside {
            ask(client, b"hello\n", b"hello\n");
        }
        for _ in 0..3 {
            assert!(ends(&mut server.connect()).is_empty());
        }
        for client in &mut inside {
            ask(client, b"still here\n", b"still here\n");
        }
        inside.pop();
        wait_until("there is room", || tasks() == ROOM);
        ask(&mut server.connect(), b"hello\n", b"hello\n");
        drop(inside);
        let outcome = server.stop();
        assert_eq!(outcome.count("refused_no_task"), 3);
        let summary = outcome.summary();
        assert_eq!((summary.connections, summary.refused, summary.errors), (4, 3, 0));
        assert_eq!(summary.peak, ROOM as u64, "who was refused was never in");
        let limit = format!("RLIMIT_NPROC, {}", 1 + ROOM);
        assert!(outcome.stderr.contains(&limit), "{}", outcome.stderr);
    });
}
