//! How far a load has got, told while it runs.

use std::time::Duration;

use super::measured::Second;
use crate::Failure;

/// How often it is told.
pub(super) const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    /// Told once: every connection is there that will be, and nothing was sent yet. What is to be
    /// sent is sent when whoever is told returns.
    Connected,
    Exchanging,
}

/// Counts so far, over all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    pub(crate) connected: u64,
    /// Connections that could not be made.
    pub(crate) not_connected: u64,
    /// Connections that had a reply, and it was right.
    pub(crate) answered: u64,
    /// Replies.
    pub(crate) replies: u64,
    /// All that went wrong.
    pub(crate) failures: u64,
    /// The median and the 99th percentile of the latencies in the last whole second, in
    /// nanoseconds. Several processes do not tell: percentiles do not add up.
    pub(crate) latency: Option<[u64; 2]>,
    /// Seconds of the measured time that were settled since this was told before, in order, if the
    /// plan asks for them.
    pub(crate) seconds: Vec<Second>,
}

/// Who is told. An error ends the load.
pub(crate) type Watcher<'a> = dyn FnMut(Progress) -> Result<(), Failure> + 'a;
