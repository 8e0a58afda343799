//! `c10k load` as a child, its report, and servers for it that do wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::server::c10k;

pub(crate) fn load(addr: &str, args: &[&str]) -> Output {
    let common = ["load", addr, "--json"];
    let no_warmup: &[&str] = if args.contains(&"--warmup") { &[] } else { &["--warmup", "0ms"] };
    c10k(&[&common, no_warmup, args].concat()).output().expect("the program")
}

/// Its report, whatever its exit status.
#[track_caller]
pub(crate) fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A run that must find nothing wrong.
#[track_caller]
pub(crate) fn good(output: &Output) -> Value {
    let report = complete(output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    report
}

/// A run whose requests were all answered. On a machine that is busy otherwise an open loop may
/// find that it is not up to its rate, and that is another exit status.
#[track_caller]
pub(crate) fn complete(output: &Output) -> Value {
    let report = report(output);
    let kinds = ["mismatched", "lost", "late", "refused", "not_connected"];
    for kind in kinds.into_iter().chain(["closed_by_server", "reset", "broken"]) {
        assert_eq!(report["failures"][kind], 0, "{kind}: {report:#}");
    }
    report
}

/// A server that echoes lines, and hands each reply to `tamper` first, with its number.
pub(crate) fn tampering(
    mut tamper: impl FnMut(usize, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        // It ends with the client's connection; the test does not wait for it.
        let (mut stream, _) = listener.accept()?;
        let lines = BufReader::new(stream.try_clone()?).split(b'\n');
        for (number, line) in lines.enumerate() {
            let Some(mut reply) = tamper(number, line?) else { continue };
            reply.push(b'\n');
            stream.write_all(&reply)?;
        }
        Ok::<(), std::io::Error>(())
    });
    addr
}

/// A server that echoes lines, and of each thousand takes a tenth of a second for one.
pub(crate) fn stalling() -> SocketAddr {
    tampering(|number, line| {
        if number % 1_000 == 500 {
            thread::sleep(Duration::from_millis(100));
        }
        Some(line)
    })
}
