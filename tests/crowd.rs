//! Ten thousand connections at once, and what they cost.

#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::kernel::{anonymous, thread_count};
use common::{Candidate, EPOLL, EPOLL_LEVEL, PROCESSES, Server, THREADS, expect, skip, wait_until};

/// Resident bytes for an idle connection: its slot (64 at most), its timer (24), and its share of
/// pages begun.
const EACH_MAX: f64 = 96.0;

/// What one connection of a crowd says, and nobody else.
fn words(n: usize) -> Vec<u8> {
    format!("connection {n} has this to say\n").into_bytes()
}

/// Opens connections until there are `size`, and has each one answered.
fn grow(server: &Server, crowd: &mut Vec<TcpStream>, size: usize) {
    let from = crowd.len();
    while crowd.len() < size {
        let mut client = server.connect();
        client.write_all(&words(crowd.len())).unwrap();
        crowd.push(client);
    }
    for (n, client) in crowd.iter_mut().enumerate().skip(from) {
        expect(client, &words(n));
    }
}

/// A crowd comes, talks, and goes. Returns the resident memory of the server that each one took;
/// what its children have is not in it.
fn crowd_of(size: usize, candidate: &Candidate) -> f64 {
    // A child has the standard three besides.
    let fds_each = if *candidate == PROCESSES { 4 } else { 1 };
    let server = Server::start(candidate, &["--idle-timeout", "10m"]);
    let mut crowd = Vec::new();
    // The first hundred make the buffers that all share.
    grow(&server, &mut crowd, 100);
    // The parent of processes closes its copy of a socket when the child may have answered.
    wait_until("no more descriptors than needed", || server.connections() == 100);
    let (fds, memory) = (server.fds(), anonymous(server.pid()));
    grow(&server, &mut crowd, size);
    let each = anonymous(server.pid()).saturating_sub(memory) as f64 / (size - 100) as f64;
    wait_until("as many", || server.connections() == size);
    assert_eq!(server.fds(), fds + fds_each * (size - 100));

    // All at once, the last comes first: nobody gets another's reply.
    for (n, client) in crowd.iter_mut().enumerate().rev() {
        client.write_all(&words(size + n)).unwrap();
    }
    for (n, client) in crowd.iter_mut().enumerate() {
        expect(client, &words(size + n));
    }
    // Most go, and others come: slots, descriptors and their numbers are used again.
    drop(crowd.split_off(100));
    wait_until("the descriptors to be given back", || server.fds() == fds);
    grow(&server, &mut crowd, 200);
    drop(crowd);
    wait_until("the rest of them too", || server.connections() == 0);
    assert_eq!(server.fds(), fds - fds_each * 100, "nothing else was left open either");
    wait_until("the threads to end", || thread_count(server.pid()) == 1);

    let summary = server.stop().summary();
    assert_eq!(summary.requests as usize, 2 * size + 100);
    assert_eq!(summary.connections as usize, size + 100);
    assert_eq!((summary.refused, summary.errors), (0, 0));
    each
}

/// As many as wanted, or as the limit on descriptors allows here: the server inherits it.
fn allowed(wanted: usize) -> usize {
    let limit = c10k::sys::raise_fd_limit().expect("a limit") as usize;
    let size = wanted.min(limit.saturating_sub(200));
    if size < wanted {
        skip(&format!("{size} connections instead of {wanted}: the hard limit is {limit}"));
    }
    size
}

/// One test, so that one crowd is there at a time.
#[test]
fn a_crowd_is_served_and_costs_little() {
    for model in [EPOLL, EPOLL_LEVEL] {
        let size = allowed(10_000);
        let each = crowd_of(size, &model);
        println!("{}: {each:.1} bytes for each of {size} connections", model.name);
        assert!(each <= EACH_MAX, "{}: {each:.1} bytes for each connection", model.name);
    }
    let size = allowed(2_000);
    let each = crowd_of(size, &THREADS);
    println!("threads: {each:.0} bytes for each of {size} connections");
    crowd_of(500, &PROCESSES);
}
