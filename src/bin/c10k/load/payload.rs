//! What is sent, and what must come back: a different message for each connection and each
//! request, so that a reply to another one is noticed.

use std::ops::RangeInclusive;

use c10k::service::Reply;
use clap::ValueEnum;

use super::template::Template;
use crate::protocol::FramingKind;

/// The digits of a message's number: a shorter message has the last of them.
const ID_LEN: usize = 16;

/// What the load generator can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// The reply is the request
    Echo,
    /// The reply to {"A":7,"B":4} is {"Sum":11}
    Sum,
    /// The message as it is, without a delimiter; any reply up to the delimiter will do
    Raw,
}

impl Dialect {
    pub(crate) fn framing(self) -> FramingKind {
        match self {
            Dialect::Sum => FramingKind::Json,
            Dialect::Echo | Dialect::Raw => FramingKind::Delimiter,
        }
    }
}

/// Makes and checks messages.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    message: Message,
    /// What the server puts before each reply of echo.
    prefix: Vec<u8>,
    /// What the replies say matters.
    checked: bool,
}

#[derive(Debug, Clone)]
enum Message {
    Filled(Filled),
    Sum,
    Echoed(Template),
    Raw(Template),
}

/// Messages of filler that begin with a number.
#[derive(Debug, Clone)]
struct Filled {
    /// The longest message, whose digits are still to be filled in.
    template: Vec<u8>,
    size_min: usize,
    /// How each byte of a number is written: with two of sixteen digits, none of which is the
    /// delimiter.
    digits: Box<[[u8; 2]; 256]>,
}

impl Filled {
    /// Connection and number in sixteen digits, the ones that change soonest last.
    #[inline]
    fn id(&self, connection: u32, number: u32) -> [u8; ID_LEN] {
        let bytes = (u64::from(connection) << 32 | u64::from(number)).to_be_bytes();
        let mut id = [0; ID_LEN];
        for (two, byte) in id.as_chunks_mut().0.iter_mut().zip(bytes) {
            *two = self.digits[usize::from(byte)];
        }
        id
    }

    /// A message, but for its first bytes, which are the digits.
    #[inline]
    fn message(&self, connection: u32, number: u32) -> &[u8] {
        match self.size_min == self.template.len() {
            true => &self.template,
            false => &self.template[..self.size(connection, number)],
        }
    }

    /// Any size as often as any other, and the same for the same message.
    #[cold]
    fn size(&self, connection: u32, number: u32) -> usize {
        let sizes = (self.template.len() - self.size_min + 1) as u128;
        let id = u64::from(connection) << 32 | u64::from(number);
        let random = fastrand::Rng::with_seed(id).u64(..);
        self.size_min + ((u128::from(random) * sizes) >> 64) as usize
    }
}

impl Payload {
    /// Messages of these sizes, each of which is to come back behind the prefix.
    pub(crate) fn echo(sizes: RangeInclusive<u32>, delimiter: u8, prefix: &[u8]) -> Payload {
        let mut usable = (b'0'..=b'9').chain(b'a'..=b'z').filter(|&byte| byte != delimiter);
        let sixteen: [u8; 16] = std::array::from_fn(|_| usable.next().expect("36 less one"));
        let digits = std::array::from_fn(|byte| [sixteen[byte >> 4], sixteen[byte & 0xf]]);
        let filler = usable.next().expect("20 less one");
        let template = vec![filler; *sizes.end() as usize];
        let filled =
            Filled { template, size_min: *sizes.start() as usize, digits: Box::new(digits) };
        Payload { message: Message::Filled(filled), prefix: prefix.into(), checked: true }
    }

    /// Sums of the numbers of connection and request.
    pub(crate) fn sum() -> Payload {
        Payload { message: Message::Sum, prefix: Vec::new(), checked: true }
    }

    /// Messages from a template, which are to come back behind the prefix.
    pub(crate) fn echoed(template: Template, prefix: &[u8]) -> Payload {
        Payload { message: Message::Echoed(template), prefix: prefix.into(), checked: true }
    }

    /// Messages from a template, to which any reply is right.
    pub(crate) fn raw(template: Template) -> Payload {
        Payload { message: Message::Raw(template), prefix: Vec::new(), checked: false }
    }

    /// The same, with any reply being right.
    pub(crate) fn unchecked(self) -> Payload {
        Payload { checked: false, ..self }
    }

    /// The sizes of the smallest and of the largest message; those of templates and sums, whose
    /// numbers grow, of the first one.
    pub(crate) fn sizes(&self) -> (u32, u32) {
        match &self.message {
            Message::Filled(filled) => (filled.size_min as u32, filled.template.len() as u32),
            Message::Sum => (13, 13),
            Message::Echoed(template) | Message::Raw(template) => {
                let len = template.message(0, 0).len() as u32;
                (len, len)
            }
        }
    }

    /// Writes request number `number` of a connection.
    #[inline]
    pub(crate) fn write(&self, connection: u32, number: u32, out: &mut Reply<'_>) {
        match &self.message {
            Message::Filled(filled) => {
                let id = filled.id(connection, number);
                let message = filled.message(connection, number);
                match message.split_first_chunk::<ID_LEN>() {
                    Some((_, filler)) => {
                        out.extend(&id);
                        out.extend(filler);
                    }
                    None => out.extend(&id[ID_LEN - message.len()..]),
                }
            }
            Message::Sum => write!(out, "{{\"A\":{connection},\"B\":{number}}}"),
            Message::Echoed(template) => out.extend(&template.message(connection, number)),
            Message::Raw(template) => {
                out.extend(&template.message(connection, number));
                out.unterminated();
            }
        }
    }

    /// Whether `reply` is, byte for byte, the reply to request number `number` of a connection.
    #[inline]
    pub(crate) fn answers(&self, connection: u32, number: u32, reply: &[u8]) -> bool {
        if !self.checked {
            return true;
        }
        let echo = reply.strip_prefix(self.prefix.as_slice());
        match &self.message {
            Message::Filled(filled) => echo.is_some_and(|echo| {
                let id = filled.id(connection, number);
                let message = filled.message(connection, number);
                match message.split_first_chunk::<ID_LEN>() {
                    Some((_, filler)) => echo
                        .split_first_chunk()
                        .is_some_and(|(start, rest)| *start == id && rest == filler),
                    None => *echo == id[ID_LEN - message.len()..],
                }
            }),
            Message::Sum => {
                let sum = u64::from(connection) + u64::from(number);
                reply == format!("{{\"Sum\":{sum}}}").as_bytes()
            }
            Message::Echoed(template) | Message::Raw(template) => {
                echo.is_some_and(|echo| *echo == template.message(connection, number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use c10k::Session;
    use c10k::framing::Delimiter;
    use c10k::service::{Outcome, Service};

    struct Silent;
    impl Service for Silent {
        fn call(&mut self, _: &[u8], _: &mut Reply<'_>) -> Outcome {
            Outcome::Silence
        }
    }

    fn message(payload: &Payload, connection: u32, number: u32) -> Vec<u8> {
        let mut session = Session::new(Delimiter::new(b'\n'), Silent);
        session.push(|_, out| payload.write(connection, number, out));
        session.unsent().strip_suffix(b"\n").unwrap().to_vec()
    }

    #[test]
    fn each_message_answers_itself_only() {
        for delimiter in [b'\n', b'0', b'g', b'z'] {
            let payload = Payload::echo(64..=64, delimiter, b"");
            let one = message(&payload, 7, 1);
            assert_eq!(one.len(), 64);
            assert!(!one.contains(&delimiter));
            assert!(payload.answers(7, 1, &one));
            assert!(!payload.answers(7, 2, &one));
            assert!(!payload.answers(8, 1, &one));
            assert!(!payload.answers(7, 1, &one[..63]));
            for at in 0..one.len() {
                let mut broken = one.clone();
                broken[at] ^= 1;
                assert!(!payload.answers(7, 1, &broken), "byte {at}");
            }
        }
    }

    #[test]
    fn short_messages_keep_the_digits_that_change() {
        let payload = Payload::echo(2..=2, b'\n', b"got:");
        let message = message(&payload, 1, 0x1a2);
        assert_eq!(message, b"a2");
        assert!(payload.answers(1, 0x1a2, b"got:a2"));
        assert!(!payload.answers(1, 0x1a2, b"a2"));
        assert!(Payload::echo(0..=0, b'\n', b"").answers(0, 0, b""));
    }

    #[test]
    fn sums_are_worked_out() {
        let payload = Payload::sum();
        assert_eq!(message(&payload, 7, 4), br#"{"A":7,"B":4}"#);
        assert!(payload.answers(7, 4, br#"{"Sum":11}"#));
        assert!(!payload.answers(7, 4, br#"{"Sum":12}"#));
    }

    #[test]
    fn sizes_are_spread_over_their_range() {
        let payload = Payload::echo(20..=23, b'\n', b"");
        let mut seen = [0; 4];
        for number in 0..4_000 {
            let one = message(&payload, 3, number);
            assert!(payload.answers(3, number, &one) && !payload.answers(4, number, &one));
            seen[one.len() - 20] += 1;
        }
        assert!(seen.iter().all(|count| (900..1_100).contains(count)), "{seen:?}");
    }

    #[test]
    fn templates_are_echoed_and_raw_ones_are_not_looked_at() {
        let template: Template = "GET {conn}/{seq}\\r".parse().unwrap();
        let echoed = Payload::echoed(template.clone(), b"got:");
        assert_eq!(message(&echoed, 7, 12), b"GET 7/12\r");
        assert!(echoed.answers(7, 12, b"got:GET 7/12\r"));
        assert!(!echoed.answers(7, 13, b"got:GET 7/12\r"));
        assert!(echoed.unchecked().answers(7, 13, b"anything"));

        let raw = Payload::raw(template);
        let mut session = Session::new(Delimiter::new(b'\n'), Silent);
        session.push(|_, out| raw.write(1, 2, out));
        assert_eq!(session.unsent(), b"GET 1/2\r", "no delimiter is added");
        assert!(raw.answers(1, 2, b"200"));
    }
}
