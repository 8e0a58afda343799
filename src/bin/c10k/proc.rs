//! What the kernel says of memory and processes; see `proc(5)`. And what it allows one.

use std::fs;
use std::io;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

/// Raises the soft limit on descriptors as far as it may, and returns it. Some sandboxes refuse
/// that: then the limit stays as it is, whatever that is, and the log says so.
pub(crate) fn raise_fd_limit() -> Option<u64> {
    c10k::sys::raise_fd_limit()
        .inspect_err(|error| {
            log::warn!("the limit on open files stays as it is (prlimit64): {error}")
        })
        .ok()
}

/// Memory of a process with its children, and of the kernel, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Anonymous memory that is resident: heap and stacks, but not the program's text. What
    /// processes share since a fork is divided among them.
    pub(crate) resident: i64,
    /// The kernel's stacks, one for each task, of all processes.
    pub(crate) stacks: i64,
    /// Page tables, of all processes.
    pub(crate) tables: i64,
    /// The kernel's objects (sockets, files, tasks), of all processes.
    pub(crate) slab: i64,
}

impl Memory {
    pub(crate) fn now(pid: u32) -> Memory {
        let system = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let system = |name| kilobytes(&system, name);
        Memory {
            stacks: system("KernelStack"),
            tables: system("PageTables"),
            slab: system("Slab"),
            resident: resident(family(pid)),
        }
    }

    /// What has been added since `before`.
    pub(crate) fn since(self, before: Memory) -> Memory {
        Memory {
            resident: self.resident - before.resident,
            stacks: self.stacks - before.stacks,
            tables: self.tables - before.tables,
            slab: self.slab - before.slab,
        }
    }
}

/// Anonymous memory that is resident in these processes. What some of them share is divided among
/// them.
pub(crate) fn resident(pids: impl IntoIterator<Item = u32>) -> i64 {
    let resident = |pid| {
        let path = format!("/proc/{pid}/smaps_rollup");
        kilobytes(&fs::read_to_string(path).unwrap_or_default(), "Pss_Anon")
    };
    pids.into_iter().map(resident).sum()
}

/// All the memory there is, in bytes.
pub(crate) fn total_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&meminfo, "MemTotal").try_into().unwrap_or(0)
}

/// Memory that can be had without swapping, in bytes (`MemAvailable`), or as much of it as the
/// control group may have.
pub(crate) fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let system = u64::try_from(kilobytes(&meminfo, "MemAvailable")).ok().filter(|&n| n > 0)?;
    Some(cgroup_memory_left().map_or(system, |left| left.min(system)))
}

/// What the memory controller leaves this process's control group, if it limits it
/// (`cgroups(7)`): of version 2, or of version 1.
fn cgroup_memory_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = |line: &str| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "", path] => {
            let folder = format!("/sys/fs/cgroup{path}");
            let max = number(format!("{folder}/memory.max"))?;
            Some(max.saturating_sub(number(format!("{folder}/memory.current"))?))
        }
        [_, "memory", path] => {
            let folder = format!("/sys/fs/cgroup/memory{path}");
            let max = number(format!("{folder}/memory.limit_in_bytes"))?;
            Some(max.saturating_sub(number(format!("{folder}/memory.usage_in_bytes"))?))
        }
        _ => None,
    };
    groups.lines().filter_map(left).min()
}

/// The time that all CPUs have spent, from the start of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    idle: u64,
    all: u64,
}

impl CpuTime {
    pub(crate) fn now() -> CpuTime {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is among the first.
        let line = stat.lines().next().unwrap_or_default();
        let times: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
        CpuTime { idle: times.iter().skip(3).take(2).sum(), all: times.iter().sum() }
    }

    /// How busy they were since then, from 0 to 1.
    pub(crate) fn busy_since(self) -> f64 {
        let now = CpuTime::now();
        let all = now.all.saturating_sub(self.all).max(1);
        1.0 - now.idle.saturating_sub(self.idle) as f64 / all as f64
    }
}

/// The bytes behind `name:` in a file of lines like `Slab:   123 kB`.
pub(crate) fn kilobytes(text: &str, name: &str) -> i64 {
    field(text, name).and_then(|value| value.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// The first word behind `name:`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next())
}

/// The children of a process (`CONFIG_PROC_CHILDREN`). `None` where they are not told: there is no
/// such file, or no `/proc`.
pub(crate) fn children(pid: u32) -> Option<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// A process and its children, as far as they are told.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    [pid].into_iter().chain(children(pid).unwrap_or_default()).collect()
}

/// The CPU time that a process has used, all threads together (`clock_getcpuclockid(3)`).
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let pid = Pid::from_raw(pid as i32);
    let clock = ClockId::pid_cpu_clock_id(pid).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

/// How many tasks a process and its children are: processes, and the threads of each.
pub(crate) fn tasks(pid: u32) -> u64 {
    let threads = |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&status, "Threads").and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    family(pid).into_iter().map(threads).sum()
}

/// How often tasks of a process and its children were put on a CPU: context switches to them. The
/// last number of `/proc/PID/schedstat`, of each task. `None` where that is not told.
pub(crate) fn switches(pid: u32) -> Option<u64> {
    let runs = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        stat.split_whitespace().nth(2).and_then(|runs| runs.parse::<u64>().ok()).unwrap_or(0)
    };
    let of = |pid| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        tasks.map_or(0, |tasks| tasks.flatten().map(runs).sum())
    };
    let children = children(pid)?;
    Some([pid].into_iter().chain(children).map(of).sum())
}

/// Connections that the kernel dropped because an accept queue was full (`ListenOverflows`), in
/// this network namespace since it began.
pub(crate) fn listen_overflows() -> u64 {
    counter("TcpExt:ListenOverflows").unwrap_or(0)
}

/// A counter of this network, as in `TcpExt:ListenOverflows` or `Udp:RcvbufErrors`
/// (`/proc/net/netstat`, `/proc/net/snmp`, `proc_pid_net(5)`).
pub(crate) fn counter(name: &str) -> io::Result<u64> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no counter {name}"));
    let (group, field) = name.split_once(':').ok_or_else(unknown)?;
    let file = if group.ends_with("Ext") { "netstat" } else { "snmp" };
    // The file of this thread's network, which may not be that of the process.
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = lines.next().zip(lines.next()).ok_or_else(unknown)?;
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == field)
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "SlabX:  1 kB\nSlab:     123 kB\nThreads:\t7\n";
        assert_eq!(kilobytes(text, "Slab"), 123 * 1024);
        assert_eq!(field(text, "Threads"), Some("7"));
        assert_eq!(kilobytes(text, "Missing"), 0);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(tasks(pid) >= 1);
        assert_eq!(family(pid)[0], pid);
        let memory = Memory::now(pid);
        assert!(memory.resident > 0 && memory.slab > 0);
        assert!(memory.stacks > 0 && memory.tables > 0);
    }
}
