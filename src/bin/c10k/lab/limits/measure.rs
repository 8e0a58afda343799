//! Figures of memory, threads and sleep, for the labs that weigh something.

use std::fs;
use std::io;

use nix::sys::resource::{UsageWho, getrusage};

use crate::proc::Memory;

/// What lies in the middle: for figures of the whole system, in which others have a part.
pub(super) fn median<const N: usize>(mut values: [i64; N]) -> i64 {
    values.sort_unstable();
    values[N / 2]
}

/// A size of this process, in bytes: the line of this name in `/proc/self/status`
/// (`proc_pid_status(5)`).
fn status(name: &str) -> i64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    number.unwrap_or(0) * 1024
}

/// What the threads of this process reserve, and what they use: kernel stacks (of the whole
/// system), memory, page tables.
pub(super) fn sizes() -> [i64; 4] {
    let stacks = Memory::now(std::process::id()).stacks;
    [status("VmSize"), stacks, status("RssAnon"), status("VmPTE")]
}

/// How often this thread has given up the CPU by itself.
pub(super) fn switches() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.voluntary_context_switches())
}

/// Whether all threads but this one sleep (`proc_pid_stat(5)`).
pub(super) fn all_asleep() -> io::Result<bool> {
    let mut awake = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        awake += usize::from(!stat.rsplit(')').next().unwrap_or("").starts_with(" S"));
    }
    Ok(awake <= 1)
}
