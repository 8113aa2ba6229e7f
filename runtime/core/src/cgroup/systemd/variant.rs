//! Values as text (GLib, GVariant Text Format), as annotations have them: strings, numbers, booleans, arrays and tuples.

use super::wire::Value;

/// Arrays in arrays.
const MAX_DEPTH: usize = 8;

/// A type that a word names, and how its text becomes a value.
type Kind = (&'static str, char, fn(&str) -> Option<Value>);

const KINDS: [Kind; 11] = [
    ("boolean", 'b', |text| text.parse().ok().map(Value::Bool)),
    ("byte", 'y', |text| whole(text).map(Value::Byte)),
    ("int16", 'n', |text| whole(text).map(Value::I16)),
    ("uint16", 'q', |text| whole(text).map(Value::U16)),
    ("int32", 'i', |text| whole(text).map(Value::I32)),
    ("uint32", 'u', |text| whole(text).map(Value::U32)),
    ("int64", 'x', |text| whole(text).map(Value::I64)),
    ("uint64", 't', |text| whole(text).map(Value::U64)),
    ("double", 'd', |text| text.parse().ok().map(Value::Double)),
    ("string", 's', |text| Some(Value::text(text))),
    ("objectpath", 'o', |text| text.starts_with('/').then(|| Value::Path(text.to_owned()))),
];

/// A whole number, also as `0x1f` or `017`.
fn whole<T: TryFrom<i128>>(text: &str) -> Option<T> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(hex), _) => i128::from_str_radix(hex, 16),
        (_, Some(octal)) if !octal.is_empty() => i128::from_str_radix(octal, 8),
        _ => digits.parse(),
    };
    T::try_from(number.ok()?.checked_mul(sign)?).ok()
}

/// Reads a value. `None`: it is not one, or of a kind that is not read here.
pub(super) fn parse(text: &str) -> Option<Value> {
    let mut text = Text { left: text };
    let value = text.value(None, 0)?;
    text.left.trim().is_empty().then_some(value)
}

struct Text<'a> {
    left: &'a str,
}

impl Text<'_> {
    /// A value; of this type, where that has been said.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.left = self.left.trim_start();
        match self.left.chars().next()? {
            '[' => self.array(wanted, depth),
            '(' => self.tuple(wanted, depth),
            '@' => {
                let (kind, rest) = self.left.get(1..)?.split_once(' ')?;
                self.left = rest;
                self.value(Some(kind), depth)
            }
            quote @ ('\'' | '"') => {
                let text = self.quoted(quote)?;
                convert(wanted.unwrap_or("s"), &text).filter(|_| matches!(wanted, None | Some("s" | "o")))
            }
            _ => {
                let word = self.word();
                match KINDS.iter().find(|(name, ..)| *name == word) {
                    Some((_, code, _)) => self.value(Some(code.encode_utf8(&mut [0; 4])), depth),
                    None => convert(wanted.unwrap_or(kind_of(&word)), &word).filter(|v| v.as_str().is_none()),
                }
            }
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        let wanted = match wanted {
            Some(wanted) => Some(wanted.strip_prefix('a')?.to_owned()),
            None => None,
        };
        let mut values = Vec::new();
        self.list(']', |text, _| {
            // The first one says what the others are.
            let kind = wanted.clone().or_else(|| values.first().map(Value::signature));
            let value = text.value(kind.as_deref(), depth + 1)?;
            kind.is_none_or(|kind| kind == value.signature()).then(|| values.push(value))
        })?;
        Some(Value::Array(wanted.or_else(|| values.first().map(Value::signature))?, values))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Option<Value> {
        let mut fields = Vec::new();
        self.list(')', |text, _| text.value(None, depth + 1).map(|value| fields.push(value)))?;
        let tuple = (!fields.is_empty()).then_some(Value::Struct(fields))?;
        wanted.is_none_or(|wanted| wanted == tuple.signature()).then_some(tuple)
    }

    /// What stands between brackets, with commas between.
    fn list(&mut self, end: char, mut item: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        self.left = self.left.get(1..)?;
        for at in 0.. {
            self.left = self.left.trim_start();
            if let Some(rest) = self.left.strip_prefix(end) {
                self.left = rest;
                return Some(());
            }
            if at > 0 {
                self.left = self.left.strip_prefix(',')?;
            }
            item(self, at)?;
        }
        None
    }

    /// A text in quotes; a backslash takes what follows as it is, but for the usual letters.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.left.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.left = self.left.get(at + 1..)?;
                    return Some(text);
                }
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'u' | 'U' => return None,
                    other => other,
                }),
                _ => text.push(c),
            }
        }
        None
    }

    fn word(&mut self) -> String {
        let end =
            self.left.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c)).unwrap_or(self.left.len());
        let (word, rest) = self.left.split_at(end);
        self.left = rest;
        word.to_owned()
    }
}

/// What a bare word is.
fn kind_of(word: &str) -> &'static str {
    match word {
        "true" | "false" => "b",
        _ if word.contains('.') || word.contains("inf") || word.contains("nan") => "d",
        _ => "i",
    }
}

fn convert(kind: &str, text: &str) -> Option<Value> {
    KINDS.iter().find(|(_, code, _)| kind.chars().eq([*code])).and_then(|(.., read)| read(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values() {
        let strings = |texts: &[&str]| Value::Array("s".to_owned(), texts.iter().map(|t| Value::text(t)).collect());
        for (text, want) in [
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a 'b' \"c\"""#, Value::text("a 'b' \"c\"")),
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            (" -5 ", Value::I32(-5)),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("@t 0x10", Value::U64(16)),
            ("byte 010", Value::Byte(8)),
            ("2.5", Value::Double(2.5)),
            ("double 2", Value::Double(2.0)),
            ("objectpath '/a/b'", Value::Path("/a/b".to_owned())),
            ("['a', 'b']", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            ("[uint32 1, 2]", Value::Array("u".to_owned(), vec![Value::U32(1), Value::U32(2)])),
            ("@at [1]", Value::Array("t".to_owned(), vec![Value::U64(1)])),
            ("('x', 5)", Value::Struct(vec![Value::text("x"), Value::I32(5)])),
        ] {
            assert_eq!(parse(text), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(4000);
        for text in [
            "",
            "word",
            "'open",
            "5 6",
            "[]",
            "[1, 'x']",
            "[1",
            "byte 256",
            "uint32 -1",
            "int32 'x'",
            "@q 70000",
            "@as [1]",
            "()",
            "objectpath 'x'",
            "true1",
            "'x' y",
            "@",
            "@as",
            &deep,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
