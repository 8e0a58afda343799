//! One suite for the three pollers: the contract of `Poller`, and what only some of them can do.

#[path = "common/machine.rs"]
#[allow(dead_code)]
mod machine;

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use c10k::poller::{Epoll, Event, Interest, Poll, Poller, Readiness, Select, Token};

/// Runs a test for each of them; the name is in the failure's backtrace.
macro_rules! for_each_poller {
    ($($test:ident),* $(,)?) => {
        mod epoll { $(#[test] fn $test() { super::$test::<super::Epoll>(); })* }
        mod poll { $(#[test] fn $test() { super::$test::<super::Poll>(); })* }
        mod select { $(#[test] fn $test() { super::$test::<super::Select>(); })* }
    };
}

for_each_poller!(
    readable_until_read,
    writable_until_full,
    both_at_once,
    nothing_when_nothing_is_asked,
    modified_interest_and_token,
    deleted_is_not_reported,
    what_the_contract_refuses,
    many_come_and_go,
    a_hang_up_is_told_and_does_not_hide_data,
    time_outs,
    a_descriptor_number_is_used_again,
    closed_elsewhere,
);

fn ready<P: Poller>(poller: &mut P) -> Vec<Event> {
    let mut events = Vec::new();
    poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
    events.sort_by_key(|event| event.token);
    events
}

fn tokens<P: Poller>(poller: &mut P) -> Vec<u64> {
    ready(poller).iter().map(|event| event.token.0).collect()
}

fn pipe() -> (PipeReader, PipeWriter) {
    io::pipe().expect("a pipe")
}

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().expect("a socket pair");
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

fn errno(result: io::Result<()>) -> Option<i32> {
    result.expect_err("it should be refused").raw_os_error()
}

fn readable_until_read<P: Poller>() {
    let (mut reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(&reader, Token(u64::MAX), Interest::READ).unwrap();
    assert!(tokens(&mut poller).is_empty());
    writer.write_all(b"xy").unwrap();
    // Level triggering: as often as one looks.
    for _ in 0..3 {
        let events = ready(&mut poller);
        assert_eq!(events, [Event { token: Token(u64::MAX), readiness: Readiness::IN }]);
    }
    reader.read_exact(&mut [0; 2]).unwrap();
    assert!(tokens(&mut poller).is_empty());
}

fn writable_until_full<P: Poller>() {
    let (mut a, _b) = pair();
    let mut poller = P::new().unwrap();
    poller.add(&a, Token(1), Interest::WRITE).unwrap();
    assert_eq!(ready(&mut poller)[0].readiness, Readiness::OUT);
    while a.write(&[0; 4096]).is_ok() {}
    assert!(tokens(&mut poller).is_empty());
}

fn both_at_once<P: Poller>() {
    let (a, mut b) = pair();
    let mut poller = P::new().unwrap();
    poller.add(&a, Token(1), Interest::READ | Interest::WRITE).unwrap();
    b.write_all(b"x").unwrap();
    let events = ready(&mut poller);
    assert_eq!(events.len(), 1, "one event for each descriptor: {events:?}");
    assert_eq!(events[0].readiness, Readiness::IN | Readiness::OUT);
}

fn nothing_when_nothing_is_asked<P: Poller>() {
    let (a, mut b) = pair();
    let mut poller = P::new().unwrap();
    poller.add(&a, Token(1), Interest::NONE).unwrap();
    b.write_all(b"x").unwrap();
    assert!(tokens(&mut poller).is_empty());
}

fn modified_interest_and_token<P: Poller>() {
    let (a, mut b) = pair();
    let mut poller = P::new().unwrap();
    b.write_all(b"x").unwrap();
    poller.add(&a, Token(1), Interest::READ).unwrap();
    assert_eq!(tokens(&mut poller), [1]);
    poller.modify(&a, Token(2), Interest::WRITE).unwrap();
    assert_eq!(ready(&mut poller), [Event { token: Token(2), readiness: Readiness::OUT }]);
    poller.modify(&a, Token(3), Interest::NONE).unwrap();
    assert!(tokens(&mut poller).is_empty());
    poller.modify(&a, Token(4), Interest::READ).unwrap();
    assert_eq!(tokens(&mut poller), [4]);
}

fn deleted_is_not_reported<P: Poller>() {
    let (reader, mut writer) = pipe();
    let (other, mut other_writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(&reader, Token(1), Interest::READ).unwrap();
    poller.add(&other, Token(2), Interest::READ).unwrap();
    writer.write_all(b"x").unwrap();
    other_writer.write_all(b"x").unwrap();
    assert_eq!(tokens(&mut poller), [1, 2]);
    poller.delete(&reader).unwrap();
    assert_eq!(tokens(&mut poller), [2]);
    poller.add(&reader, Token(3), Interest::READ).unwrap();
    assert_eq!(tokens(&mut poller), [2, 3]);
}

fn what_the_contract_refuses<P: Poller>() {
    let (reader, _writer) = pipe();
    let mut poller = P::new().unwrap();
    assert_eq!(errno(poller.modify(&reader, Token(1), Interest::READ)), Some(libc::ENOENT));
    assert_eq!(errno(poller.delete(&reader)), Some(libc::ENOENT));
    poller.add(&reader, Token(1), Interest::READ).unwrap();
    assert_eq!(errno(poller.add(&reader, Token(2), Interest::READ)), Some(libc::EEXIST));
    poller.delete(&reader).unwrap();
    assert_eq!(errno(poller.delete(&reader)), Some(libc::ENOENT));
}

/// Against the obvious: a list of who is watched and has something to read.
fn many_come_and_go<P: Poller>() {
    let mut pipes: Vec<_> = (0..100).map(|_| pipe()).collect();
    let mut poller = P::new().unwrap();
    let mut watched = [false; 100];
    let mut full = [false; 100];
    let mut random = 7_u64;
    for _ in 0..2_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (random >> 33) as usize % 100;
        let (reader, writer) = &mut pipes[at];
        match random >> 60 {
            0..8 if watched[at] => {
                poller.delete(&*reader).unwrap();
                watched[at] = false;
            }
            0..8 => {
                poller.add(&*reader, Token(at as u64), Interest::READ).unwrap();
                watched[at] = true;
            }
            _ if full[at] => {
                reader.read_exact(&mut [0]).unwrap();
                full[at] = false;
            }
            _ => {
                writer.write_all(b"x").unwrap();
                full[at] = true;
            }
        }
        let want: Vec<u64> =
            (0..100).filter(|&at| watched[at] && full[at]).map(|at| at as u64).collect();
        assert_eq!(tokens(&mut poller), want);
    }
}

fn a_hang_up_is_told_and_does_not_hide_data<P: Poller>() {
    let (mut a, mut b) = pair();
    let mut poller = P::new().unwrap();
    poller.add(&a, Token(1), Interest::READ).unwrap();
    b.write_all(b"last").unwrap();
    drop(b);
    let events = ready(&mut poller);
    assert!(events[0].readiness.is_readable());
    let mut text = String::new();
    a.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last");
    // EOF is readable too, for as long as it is asked.
    assert!(ready(&mut poller)[0].readiness.is_readable());
}

fn time_outs<P: Poller>() {
    let (reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(&reader, Token(1), Interest::READ).unwrap();
    let mut events = vec![Event { token: Token(9), readiness: Readiness::IN }];
    let start = std::time::Instant::now();
    poller.wait(&mut events, Some(Duration::from_micros(1_500))).unwrap();
    assert!(events.is_empty(), "what was in the list is replaced");
    assert!(start.elapsed() >= Duration::from_micros(1_500), "never early");
    // An event ends a wait without a time-out.
    let writing = std::thread::spawn(move || {
        writer.write_all(b"x").unwrap();
        writer
    });
    poller.wait(&mut events, None).unwrap();
    assert_eq!(events[0].token, Token(1));
    drop(writing.join().unwrap());
}

fn a_descriptor_number_is_used_again<P: Poller>() {
    let mut poller = P::new().unwrap();
    let (reader, writer) = pipe();
    poller.add(&reader, Token(1), Interest::READ).unwrap();
    if !P::FORGETS_CLOSED {
        poller.delete(&reader).unwrap();
    }
    let number = reader.as_raw_fd();
    drop((reader, writer));
    // Other tests run beside this one, and may be given the number: then there is nothing to see.
    let (reader, mut writer) = pipe();
    if reader.as_raw_fd() == number {
        poller.add(&reader, Token(2), Interest::READ).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(tokens(&mut poller), [2]);
    }
}

/// Somebody closed a watched descriptor: epoll forgets it; the others report an error for as long as
/// it is watched, and go on to report what else is ready.
fn closed_elsewhere<P: Poller>() {
    let (reader, mut writer) = pipe();
    let mut poller = P::new().unwrap();
    poller.add(&reader, Token(2), Interest::READ).unwrap();
    // A number of its own, which no other test is given when it is free.
    static NUMBER: AtomicI32 = AtomicI32::new(700);
    let closed = high_descriptor(NUMBER.fetch_add(1, Relaxed));
    poller.add(&closed, Token(1), Interest::READ).unwrap();
    let number = closed.as_raw_fd();
    drop(closed);
    // SAFETY: it is only a number to the poller, and nobody else is given one so high.
    let closed = unsafe { BorrowedFd::borrow_raw(number) };
    for _ in 0..3 {
        let events = ready(&mut poller);
        if P::FORGETS_CLOSED {
            assert!(events.is_empty());
        } else {
            assert_eq!(events, [Event { token: Token(1), readiness: Readiness::NVAL }]);
            assert!(events[0].readiness.is_error());
        }
    }
    writer.write_all(b"x").unwrap();
    assert_eq!(tokens(&mut poller), if P::FORGETS_CLOSED { vec![2] } else { vec![1, 2] });
    assert_eq!(poller.delete(closed).is_ok(), !P::FORGETS_CLOSED);
    assert_eq!(tokens(&mut poller), [2]);
}

#[test]
fn only_epoll_does_more_than_level_triggering() {
    fn refuses<P: Poller>() -> bool {
        let (reader, _writer) = pipe();
        let mut poller = P::new().unwrap();
        [Interest::EDGE, Interest::ONESHOT].iter().all(|&how| {
            let added = poller.add(&reader, Token(1), Interest::READ | how);
            let refused = added.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
            let _ = poller.delete(&reader);
            refused
        })
    }
    assert!(!refuses::<Epoll>());
    assert!(refuses::<Poll>());
    assert!(refuses::<Select>());
}

/// A descriptor of at least this number, though the lower ones are free: other tests need them.
fn high_descriptor(number: i32) -> OwnedFd {
    let (reader, _) = pipe();
    let copy = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(number);
    let fd = nix::fcntl::fcntl(&reader, copy).expect("a limit above that");
    // SAFETY: fcntl made this descriptor just now, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[test]
fn select_refuses_what_does_not_fit() {
    // One is enough, if its number is 1,024.
    let Some(_fds) = machine::descriptors(1_024) else { return };
    let high = high_descriptor(1024);
    let mut select = Select::new().unwrap();
    let error = select.add(&high, Token(1), Interest::READ).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("below 1024"), "{error}");
    assert!(!c10k::sys::FdSet::new().contains(high.as_raw_fd()));
    // The others have no such limit.
    Poll::new().unwrap().add(&high, Token(1), Interest::READ).unwrap();
    Epoll::new().unwrap().add(&high, Token(1), Interest::READ).unwrap();
}
