//! What a race is going to do and how long that takes, and how far it has got.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::runner::Setup;
use crate::stdio::note;
use crate::units::grouped;

/// To start a server and a load, to let the kernel settle, and to end them.
const START: Duration = Duration::from_millis(300);

/// To open a connection and to close it, in an event loop; with a thread and with a process for
/// it, which are also looked at before and after each trial.
const EVENT_LOOP: Duration = Duration::from_micros(80);
const THREAD: Duration = Duration::from_micros(250);
const PROCESS: Duration = Duration::from_micros(700);

/// To attach to a server and count its calls, beside a trial that this slows down.
const COUNT_CALLS: Duration = Duration::from_millis(500);

/// What a race is going to do, in a line.
#[derive(Debug)]
pub(super) struct Outlook {
    models: usize,
    /// Rising.
    connections: BTreeSet<u64>,
    rounds: u64,
    time: Duration,
}

impl Outlook {
    pub(super) fn of(setups: &[Setup], rounds: u64) -> Outlook {
        let models: BTreeSet<&str> = setups.iter().map(|setup| setup.model.name).collect();
        // One at a time, whatever the others have.
        let others = setups.iter().filter(|setup| setup.model.name != "blocking");
        Outlook {
            models: models.len(),
            connections: others.map(|setup| setup.connections).collect(),
            rounds,
            time: total(setups, rounds),
        }
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            self.connections.iter().map(|&count| grouped(count as f64)).collect();
        let rounds = match self.rounds {
            1 => "one round".to_owned(),
            rounds => format!("{rounds} rounds"),
        };
        write!(
            f,
            "racing {} ways to serve with {} connections in {rounds}: about {}",
            self.models,
            counts.join(", "),
            words(self.time)
        )
    }
}

fn total(setups: &[Setup], rounds: u64) -> Duration {
    let counting = setups.iter().filter(|setup| setup.count_calls);
    let counting: Duration =
        counting.map(|setup| COUNT_CALLS + setup.warmup + setup.duration).sum();
    let round: Duration = setups.iter().map(once).sum();
    round * rounds as u32 + counting
}

/// One round of a setup.
fn once(setup: &Setup) -> Duration {
    let connection = match setup.model.name {
        "processes" => PROCESS,
        "threads" => THREAD,
        _ => EVENT_LOOP,
    };
    let trials = (setup.warmup + setup.duration) * setup.trials.len() as u32;
    START + connection * setup.connections as u32 + trials
}

/// `25 s`, `4 min`: no more exactly than it is known.
fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..10.0 => format!("{:.0} s", seconds.ceil()),
        ..90.0 => format!("{:.0} s", (seconds / 5.0).ceil() * 5.0),
        _ => format!("{:.0} min", (seconds / 60.0).ceil()),
    }
}

/// On standard error: a line that is drawn again if that is a terminal, and otherwise a line after
/// each round.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    rounds: u64,
    began: Instant,
    /// Both as estimated.
    all: Duration,
    done: Duration,
}

impl Progress {
    pub(super) fn new(setups: &[Setup], rounds: u64) -> Progress {
        let all = total(setups, rounds);
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:20} {elapsed} {wide_msg}");
            let bar =
                ProgressBar::new(all.as_millis() as u64).with_finish(ProgressFinish::AndClear);
            let bar = bar.with_style(style.expect("the template is right"));
            // The time passes also while one thing lasts.
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Progress { bar, rounds, began: Instant::now(), all, done: Duration::ZERO }
    }

    /// What is done now.
    pub(super) fn show(&self, setup: &Setup, round: u64, stage: &str) {
        let Some(bar) = &self.bar else { return };
        let (name, connections) = (setup.model.name, grouped(setup.connections as f64));
        let (rounds, left) = (self.rounds, words(self.left()));
        bar.set_message(format!(
            "{left} left; round {round} of {rounds}: {name}, {connections} connections: {stage}"
        ));
    }

    /// A setup was run.
    pub(super) fn done(&mut self, setup: &Setup) {
        self.done += once(setup);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done.as_millis() as u64);
        }
    }

    pub(super) fn round_done(&self, round: u64) {
        if self.bar.is_none() && round < self.rounds {
            let left = words(self.left());
            note(format_args!("round {round} of {} is over: about {left} left", self.rounds));
        }
    }

    fn left(&self) -> Duration {
        let left = self.all.saturating_sub(self.done);
        // Once there is something to measure the estimate by.
        match self.done > Duration::from_secs(2) {
            true => left.mul_f64(self.began.elapsed().as_secs_f64() / self.done.as_secs_f64()),
            false => left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::runner::{Model, Trial};

    fn setup(name: &'static str, connections: u64) -> Setup {
        Setup {
            model: Model { name, args: &[] },
            connections,
            pinned: true,
            trials: vec![Trial { active: 50, rate_per_s: None }; 4],
            warmup: Duration::from_millis(100),
            duration: Duration::from_millis(400),
            count_calls: false,
        }
    }

    #[test]
    fn it_says_what_will_be_done_and_how_long_that_takes() {
        let setups = [setup("epoll", 100), setup("epoll", 1_000), setup("threads", 1_000)];
        // 2.3 s each, and 0.34 s for the connections.
        assert_eq!(
            Outlook::of(&setups, 3).to_string(),
            "racing 2 ways to serve with 100, 1,000 connections in 3 rounds: about 25 s"
        );
        let outlook = Outlook::of(&setups[..1], 1).to_string();
        assert!(outlook.ends_with("100 connections in one round: about 3 s"), "{outlook}");
        let counting = Setup { count_calls: true, ..setup("epoll", 100) };
        // Once, not in each round.
        let more = total(&[counting], 7) - total(&setups[..1], 7);
        assert_eq!(more, Duration::from_secs(1));
    }

    #[test]
    fn a_time_is_told_no_more_exactly_than_it_is_known() {
        for (seconds, text) in [(0.2, "1 s"), (9.1, "10 s"), (61.0, "65 s"), (200.0, "4 min")] {
            assert_eq!(words(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn what_is_left_gets_less_as_it_is_done() {
        let setups = [setup("epoll", 100), setup("epoll", 10_000)];
        let mut progress = Progress::new(&setups, 1);
        let before = progress.left();
        progress.done(&setups[0]);
        assert!(progress.left() < before);
        progress.done(&setups[1]);
        assert_eq!(progress.left(), Duration::ZERO);
    }
}
