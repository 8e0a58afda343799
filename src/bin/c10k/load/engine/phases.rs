//! The phases of an exchange: warm-up, the measured time, and waiting for the last replies.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use c10k::Reactor;
use c10k::poller::Token;

use super::Engine;
use super::sources::{Source, peer};
use super::window::Window;
use crate::load::checker::{Phase, nanos};
use crate::load::measured::{self, Measured};
use crate::load::plan::Plan;
use crate::load::recorder::Kept;
use crate::load::schedule::Schedule;

impl Engine<'_> {
    /// The connections that are to send: spread evenly over all.
    pub(super) fn active(&self) -> Vec<Token> {
        let all = self.peers.len();
        let active = all.min(self.share.active as usize);
        (0..active).map(|at| self.peers[at * all / active]).collect()
    }

    pub(super) fn start(
        &mut self,
        reactor: &mut Reactor<Source>,
        schedule: Option<&Schedule>,
    ) -> io::Result<()> {
        self.run.start(schedule.is_some());
        self.arrivals = None;
        self.give_up_later(reactor);
        if let Some(schedule) = schedule {
            return self.start_open(reactor, schedule);
        }
        let Plan { ramp, warmup, .. } = *self.plan;
        let now = Instant::now();
        match self.plan.requests_each.is_some() || (ramp + warmup).is_zero() {
            true => self.next_phase(reactor),
            false => self.timer = Some(reactor.set_timer(now + ramp + warmup)),
        }
        let active = self.active();
        for (at, &token) in active.iter().enumerate() {
            match ramp.is_zero() {
                true => self.begin(reactor, token),
                false => {
                    let after = ramp.mul_f64(at as f64 / active.len() as f64);
                    reactor.set_deadline(token, now + after);
                }
            }
        }
        Ok(())
    }

    /// Whether the measured time ends with a number of requests of a closed loop, and all of them
    /// have had their replies.
    pub(super) fn has_enough(&self) -> bool {
        let all_are_sent = match self.plan.requests_each {
            // Whoever has more to send has a request under way.
            Some(_) => true,
            None => !self.run.open.get() && !self.run.may_send(),
        };
        all_are_sent && self.run.outstanding() == 0
    }

    /// Ends the phase under way and begins the next.
    pub(super) fn next_phase(&mut self, reactor: &mut Reactor<Source>) {
        match self.run.phase.get() {
            Phase::WarmUp => self.begin_window(reactor),
            Phase::Measuring => {
                self.end_window();
                self.run.phase.set(Phase::Draining);
                self.timer = Some(reactor.set_timer(Instant::now() + self.plan.timeout));
            }
            Phase::Connecting | Phase::Draining | Phase::Over => {
                self.count_unsent(u64::MAX);
                self.run.phase.set(Phase::Over);
            }
        }
    }

    fn begin_window(&mut self, reactor: &mut Reactor<Source>) {
        // To read the clocks of ten thousand tasks takes a while, which is not measured.
        self.window = Window::begin(self.plan.server_pid);
        self.progress_due = self.progress_due.max(Instant::now());
        self.run.phase.set(Phase::Measuring);
        self.run.read_clock();
        self.run.in_flight_time.set(0);
        if !self.run.open.get() {
            // In an open loop it is known from the start which requests are due in it.
            let from = self.run.now.get();
            let until = from.saturating_add(nanos(self.plan.duration));
            self.run.measure(from, until, None);
            let sent = self.run.sent.get();
            let most = self.share.requests.map_or(u64::MAX, |n| sent.saturating_add(n));
            self.run.sent_max.set(most);
            self.last_reply = (self.run.replied.get(), from);
            self.window_ends = Instant::now() + self.plan.duration;
        }
        self.timer = Some(reactor.set_timer(self.window_ends));
    }

    /// Ends the measured time, if it has begun and not ended: now, or when it was to end if that
    /// was before. Requests that are under way may still be answered.
    pub(super) fn end_window(&mut self) {
        if !self.window.is_open() {
            return;
        }
        self.run.read_clock();
        let in_flight = Duration::from_nanos(self.run.in_flight_time.get());
        self.window.end(self.plan.server_pid, in_flight, self.run.outstanding());
        // With a number of requests, it lasts until the last of them was answered; not until others
        // are given up.
        let (_, last_reply) = self.last_reply;
        let ends_with_reply = self.has_enough() && last_reply > self.run.measured_from();
        let now = if ends_with_reply { last_reply } else { self.run.now.get() };
        if !self.run.open.get() {
            self.run.end_measured(now + 1);
        } else if Instant::now() < self.window_ends {
            self.count_unsent(now);
            self.run.end_measured(now + 1);
        }
        self.run.sent_max.set(0);
    }

    /// After a turn: whether the phase is over.
    pub(super) fn look_at_phase(&mut self, reactor: &mut Reactor<Source>) {
        // With every connection gone, nothing more will happen.
        let alone = reactor.len() == usize::from(self.alarm.is_some());
        if self.last_reply.0 != self.run.replied.get() {
            self.last_reply = (self.run.replied.get(), self.run.now.get());
        }
        if self.run.phase.get() == Phase::Measuring && (alone || self.has_enough()) {
            self.next_phase(reactor);
        }
        self.send_due(reactor);
        let more = self.arrivals.as_ref().is_some_and(|arrivals| arrivals.next_due().is_some());
        let answered = self.run.outstanding() == 0 && !more;
        match self.run.phase.get() {
            Phase::Draining if answered => self.run.phase.set(Phase::Over),
            Phase::WarmUp | Phase::Draining if alone => self.run.phase.set(Phase::Over),
            _ => {}
        }
    }

    /// At the end of an exchange: whoever has not answered by now never will, unless nobody waited
    /// for it.
    pub(super) fn finish(&mut self, reactor: &Reactor<Source>) -> Kept {
        self.end_window();
        if !self.window.has_begun {
            self.run.end_measured(0);
        }
        if !self.has_ended() {
            for peer in reactor.tokens().filter_map(|token| peer(reactor, token)) {
                self.run.lost(peer.checker().all_due());
            }
        }
        self.run.finish()
    }

    /// What was seen since this was last asked.
    pub(super) fn measured(&mut self, kept: Kept) -> Measured {
        let (run, window) = (&self.run, mem::take(&mut self.window));
        let reconnects = mem::replace(&mut self.reconnects, measured::histogram());
        Measured {
            connected: self.peers.len() as u64,
            active: self.active().len() as u64,
            answered: run.answered.get(),
            connecting: self.connected_after,
            reordered: run.reordered.take(),
            measuring: Duration::from_nanos(kept.measured),
            due: kept.due,
            latency: measured::buckets(&kept.latency),
            service: measured::buckets(&kept.service),
            send_delay: measured::buckets(&kept.send_delay),
            steps: kept.steps,
            requests_total: run.replied.get(),
            unasked: run.unasked.get(),
            sent: run.sent.get(),
            in_flight_mean: window.in_flight_mean,
            backlog_first_half: run.backlog_first_half.take(),
            backlog_end: window.backlog_end,
            fastest: Some(run.fastest.get()).filter(|&fastest| fastest < u64::MAX),
            reconnects: measured::buckets(&reconnects),
            clocked: window.wall,
            load_cpu: window.load_cpu,
            server_cpu: window.server_cpu,
            cpu_stolen: window.cpu_stolen,
            cpu_pressure: window.cpu_pressure,
            stalled: window.stalled,
            failures: run.failures.take(),
            ..Measured::default()
        }
    }
}
