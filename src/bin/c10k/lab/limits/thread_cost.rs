//! What one more thread costs.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use c10k::sys::{self, Recv};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::measure::{ROUNDS_MAX, all_asleep, sizes, switches, weigh};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::Memory;

pub(super) const ABOUT: About = About {
    name: "thread-cost",
    claim: "One more thread that waits for its connection reserves 8 MiB, but uses about 30 KiB \
            (kernel stack, touched pages, page tables), a pid, and a context switch for each time \
            it waits; one more connection in epoll uses about 200 bytes. 10,000 threads do not \
            need 10 GB.",
    run,
};

const STACK: usize = 8 << 20;

/// How many threads are added at a time.
const MORE: usize = 100;

/// Connections: the end that is served, and its peer.
type Pairs = Vec<(OwnedFd, OwnedFd)>;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    let limit = sys::raise_fd_limit()? as usize;
    let rounds_max = ROUNDS_MAX as usize;
    let more = MORE.min(limit.saturating_sub(200) / (2 * rounds_max)).max(1);
    let all = rounds_max * more;
    lab.note(format!("{all} connections (socket pairs, which are quick to make)."));
    let mut pairs = Pairs::new();
    for _ in 0..all {
        let (ours, theirs) = UnixStream::pair()?;
        pairs.push((ours.into(), theirs.into()));
    }
    lab.called(format!("socketpair(AF_UNIX, SOCK_STREAM) x {all}"), "0".to_owned());

    lab.note(
        "One thread for all, with epoll: with 30 or more of them, to have something to weigh.",
    );
    let (epolls, registration) = registrations(lab, &pairs)?;
    say_something(&pairs)?;
    let before = switches();
    let mut events = vec![EpollEvent::empty(); all];
    let mut served = 0;
    while served < all {
        let ready = epolls[0].wait(&mut events, 5000_u16)?;
        if ready == 0 {
            break;
        }
        for event in &events[..ready] {
            let (ours, _) = &pairs[event.data() as usize];
            served += usize::from(sys::recv(ours.as_fd(), &mut [0])? == Recv::Data(1));
        }
    }
    let of_epoll = switches() - before;
    lab.called(format!("epoll_wait(...), recv(...) x {served}"), format!("{served} served"));
    lab.expect("served by epoll", served, all);
    let few = all / 10;
    let fact = "times that its thread gave up the CPU to wait";
    lab.expect_that(fact, of_epoll, &format!("at most {few}"), of_epoll <= few as i64);

    lab.note(format!("A thread for each of some, with a stack of 8 MiB, {more} at a time."));
    let (pairs, waiting) = (Arc::new(pairs), Arc::new(AtomicUsize::new(0)));
    let (mut threads, mut own) = (Vec::new(), [0; 3]);
    // No architecture's kernel stack is smaller or larger than this.
    let stack = weigh(8 << 10..=64 << 10, || {
        let before = sizes();
        for _ in 0..more {
            threads.push(waiter(&pairs, &waiting, threads.len())?);
        }
        while waiting.load(SeqCst) < threads.len() || !all_asleep()? {
            thread::sleep(Duration::from_millis(1));
        }
        let after = sizes();
        let [stack, rest @ ..] =
            std::array::from_fn::<_, 4, _>(|i| (after[i] - before[i]) / more as i64);
        own = rest;
        Ok(stack)
    })?;
    let (stack, [reserved, touched, tables]) = (stack.ok_or_else(too_noisy)?, own);
    let count = threads.len();
    lab.called(format!("clone() x {count}; in each, recv(...)"), "?".to_owned());
    let kib = |bytes: i64| format!("{:>8.1} KiB", bytes as f64 / 1024.0);
    lab.kernel(
        "for each thread (/proc/meminfo, /proc/self/status)",
        vec![
            format!("reserved       {}  (VmSize)", kib(reserved)),
            format!("kernel stack   {}  (KernelStack)", kib(stack)),
            format!("touched pages  {}  (RssAnon)", kib(touched)),
            format!("page tables    {}  (VmPTE)", kib(tables)),
        ],
    );
    let used = stack + touched + tables;
    let size = |bytes: i64| kib(bytes).trim().to_owned();
    lab.expect_that("reserved", size(reserved), "8 MiB or more", reserved >= STACK as i64);
    let some = (12 << 10..=128 << 10).contains(&used);
    lab.expect_that("used", size(used), "12 to 128 KiB", some);
    let ratio = used / registration.max(1);
    lab.expect_that("that is as many registrations in epoll", ratio, "10 or more", ratio >= 10);
    let tasks = fs::read_dir("/proc/self/task")?.count();
    lab.expect("pids in use, with that of the first thread", tasks, count + 1);

    lab.note("One byte for each: each thread sleeps, wakes, receives, and is done.");
    say_something(&pairs)?;
    let slept: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).collect();
    let slept: i64 = slept.into_iter().sum();
    let fact = "times that the threads gave up the CPU to wait";
    lab.expect_that(fact, slept, &format!("{count} or more"), slept >= count as i64);

    lab.note(
        "Folklore: 10,000 threads need 10 GB, as if each used 1 MiB of its stack. They do not.",
    );
    let ten_thousand = used * 10_000;
    let seen = format!("{} MiB", ten_thousand >> 20);
    lab.expect_that("10,000 threads use", seen, "less than 2 GiB", ten_thousand < 2 << 30);
    Ok(())
}

/// A thread that receives from the connection of this number. Returns how often it gave up the
/// CPU to do so.
fn waiter(
    pairs: &Arc<Pairs>,
    waiting: &Arc<AtomicUsize>,
    mine: usize,
) -> Result<JoinHandle<i64>, Trouble> {
    let (pairs, waiting) = (Arc::clone(pairs), Arc::clone(waiting));
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
        waiting.fetch_add(1, SeqCst);
        let before = switches();
        let _ = sys::recv(pairs[mine].0.as_fd(), &mut [0]);
        switches() - before
    });
    thread.map_err(|error| {
        let limit = sys::task_limit();
        Trouble::Skipped(format!("needs more threads: {error}; the limit: {limit}"))
    })
}

fn too_noisy() -> Trouble {
    Trouble::Skipped("needs a quieter system: others take or give back too much memory".to_owned())
}

/// Epolls that watch all connections, and what a registration takes, in bytes.
fn registrations(lab: &mut Lab, pairs: &Pairs) -> Result<(Vec<Epoll>, i64), Trouble> {
    let mut epolls = Vec::new();
    // Two structures, each with a list: they cannot be smaller than this.
    let bytes = weigh(64..=i64::MAX, || {
        let before = Memory::now(std::process::id());
        for _ in 0..10 {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            for (index, (ours, _)) in pairs.iter().enumerate() {
                epoll.add(ours, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            }
            epolls.push(epoll);
        }
        Ok(Memory::now(std::process::id()).since(before).slab / (10 * pairs.len() as i64))
    })?;
    let bytes = bytes.ok_or_else(too_noisy)?;
    lab.called(
        format!("epoll_ctl(..., EPOLL_CTL_ADD, ...) x {}", epolls.len() * pairs.len()),
        "0".to_owned(),
    );
    lab.kernel("/proc/meminfo", vec![format!("Slab: +{bytes} bytes for each registration")]);
    lab.expect_that("bytes of a registration in epoll", bytes, "less than 1,000", bytes < 1000);
    Ok((epolls, bytes))
}

/// A byte for each connection.
fn say_something(pairs: &Pairs) -> Result<(), Trouble> {
    for (_, theirs) in pairs {
        sys::send(theirs.as_fd(), b"x")?;
    }
    Ok(())
}
