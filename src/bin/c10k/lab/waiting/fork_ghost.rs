//! An epoll instance that two processes have.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::time::Duration;

use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::lab::calls::errno;
use crate::lab::kernel::forked;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "fork-ghost",
    claim: "What a child adds to an epoll instance that it has inherited, its parent is told of, \
            by a number that means nothing there, or something else: so one makes the instance \
            after the fork.",
    run,
};

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("An epoll instance that watches nothing, and then a child, which inherits it.");
    let epoll = lab.epoll("epoll")?;
    let child = Child::with(lab, Some(&epoll))?;
    let number = child.added;

    lab.note("The parent has added nothing, and is told of something.");
    let events = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("events in the parent", events.len(), 1);
    let about = |events: &[(EpollFlags, u64)]| events.first().map_or(0, |(_, data)| *data);
    lab.expect("what the event is about, a number of the child's", about(&events), number);
    let path = format!("/proc/self/fd/{number}");
    let opened = fs::read_link(&path).map(drop).map_err(|error| errno(&error));
    let opened = lab.call(format!("readlink(\"{path}\")"), opened);
    lab.expect_errno("a descriptor of that number in the parent", &opened, Some(Errno::ENOENT));
    let watched = lab.show_watched(&epoll.0)?;
    lab.expect("watched by what the parent takes for its own", watched.len(), 1);

    lab.note("Worse: the next thing that the parent opens has that number.");
    let other = lab.tcp("other")?;
    lab.expect("number of the parent's new socket", other.as_raw_fd() as u64, number);
    let events = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("what the next event seems to be about", about(&events), number);
    let deleted = lab.epoll_delete(&epoll, &other);
    lab.expect_errno("to delete it, which only the child can", &deleted, Some(Errno::ENOENT));

    lab.note("It goes with the child, if nobody else has a duplicate of what it added.");
    child.end(lab)?;
    let watched = lab.show_watched(&epoll.0)?;
    lab.expect("watched after the child's end", watched.len(), 0);

    lab.note("A child that makes its instance itself, after the fork, disturbs nobody.");
    let child = Child::with(lab, None)?;
    let events = lab.epoll_wait(&epoll, 8, 0)?;
    lab.expect("events in the parent, with an instance for each", events.len(), 0);
    child.end(lab)
}

/// A child that has added something that is ready, and then waits to be told to end.
struct Child {
    pid: Pid,
    line: UnixStream,
    /// The child's end. It stays open, so that the same numbers are free in both processes.
    _theirs: UnixStream,
    /// The number of what it added.
    added: u64,
}

impl Child {
    /// Forks a child that adds to this epoll instance, or to one of its own.
    fn with(lab: &mut Lab, inherited: Option<&Epoll>) -> Result<Child, Trouble> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(10)))?;
        let parent = process::id();
        let pid = forked(sys::fork(|| {
            let work = || -> io::Result<()> {
                sys::end_with_parent(parent, Signal::SIGKILL as i32)?;
                let ready = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC)?;
                let number = ready.as_fd().as_raw_fd();
                let own = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
                let result = inherited.unwrap_or(&own).add(&ready, event);
                let errno = result.err().map_or(0, |errno| errno as i32);
                (&theirs).write_all(&[number.to_ne_bytes(), errno.to_ne_bytes()].concat())?;
                (&theirs).read_exact(&mut [0])
            };
            work().map_or(1, |()| 0)
        }))?;
        lab.called("fork()".to_owned(), format!("{pid}"));
        let mut told = [[0; 4]; 2];
        (&ours).read_exact(told.as_flattened_mut())?;
        let [number, errno] = told.map(i32::from_ne_bytes);
        let result = match errno {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        };
        lab.called("child: eventfd2(1, EFD_CLOEXEC)".to_owned(), number.to_string());
        let epoll = inherited.map_or("own epoll".to_owned(), |epoll| lab.names.of(&epoll.0));
        let call = format!("child: epoll_ctl({epoll}, EPOLL_CTL_ADD, {number}, EPOLLIN, {number})");
        lab.call(call, result)?;
        Ok(Child {
            pid: Pid::from_raw(pid as i32),
            line: ours,
            _theirs: theirs,
            added: number as u64,
        })
    }

    /// Has it end, which closes what it has.
    fn end(mut self, lab: &mut Lab) -> Result<(), Trouble> {
        self.line.write_all(b"x")?;
        let status = waitpid(self.pid, None)?;
        lab.called(format!("waitpid({})", self.pid), format!("{status:?}"));
        Ok(())
    }
}
