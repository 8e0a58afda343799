//! The machine that a measurement runs on, and what to doubt about it.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::result::Machine;

/// Looks at the machine before and after.
pub(crate) struct Watch {
    pub(crate) machine: Machine,
    overflows: u64,
}

impl Watch {
    pub(crate) fn begin() -> Watch {
        Watch { machine: machine(), overflows: listen_overflows() }
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match listen_overflows().saturating_sub(self.overflows) {
            0 => {}
            times => warnings.push(format!("the queue of a listener was full {times} times")),
        }
        if self.machine.load_average > self.machine.cpus as f64 / 2.0 {
            let average = self.machine.load_average;
            warnings.push(format!("the machine was busy when it began: its load was {average:.1}"));
        }
        warnings
    }
}

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let average = read("/proc/loadavg");
    Machine {
        cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_average: average.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or(0.0),
    }
}

/// Connections that any listener of this network had no room for, ever.
fn listen_overflows() -> u64 {
    let netstat = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "ListenOverflows").map_or(0, |(_, n)| n.parse().unwrap_or(0))
}

/// Waits until the kernel has given back what the last run took, which it does in its own time;
/// for half a second at most.
pub(crate) fn settle() {
    let mut before = meminfo("Slab:");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(50));
        let now = meminfo("Slab:");
        if now >= before {
            return;
        }
        before = now;
    }
}

/// Waits until there is so much memory to be had: the kernel gives back what many connections took
/// in its own time. Says what there is if it no longer becomes more.
pub(crate) fn room_for(bytes: u64) -> Result<(), String> {
    let mut before = 0;
    loop {
        let available = meminfo("MemAvailable:");
        if available >= bytes {
            return Ok(());
        }
        if available < before + (16 << 20) {
            let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
            let (needed, available) = (gigabytes(bytes), gigabytes(available));
            return Err(format!("it needs {needed} of memory, and {available} are available"));
        }
        before = available;
        thread::sleep(Duration::from_secs(1));
    }
}

/// In bytes; 0 if the kernel does not tell.
fn meminfo(name: &str) -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix(name));
    kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
