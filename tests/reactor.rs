//! The reactor's sources: events, stale events, slots, and asking again.

mod support {
    pub(crate) mod scripted;
}

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use c10k::poller::{Epoll, Interest, Poller, Readiness, Token};
use c10k::reactor::Turns;
use c10k::{Reactor, sys};

use support::scripted::{Scripted, Told, any_fd, poll, quiet, scripted, tape, turn_until};

type Real = Reactor<OwnedFd>;
type Fake = Reactor<OwnedFd, Scripted>;

const IN: Readiness = Readiness::IN;

/// The part of a token that names the slot.
fn slot(token: Token) -> u32 {
    token.0 as u32
}

fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client.into(), listener.accept().unwrap().0.into())
}

fn unix_pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = UnixStream::pair().unwrap();
    (a.into(), b.into())
}

fn send(to: &OwnedFd, bytes: &[u8]) {
    use std::os::fd::AsFd;
    assert_eq!(sys::send(to.as_fd(), bytes).unwrap(), bytes.len());
}

fn receive_all<P: Poller>(reactor: &Reactor<OwnedFd, P>, token: Token) -> usize {
    use std::os::fd::AsFd;
    match sys::recv(reactor.source(token).unwrap().as_fd(), &mut [0; 1024]).unwrap() {
        sys::Recv::Data(n) => n,
        other => panic!("{other:?}"),
    }
}

/// What it has counted, but for what depends on how busy the machine is.
fn counts<P: Poller>(reactor: &Reactor<OwnedFd, P>) -> Turns {
    Turns { slow: 0, ..reactor.counts() }
}

// ---- Stale events ----

#[test]
fn an_event_for_a_source_closed_earlier_in_the_batch_is_dropped() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    let b = reactor.add(any_fd(), Interest::READ).unwrap();
    let c = reactor.add(any_fd(), Interest::READ).unwrap();
    script.batch(&[(a, IN), (b, IN), (b, Readiness::OUT), (c, IN)]);
    let mut tape = tape(|reactor: &mut Fake, told| {
        if told == Told::Ready(a, IN) {
            assert!(reactor.close(b));
        }
    });
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, [Told::Ready(a, IN), Told::Ready(c, IN)]);
    assert_eq!(counts(&reactor), Turns { turns: 1, events: 4, stale: 2, ..Turns::default() });
}

#[test]
fn a_newcomer_in_the_slot_does_not_get_the_event() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    let b = reactor.add(any_fd(), Interest::READ).unwrap();
    script.batch(&[(a, IN), (b, IN)]);
    let mut newcomer = None;
    let mut tape = tape(|reactor: &mut Fake, told| {
        if told == Told::Ready(a, IN) {
            reactor.close(b);
            newcomer = Some(reactor.add(any_fd(), Interest::READ).unwrap());
        }
    });
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, [Told::Ready(a, IN)]);
    assert_eq!(reactor.counts().stale, 1);
    let newcomer = newcomer.expect("a was told");
    assert_eq!(slot(newcomer), slot(b), "or this test shows nothing");
    assert_ne!(newcomer, b);
    assert!(reactor.source(newcomer).is_some() && reactor.source(b).is_none());
}

#[test]
fn a_source_may_close_itself_and_others_what_was_removed() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    let b = reactor.add(any_fd(), Interest::READ).unwrap();
    script.batch(&[(a, IN), (a, Readiness::HUP), (b, IN)]);
    let mut kept = None;
    let mut tape = tape(|reactor: &mut Fake, told| {
        if told == Told::Ready(a, IN) {
            kept = reactor.remove(b);
            assert!(reactor.close(a));
        }
    });
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, [Told::Ready(a, IN)]);
    assert_eq!(reactor.counts().stale, 2);
    assert!(kept.is_some() && reactor.is_empty());
}

/// The same with epoll and sockets: both are ready, whichever comes first closes the other, and
/// another that is ready too takes its slot.
#[test]
fn a_newcomer_does_not_get_the_event_from_epoll() {
    for pair in [tcp_pair, unix_pair] {
        let mut reactor = Real::new().unwrap();
        let (peers, sources): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        peers.iter().for_each(|peer| send(peer, b"x"));
        let mut sources = sources.into_iter();
        let edge = Interest::READ | Interest::EDGE;
        let [a, b] = [(); 2].map(|()| reactor.add(sources.next().unwrap(), edge).unwrap());
        let mut newcomer = None;
        let mut tape = tape(|reactor: &mut Real, told| {
            let Told::Ready(first, _) = told else { panic!("{told:?}") };
            if newcomer.is_none() {
                assert!(reactor.close(if first == a { b } else { a }));
                newcomer = Some(reactor.add(sources.next().unwrap(), edge).unwrap());
            }
        });
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told.len(), 1, "{:?}", tape.told);
        assert_eq!(counts(&reactor), Turns { turns: 1, events: 2, stale: 1, ..Turns::default() });
        turn_until(&mut reactor, &mut tape, 2);
        let told = tape.take();
        let newcomer = newcomer.unwrap();
        assert_eq!(told[1], Told::Ready(newcomer, IN), "its own event, in the next turn");
        assert!([a, b].iter().any(|&old| slot(old) == slot(newcomer)));
    }
}

// ---- Slots ----

#[test]
fn a_token_is_not_used_twice() {
    let mut reactor = Real::new().unwrap();
    let mut old = Vec::new();
    for _ in 0..100 {
        let token = reactor.add(any_fd(), Interest::READ).unwrap();
        assert!(!old.contains(&token));
        assert_eq!(reactor.tokens().collect::<Vec<_>>(), [token]);
        assert!(reactor.close(token));
        old.push(token);
    }
    let last = reactor.add(any_fd(), Interest::READ).unwrap();
    assert_eq!(reactor.len(), 1);
    for token in old {
        assert_eq!(slot(token), slot(last), "or this test shows nothing");
        assert!(reactor.source(token).is_none() && reactor.source_mut(token).is_none());
        assert!(!reactor.close(token) && reactor.remove(token).is_none());
        reactor.set_deadline(token, reactor.now());
        reactor.clear_deadline(token);
        for result in [
            reactor.modify(token, Interest::READ),
            reactor.pause(token),
            reactor.resume(token, Interest::READ),
        ] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
    }
    assert!(reactor.source(last).is_some());
    assert!(format!("{reactor:?}").contains("sources: 1, timers: 0"), "{reactor:?}");
}

#[test]
fn a_source_that_cannot_be_watched_leaves_nothing_behind() {
    let mut reactor = Real::new().unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let error = reactor.add(file.into(), Interest::READ).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert!(reactor.is_empty());
    reactor.add(any_fd(), Interest::READ).unwrap();
}

#[test]
fn a_poller_that_does_not_forget_is_told_of_each_close() {
    let (mut reactor, script) = scripted();
    let [a, b] = [(); 2].map(|()| reactor.add(any_fd(), Interest::READ).unwrap());
    reactor.close(a);
    reactor.close(a);
    reactor.remove(b);
    // The first two are the waker and the alarm.
    assert_eq!(script.script().calls, ["add", "add", "add", "add", "delete", "delete"]);
}

// ---- Readiness ----

#[test]
fn every_combination_is_delivered_as_it_is() {
    let bits =
        [IN, Readiness::OUT, Readiness::RDHUP, Readiness::HUP, Readiness::ERR, Readiness::NONE];
    let (mut reactor, script) = scripted();
    let token = reactor.add(any_fd(), Interest::READ).unwrap();
    let masks: Vec<Readiness> = (0..32)
        .map(|set| {
            let chosen = (0..5).filter(|i| set >> i & 1 == 1).map(|i| bits[i]);
            chosen.fold(Readiness::NONE, |all, bit| all | bit)
        })
        .collect();
    let mut tape = quiet();
    for &mask in &masks {
        script.batch(&[(token, mask)]);
        poll(&mut reactor, &mut tape);
    }
    let want: Vec<Told> = masks.iter().map(|&mask| Told::Ready(token, mask)).collect();
    assert_eq!(tape.told, want);
    assert_eq!(counts(&reactor), Turns { turns: 32, events: 32, stale: 0, ..Turns::default() });
}

// ---- Again ----

#[test]
fn again_is_the_next_turn_and_once_for_each_ask() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    let b = reactor.add(any_fd(), Interest::READ).unwrap();
    let mut asks = 2;
    let mut tape = tape(|reactor: &mut Fake, told| {
        if matches!(told, Told::Ready(token, _) if token == a) && asks > 0 {
            asks -= 1;
            reactor.again(a);
        }
    });
    let again = Told::Ready(a, Readiness::NONE);
    for (batch, want) in [
        (&[(a, IN)][..], &[Told::Ready(a, IN)][..]),
        // What the kernel reports comes first.
        (&[(b, IN)], &[Told::Ready(b, IN), again]),
        (&[(b, IN)], &[Told::Ready(b, IN), again]),
        (&[], &[]),
    ] {
        script.batch(batch);
        reactor.turn(&mut tape, None).unwrap();
        assert_eq!(tape.take(), want);
    }
    let zero = Some(Duration::ZERO);
    assert_eq!(script.script().timeouts, [None, zero, zero, None], "it must not sleep over it");
}

#[test]
fn again_for_a_source_that_is_gone_is_dropped() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    reactor.again(a);
    reactor.close(a);
    let newcomer = reactor.add(any_fd(), Interest::READ).unwrap();
    assert_eq!(slot(newcomer), slot(a));
    reactor.again(a);
    script.batch(&[]);
    let mut tape = quiet();
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, []);

    // Closed within the turn that would call it again.
    reactor.again(newcomer);
    script.batch(&[(newcomer, IN)]);
    let mut closing = support::scripted::tape(|reactor: &mut Fake, _| {
        assert!(reactor.close(newcomer));
    });
    poll(&mut reactor, &mut closing);
    assert_eq!(closing.told, [Told::Ready(newcomer, IN)]);
}

// ---- Pause, resume, modify, remove ----

#[test]
fn a_paused_source_gets_no_events_until_it_is_resumed() {
    for interest in [Interest::READ, Interest::READ | Interest::EDGE] {
        let mut reactor = Real::new().unwrap();
        let (peer, source) = unix_pair();
        let token = reactor.add(source, interest).unwrap();
        let mut tape = quiet();
        reactor.pause(token).unwrap();
        send(&peer, b"x");
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told, []);
        assert!(reactor.source(token).is_some());
        let paused_twice = reactor.pause(token).unwrap_err();
        assert_eq!(paused_twice.raw_os_error(), Some(libc::ENOENT));

        reactor.resume(token, interest).unwrap();
        turn_until(&mut reactor, &mut tape, 1);
        assert_eq!(tape.take(), [Told::Ready(token, IN)], "what came meanwhile");
        assert_eq!(receive_all(&reactor, token), 1);
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told, []);
    }
}

#[test]
fn a_removed_source_stays_open() {
    for paused in [false, true] {
        let mut reactor = Real::new().unwrap();
        let (peer, source) = unix_pair();
        let token = reactor.add(source, Interest::READ).unwrap();
        if paused {
            reactor.pause(token).unwrap();
        }
        let source = reactor.remove(token).expect("it was there");
        let mut tape = quiet();
        send(&peer, b"x");
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.told, []);
        // It still works, and can be put back.
        send(&source, b"y");
        let back = reactor.add(source, Interest::READ).unwrap();
        assert_ne!(back, token);
        turn_until(&mut reactor, &mut tape, 1);
        assert_eq!(tape.told, [Told::Ready(back, IN)]);
    }
}

#[test]
fn modify_changes_what_is_reported() {
    let mut reactor = Real::new().unwrap();
    let (peer, source) = unix_pair();
    let token = reactor.add(source, Interest::READ).unwrap();
    let mut tape = quiet();
    poll(&mut reactor, &mut tape);
    reactor.modify(token, Interest::WRITE).unwrap();
    send(&peer, b"x");
    poll(&mut reactor, &mut tape);
    reactor.modify(token, Interest::READ | Interest::WRITE).unwrap();
    poll(&mut reactor, &mut tape);
    reactor.modify(token, Interest::NONE).unwrap();
    poll(&mut reactor, &mut tape);
    let both = IN | Readiness::OUT;
    assert_eq!(tape.take(), [Told::Ready(token, Readiness::OUT), Told::Ready(token, both)]);
    // Level triggering repeats itself, edge triggering does not, one-shot waits for a modify.
    for (interest, turns) in [
        (Interest::READ, 3),
        (Interest::READ | Interest::EDGE, 1),
        (Interest::READ | Interest::ONESHOT, 1),
    ] {
        reactor.modify(token, interest).unwrap();
        (0..3).for_each(|_| poll(&mut reactor, &mut tape));
        assert_eq!(tape.take().len(), turns, "{interest:?}");
    }
}

#[test]
fn a_source_may_be_anything_with_a_descriptor() {
    let mut reactor = Reactor::<std::io::PipeReader>::new().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let token = reactor.add(reader, Interest::READ).unwrap();
    let mut tape = quiet();
    writer.write_all(b"x").unwrap();
    turn_until(&mut reactor, &mut tape, 1);
    assert_eq!(tape.take(), [Told::Ready(token, IN)]);
    drop(writer);
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, [Told::Ready(token, IN | Readiness::HUP)]);

    let eventfd = nix::sys::eventfd::EventFd::from_value(1).unwrap();
    let mut reactor = Reactor::<nix::sys::eventfd::EventFd, Epoll>::new().unwrap();
    let token = reactor.add(eventfd, Interest::READ).unwrap();
    let mut tape = quiet();
    poll(&mut reactor, &mut tape);
    assert_eq!(reactor.source(token).unwrap().read().unwrap(), 1);
    poll(&mut reactor, &mut tape);
    assert_eq!(tape.told, [Told::Ready(token, IN)]);
}

// ---- Waking and stopping ----

#[test]
fn another_thread_wakes_a_loop_that_sleeps() {
    let mut reactor = Real::new().unwrap();
    let waker = reactor.waker();
    let mut tape = tape(|reactor: &mut Real, _| reactor.stop());
    thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        reactor.run(&mut tape).unwrap();
    });
    assert_eq!(tape.told, [Told::Woken]);
}

#[test]
fn many_wakes_are_one() {
    let mut reactor = Real::new().unwrap();
    let waker = reactor.waker();
    (0..1000).for_each(|_| waker.clone().wake());
    let mut first = true;
    let mut tape = tape(|reactor: &mut Real, _| {
        // Its own wake is for the next turn.
        if std::mem::take(&mut first) {
            reactor.waker().wake();
        }
    });
    for want in [&[Told::Woken][..], &[Told::Woken], &[]] {
        poll(&mut reactor, &mut tape);
        assert_eq!(tape.take(), want);
    }
    assert_eq!(reactor.counts().stale, 0);
    drop(reactor);
    waker.wake();
}

#[test]
fn stop_ends_the_run_after_the_turn() {
    let (mut reactor, script) = scripted();
    let [a, b] = [(); 2].map(|()| reactor.add(any_fd(), Interest::READ).unwrap());
    script.batch(&[(a, IN), (b, IN)]);
    let mut tape = tape(|reactor: &mut Fake, _| reactor.stop());
    reactor.run(&mut tape).unwrap();
    assert_eq!(tape.take(), [Told::Ready(a, IN), Told::Ready(b, IN)], "the turn is finished");
    // Stopped before it runs, it takes no turn at all; and that stop is used up then.
    reactor.stop();
    reactor.run(&mut tape).unwrap();
    assert_eq!(reactor.counts().turns, 1);
    script.batch(&[(a, IN)]);
    reactor.run(&mut tape).unwrap();
    assert_eq!(reactor.counts().turns, 2);
}

// ---- Slow turns ----

#[test]
fn a_handler_that_sleeps_makes_a_slow_turn() {
    let (mut reactor, script) = scripted();
    let a = reactor.add(any_fd(), Interest::READ).unwrap();
    let mut tape = tape(|_: &mut Fake, _| thread::sleep(Duration::from_millis(101)));
    for _ in 0..2 {
        script.batch(&[(a, IN)]);
        poll(&mut reactor, &mut tape);
    }
    assert_eq!(reactor.counts().slow, 2);
}
