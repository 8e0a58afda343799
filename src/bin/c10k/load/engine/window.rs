//! Clocks over the measured time.

use std::process;
use std::time::{Duration, Instant};

use crate::proc::{self, cpu_time};

/// Clocks at the start of the measured time, and then what has passed on them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    pub(super) start: Option<Instant>,
    pub(super) wall: Duration,
    /// Requests under way, in the mean; and those due and not answered at the end.
    pub(super) in_flight_mean: f64,
    pub(super) backlog_end: u64,
    pub(super) load_cpu: Duration,
    /// Of the server and its children. `None` if no server was named, it is not there, or its
    /// children are not told.
    pub(super) server_cpu: Option<Duration>,
}

impl Window {
    /// The CPU clocks as they are.
    pub(super) fn read(server: Option<u32>) -> Window {
        // One of its children may have ended since they were listed; the server itself has not.
        let server_cpu = server.and_then(|pid| {
            let children = proc::children(pid)?.into_iter().filter_map(cpu_time);
            Some(cpu_time(pid)? + children.sum())
        });
        let load_cpu = cpu_time(process::id()).unwrap_or_default();
        Window { load_cpu, server_cpu, ..Window::default() }
    }

    /// What has passed on each clock from `before` to this.
    pub(super) fn since(self, before: Window) -> Window {
        let cpu = self.server_cpu.zip(before.server_cpu);
        Window {
            load_cpu: self.load_cpu.saturating_sub(before.load_cpu),
            server_cpu: cpu.map(|(now, before)| now.saturating_sub(before)),
            ..self
        }
    }
}
