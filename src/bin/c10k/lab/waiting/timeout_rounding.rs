//! The time-out of a wait, in whole milliseconds.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use c10k::poller::{self, Poller};
use c10k::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

use crate::lab::calls::errno;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "timeout-rounding",
    claim: "epoll_wait counts in milliseconds, to which a program has to round up: for 0.1 ms it \
            sleeps 1 ms. epoll_pwait2 does not need that. To cut off instead of rounding up would \
            spin.",
    run,
};

/// How often each is tried. A machine that is busy only makes waits longer: the shortest tells.
const TRIES: usize = 20;
const SHORT: Duration = Duration::from_micros(100);
/// When a timer is due that is not a whole number of milliseconds away.
const DUE: Duration = Duration::from_micros(2_900);

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "Nothing is watched: a wait ends with its time-out. The shortest that epoll_wait can be \
         asked for, but for none at all, is 1 ms; this crate's poller rounds 0.1 ms up to it.",
    );
    let epoll = lab.epoll("epoll")?;
    let mut poller = poller::Epoll::new()?;
    let mut events = Vec::new();
    let rounded = shortest(|| Ok(poller.wait(&mut events, Some(SHORT))?))?;
    shown(lab, "epoll_wait(..., 1)", rounded);
    lab.expect_that("0.1 ms, rounded up (ms)", ms(rounded), "at least 1", rounded.as_millis() >= 1);

    lab.note(
        "epoll_pwait2 takes nanoseconds (Linux 5.11). What it sleeps beyond the time-out is the \
         timer slack, 0.05 ms for most threads, and the way back to the CPU.",
    );
    let mut nothing = [libc::epoll_event { events: 0, u64: 0 }];
    let mut pwait2 = || sys::epoll_pwait2(epoll.0.as_fd(), &mut nothing, SHORT);
    if pwait2().is_err_and(|error| errno(&error) == Errno::ENOSYS) {
        return Err(Trouble::Skipped("needs epoll_pwait2, which Linux has since 5.11".to_owned()));
    }
    let exact = shortest(|| Ok(pwait2().map(drop)?))?;
    shown(lab, "epoll_pwait2(..., {0, 100000}, NULL)", exact);
    let holds = exact >= SHORT && exact < Duration::from_micros(900);
    lab.expect_that("0.1 ms, in nanoseconds (ms)", ms(exact), "0.1 to 0.9", holds);

    lab.note(
        "A loop whose next timer is due in 2.9 ms. If it cuts that off to 2 ms it wakes early: \
         the timer is not due, what is left is cut off to 0, and it asks until it is due.",
    );
    let cut_off = |left: Duration| left.as_millis() as i32;
    let spun = waits(&epoll, cut_off)?;
    let calls = spun.iter().max().copied().unwrap_or_default();
    lab.called("epoll_wait(..., 2), epoll_wait(..., 0), ...".to_owned(), format!("{calls} calls"));
    lab.expect_that("cut off: calls until it is due", calls, "more than 10", calls > 10);

    lab.note("Rounded up, it wakes once, when the timer is due, and up to 1 ms later.");
    let round_up = |left: Duration| left.as_micros().div_ceil(1000) as i32;
    let slept = waits(&epoll, round_up)?;
    let calls = slept.iter().max().copied().unwrap_or_default();
    lab.called("epoll_wait(..., 3)".to_owned(), format!("{calls} call"));
    lab.expect("rounded up: calls until it is due", calls, 1);
    Ok(())
}

/// The shortest of some waits.
fn shortest(mut wait: impl FnMut() -> Result<(), Trouble>) -> Result<Duration, Trouble> {
    let mut shortest = Duration::MAX;
    for _ in 0..TRIES {
        let start = Instant::now();
        wait()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest)
}

/// How many waits it took, in each try, until a timer was due.
fn waits(epoll: &Epoll, in_ms: impl Fn(Duration) -> i32) -> Result<[usize; TRIES], Trouble> {
    let mut calls = [0; TRIES];
    for calls in &mut calls {
        let due = Instant::now() + DUE;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::try_from(in_ms(left))?)?;
            *calls += 1;
        }
    }
    Ok(calls)
}

fn shown(lab: &mut Lab, call: &str, shortest: Duration) {
    let result = format!("0, after {} ms, the shortest of {TRIES}", ms(shortest));
    lab.called(call.to_owned(), result);
}

fn ms(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}
