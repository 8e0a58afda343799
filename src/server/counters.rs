//! What a server counts.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
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

    /// Adds one, and returns what there is then.
    pub(super) fn increment(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }

    /// Takes off as much, but not more than there is.
    pub(super) fn subtract(&self, n: u64) {
        // The closure never refuses.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(n)));
    }

    pub(super) fn raise_to(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// The errors of the kernel have numbers up to this (`errno(3)`, `EHWPOISON`).
const ERRNO_MAX: usize = 133;

/// Defines what is counted, once: the counters that a process adds to, and the numbers that they
/// are read as.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counts of one process that serves. All zeroes to begin with, in memory that other
        /// processes may share: atomic integers and nothing else.
        #[derive(Debug)]
        pub(crate) struct Counters {
            /// Connections open now, and the most there were.
            pub(crate) open: Counter,
            pub(crate) peak: Counter,
            /// 1 from when there is a loop that serves.
            pub(crate) serving: Counter,
            pub(crate) traffic: Traffic,
            $(pub(crate) $name: Counter,)*
            /// By errno.
            errors: [Counter; ERRNO_MAX + 1],
        }

        /// What a server has counted so far. All counts are since its start but
        /// [`open`](Stats::open), and of all its processes together.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
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
            $($(#[$doc])* pub $name: u64,)*
            /// Errors of system calls on connections and on sockets of datagrams, by errno.
            pub errors: BTreeMap<i32, u64>,
        }

        impl Counters {
            /// Adds all but the first three, which mean something else for each process.
            pub(super) fn add_to(&self, stats: &mut Stats) {
                stats.requests += self.traffic.requests();
                stats.bytes_in += self.traffic.bytes_in();
                stats.bytes_out += self.traffic.bytes_out();
                $(stats.$name += self.$name.value();)*
                for (errno, count) in self.errors.iter().enumerate() {
                    if count.value() > 0 {
                        *stats.errors.entry(errno as i32).or_default() += count.value();
                    }
                }
            }

            /// Moves all but the first three here, from the counters of a process that is gone.
            pub(super) fn take_from(&self, gone: &Counters) {
                self.traffic.take_from(&gone.traffic);
                $(self.$name.add(gone.$name.take());)*
                for (count, gone) in self.errors.iter().zip(&gone.errors) {
                    count.add(gone.take());
                }
            }
        }
    };
}

counters! {
    /// Connections accepted and served.
    accepted,
    /// Connections refused for want of a descriptor (`EMFILE`, `ENFILE`).
    refused_no_fd,
    /// Connections refused because the poller has no room for their descriptor: with select, one
    /// of 1,024 or more.
    refused_no_room,
    /// Connections refused because no thread or process could be started for them.
    refused_no_task,
    /// Connections ended by a frame over the limit.
    refused_frame_too_long,
    /// Datagrams served; they are among the requests.
    datagrams,
    /// Datagrams dropped because they were over the limit.
    refused_datagram_too_long,
    /// Datagrams dropped because they claim to come from this server, or from port 0.
    refused_own_address,
    /// Datagrams dropped because they are replies, not requests.
    refused_reply,
    /// Replies to datagrams that could not be sent, and were dropped.
    replies_dropped,
    /// Connections ended by a request that made no sense, where the framing cannot find the next.
    malformed,
    /// Connections ended by a panic in the service.
    panics,
    /// Connections whose stream ended within a frame.
    unfinished,
    /// Connections closed because they completed no request for the idle time-out.
    idle_closed,
    /// Connections still open when the time to drain ran out.
    cut_off,
    /// Connections lost because the process that served them died.
    lost,
    /// Workers started again because they had died.
    restarts,
    /// How often a listener was paused: at the limit of connections, or out of descriptors.
    pauses,
    /// Turns of the event loop.
    turns,
    /// Events reported to the event loop; `events / turns` is how many share one wait.
    events,
}

impl Counters {
    pub(crate) fn error(&self, error: &io::Error) {
        let errno = error.raw_os_error().and_then(|errno| usize::try_from(errno).ok()).unwrap_or(0);
        self.errors[if errno <= ERRNO_MAX { errno } else { 0 }].add(1);
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
}

impl Stats {
    /// Connections, requests and datagrams refused, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_no_fd
            + self.refused_no_room
            + self.refused_no_task
            + self.refused_frame_too_long
            + self.refused_datagram_too_long
            + self.refused_own_address
            + self.refused_reply
    }

    /// Connections that ended badly: errors by errno, panics, and those whose process died.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.panics + self.lost
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
