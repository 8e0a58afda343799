//! What a session costs apart from the kernel: bytes in, frames echoed, bytes out.
//!
//! `cargo bench --bench session`
//!
//! It is driven as a [`Connection`](c10k::connection::Connection) drives it: with a send buffer
//! that is lent for one read and then taken back. An element is a request, of 64 bytes with its
//! delimiter.

use std::hint::black_box;

use c10k::Session;
use c10k::framing::Delimiter;
use c10k::service::Echo;
use c10k::session::SendBuffer;
use criterion::{BenchmarkId, Criterion, Throughput};

const FRAME_SIZE: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    session(&mut criterion);
    criterion.final_summary();
}

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for pipelined in [1, 32, 256] {
        let mut frame = [b'x'; FRAME_SIZE];
        frame[FRAME_SIZE - 1] = b'\n';
        let requests = frame.repeat(pipelined);
        group.throughput(Throughput::Elements(pipelined as u64));

        let mut driver = Driver::new();
        assert_eq!(driver.drive(&requests), pipelined);
        group.bench_function(BenchmarkId::new("whole", pipelined), |b| {
            b.iter(|| driver.drive(&requests));
        });

        // The first frame comes in two reads, so that its start has to be held.
        let (start, rest) = requests.split_at(FRAME_SIZE / 2);
        assert_eq!((driver.drive(start), driver.drive(rest)), (0, pipelined));
        group.bench_function(BenchmarkId::new("split", pipelined), |b| {
            b.iter(|| driver.drive(start) + driver.drive(rest));
        });
    }
    group.finish();
}

/// A session, and the buffer that it shares with the other sessions of its loop.
struct Driver {
    session: Session<Delimiter, Echo>,
    spare: Option<Box<SendBuffer>>,
}

impl Driver {
    fn new() -> Driver {
        Driver { session: Session::new(Delimiter::new(b'\n'), Echo), spare: Some(Box::default()) }
    }

    /// One read that returned `input`, and one send that takes all there is.
    fn drive(&mut self, input: &[u8]) -> usize {
        self.session.lend(&mut self.spare);
        let served = self.session.receive(black_box(input));
        let sent = black_box(self.session.unsent()).len();
        self.session.advance(sent);
        self.session.reclaim(&mut self.spare);
        served
    }
}
