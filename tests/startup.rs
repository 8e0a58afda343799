//! What a machine or a sandbox does not allow is said before the server listens; what is a mere
//! convenience it does without.

#![cfg(feature = "cli")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use common::server::c10k;
use common::start::{hide, limit_descriptors, refuse};
use common::{
    BLOCKING, Candidate, DEADLINE, EPOLL, EVERY_MODEL, POLL, PROCESSES, SELECT, Server, THREADS,
    ask, each_of, kernel, skip,
};
use libc::EPERM;

/// A server at one address, that is not started yet.
fn serve(model: &Candidate, listen: &str, args: &[&str]) -> Command {
    c10k(&[&["serve", "--listen", listen], model.args, args].concat())
}

/// It ends with status 2 and one line, and has not said that it listens.
#[track_caller]
fn cannot(command: &mut Command, why: &str) {
    let output = command.output().expect("the program");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(output.stdout, b"", "it has said that it listens");
    assert_eq!(stderr, format!("c10k: cannot {why}\n"));
}

/// It serves, and warns of these things only.
#[track_caller]
fn serves(command: Command, warnings: &[&str]) {
    let server = Server::spawn(command, 1).expect("the program");
    let mut client = server.connect();
    ask(&mut client, b"hello\n", b"hello\n");
    drop(client);
    let outcome = server.stop();
    assert_eq!(outcome.summary().requests, 1);
    let warned: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warned.len(), warnings.len(), "{warned:?}");
    for (line, warning) in warned.iter().zip(warnings) {
        assert!(line.contains(warning), "{line}");
    }
}

const NOT_PERMITTED: &str = "Operation not permitted (os error 1)";

#[test]
fn a_call_that_is_refused_is_named_before_it_listens() {
    let workers = Candidate { name: "workers", args: &["--workers", "2"], ..EPOLL };
    let models = || EVERY_MODEL.iter().chain([&workers]);
    for (call, what) in [
        (libc::SYS_eventfd2, "make a waker for the loop (eventfd2)"),
        (libc::SYS_timerfd_create, "make a timer for the loop (timerfd_create)"),
        (libc::SYS_signalfd4, "receive signals (signalfd4)"),
    ] {
        for model in models() {
            let mut command = serve(model, "127.0.0.1:0", &[]);
            cannot(refuse(&mut command, call, None, EPERM), &format!("{what}: {NOT_PERMITTED}"));
        }
    }
    for (call, what) in [
        (libc::SYS_epoll_create1, "create an epoll instance (epoll_create1)"),
        (libc::SYS_epoll_ctl, "watch a descriptor (epoll_ctl)"),
    ] {
        for model in [&EPOLL, &THREADS, &BLOCKING, &workers] {
            let mut command = serve(model, "127.0.0.1:0", &[]);
            cannot(refuse(&mut command, call, None, EPERM), &format!("{what}: {NOT_PERMITTED}"));
        }
        // Whoever has no use for it is served.
        for model in [POLL, SELECT, PROCESSES] {
            let mut command = serve(&model, "127.0.0.1:0", &[]);
            refuse(&mut command, call, None, EPERM);
            serves(command, &[]);
        }
    }
}

/// Three are the standard ones, and one is the listener; the last is the one in reserve.
#[test]
fn so_is_a_descriptor_that_is_lacking() {
    for (fds, what) in [
        (4, "receive signals (signalfd4)"),
        (5, "create an epoll instance (epoll_create1)"),
        (6, "make a waker for the loop (eventfd2)"),
        (7, "make a timer for the loop (timerfd_create)"),
        (8, "reserve a descriptor (eventfd2)"),
    ] {
        let why = format!(
            "{what}: Too many open files (os error 24); raise the limit on open files (ulimit -n)"
        );
        for workers in [&[][..], &["--workers", "2"]] {
            let mut command = serve(&EPOLL, "127.0.0.1:0", workers);
            cannot(limit_descriptors(&mut command, fds), &why);
        }
    }
}

#[test]
fn a_limit_that_may_not_be_raised_is_left_as_it_is() {
    let why = "the limit on open files stays as it is (prlimit64): Operation not permitted";
    for workers in [&[][..], &["--workers", "2"]] {
        let mut command = serve(&EPOLL, "127.0.0.1:0", workers);
        refuse(&mut command, libc::SYS_prlimit64, None, EPERM);
        serves(command, &[why]);
    }
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let mut load = c10k(&["load", &addr, "--connections", "2", "--requests", "10"]);
    refuse(&mut load, libc::SYS_prlimit64, None, EPERM);
    let output = load.env("RUST_LOG", "info").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains(why), "{stderr}");
}

/// The interfaces cannot be listed then, and the server still knows itself.
#[test]
fn without_netlink_datagrams_are_served_and_its_own_are_refused() {
    each_of(&[EPOLL, PROCESSES], |model| {
        let mut command = serve(model, "0.0.0.0:0", &["--udp", "--reuse-port"]);
        refuse(&mut command, libc::SYS_socket, Some(libc::AF_NETLINK as u32), EPERM);
        let server = Server::spawn(command, 2).expect("the program");
        let port = server.udp_addr().port();
        let at = |ip: [u8; 4], port| SocketAddr::from((ip, port));
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let exchange = |request: &[u8]| {
            client.send_to(request, at([127, 0, 0, 1], port)).unwrap();
            let mut reply = [0; 100];
            let (len, _) = client.recv_from(&mut reply).expect("a reply");
            assert_eq!(&reply[..len], request);
        };
        exchange(b"before");
        // From where the server itself sends.
        for own in own_addrs() {
            kernel::send_from(at(own, port), at([127, 0, 0, 1], port), b"who is there?");
        }
        exchange(b"after");
        let outcome = server.stop();
        assert_eq!(outcome.count("refused_own_address"), own_addrs().len() as u64);
        assert_eq!(outcome.summary().requests, 2);
        assert!(!outcome.stderr.contains("WARN"), "{}", outcome.stderr);
    });
}

/// Addresses of this machine: of the loopback interface, and of the one that leads elsewhere, if
/// there is one.
fn own_addrs() -> Vec<[u8; 4]> {
    let outward = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent by that.
        socket.connect("192.0.2.1:9").ok()?;
        match socket.local_addr().ok()? {
            SocketAddr::V4(addr) => Some(addr.ip().octets()),
            SocketAddr::V6(_) => None,
        }
    };
    [[127, 0, 0, 1], [127, 1, 2, 3]].into_iter().chain(outward()).collect()
}

#[test]
fn a_unix_socket_is_removed_if_it_cannot_start() {
    let path = common::scratch_path("startup", &EPOLL);
    let mut command = serve(&EPOLL, &format!("unix:{}", path.display()), &[]);
    let why = format!("make a timer for the loop (timerfd_create): {NOT_PERMITTED}");
    cannot(refuse(&mut command, libc::SYS_timerfd_create, None, EPERM), &why);
    assert!(!path.exists());
}

/// `/proc` and `/dev` are empty folders for these.
#[test]
fn without_proc_and_dev_it_serves_asks_and_loads() {
    let forks = [
        Candidate { name: "workers", args: &["--workers", "2"], ..EPOLL },
        Candidate { name: "workers", args: &["--workers", "2", "--reuse-port"], ..EPOLL },
    ];
    for model in EVERY_MODEL.iter().chain(&forks) {
        let mut command = serve(model, "127.0.0.1:0", &[]);
        if command_fails(hide(&mut c10k(&["--version"]), &["/proc", "/dev"])) {
            return skip("there are no mount namespaces");
        }
        hide(&mut command, &["/proc", "/dev"]);
        let server = Server::spawn(command, 1).expect("the program");
        let addr = server.addr().to_string();
        let output = hide(&mut c10k(&["client", &addr, "hello"]), &["/proc", "/dev"]).output();
        let output = output.unwrap();
        assert_eq!(output.stdout, b"hello\n", "{}", String::from_utf8_lossy(&output.stderr));
        // What /proc would tell of the server is not made up.
        let pid = server.pid().to_string();
        let load = ["load", &addr, "--connections", "1", "--requests-each", "10", "--json"];
        let load = [&load[..], &["--server-pid", &pid]].concat();
        for workers in [&[][..], &["--workers", "1"]] {
            let mut command = c10k(&[&load[..], workers].concat());
            let output = hide(&mut command, &["/proc", "/dev"]).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            assert!(stderr.contains("no CPU figures of the server"), "{stderr}");
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            for figure in ["server_cpu_us_per_request", "server_switches_per_request"] {
                assert!(report[figure].is_null(), "{figure}: {}", report[figure]);
            }
        }
        let summary = server.stop().summary();
        assert_eq!((summary.requests, summary.errors), (21, 0), "{model:?}");
    }
}

fn command_fails(command: &mut Command) -> bool {
    !command.output().is_ok_and(|output| output.status.success())
}

/// Docker refuses `unshare(2)`, and has `/proc`. Where there is neither, it says what they are for.
#[test]
fn whether_there_are_threads_is_told_in_one_of_two_ways_or_not() {
    let forks = Candidate { name: "workers", args: &["--workers", "2"], ..EPOLL };
    let mut command = serve(&forks, "127.0.0.1:0", &[]);
    refuse(&mut command, libc::SYS_unshare, None, EPERM);
    serves(command, &[]);
    for model in [&forks, &PROCESSES] {
        let mut command = serve(model, "127.0.0.1:0", &[]);
        hide(&mut command, &["/proc"]);
        refuse(&mut command, libc::SYS_unshare, None, EPERM);
        if command_fails(hide(&mut c10k(&["--version"]), &["/proc"])) {
            return skip("there are no mount namespaces");
        }
        let why = "fork: a fork copies only one thread, and whether this process has others cannot \
                   be told: /proc/self/task: No such file or directory (os error 2); \
                   unshare(CLONE_THREAD): Operation not permitted";
        cannot(&mut command, why);
    }
}
