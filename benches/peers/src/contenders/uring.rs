//! The floor of io_uring: it sends back whatever it receives, as bare epoll does in `floor.rs`.
//!
//! One request for each connection receives for as long as that lives. The kernel picks a buffer
//! when there is something to put in it, and gets it back when that is sent: so an idle connection
//! has none. What is received meanwhile waits, as of two sends on one socket the second may
//! overtake the first.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, shutdown};
use slab::Slab;

/// How many requests are made in one call.
const ENTRIES: u32 = 1024;

/// A power of two, as the kernel wants. With one request under way on each of 10,000 connections
/// there are always some left; a client that does not read may hold all of them.
const BUFFERS: u16 = 256;

/// Were it a multiple of the page size, the beginnings of all buffers would compete for the same
/// few lines of the CPU's cache.
const BUFFER_SIZE: usize = 16 * 1024 + 64;

/// The number of our group of buffers: any will do.
const GROUP: u16 = 0;

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    // io_uring waits itself, and would report that a socket that does not block is not ready.
    listener.set_nonblocking(false)?;
    let mut ring = ring()?;
    let (submitter, queue, mut completions) = ring.split();
    let mut floor = Floor {
        buffers: Buffers::register(&submitter)?,
        requests: Requests { submitter, queue },
        listener,
        connections: Slab::new(),
        starved: VecDeque::new(),
    };
    floor.accept()?;
    loop {
        floor.requests.submit(1)?;
        completions.sync();
        for completion in &mut completions {
            floor.complete(&completion)?;
        }
        floor.feed()?;
    }
}

/// Whether the kernel lets us have the ring that this needs (Linux 6.1).
pub(super) fn has_ring() -> bool {
    ring().is_ok()
}

/// Completions are put off until we ask for them: they interrupt nothing, and come in batches.
fn ring() -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES)
}

struct Floor<'ring> {
    requests: Requests<'ring>,
    buffers: Buffers,
    listener: TcpListener,
    connections: Slab<Connection>,
    /// Connections that no longer receive, as there was no buffer left.
    starved: VecDeque<usize>,
}

struct Connection {
    fd: OwnedFd,
    /// The first and the last of the buffers to send; the first is being sent.
    unsent: Option<(u16, u16)>,
    /// Whether more may come: it has a request to receive, or is starved.
    receives: bool,
}

/// What a request is for. Those of a connection have its key.
#[derive(Clone, Copy)]
enum Purpose {
    Accept,
    Receive(usize),
    Send(usize),
}

impl Purpose {
    fn to_user_data(self) -> u64 {
        match self {
            Purpose::Accept => 0,
            Purpose::Receive(key) => (key as u64) << 2 | 1,
            Purpose::Send(key) => (key as u64) << 2 | 2,
        }
    }

    fn from_user_data(data: u64) -> Purpose {
        let key = (data >> 2) as usize;
        match data & 3 {
            0 => Purpose::Accept,
            1 => Purpose::Receive(key),
            _ => Purpose::Send(key),
        }
    }
}

impl Floor<'_> {
    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .flags(SocketFlags::CLOEXEC.bits() as i32);
        self.requests.push(accept.build(), Purpose::Accept)
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let fd = Fd(self.connections[key].fd.as_raw_fd());
        self.requests.push(opcode::RecvMulti::new(fd, GROUP).build(), Purpose::Receive(key))
    }

    fn send(&mut self, key: usize, buffer: u16) -> io::Result<()> {
        let fd = Fd(self.connections[key].fd.as_raw_fd());
        let bytes = self.buffers.unsent(buffer);
        let send = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32);
        self.requests.push(send.build(), Purpose::Send(key))
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        // A negative result is an error's number.
        let done = u32::try_from(completion.result());
        let goes_on = cqueue::more(completion.flags());
        match Purpose::from_user_data(completion.user_data()) {
            Purpose::Accept => {
                if let Ok(fd) = done {
                    // SAFETY: it was accepted just now, and is nobody else's.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                    let connection = Connection { fd, unsent: None, receives: true };
                    let key = self.connections.insert(connection);
                    self.receive(key)?;
                }
                if !goes_on {
                    self.accept()?;
                }
            }
            Purpose::Receive(key) => {
                if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                    self.received(key, buffer, done.unwrap_or(0))?;
                }
                match done {
                    _ if goes_on => {}
                    Ok(n) if n > 0 => self.receive(key)?,
                    Err(_) if completion.result() == -Errno::NOBUFS.raw_os_error() => {
                        self.starved.push_back(key);
                    }
                    _ => {
                        self.connections[key].receives = false;
                        self.close_if_done(key);
                    }
                }
            }
            Purpose::Send(key) => self.sent(key, done.ok())?,
        }
        Ok(())
    }

    fn received(&mut self, key: usize, buffer: u16, size: u32) -> io::Result<()> {
        self.buffers.take(buffer, size);
        if size == 0 {
            self.buffers.give_back(buffer);
            return Ok(());
        }
        let unsent = &mut self.connections[key].unsent;
        if let Some((_, last)) = unsent {
            self.buffers.pieces[usize::from(*last)].next = Some(buffer);
            *last = buffer;
            return Ok(());
        }
        *unsent = Some((buffer, buffer));
        self.send(key, buffer)
    }

    /// `sent`: how much, perhaps not all; `None` if it failed.
    fn sent(&mut self, key: usize, sent: Option<u32>) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let (first, last) = connection.unsent.take().expect("something was being sent");
        let Some(sent) = sent else {
            let mut next = Some(first);
            while let Some(buffer) = next {
                next = self.buffers.give_back(buffer);
            }
            // So that its request to receive ends too, whatever the reason was.
            let _ = shutdown(&connection.fd, Shutdown::Both);
            self.close_if_done(key);
            return Ok(());
        };
        let piece = &mut self.buffers.pieces[usize::from(first)];
        piece.start += sent;
        let next = match piece.start < piece.end {
            true => Some(first),
            false => self.buffers.give_back(first),
        };
        match next {
            Some(next) => {
                self.connections[key].unsent = Some((next, last));
                self.send(key, next)?;
            }
            None => self.close_if_done(key),
        }
        Ok(())
    }

    /// A key is free for another connection only when no request has it any more.
    fn close_if_done(&mut self, key: usize) {
        let connection = &self.connections[key];
        if !connection.receives && connection.unsent.is_none() {
            self.connections.remove(key);
        }
    }

    /// Lets as many receive again as there are buffers.
    fn feed(&mut self) -> io::Result<()> {
        for _ in 0..self.buffers.free.min(self.starved.len()) {
            let Some(key) = self.starved.pop_front() else { break };
            self.receive(key)?;
        }
        Ok(())
    }
}

/// The requests that are to be made.
struct Requests<'ring> {
    submitter: Submitter<'ring>,
    queue: SubmissionQueue<'ring>,
}

impl Requests<'_> {
    fn push(&mut self, request: squeue::Entry, purpose: Purpose) -> io::Result<()> {
        let request = request.user_data(purpose.to_user_data());
        // SAFETY: until it has completed, neither is its descriptor closed nor its buffer given
        // back.
        while unsafe { self.queue.push(&request) }.is_err() {
            self.submit(0)?;
        }
        Ok(())
    }

    /// Makes them, and waits until so many have completed.
    fn submit(&mut self, completed: usize) -> io::Result<()> {
        self.queue.sync();
        match self.submitter.submit_and_wait(completed) {
            // A signal; no memory for now; more completions than there was room for.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::INTR | Errno::AGAIN | Errno::BUSY)
                ) => {}
            made => drop(made?),
        }
        self.queue.sync();
        Ok(())
    }
}

/// The buffers, and the ring in which the kernel finds those that are free
/// (`io_uring_register_buf_ring(3)`).
struct Buffers {
    memory: Vec<u8>,
    ring: NonNull<BufRingEntry>,
    /// Where the next one goes that is given back, counted from the beginning.
    tail: u16,
    free: usize,
    pieces: Vec<Piece>,
}

/// The part of a buffer that is to be sent, and the buffer to be sent after it.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    start: u32,
    end: u32,
    next: Option<u16>,
}

impl Buffers {
    fn register(submitter: &Submitter<'_>) -> io::Result<Buffers> {
        let size = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        let layout = Layout::from_size_align(size, 4096).expect("a page is a power of two");
        // SAFETY: the size is not zero.
        let ring = unsafe { alloc_zeroed(layout) };
        let ring = NonNull::new(ring.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: it is as large as it says, and never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(ring.as_ptr() as u64, BUFFERS, GROUP, 0)?;
        }
        let mut buffers = Buffers {
            // Not zero: so its pages are there now, and do not count as of connections later.
            memory: vec![1; usize::from(BUFFERS) * BUFFER_SIZE],
            ring,
            tail: 0,
            free: 0,
            pieces: vec![Piece::default(); usize::from(BUFFERS)],
        };
        for buffer in 0..BUFFERS {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    /// The kernel has put so much into it.
    fn take(&mut self, buffer: u16, size: u32) {
        self.free -= 1;
        self.pieces[usize::from(buffer)] = Piece { start: 0, end: size, next: None };
    }

    fn unsent(&self, buffer: u16) -> &[u8] {
        let Piece { start, end, .. } = self.pieces[usize::from(buffer)];
        let at = usize::from(buffer) * BUFFER_SIZE;
        &self.memory[at + start as usize..at + end as usize]
    }

    /// The kernel may receive into it again. Returns the buffer that was to be sent after it.
    fn give_back(&mut self, buffer: u16) -> Option<u16> {
        let at = usize::from(buffer) * BUFFER_SIZE;
        let address = &raw mut self.memory[at];
        let index = usize::from(self.tail % BUFFERS);
        // SAFETY: the index is in the ring, and the kernel does not look at an entry before the
        // tail is past it. Of the first entry nothing but the tail is referred to elsewhere.
        let entry = unsafe { &mut *self.ring.as_ptr().add(index) };
        entry.set_addr(address as u64);
        entry.set_len(BUFFER_SIZE as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: it points into the first entry, is aligned, and is only ever written here.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.free += 1;
        self.pieces[usize::from(buffer)].next
    }
}
