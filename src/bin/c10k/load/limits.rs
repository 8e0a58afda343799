//! What this machine allows, and what a load needs that it does not.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use c10k::Addr;

use super::plan::Plan;
use crate::units::grouped;

/// Descriptors that a process needs besides those of connections and those that it inherits.
const FDS_BESIDES: u64 = 16;

/// Of these, those that it has open when the limits are read: the standard three, that of the
/// signals, and a log.
const FDS_OPEN: u64 = 5;

/// Descriptors of a worker in its parent: an end of each of two pipes.
const FDS_OF_WORKER: u64 = 2;

/// More workers than this are a mistake: there is one for each CPU, or one for as many descriptors
/// as a process may have.
pub(crate) const WORKERS_MAX: u64 = 1_000;

/// Limits that many connections meet. What cannot be read limits nothing.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Descriptors of a process (`RLIMIT_NOFILE`).
    pub(crate) fds: u64,
    /// Descriptors that whoever started this process left open. Its workers have them too.
    pub(crate) inherited: u64,
    /// Ports that a connection may have at its source when it asks for none: so many connections
    /// go from one address to one destination (`ip_local_port_range`, `ip(7)`).
    pub(crate) ports: Option<u64>,
    pub(crate) files: Option<Files>,
}

/// Open files of the whole system (`file-max`, `file-nr`, `proc_sys_fs(5)`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files {
    pub(crate) max: u64,
    pub(crate) open: u64,
}

impl Files {
    /// How many more may be opened.
    pub(crate) fn left(self) -> u64 {
        self.max.saturating_sub(self.open)
    }
}

impl Limits {
    /// Raises the limit on descriptors as far as it may, and reads them all.
    pub(crate) fn read() -> io::Result<Limits> {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok();
        let reserved = read("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
        let range = read("net/ipv4/ip_local_port_range");
        let number = |text: &str| text.split_whitespace().next()?.parse().ok();
        let files = || {
            let (max, open) = (read("fs/file-max")?, read("fs/file-nr")?);
            Some(Files { max: number(&max)?, open: number(&open)? })
        };
        let open = fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64);
        Ok(Limits {
            // The folder itself is one of them.
            inherited: open.saturating_sub(FDS_OPEN + 1),
            fds: crate::proc::raise_fd_limit().unwrap_or(u64::MAX),
            ports: range.and_then(|range| ports(&range, &reserved)),
            files: files(),
        })
    }

    /// What stands in the way of a load, and the way out, in one line.
    pub(crate) fn lacking(&self, plan: &Plan) -> Option<String> {
        self.lacking_files(plan)
            .or_else(|| self.lacking_fds(plan))
            .or_else(|| self.lacking_ports(plan))
    }

    fn lacking_files(&self, plan: &Plan) -> Option<String> {
        let max = self.files?.max;
        let left = self.files?.left();
        (plan.connections > left).then(|| {
            format!(
                "needs {} connections x 1 open file, and the system has {} left of {} (sysctl \
                 fs.file-max)",
                number(plan.connections),
                number(left),
                number(max),
            )
        })
    }

    fn lacking_fds(&self, plan: &Plan) -> Option<String> {
        let workers = plan.workers.map_or(0, |_| plan.processes());
        let each = plan.connections.div_ceil(plan.processes().max(1));
        if each <= self.connections_max() && workers <= self.workers_max() {
            return None;
        }
        // Advice that would fail in the same way is none.
        let capacity = self.worker_capacity();
        let enough = plan.connections.div_ceil(capacity.max(1));
        let way_out = if capacity > 0 && enough <= self.workers_max() {
            let (workers, capacity) = (number(enough), number(capacity));
            format!("{workers} workers of {capacity} (--workers {enough})")
        } else {
            let besides = FDS_BESIDES + self.inherited;
            let alone = number(plan.connections.saturating_add(besides));
            let most = match self.connections_max().max(capacity * self.workers_max()) {
                0 => String::new(),
                most => format!(", or --connections {most} at most"),
            };
            format!(
                "raise its limit (ulimit -n) to {alone}, {besides} of them for other uses{most}"
            )
        };
        Some(format!(
            "needs {} connections x 1 descriptor, and a process may have {}: {way_out}",
            number(plan.connections),
            number(self.fds),
        ))
    }

    /// How many connections a process can have.
    fn connections_max(&self) -> u64 {
        self.fds.saturating_sub(FDS_BESIDES + self.inherited)
    }

    /// How many connections to give to a process: nine tenths of its descriptors, as a round figure.
    /// 0 if it cannot have one.
    pub(crate) fn worker_capacity(&self) -> u64 {
        let room = self.fds.saturating_sub(self.inherited);
        let capacity = (room - room.div_ceil(10)).min(self.connections_max());
        let unit = 10_u64.pow(capacity.max(1).ilog10().saturating_sub(1));
        capacity / unit * unit
    }

    /// How many workers this process can have.
    pub(crate) fn workers_max(&self) -> u64 {
        (self.connections_max() / FDS_OF_WORKER).min(WORKERS_MAX)
    }

    fn lacking_ports(&self, plan: &Plan) -> Option<String> {
        let ports = self.ports?;
        let has_ports = plan.targets.iter().any(|target| !matches!(target, Addr::Unix(_)));
        // Connections go to all targets alike, whatever they are. A port of datagrams is one
        // socket's, wherever it is connected to (udp(7)).
        let targets = if plan.udp { 1 } else { plan.targets.len() as u64 };
        let pairs = plan.sources.len().max(1) as u64 * targets;
        if !has_ports || plan.connections <= pairs.saturating_mul(ports) {
            return None;
        }
        let needed = plan.connections.div_ceil(ports.max(1));
        let loopback = |target: &Addr| match target {
            Addr::Tcp(addr) | Addr::Udp(addr) => addr.is_ipv4() && addr.ip().is_loopback(),
            Addr::Unix(_) => false,
        };
        let example = match plan.targets.iter().all(loopback) {
            true => "--source 127.1.0.0/24",
            false => "--source ADDR,ADDR or more targets",
        };
        Some(format!(
            "needs {} connections, and {} go from one source to one target (the ephemeral ports): \
             that takes {} pairs of them, and {}: add {example}",
            number(plan.connections),
            number(ports),
            number(needed),
            if pairs == 1 {
                "there is 1".to_owned()
            } else {
                format!("there are {}", number(pairs))
            },
        ))
    }
}

/// The error of a connection that could not begin, with its cause where the errno misleads: there is
/// no port left for it.
///
/// `EADDRNOTAVAIL` means that, or that the source is no address of this machine (`connect(2)`,
/// `bind(2)`); with a datagram socket `EAGAIN` means it.
pub(crate) fn cause(error: io::Error, target: &Addr, source: Option<SocketAddr>) -> io::Error {
    let is_here = |source: SocketAddr| UdpSocket::bind((source.ip(), 0)).is_ok();
    let no_port = match (error.raw_os_error(), target) {
        (Some(libc::EADDRNOTAVAIL), Addr::Tcp(_) | Addr::Udp(_)) => source.is_none_or(is_here),
        (Some(libc::EAGAIN | libc::EADDRINUSE), Addr::Udp(_)) => true,
        _ => false,
    };
    match (no_port, target) {
        (false, _) => error,
        (true, Addr::Udp(_)) => io::Error::other(
            "no port is left at the source address: all are in use; add --source addresses or widen \
             net.ipv4.ip_local_port_range",
        ),
        (true, _) => io::Error::other(
            "no port is left at the source address: all are in use or in TIME-WAIT, a minute after \
             their connection was closed; add --source addresses, reconnect less often, or widen \
             net.ipv4.ip_local_port_range",
        ),
    }
}

fn number(n: u64) -> String {
    grouped(n as f64)
}

/// How many ports are in `range` ("32768 60999") and not in `reserved` ("8080,33000-33009").
fn ports(range: &str, reserved: &str) -> Option<u64> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.trim().parse().ok()?);
    let reserved = reserved.trim().split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        Some((to.min(last) + 1).saturating_sub(from.max(first)))
    });
    Some((last + 1).checked_sub(first)?.saturating_sub(reserved.sum()))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;

    const LIMITS: Limits = Limits {
        fds: 20_000,
        inherited: 0,
        ports: Some(28_232),
        files: Some(Files { max: 2_466_183, open: 12_947 }),
    };

    fn lacking(plan: &Plan) -> String {
        LIMITS.lacking(plan).unwrap_or_default()
    }

    #[test]
    fn an_address_that_is_not_here_is_no_lack_of_ports() {
        let target = Addr::Tcp(([127, 0, 0, 1], 1).into());
        let cause = |errno, source: [u8; 4]| {
            cause(io::Error::from_raw_os_error(errno), &target, Some((source, 0).into()))
                .to_string()
        };
        assert!(cause(libc::EADDRNOTAVAIL, [127, 1, 0, 1]).contains("TIME-WAIT"));
        assert!(cause(libc::EADDRNOTAVAIL, [192, 0, 2, 1]).contains("Cannot assign"));
        assert!(cause(libc::ECONNREFUSED, [127, 1, 0, 1]).contains("refused"));
    }

    #[test]
    fn ports_are_counted() {
        assert_eq!(ports("32768\t60999\n", "\n"), Some(28_232));
        assert_eq!(ports("32768\t60999\n", "8080,32760-32769,60999,61000-61010\n"), Some(28_229));
        assert_eq!(ports("2000 1000", ""), None);
        assert_eq!(ports("nonsense", ""), None);
    }

    #[test]
    fn a_worker_has_a_round_number_below_its_limit() {
        for (fds, capacity) in
            [(20_000, 18_000), (1_048_576, 940_000), (1_024, 920), (100, 84), (20, 4), (16, 0)]
        {
            assert_eq!(Limits { fds, ..LIMITS }.worker_capacity(), capacity, "{fds}");
        }
    }

    /// What is advised is within the limits, whatever they are.
    #[test]
    fn what_is_advised_works() {
        let advised = |text: &str, before: &str| {
            let digits = text.split(before).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u64>().ok()
        };
        for fds in [3, 10, 16, 17, 18, 20, 24, 32, 50, 64, 200, 1_024, 20_000] {
            for inherited in [0, 7] {
                for connections in [1, 4, 100, 1_000, 1_000_000] {
                    let limits = Limits { fds, inherited, ..LIMITS };
                    let plan = plan(&["unix:/s"], connections);
                    for workers in [None, Some(3), Some(1_000)] {
                        let plan = Plan { workers, ..plan.clone() };
                        let Some(told) = limits.lacking_fds(&plan) else { continue };
                        let what = format!("{fds} - {inherited}, {workers:?}: {told}");
                        if let Some(workers) = advised(&told, "(--workers ") {
                            let plan = Plan { workers: Some(workers), ..plan.clone() };
                            assert_eq!(limits.lacking_fds(&plan), None, "{what}");
                            continue;
                        }
                        let digits = told.replace(',', "");
                        let fds = advised(&digits, "to ").expect("a limit");
                        let alone = Plan { workers: None, ..plan.clone() };
                        let raised = Limits { fds, ..limits.clone() };
                        assert_eq!(raised.lacking_fds(&alone), None, "{what}");
                        if let Some(most) = advised(&told, "--connections ") {
                            let least = most.div_ceil(limits.worker_capacity().max(1));
                            let plan =
                                |workers| Plan { connections: most, workers, ..plan.clone() };
                            let alone = limits.lacking_fds(&plan(None)).is_none();
                            let shared = limits.lacking_fds(&plan(Some(least))).is_none();
                            assert!(alone || shared, "{what}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_lacking_and_what_to_add() {
        let million = plan(&["127.0.0.1:7000"], 1_000_000);
        assert_eq!(
            lacking(&million),
            "needs 1,000,000 connections x 1 descriptor, and a process may have 20,000: \
             56 workers of 18,000 (--workers 56)"
        );
        let with_workers = Plan { workers: Some(56), ..million };
        assert_eq!(
            lacking(&with_workers),
            "needs 1,000,000 connections, and 28,232 go from one source to one target (the \
             ephemeral ports): that takes 36 pairs of them, and there is 1: \
             add --source 127.1.0.0/24"
        );
        let pairs = |sources, targets| {
            let sources = (0..sources).map(|n| [127, 1, 0, n].into()).collect();
            lacking(&Plan { sources, ..Plan { targets, ..with_workers.clone() } })
        };
        let target = |n| Addr::Tcp(([10, 0, 0, n], 7000).into());
        assert_eq!(pairs(36, vec![target(1)]), "");
        assert_eq!(pairs(18, vec![target(1), target(2)]), "");
        assert!(
            pairs(35, vec![target(1)])
                .ends_with("there are 35: add --source ADDR,ADDR or more targets")
        );
        assert_eq!(lacking(&Plan { workers: Some(56), ..plan(&["unix:/s"], 1_000_000) }), "");

        let files = lacking(&plan(&["unix:/s"], 3_000_000));
        assert!(files.contains("has 2,453,236 left of 2,466,183"), "{files}");
        // As many as there could ever be.
        assert!(!lacking(&plan(&["unix:/s"], u64::MAX)).is_empty());
        let unknown = Limits { ports: None, files: None, ..LIMITS };
        assert_eq!(unknown.lacking(&with_workers), None);
        assert!(unknown.lacking(&plan(&["unix:/s"], u64::MAX)).is_some());
    }
}
