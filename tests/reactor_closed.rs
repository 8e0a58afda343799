//! Descriptors that are closed behind the reactor's back, and duplicates that are not.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use c10k::poller::{Epoll, Interest, Poll, Poller, Readiness, Select, Token};
use c10k::{Handler, Reactor};

/// Keeps what the library warns of.
struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn warnings_of_duplicates() -> usize {
    let warnings = WARNINGS.0.lock().unwrap();
    warnings.iter().filter(|warning| warning.contains("a duplicate of a descriptor")).count()
}

/// Counts what it is told, and leaves everything as it is.
#[derive(Default)]
struct Count(usize);

impl<P: Poller> Handler<UnixStream, P> for Count {
    fn ready(&mut self, _: &mut Reactor<UnixStream, P>, _: Token, _: Readiness) {
        self.0 += 1;
    }
}

/// Closes a source with something to read, of whose descriptor there is a duplicate, and takes so
/// many turns. Returns how many of them held nothing else.
fn turns_beside_a_duplicate<P: Poller>(beside_another: bool) -> u64 {
    let (ours, mut peers) = UnixStream::pair().unwrap();
    let mut reactor = Reactor::<UnixStream, P>::with_poller(P::new().unwrap()).unwrap();
    peers.write_all(b"x").unwrap();
    let duplicate = ours.try_clone().unwrap();
    let token = reactor.add(ours, Interest::READ).unwrap();
    if beside_another {
        let another = duplicate.try_clone().unwrap();
        reactor.add(another, Interest::READ).unwrap();
    }
    assert!(reactor.close(token));
    let mut count = Count::default();
    for turn in 1..=2_000 {
        reactor.turn(&mut count, Some(Duration::ZERO)).unwrap();
        let spins = P::FORGETS_CLOSED && !beside_another;
        let warned = usize::from(turn >= 1_000);
        assert!(!spins || warnings_of_duplicates() == warned, "turn {turn}");
    }
    assert_eq!(count.0, if beside_another { 2_000 } else { 0 });
    let counts = reactor.counts();
    assert_eq!(counts.stale, if P::FORGETS_CLOSED { 2_000 } else { 0 });

    // What ends it: the last duplicate is closed.
    if !beside_another {
        drop(duplicate);
        reactor.turn(&mut count, Some(Duration::ZERO)).unwrap();
        assert_eq!(reactor.counts().stale, counts.stale);
    }
    counts.stale_only
}

#[test]
fn a_loop_that_spins_on_a_duplicate_says_so_once() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    assert_eq!(turns_beside_a_duplicate::<Epoll>(true), 0, "each had an event that was not stale");
    assert_eq!(turns_beside_a_duplicate::<Poll>(false), 0);
    assert_eq!(turns_beside_a_duplicate::<Select>(false), 0);
    assert_eq!(warnings_of_duplicates(), 0);
    assert_eq!(turns_beside_a_duplicate::<Epoll>(false), 2_000);
    assert_eq!(warnings_of_duplicates(), 1);
}

/// A descriptor that somebody else owns, and closes.
struct Borrowed(RawFd);

impl AsFd for Borrowed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is used to register it, and not any more once it is closed but as a number.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// Closes what is reported as an error.
#[derive(Default)]
struct CloseErrors(Vec<Token>);

impl<P: Poller> Handler<Borrowed, P> for CloseErrors {
    fn ready(&mut self, reactor: &mut Reactor<Borrowed, P>, token: Token, readiness: Readiness) {
        assert!(readiness.is_error(), "{readiness:?}");
        assert!(reactor.close(token));
        self.0.push(token);
    }
}

/// A descriptor so high that no other test is given its number, when it is closed.
fn high_descriptor() -> OwnedFd {
    let (stream, _) = UnixStream::pair().unwrap();
    let copy = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(700);
    let fd = nix::fcntl::fcntl(&stream, copy).unwrap();
    // SAFETY: fcntl made this descriptor just now, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn the_handler_can_close_it<P: Poller>() {
    let mut reactor = Reactor::<Borrowed, P>::with_poller(P::new().unwrap()).unwrap();
    let owner = high_descriptor();
    let token = reactor.add(Borrowed(owner.as_raw_fd()), Interest::READ).unwrap();
    drop(owner);
    let mut closing = CloseErrors::default();
    for _ in 0..3 {
        reactor.turn(&mut closing, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(closing.0, [token], "once, since it was closed");
    assert_eq!(reactor.counts().events, 1, "it is no longer watched");
}

/// One after another, since they are given the same number.
#[test]
fn a_descriptor_that_was_closed_elsewhere_is_told_and_can_be_closed() {
    the_handler_can_close_it::<Poll>();
    the_handler_can_close_it::<Select>();
}
