//! `c10k serve --udp`: datagrams, and what may happen to them.

#![cfg(feature = "cli")]

mod common;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::thread;

use common::strace::Strace;
use common::{
    Candidate, DEADLINE, EPOLL, EVERY_MODEL, Need, Server, ask, each_of, has, kernel, wait_until,
};
use nix::sys::signal::Signal;

fn start(model: &Candidate, args: &[&str]) -> Server {
    Server::start(model, &[&["--udp"], args].concat())
}

/// A client of its own, which is connected: it receives from there only.
fn client_of(addr: SocketAddr) -> UdpSocket {
    let any: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let client = UdpSocket::bind((any, 0)).expect("a port");
    client.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    client.connect(addr).expect("an address");
    client
}

#[track_caller]
fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 70_000];
    let len = client.recv(&mut reply).expect("a reply");
    reply.truncate(len);
    reply
}

#[track_caller]
fn exchange(client: &UdpSocket, request: &[u8], reply: &[u8]) {
    client.send(request).expect("sent");
    assert_eq!(receive(client).escape_ascii().to_string(), reply.escape_ascii().to_string());
}

#[test]
fn one_datagram_is_one_message() {
    each_of(EVERY_MODEL, |model| {
        let server = start(model, &["--prefix", "got:"]);
        assert_eq!(server.addr(), server.udp_addr(), "streams are at the same port");
        let client = client_of(server.udp_addr());
        exchange(&client, b"hello", b"got:hello");
        exchange(&client, b"two\nlines\n", b"got:two\nlines\n");
        exchange(&client, b"", b"got:");
        // Whatever the model is busy with, datagrams are served.
        let mut stream = server.connect();
        ask(&mut stream, b"a\n", b"got:a\n");
        exchange(&client, b"beside a stream", b"got:beside a stream");
        ask(&mut stream, b"b\n", b"got:b\n");
        drop(stream);
        let outcome = server.stop();
        assert_eq!(outcome.summary().requests, 6);
        assert_eq!((outcome.summary().connections, outcome.summary().errors), (1, 0));
        assert_eq!(outcome.count("datagrams"), 4);
    });
}

#[test]
fn an_empty_reply_is_a_datagram_too() {
    let server = start(&EPOLL, &[]);
    let client = client_of(server.udp_addr());
    exchange(&client, b"", b"");
    assert_eq!(server.stop().summary().requests, 1);
}

#[test]
fn sums_and_their_errors() {
    let server = start(&EPOLL, &["--protocol", "sum"]);
    let client = client_of(server.udp_addr());
    exchange(&client, br#"{"A":7,"B":4}"#, br#"{"Sum":11}"#);
    exchange(&client, b"{\"a\":7}\n", br#"{"Sum":7}"#);
    client.send(b"nonsense").unwrap();
    assert!(receive(&client).starts_with(br#"{"Error":""#));
    // One that is malformed takes nothing with it.
    exchange(&client, b"{}", br#"{"Sum":0}"#);
    assert_eq!(server.stop().summary().requests, 4);
}

#[test]
fn over_ipv6() {
    if !has(Need::Ipv6) {
        return;
    }
    let server = Server::listening(&EPOLL, &["[::1]:0"], &["--udp"]);
    exchange(&client_of(server.udp_addr()), b"six", b"six");
    assert_eq!(server.stop().summary().requests, 1);
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    let server = Server::listening(&EPOLL, &["0.0.0.0:0"], &["--udp"]);
    let port = server.udp_addr().port();
    // A connected socket takes a reply only from where it has sent to.
    for host in 1..5 {
        let addr = SocketAddr::from(([127, 0, 0, host], port));
        exchange(&client_of(addr), b"four", b"four");
    }
    assert_eq!(server.stop().summary().requests, 4);
}

#[test]
fn one_that_is_too_long_is_dropped_and_not_served_in_part() {
    let server = start(&EPOLL, &["--max-frame", "100"]);
    let client = client_of(server.udp_addr());
    exchange(&client, &[b'x'; 100], &[b'x'; 100]);
    client.send(&[b'y'; 101]).unwrap();
    client.send(&[b'y'; 60_000]).unwrap();
    exchange(&client, b"next", b"next");
    let outcome = server.stop();
    assert_eq!(outcome.count("refused_datagram_too_long"), 2);
    let summary = outcome.summary();
    assert_eq!((summary.requests, summary.refused, summary.errors), (2, 2, 0));
}

#[test]
fn the_longest_there_is() {
    let server = start(&EPOLL, &[]);
    let client = client_of(server.udp_addr());
    let longest = vec![b'z'; 65_507];
    client.send(&longest).expect("sent");
    assert!(receive(&client) == longest);
    drop(server);

    // Its reply would be longer than a datagram can be.
    let server = start(&EPOLL, &["--prefix", "got:"]);
    let client = client_of(server.udp_addr());
    client.send(&longest).expect("sent");
    exchange(&client, b"next", b"got:next");
    let outcome = server.stop();
    assert_eq!((outcome.count("replies_dropped"), outcome.errors(libc::EMSGSIZE)), (1, 1));
}

#[test]
fn ten_users_of_one_socket() {
    let server = start(&EPOLL, &[]);
    let client = client_of(server.udp_addr());
    let replies = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for user in 0..10 {
            let (client, replies) = (&client, &replies);
            scope.spawn(move || {
                for number in 0..100 {
                    let request = format!("user {user}, request {number}");
                    client.send(request.as_bytes()).expect("sent");
                    // Somebody's: a socket does not know its users apart.
                    let reply = String::from_utf8(receive(client)).expect("text");
                    assert!(replies.lock().unwrap().insert(reply), "each comes once");
                }
            });
        }
    });
    let replies = replies.into_inner().unwrap();
    let is_there = |user, number| replies.contains(&format!("user {user}, request {number}"));
    assert!((0..10).all(|user| (0..100).all(|number| is_there(user, number))));
    assert_eq!(server.stop().summary().requests, 1_000);
}

#[test]
fn one_from_the_servers_own_address_is_refused() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        // It shares its port, so that we can send from there too.
        let args = ["--udp", "--reuse-port", "--protocol", "echo"];
        let server = Server::listening(&EPOLL, &[listen], &args);
        let port = server.udp_addr().port();
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        kernel::send_from(own, own, b"who is there?");

        let client = client_of(SocketAddr::from(([127, 0, 0, 1], port)));
        exchange(&client, b"me", b"me");
        let outcome = server.stop();
        assert_eq!(outcome.count("refused_own_address"), 1, "{listen}");
        assert_eq!((outcome.summary().requests, outcome.summary().refused), (1, 1));
    }
}

#[test]
fn a_reply_is_not_answered() {
    let error = r#"{"Error":"expected value at line 1 column 1"}"#;
    // How it serves, what is sent that is a reply of such a server, and a request with its reply.
    for (serves, replies, request, reply) in [
        (["--protocol", "sum"], [error, r#"{"Sum":11}"#], r#"{"A":1}"#, r#"{"Sum":1}"#),
        (["--protocol", "ok"], ["ok", "ok"], "ok?", "ok"),
        (["--prefix", "got:"], ["got:it", "got:got:"], "it", "got:it"),
    ] {
        let server = start(&EPOLL, &serves);
        let client = client_of(server.udp_addr());
        for datagram in replies {
            client.send(datagram.as_bytes()).unwrap();
        }
        exchange(&client, request.as_bytes(), reply.as_bytes());
        let outcome = server.stop();
        assert_eq!(outcome.count("refused_reply"), 2, "{serves:?}");
        assert_eq!((outcome.summary().requests, outcome.summary().refused), (1, 2));
    }
}

#[test]
fn a_sender_that_is_gone_disturbs_nobody() {
    each_of(EVERY_MODEL, |model| {
        let server = start(model, &[]);
        let staying = client_of(server.udp_addr());
        for _ in 0..20 {
            // Its host says by ICMP that nobody is there, for each reply.
            client_of(server.udp_addr()).send(b"and away").unwrap();
            exchange(&staying, b"still", b"still");
        }
        assert_eq!((server.stop().summary().requests), 40);
    });
}

#[test]
fn what_has_arrived_is_answered_before_the_end() {
    each_of(EVERY_MODEL, |model| {
        let server = start(model, &[]);
        let client = client_of(server.udp_addr());
        exchange(&client, b"ready", b"ready");
        server.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || kernel::state(server.pid()) == Some('T'));
        for number in 0..100 {
            client.send(format!("{number}").as_bytes()).expect("sent");
        }
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        let replies: HashSet<_> = (0..100).map(|_| receive(&client)).collect();
        assert_eq!(replies.len(), 100);
        assert_eq!(server.wait().summary().requests, 101);
    });
}

#[test]
fn workers_share_a_socket_or_have_their_own() {
    for reuse_port in [false, true] {
        let mut args = vec!["--udp", "--workers", "3"];
        args.extend(reuse_port.then_some("--reuse-port"));
        let server = Server::start(&EPOLL, &args);
        for number in 0..50 {
            let request = format!("client {number}").into_bytes();
            exchange(&client_of(server.udp_addr()), &request, &request);
        }
        let outcome = server.stop();
        assert_eq!((outcome.summary().requests, outcome.count("datagrams")), (50, 50));
    }
}

#[test]
fn calls_that_fail_lose_no_more_than_they_must() {
    // What is received is what was sent before: only a reply can be lost.
    let cases = [
        ("recvmmsg", "error=EINTR:when=1..9+2", 0, 0),
        ("recvmmsg", "error=ENOMEM:when=1..3+2", 0, 2),
        ("sendmmsg", "error=EINTR:when=1..9+2", 0, 0),
        ("sendmmsg", "error=ENOBUFS:when=2", 1, 1),
        ("sendmmsg", "error=EAGAIN:when=2", 1, 1),
    ];
    for (call, fault, lost, errors) in cases {
        let server = start(&EPOLL, &[]);
        let client = client_of(server.udp_addr());
        exchange(&client, b"before", b"before");
        let inject = format!("inject={call}:{fault}");
        let Some(strace) = Strace::attach(&server, &[&format!("trace={call}"), &inject]) else {
            return;
        };
        for number in 0..10 {
            let request = format!("{number}").into_bytes();
            client.send(&request).unwrap();
            // One at a time; the second goes without its reply.
            if lost == 0 || number != 1 {
                assert_eq!(receive(&client), request, "{call} {fault}");
            } else {
                wait_until("it is dropped", || strace.injected() == 1);
            }
        }
        strace.detach();
        let outcome = server.stop();
        assert_eq!(outcome.summary().requests, 11, "{call} {fault}");
        assert_eq!(outcome.count("replies_dropped"), lost, "{call} {fault}");
        assert_eq!(outcome.summary().errors, errors, "{call} {fault}");
    }
}

#[test]
fn no_port_for_both_is_said() {
    let (output, stderr, addr) = loop {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let output = common::server::c10k(&["serve", "--udp", "--listen", &addr]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // The port of streams may be anybody's.
        if !stderr.contains("cannot listen on tcp") {
            break (output, stderr, addr);
        }
    };
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains(&format!("cannot listen on udp {addr}")), "{stderr}");
    let path = std::env::temp_dir().join(format!("c10k-{}-dgram", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let output = common::server::c10k(&["serve", "--udp", "--listen", &listen]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!path.exists());
}
