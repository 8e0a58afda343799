//! What the reactor's slab costs: finding a source by its token, and replacing one source by
//! another.
//!
//! `cargo bench --bench slab`
//!
//! All sources are visited, in shuffled order, so that where the slab is larger than the caches,
//! cache misses are most of what is seen. One look-up does not wait for another, so the misses
//! overlap: as within one batch of events, at best.

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use c10k::Reactor;
use c10k::poller::{Event, Interest, Poller, Token};
use criterion::{BenchmarkId, Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    slab(&mut criterion);
    criterion.final_summary();
}

fn slab(criterion: &mut Criterion) {
    // Whatever a source is, it has a descriptor; here all have the same.
    let (fd, _) = io::pipe().expect("a pipe");
    let fd: &OwnedFd = &fd.into();

    let mut group = criterion.benchmark_group("slab");
    for sources in [100, 10_000, 1_000_000] {
        let mut reactor = Reactor::with_poller(Mute).expect("a reactor");
        let source = Source { fd, _rest: [0; 6] };
        let mut tokens: Vec<Token> =
            (0..sources).map(|_| reactor.add(source, Interest::READ).expect("room")).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut tokens);

        group.throughput(Throughput::Elements(sources));
        group.bench_function(BenchmarkId::new("find", sources), |b| {
            b.iter(|| {
                for &token in &tokens {
                    black_box(reactor.source_mut(token));
                }
            });
        });
        group.bench_function(BenchmarkId::new("replace", sources), |b| {
            b.iter(|| {
                for token in &mut tokens {
                    reactor.close(*token);
                    *token = reactor.add(source, Interest::READ).expect("room");
                }
            });
        });
        assert!(tokens.iter().all(|&token| reactor.source(token).is_some()));
    }
    group.finish();
}

/// As large as a connection: a slot takes 64 bytes.
#[derive(Clone, Copy)]
struct Source<'a> {
    fd: &'a OwnedFd,
    _rest: [u64; 6],
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A poller that makes no system call, as they would be all that is seen.
struct Mute;

impl Poller for Mute {
    const FORGETS_CLOSED: bool = true;

    fn new() -> io::Result<Mute> {
        Ok(Mute)
    }

    fn add(&mut self, _: impl AsFd, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn modify(&mut self, _: impl AsFd, _: Token, _: Interest) -> io::Result<()> {
        Ok(())
    }

    fn delete(&mut self, _: impl AsFd) -> io::Result<()> {
        Ok(())
    }

    fn wait(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }
}
