//! How fast the end of a frame is found, beside `memchr` alone over the same bytes: the limit, as
//! each byte must be looked at.
//!
//! `cargo bench --bench framing`
//!
//! A frame is scanned in one piece and is in the cache, as it is after `recv` has copied it.

use std::hint::black_box;

use c10k::framing::{Delimiter, Framing, JsonValue, Scan};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    framing(&mut criterion);
    criterion.final_summary();
}

fn framing(criterion: &mut Criterion) {
    for size in [64, 1024, 64 * 1024] {
        let mut line = vec![b'x'; size];
        line[size - 1] = b'\n';
        let mut string = vec![b'x'; size];
        string[0] = b'"';
        string[size - 1] = b'"';

        let mut group = criterion.benchmark_group(format!("framing/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function("memchr", |b| b.iter(|| memchr::memchr(b'\n', black_box(&line))));
        scan(&mut group, "delimiter", Delimiter::new(b'\n'), &line);
        // Where every other byte may mean something, and where only a quote or a backslash does.
        scan(&mut group, "json_members", JsonValue::new(), &object(size));
        scan(&mut group, "json_string", JsonValue::new(), &string);
        group.finish();
    }
}

fn scan<F: Framing>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    framing: F,
    frame: &[u8],
) {
    let scan = || black_box(&framing).scan(&mut F::State::default(), 0, black_box(frame));
    assert!(matches!(scan(), Scan::Frame { end, .. } if end == frame.len()), "{name}");
    group.bench_function(name, |b| b.iter(scan));
}

/// A JSON object of `size` bytes, full of short members.
fn object(size: usize) -> Vec<u8> {
    let member = br#""A":7,"#;
    let mut object = b"{".to_vec();
    while object.len() + member.len() < size {
        object.extend_from_slice(member);
    }
    object.resize(size - 1, b' ');
    object.push(b'}');
    object
}
