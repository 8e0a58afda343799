//! smol: a task for each connection on an executor of one thread, which waits for I/O itself.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use smol::io::AsyncWriteExt;
use smol::{Async, LocalExecutor};

use crate::session::{BUFFERS, Framer, write};

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    let listener = Async::new(listener)?;
    smol::block_on(executor.clone().run(async {
        loop {
            let (stream, _) = listener.accept().await?;
            executor.spawn(connection(stream)).detach();
        }
    }))
}

async fn connection(mut stream: Async<TcpStream>) -> io::Result<()> {
    let mut framer = Framer::default();
    loop {
        // `read` would try first, in vain for a client that waits for its reply.
        stream.readable().await?;
        let Some(unsent) = exchange(&stream, &mut framer)? else { return Ok(()) };
        if !unsent.is_empty() {
            stream.write_all(&unsent).await?;
        }
    }
}

/// One read and one write on buffers that all connections share, as none of them waits meanwhile.
/// `None` at the end of the input, and otherwise what could not be written.
fn exchange(stream: &Async<TcpStream>, framer: &mut Framer) -> io::Result<Option<Vec<u8>>> {
    BUFFERS.with_borrow_mut(|buffers| {
        let mut socket = stream.get_ref();
        let n = match socket.read(&mut buffers.input) {
            Ok(0) => return Ok(None),
            Ok(n) => n,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock => return Ok(Some(Vec::new())),
                _ => return Err(error),
            },
        };
        buffers.replies.clear();
        framer.serve(&buffers.input[..n], &mut buffers.replies)?;
        let sent = write(&mut socket, &buffers.replies)?;
        Ok(Some(buffers.replies[sent..].to_vec()))
    })
}
