//! Processes that the labs of this group start, and that end with them.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use c10k::Addr;
use c10k::sys::{self, ListenOptions, Recv, SharedMemory};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket, sockopt,
};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::lab::Trouble;
use crate::lab::calls::{ANY_PORT, errno};
use crate::lab::kernel::{forked, until};
use crate::lab::record::Lab;
use crate::proc::field;

/// More than any of the labs connects.
const BACKLOG: i32 = 256;

/// A child process, which is killed when this is dropped.
pub(super) struct Child(Pid);

impl Child {
    pub(super) fn start(run: impl FnOnce() -> nix::Result<()>) -> Result<Child, Trouble> {
        let parent = std::process::id();
        let pid = forked(sys::fork(|| {
            let result = sys::end_with_parent(parent, Signal::SIGKILL as i32);
            i32::from(result.is_err() || run().is_err())
        }))?;
        Ok(Child(Pid::from_raw(pid as i32)))
    }

    pub(super) fn pid(&self) -> Pid {
        self.0
    }

    pub(super) fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(self.0, signal)
    }

    /// Its state, as in `R` (it runs, or wants to), `S` (it sleeps) or `T` (it was stopped).
    pub(super) fn state(&self) -> Result<char, Trouble> {
        Ok(self.status("State")?.chars().next().unwrap_or('?'))
    }

    /// How often it gave up its CPU to wait for something: so often was it woken, and one more.
    pub(super) fn times_asleep(&self) -> Result<u64, Trouble> {
        Ok(self.status("voluntary_ctxt_switches")?.parse()?)
    }

    /// The first word of a line of `proc_pid_status(5)`.
    fn status(&self, name: &str) -> Result<String, Trouble> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        Ok(field(&text, name).unwrap_or_default().to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// What a worker counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// 1 when it is about to wait for the first time.
    Ready,
    /// Connections that it has accepted.
    Accepted,
    /// Calls of `accept4` for which there was no connection left.
    InVain,
}

/// Processes that each wait with an epoll instance of their own, accept what comes, and answer
/// with one byte.
pub(super) struct Workers {
    pub(super) children: Vec<Child>,
    counts: SharedMemory<AtomicU64>,
}

impl Workers {
    /// Starts them one after the other, the next when the one before waits. If there are several
    /// listeners, each has its own.
    pub(super) fn start(
        number: usize,
        listeners: &[OwnedFd],
        events: EpollFlags,
    ) -> Result<Workers, Trouble> {
        let counts = SharedMemory::new(number * (Count::InVain as usize + 1))?;
        let mut workers = Workers { children: Vec::new(), counts };
        for n in 0..number {
            let listener = &listeners[n % listeners.len()];
            let child = Child::start(|| {
                work(listener, events, |count| {
                    workers.counts[number * count as usize + n].fetch_add(1, Relaxed);
                })
            })?;
            workers.children.push(child);
            let waits = until(|| Ok(workers.counts(Count::Ready)[n] == 1))?;
            if !(waits && workers.wait_until_asleep()?) {
                return Err(Trouble::Failed("a worker did not start".to_owned()));
            }
        }
        Ok(workers)
    }

    /// A count of each of them.
    pub(super) fn counts(&self, count: Count) -> Vec<u64> {
        let number = self.counts.len() / (Count::InVain as usize + 1);
        let first = number * count as usize;
        self.counts[first..first + number].iter().map(|count| count.load(Relaxed)).collect()
    }

    /// Waits until none has anything to do.
    pub(super) fn wait_until_asleep(&self) -> Result<bool, Trouble> {
        until(|| {
            for child in &self.children {
                if matches!(child.state()?, 'R' | 'D') {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

fn work(listener: &OwnedFd, events: EpollFlags, count: impl Fn(Count)) -> nix::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(events, 0))?;
    count(Count::Ready);
    // Open until this process ends, so that it is the client that closes first.
    let mut accepted = Vec::new();
    loop {
        match epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) {
            // It was stopped, and goes on (signal(7)).
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        match sys::accept(listener.as_fd(), true).map_err(|error| errno(&error))? {
            Some(fd) => {
                count(Count::Accepted);
                sys::send(fd.as_fd(), b"!").map_err(|error| errno(&error))?;
                accepted.push(fd);
            }
            None => count(Count::InVain),
        }
    }
}

/// A listener that does not block, or several that share one port.
pub(super) fn listeners(
    lab: &mut Lab,
    number: usize,
) -> Result<(Vec<OwnedFd>, SocketAddr), Trouble> {
    let first = lab.tcp_nonblocking(if number > 1 { "listener 1" } else { "listener" })?;
    if number > 1 {
        lab.set(&first, sockopt::ReusePort, &true, "SO_REUSEPORT, 1")?;
    }
    let addr = lab.bind(&first, ANY_PORT)?;
    lab.listen(&first, BACKLOG)?;
    let mut listeners = vec![first];
    let options = ListenOptions { backlog: BACKLOG as u32, reuse_port: true };
    for n in 1..number {
        let listener = sys::listen(&Addr::Tcp(addr), &options)?;
        lab.name(&listener, &format!("listener {}", n + 1));
        listeners.push(listener);
    }
    if number > 1 {
        let more = format!("the same for {} more, bound to {addr}", number - 1);
        lab.called(more, "0".to_owned());
    }
    Ok((listeners, addr))
}

/// A client's connection. Closed, it is reset, and leaves no TIME-WAIT.
pub(super) fn client(addr: SocketAddr) -> Result<OwnedFd, Trouble> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    sys::set_linger(fd.as_fd(), Duration::ZERO)?;
    Ok(fd)
}

/// Connects, and waits for the answer of whoever accepts.
pub(super) fn ask(addr: SocketAddr) -> Result<(), Trouble> {
    let fd = client(addr)?;
    sys::set_io_timeout(fd.as_fd(), Some(Duration::from_secs(5)))?;
    match sys::recv(fd.as_fd(), &mut [0])? {
        Recv::Data(_) => Ok(()),
        other => Err(Trouble::Failed(format!("no worker answered: {other:?}"))),
    }
}

/// What `poll(2)` says of each of these now: 0, `POLLIN`, or that and more if it has ended.
pub(super) fn readiness(clients: &[OwnedFd]) -> Result<Vec<i16>, Trouble> {
    let entry =
        |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<_> = clients.iter().map(entry).collect();
    sys::poll(&mut entries, 0)?;
    Ok(entries.iter().map(|entry| entry.revents).collect())
}
