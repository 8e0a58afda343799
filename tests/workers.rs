//! `serve --workers`: several processes on the same listeners, and the parent that watches.

#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use c10k::Server as LibraryServer;
use c10k::framing::Delimiter;
use c10k::server::Model;
use c10k::service::Echo;
use common::client::{connect_unix, try_connect};
use common::kernel::{set_fd_limit, state};
use common::server::c10k;
use common::start::{ignore_signal, limit_descriptors};
use common::{
    Candidate, EPOLL, Server, ask, descriptors, expect_eof, reset, scratch_path, wait_until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn start(args: &[&str]) -> Server {
    let server = Server::start(&EPOLL, args);
    let wanted: usize = args[args.iter().position(|&arg| arg == "--workers").unwrap() + 1]
        .parse()
        .expect("a number");
    wait_until("the workers to be there", || {
        let workers = workers(server.pid());
        workers.len() == wanted && workers.iter().all(|&pid| is_serving(pid))
    });
    server
}

/// Whether the loop of a worker waits for all it has to wait for: a waker, an alarm, the
/// signals, and a listener (`proc(5)`, on `/proc/pid/fdinfo`).
fn is_serving(pid: u32) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    let watched = |fd: fs::DirEntry| {
        let info = fs::read_to_string(fd.path()).unwrap_or_default();
        info.lines().filter(|line| line.starts_with("tfd:")).count()
    };
    fds.flatten().any(|fd| watched(fd) >= 4)
}

/// The children of a process (`proc(5)`).
fn workers(pid: u32) -> BTreeSet<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("a worker of ours");
}

fn is_alive(pid: u32) -> bool {
    // What has ended, and was not waited for, is a zombie.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Clients that come one after the other, each when the one before was answered: so that no
/// worker accepts several at once, and all get some.
fn crowd(server: &Server, size: usize) -> Vec<TcpStream> {
    let come = |_| {
        let mut client = server.connect();
        ask(&mut client, b"ping\n", b"ping\n");
        client
    };
    (0..size).map(come).collect()
}

/// Asks on each connection, and keeps those that are still there.
fn ask_all(clients: Vec<TcpStream>) -> Vec<TcpStream> {
    let answered = |mut client: TcpStream| {
        let mut reply = [0; 5];
        match client.write_all(b"ping\n").and_then(|()| client.read_exact(&mut reply)) {
            Ok(()) => {
                assert_eq!(&reply, b"ping\n");
                Some(client)
            }
            Err(error) => {
                let gone =
                    [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(gone.contains(&error.kind()), "{error}");
                None
            }
        }
    };
    clients.into_iter().filter_map(answered).collect()
}

/// How many connections each worker has served, by what it says at its end.
fn shares(stderr: &str) -> Vec<u64> {
    let line = |line: &str| {
        let rest = line.split_once(" has served ")?.1.split_once(" on ")?.1;
        rest.split(' ').next()?.parse().ok()
    };
    stderr.lines().filter_map(line).collect()
}

#[test]
fn all_workers_serve_and_their_counts_are_one() {
    let server = start(&["--workers", "3"]);
    let clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    let clients = ask_all(ask_all(clients));
    assert_eq!(clients.len(), 60);
    drop(clients);
    let outcome = server.stop();
    let summary = outcome.summary();
    assert_eq!((summary.requests, summary.connections, summary.peak), (120, 60, 60));
    assert_eq!((summary.refused, summary.errors), (0, 0));
    let shares = shares(&outcome.stderr);
    assert_eq!((shares.len(), shares.iter().sum::<u64>()), (3, 60), "{shares:?}");
}

#[test]
fn newcomers_go_round() {
    let Some(_fds) = descriptors(300) else { return };
    let server = start(&["--workers", "3"]);
    drop(crowd(&server, 300));
    let shares = shares(&server.stop().stderr);
    // Without a turn for everybody the first takes nearly all.
    assert!(shares.iter().all(|&share| share >= 10), "{shares:?}");
}

#[test]
fn each_may_have_a_listener_of_its_own() {
    let Some(_fds) = descriptors(300) else { return };
    let server = start(&["--workers", "3", "--reuse-port"]);
    let clients = ask_all((0..300).map(|_| server.connect()).collect());
    assert_eq!(clients.len(), 300);
    // With the same option another server can have the port too, and the rest of the newcomers.
    let port = server.addr().port();
    let listen = format!("127.0.0.1:{port}");
    let other = Server::listening(&EPOLL, &[&listen], &["--reuse-port"]);
    drop(clients);
    let outcome = server.stop();
    assert_eq!(outcome.summary().connections, 300);
    // The kernel spreads them by a hash.
    let shares = shares(&outcome.stderr);
    assert!(shares.iter().all(|&share| share >= 50), "{shares:?}");
    ask(&mut other.connect(), b"hello\n", b"hello\n");
    assert_eq!(other.stop().summary().connections, 1);
}

#[test]
fn a_killed_worker_takes_its_own_connections_only() {
    let Some(_fds) = descriptors(300) else { return };
    for own_listeners in [&[][..], &["--reuse-port"]] {
        let server = start(&[&["--workers", "4"], own_listeners].concat());
        let clients = crowd(&server, 200);

        let before = workers(server.pid());
        let victim = *before.first().unwrap();
        signal(victim, Signal::SIGKILL);
        wait_until("another to take its place", || {
            let now = workers(server.pid());
            now.len() == 4 && !now.contains(&victim)
        });
        let left = ask_all(clients);
        let lost = 200 - left.len() as u64;
        assert!((1..200).contains(&lost), "{lost} lost");
        // Those who come now find four.
        let newcomers = crowd(&server, 100);

        drop((left, newcomers));
        let outcome = server.stop();
        let summary = outcome.summary();
        assert_eq!(summary.requests, 200 + (200 - lost) + 100);
        assert_eq!((summary.connections, summary.refused), (300, 0));
        assert_eq!(summary.errors, lost, "each is an error");
        assert_eq!((outcome.count("lost"), outcome.count("restarts")), (lost, 1));
        assert_eq!(outcome.count("open"), 0);
        assert_eq!(shares(&outcome.stderr).len(), 5, "the dead one's count too");
    }
}

#[test]
fn a_full_worker_leaves_newcomers_to_the_others() {
    let Some(_fds) = descriptors(121) else { return };
    let server = start(&["--workers", "4", "--max-connections", "30"]);
    // As many as all of them have room for, each kept.
    let mut clients = ask_all((0..120).map(|_| server.connect()).collect());
    assert_eq!(clients.len(), 120);
    // One more waits, and is not refused.
    let mut waiting = server.connect();
    waiting.write_all(b"ping\n").unwrap();
    wait_until("all to be full", || server_sockets(&server) == 120);
    drop(clients.pop());
    common::expect(&mut waiting, b"ping\n");
    drop((clients, waiting));
    let outcome = server.stop();
    let summary = outcome.summary();
    assert_eq!((summary.connections, summary.peak, summary.refused), (121, 120, 0));
    // One of them may have filled its place again with the one that waited.
    let mut shares = shares(&outcome.stderr);
    shares.sort_unstable();
    assert_eq!(shares, [30, 30, 30, 31]);
}

/// The connections that its workers have.
fn server_sockets(server: &Server) -> usize {
    let sockets = |&pid: &u32| common::kernel::socket_count(pid) - 1;
    workers(server.pid()).iter().map(sockets).sum()
}

/// A server whose log has no counts in it.
fn serve(args: &[&str]) -> Command {
    let mut command = c10k(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
    command.env("RUST_LOG", "info");
    command
}

#[test]
fn so_does_one_with_no_descriptor_left() {
    let Some(_fds) = descriptors(180) else { return };
    let mut server = limit_descriptors(&mut serve(&["--workers", "3"]), 100).spawn().unwrap();
    let mut stdout = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = stdout.next().unwrap().unwrap();
    let addr: SocketAddr = line.strip_prefix("listening on tcp ").unwrap().parse().unwrap();
    // More than one or two could hold.
    let connect = |_| try_connect(addr).expect("a place in the queue");
    let clients = ask_all((0..180).map(connect).collect());
    assert_eq!(clients.len(), 180);
    drop(clients);
    signal(server.id(), Signal::SIGTERM);
    let summary = stdout.next().unwrap().unwrap();
    assert_eq!(summary, "served 180 requests on 180 connections, peak 180, refused 0, errors 0");
    assert!(server.wait().unwrap().success());
}

/// Then the kernel would not keep them for their parent to wait for.
#[test]
fn also_where_ended_children_are_ignored() {
    for (model, tasks) in [(&["--workers", "1"][..], 1), (&["--model", "processes"], 0)] {
        let mut server = ignore_signal(&mut serve(model), Signal::SIGCHLD).spawn().unwrap();
        let mut stdout = BufReader::new(server.stdout.take().unwrap()).lines();
        let line = stdout.next().unwrap().unwrap();
        let addr: SocketAddr = line.strip_prefix("listening on tcp ").unwrap().parse().unwrap();
        let mut client = try_connect(addr).unwrap();
        ask(&mut client, b"hello\n", b"hello\n");
        drop(client);
        wait_until("the child to be reaped", || workers(server.id()).len() == tasks);
        signal(server.id(), Signal::SIGTERM);
        let output = server.wait_with_output().unwrap();
        assert!(output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("stopping: 0 connections to finish"), "{log}");
    }
}

#[test]
fn workers_that_cannot_live_are_given_up() {
    let server = start(&["--workers", "2"]);
    // Enough for the parent, and not for the loop of another worker.
    set_fd_limit(server.pid(), 7);
    workers(server.pid()).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    let outcome = server.wait();
    let stderr = outcome.stderr;
    assert_eq!(outcome.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("Too many open files"), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("c10k: the workers fail again and again (exit status 1)"), "{last}");
    // Five tries for one of them, and at most as many for the other.
    // Which call fails depends on the descriptors that it has inherited.
    let failed = |line: &&str| line.contains("ERROR") && line.contains("Too many open files");
    let failures = stderr.lines().filter(failed).count();
    assert!((5..=10).contains(&failures), "{failures} tries:\n{stderr}");
}

#[test]
fn only_if_none_is_left_does_the_server_end() {
    let mut server = start(&["--workers", "2"]);
    let steady = *workers(server.pid()).first().unwrap();
    let kill_all_but = |spared: u32| {
        let others = workers(server.pid()).into_iter().filter(|&pid| pid != spared);
        let kill = |&pid: &u32| kill(Pid::from_raw(pid as i32), Signal::SIGKILL).is_ok();
        others.filter(kill).collect::<BTreeSet<_>>()
    };
    // One dies more often than would be borne of all, and the other goes on.
    let mut dead = BTreeSet::new();
    while dead.len() < 6 {
        dead.extend(kill_all_but(steady));
    }
    ask(&mut server.connect(), b"hello\n", b"hello\n");
    while is_alive(server.pid()) {
        kill_all_but(0);
    }
    assert!(!server.is_running());
    let outcome = server.wait();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("again and again (killed by SIGKILL)"), "{}", outcome.stderr);
}

#[test]
fn a_worker_told_to_stop_is_replaced_and_loses_nothing() {
    let server = start(&["--workers", "2"]);
    let clients = crowd(&server, 40);
    let told = *workers(server.pid()).first().unwrap();
    signal(told, Signal::SIGTERM);
    // It ends its connections by a FIN, after what they had asked.
    wait_until("another in its place", || {
        let now = workers(server.pid());
        now.len() == 2 && !now.contains(&told)
    });
    let left = ask_all(clients);
    assert!(left.len() < 40);
    drop(left);
    let outcome = server.stop();
    assert_eq!((outcome.count("lost"), outcome.count("restarts")), (0, 1));
    assert_eq!(outcome.summary().errors, 0);
}

#[test]
fn workers_do_not_outlive_a_killed_parent() {
    let server = start(&["--workers", "3"]);
    let mut client = server.connect();
    ask(&mut client, b"hello\n", b"hello\n");
    let orphans = workers(server.pid());
    server.signal(Signal::SIGKILL);
    expect_eof(&mut client);
    drop(client);
    wait_until("the workers to end", || !orphans.iter().any(|&pid| is_alive(pid)));
}

/// A terminal sends SIGINT to the whole group.
#[test]
fn ctrl_c_ends_all_of_them_well() {
    let server = start(&["--workers", "2"]);
    let mut client = server.connect();
    ask(&mut client, b"hello\n", b"hello\n");
    for pid in workers(server.pid()) {
        signal(pid, Signal::SIGINT);
    }
    ask(&mut client, b"still here\n", b"still here\n");
    server.signal(Signal::SIGINT);
    expect_eof(&mut client);
    drop(client);
    let outcome = server.wait();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(outcome.summary().requests, 2);
    assert_eq!(outcome.count("restarts"), 0);
}

/// Neither can hear that it is to end, nor that its parent has.
#[test]
fn a_second_signal_leaves_no_worker_either() {
    let mut server = start(&["--workers", "2", "--drain", "1h"]);
    let all = workers(server.pid());
    let stopped = *all.first().unwrap();
    signal(stopped, Signal::SIGSTOP);
    wait_until("one to be stopped", || state(stopped) == Some('T'));
    server.signal(Signal::SIGTERM);
    wait_until("the other to end", || workers(server.pid()).len() == 1);
    assert!(server.is_running(), "it waits for the one that is stopped");
    server.signal(Signal::SIGINT);
    wait_until("the workers to end", || !all.iter().any(|&pid| is_alive(pid)));
    let outcome = server.wait();
    assert_eq!(outcome.status.signal(), Some(libc::SIGINT), "{}", outcome.stderr);
}

#[test]
fn a_unix_socket_stays_for_the_successor() {
    let path = scratch_path("workers", &Candidate { name: "epoll", ..EPOLL });
    let listen = format!("unix:{}", path.display());
    let server = Server::listening(&EPOLL, &[&listen], &["--workers", "1", "--reuse-port"]);
    ask(&mut connect_unix(&path), b"one\n", b"one\n");
    let first = workers(server.pid());
    signal(*first.first().unwrap(), Signal::SIGTERM);
    wait_until("another", || {
        workers(server.pid()).len() == 1 && workers(server.pid()).is_disjoint(&first)
    });
    ask(&mut connect_unix(&path), b"two\n", b"two\n");
    assert_eq!(server.stop().summary().requests, 2);
    assert!(!path.exists(), "the parent removes it");
}

#[test]
fn resets_are_counted_wherever_they_happen() {
    let server = start(&["--workers", "2"]);
    let clients = ask_all((0..50).map(|_| server.connect()).collect());
    clients.into_iter().for_each(reset);
    wait_until("them to be closed", || server_sockets(&server) == 0);
    let outcome = server.stop();
    assert_eq!(outcome.errors(libc::ECONNRESET), 50);
    assert_eq!(outcome.summary().errors, 50);
}

#[test]
fn usage() {
    for (args, why) in [
        (&["--workers", "2", "--model", "threads"][..], "--workers is for --model epoll"),
        (&["--workers", "0"], "at least 1 is needed"),
        (&["--workers", "100k"], "--workers is 1000 at most"),
    ] {
        let output = common::server::c10k(&[&["serve"], args].concat()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(why) && stderr.lines().count() == 1, "{stderr}");
    }
}

/// A test runs in a thread, and beside it are others: there is no forking here.
#[test]
fn a_process_with_threads_does_not_fork() {
    let builder = || {
        LibraryServer::builder()
            .listen("127.0.0.1:0")
            .unwrap()
            .framing(Delimiter::new(b'\n'))
            .service(|| Echo)
    };
    for server in [builder().workers(2), builder().model(Model::Processes)] {
        let error = server.build().unwrap_err().to_string();
        assert!(error.contains("a fork copies only one of them"), "{error}");
    }
    let error = builder().workers(2).model(Model::Poll).build().unwrap_err();
    assert_eq!(error.to_string(), "workers are for the model epoll");
}
