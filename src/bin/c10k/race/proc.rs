//! What the kernel says of memory and processes; see `proc(5)`.

use std::fs;
use std::io;

/// Memory of one process, and of the kernel, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Anonymous memory that is resident: heap and stacks, but not the program's text.
    pub(crate) resident: i64,
    /// The kernel's stacks and page tables, of all processes.
    pub(crate) stacks_and_tables: i64,
    /// The kernel's objects (sockets, files, tasks), of all processes.
    pub(crate) slab: i64,
}

impl Memory {
    pub(crate) fn now(pid: u32) -> Memory {
        let system = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let process = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let system = |name| kilobytes(&system, name);
        Memory {
            resident: kilobytes(&process, "RssAnon"),
            stacks_and_tables: system("KernelStack") + system("PageTables"),
            slab: system("Slab"),
        }
    }

    /// What has been added since `before`.
    pub(crate) fn since(self, before: Memory) -> Memory {
        Memory {
            resident: self.resident - before.resident,
            stacks_and_tables: self.stacks_and_tables - before.stacks_and_tables,
            slab: self.slab - before.slab,
        }
    }
}

/// The bytes behind `name:` in a file of lines like `Slab:   123 kB`.
fn kilobytes(text: &str, name: &str) -> i64 {
    field(text, name).and_then(|value| value.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// The first word behind `name:`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next())
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "Threads").and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// How many sockets a process has open.
pub(crate) fn sockets(pid: u32) -> io::Result<u64> {
    let mut count = 0;
    for fd in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that has been closed since the folder was read has no target any more.
        let target = fs::read_link(fd?.path()).unwrap_or_default();
        count += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(count)
}

/// Connections that the kernel dropped because an accept queue was full (`ListenOverflows`), in
/// this network namespace since it began.
pub(crate) fn listen_overflows() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "ListenOverflows")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
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
        assert!(threads(pid) >= 1);
        let memory = Memory::now(pid);
        assert!(memory.resident > 0 && memory.slab > 0 && memory.stacks_and_tables > 0);
    }
}
