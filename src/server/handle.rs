//! What other threads hold of a running server.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use super::Stats;
use super::tally::Tally;
use crate::{Addr, Waker};

/// What a server's loop shares with its handles, and with threads that serve connections.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counters: Tally,
    addrs: Vec<Addr>,
    stop: AtomicBool,
    /// Of the loop, if it is of this process.
    waker: OnceLock<Waker>,
}

impl Shared {
    pub(crate) fn new(addrs: Vec<Addr>, counters: Tally) -> Shared {
        Shared { counters, addrs, stop: AtomicBool::new(false), waker: OnceLock::new() }
    }

    /// What a worker shares with nobody but its parent: the counters.
    pub(crate) fn of_worker(&self, worker: usize) -> Shared {
        Shared::new(self.addrs.clone(), self.counters.of_worker(worker))
    }

    pub(crate) fn loop_is(&self, waker: Waker) {
        self.waker.set(waker).expect("a server runs once");
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, SeqCst);
        self.wake();
    }

    pub(crate) fn addrs(&self) -> &[Addr] {
        &self.addrs
    }
}

/// A hold on a [`Server`](super::Server) that runs in some thread: stops it, and reads its
/// counters. Cheap to clone, and good for any thread.
#[derive(Debug, Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

impl Handle {
    /// Has the server accept no more, answer what it has received and what peers have begun to send
    /// ([`drain`](super::Builder::drain)), and return from [`run`](super::Server::run).
    pub fn stop(&self) {
        self.0.stop();
    }

    /// What the server has counted so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.stats()
    }

    /// The addresses it listens on, with the ports that the kernel chose.
    #[must_use]
    pub fn local_addrs(&self) -> &[Addr] {
        self.0.addrs()
    }
}
