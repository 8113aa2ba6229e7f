//! Text in quotes as Go's `%q` writes it.

/// Quotes a text: what cannot be printed is escaped.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    text.chars().for_each(|c| escape(c, &mut out));
    out.push('"');
    out
}

fn escape(c: char, out: &mut String) {
    let code = u32::from(c);
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if is_printable(c) => out.push(c),
        _ if code < 0x80 => out.push_str(&format!("\\x{code:02x}")),
        _ if code < 0x10000 => out.push_str(&format!("\\u{code:04x}")),
        _ => out.push_str(&format!("\\U{code:08x}")),
    }
}

/// Go's `unicode.IsPrint`: of white space only the blank. Rust's own rule for the rest differs in grapheme extenders
/// alone, which both print inside a word.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace() || c.escape_debug().len() > 2 && !is_extender(c))
}

fn is_extender(c: char) -> bool {
    // Combining marks: escaped by Rust at the beginning of a text, printed by Go.
    matches!(u32::from(c), 0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f)
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        let cases = [
            ("a b", r#""a b""#),
            ("a\0b\u{7f}", r#""a\x00b\x7f""#),
            ("\u{7}\u{b}\"\\'", r#""\a\v\"\\'""#),
            ("é\u{a0}\u{2028}😀\u{301}", "\"é\\u00a0\\u2028😀\u{301}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ];
        for (text, quoted) in cases {
            assert_eq!(super::quote(text), quoted);
        }
    }
}
