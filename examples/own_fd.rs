//! A reactor with descriptors of one's own: a timerfd and standard input, and no socket at all.
//!
//! ```text
//! (echo one; sleep 1; echo two) | cargo run --example own_fd
//! cargo run --example own_fd                    and type; Ctrl-D ends it
//! ```
//!
//! Anything with a descriptor that can be waited for is a source: sockets, pipes, terminals,
//! timers, signals, other processes (pidfd), changes to files (inotify). Not files themselves:
//! they are always ready, and epoll refuses them, so `own_fd < file` does not work.
//!
//! And two things that need no descriptor of their own: a timer of the reactor, and a wake from
//! another thread.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use c10k::poller::{Interest, Readiness, Token};
use c10k::{Handler, Reactor, TimerId};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd;

/// What this loop waits for. A reactor has sources of one type: with several kinds of them that is
/// an enum, and the handler matches on it.
enum Source {
    Ticks(TimerFd),
    Input(io::Stdin),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Ticks(timer) => timer.as_fd(),
            Source::Input(stdin) => stdin.as_fd(),
        }
    }
}

/// The program's state, which the reactor hands nobody else.
struct Program {
    /// The start of a line, the end of which has not been read.
    line: Vec<u8>,
    /// What the other thread has to say.
    results: Receiver<u64>,
    /// Why it had to end.
    failed: Option<io::Error>,
}

impl Handler<Source> for Program {
    fn ready(&mut self, reactor: &mut Reactor<Source>, token: Token, _: Readiness) {
        let result = match reactor.source(token) {
            Some(Source::Ticks(timer)) => tick(timer),
            Some(Source::Input(stdin)) => self.input(stdin).map(|open| {
                if !open {
                    reactor.stop();
                }
            }),
            None => Ok(()),
        };
        if let Err(error) = result
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        {
            // It stays ready, and would be reported in each turn: something must be done about it.
            // Here that is to end.
            self.failed = Some(error);
            reactor.stop();
        }
    }

    /// For a time-out or a pause this is the better timer: to set it is a few instructions and no
    /// system call, and a million of them need no descriptor.
    fn timer(&mut self, _: &mut Reactor<Source>, _: TimerId) {
        println!("timer: one second has passed");
    }

    /// The waker wakes, and carries nothing; what there is to say comes through a channel. Wakes
    /// that come before the loop gets to run are one, so take all there is.
    fn woken(&mut self, _: &mut Reactor<Source>) {
        for result in self.results.try_iter() {
            println!("thread: the sum is {result}");
        }
    }
}

/// A timerfd is for what the reactor's own timers cannot do: another clock (such as the time of
/// day, with notice when it is set), or finer than a millisecond. See `timerfd_create(2)`.
fn tick(timer: &TimerFd) -> io::Result<()> {
    // Reading it says how often it has expired since the last read: more than once if the loop was
    // late. Unread it stays ready, and the loop would spin.
    let mut count = [0; 8];
    unistd::read(timer, &mut count)?;
    println!("tick: {}", u64::from_ne_bytes(count));
    Ok(())
}

impl Program {
    /// Reads once, and prints the lines that are now whole. Returns whether there may be more.
    fn input(&mut self, stdin: &io::Stdin) -> io::Result<bool> {
        // Not through `Stdin`, which reads ahead into a buffer that epoll cannot see: it would say
        // that there is nothing, and be right, with lines left in the buffer.
        let mut buffer = [0; 4096];
        let n = unistd::read(stdin, &mut buffer)?;
        for piece in buffer[..n].split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if let Some(line) = self.line.strip_suffix(b"\n") {
                println!("input: {}", String::from_utf8_lossy(line));
                self.line.clear();
            }
        }
        if n == 0 && !self.line.is_empty() {
            println!("input: {} bytes and no end of line", self.line.len());
        }
        Ok(n > 0)
    }
}

fn main() -> io::Result<()> {
    let mut reactor = Reactor::new()?;

    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let interval = TimeSpec::from(Duration::from_millis(250));
    timer.set(Expiration::Interval(interval), TimerSetTimeFlags::empty())?;
    reactor.add(Source::Ticks(timer), Interest::READ)?;

    // Standard input may be shared with other programs (a terminal is), so it is not made
    // non-blocking: that would be so for all of them. One read when it is ready does not block.
    // It follows that it must be level-triggered: nobody reads on until EAGAIN.
    reactor.add(Source::Input(io::stdin()), Interest::READ).map_err(|error| {
        io::Error::new(error.kind(), format!("standard input cannot be waited for: {error}"))
    })?;

    reactor.set_timer(reactor.now() + Duration::from_secs(1));

    // What takes long is done elsewhere, so that the loop goes on meanwhile.
    let (sender, results) = mpsc::channel();
    let waker = reactor.waker();
    thread::spawn(move || {
        let sum = (1..=1_000_000).sum();
        // In this order: a wake before there is something to find would be lost.
        if sender.send(sum).is_ok() {
            waker.wake();
        }
    });

    let mut program = Program { line: Vec::new(), results, failed: None };
    reactor.run(&mut program)?;
    program.failed.map_or(Ok(()), Err)
}
