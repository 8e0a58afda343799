//! The reactor's deadlines and timers. Nothing here depends on how long anything takes, but that
//! nothing may come early.

mod support {
    pub(crate) mod scripted;
}

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use c10k::poller::{Epoll, Interest, Poll, Poller, Readiness, Select, Token};
use c10k::{Reactor, TimerId};

use support::scripted::{Scripted, Told, any_fd, poll, quiet, scripted, tape, turn_until};

type Real = Reactor<OwnedFd>;
type Fake = Reactor<OwnedFd, Scripted>;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Centuries.
const FOREVER: Duration = ms(1_000 * 86_400 * 365 * 500);

fn source(reactor: &mut Real) -> Token {
    reactor.add(any_fd(), Interest::READ).unwrap()
}

fn has_no_timers(reactor: &Real) -> bool {
    format!("{reactor:?}").contains("timers: 0,")
}

// ---- Deadlines ----

#[test]
fn deadlines_come_in_their_order_and_never_early() {
    let mut reactor = Real::new().unwrap();
    let begin = Instant::now();
    let mut wanted: Vec<(Instant, Token)> = Vec::new();
    for delay in [30, 10, 0, 20, 70, 1, 65, 10] {
        let at = begin + ms(delay);
        let token = source(&mut reactor);
        reactor.set_deadline(token, at);
        wanted.push((at, token));
    }
    // Stable: of two at one time, the one that was set first.
    wanted.sort_by_key(|(at, _)| *at);
    let due = wanted.clone();
    let mut tape = tape(|reactor: &mut Real, told| {
        let Told::Deadline(token) = told else { panic!("{told:?}") };
        let (at, _) = due.iter().find(|(_, of)| *of == token).unwrap();
        assert!(reactor.now() >= *at && Instant::now() >= *at, "early");
        reactor.clear_deadline(token); // it is unset by now, and this does no harm
    });
    turn_until(&mut reactor, &mut tape, wanted.len());
    let want: Vec<Told> = wanted.iter().map(|(_, token)| Told::Deadline(*token)).collect();
    assert_eq!(tape.told, want);
    assert!(has_no_timers(&reactor));
}

/// Not even by the fraction of a tick, where turns follow each other without a wait.
#[test]
fn ticks_round_up() {
    let (mut reactor, script) = scripted();
    for fraction in 1..=20 {
        let at = Instant::now() + ms(1) + Duration::from_micros(50 * fraction);
        reactor.set_timer(at);
        let mut tape = tape(|reactor: &mut Fake, _| assert!(reactor.now() >= at, "early"));
        while tape.told.is_empty() {
            script.batch(&[]);
            poll(&mut reactor, &mut tape);
        }
    }
}

#[test]
fn a_source_has_one_deadline() {
    let mut reactor = Real::new().unwrap();
    let [sooner, later] = [(); 2].map(|()| source(&mut reactor));
    let begin = Instant::now();
    reactor.set_deadline(sooner, begin + FOREVER);
    reactor.set_deadline(sooner, begin + ms(1));
    reactor.set_deadline(later, begin + ms(1));
    reactor.set_deadline(later, begin + ms(20));
    let mut tape = tape(|reactor: &mut Real, told| {
        assert!(told != Told::Deadline(later) || reactor.now() >= begin + ms(20));
    });
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told, [Told::Deadline(sooner), Told::Deadline(later)]);
    assert!(has_no_timers(&reactor));
}

/// After what was called off would have come, something else does: only then is its silence
/// worth anything.
#[test]
fn what_was_called_off_does_not_come() {
    let mut reactor = Real::new().unwrap();
    let [cleared, closed, removed, paused] = [(); 4].map(|()| source(&mut reactor));
    let begin = Instant::now();
    for token in [cleared, closed, removed, paused] {
        reactor.set_deadline(token, begin + ms(3));
    }
    let timer = reactor.set_timer(begin + ms(3));
    let last = reactor.set_timer(begin + ms(10));
    reactor.clear_deadline(cleared);
    reactor.clear_deadline(cleared);
    assert!(reactor.close(closed));
    assert!(reactor.remove(removed).is_some());
    assert!(reactor.cancel_timer(timer));
    reactor.pause(paused).unwrap(); // a pause does not touch it
    let newcomer = source(&mut reactor);
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told, [Told::Deadline(paused), Told::Timer(last)]);
    assert!(has_no_timers(&reactor) && reactor.source(newcomer).is_some());
}

/// Two are due in one turn, and the first calls the second off.
#[test]
fn a_deadline_may_call_off_the_next() {
    let mut reactor = Real::new().unwrap();
    let [a, b, c] = [(); 3].map(|()| source(&mut reactor));
    let at = Instant::now();
    [a, b, c].iter().for_each(|&token| reactor.set_deadline(token, at));
    let timer = reactor.set_timer(at);
    let mut tape = tape(|reactor: &mut Real, told| {
        if told == Told::Deadline(a) {
            assert!(reactor.close(a) && reactor.close(b) && reactor.cancel_timer(timer));
        }
    });
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told, [Told::Deadline(a), Told::Deadline(c)]);
    assert!(has_no_timers(&reactor));
}

#[test]
fn a_time_that_has_passed_comes_at_once() {
    let long_ago = Instant::now();
    let mut reactor = Real::new().unwrap();
    let token = source(&mut reactor);
    reactor.set_deadline(token, long_ago);
    let timer = reactor.set_timer(long_ago.checked_sub(ms(500)).unwrap_or(long_ago));
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 2);
    assert_eq!(tape.told, [Told::Deadline(token), Told::Timer(timer)]);
}

// ---- Timers ----

#[test]
fn a_timer_can_be_cancelled_until_it_expires() {
    let mut reactor = Real::new().unwrap();
    let now = Instant::now();
    let far = reactor.set_timer(now + FOREVER);
    let near = reactor.set_timer(now);
    let mut cancelled_itself = None;
    let mut tape = tape(|reactor: &mut Real, told| {
        let Told::Timer(timer) = told else { panic!("{told:?}") };
        cancelled_itself = Some(reactor.cancel_timer(timer));
    });
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told, [Told::Timer(near)]);
    assert_eq!(cancelled_itself, Some(false), "it is too late for that");
    assert!(!reactor.cancel_timer(near));
    assert!(reactor.cancel_timer(far));
    assert!(!reactor.cancel_timer(far), "it is cancelled already");
    assert!(has_no_timers(&reactor));
}

/// Inside, the next timer gets the place of the last: an old name must not reach it.
#[test]
fn the_name_of_an_old_timer_reaches_no_other() {
    let mut reactor = Real::new().unwrap();
    let mut old: Vec<TimerId> = Vec::new();
    for _ in 0..10 {
        let timer = reactor.set_timer(Instant::now() + FOREVER);
        assert!(old.iter().all(|old| *old != timer && !reactor.cancel_timer(*old)));
        old.push(timer);
        assert!(reactor.cancel_timer(timer));
    }
    let token = source(&mut reactor);
    reactor.set_deadline(token, Instant::now());
    assert!(old.iter().all(|old| !reactor.cancel_timer(*old)));
    let mut tape = quiet();
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told, [Told::Deadline(token)]);
}

/// A handler that sets each time another timer for now must not keep the turn from ending.
#[test]
fn a_timer_for_now_is_for_another_turn() {
    let mut reactor = Real::new().unwrap();
    let timer = reactor.set_timer(Instant::now());
    let token = source(&mut reactor);
    reactor.set_deadline(token, Instant::now());
    let mut tape = tape(|reactor: &mut Real, told| match told {
        Told::Timer(_) => drop(reactor.set_timer(reactor.now())),
        _ => reactor.set_deadline(token, Instant::now()),
    });
    let (mut most, mut idle) = (0, 0);
    for _ in 0..10 {
        reactor.turn(&mut tape, None).unwrap();
        let told = tape.take().len();
        most = most.max(told);
        idle += usize::from(told == 0);
    }
    // Each once; and once more where now is the very tick that it is rounded up to.
    assert!((1..=4).contains(&most), "{most} in one turn");
    assert!(!reactor.cancel_timer(timer));
    // Nor may it poll until the time has come; but it may look early, to move a timer to a finer
    // wheel.
    assert!(idle <= 2, "{idle} turns for nothing");
}

// ---- How long it sleeps ----

#[test]
fn it_sleeps_as_long_as_it_may() {
    let (mut reactor, script) = scripted();
    let mut tape = quiet();
    let mut slept = |reactor: &mut Fake, max| {
        script.batch(&[]);
        reactor.turn(&mut tape, max).unwrap();
        *script.script().timeouts.last().unwrap()
    };
    reactor.set_timer(Instant::now() + Duration::from_secs(3600));
    assert_eq!(slept(&mut reactor, None), None);
    assert_eq!(slept(&mut reactor, Some(ms(5))), Some(ms(5)));
}

/// With pollers that tell of what is ready for as long as it is.
fn an_alarm_wakes_once<P: Poller>() {
    let mut reactor = Reactor::<OwnedFd, P>::with_poller(P::new().unwrap()).unwrap();
    let mut tape = quiet();
    for _ in 0..2 {
        reactor.set_timer(Instant::now() + ms(2));
        while tape.take().is_empty() {
            reactor.turn(&mut tape, None).unwrap();
        }
    }
    // Also if the timer was cancelled that it was set for.
    let timer = reactor.set_timer(Instant::now() + ms(50));
    reactor.turn(&mut tape, Some(Duration::ZERO)).unwrap();
    assert!(reactor.cancel_timer(timer));
    reactor.turn(&mut tape, Some(ms(200))).unwrap();
    let before = reactor.counts();
    assert!(before.events >= 3, "one for each at least");
    for _ in 0..3 {
        reactor.turn(&mut tape, Some(ms(1))).unwrap();
    }
    assert_eq!(reactor.counts().events, before.events);
    assert_eq!(tape.told, []);
}

#[test]
fn an_alarm_wakes_once_with_each_poller() {
    an_alarm_wakes_once::<Epoll>();
    an_alarm_wakes_once::<Poll>();
    an_alarm_wakes_once::<Select>();
}

#[test]
fn centuries_do_not_overflow() {
    // As far as an `Instant` goes, or nearly.
    let mut end_of_time = Instant::now();
    for bit in (0..63).rev() {
        end_of_time = end_of_time.checked_add(Duration::from_secs(1 << bit)).unwrap_or(end_of_time);
    }
    let mut reactor = Real::new().unwrap();
    let token = source(&mut reactor);
    let mut tape = quiet();
    for at in [Instant::now() + FOREVER, end_of_time] {
        reactor.set_deadline(token, at);
        let timer = reactor.set_timer(at);
        // With epoll, whose own time-outs are of 24 days at most.
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told, []);
        assert!(reactor.cancel_timer(timer));
    }
    reactor.set_deadline(token, Instant::now() + ms(1));
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.told, [Told::Deadline(token)]);
}

#[test]
fn a_turn_tells_events_first_and_then_times() {
    let (mut reactor, script) = scripted();
    let token = reactor.add(any_fd(), Interest::READ).unwrap();
    reactor.set_deadline(token, Instant::now());
    let mut tape = quiet();
    // There is an event in each turn, also in that in which the time has come.
    while !tape.told.contains(&Told::Deadline(token)) {
        tape.take();
        script.batch(&[(token, Readiness::IN)]);
        reactor.turn(&mut tape, None).unwrap();
    }
    assert_eq!(tape.told, [Told::Ready(token, Readiness::IN), Told::Deadline(token)]);
}
