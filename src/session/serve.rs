//! What a session does with the bytes it is given: frames are cut, checked and served.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Ended, Held, Phase, SendBuffer, Session};
use crate::framing::{Framing, Scan};
use crate::service::{Outcome, Refusal, Service};

impl<F: Framing, S: Service> Session<F, S> {
    /// Runs what calls the service; a panic there ends the session, with the replies before it
    /// intact.
    #[inline]
    pub(super) fn guarded(&mut self, serve: impl FnOnce(&mut Self, &mut usize)) -> usize {
        let mut served = 0;
        // What a panic can leave half done is the service, which is not called again, and the
        // reply under way, which is cut off here.
        if catch_unwind(AssertUnwindSafe(|| serve(self, &mut served))).is_err() {
            if let Some(out) = &mut self.out {
                out.cut_off();
            }
            self.end(Ended::Panicked);
        }
        served
    }

    #[inline]
    pub(super) fn receive_open(&mut self, mut input: &[u8], served: &mut usize) {
        if self.held.is_some() {
            if self.hold_back(input) {
                return;
            }
            let Some(end) = self.finish_frame(input) else { return };
            *served += 1;
            input = &input[end..];
        }
        let mut scan = F::State::default();
        let consumed = self.serve(input, &mut scan, served);
        let rest = &input[consumed..];
        if !rest.is_empty() && self.phase == Phase::Open {
            // All of an unfinished frame has been scanned; if there is no room for replies, none
            // of the rest has.
            let suspended = self.is_over_pending();
            self.held = Some(Box::new(Held { bytes: rest.to_vec(), head: 0, scan, suspended }));
        }
    }

    /// Keeps what came although there is no room for replies. Returns whether that is so.
    #[cold]
    fn hold_back(&mut self, input: &[u8]) -> bool {
        let over_pending = self.is_over_pending();
        match &mut self.held {
            Some(held) if held.suspended || over_pending => {
                held.suspended = true;
                held.bytes.extend_from_slice(input);
                true
            }
            _ => false,
        }
    }

    /// Completes the held frame with the start of `input` and serves it. Returns how much of the
    /// input it took, or `None` if all of it and the frame still goes on.
    fn finish_frame(&mut self, input: &[u8]) -> Option<usize> {
        let mut held = self.held.take().expect("the caller looked");
        let carried = held.bytes.len() - held.head;
        match self.framing.scan(&mut held.scan, carried, input) {
            Scan::Incomplete if self.is_too_long_unfinished(carried + input.len()) => {
                self.refuse(Refusal::FrameTooLong);
                None
            }
            Scan::Incomplete => {
                held.bytes.extend_from_slice(input);
                self.held = Some(held);
                None
            }
            Scan::Frame { end, trailer } => {
                let input = &input[..end];
                let len = (carried + end).checked_sub(trailer).expect("a trailer is in its frame");
                if len > self.framing.frame_len_max() as usize {
                    self.refuse(Refusal::FrameTooLong);
                    return None;
                }
                held.bytes.extend_from_slice(input);
                self.call(&held.bytes[held.head..][..len]);
                Some(end)
            }
            Scan::TooLong => {
                self.refuse(Refusal::FrameTooLong);
                None
            }
            Scan::Skip(_) => panic!("the framing skips within a frame"),
        }
    }

    /// Serves frames from the start of `input` for as long as there is room for the replies.
    /// Returns how many bytes that took.
    #[inline(always)]
    fn serve(&mut self, input: &[u8], scan: &mut F::State, served: &mut usize) -> usize {
        if self.phase == Phase::Closing || self.is_over_pending() {
            return 0;
        }
        let mut rest = input;
        let mut ended = None;
        while !rest.is_empty() && ended.is_none() {
            match self.framing.scan(scan, 0, rest) {
                Scan::Frame { end, trailer } => {
                    // One comparison for both: with 0 it wraps to more than there can be.
                    assert!(end.wrapping_sub(1) < rest.len(), "the framing ends a frame nowhere");
                    let (frame, after) = rest.split_at(end);
                    let request = &frame[..end - trailer];
                    if request.len() > self.framing.frame_len_max() as usize {
                        self.refuse(Refusal::FrameTooLong);
                        break;
                    }
                    let out = SendBuffer::of(&mut self.out);
                    ended = out.answer(&self.framing, &mut self.service, request);
                    rest = after;
                    *served += 1;
                    *scan = F::State::default();
                    if out.len() > self.bound as usize {
                        break;
                    }
                }
                Scan::Skip(blank) => {
                    assert!(blank > 0, "the framing skips nothing");
                    rest = &rest[blank..];
                }
                Scan::Incomplete if !self.is_too_long_unfinished(rest.len()) => break,
                Scan::Incomplete | Scan::TooLong => {
                    self.refuse(Refusal::FrameTooLong);
                    break;
                }
            }
        }
        if let Some(why) = ended {
            self.end(why);
        }
        input.len() - rest.len()
    }

    pub(super) fn resume_held(&mut self, served: &mut usize) {
        let mut held = self.held.take().expect("it was suspended");
        let mut scan = F::State::default();
        let consumed = self.serve(&held.bytes[held.head..], &mut scan, served);
        held.head += consumed;
        if held.head < held.bytes.len() && !self.is_closing() {
            held.suspended = self.is_over_pending();
            held.scan = scan;
            self.held = Some(held);
        }
        if self.phase == Phase::PeerDone && !self.is_suspended() {
            self.finish_held(served);
        }
    }

    /// After EOF: a frame that is whole because nothing follows is served, one that is not is
    /// dropped.
    pub(super) fn finish_held(&mut self, served: &mut usize) {
        let Some(held) = self.held.take() else { return };
        let frame = &held.bytes[held.head..];
        if !self.framing.complete_at_eof(&held.scan, frame.len()) {
            self.unfinished = true;
        } else if frame.len() > self.framing.frame_len_max() as usize {
            self.refuse(Refusal::FrameTooLong);
        } else {
            self.call(frame);
            *served += 1;
        }
    }

    /// Whether an unfinished frame of this many bytes is too long, whatever follows.
    #[inline]
    fn is_too_long_unfinished(&self, len: usize) -> bool {
        let trailer = self.framing.trailer_len_max().saturating_sub(1) as usize;
        len > self.framing.frame_len_max() as usize + trailer
    }

    /// Serves one request that is not served in a row with others.
    fn call(&mut self, request: &[u8]) {
        let out = SendBuffer::of(&mut self.out);
        if let Some(why) = out.answer(&self.framing, &mut self.service, request) {
            self.end(why);
        }
    }

    #[cold]
    fn refuse(&mut self, why: Refusal) {
        let out = SendBuffer::of(&mut self.out);
        out.append(&self.framing, |reply| {
            self.service.refuse(why, reply);
            Outcome::Close
        });
        self.end(Ended::Refused(why));
    }

    pub(super) fn end(&mut self, why: Ended) {
        if !self.is_closing() {
            self.phase = Phase::Closing;
            self.ended = Some(why);
            self.held = None;
        }
    }

    pub(super) fn discard(&mut self, n: usize) {
        match u32::try_from(n).ok().and_then(|n| self.bound.checked_sub(n)) {
            Some(left) => self.bound = left,
            None => self.phase = Phase::Done,
        }
    }

    #[inline]
    pub(super) fn is_over_pending(&self) -> bool {
        self.unsent_len() > self.bound as usize
    }

    #[inline]
    pub(super) fn unsent_len(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }
}
