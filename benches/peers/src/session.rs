//! Framing, and the exchange on a socket that does not block, for the contenders whose libraries
//! have neither.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};

use memchr::memchr_iter;

/// The longest frame, without its delimiter. A connection that sends a longer one is closed.
pub(crate) const FRAME_SIZE_MAX: usize = 64 * 1024;

pub(crate) const DELIMITER: u8 = b'\n';

/// What a loop reads into and gathers replies in. All connections use the same, so that an idle
/// one needs no memory for it.
pub(crate) struct Buffers {
    pub(crate) input: Box<[u8]>,
    pub(crate) replies: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers { input: vec![0; 64 * 1024].into(), replies: Vec::with_capacity(128 * 1024) }
    }
}

thread_local! {
    /// For the contenders whose tasks have no loop to own them.
    pub(crate) static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());
}

/// The beginning of a frame whose end has not come yet. Empty, it has no memory.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    partial: Vec<u8>,
}

impl Framer {
    /// Appends the reply to each frame that is complete, and keeps what follows the last of them.
    pub(crate) fn serve(&mut self, input: &[u8], replies: &mut Vec<u8>) -> io::Result<()> {
        let mut start = 0;
        for end in memchr_iter(DELIMITER, input) {
            let frame = &input[start..=end];
            if self.partial.len() + frame.len() > FRAME_SIZE_MAX + 1 {
                return Err(too_long());
            }
            // Most frames arrive whole.
            if !self.partial.is_empty() {
                replies.extend_from_slice(&std::mem::take(&mut self.partial));
            }
            replies.extend_from_slice(frame);
            start = end + 1;
        }
        let rest = &input[start..];
        if self.partial.len() + rest.len() > FRAME_SIZE_MAX {
            return Err(too_long());
        }
        if !rest.is_empty() {
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a frame is too long")
}

/// One connection of an event loop.
#[derive(Debug, Default)]
pub(crate) struct Session {
    framer: Framer,
    /// Replies that the socket did not take. Nothing is read while there are any.
    unsent: Vec<u8>,
}

/// What a session waits for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Read,
    Write,
    Close,
}

impl Session {
    /// Whether it waits for the socket to take more.
    pub(crate) fn is_sending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Serves what has arrived. `drain`: read until there is nothing more, since an edge is told
    /// once; otherwise a short read says that there is nothing more, and saves the second call.
    pub(crate) fn drive(
        &mut self,
        mut stream: impl Read + Write,
        buffers: &mut Buffers,
        drain: bool,
    ) -> io::Result<Next> {
        if !self.unsent.is_empty() {
            let sent = write(&mut stream, &self.unsent)?;
            if sent < self.unsent.len() {
                self.unsent.drain(..sent);
                return Ok(Next::Write);
            }
            self.unsent = Vec::new();
        }
        loop {
            let n = match stream.read(&mut buffers.input) {
                Ok(0) => return Ok(Next::Close),
                Ok(n) => n,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => return Ok(Next::Read),
                    _ => return Err(error),
                },
            };
            buffers.replies.clear();
            self.framer.serve(&buffers.input[..n], &mut buffers.replies)?;
            let sent = write(&mut stream, &buffers.replies)?;
            if sent < buffers.replies.len() {
                self.unsent = buffers.replies[sent..].to_vec();
                return Ok(Next::Write);
            }
            if n < buffers.input.len() && !drain {
                return Ok(Next::Read);
            }
        }
    }
}

/// Writes as much as the socket takes, and says how much that was.
pub(crate) fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => break,
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}
