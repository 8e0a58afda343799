//! What this machine allows, and what a load needs that it does not.

use std::fs;
use std::io;

use c10k::Addr;

use super::plan::Plan;
use crate::units::grouped;

/// Descriptors that a process needs besides those of connections.
const FDS_BESIDES: u64 = 16;

/// Limits that many connections meet. What cannot be read limits nothing.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Descriptors of a process (`RLIMIT_NOFILE`).
    pub(crate) fds: u64,
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
        Ok(Limits {
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
        let each = plan.connections.div_ceil(plan.processes().max(1));
        (each.saturating_add(FDS_BESIDES) > self.fds).then(|| {
            let capacity = worker_capacity(self.fds);
            let workers = plan.connections.div_ceil(capacity);
            format!(
                "needs {} connections x 1 descriptor, and a process may have {}: {} workers of {} \
                 (--workers {workers})",
                number(plan.connections),
                number(self.fds),
                number(workers),
                number(capacity),
            )
        })
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

fn number(n: u64) -> String {
    grouped(n as f64)
}

/// How many connections to give to one process that may have `fds` descriptors: nine tenths of
/// them, as a round figure.
pub(crate) fn worker_capacity(fds: u64) -> u64 {
    let capacity = (fds - fds.div_ceil(10)).min(fds.saturating_sub(FDS_BESIDES)).max(1);
    let unit = 10_u64.pow(capacity.ilog10().saturating_sub(1));
    capacity / unit * unit
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
        ports: Some(28_232),
        files: Some(Files { max: 2_466_183, open: 12_947 }),
    };

    fn lacking(plan: &Plan) -> String {
        LIMITS.lacking(plan).unwrap_or_default()
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
            [(20_000, 18_000), (1_048_576, 940_000), (1_024, 920), (100, 84), (20, 4), (3, 1)]
        {
            assert_eq!(worker_capacity(fds), capacity, "{fds}");
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
        let unknown = Limits { fds: 20_000, ports: None, files: None };
        assert_eq!(unknown.lacking(&with_workers), None);
        assert!(unknown.lacking(&plan(&["unix:/s"], u64::MAX)).is_some());
    }
}
