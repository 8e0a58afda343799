//! A process for each connection. The loop only accepts.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::blocking;
use super::threads::Never;
use crate::connection::Step;
use crate::framing::Framing;
use crate::poller::{Poller, Readiness, Token};
use crate::server::{Protocol, Serve, Shared, Source};
use crate::service::Service;
use crate::{Reactor, sys};

/// Forks a child to serve each connection.
pub(crate) struct Processes<F, M> {
    protocol: Arc<Protocol<F, M>>,
    shared: Arc<Shared>,
    idle_timeout: Option<Duration>,
    children: HashSet<u32>,
}

impl<F, M> Processes<F, M> {
    pub(crate) fn new(
        protocol: Arc<Protocol<F, M>>,
        shared: Arc<Shared>,
        idle_timeout: Option<Duration>,
    ) -> Processes<F, M> {
        Processes { protocol, shared, idle_timeout, children: HashSet::new() }
    }

    fn signal_all(&self, signal: Signal) {
        for &child in &self.children {
            // Not waited for yet, so the pid is still its own.
            let _ = kill(Pid::from_raw(child as i32), signal);
        }
    }

    /// Takes note of one end, if it was one.
    fn account(&mut self, status: WaitStatus) {
        let Some(child) = status.pid().filter(|pid| self.children.remove(&(pid.as_raw() as u32)))
        else {
            return;
        };
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            log::warn!("process {child}, which served a connection, has died: {status:?}");
            self.shared.counters.lost.add(1);
        }
        self.shared.counters.closed();
    }
}

impl<F: Framing, S: Service, M: Fn() -> S> Processes<F, M> {
    /// What the child does.
    fn serve(&self, parent: u32, fd: &OwnedFd) -> io::Result<()> {
        sys::close_all_but(fd);
        // A terminal sends these to all; the parent passes them on as SIGTERM.
        [Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(sys::ignore);
        sys::finish_on_sigterm(fd.as_fd())?;
        SigSet::empty().thread_set_mask()?;
        sys::end_with_parent(parent, libc::SIGKILL)?;
        let (protocol, counters) = (&self.protocol, &self.shared.counters);
        let stopping = sys::is_told_to_finish;
        blocking::serve(fd.as_fd(), protocol, counters, self.idle_timeout, stopping);
        Ok(())
    }
}

type Loop<S, P> = Reactor<Source<Never, S>, P>;

impl<F, S, M, P> Serve<P> for Processes<F, M>
where
    F: Framing,
    S: Service,
    M: Fn() -> S,
    P: Poller,
{
    type Connection = Never;
    type Service = S;
    const NONBLOCKING: bool = false;

    fn service(&self) -> S {
        self.protocol.service()
    }

    fn admit(&mut self, _: &mut Loop<S, P>, fd: OwnedFd) -> io::Result<()> {
        let parent = process::id();
        // Told to finish before it can hear that, the child would be killed by it. It unblocks this.
        let before = SigSet::from(Signal::SIGTERM).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let open = self.shared.counters.opening();
        let forked = sys::fork(|| match self.serve(parent, &fd) {
            Ok(()) => 0,
            Err(error) => {
                log::error!("cannot serve a connection: {error}");
                1
            }
        });
        before.thread_set_mask()?;
        let child = forked.inspect_err(|_| {
            self.shared.counters.refused_no_task.add(1);
            self.shared.counters.not_opened();
        })?;
        self.shared.counters.raise_peak(open);
        self.children.insert(child);
        Ok(())
    }

    fn drive(&mut self, connection: &mut Never, _: Readiness, _: u32) -> io::Result<Step> {
        match *connection {}
    }

    fn carry_out(&mut self, _: &mut Loop<S, P>, _: Token, _: io::Result<Step>) {}

    fn deadline(&mut self, _: &mut Loop<S, P>, _: Token) {}

    /// Several ends may be told of by one SIGCHLD (`signal(7)`).
    fn children_ended(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => self.account(status),
                Err(errno) => debug_assert_eq!(errno, Errno::EINTR),
            }
        }
    }

    fn drain(&mut self, _: &mut Loop<S, P>) {
        // Each sees that, if need be when its `recv` returns.
        self.signal_all(Signal::SIGTERM);
    }

    fn cut_off(&mut self, _: &mut Loop<S, P>) {
        self.signal_all(Signal::SIGKILL);
        while !self.children.is_empty() {
            match waitpid(None, None) {
                Ok(status) => {
                    // Not lost, but cut off, as the front has counted it.
                    if let Some(child) = status.pid()
                        && self.children.remove(&(child.as_raw() as u32))
                    {
                        self.shared.counters.closed();
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
