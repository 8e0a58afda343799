//! One request, waited for in four ways.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use c10k::sys::{self, Recv};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::SockFlag;

use crate::lab::kernel;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::units::grouped;

pub(super) const ABOUT: About = About {
    name: "blocking",
    claim: "A blocking recv sleeps until there is something; a non-blocking one never sleeps, and \
            is called over and over; poll and epoll sleep for many connections at once, at the \
            price of one more call.",
    run,
};

/// How long the client takes to ask, and how long any wait may take.
const PAUSE: Duration = Duration::from_millis(100);
const SOON: u16 = 5_000;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "Two connections. The server's end of a blocks, that of b does not. Four times a client \
         asks, 100 ms after the server has begun to wait, and is answered.",
    );
    let (listener, addr) = lab.listener("listener", 4)?;
    let (a_client, a) = lab.pair(&listener, "a'", "a")?;
    let b_client = lab.tcp("b'")?;
    lab.connect(&b_client, addr)?;
    let b = lab.accept(&listener, SockFlag::SOCK_NONBLOCK, "b")?;
    let (a_name, b_name) = (lab.names.of(&a), lab.names.of(&b));

    lab.note("1. Blocking: the thread sleeps in recv, and can do nothing else, not even for b.");
    let blocking = served(lab, &a_client, |calls| calls.exchange(&a, &a_name))?;

    lab.note("2. Non-blocking: recv returns at once, with data or without.");
    let spinning = served(lab, &b_client, |calls| calls.exchange(&b, &b_name))?;

    lab.note("3. Multiplexed: poll sleeps for both, and says which. Each call has the whole list.");
    let input = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut list = [input(a.as_raw_fd()), input(b.as_raw_fd())];
    let polling = served(lab, &b_client, |calls| {
        let call = format!("poll({{{a_name}, {b_name}}}, 2, {SOON})");
        calls.make(&call, || sys::poll(&mut list, SOON.into()).map(Some))?;
        calls.exchange(&b, &b_name)
    })?;

    lab.note("4. With epoll the list is the kernel's, and it is told once.");
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, &a, EpollFlags::EPOLLIN, 1)?;
    lab.epoll_add(&epoll, &b, EpollFlags::EPOLLIN, 2)?;
    let call = format!("epoll_wait({}, 8, {SOON})", lab.names.of(&epoll.0));
    let watching = served(lab, &b_client, |calls| {
        calls.make(&call, || Ok(Some(epoll.wait(&mut [EpollEvent::empty(); 8], SOON)?)))?;
        calls.exchange(&b, &b_name)
    })?;

    let ways = [
        ("blocking", &blocking),
        ("non-blocking", &spinning),
        ("poll", &polling),
        ("epoll", &watching),
    ];
    let heading = "                    calls   sleeps   asleep (ms)   on the CPU (ms)".to_owned();
    let row = |(name, way): (&str, &Served)| {
        let Served { calls, sleeps, asleep, on_cpu } = way;
        let (calls, asleep, on_cpu) = (grouped(*calls as f64), ms(*asleep), ms(*on_cpu));
        format!("{name:<14} {calls:>10} {sleeps:>8} {asleep:>13} {on_cpu:>17}")
    };
    let lines = [heading].into_iter().chain(ways.map(row)).collect();
    lab.kernel("getrusage(2) and schedstat of the thread, for each request", lines);
    for (name, way, calls) in
        [("blocking", &blocking, 2), ("poll", &polling, 3), ("epoll", &watching, 3)]
    {
        lab.expect(&format!("{name}: calls"), way.calls, calls);
        let slept = way.sleeps > 0 && way.asleep > PAUSE / 2;
        let fact = format!("{name}: asleep (ms)");
        lab.expect_that(&fact, ms(way.asleep), "most of the 100", slept);
    }
    let calls = grouped(spinning.calls as f64);
    lab.expect_that("non-blocking: calls", calls, "more than 100", spinning.calls > 100);
    lab.expect("non-blocking: sleeps", spinning.sleeps, 0);
    let times = spinning.on_cpu.as_secs_f64() / blocking.on_cpu.as_secs_f64().max(1e-6);
    let fact = "non-blocking: CPU, as many times that of blocking";
    lab.expect_that(fact, format!("{times:.0}"), "more than 2", times > 2.0);
    Ok(())
}

/// What it took the server to wait for a request, and to answer it.
struct Served {
    calls: usize,
    sleeps: c_long,
    /// The time that it neither had a CPU nor wanted one.
    asleep: Duration,
    on_cpu: Duration,
}

/// Has the client ask, some time after `serve` was called, and shows the calls that it makes.
fn served(
    lab: &mut Lab,
    client: &OwnedFd,
    serve: impl FnOnce(&mut Calls) -> Result<(), Trouble>,
) -> Result<Served, Trouble> {
    sys::set_io_timeout(client.as_fd(), Some(Duration::from_millis(SOON.into())))?;
    let mut calls = Calls(Vec::new());
    let served = thread::scope(|scope| {
        let (begins, begun) = mpsc::channel();
        scope.spawn(move || {
            let _ = begun.recv();
            thread::sleep(PAUSE);
            let _ = sys::send(client.as_fd(), b"ping");
            let _ = sys::recv(client.as_fd(), &mut [0; 64]);
        });
        let _ = begins.send(());
        let (start, before) = (Instant::now(), kernel::thread_time()?);
        serve(&mut calls)?;
        let (after, wall) = (kernel::thread_time()?, start.elapsed());
        let on_cpu = after.on_cpu.saturating_sub(before.on_cpu);
        let queued = after.queued.saturating_sub(before.queued);
        let asleep = wall.saturating_sub(on_cpu + queued);
        let calls = calls.0.iter().map(|made| made.times).sum();
        Ok::<_, Trouble>(Served { calls, sleeps: after.sleeps - before.sleeps, asleep, on_cpu })
    })?;
    for Made { call, result, times, took } in calls.0 {
        let times = if times > 1 { format!(" x {}", grouped(times as f64)) } else { String::new() };
        let result = result.map_or("-1 EAGAIN".to_owned(), |n| n.to_string());
        lab.called(format!("{call}{times}"), format!("{result}, {} ms", ms(took)));
    }
    Ok(served)
}

/// The calls that were made, those of a kind that came to the same put together.
struct Calls(Vec<Made>);

struct Made {
    call: String,
    /// None for `EAGAIN`.
    result: Option<usize>,
    times: usize,
    took: Duration,
}

impl Calls {
    fn make(
        &mut self,
        call: &str,
        make: impl FnOnce() -> io::Result<Option<usize>>,
    ) -> Result<Option<usize>, Trouble> {
        let start = Instant::now();
        let result = make()?;
        let took = start.elapsed();
        match self.0.last_mut() {
            Some(last) if last.call == call && last.result == result => {
                last.times += 1;
                last.took += took;
            }
            _ => self.0.push(Made { call: call.to_owned(), result, times: 1, took }),
        }
        Ok(result)
    }

    /// Receives a request, however often it takes to ask, and answers it.
    fn exchange(&mut self, fd: &OwnedFd, name: &str) -> Result<(), Trouble> {
        let call = format!("recv({name}, 64)");
        let recv = || match sys::recv(fd.as_fd(), &mut [0; 64])? {
            Recv::Data(n) => Ok(Some(n)),
            Recv::Eof => Ok(Some(0)),
            Recv::WouldBlock => Ok(None),
        };
        while self.make(&call, recv)?.is_none() {}
        self.make(&format!("send({name}, \"pong\", 4)"), || {
            sys::send(fd.as_fd(), b"pong").map(Some)
        })?;
        Ok(())
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}
