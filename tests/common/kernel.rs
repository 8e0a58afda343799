//! What `/proc` and a few system calls tell of a process and of a socket.

// prlimit(2) has no safe wrapper in nix.
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::AsFd;

/// The descriptors that a process has open.
pub(crate) fn fd_count(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours").count()
}

/// The sockets among them.
pub(crate) fn socket_count(pid: u32) -> usize {
    let dir = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours");
    // One that was closed just now has no target any more.
    let targets = dir.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The number that the next descriptor of a process will have: the lowest that is free.
pub(crate) fn next_fd(pid: u32) -> u64 {
    let dir = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse::<u64>();
    let open: Vec<u64> = dir.map(|entry| name(entry.unwrap()).expect("a number")).collect();
    (0..).find(|fd| !open.contains(fd)).expect("an end")
}

/// The threads of a process.
pub(crate) fn thread_count(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours").count()
}

/// A line of `/proc/PID/status` that is in kB, as bytes.
fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("that field");
    let kb = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kb.parse::<u64>().expect("a number of kB") * 1024
}

/// Resident memory at its highest so far, in bytes.
pub(crate) fn peak_resident(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM")
}

/// Resident memory that is no file's: heap and stacks, in bytes. The sum over the page tables:
/// the count in `status` may lag behind by some pages for each thread.
pub(crate) fn anonymous(pid: u32) -> u64 {
    let rollup =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process of ours");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("that line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

/// Changes the soft limit on descriptors of a process that is running, and returns the old one.
pub(crate) fn set_fd_limit(pid: u32, soft: u64) -> u64 {
    set_limit(pid, libc::RLIMIT_NOFILE, soft)
}

/// Changes the soft limit on the address space of a process that is running.
pub(crate) fn set_address_space_limit(pid: u32, soft: u64) {
    set_limit(pid, libc::RLIMIT_AS, soft);
}

fn set_limit(pid: u32, resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = pid as libc::pid_t;
    // SAFETY: both pointers are null or to a struct that lives during the call.
    let result = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut old) };
    assert_eq!(result, 0, "prlimit: {}", std::io::Error::last_os_error());
    let new = libc::rlimit { rlim_cur: soft, rlim_max: old.rlim_max };
    // SAFETY: as above.
    let result = unsafe { libc::prlimit(pid, resource, &new, std::ptr::null_mut()) };
    assert_eq!(result, 0, "prlimit: {}", std::io::Error::last_os_error());
    old.rlim_cur
}

/// The bytes that a socket has sent and the peer's kernel has not acknowledged (`tcp(7)`).
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    c10k::sys::unacknowledged(socket.as_fd()).expect("SIOCOUTQ")
}
