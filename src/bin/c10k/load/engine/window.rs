//! What else is seen of the measured time, besides its requests.

use std::process;
use std::time::{Duration, Instant};

use crate::proc::{self, CpuTime, cpu_time, waited_for_cpu};

/// Clocks at the start of the measured time.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    wall: Instant,
    load: Duration,
    /// Of the server and its children. `None` if no server was named, it is not there, or its
    /// children are not told.
    server: Option<Duration>,
    machine: CpuTime,
    waited: Duration,
}

impl Clocks {
    fn read(server: Option<u32>) -> Clocks {
        // One of its children may have ended since they were listed; the server itself has not.
        let server = server.and_then(|pid| {
            let children = proc::children(pid)?.into_iter().filter_map(cpu_time);
            Some(cpu_time(pid)? + children.sum())
        });
        let (machine, waited) = (CpuTime::now(), waited_for_cpu());
        // Last, since the others take CPU time of this process.
        Clocks { server, machine, waited, load: load_cpu(), wall: Instant::now() }
    }
}

fn load_cpu() -> Duration {
    cpu_time(process::id()).unwrap_or_default()
}

#[derive(Debug, Default)]
pub(super) struct Window {
    /// While it is measured.
    start: Option<Clocks>,
    pub(super) has_begun: bool,
    /// How long it was between the readings of the clocks, and what passed on them.
    pub(super) wall: Duration,
    pub(super) load_cpu: Duration,
    pub(super) server_cpu: Option<Duration>,
    /// Parts of the time, from 0 to 1.
    pub(super) cpu_stolen: f64,
    pub(super) cpu_pressure: f64,
    /// The longest for which the loop was not there when it was to wake.
    pub(super) stalled: Duration,
    /// Requests under way, in the mean; and those due and not answered at the end.
    pub(super) in_flight_mean: f64,
    pub(super) backlog_end: u64,
}

impl Window {
    pub(super) fn begin(server: Option<u32>) -> Window {
        Window { start: Some(Clocks::read(server)), has_begun: true, ..Window::default() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.start.is_some()
    }

    /// Reads the clocks at the end; `in_flight` is for how long requests were under way, all of
    /// them together.
    pub(super) fn end(&mut self, server: Option<u32>, in_flight: Duration, backlog_end: u64) {
        let Some(start) = self.start.take() else { return };
        let (wall, load) = (start.wall.elapsed(), load_cpu());
        let part = |time: Duration| match wall.is_zero() {
            true => 0.0,
            false => time.div_duration_f64(wall),
        };
        let now = Clocks::read(server);
        let cpu = now.server.zip(start.server);
        *self = Window {
            start: None,
            has_begun: true,
            wall,
            load_cpu: load.saturating_sub(start.load),
            server_cpu: cpu.map(|(now, start)| now.saturating_sub(start)),
            cpu_stolen: start.machine.stolen_since(),
            cpu_pressure: part(now.waited.saturating_sub(start.waited)).min(1.0),
            stalled: self.stalled,
            in_flight_mean: part(in_flight),
            backlog_end,
        };
    }
}
