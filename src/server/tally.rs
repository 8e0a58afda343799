//! Who counts where: the counters of all processes of a server, in memory that they share.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use super::counters::{Counters, Stats};
use crate::sys::SharedMemory;

/// The counters that this process adds to, among those of its server.
///
/// ```text
///   board:  | the server | worker 0 | worker 1 | ...
///             ▲ open, peak of all; and what workers counted that are gone
/// ```
///
/// A server with no workers has the first only, and connections that are processes share it. A
/// worker has one of its own, so that its loop counts without a locked instruction. The parent
/// can read them all, also after a worker was killed.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    board: Arc<SharedMemory<Counters>>,
    own: usize,
}

impl Tally {
    pub(crate) fn new(workers: usize) -> io::Result<Tally> {
        Ok(Tally { board: Arc::new(SharedMemory::new(1 + workers)?), own: 0 })
    }

    /// That of a worker.
    pub(crate) fn of_worker(&self, worker: usize) -> Tally {
        Tally { board: Arc::clone(&self.board), own: 1 + worker }
    }

    /// The counters of the whole.
    fn server(&self) -> &Counters {
        &self.board[0]
    }

    pub(crate) fn opened(&self) {
        self.raise_peak(self.opening());
    }

    /// One that another task will serve, which may count it as closed at any time: so it is
    /// counted before there is one. Returns how many are open with it; see `raise_peak`.
    pub(crate) fn opening(&self) -> u64 {
        self.accepted.add(1);
        let open = self.open.increment();
        match self.own {
            0 => open,
            _ => self.server().open.increment(),
        }
    }

    /// As many were open at once.
    pub(crate) fn raise_peak(&self, open: u64) {
        self.server().peak.raise_to(open);
    }

    /// One that was counted as opening could not be served after all.
    pub(crate) fn not_opened(&self) {
        self.accepted.subtract(1);
        self.closed();
    }

    pub(crate) fn closed(&self) {
        self.open.subtract(1);
        if self.own != 0 {
            self.server().open.subtract(1);
        }
    }

    /// A worker is gone: what it counted stays, and what it had open is lost. Returns how many
    /// connections that are.
    pub(crate) fn bury(&self, worker: usize) -> u64 {
        let (server, gone) = (self.server(), &self.board[1 + worker]);
        let open = gone.open.value();
        server.take_from(gone);
        server.lost.add(open);
        server.open.subtract(open);
        gone.open.set(0);
        gone.serving.set(0);
        open
    }

    /// What all processes have counted.
    pub(crate) fn stats(&self) -> Stats {
        let server = self.server();
        let mut stats =
            Stats { open: server.open.value(), peak: server.peak.value(), ..Stats::default() };
        self.board.iter().for_each(|counters| counters.add_to(&mut stats));
        stats
    }

    /// Whether a worker came to serve.
    pub(crate) fn is_serving(&self, worker: usize) -> bool {
        self.board[1 + worker].serving.value() > 0
    }

    /// What one worker has counted since it was started.
    pub(crate) fn stats_of_worker(&self, worker: usize) -> Stats {
        let mut stats = Stats::default();
        self.board[1 + worker].add_to(&mut stats);
        stats
    }
}

impl Deref for Tally {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.board[self.own]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_gone_leaves_its_counts() {
        let server = Tally::new(2).unwrap();
        let [first, second] = [0, 1].map(|worker| server.of_worker(worker));
        for _ in 0..3 {
            first.opened();
        }
        second.opened();
        first.closed();
        first.traffic.add(5, 50, 500);
        second.traffic.add(1, 10, 100);
        first.error(&io::Error::from_raw_os_error(libc::ECONNRESET));
        assert_eq!((server.stats().open, server.stats().peak), (3, 4));

        assert_eq!(server.bury(0), 2);
        assert_eq!(first.open.value(), 0);
        let stats = server.stats();
        assert_eq!((stats.open, stats.peak, stats.accepted, stats.lost), (1, 4, 4, 2));
        assert_eq!((stats.requests, stats.bytes_in, stats.bytes_out), (6, 60, 600));
        assert_eq!(stats.errors[&libc::ECONNRESET], 1);
        assert_eq!(stats.errors(), 3);

        // Its successor begins at nothing.
        first.opened();
        first.closed();
        second.closed();
        assert_eq!(server.bury(0), 0);
        let stats = server.stats();
        assert_eq!((stats.open, stats.accepted, stats.requests), (0, 5, 6));
    }
}
