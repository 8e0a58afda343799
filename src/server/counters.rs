//! What a server counts.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::connection::Traffic;
use crate::service::Refusal;
use crate::session::Ended;

/// A count that any thread may add to and read at any time.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counts of a running server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) open: Counter,
    pub(crate) peak: Counter,
    pub(crate) traffic: Traffic,
    pub(crate) refused_no_fd: Counter,
    pub(crate) refused_no_room: Counter,
    pub(crate) refused_no_thread: Counter,
    pub(crate) refused_frame_too_long: Counter,
    pub(crate) malformed: Counter,
    pub(crate) panics: Counter,
    pub(crate) unfinished: Counter,
    pub(crate) idle_closed: Counter,
    pub(crate) cut_off: Counter,
    pub(crate) pauses: Counter,
    pub(crate) turns: Counter,
    pub(crate) events: Counter,
    errors: Mutex<BTreeMap<i32, u64>>,
}

impl Counters {
    pub(crate) fn opened(&self) {
        self.accepted.add(1);
        let open = self.open.0.fetch_add(1, Relaxed) + 1;
        self.peak.0.fetch_max(open, Relaxed);
    }

    /// One that was counted as opened, which is when it must be, could not be served after all.
    pub(crate) fn not_opened(&self) {
        self.accepted.0.fetch_sub(1, Relaxed);
        self.closed();
    }

    pub(crate) fn closed(&self) {
        self.open.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn error(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(0);
        // A thread that panics while it holds the lock leaves a map that is still a map.
        let mut errors = self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *errors.entry(errno).or_default() += 1;
    }

    /// How a session ended before its peer did.
    pub(crate) fn ended(&self, ended: Ended) {
        match ended {
            Ended::Refused(Refusal::FrameTooLong) => self.refused_frame_too_long.add(1),
            Ended::Malformed => self.malformed.add(1),
            Ended::Panicked => self.panics.add(1),
            Ended::ByService | Ended::ByDriver => {}
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let errors = self.errors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Stats {
            accepted: self.accepted.value(),
            open: self.open.value(),
            peak: self.peak.value(),
            requests: self.traffic.requests(),
            bytes_in: self.traffic.bytes_in(),
            bytes_out: self.traffic.bytes_out(),
            refused_no_fd: self.refused_no_fd.value(),
            refused_no_room: self.refused_no_room.value(),
            refused_no_thread: self.refused_no_thread.value(),
            refused_frame_too_long: self.refused_frame_too_long.value(),
            malformed: self.malformed.value(),
            panics: self.panics.value(),
            unfinished: self.unfinished.value(),
            idle_closed: self.idle_closed.value(),
            cut_off: self.cut_off.value(),
            pauses: self.pauses.value(),
            turns: self.turns.value(),
            events: self.events.value(),
            errors: errors.clone(),
        }
    }
}

/// What a server has counted so far. All counts are since its start but [`open`](Stats::open).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted and served.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// The most connections that were open at once.
    pub peak: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent, as far as the kernel has taken them.
    pub bytes_out: u64,
    /// Connections refused for want of a descriptor (`EMFILE`, `ENFILE`).
    pub refused_no_fd: u64,
    /// Connections refused because the poller has no room for their descriptor: with select, one
    /// of 1,024 or more.
    pub refused_no_room: u64,
    /// Connections refused because no thread could be started for them.
    pub refused_no_thread: u64,
    /// Connections ended by a frame over the limit.
    pub refused_frame_too_long: u64,
    /// Connections ended by a request that made no sense, where the framing cannot find the next.
    pub malformed: u64,
    /// Connections ended by a panic in the service.
    pub panics: u64,
    /// Connections whose stream ended within a frame.
    pub unfinished: u64,
    /// Connections closed because they completed no request for the idle time-out.
    pub idle_closed: u64,
    /// Connections still open when the time to drain ran out.
    pub cut_off: u64,
    /// How often a listener was paused: at the limit of connections, or out of descriptors.
    pub pauses: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Events reported to the event loop; `events / turns` is how many share one wait.
    pub events: u64,
    /// Errors of system calls on connections, by errno.
    pub errors: BTreeMap<i32, u64>,
}

impl Stats {
    /// Connections and requests refused, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_no_fd
            + self.refused_no_room
            + self.refused_no_thread
            + self.refused_frame_too_long
    }

    /// Connections that ended badly: errors by errno, and panics.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.panics
    }
}

/// One line: what was done.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "served {} requests on {} connections, peak {}, refused {}, errors {}",
            self.requests,
            self.accepted,
            self.peak,
            self.refused(),
            self.errors()
        )
    }
}
