//! Where a server listens: several places, IPv4 and IPv6, names, paths.

#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use c10k::Addr;
use c10k::sys::ListenOptions;

use common::client::{connect_unix, try_connect};
use common::{
    EPOLL, EVERY_MODEL, Need, Server, ask, each_model, each_of, has, scratch_path, wait_until,
};

#[test]
fn several_listeners_serve_alike() {
    each_model(|model| {
        let path = scratch_path("several", model);
        let unix = format!("unix:{}", path.display());
        let server = Server::listening(model, &["127.0.0.1:0", &unix, "127.0.0.1:0"], &[]);
        assert_ne!(server.addr_at(0), server.addr_at(2));
        assert_eq!(server.addrs[1], format!("unix {}", path.display()));
        let mut first = server.connect();
        let mut second = connect_unix(&path);
        let mut third = common::connect(server.addr_at(2));
        for round in 0..3 {
            ask(&mut first, format!("first {round}\n").as_bytes(), b"first");
            ask(&mut second, b"second\n", b"second\n");
            ask(&mut third, b"third\n", b"third\n");
            common::expect(&mut first, format!(" {round}\n").as_bytes());
        }
        assert_eq!(server.stop().summary().connections, 3);
        assert!(!path.exists(), "the path is removed at the end");
    });
}

#[test]
fn ipv6() {
    if !has(Need::Ipv6) {
        return;
    }
    each_of(EVERY_MODEL, |model| {
        let server = Server::listening(model, &["[::1]:0", "127.0.0.1:0"], &[]);
        assert!(server.addr_at(0).is_ipv6());
        ask(&mut server.connect(), b"six\n", b"six\n");
        ask(&mut common::connect(server.addr_at(1)), b"four\n", b"four\n");
    });
}

#[test]
fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
    each_of(EVERY_MODEL, |model| {
        let path = scratch_path("stale", model);
        let unix = format!("unix:{}", path.display());
        // What a killed server leaves: a path that nobody listens on.
        drop(UnixListener::bind(&path).expect("a path of our own"));
        assert!(path.exists());
        // A child that another test is just starting has it too, until it execs.
        wait_until("nobody to listen", || UnixStream::connect(&path).is_err());
        let server = Server::listening(model, &[&unix], &[]);
        ask(&mut connect_unix(&path), b"new\n", b"new\n");

        let mut args = vec!["serve", "--listen", &unix];
        args.extend(model.args);
        let second = common::server::c10k(&args).output().unwrap();
        assert_eq!(second.status.code(), Some(2));
        ask(&mut connect_unix(&path), b"still here\n", b"still here\n");
        server.stop();
        assert!(!path.exists());
    });
}

#[test]
fn an_abstract_socket_is_no_file() {
    each_of(EVERY_MODEL, |model| {
        let name = format!("c10k-test-{}-{}", std::process::id(), model.name);
        let address = format!("unix:@{name}");
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        // As a unix socket with a path it can be had twice, but with nothing to remove in between.
        for _ in 0..2 {
            let server = Server::listening(model, &[&address], &[]);
            assert_eq!(server.addrs, [format!("unix @{name}")]);
            let mut client = UnixStream::connect_addr(&at).expect("a connection");
            client.write_all(b"hello\n").unwrap();
            let mut reply = [0; 6];
            client.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"hello\n");
            drop(client);
            for file in [format!("@{name}"), name.clone()] {
                assert!(!Path::new(&file).exists());
            }
            let ask = ["client", &address, "from the program"];
            let asked = common::server::c10k(&ask).output().unwrap();
            assert_eq!(asked.stdout, b"from the program\n");
            let second = common::server::c10k(&["serve", "--listen", &address]).output().unwrap();
            assert_eq!(second.status.code(), Some(2), "it is taken");
            assert_eq!(server.stop().summary().requests, 2);
        }
    });
}

/// A unix listener has room for few, and the kernel has nothing for a client to wait with: EAGAIN.
/// It was taken for a failure, and 24 of 300 connections were never made.
#[test]
fn a_full_unix_queue_is_waited_for() {
    let path = scratch_path("full", &EPOLL);
    let address = format!("unix:{}", path.display());
    let options = ListenOptions { backlog: 0, reuse_port: false };
    let listener = c10k::sys::listen(&Addr::Unix(path.clone()), &options).unwrap();
    let first = connect_unix(&path);
    let mut client = common::server::c10k(&["client", &address, "hello"]);
    let client = client.stdout(Stdio::piped()).spawn().unwrap();
    let serving = thread::spawn(move || {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(false).unwrap();
        thread::scope(|scope| {
            // The one that fills the queue, the client, and those of the load.
            for _ in 0..1 + 1 + 100 {
                let (stream, _) = listener.accept().unwrap();
                scope.spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
            drop(listener);
        });
    });
    assert_eq!(client.wait_with_output().unwrap().stdout, b"hello\n");
    let args = ["--connections", "100", "--requests-each", "1", "--timeout", "1m"];
    let report = common::load::complete(&common::load::load(&address, &args));
    assert_eq!((&report["connected"], &report["requests"]), (&100.into(), &100.into()));
    drop(first);
    serving.join().unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn what_is_no_address_says_what_to_write_whoever_reads_it() {
    for (written, says) in [
        (":8080", "write 127.0.0.1:8080 for this machine only"),
        ("http://host:80/", "write host:80, which is not a URL"),
    ] {
        for verb in [&["serve", "--listen"][..], &["client"], &["load"]] {
            let output = common::server::c10k(&[verb, &[written]].concat()).output().unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
            assert!(error.contains(says), "{verb:?}: {error}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn a_stopped_server_leaves_its_address() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &[]);
        let addr = server.addr();
        let mut client = server.connect();
        ask(&mut client, b"hello\n", b"hello\n");
        // The server is the one to close first, so the connection goes to TIME-WAIT at its side.
        server.signal(nix::sys::signal::Signal::SIGTERM);
        common::expect_eof(&mut client);
        drop(client);
        assert!(server.wait().status.success());
        assert!(try_connect(addr).is_err(), "nobody listens any more");
        let again = Server::listening(model, &[&addr.to_string()], &[]);
        ask(&mut again.connect(), b"again\n", b"again\n");
    });
}

#[test]
fn a_path_that_is_taken_away_does_not_matter_at_the_end() {
    each_of(EVERY_MODEL, |model| {
        let path = scratch_path("taken", model);
        let unix = format!("unix:{}", path.display());
        let server = Server::listening(model, &[&unix], &[]);
        let mut client = connect_unix(&path);
        ask(&mut client, b"1\n", b"1\n");
        fs::remove_file(&path).unwrap();
        ask(&mut client, b"2\n", b"2\n");
        drop(client);
        assert_eq!(server.stop().summary().requests, 2);
    });
}
