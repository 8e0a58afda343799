//! What a load is to do: who connects where, and which part of it each process does.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::time::Duration;

use c10k::Addr;

use super::arrivals::{self, Part};
use super::payload::{Dialect, Payload};
use super::schedule::Schedule;
use crate::Failure;
use crate::protocol::resolve;

/// Handshakes under way at once, in all processes together: more than one, so that they overlap,
/// and fewer than fit the server's accept queue, which would drop the rest and cost a second for
/// each.
const CONNECTING_MAX: u64 = 256;

/// A load, all of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Requests and replies are datagrams: so are the targets.
    pub(crate) udp: bool,
    /// Where to connect to; at least one, and none twice.
    pub(crate) targets: Vec<Addr>,
    /// Where to connect from; with none, from where the kernel chooses.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) connections: u64,
    /// How many of the connections send; `None` for all.
    pub(crate) active: Option<u64>,
    /// Processes to share it out over; `None` for this one alone.
    pub(crate) workers: Option<u64>,
    /// Connections to begin in a second.
    pub(crate) connect_rate: Option<u64>,
    /// Each connection is to be answered once before it counts as connected.
    pub(crate) probe: bool,
    /// Whether it never sleeps.
    pub(crate) spin: bool,
    /// Requests under way on each connection. In an open loop the most of them, if there is to
    /// be a limit.
    pub(crate) pipeline: Option<u64>,
    /// An open loop: how many requests are due in a second. Otherwise each reply makes the next.
    pub(crate) schedule: Option<Schedule>,
    pub(crate) arrivals: arrivals::Kind,
    pub(crate) seed: u64,
    /// Requests to measure, if there is time for so many.
    pub(crate) requests: Option<u64>,
    /// Requests of each active connection, after which it is silent. Then there is no warm-up.
    pub(crate) requests_each: Option<u32>,
    /// Requests on one connection, after which it is closed and another takes its place.
    pub(crate) churn: Option<u32>,
    /// Between a reply and the next request, in a closed loop with one under way on each.
    pub(crate) think_time: Option<Duration>,
    /// Before the warm-up: how long it takes until all is under way.
    pub(crate) ramp: Duration,
    pub(crate) warmup: Duration,
    /// How long to measure: as long as the schedule, if there is one.
    pub(crate) duration: Duration,
    /// For a connection, for the reply to a datagram, and at the end for the last replies.
    pub(crate) timeout: Duration,
    pub(crate) dialect: Dialect,
    pub(crate) delimiter: u8,
    pub(crate) payload: Payload,
    pub(crate) server_pid: Option<u32>,
    /// Each second of the measured time is told when it is settled.
    pub(crate) each_second: bool,
}

/// What one process does of a load.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Share {
    /// The numbers of its connections, which no other process uses.
    pub(crate) connections: Range<u64>,
    pub(crate) active: u64,
    pub(crate) requests: Option<u64>,
    /// Its part of an open loop's requests.
    pub(crate) part: Part,
    pub(crate) connect_rate: Option<f64>,
    /// Handshakes under way at once.
    pub(crate) connecting_max: u64,
}

/// What `part` of `whole` has of `total`, rounded down. Cuts made with it leave nothing over.
fn scale(total: u64, part: u64, whole: u64) -> u64 {
    debug_assert!(part <= whole && whole > 0);
    (u128::from(total) * u128::from(part) / u128::from(whole)) as u64
}

impl Plan {
    /// One request of 64 bytes under way on each connection, for ten seconds, by one process.
    pub(crate) fn new(targets: Vec<Addr>, connections: u64) -> Plan {
        Plan {
            udp: false,
            targets,
            sources: Vec::new(),
            connections,
            active: None,
            workers: None,
            connect_rate: None,
            probe: false,
            spin: false,
            pipeline: Some(1),
            schedule: None,
            arrivals: arrivals::Kind::Constant,
            seed: 0,
            requests: None,
            requests_each: None,
            churn: None,
            think_time: None,
            ramp: Duration::ZERO,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            dialect: Dialect::Echo,
            delimiter: b'\n',
            payload: Payload::echo(64..=64, b'\n', b""),
            server_pid: None,
            each_second: false,
        }
    }

    /// How many processes have a part in it: none without a connection.
    pub(crate) fn processes(&self) -> u64 {
        self.workers.unwrap_or(1).min(self.connections)
    }

    fn active(&self) -> u64 {
        self.active.unwrap_or(self.connections).min(self.connections)
    }

    /// The part of process `number`, counted from 0.
    pub(crate) fn share(&self, number: u64) -> Share {
        let (processes, all) = (self.processes(), self.connections);
        let connections = scale(all, number, processes)..scale(all, number + 1, processes);
        // In proportion to the connections, and the requests to those who send them: nobody is to
        // send with no connection.
        let active_before = |connection| scale(self.active(), connection, all);
        let active = active_before(connections.start)..active_before(connections.end);
        let requests_before = |requests, active| scale(requests, active, self.active());
        let part = (connections.end - connections.start) as f64 / all as f64;
        let of_active = |active| active as f64 / self.active().max(1) as f64;
        Share {
            active: active.end - active.start,
            requests: self
                .requests
                .map(|n| requests_before(n, active.end) - requests_before(n, active.start)),
            part: Part {
                size: of_active(active.end - active.start),
                before: of_active(active.start),
                seed: self.seed.wrapping_add(number),
            },
            connect_rate: self.connect_rate.map(|rate| rate as f64 * part),
            connecting_max: (CONNECTING_MAX / processes).max(1),
            connections,
        }
    }

    /// How long a process can take at most until its connections are there or have failed.
    pub(crate) fn connecting_max(&self, number: u64) -> Duration {
        let share = self.share(number);
        let connections = share.connections.end - share.connections.start;
        let paced = share.connect_rate.map_or(0.0, |rate| connections as f64 / rate);
        // As if each was only just in time, and so was its probe.
        let in_a_row = connections / share.connecting_max + 1;
        let each = self.timeout.saturating_mul(if self.probe { 2 } else { 1 });
        let waiting = each.saturating_mul(u32::try_from(in_a_row).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(paced).unwrap_or(Duration::MAX).saturating_add(waiting)
    }

    /// How long it can take at most from the first request to the end.
    pub(crate) fn exchanging_max(&self) -> Duration {
        let Plan { ramp, warmup, duration, timeout, .. } = *self;
        [ramp, warmup, duration, timeout].into_iter().fold(Duration::ZERO, Duration::saturating_add)
    }

    /// From where to where a connection goes.
    ///
    /// Each pair of source and target has as many as any other, give or take one. A source has a
    /// block of consecutive numbers: so processes, which have such blocks too, use sources of
    /// their own where there are enough.
    pub(crate) fn ends_of(&self, connection: u64) -> (Option<SocketAddr>, &Addr) {
        // The last source whose block, cut as a share is, begins at this connection or before.
        let sources = (u128::from(connection) + 1) * self.sources.len() as u128;
        let source = sources.div_ceil(u128::from(self.connections)).saturating_sub(1);
        let source = self.sources.get(source as usize).map(|&ip| SocketAddr::new(ip, 0));
        (source, &self.targets[(connection % self.targets.len() as u64) as usize])
    }

    /// An error if it has sources that reach none of the targets.
    pub(crate) fn check_sources(&self) -> Result<(), Failure> {
        for source in &self.sources {
            for target in &self.targets {
                let why = match target {
                    Addr::Tcp(target) | Addr::Udp(target)
                        if target.is_ipv4() == source.is_ipv4() =>
                    {
                        continue;
                    }
                    Addr::Tcp(_) | Addr::Udp(_) => "one is IPv4 and the other IPv6",
                    Addr::Unix(_) => "a unix socket has no source address",
                };
                let why = format!("--source {source} does not reach {target}: {why}");
                return Err(Failure::Cannot(why));
            }
        }
        Ok(())
    }
}

/// How long a refusal of a datagram may be on its way. From this machine it comes at once.
const REFUSAL_TIME: Duration = Duration::from_millis(200);

/// The target of each address. Where a name stands for several, the first that can be reached,
/// which is tried with a connection that is closed at once, or an empty datagram.
pub(crate) fn targets(
    addresses: &[OsString],
    timeout: Duration,
    udp: bool,
) -> Result<Vec<Addr>, Failure> {
    let reachable = |addr: &Addr| match addr {
        Addr::Tcp(addr) if udp => takes_datagrams(*addr).is_ok(),
        Addr::Tcp(addr) => TcpStream::connect_timeout(addr, timeout).is_ok(),
        Addr::Udp(_) | Addr::Unix(_) => true,
    };
    let mut targets = Vec::new();
    for address in addresses {
        let mut addrs = resolve(address)?;
        let at = match addrs.len() {
            1 => 0,
            _ => addrs.iter().position(reachable).unwrap_or(0),
        };
        let target = addrs.swap_remove(at);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// An error if there is no route, or nobody there (`udp(7)`).
fn takes_datagrams(addr: SocketAddr) -> io::Result<()> {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(addr)?;
    socket.send(&[])?;
    socket.set_read_timeout(Some(REFUSAL_TIME))?;
    match socket.recv(&mut [0]) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn plan(targets: &[&str], connections: u64) -> Plan {
        let target = |text: &&str| Addr::resolve(text).unwrap().swap_remove(0);
        Plan::new(targets.iter().map(target).collect(), connections)
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        for connections in [1, 2, 7, 100, 1_001, 1_000_000] {
            for workers in [1, 2, 3, 10, 56] {
                for active in [1, 2, connections / 2 + 1, connections, connections + 1] {
                    let plan = Plan {
                        workers: Some(workers),
                        active: Some(active),
                        requests: Some(12_345),
                        connect_rate: Some(500),
                        ..plan(&["127.0.0.1:1"], connections)
                    };
                    let shares: Vec<_> = (0..plan.processes()).map(|n| plan.share(n)).collect();
                    assert_eq!(shares.len() as u64, workers.min(connections));
                    let mut next = 0;
                    for share in &shares {
                        let Range { start, end } = share.connections;
                        assert_eq!(start, next, "{plan:?}");
                        assert!(end > start && share.active <= end - start, "{share:?}");
                        assert!(share.active > 0 || share.requests == Some(0), "{share:?}");
                        next = end;
                    }
                    assert_eq!(next, connections);
                    let sum = |of: fn(&Share) -> u64| shares.iter().map(of).sum::<u64>();
                    assert_eq!(sum(|share| share.active), active.min(connections));
                    assert_eq!(sum(|share| share.requests.unwrap()), 12_345);
                    let rate: f64 = shares.iter().filter_map(|share| share.connect_rate).sum();
                    assert!((rate - 500.0).abs() < 1e-6, "{rate}");
                    let parts: f64 = shares.iter().map(|share| share.part.size).sum();
                    assert!((parts - 1.0).abs() < 1e-9, "{parts}");
                }
            }
        }
    }

    #[test]
    fn pairs_are_used_evenly_and_sources_are_not_shared() {
        let sources: Vec<IpAddr> = (1..=6).map(|n| IpAddr::from([127, 1, 0, n])).collect();
        let plan = Plan {
            sources: sources.clone(),
            workers: Some(3),
            ..plan(&["127.0.0.1:1", "127.0.0.1:2", "[::1]:3", "unix:/a"], 1_003)
        };
        let mut pairs = BTreeMap::new();
        let mut user = BTreeMap::new();
        for worker in 0..3 {
            for connection in plan.share(worker).connections {
                let (source, target) = plan.ends_of(connection);
                let source = source.expect("one of six");
                assert!(source.port() == 0 && sources.contains(&source.ip()));
                *pairs.entry((source, target.to_string())).or_insert(0) += 1;
                assert_eq!(*user.entry(source).or_insert(worker), worker, "{source}");
            }
        }
        assert_eq!(pairs.len(), 24);
        assert!(pairs.values().all(|n| (41..=42).contains(n)), "{pairs:?}");
    }

    #[test]
    fn there_is_a_limit_to_how_long_it_takes() {
        let ten = plan(&["127.0.0.1:1"], 10);
        assert_eq!(ten.connecting_max(0).as_secs(), 10);
        assert_eq!(ten.exchanging_max().as_secs(), 20);
        let many = Plan { workers: Some(2), ..plan(&["127.0.0.1:1"], 2_560) };
        assert_eq!(many.connecting_max(1).as_secs(), 110, "128 at a time, ten times, and the rest");
        let paced = Plan { connect_rate: Some(20), probe: true, ..many };
        assert_eq!(paced.connecting_max(0).as_secs(), 128 + 220);
        let slow = Plan { connect_rate: Some(1), timeout: Duration::MAX, ..paced };
        assert_eq!(slow.connecting_max(0), Duration::MAX);
    }

    #[test]
    fn where_nobody_is_a_datagram_is_refused() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(takes_datagrams(server.local_addr().unwrap()).is_ok());
        // Connected elsewhere, it has no room for others' datagrams.
        server.connect("127.0.0.1:9").unwrap();
        let refused = takes_datagrams(server.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn with_no_source_the_kernel_chooses() {
        let plan = plan(&["127.0.0.1:1"], 10);
        assert!(plan.check_sources().is_ok());
        assert_eq!(plan.ends_of(9), (None, &plan.targets[0]));
    }
}
