//! Drives a session as the owner of a socket would, from scripted input.

// Each test file that includes this uses another part of it.
#![allow(dead_code)]

use c10k::Session;
use c10k::framing::Framing;
use c10k::service::Service;
use c10k::session::{Ended, SendBuffer};

/// What became of a session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) replies: Vec<u8>,
    pub(crate) served: usize,
    pub(crate) ended: Option<Ended>,
    pub(crate) unfinished: bool,
    /// The most that was unsent at any time.
    pub(crate) unsent_peak: usize,
}

/// Takes all that is unsent, as a send that never falls short would.
pub(crate) fn flush<F: Framing, S: Service>(session: &mut Session<F, S>) -> Vec<u8> {
    let sent = session.unsent().to_vec();
    session.advance(sent.len());
    assert!(!session.wants_write());
    sent
}

/// Receives the pieces, then EOF, sending all there is after each.
pub(crate) fn drive<F: Framing, S: Service>(mut session: Session<F, S>, pieces: &[&[u8]]) -> End {
    let mut end =
        End { replies: Vec::new(), served: 0, ended: None, unfinished: false, unsent_peak: 0 };
    for piece in pieces {
        assert!(session.wants_read() || session.is_done());
        end.served += session.receive(piece);
        settle(&mut session, &mut end);
    }
    end.served += session.receive_eof();
    settle(&mut session, &mut end);
    if !session.is_done() {
        // It ended at the EOF: what it sees next on a socket is EOF again.
        session.receive_eof();
    }
    assert!(session.is_done(), "{session:?}");
    end.ended = session.take_ended();
    end.unfinished = session.dropped_unfinished();
    end
}

fn settle<F: Framing, S: Service>(session: &mut Session<F, S>, end: &mut End) {
    loop {
        end.unsent_peak = end.unsent_peak.max(session.unsent().len());
        end.replies.extend(flush(session));
        if !session.wants_resume() {
            break;
        }
        end.served += session.resume();
    }
    if session.wants_shutdown() {
        session.shut_down();
    }
}

/// Receives and sends by the sizes given, over and over, as an event loop does whose socket
/// takes and gives a little at a time.
pub(crate) fn drive_with<F: Framing, S: Service>(
    mut session: Session<F, S>,
    mut input: &[u8],
    sizes: &[(usize, usize)],
    lend: bool,
) -> End {
    let mut end =
        End { replies: Vec::new(), served: 0, ended: None, unfinished: false, unsent_peak: 0 };
    let mut spare: Option<Box<SendBuffer>> = Some(Box::default());
    for &(receive, send) in sizes.iter().cycle() {
        if lend {
            session.lend(&mut spare);
        }
        if session.wants_resume() {
            end.served += session.resume();
        }
        if session.wants_read() {
            let (piece, rest) = input.split_at(input.len().min(receive));
            input = rest;
            end.served +=
                if piece.is_empty() { session.receive_eof() } else { session.receive(piece) };
        }
        end.unsent_peak = end.unsent_peak.max(session.unsent().len());
        let n = session.unsent().len().min(send);
        end.replies.extend_from_slice(&session.unsent()[..n]);
        session.advance(n);
        if lend {
            session.reclaim(&mut spare);
        }
        if session.wants_shutdown() {
            session.shut_down();
        }
        if session.is_done() {
            break;
        }
        assert!(
            session.wants_read() || session.wants_write() || session.wants_resume(),
            "it wants nothing and is not done: {session:?}"
        );
    }
    end.ended = session.take_ended();
    end.unfinished = session.dropped_unfinished();
    end
}
