//! A message with places in it for the numbers of connection and request.

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

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = [("{conn}", Piece::Connection), ("{seq}", Piece::Number)]
                .into_iter()
                .filter_map(|(name, piece)| Some((rest.find(name)?, name, piece)))
                .min_by_key(|&(at, ..)| at);
            let (at, name, piece) = next.unwrap_or((rest.len(), "", Piece::Text(Vec::new())));
            pieces.push(Piece::Text(unescape(&rest[..at])?));
            pieces.push(piece);
            rest = &rest[at + name.len()..];
        }
        pieces.retain(|piece| *piece != Piece::Text(Vec::new()));
        match pieces.is_empty() {
            true => Err("there is nothing in it".to_owned()),
            false => Ok(Template(pieces)),
        }
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'r') => b'\r',
                Some(b'0') => b'\0',
                Some(b'\\') => b'\\',
                _ => return Err(r"after a \ comes one of n t r 0 \".to_owned()),
            },
            byte => byte,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_escapes_are_filled_in() {
        for (text, want) in [
            ("PING\\r\\n", "PING\r\n"),
            ("{conn}-{seq}", "7-42"),
            ("{seq}{seq}, {connection}", "4242, {connection}"),
            ("{\"A\":{conn}}\\\\n\\t\\0", "{\"A\":7}\\n\t\0"),
        ] {
            let template: Template = text.parse().unwrap();
            assert_eq!(template.message(7, 42), want.as_bytes(), "{text}");
        }
        for bad in ["", "\\", "\\x", "a\\"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_it_may_contain_is_known() {
        let template: Template = "a\\n{seq}".parse().unwrap();
        assert!(template.contains(b'\n') && template.contains(b'7') && !template.contains(b'b'));
        assert!(!"a".parse::<Template>().unwrap().contains(b'7'));
    }
}
