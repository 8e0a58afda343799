//! Figures of memory, threads and sleep, for the labs that weigh something.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::lab::Trouble;
use crate::proc::{Memory, kilobytes};

/// How often something is weighed until it has gone well three times.
pub(super) const ROUNDS_MAX: u64 = 12;

/// Weighs something by figures of the whole system, in which others have a part: until three
/// rounds give something plausible, of which this is the middle one. A round that does not is one
/// in which others gave back memory, or took much.
pub(super) fn weigh(
    plausible: RangeInclusive<i64>,
    mut round: impl FnMut() -> Result<i64, Trouble>,
) -> Result<Option<i64>, Trouble> {
    let mut good = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let value = round()?;
        if plausible.contains(&value) {
            good.push(value);
        } else {
            thread::sleep(Duration::from_millis(50));
        }
        if good.len() == 3 {
            good.sort_unstable();
            return Ok(Some(good[1]));
        }
    }
    Ok(None)
}

/// A size of this process, in bytes: the line of this name in `/proc/self/status`
/// (`proc_pid_status(5)`).
fn status(name: &str) -> i64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&text, name)
}

/// Kernel stacks, of the whole system; and of this process what is reserved, memory in use, and
/// page tables.
pub(super) fn sizes() -> [i64; 4] {
    let stacks = Memory::now(std::process::id()).stacks;
    [stacks, status("VmSize"), status("RssAnon"), status("VmPTE")]
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

/// The descriptors that this process has open.
pub(super) fn descriptors() -> io::Result<Vec<u64>> {
    let names = fs::read_dir("/proc/self/fd")?.flatten();
    let mut open: Vec<u64> = names.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    // One of them was the folder's own.
    open.retain(|number| fs::exists(format!("/proc/self/fd/{number}")).unwrap_or(false));
    Ok(open)
}
