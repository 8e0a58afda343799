//! Where one message ends and the next begins: a stream has no messages of its own (`tcp(7)`).
//!
//! A framing is a scanner. It is shown the bytes of a stream in the pieces in which they happen
//! to arrive, each byte once, and says where a frame ends. What it must remember between two
//! pieces is its [`State`](Framing::State); it never sees an earlier byte again.

use std::fmt;

use memchr::memchr;

/// Cuts a stream of bytes into frames.
///
/// A framing finds ends, and the [session](crate::Session) does the rest: it keeps the bytes of an
/// unfinished frame, and it enforces [`frame_len_max`](Framing::frame_len_max), so that no framing
/// has to check it.
///
/// Each [`scan`](Framing::scan) must get on: a frame ends within the bytes given, no frame has no
/// bytes at all, nothing is skipped within a frame, and no skip is of 0 bytes. A framing that
/// breaks this panics in the session, which ends the connection as a panic of the service does
/// ([`Ended::Panicked`](crate::session::Ended::Panicked)).
///
/// ```
/// use c10k::Session;
/// use c10k::framing::{Framing, Scan};
/// use c10k::service::Echo;
///
/// /// A frame is a byte that says how many bytes follow, and those.
/// #[derive(Clone)]
/// struct Counted;
///
/// impl Framing for Counted {
///     /// How many bytes are still to come, once the first one was seen.
///     type State = Option<usize>;
///
///     fn frame_len_max(&self) -> u32 {
///         1 + 100
///     }
///
///     fn scan(&self, left: &mut Option<usize>, _: usize, bytes: &[u8]) -> Scan {
///         let (due, seen) = match *left {
///             Some(left) => (left, 0),
///             None => (usize::from(bytes[0]), 1),
///         };
///         if bytes.len() >= seen + due {
///             return Scan::Frame { end: seen + due, trailer: 0 };
///         }
///         *left = Some(seen + due - bytes.len());
///         Scan::Incomplete
///     }
///
///     fn end_reply(&self, _: &mut Vec<u8>) {}
/// }
///
/// let mut session = Session::new(Counted, Echo);
/// assert_eq!(session.receive(b"\x03abc\0\x02d"), 2);
/// assert_eq!(session.receive(b"e"), 1);
/// assert_eq!(session.unsent(), b"\x03abc\0\x02de");
/// session.receive(&[&b"\xff"[..], &[b'x'; 200]].concat()); // longer than it said it could be
/// assert!(session.unsent().ends_with(b"error: frame too long"));
/// ```
pub trait Framing: Clone {
    /// What is known of an unfinished frame, besides its length.
    type State: Default + fmt::Debug + Send;

    /// Whether the start of the next frame can be found after a request that made no sense. If
    /// not, the connection is closed after such a request.
    fn resyncs(&self) -> bool {
        true
    }

    /// The longest frame, in bytes, without its trailer. Default: [`FRAME_LEN_MAX`].
    ///
    /// The session refuses a longer one before the service sees it, and an unfinished one as soon
    /// as it has come to more than that.
    fn frame_len_max(&self) -> u32 {
        FRAME_LEN_MAX
    }

    /// The longest [trailer](Scan::Frame::trailer), in bytes. Default: 1.
    ///
    /// All of it but the last byte may have arrived with a frame that is unfinished, and is not
    /// counted as a part of that. A framing whose frames end with `\r\n` says 2.
    fn trailer_len_max(&self) -> u32 {
        1
    }

    /// Looks for the end of the frame that begins, or goes on, at the start of `bytes`, which are
    /// never none.
    ///
    /// `carried` counts the bytes of it that earlier calls saw and answered by
    /// [`Scan::Incomplete`]; `state` is what they left. With 0, a new frame begins, and `state`
    /// is the default.
    fn scan(&self, state: &mut Self::State, carried: usize, bytes: &[u8]) -> Scan;

    /// Whether the `carried` bytes are a whole frame if the stream ends here.
    fn complete_at_eof(&self, state: &Self::State, carried: usize) -> bool {
        let _ = (state, carried);
        false
    }

    /// Appends what ends a reply.
    fn end_reply(&self, reply: &mut Vec<u8>);
}

/// What [`Framing::scan`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The frame goes on after all the bytes given.
    Incomplete,
    /// The frame ends before `bytes[end]`, and the last `trailer` bytes of it are not content.
    Frame {
        /// How many of the bytes given belong to the frame. 0 only if it began before them, and
        /// what follows it shows that it has ended.
        end: usize,
        /// How many bytes of the frame, at its end, only mark the end. With a trailer of several
        /// bytes, some of them may have come before those given.
        trailer: usize,
    },
    /// This many bytes, at least one, belong to no frame. Only before one begins.
    Skip(usize),
    /// The frame is longer than allowed, as its first bytes say. Of a frame that turns out to be,
    /// [the session](Framing::frame_len_max) says so.
    TooLong,
}

/// The longest frame, in bytes, where nothing else is said: 64 KiB.
pub const FRAME_LEN_MAX: u32 = 64 * 1024;

/// A frame ends at a delimiter byte, which is not part of it.
///
/// ```
/// use c10k::framing::{Delimiter, Framing, Scan};
///
/// let lines = Delimiter::new(b'\n');
/// assert_eq!(lines.scan(&mut (), 0, b"ab\ncd"), Scan::Frame { end: 3, trailer: 1 });
/// assert_eq!(lines.scan(&mut (), 0, b"cd"), Scan::Incomplete);
/// assert_eq!(lines.scan(&mut (), 2, b"ef\n"), Scan::Frame { end: 3, trailer: 1 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter {
    len_max: u32,
    byte: u8,
}

impl Delimiter {
    /// Frames that end at `byte`, of at most [`FRAME_LEN_MAX`] bytes without it.
    #[must_use]
    pub const fn new(byte: u8) -> Delimiter {
        Delimiter { byte, len_max: FRAME_LEN_MAX }
    }

    /// The longest frame accepted, in bytes, the delimiter not counted.
    #[must_use]
    pub const fn max_len(self, len_max: u32) -> Delimiter {
        Delimiter { len_max, ..self }
    }
}

impl Framing for Delimiter {
    type State = ();

    #[inline]
    fn frame_len_max(&self) -> u32 {
        self.len_max
    }

    #[inline]
    fn scan(&self, (): &mut (), _: usize, bytes: &[u8]) -> Scan {
        match memchr(self.byte, bytes) {
            Some(at) => Scan::Frame { end: at + 1, trailer: 1 },
            None => Scan::Incomplete,
        }
    }

    #[inline]
    fn end_reply(&self, reply: &mut Vec<u8>) {
        reply.push(self.byte);
    }
}

/// A frame is one JSON value. Values follow each other with nothing, or white space, in between.
///
/// Only the extent of a value is found here, by its brackets and quotes; whether it is well
/// formed is for the service to say, and after one that is not there is no way to find the next.
///
/// ```
/// use c10k::framing::{Framing, JsonValue, Scan};
///
/// let mut state = Default::default();
/// let values = JsonValue::new();
/// assert_eq!(values.scan(&mut state, 0, br#"{"A":"}"#), Scan::Incomplete);
/// assert_eq!(values.scan(&mut state, 7, br#""}{"#), Scan::Frame { end: 2, trailer: 0 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonValue {
    len_max: u32,
}

impl JsonValue {
    /// Values of at most [`FRAME_LEN_MAX`] bytes.
    #[must_use]
    pub const fn new() -> JsonValue {
        JsonValue { len_max: FRAME_LEN_MAX }
    }

    /// The longest value accepted, in bytes.
    #[must_use]
    pub const fn max_len(self, len_max: u32) -> JsonValue {
        JsonValue { len_max }
    }
}

impl Default for JsonValue {
    fn default() -> Self {
        JsonValue::new()
    }
}

/// How far into a JSON value the scanner is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonState {
    within: Within,
    /// Brackets open, of either kind. The length of the frame bounds it.
    depth: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    /// Between tokens of an array or object, or before the value.
    #[default]
    Structure,
    String,
    /// After a backslash in a string.
    Escape,
    /// A number, `true`, `false` or `null` that is the whole value: it ends where something else
    /// begins.
    Scalar,
}

impl Framing for JsonValue {
    type State = JsonState;

    fn resyncs(&self) -> bool {
        false
    }

    #[inline]
    fn frame_len_max(&self) -> u32 {
        self.len_max
    }

    fn scan(&self, state: &mut JsonState, carried: usize, bytes: &[u8]) -> Scan {
        if carried == 0 {
            let blank = bytes.iter().take_while(|byte| is_space(**byte)).count();
            if blank > 0 {
                return Scan::Skip(blank);
            }
        }
        match scan_value(state, bytes) {
            Some(end) => Scan::Frame { end, trailer: 0 },
            None => Scan::Incomplete,
        }
    }

    fn complete_at_eof(&self, state: &JsonState, carried: usize) -> bool {
        carried > 0 && state.within == Within::Scalar
    }

    fn end_reply(&self, _: &mut Vec<u8>) {}
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Where the value ends, if it does within `bytes`.
fn scan_value(state: &mut JsonState, bytes: &[u8]) -> Option<usize> {
    for (at, &byte) in bytes.iter().enumerate() {
        match state.within {
            Within::Escape => state.within = Within::String,
            Within::String => match byte {
                b'\\' => state.within = Within::Escape,
                b'"' => {
                    state.within = Within::Structure;
                    if state.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            },
            Within::Scalar => {
                if is_space(byte) || matches!(byte, b'{' | b'}' | b'[' | b']' | b'"' | b',' | b':')
                {
                    return Some(at);
                }
            }
            Within::Structure => match byte {
                b'"' => state.within = Within::String,
                b'{' | b'[' => state.depth += 1,
                // One that was never opened is a value of its own, for the service to refuse.
                b'}' | b']' if state.depth <= 1 => return Some(at + 1),
                b'}' | b']' => state.depth -= 1,
                _ if state.depth > 0 => {}
                b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => state.within = Within::Scalar,
                // No value begins with this: no need to wait for more of it.
                _ => return Some(at + 1),
            },
        }
    }
    None
}

/// Whatever one read returned is a message: no framing at all, and what one peer wrote at once
/// may arrive as two. For protocols that do not care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    len_max: u32,
}

impl Chunk {
    /// Messages of at most [`FRAME_LEN_MAX`] bytes.
    #[must_use]
    pub const fn new() -> Chunk {
        Chunk { len_max: FRAME_LEN_MAX }
    }

    /// The longest message accepted, in bytes.
    #[must_use]
    pub const fn max_len(self, len_max: u32) -> Chunk {
        Chunk { len_max }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk::new()
    }
}

impl Framing for Chunk {
    type State = ();

    #[inline]
    fn frame_len_max(&self) -> u32 {
        self.len_max
    }

    fn scan(&self, (): &mut (), _: usize, bytes: &[u8]) -> Scan {
        Scan::Frame { end: bytes.len(), trailer: 0 }
    }

    fn end_reply(&self, _: &mut Vec<u8>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a stream that arrives in the pieces given, and how it ends.
    fn frames<F: Framing>(framing: &F, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, &'static str) {
        let (mut out, mut frame, mut state) = (Vec::new(), Vec::new(), F::State::default());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                match framing.scan(&mut state, frame.len(), rest) {
                    Scan::Incomplete => {
                        frame.extend_from_slice(rest);
                        rest = &[];
                    }
                    Scan::Frame { end, trailer } => {
                        frame.extend_from_slice(&rest[..end]);
                        frame.truncate(frame.len() - trailer);
                        out.push(std::mem::take(&mut frame));
                        state = F::State::default();
                        rest = &rest[end..];
                    }
                    Scan::Skip(n) => rest = &rest[n..],
                    Scan::TooLong => unreachable!("none of these looks ahead"),
                }
            }
        }
        let whole = framing.complete_at_eof(&state, frame.len());
        if whole {
            out.push(std::mem::take(&mut frame));
        }
        (out, if frame.is_empty() { "clean" } else { "unfinished" })
    }

    #[test]
    fn lines_are_cut_at_the_delimiter() {
        for (input, want, end) in [
            ("abc\n", vec!["abc"], "clean"),
            ("abcd", vec![], "unfinished"),
            ("\n\na\n", vec!["", "", "a"], "clean"),
        ] {
            let (got, how) = frames(&Delimiter::new(b'\n'), &[input.as_bytes()]);
            let got: Vec<_> = got.iter().map(|f| std::str::from_utf8(f).unwrap()).collect();
            assert_eq!((got, how), (want, end), "{input:?}");
        }
    }

    #[test]
    fn json_values_are_cut_where_they_end() {
        for (input, want, end) in [
            (r#"{"A":7,"B":4}"#, vec![r#"{"A":7,"B":4}"#], "clean"),
            (r#"{}{}  [1,[2]]"#, vec!["{}", "{}", "[1,[2]]"], "clean"),
            (" \n\t", vec![], "clean"),
            (r#"{"a":"}\"{"}x"#, vec![r#"{"a":"}\"{"}"#, "x"], "clean"),
            (r#""\\" 12 true"#, vec![r#""\\""#, "12", "true"], "clean"),
            ("12{}", vec!["12", "{}"], "clean"),
            ("}]", vec!["}", "]"], "clean"),
            ("{[}", vec![], "unfinished"),
            ("{[}]", vec!["{[}]"], "clean"),
            (r#"{"open"#, vec![], "unfinished"),
            ("nul", vec!["nul"], "clean"),
        ] {
            let (got, how) = frames(&JsonValue::new(), &[input.as_bytes()]);
            let got: Vec<_> = got.iter().map(|f| std::str::from_utf8(f).unwrap()).collect();
            assert_eq!((got, how), (want, end), "{input:?}");
        }
    }

    #[test]
    fn a_chunk_is_what_one_read_returned() {
        let (got, _) = frames(&Chunk::new(), &[b"ab", b"c\n"]);
        assert_eq!(got, [b"ab".to_vec(), b"c\n".to_vec()]);
    }
}
