//! Tokens of the expression language (`cel-spec/doc/langdef.md`, `parser/gen/CEL.g4`).

use super::source::Fault;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(String),
    Uint(String),
    Float(String),
    Text(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// Operators, brackets, and the words `in`, `true`, `false`, `null`.
    Mark(&'static str),
    End,
}

/// A token, where it stands (in characters), and how it was written.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub token: Token,
    pub at: usize,
    pub written: String,
}

/// Longest first.
const MARKS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// Splits an expression; what is no token is a fault.
pub(super) fn tokens(source: &str) -> Result<Vec<Placed>, Vec<Fault>> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, faults: Vec::new() };
    let mut found = Vec::new();
    while let Some(token) = lexer.next() {
        found.push(token);
    }
    let end = lexer.chars.len();
    found.push(Placed { token: Token::End, at: end, written: "<EOF>".into() });
    if lexer.faults.is_empty() { Ok(found) } else { Err(lexer.faults) }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    faults: Vec<Fault>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn ended(&self) -> bool {
        self.at >= self.chars.len()
    }

    fn written(&self, from: usize) -> String {
        self.chars.get(from..self.at).unwrap_or_default().iter().collect()
    }

    fn next(&mut self) -> Option<Placed> {
        self.skip_blank();
        if self.ended() {
            return None;
        }
        let at = self.at;
        let token = self.token();
        match token {
            Some(token) => Some(Placed { token, at, written: self.written(at) }),
            None => {
                self.at = self.at.max(at + 1);
                let text = self.written(at);
                self.faults.push(Fault::syntax(at, format!("token recognition error at: '{text}'")));
                self.next_after_fault()
            }
        }
    }

    /// One fault is enough: what follows an open quote would only repeat it.
    fn next_after_fault(&mut self) -> Option<Placed> {
        self.at = self.chars.len();
        None
    }

    fn skip_blank(&mut self) {
        loop {
            if matches!(self.peek(0), '\t' | ' ' | '\r' | '\n' | '\u{c}') && !self.ended() {
                self.at += 1;
            } else if self.peek(0) == '/' && self.peek(1) == '/' {
                while !self.ended() && self.peek(0) != '\n' {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Option<Token> {
        let c = self.peek(0);
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Some(self.number());
        }
        if let Some((raw, bytes, skip)) = self.quoted() {
            self.at += skip;
            return self.string(raw, bytes);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let from = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word = self.written(from);
            let mark = WORDS.into_iter().find(|w| *w == word);
            return Some(mark.map_or(Token::Ident(word), Token::Mark));
        }
        let found = MARKS.into_iter().find(|m| m.chars().enumerate().all(|(i, m)| self.peek(i) == m))?;
        self.at += found.len();
        Some(Token::Mark(found))
    }

    /// Whether a string begins here: raw, bytes, and the length of its prefix.
    fn quoted(&self) -> Option<(bool, bool, usize)> {
        let quote = |at: usize| matches!(self.peek(at), '"' | '\'');
        match (self.peek(0).to_ascii_lowercase(), self.peek(1).to_ascii_lowercase()) {
            _ if quote(0) => Some((false, false, 0)),
            ('r', _) if quote(1) => Some((true, false, 1)),
            ('b', _) if quote(1) => Some((false, true, 1)),
            ('b', 'r') if quote(2) => Some((true, true, 2)),
            _ => None,
        }
    }

    fn number(&mut self) -> Token {
        let from = self.at;
        if self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            return self.unsigned(from);
        }
        self.digits();
        let mut float = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            float = true;
            self.at += 1;
            self.digits();
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            float = true;
            self.at += 1 + sign;
            self.digits();
        }
        if float { Token::Float(self.written(from)) } else { self.unsigned(from) }
    }

    fn unsigned(&mut self, from: usize) -> Token {
        let digits = self.written(from);
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return Token::Uint(digits);
        }
        Token::Int(digits)
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn string(&mut self, raw: bool, bytes: bool) -> Option<Token> {
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let mut out: Vec<u8> = Vec::new();
        loop {
            if self.ended() {
                return None;
            }
            let c = self.peek(0);
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += width;
                break;
            }
            if !triple && matches!(c, '\n' | '\r') {
                return None;
            }
            self.at += 1;
            match c {
                '\\' if !raw => self.escape(bytes, &mut out)?,
                '\r' if self.peek(0) == '\n' => {}
                other => push(other, &mut out),
            }
        }
        if bytes { Some(Token::Bytes(out)) } else { String::from_utf8(out).ok().map(Token::Text) }
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Option<()> {
        let c = self.peek(0);
        self.at += 1;
        let plain = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '"' | '\'' | '\\' | '?' | '`' => c,
            'x' | 'X' => return self.code(2, 16, bytes, out),
            'u' if !bytes => return self.code(4, 16, false, out),
            'U' if !bytes => return self.code(8, 16, false, out),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes, out);
            }
            _ => return None,
        };
        push(plain, out);
        Some(())
    }

    fn code(&mut self, digits: usize, radix: u32, byte: bool, out: &mut Vec<u8>) -> Option<()> {
        let text: String = (0..digits).map(|i| self.peek(i)).collect();
        let code = u32::from_str_radix(&text, radix).ok()?;
        self.at += digits;
        match byte {
            true => out.push(u8::try_from(code).ok()?),
            false => push(char::from_u32(code)?, out),
        }
        Some(())
    }
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
