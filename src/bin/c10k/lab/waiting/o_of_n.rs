//! What a wait costs, by how much is watched.

use std::time::{Duration, Instant};

use c10k::poller::{Epoll, Interest, Poll, Poller, Select, Token};
use c10k::sys;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::lab::kernel::needs_descriptors;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::units::grouped;

pub(super) const ABOUT: About = About {
    name: "o-of-n",
    claim: "With one descriptor ready, a wait by select or poll costs what is watched, and one by \
            epoll does not; with all of them ready, epoll has something to report of each too, \
            and its advantage shrinks to little or nothing.",
    run,
};

const WATCHED: [usize; 4] = [10, 100, 1_000, 10_000];
/// Of so many waits the shortest counts: a machine that is busy only makes them longer.
const TRIES: usize = 50;
/// Descriptors that are open besides.
const SPARE: u64 = 64;

/// The time of a wait, by how many are watched; none where they do not fit an `fd_set`.
struct Row {
    watched: usize,
    select: Option<Duration>,
    poll: Duration,
    epoll: Duration,
}

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(1_000 + SPARE)?;
    let limit = sys::raise_fd_limit()?;
    lab.called("setrlimit(RLIMIT_NOFILE, ...)".to_owned(), format!("0, {limit}"));
    let fit = |watched: &usize| *watched as u64 + SPARE <= limit;
    let counts: Vec<_> = WATCHED.into_iter().filter(fit).collect();
    let most = counts.last().copied().unwrap_or_default();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let fds = (0..most).map(|_| EventFd::from_flags(flags)).collect::<Result<Vec<_>, _>>()?;
    lab.called("eventfd2(0, ...)".to_owned(), format!("{} times", grouped(most as f64)));

    lab.note(
        "One is ready, the one in the middle. Ten times the descriptors are ten times the work \
         for select and poll: the list goes into the kernel, each is looked at, and the list \
         comes back to be searched. epoll was told before, and keeps a list of the ready.",
    );
    let one = rows(&counts, &fds, |watched| watched / 2..watched / 2 + 1)?;
    chart(lab, "one ready", &one);
    let (few, many) = (&one[0], &one[one.len() - 1]);
    let times = ratio(many.poll, few.poll);
    let grows = format!("more than {}", most / 500);
    let fact = format!("poll of {} as many times poll of 10", grouped(most as f64));
    lab.expect_that(&fact, format!("{times:.0}"), &grows, times > most as f64 / 500.0);
    let selects = (one.iter().find(|row| row.watched == 1_000), few.select);
    if let (Some(Row { select: Some(many), .. }), Some(few)) = selects {
        let times = ratio(*many, few);
        let fact = "select of 1,000 as many times select of 10";
        lab.expect_that(fact, format!("{times:.0}"), "more than 2", times > 2.0);
    }
    let times = ratio(many.epoll, few.epoll);
    let fact = format!("epoll of {} as many times epoll of 10", grouped(most as f64));
    lab.expect_that(&fact, format!("{times:.1}"), "less than 5", times < 5.0);

    lab.note(
        "All are ready. Now epoll, too, has something to say of each, and finds out whether it \
         is still ready, where poll has only filled in an array.",
    );
    let all = rows(&counts, &fds, |watched| 0..watched)?;
    chart(lab, "all ready", &all);
    let ahead = ratio(many.poll, many.epoll);
    let last = &all[all.len() - 1];
    let ahead_all = ratio(last.poll, last.epoll);
    let fact = "one ready: poll as many times epoll";
    lab.expect_that(fact, format!("{ahead:.0}"), "more than 10", ahead > 10.0);
    let fact = "all ready: poll as many times epoll";
    let shrunk = ahead_all < ahead / 10.0;
    lab.expect_that(fact, format!("{ahead_all:.1}"), "less than a tenth of that", shrunk);
    Ok(())
}

/// Measures each way with so many watched, of which those in the range are ready.
fn rows(
    counts: &[usize],
    fds: &[EventFd],
    ready: impl Fn(usize) -> std::ops::Range<usize>,
) -> Result<Vec<Row>, Trouble> {
    let mut rows = Vec::new();
    for &watched in counts {
        let (fds, ready) = (&fds[..watched], &fds[ready(watched)]);
        for fd in ready {
            fd.write(1)?;
        }
        rows.push(Row {
            watched,
            select: shortest(Select::new()?, fds, ready.len())?,
            poll: shortest(Poll::new()?, fds, ready.len())?.unwrap_or_default(),
            epoll: shortest(Epoll::with_batch(watched)?, fds, ready.len())?.unwrap_or_default(),
        });
        for fd in ready {
            fd.read()?;
        }
    }
    Ok(rows)
}

/// The shortest of some waits; none if the poller has no room for a descriptor.
fn shortest(
    mut poller: impl Poller,
    fds: &[EventFd],
    ready: usize,
) -> Result<Option<Duration>, Trouble> {
    for (token, fd) in (0..).zip(fds) {
        match poller.add(fd, Token(token), Interest::READ) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => return Ok(None),
            result => result?,
        }
    }
    let mut shortest = Duration::MAX;
    let mut events = Vec::new();
    for _ in 0..TRIES {
        let start = Instant::now();
        poller.wait(&mut events, None)?;
        shortest = shortest.min(start.elapsed());
        if events.len() != ready {
            return Err(Trouble::Failed(format!("{} events, not {ready}", events.len())));
        }
    }
    Ok(Some(shortest))
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(1e-9)
}

/// Shows the times with bars: each ten times as long is nine characters more.
fn chart(lab: &mut Lab, what: &str, rows: &[Row]) {
    let mut lines = vec![" watched           a wait (us)".to_owned()];
    for Row { watched, select, poll, epoll } in rows {
        let mut watched = grouped(*watched as f64);
        for (name, time) in [("select", *select), ("poll", Some(*poll)), ("epoll", Some(*epoll))] {
            let shown = match time.map(|time| time.as_secs_f64() * 1e6) {
                Some(us) => {
                    let length = ((us * 10.0).log10() * 9.0).round().max(1.0) as usize;
                    format!("{us:>9.1}  {}", "#".repeat(length))
                }
                None => "        -  (they do not fit an fd_set)".to_owned(),
            };
            lines.push(format!("{watched:>8}  {name:<6} {shown}"));
            watched.clear();
        }
    }
    lab.kernel(&format!("{what}, the shortest of {TRIES} waits"), lines);
}
