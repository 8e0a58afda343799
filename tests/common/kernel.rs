//! What `/proc` and a few system calls tell of a process and of a socket.

// prlimit(2) has no safe wrapper in nix.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, sendto,
    setsockopt, socket, sockopt,
};

/// The children of a process (`/proc/PID/task/TID/children`, `proc(5)`).
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.expect("a process of ours");
    list.split_whitespace().map(|child| child.parse().expect("a pid")).collect()
}

/// The letter for the state of a process, `Z` for one that is dead and not waited for; `None` if
/// there is no such process.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // It follows the name, which is in parentheses and may have some itself (proc(5)).
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The descriptors that a process has open: their names, which are numbers.
fn fds(pid: u32) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(format!("/proc/{pid}/fd"))?.map(|entry| Ok(entry?.path())).collect()
}

/// The descriptors of a process and of its children. A child may be gone by now.
fn fds_of_family(pid: u32) -> Vec<PathBuf> {
    let mut all = fds(pid).expect("a process of ours");
    all.extend(children(pid).into_iter().flat_map(|child| fds(child).unwrap_or_default()));
    all
}

/// How many descriptors a process and its children have open.
pub(crate) fn fd_count(pid: u32) -> usize {
    fds_of_family(pid).len()
}

/// Whether a process waits in a system call for something to happen (`proc(5)`).
pub(crate) fn is_sleeping(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process of ours");
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}

/// The sockets among them.
pub(crate) fn socket_count(pid: u32) -> usize {
    // One that was closed just now has no target any more.
    let targets = fds_of_family(pid).into_iter().filter_map(|fd| fs::read_link(fd).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The number that the next descriptor of a process will have: the lowest that is free.
pub(crate) fn next_fd(pid: u32) -> u64 {
    let number = |fd: &PathBuf| fd.file_name()?.to_str()?.parse::<u64>().ok();
    let open: Vec<u64> = fds(pid).expect("a process of ours").iter().filter_map(number).collect();
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

/// Has a command run as a user, with at most so many processes and threads of that user's. For
/// `root`, who is not limited.
pub(crate) fn limit_tasks(command: &mut Command, uid: u32, most: u64) {
    command.uid(uid).gid(uid);
    // SAFETY: setrlimit is a system call and no more.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NPROC, most, most)?)) };
}

/// The bytes that a socket has sent and the peer's kernel has not acknowledged (`tcp(7)`).
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    c10k::sys::unacknowledged(socket.as_fd()).expect("SIOCOUTQ")
}

/// Sends a datagram from the port of a server that was told `--reuse-port`, at an address of this
/// machine, and receives none of those for it.
pub(crate) fn send_from(own: SocketAddr, to: SocketAddr, bytes: &[u8]) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let forger = socket(AddressFamily::Inet, SockType::Datagram, flags, None).unwrap();
    setsockopt(&forger, sockopt::ReusePort, &true).unwrap();
    bind(forger.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
    // Connected elsewhere, it takes none of the datagrams for that port.
    let elsewhere = SockaddrStorage::from(SocketAddr::from(([127, 0, 0, 1], 9)));
    connect(forger.as_raw_fd(), &elsewhere).unwrap();
    sendto(forger.as_raw_fd(), bytes, &SockaddrStorage::from(to), MsgFlags::empty()).unwrap();
}
