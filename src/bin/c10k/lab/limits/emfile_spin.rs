//! What a full server does to its event loop.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use crate::lab::calls::{ANY_PORT, errno};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "emfile-spin",
    claim: "With no descriptor left for accept, a level-triggered listener stays ready, and the \
            loop spins at 100 % of a CPU for nothing. With a descriptor in reserve it refuses the \
            newcomers, and sleeps.",
    run,
};

const CLIENTS: usize = 3;
const WHILE: Duration = Duration::from_millis(100);

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A listener that is watched, three connections in its queue, and no descriptor left.");
    let listener = lab.tcp_nonblocking("listener")?;
    let addr = lab.bind(&listener, ANY_PORT)?;
    lab.listen(&listener, 8)?;
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let client = lab.tcp(&format!("client {number}"))?;
        lab.connect(&client, addr)?;
        sys::set_io_timeout(client.as_fd(), Some(Duration::from_secs(5)))?;
        clients.push(client);
    }
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, &listener, EpollFlags::EPOLLIN, 1)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The limit is on the numbers: with the lowest that is free it is reached.
    let free = listener.try_clone()?.as_raw_fd() as u64;
    let lowered = setrlimit(Resource::RLIMIT_NOFILE, free, hard);
    lab.call(format!("setrlimit(RLIMIT_NOFILE, {free})"), lowered)?;

    lab.note("A loop without a remedy, for 100 ms.");
    lab.epoll_wait(&epoll, 1, 5000)?;
    let spun = turns(&epoll, &listener, None)?;
    show(lab, &epoll, &listener, &spun);
    lab.expect_errno("accept", &spun.last, Some(Errno::EMFILE));
    lab.expect("connections done with", spun.refused, 0);
    let fact = "turns of the loop for that";
    lab.expect_that(fact, spun.events, "hundreds or more", spun.events >= 200);
    let fact = "times it slept";
    lab.expect_that(fact, spun.slept, "next to none", spun.slept * 50 <= spun.events);

    lab.note(
        "The same with a descriptor that is kept for the purpose: at EMFILE it is closed, which \
         makes room to accept one connection and close it at once. Then it is opened again.",
    );
    setrlimit(Resource::RLIMIT_NOFILE, free + 1, hard)?;
    let mut reserve = Some(File::open("/dev/null")?);
    if let Some(file) = &reserve {
        lab.name(file, "reserve");
        lab.called("open(\"/dev/null\")".to_owned(), lab.names.of(file));
    }
    let calm = turns(&epoll, &listener, Some(&mut reserve))?;
    show(lab, &epoll, &listener, &calm);
    lab.expect("connections done with", calm.refused, CLIENTS);
    lab.expect("turns of the loop for that", calm.events, CLIENTS);
    lab.expect_that(fact, calm.slept, "1 or more", calm.slept >= 1);
    for client in &clients {
        let end = lab.recv(client, 64)?;
        lab.expect("and the client knows: bytes to receive", end.len(), 0);
    }
    Ok(())
}

/// What a loop has done in its time.
struct Turns {
    /// How often `epoll_wait` returned an event.
    events: usize,
    /// What the last `accept4` but those with a reserve came to.
    last: nix::Result<()>,
    /// Connections accepted through the reserve, and closed.
    refused: usize,
    /// How often the process gave up the CPU by itself (`ru_nvcsw`, `getrusage(2)`).
    slept: usize,
    cpu: Duration,
}

/// Serves a listener as a level-triggered loop does.
fn turns(
    epoll: &Epoll,
    listener: &OwnedFd,
    mut reserve: Option<&mut Option<File>>,
) -> Result<Turns, Trouble> {
    let (slept_before, cpu_before) = usage()?;
    let mut turns = Turns { events: 0, last: Ok(()), refused: 0, slept: 0, cpu: Duration::ZERO };
    let deadline = Instant::now() + WHILE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let mut events = [EpollEvent::empty()];
        if epoll.wait(&mut events, left.as_millis() as u16 + 1)? == 0 {
            continue;
        }
        turns.events += 1;
        turns.last = sys::accept(listener.as_fd(), true).map(drop).map_err(|error| errno(&error));
        if let (Err(Errno::EMFILE), Some(reserve)) = (turns.last, reserve.as_deref_mut()) {
            drop(reserve.take());
            turns.refused += usize::from(sys::accept(listener.as_fd(), true)?.is_some());
            *reserve = Some(File::open("/dev/null")?);
        }
    }
    let (slept, cpu) = usage()?;
    turns.slept = slept - slept_before;
    turns.cpu = cpu - cpu_before;
    Ok(turns)
}

/// How often this process has slept, and the CPU time it has used.
fn usage() -> nix::Result<(usize, Duration)> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = usage.user_time() + usage.system_time();
    let cpu = Duration::from_micros(cpu.num_microseconds() as u64);
    Ok((usage.voluntary_context_switches() as usize, cpu))
}

fn show(lab: &mut Lab, epoll: &Epoll, listener: &OwnedFd, turns: &Turns) {
    let wait = format!("epoll_wait({}, 1, ...)", lab.names.of(&epoll.0));
    lab.called(format!("{wait} x {}", turns.events), "1 {EPOLLIN, 1}".to_owned());
    let _ = lab
        .call(format!("accept4({}, ...) x {}", lab.names.of(listener), turns.events), turns.last);
    let cpu = turns.cpu.as_secs_f64() * 1e3;
    lab.kernel(
        "getrusage(RUSAGE_SELF)",
        vec![format!("{cpu:.1} ms of CPU time in 100 ms, sleeps: {}", turns.slept)],
    );
}
