//! `c10k load`: who connects where and how, and what is told of what cannot be.

#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::thread;

use c10k::sys;
use common::load::{Waiting, good, load, report};
use common::server::c10k;
use common::start::limit_descriptors;
use common::{EPOLL, Server, each_model};

#[test]
fn several_targets_have_the_same_load() {
    let servers = [Server::start(&EPOLL, &[]), Server::start(&EPOLL, &[])];
    let addrs = servers.each_ref().map(|server| server.addr().to_string());
    let more = [&addrs[1], "--connections", "20", "--requests-each", "5", "--workers", "3"];
    let report = good(&load(&addrs[0], &more));
    assert_eq!((&report["connected"], &report["answered"]), (&20.into(), &20.into()));
    for server in servers {
        let summary = server.stop().summary();
        assert_eq!((summary.connections, summary.requests), (10, 50));
    }
}

#[test]
fn a_name_means_the_address_that_answers() {
    // Only one of the addresses that the name may stand for.
    let server = Server::start(&EPOLL, &[]);
    let addr = format!("localhost:{}", server.addr().port());
    good(&load(&addr, &["--connections", "3", "--requests-each", "2"]));
    assert_eq!(server.stop().summary().requests, 6);
}

#[test]
fn connections_come_from_the_sources_and_go_to_the_targets() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addrs = listeners.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let sources = ["--source", "127.1.2.4/30,127.0.0.9", "--source", "127.0.0.9"];
    let args = [&addrs[0], &addrs[1], "--connections", "40", "--workers", "2"];
    let _load = Waiting::start(&[&args[..], &sources].concat(), 40);
    let mut seen = BTreeMap::new();
    for (number, listener) in listeners.iter().enumerate() {
        for _ in 0..20 {
            let (_, peer) = listener.accept().unwrap();
            *seen.entry((peer.ip().to_string(), number)).or_insert(0) += 1;
        }
    }
    let ips = ["127.0.0.9", "127.1.2.4", "127.1.2.5", "127.1.2.6", "127.1.2.7"];
    let want = ips.into_iter().flat_map(|ip| [0, 1].map(|number| ((ip.to_owned(), number), 4)));
    assert_eq!(seen, want.collect());
}

/// The requests of connecting are none of those measured, or asked for.
#[test]
fn a_probe_is_one_request_more() {
    each_model(|model| {
        let server = Server::start(model, &[]);
        let addr = server.addr().to_string();
        let args = ["--connections", "40", "--probe", "--active", "10", "--requests-each", "3"];
        let report = good(&load(&addr, &args));
        assert_eq!(report["answered"], 40, "{report:#}");
        assert_eq!((&report["requests"], &report["requests_total"]), (&30.into(), &70.into()));
        assert_eq!(server.stop().summary().requests, 70);
    });
}

#[test]
fn a_probe_that_is_not_answered_is_lost() {
    // It accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let args = ["--connections", "2", "--probe", "--timeout", "100ms", "--requests-each", "1"];
    let output = load(&addr, &args);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!((&report["failures"]["lost"], &report["answered"]), (&2.into(), &0.into()));
    assert!(report["failures"]["errors"]["a probe had no reply"] == 2, "{report:#}");
}

#[test]
fn paced_connections_are_all_made() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    for workers in [&[][..], &["--workers", "3"]] {
        let args = ["--connections", "50", "--connect-rate", "1k", "--requests-each", "1"];
        let report = good(&load(&addr, &[&args[..], workers].concat()));
        assert_eq!((&report["connected"], &report["answered"]), (&50.into(), &50.into()));
    }
}

/// The status of a load with this limit on descriptors, which it cannot raise, and what it says.
fn limited(fds: &str, addr: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = c10k(&["load", addr]);
    let fds = fds.parse().expect("a number");
    let output = limit_descriptors(command.args(args), fds).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_it_lacks_is_told_before_it_starts() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let told = |fds: &str, args: &[&str]| {
        let (status, stderr) = limited(fds, &addr, args);
        assert_eq!((status, stderr.lines().count()), (Some(2), 1), "{stderr}");
        stderr
    };
    // The number in what it advises.
    let advice = |told: &str, option: &str| {
        let rest = told.split(&format!("{option} ")).nth(1).expect("that advice");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits
    };
    // Whoever runs the tests may leave descriptors open, and then a process has room for fewer.
    let many = ["--connections", "400"];
    let few = told("120", &many);
    assert!(
        few.contains("needs 400 connections x 1 descriptor, and a process may have 120: "),
        "{few}"
    );
    let again = told("120", &[&many[..], &["--workers", "2"]].concat());
    assert_eq!(advice(&few, "--workers"), advice(&again, "--workers"));
    // One address has no more than 64 k ports.
    let ports = told("1000", &["--connections", "200k", "--workers", "300"]);
    assert!(ports.contains("there is 1: add --source 127.1.0.0/24"), "{ports}");
    // What no number of workers can have is not advised.
    let none = told("10", &many);
    assert!(none.contains("raise its limit (ulimit -n) to 4") && !none.contains("--"), "{none}");
    let fewer = told("40", &["--connections", "1M"]);
    assert!(fewer.contains("raise its limit") && !fewer.contains("--workers"), "{fewer}");
    assert_eq!(server.stop().summary().connections, 0);

    // What is advised works.
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let workers = advice(&few, "--workers");
    let args = [&many[..], &["--workers", &workers, "--requests-each", "1"]].concat();
    let (status, stderr) = limited("120", &addr, &args);
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(server.stop().summary().peak, 400);
}

#[test]
fn ports_in_time_wait_are_named() {
    // A network of this thread's own, whose connections have twenty ports.
    let limited = || {
        sys::own_network()?;
        sys::set_link_up("lo", true)?;
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40019")
    };
    let test = move || {
        if let Err(error) = limited() {
            return Err(format!("no network of its own here: {error}"));
        }
        let server = Server::start(&EPOLL, &[]);
        let addr = server.addr().to_string();
        let args = ["--connections", "4", "--churn", "1"];
        let output = load(&addr, &args);
        let report = report(&output);
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        let errors = report["failures"]["errors"].as_object().unwrap();
        assert!(errors.keys().all(|error| error.contains("TIME-WAIT")), "{errors:?}");
        // None is left for the next either.
        let output = load(&addr, &args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("in TIME-WAIT") && stderr.contains("add --source"), "{stderr}");
        // With other sources there are.
        let args = ["--connections", "4", "--source", "127.1.0.0/24", "--requests", "100"];
        good(&load(&addr, &args));
        Ok(())
    };
    if let Err(why) = thread::spawn(test).join().unwrap() {
        common::skip(&why);
    }
}

#[test]
fn what_cannot_start_says_why() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, part) in [
        (&[gone.as_str()][..], "Connection refused"),
        (&["nowhere.invalid:1"], "nowhere.invalid"),
        (&[&gone, "--workers", "2"], "Connection refused"),
        (&[&gone, "--connections", "18446744073709551615"], "connections x 1"),
        (&[&gone, "--workers", "1001"], "--workers is 1000 at most"),
        (&["unix:/nowhere", "--source", "127.0.0.2"], "a unix socket has no source address"),
        (&[&gone, "--source", "::1"], "one is IPv4 and the other IPv6"),
        (&[&gone, "--source", "here"], "neither an address nor a network"),
        (&[&gone, "--source", "192.0.2.1"], "Cannot assign requested address"),
        (&[&gone, "--requests-each", "5G"], "not a count"),
        (&[&gone, "--rate", "1k,2k:5s"], "says not how long"),
        (&[&gone, "--protocol", "raw"], "needs a --message"),
        (&[&gone, "--fail-if", "p98>5ms"], "is not a condition"),
        (&[&gone, "--find-rate", "p99<5ms"], "Connection refused"),
        (&[&gone, "--find-rate", "p99<5ms", "--rate", "1k"], "cannot be used with"),
        (&[&gone, "--message", "a\\nb"], "has the delimiter in it"),
        (&[&gone, "--size", "5..4"], "ends before it begins"),
        (&[&gone, "--find-rate", "p99<5ms", "--hdr", "load.hlog"], "cannot be used with"),
        (&[&gone, "--find-rate", "p99<5ms", "--json", "--series"], "cannot be used with"),
        (&[&gone, "--arrivals", "poisson"], "--arrivals is for --rate"),
        (&[&gone, "--arrivals", "constant"], "--arrivals is for --rate"),
        (&[&gone, "--find-rate", "p99>5ms"], "a time is below a bound, such as p99<5ms"),
        (&[&gone, "--find-rate", "rps<10k"], "a time is below a bound, such as p99<5ms"),
        (&[&gone, "--find-rate", "errors<5"], "a time is below a bound, such as p99<5ms"),
        (&[&gone, "--active", "20", "--connections", "10"], "--active 20 of --connections 10"),
        (&[&gone, "--workers", "20", "--connections", "10"], "each needs one"),
        (&[&gone, "--rate", "1k:1s", "--duration", "5s"], "have durations of their own"),
        (&[&gone, "--rate", "1k:1s,2k:1s", "--duration", "2s"], "have durations of their own"),
        (&[&gone, "--requests-each", "5", "--warmup", "1s"], "whose first request counts"),
        (&[&gone, "--udp", "--delimiter", "x"], "cannot be used with"),
        (&[&gone, "--protocol", "sum", "--delimiter", "x"], "--delimiter is for"),
        (&[&gone, "--protocol", "sum", "--size", "64"], "--size is for"),
        (&[&gone, "--protocol", "sum", "--prefix", "x"], "--prefix is for"),
        (&[&gone, "--protocol", "raw", "--message", "x", "--prefix", "x"], "--prefix is for"),
        (&[&gone, "--message", "k{foo}"], "there is no {foo}, only {conn} and {seq}"),
        (&[&gone, "--rate", "1k", "--seed", "1"], "--seed is for --arrivals poisson"),
        (&[&gone, "--server-pid", "999999999"], "there is no such process"),
        (&[&gone, "--duration", "0s"], "at least 1us is needed"),
        (&[&gone, "--think-time", "1s", "--rate", "5"], "cannot be used with"),
        (&[&gone, "--rate", "1k", "--requests-each", "5"], "cannot be used with"),
        (&[&gone, "--rate", "1k", "--spin"], "cannot be used with"),
        (&[&gone, "--requests-each", "5000M"], "4,294,967,294 at most"),
        // With its probe that would have been none at all.
        (&[&gone, "--requests-each", "4294967295", "--probe"], "4,294,967,294 at most"),
        (&[&gone, "--requests-each", "5", "--requests", "5"], "cannot be used with"),
        (&[], "required"),
        (&[&gone, "--cpu", "9999"], "CPU 9999"),
    ] {
        let output = c10k(&[&["load"], args].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    }
}
