//! Several exchanges on the connections of one load, one after the other, as they are asked for:
//! `c10k race` compares them, and to connect takes longer than all of them.

use std::io::{self, Write};

use super::check_limits;
use super::engine::Load;
use super::plan::Plan;
use super::progress::Watcher;
use super::report::Report;
use super::schedule::Schedule;
use crate::Failure;
use crate::stdio::stdout;

/// What is asked for, on a line of standard input: `ACTIVE`, or `ACTIVE RATE` for an open loop.
fn parse(line: &str) -> Option<(u64, Option<u64>)> {
    let mut words = line.split_whitespace();
    let active = words.next()?.parse().ok()?;
    let rate = words.next().map(str::parse).transpose().ok()?;
    words.next().is_none().then_some((active, rate))
}

/// Connects, says so, and then answers each line with the JSON of a report, until there are no
/// more.
pub(super) fn run(plan: &Plan, watcher: &mut Watcher<'_>) -> Result<(), Failure> {
    check_limits(plan)?;
    let mut connected = 0;
    let mut load = Load::connect(plan, plan.share(0), &mut |progress| {
        connected = progress.connected;
        watcher(progress)
    })?;
    writeln!(stdout(), "connected {connected}")?;
    for line in io::stdin().lines() {
        let line = line?;
        let Some((active, rate)) = parse(&line) else {
            return Err(Failure::Cannot(format!("not a trial: {line}")));
        };
        let plan = Plan {
            active: Some(active),
            pipeline: if rate.is_some() { None } else { Some(1) },
            schedule: rate.map(|rate| Schedule::steady(rate, plan.duration)),
            ..plan.clone()
        };
        load.close_unanswered();
        load.set_active(plan.share(0).active);
        let measured = load.exchange(plan.schedule.as_ref(), watcher)?;
        let mut stdout = stdout();
        writeln!(stdout, "{}", serde_json::to_string(&Report::of(&plan, measured))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_how_many_are_active_and_perhaps_a_rate() {
        assert_eq!(parse("50"), Some((50, None)));
        assert_eq!(parse("50 10000\n"), Some((50, Some(10_000))));
        for line in ["", "x", "50 x", "50 10 1", "-1"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
