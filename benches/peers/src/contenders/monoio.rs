//! monoio, on io_uring and on epoll (its "legacy" driver). A buffer belongs to the kernel while it
//! is read into, so each connection has one.

use std::cell::RefCell;
use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::session::Framer;

/// Pages of it that are never touched are never there.
const INPUT_SIZE: usize = 64 * 1024;

pub(super) fn serve_on_uring(listener: std::net::TcpListener) -> io::Result<()> {
    // io_uring waits itself, and would report that a socket that does not block is not ready.
    listener.set_nonblocking(false)?;
    RuntimeBuilder::<IoUringDriver>::new().with_entries(4096).build()?.block_on(accept(listener))
}

pub(super) fn serve_on_epoll(listener: std::net::TcpListener) -> io::Result<()> {
    RuntimeBuilder::<LegacyDriver>::new().build()?.block_on(accept(listener))
}

/// Whether the kernel lets us have an io_uring.
pub(super) fn has_uring() -> bool {
    RuntimeBuilder::<IoUringDriver>::new().build().is_ok()
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(connection(stream));
    }
}

thread_local! {
    /// Buffers of replies that are not being written.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    let mut framer = Framer::default();
    let mut input = Vec::with_capacity(INPUT_SIZE);
    loop {
        let (read, buffer) = stream.read(input).await;
        input = buffer;
        if read? == 0 {
            return Ok(());
        }
        let mut replies = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        framer.serve(&input, &mut replies)?;
        if !replies.is_empty() {
            let (written, buffer) = stream.write_all(replies).await;
            written?;
            replies = buffer;
        }
        replies.clear();
        SPARE.with_borrow_mut(|spare| spare.push(replies));
    }
}
