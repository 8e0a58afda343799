//! tokio on one thread, in two shapes: the one that its guides show, and the fastest that we could
//! write with what it offers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf,
};
use tokio::net::{TcpListener, TcpStream};

use crate::session::{BUFFERS, DELIMITER, FRAME_SIZE_MAX, Framer};

/// Reads a frame, writes a frame.
pub(super) fn serve_by_line(listener: std::net::TcpListener) -> io::Result<()> {
    serve(listener, by_line)
}

/// Reads what there is, serves all frames in it, and writes once.
pub(super) fn serve_in_batches(listener: std::net::TcpListener) -> io::Result<()> {
    serve(listener, in_batches)
}

fn serve<F>(listener: std::net::TcpListener, connection: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        // As a task: the future of `block_on` itself would be polled at each turn.
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(connection(stream));
            }
        });
        accepting.await?
    })
}

async fn by_line(mut stream: TcpStream) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let mut frame = Vec::new();
    loop {
        frame.clear();
        (&mut read).take(FRAME_SIZE_MAX as u64 + 1).read_until(DELIMITER, &mut frame).await?;
        // The end, or a frame that is too long.
        if frame.last() != Some(&DELIMITER) {
            return Ok(());
        }
        write.write_all(&frame).await?;
    }
}

async fn in_batches(mut stream: TcpStream) -> io::Result<()> {
    let mut framer = Framer::default();
    while let Some(unsent) = poll_fn(|cx| poll_exchange(&mut stream, &mut framer, cx)).await? {
        if !unsent.is_empty() {
            stream.write_all(&unsent).await?;
        }
    }
    Ok(())
}

/// One read and one write, between which nothing is waited for: so all connections can share their
/// buffers, and a waiting one has none. `poll_read`, rather than `readable` and `try_read`, because
/// after a short read it knows that there is no more, and so does not try.
///
/// `None` at the end of the input, and otherwise what could not be written.
fn poll_exchange(
    stream: &mut TcpStream,
    framer: &mut Framer,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let mut input = ReadBuf::new(&mut buffers.input);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut input))?;
        if input.filled().is_empty() {
            return Poll::Ready(Ok(None));
        }
        buffers.replies.clear();
        framer.serve(input.filled(), &mut buffers.replies)?;
        if buffers.replies.is_empty() {
            return Poll::Ready(Ok(Some(Vec::new())));
        }
        let sent = match Pin::new(stream).poll_write(cx, &buffers.replies) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        Poll::Ready(Ok(Some(buffers.replies[sent..].to_vec())))
    })
}
