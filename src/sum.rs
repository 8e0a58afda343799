//! The sum service: `{"A":7,"B":4}` is answered by `{"Sum":11}`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::service::{Outcome, Refusal, Reply, Service};

/// Replies with the sum of the members `A` and `B` of a JSON object, both 64-bit signed integers.
///
/// Keys match in either case, one that is missing is 0, the last of several counts, and others
/// are ignored. Anything else is answered by `{"Error":"..."}` with what is wrong and where.
///
/// ```
/// use c10k::framing::Delimiter;
/// use c10k::service::Sum;
/// use c10k::Session;
///
/// let mut session = Session::new(Delimiter::new(b'\n'), Sum);
/// session.receive(b"{\"A\":7,\"b\":4}\n");
/// assert_eq!(session.unsent(), b"{\"Sum\":11}\n");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum;

impl Service for Sum {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        let sum = match serde_json::from_slice::<Terms>(request) {
            Ok(Terms { a, b }) => a
                .checked_add(b)
                .ok_or_else(|| format!("the sum of A = {a} and B = {b} does not fit 64 bits")),
            Err(error) => Err(error.to_string()),
        };
        match sum {
            Ok(sum) => {
                write!(reply, "{{\"Sum\":{sum}}}");
                Outcome::Reply
            }
            Err(why) => {
                write_error(&why, reply);
                Outcome::Reject
            }
        }
    }

    fn refuse(&mut self, why: Refusal, reply: &mut Reply<'_>) {
        write_error(&why.to_string(), reply);
    }

    fn is_reply(&self, datagram: &[u8]) -> bool {
        let datagram = datagram.trim_ascii_start();
        datagram.starts_with(b"{\"Sum\":") || datagram.starts_with(b"{\"Error\":")
    }
}

fn write_error(why: &str, reply: &mut Reply<'_>) {
    let why = serde_json::Value::from(why);
    write!(reply, "{{\"Error\":{why}}}");
}

/// A request. serde's derive matches keys to the letter, so this is by hand.
#[derive(Default)]
struct Terms {
    a: i64,
    b: i64,
}

enum Key {
    A,
    B,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "A" | "a" => Key::A,
                    "B" | "b" => Key::B,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Terms, D::Error> {
        struct TermsVisitor;
        impl<'de> Visitor<'de> for TermsVisitor {
            type Value = Terms;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object like {\"A\":7,\"B\":4}")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Terms, M::Error> {
                let mut terms = Terms::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::A => terms.a = map.next_value()?,
                        Key::B => terms.b = map.next_value()?,
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(terms)
            }
        }
        deserializer.deserialize_map(TermsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8]) -> (String, Outcome) {
        let mut out = Vec::new();
        let outcome = Sum.call(request, &mut Reply::new(&mut out));
        (String::from_utf8(out).unwrap(), outcome)
    }

    #[test]
    fn sums() {
        for (request, sum) in [
            (r#"{"A":7,"B":4}"#, 11),
            (r#"{"a":7,"b":-4}"#, 3),
            (r#" { "B" : 4 } "#, 4),
            ("{}", 0),
            (r#"{"C":[{}],"A":1,"AA":"x"}"#, 1),
            (r#"{"\u0041":5}"#, 5),
            (r#"{"A":1,"A":2}"#, 2),
            (r#"{"A":9223372036854775807,"B":-9223372036854775808}"#, -1),
        ] {
            let want = format!("{{\"Sum\":{sum}}}");
            assert_eq!(answer(request.as_bytes()), (want, Outcome::Reply), "{request}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let deep = "[".repeat(100_000);
        let deep_unknown = format!(r#"{{"C":{deep}"#);
        for (request, part) in [
            (
                &br#"{"A":9223372036854775807,"B":1}"#[..],
                "9223372036854775807 and B = 1 does not fit",
            ),
            (br#"{"A":9223372036854775808}"#, "line 1 column 24"),
            (br#"{"A":1.5}"#, "1.5"),
            (br#"{"A":"7"}"#, "line 1 column 8"),
            (br#"{"A":null}"#, "null"),
            (br#"{"A":1e400}"#, "out of range"),
            (b"[7,4]", "an object like"),
            (b"", "EOF"),
            (b"{\"A\":1} x", "trailing characters"),
            (b"{\"A\xff\":1}", "unicode"),
            (b"{\"A\0\":1}", "control character"),
            (deep.as_bytes(), "an object like"),
            (deep_unknown.as_bytes(), "column"),
        ] {
            let (reply, outcome) = answer(request);
            assert_eq!(outcome, Outcome::Reject);
            let error: serde_json::Value = serde_json::from_str(&reply).expect(&reply);
            let why = error["Error"].as_str().expect("a text");
            assert!(why.contains(part), "{:?}: {why}", String::from_utf8_lossy(request));
        }
    }
}
