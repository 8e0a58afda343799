//! A message with places in it for the numbers of connection and request.

use std::mem;
use std::str::FromStr;

/// What `--message` is given: text with `{conn}` and `{seq}` in it, and escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Connection,
    Number,
}

impl Template {
    pub(crate) fn message(&self, connection: u32, number: u32) -> Vec<u8> {
        let mut message = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => message.extend(text),
                Piece::Connection => message.extend(connection.to_string().bytes()),
                Piece::Number => message.extend(number.to_string().bytes()),
            }
        }
        message
    }

    /// Whether a message may have this byte in it.
    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0.iter().any(|piece| match piece {
            Piece::Text(text) => text.contains(&byte),
            Piece::Connection | Piece::Number => byte.is_ascii_digit(),
        })
    }
}

impl Template {
    /// Reads a template, whose text need not be UTF-8.
    pub(crate) fn parse(text: &[u8]) -> Result<Template, String> {
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(&byte) = rest.first() {
            let len = match (byte, placeholder(rest)) {
                (b'\\', _) => {
                    bytes.push(escaped(rest.get(1))?);
                    2
                }
                (_, Some(name)) => {
                    pieces.extend([Piece::Text(mem::take(&mut bytes)), Piece::named(name)?]);
                    name.len() + 2
                }
                _ => {
                    bytes.push(byte);
                    1
                }
            };
            rest = &rest[len..];
        }
        pieces.push(Piece::Text(bytes));
        pieces.retain(|piece| *piece != Piece::Text(Vec::new()));
        match pieces.is_empty() {
            true => Err("there is nothing in it".to_owned()),
            false => Ok(Template(pieces)),
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        Template::parse(text.as_bytes())
    }
}

impl Piece {
    fn named(name: &str) -> Result<Piece, String> {
        match name {
            "conn" => Ok(Piece::Connection),
            "seq" => Ok(Piece::Number),
            _ => Err(format!(
                "there is no {{{name}}}, only {{conn}} and {{seq}}; \\{{ is a brace itself"
            )),
        }
    }
}

/// The name in braces with which this text begins. Other braces, such as those of JSON, are text.
fn placeholder(text: &[u8]) -> Option<&str> {
    let name = text.strip_prefix(b"{")?;
    let name = str::from_utf8(&name[..memchr::memchr(b'}', name)?]).ok()?;
    let mut letters = name.chars();
    let named = letters.next()?.is_ascii_alphabetic()
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-.:".contains(letter));
    named.then_some(name)
}

fn escaped(byte: Option<&u8>) -> Result<u8, String> {
    match byte {
        Some(b'n') => Ok(b'\n'),
        Some(b't') => Ok(b'\t'),
        Some(b'r') => Ok(b'\r'),
        Some(b'0') => Ok(b'\0'),
        Some(&byte @ (b'\\' | b'{')) => Ok(byte),
        _ => Err(r"after a \ comes one of n t r 0 \ {".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_escapes_are_filled_in() {
        for (text, want) in [
            ("PING\\r\\n", "PING\r\n"),
            ("{conn}-{seq}", "7-42"),
            ("{seq}{seq}, \\{connection}", "4242, {connection}"),
            ("\\{conn}{{conn}}", "{conn}{7}"),
            ("{ conn } {} {1} {\u{e4}} {", "{ conn } {} {1} {\u{e4}} {"),
            ("{\"A\":{\"B\":{seq}}}", "{\"A\":{\"B\":42}}"),
            ("{\"A\":{conn}}\\\\n\\t\\0", "{\"A\":7}\\n\t\0"),
        ] {
            let template: Template = text.parse().unwrap();
            assert_eq!(template.message(7, 42), want.as_bytes(), "{text}");
        }
        let bytes = Template::parse(b"\xff{seq}{\xfe}").unwrap();
        assert_eq!(bytes.message(7, 42), b"\xff42{\xfe}");
        for bad in ["", "\\", "\\x", "a\\", "\\\u{e4}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_for_what_is_not_known_is_refused() {
        for bad in ["k{foo}", "{Conn}", "{connection}", "{rand:1..9}", "{\"A\":{sequence}}"] {
            let why = bad.parse::<Template>().unwrap_err();
            assert!(why.contains("only {conn} and {seq}"), "{bad}: {why}");
        }
    }

    #[test]
    fn what_it_may_contain_is_known() {
        let template: Template = "a\\n{seq}".parse().unwrap();
        assert!(template.contains(b'\n') && template.contains(b'7') && !template.contains(b'b'));
        assert!(!"a".parse::<Template>().unwrap().contains(b'7'));
    }
}
