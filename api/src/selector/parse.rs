//! Reads label selectors: `x in (a, b),y,!z,w=v`, token by token as upstream does, with its errors.

use std::collections::BTreeSet;

use super::label::{LabelRequirement, Operator};
use crate::field::{Error, Path};
use crate::validation::text::{label_value, qualified_name};

#[derive(Clone, Debug, PartialEq)]
enum Token {
    End,
    Error,
    Open,
    Close,
    Comma,
    Not,
    In,
    NotIn,
    Word,
    Operator(Operator),
}

type Scanned = (Token, String);

/// Reads all requirements, in the order written.
pub(super) fn parse(text: &str) -> Result<Vec<LabelRequirement>, String> {
    let mut parser = Parser { tokens: scan(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::Word | Token::Not, _) => {
                let requirement = parser.requirement();
                requirements.push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
            }
            (Token::End, _) => return Ok(requirements),
            (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
        }
        match (parser.next(), parser.peek()) {
            ((Token::End, _), _) => return Ok(requirements),
            ((Token::Comma, _), (Token::Word | Token::Not, _)) => {}
            ((Token::Comma, _), (_, text)) => return Err(format!("found '{text}', expected: identifier after ','")),
            ((_, text), _) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// All tokens, with an end. A NUL ends the text as well.
fn scan(text: &str) -> Vec<Scanned> {
    let mut rest = text.split('\0').next().unwrap_or_default();
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else { break };
        let end = if is_symbol(first) {
            symbol_end(rest)
        } else {
            rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        tokens.push(token(word));
        rest = after;
    }
    tokens.push((Token::End, String::new()));
    tokens
}

/// The end of the longest operator at the beginning.
fn symbol_end(text: &str) -> usize {
    if text.starts_with("==") || text.starts_with("!=") { 2 } else { 1 }
}

fn token(text: &str) -> Scanned {
    let token = match text {
        ")" => Token::Close,
        "(" => Token::Open,
        "," => Token::Comma,
        "!" => Token::Not,
        "in" => Token::In,
        "notin" => Token::NotIn,
        "=" => Token::Operator(Operator::Equals),
        "==" => Token::Operator(Operator::DoubleEquals),
        "!=" => Token::Operator(Operator::NotEquals),
        ">" => Token::Operator(Operator::GreaterThan),
        "<" => Token::Operator(Operator::LessThan),
        text if text.starts_with(is_symbol) => Token::Error,
        _ => Token::Word,
    };
    (token, text.to_owned())
}

struct Parser {
    tokens: Vec<Scanned>,
    at: usize,
}

impl Parser {
    /// The token at hand, where `in` and `notin` are words.
    fn peek(&self) -> Scanned {
        match self.raw() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            token => token,
        }
    }

    fn raw(&self) -> Scanned {
        self.tokens.get(self.at).cloned().unwrap_or((Token::End, String::new()))
    }

    fn next(&mut self) -> Scanned {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let negated = self.peek().0 == Token::Not;
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            (Token::Word, key) => key,
            (_, text) => return Err(format!("found '{text}', expected: identifier")),
        };
        if let [_, ..] = qualified_name(&key).as_slice() {
            return Err(Error::invalid(Path::default(), &*key, qualified_name(&key).join("; ")).to_string());
        }
        if negated {
            return requirement(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return requirement(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.value()?],
        };
        requirement(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let token = self.raw();
        self.at += 1;
        match token {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Operator(operator), _) => Ok(operator),
            (_, text) => Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Word, value) => Ok(value),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if let (token, text) = self.next()
            && token != Token::Open
        {
            return Err(format!("found '{text}' expected: '('"));
        }
        match self.peek() {
            (Token::Word | Token::Comma, _) => {
                let values = self.list()?;
                self.at += 1;
                Ok(values.into_iter().collect())
            }
            (Token::Close, _) => {
                self.at += 1;
                Ok(vec![String::new()])
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// Words between commas, up to the closing parenthesis; nothing between commas is the empty word.
    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Word, value) => {
                    values.insert(value);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if values.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        values.insert(String::new());
                    }
                    if next == Token::Close {
                        return Ok(values);
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }
}

/// Checks a requirement: its key, and how many and which values its operator takes.
pub(super) fn requirement(key: String, operator: Operator, values: Vec<String>) -> Result<LabelRequirement, String> {
    let mut errors = Vec::new();
    let key_errors = qualified_name(&key);
    if !key_errors.is_empty() {
        errors.push(Error::invalid(Path::new("key"), &*key, key_errors.join("; ")));
    }
    let path = Path::new("values");
    let wrong = match (operator, values.as_slice()) {
        (Operator::In | Operator::NotIn, []) => Some("for 'in', 'notin' operators, values set can't be empty"),
        (Operator::Exists | Operator::DoesNotExist, [_, ..]) => {
            Some("values set must be empty for exists and does not exist")
        }
        _ => None,
    };
    errors.extend(wrong.map(|detail| Error::invalid(path.clone(), values.clone(), detail)));
    for (at, value) in values.iter().enumerate() {
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
            let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
            errors.push(Error::invalid(path.index(at), &**value, detail));
        }
    }
    for (at, value) in values.iter().enumerate() {
        let wrong = label_value(value);
        if !wrong.is_empty() {
            errors.push(Error::invalid(path.index(at).key(&key), &**value, wrong.join("; ")));
        }
    }
    match errors.as_slice() {
        [] => Ok(LabelRequirement { key, operator, values }),
        [one] => Err(one.to_string()),
        many => Err(format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
    }
}
