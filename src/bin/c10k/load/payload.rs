//! What is sent, and what must come back: a different message for each connection and each
//! request, so that a reply to another one is noticed.

use c10k::service::Reply;

use crate::protocol::Protocol;

/// The digits of a message's number take up to this much of it.
const ID_LEN: usize = 16;

/// Makes and checks messages.
#[derive(Debug)]
pub(crate) enum Payload {
    Echo {
        /// What the server puts before each reply.
        prefix: Vec<u8>,
        /// A message whose digits are still to be filled in.
        template: Vec<u8>,
        /// Sixteen bytes to write a number with, none of which is the delimiter.
        digits: [u8; 16],
    },
    Sum,
}

impl Payload {
    /// Messages of `size` bytes for echo; for sum the size is what it is.
    pub(crate) fn new(protocol: Protocol, size: usize, delimiter: u8, prefix: &str) -> Payload {
        if protocol == Protocol::Sum {
            return Payload::Sum;
        }
        let mut usable = (b'0'..=b'9').chain(b'a'..=b'z').filter(|&byte| byte != delimiter);
        let digits = std::array::from_fn(|_| usable.next().expect("36 less one"));
        let filler = usable.next().expect("20 less one");
        Payload::Echo { prefix: prefix.into(), template: vec![filler; size], digits }
    }

    /// Writes request number `number` of a connection.
    #[inline]
    pub(crate) fn write(&self, connection: u32, number: u32, out: &mut Reply<'_>) {
        match self {
            Payload::Echo { template, digits, .. } => {
                let id = id(digits, connection, number);
                let id = &id[ID_LEN.saturating_sub(template.len())..];
                out.extend(id);
                out.extend(&template[id.len()..]);
            }
            Payload::Sum => {
                write!(out, "{{\"A\":{connection},\"B\":{number}}}");
            }
        }
    }

    /// Whether `reply` is, byte for byte, the reply to request number `number` of a connection.
    #[inline]
    pub(crate) fn answers(&self, connection: u32, number: u32, reply: &[u8]) -> bool {
        match self {
            Payload::Echo { prefix, template, digits } => {
                let id = id(digits, connection, number);
                let id = &id[ID_LEN.saturating_sub(template.len())..];
                reply.len() == prefix.len() + template.len()
                    && reply.strip_prefix(prefix.as_slice()).is_some_and(|message| {
                        message[..id.len()] == *id && message[id.len()..] == template[id.len()..]
                    })
            }
            Payload::Sum => {
                let sum = u64::from(connection) + u64::from(number);
                reply == format!("{{\"Sum\":{sum}}}").as_bytes()
            }
        }
    }
}

/// Connection and number in sixteen digits, the ones that change soonest last.
#[inline]
fn id(digits: &[u8; 16], connection: u32, number: u32) -> [u8; ID_LEN] {
    let id = u64::from(connection) << 32 | u64::from(number);
    std::array::from_fn(|at| digits[(id >> (4 * (ID_LEN - 1 - at))) as usize & 0xf])
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
            let payload = Payload::new(Protocol::Echo, 64, delimiter, "");
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
        let payload = Payload::new(Protocol::Echo, 2, b'\n', "got:");
        let message = message(&payload, 1, 0x1a2);
        assert_eq!(message, b"a2");
        assert!(payload.answers(1, 0x1a2, b"got:a2"));
        assert!(!payload.answers(1, 0x1a2, b"a2"));
        assert!(Payload::new(Protocol::Echo, 0, b'\n', "").answers(0, 0, b""));
    }

    #[test]
    fn sums_are_worked_out() {
        let payload = Payload::new(Protocol::Sum, 0, b'\n', "");
        assert_eq!(message(&payload, 7, 4), br#"{"A":7,"B":4}"#);
        assert!(payload.answers(7, 4, br#"{"Sum":11}"#));
        assert!(!payload.answers(7, 4, br#"{"Sum":12}"#));
    }
}
