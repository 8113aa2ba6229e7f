//! Reads JSON as Go's `encoding/json` does, with its syntax errors. Not recursive.

use std::borrow::Cow;

use super::node::{MAX_DEPTH, Node};

const END: &str = "unexpected end of JSON input";

/// Reads one JSON value that is all of `bytes`. The error is Go's text.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node<'_>, String> {
    let mut parser = Parser { bytes, at: 0, open: Vec::new() };
    let node = parser.value()?;
    match parser.peek() {
        None => Ok(node),
        Some(c) => Err(invalid(c, "after top-level value")),
    }
}

/// A container that is being read.
enum Open<'a> {
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, str>, Node<'a>)>, Cow<'a, str>),
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open<'a>>,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Node<'a>, String> {
        loop {
            let Some(mut node) = self.begin()? else { continue };
            loop {
                match self.open.pop() {
                    None => return Ok(node),
                    Some(open) => match self.end(open, node)? {
                        Some(closed) => node = closed,
                        None => break,
                    },
                }
            }
        }
    }

    /// Reads a scalar or an empty container, or opens a container up to its first value (`None`).
    fn begin(&mut self) -> Result<Option<Node<'a>>, String> {
        let c = self.peek().ok_or(END)?;
        match c {
            b'{' | b'[' => self.open(c),
            b'"' => {
                self.at += 1;
                self.string().map(|s| Some(Node::String(s)))
            }
            b'-' | b'0'..=b'9' => self.number().map(Some),
            b't' => self.literal("true", Node::Bool(true)),
            b'f' => self.literal("false", Node::Bool(false)),
            b'n' => self.literal("null", Node::Null),
            _ => Err(invalid(c, "looking for beginning of value")),
        }
    }

    fn open(&mut self, c: u8) -> Result<Option<Node<'a>>, String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(invalid(c, "exceeded max depth"));
        }
        self.at += 1;
        match (c, self.peek()) {
            (b'[', Some(b']')) => self.skip(Node::List(Vec::new())),
            (b'[', _) => self.push(Open::List(Vec::new())),
            (_, Some(b'}')) => self.skip(Node::Map(Vec::new())),
            _ => {
                let key = self.key()?;
                self.push(Open::Map(Vec::new(), key))
            }
        }
    }

    fn push(&mut self, open: Open<'a>) -> Result<Option<Node<'a>>, String> {
        self.open.push(open);
        Ok(None)
    }

    fn skip(&mut self, node: Node<'a>) -> Result<Option<Node<'a>>, String> {
        self.at += 1;
        Ok(Some(node))
    }

    /// Puts a value into its container; the container where that ends it.
    fn end(&mut self, open: Open<'a>, node: Node<'a>) -> Result<Option<Node<'a>>, String> {
        let c = self.peek().ok_or(END)?;
        match open {
            Open::List(mut items) => {
                items.push(node);
                match c {
                    b',' => self.at += 1,
                    b']' => return self.skip(Node::List(items)),
                    _ => return Err(invalid(c, "after array element")),
                }
                self.push(Open::List(items))
            }
            Open::Map(mut entries, key) => {
                entries.push((key, node));
                match c {
                    b',' => self.at += 1,
                    b'}' => return self.skip(Node::Map(entries)),
                    _ => return Err(invalid(c, "after object key:value pair")),
                }
                let key = self.key()?;
                self.push(Open::Map(entries, key))
            }
        }
    }

    fn key(&mut self) -> Result<Cow<'a, str>, String> {
        match self.peek().ok_or(END)? {
            b'"' => self.at += 1,
            c => return Err(invalid(c, "looking for beginning of object key string")),
        }
        let key = self.string()?;
        match self.peek().ok_or(END)? {
            b':' => self.at += 1,
            c => return Err(invalid(c, "after object key")),
        }
        Ok(key)
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Go looks at a blank after the last byte: within a word that is an error of its own.
    fn byte_or_blank(&self) -> u8 {
        self.byte().unwrap_or(b' ')
    }

    fn literal(&mut self, text: &'static str, node: Node<'a>) -> Result<Option<Node<'a>>, String> {
        for expected in text.bytes() {
            let c = self.byte_or_blank();
            if c != expected {
                return Err(invalid(c, &format!("in literal {text} (expecting '{}')", char::from(expected))));
            }
            self.at += 1;
        }
        Ok(Some(node))
    }

    fn number(&mut self) -> Result<Node<'a>, String> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Node::Number(String::from_utf8_lossy(text)))
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        match self.byte_or_blank() {
            b'0'..=b'9' => {}
            c => return Err(invalid(c, context)),
        }
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        Ok(())
    }

    /// A string after its opening quote. Borrowed where it has no escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let start = self.at;
        loop {
            match self.byte().ok_or(END)? {
                b'"' => break,
                b'\\' => return self.escaped(start),
                c @ 0..0x20 => return Err(invalid(c, "in string literal")),
                _ => self.at += 1,
            }
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(String::from_utf8_lossy(text))
    }

    fn escaped(&mut self, start: usize) -> Result<Cow<'a, str>, String> {
        let mut out = self.bytes.get(start..self.at).unwrap_or_default().to_vec();
        loop {
            let c = self.byte().ok_or(END)?;
            self.at += 1;
            match c {
                b'"' => return Ok(Cow::Owned(String::from_utf8_lossy(&out).into_owned())),
                b'\\' => {
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return Err(invalid(c, "in string literal")),
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.byte_or_blank();
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(invalid(c, "in string escape code")),
        })
    }

    /// A `\u` escape, with its second half where it is a surrogate; half a pair becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hex()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let back = self.at;
        if self.bytes.get(self.at..self.at + 2) == Some(b"\\u") {
            self.at += 2;
            let second = self.hex()?;
            if first < 0xdc00 && (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Result<u32, String> {
        let mut code = 0;
        for _ in 0..4 {
            let c = self.byte_or_blank();
            let digit = char::from(c).to_digit(16);
            code = code * 16 + digit.ok_or_else(|| invalid(c, "in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(code)
    }
}

fn invalid(c: u8, context: &str) -> String {
    let shown = match c {
        b'\'' => "\\'".into(),
        b'"' => "\"".into(),
        b'\\' => "\\\\".into(),
        7 => "\\a".into(),
        8 => "\\b".into(),
        11 => "\\v".into(),
        12 => "\\f".into(),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\t' => "\\t".into(),
        0..0x20 | 0x7f => format!("\\x{c:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{c:04x}"),
        _ => char::from(c).to_string(),
    };
    format!("invalid character '{shown}' {context}")
}

#[cfg(test)]
mod tests {
    use super::{Node, parse};
    use crate::decode::node::{Path, Strict};

    #[test]
    fn syntax_errors_are_go_s() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("\"a", "unexpected end of JSON input"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("tru", "invalid character ' ' in literal true (expecting 'e')"),
            ("-", "invalid character ' ' in numeric literal"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("\0", r"invalid character '\x00' looking for beginning of value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            (r#""\q""#, "invalid character 'q' in string escape code"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text.as_bytes()), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn values_are_kept_as_written() {
        let text = br#" {"a": [1.50, -2e3, "\ud83d\ude00\ud83d x", true, null], "a": {}} "#;
        let node = parse(text).expect("valid");
        let mut strict = Strict::default();
        let value = node.clone().plain(&mut Path::default(), &mut strict);
        assert_eq!(value.to_string(), r#"{"a":{}}"#);
        assert_eq!(strict.0, [r#"duplicate field "a""#]);
        let Node::Map(entries) = node else { panic!("a map") };
        let first = entries.into_iter().next().expect("an entry").1.plain(&mut Path::default(), &mut strict);
        assert_eq!(first.to_string(), "[1.5,-2000,\"😀\u{fffd} x\",true,null]");
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let deep = "[".repeat(3_000_000);
        assert_eq!(parse(deep.as_bytes()), Err("invalid character '[' exceeded max depth".into()));
    }
}
