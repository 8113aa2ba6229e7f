//! From text to tree: recursive descent along cel-go's grammar, faults in ANTLR's words where they are the common ones.

use super::ast::{Const, Entry, Expr, Field, Kind, Select};
use super::lex::{Placed, Token, tokens};
use super::macros;
use super::source::Fault;

/// The deepest tree that is taken (cel-go's `maxRecursionDepth`).
const MAX_DEPTH: usize = 250;
/// The deepest brackets: less than cel-go takes, since every level takes several frames of this parser's stack.
const MAX_NESTING: usize = 100;
/// The longest expression in characters (cel-go's `expressionSizeCodePointLimit`).
const MAX_LENGTH: usize = 100_000;
/// Words that are no identifiers.
pub(super) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                       BYTES, IDENTIFIER}";

/// Operators: as written, their functions, and how strongly they bind. Longer marks come first.
const OPERATORS: [(&str, &str, u8); 14] = [
    ("||", "_||_", 1),
    ("&&", "_&&_", 2),
    ("==", "_==_", 3),
    ("!=", "_!=_", 3),
    ("<=", "_<=_", 3),
    (">=", "_>=_", 3),
    ("<", "_<_", 3),
    (">", "_>_", 3),
    ("in", "@in", 3),
    ("+", "_+_", 4),
    ("-", "_-_", 4),
    ("*", "_*_", 5),
    ("/", "_/_", 5),
    ("%", "_%_", 5),
];

/// A tree and how many nodes it has.
pub(super) struct Parsed {
    pub root: Expr,
    pub nodes: u32,
}

type Result<T> = std::result::Result<T, Fault>;

/// Parses one expression.
pub(super) fn parse(source: &str) -> std::result::Result<Parsed, Vec<Fault>> {
    let length = source.chars().count();
    if length > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_LENGTH}");
        return Err(vec![Fault::new(0, message)]);
    }
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nodes: 0, depth: 0 };
    parser.whole().map(|root| Parsed { root, nodes: parser.nodes }).map_err(|fault| vec![fault])
}

pub(super) struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    nodes: u32,
    depth: usize,
}

impl Parser {
    fn whole(&mut self) -> Result<Expr> {
        let root = self.expr()?;
        match &self.peek().token {
            Token::End => within_depth(root),
            _ => {
                let rule = if matches!(self.peek().token, Token::Mark(_)) { "mismatched" } else { "extraneous" };
                Err(self.unexpected(rule, "<EOF>"))
            }
        }
    }

    fn peek(&self) -> &Placed {
        // The last token is the end, and nothing steps over it.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek().token, Token::Mark(m) if m == mark)
    }

    fn bump(&mut self) -> Placed {
        let placed = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        placed
    }

    fn take(&mut self, mark: &str) -> Option<usize> {
        self.is(mark).then(|| self.bump().at)
    }

    fn expect(&mut self, mark: &str) -> Result<usize> {
        match self.take(mark) {
            Some(at) => Ok(at),
            None if self.peek().token == Token::End => {
                Err(Fault::syntax(self.peek().at, format!("missing '{mark}' at '<EOF>'")))
            }
            None => Err(self.unexpected("mismatched", &format!("'{mark}'"))),
        }
    }

    fn unexpected(&self, rule: &str, expecting: &str) -> Fault {
        let found = self.peek();
        Fault::syntax(found.at, format!("{rule} input '{}' expecting {expecting}", found.written))
    }

    pub(super) fn node(&mut self, at: usize, kind: Kind) -> Expr {
        self.nodes += 1;
        Expr { id: self.nodes - 1, at, kind }
    }

    pub(super) fn call(&mut self, at: usize, name: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call { name: name.into(), target: None, args })
    }

    fn expr(&mut self) -> Result<Expr> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(too_deep());
        }
        let condition = self.binary(0)?;
        let whole = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.expect(":")?;
                let no = self.expr()?;
                self.node(at, Kind::Cond(Box::new([condition, yes, no])))
            }
        };
        self.depth -= 1;
        Ok(whole)
    }

    /// Operators that bind at least as strongly as `level` (precedence climbing).
    fn binary(&mut self, level: u8) -> Result<Expr> {
        let mut left = self.unary()?;
        let mut length = 0;
        while let Some((mark, name, binds)) = self.operator(level) {
            let at = self.expect(mark)?;
            let right = self.binary(binds + 1)?;
            length += usize::from(binds > 2);
            bounded(length)?;
            left = self.combined(name, at, left, right);
        }
        Ok(left)
    }

    /// The operator that comes next, if it binds strongly enough.
    fn operator(&self, level: u8) -> Option<(&'static str, &'static str, u8)> {
        OPERATORS.iter().find(|(mark, _, binds)| *binds >= level && self.is(mark)).copied()
    }

    /// Terms of `&&` and `||` stand side by side.
    fn combined(&mut self, name: &str, at: usize, left: Expr, right: Expr) -> Expr {
        match (name, left) {
            ("_||_", Expr { kind: Kind::Or(terms), id, at }) => Expr { kind: Kind::Or(with(terms, right)), id, at },
            ("_&&_", Expr { kind: Kind::And(terms), id, at }) => Expr { kind: Kind::And(with(terms, right)), id, at },
            ("_||_", left) => self.node(at, Kind::Or(vec![left, right])),
            ("_&&_", left) => self.node(at, Kind::And(vec![left, right])),
            (_, left) => self.call(at, name, vec![left, right]),
        }
    }

    fn unary(&mut self) -> Result<Expr> {
        for (mark, name) in [("!", "!_"), ("-", "-_")] {
            let Some(at) = self.take(mark) else { continue };
            let mut count = 1;
            while self.take(mark).is_some() {
                count += 1;
            }
            if let (1, "-", Token::Int(digits) | Token::Float(digits)) = (count, mark, self.peek().token.clone()) {
                self.tokens[self.at].token = match self.peek().token {
                    Token::Int(_) => Token::Int(format!("-{digits}")),
                    _ => Token::Float(format!("-{digits}")),
                };
                return self.member();
            }
            let of = self.member()?;
            return Ok(if count % 2 == 0 { of } else { self.call(at, name, vec![of]) });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr> {
        let mut of = self.primary()?;
        let mut length = 0;
        loop {
            length += 1;
            bounded(length)?;
            if let Some(at) = self.take(".") {
                of = self.after_dot(of, at)?;
            } else if let Some(at) = self.take("[") {
                let optional = self.take("?").is_some();
                let index = self.expr()?;
                self.expect("]")?;
                of = self.node(at, Kind::Index { of: Box::new(of), index: Box::new(index), optional });
            } else {
                return Ok(of);
            }
        }
    }

    fn after_dot(&mut self, of: Expr, at: usize) -> Result<Expr> {
        let optional = self.take("?").is_some();
        let placed = self.bump();
        let Token::Ident(name) = placed.token else {
            let found = format!("no viable alternative at input '.{}'", placed.written.replace("<EOF>", ""));
            return Err(Fault::syntax(placed.at, found));
        };
        if self.is("(") && !optional {
            let open = self.bump().at;
            let args = self.list_until(")")?;
            return macros::member(self, of, name, args, open);
        }
        if self.is("{")
            && let Some(prefix) = of.dotted()
        {
            return self.object(format!("{prefix}.{name}"));
        }
        let how = if optional { Select::Optional } else { Select::Plain };
        Ok(self.node(at, Kind::Select { of: Box::new(of), field: name, how }))
    }

    fn list_until(&mut self, close: &str) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        if self.take(close).is_some() {
            return Ok(items);
        }
        loop {
            items.push(self.expr()?);
            if self.take(",").is_none() {
                self.expect(close)?;
                return Ok(items);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let leading = self.take(".").is_some();
        let placed = self.bump();
        let at = placed.at;
        let constant = match placed.token {
            Token::Ident(name) => return self.named(name, at),
            Token::Mark("(") if !leading => {
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Mark("[") if !leading => return self.list(at),
            Token::Mark("{") if !leading => return self.map(at),
            _ => constant(placed)?,
        };
        Ok(self.node(at, Kind::Const(constant)))
    }

    fn named(&mut self, name: String, at: usize) -> Result<Expr> {
        if RESERVED.contains(&name.as_str()) {
            return Err(Fault::new(at, format!("reserved identifier: {name}")));
        }
        if self.is("(") {
            let open = self.bump().at;
            let args = self.list_until(")")?;
            return macros::global(self, name, args, open);
        }
        if self.is("{") {
            return self.object(name);
        }
        Ok(self.node(at, Kind::Ident(name)))
    }

    fn list(&mut self, at: usize) -> Result<Expr> {
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.take("?").is_some();
            items.push((optional, self.expr()?));
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        Ok(self.node(at, Kind::List(items)))
    }

    fn map(&mut self, at: usize) -> Result<Expr> {
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?").is_some();
            let key = self.expr()?;
            self.expect(":")?;
            entries.push(Entry { optional, key, value: self.expr()? });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(self.node(at, Kind::Map(entries)))
    }

    fn object(&mut self, name: String) -> Result<Expr> {
        let at = self.expect("{")?;
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?").is_some();
            let placed = self.bump();
            let Token::Ident(name) = placed.token else {
                let text = format!("mismatched input '{}' expecting {{'}}', ',', '?', IDENTIFIER}}", placed.written);
                return Err(Fault::syntax(placed.at, text));
            };
            self.expect(":")?;
            fields.push(Field { optional, name, value: self.expr()? });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(self.node(at, Kind::Object { name, fields }))
    }
}

/// A literal.
fn constant(placed: Placed) -> Result<Const> {
    let at = placed.at;
    Ok(match placed.token {
        Token::Mark("true") => Const::Bool(true),
        Token::Mark("false") => Const::Bool(false),
        Token::Mark("null") => Const::Null,
        Token::Int(digits) => Const::Int(integer(&digits).ok_or_else(|| Fault::new(at, "invalid int literal"))?),
        Token::Uint(digits) => Const::Uint(unsigned(&digits).ok_or_else(|| Fault::new(at, "invalid uint literal"))?),
        Token::Float(text) => {
            let value: Option<f64> = text.parse().ok().filter(|v: &f64| v.is_finite());
            Const::Double(value.ok_or_else(|| Fault::new(at, "invalid double literal"))?)
        }
        Token::Text(text) => Const::Text(text),
        Token::Bytes(bytes) => Const::Bytes(bytes),
        Token::Mark(_) | Token::End | Token::Ident(_) => {
            let text = format!("mismatched input '{}' expecting {OPERAND}", placed.written);
            return Err(Fault::syntax(at, text));
        }
    })
}

fn integer(digits: &str) -> Option<i64> {
    let (sign, rest) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    match rest.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => digits.parse().ok(),
    }
}

fn unsigned(digits: &str) -> Option<u64> {
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Chains of operators nest as well, and everyone who walks the tree does so by recursion.
fn within_depth(root: Expr) -> Result<Expr> {
    let mut layer = vec![&root];
    for _ in 0..=MAX_DEPTH {
        layer = layer.into_iter().flat_map(Expr::children).collect();
        if layer.is_empty() {
            return Ok(root);
        }
    }
    Err(too_deep())
}

fn bounded(depth: usize) -> Result<()> {
    if depth > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
}

fn too_deep() -> Fault {
    Fault::new(0, format!("expression recursion limit exceeded: {MAX_DEPTH}"))
}

fn with(mut terms: Vec<Expr>, term: Expr) -> Vec<Expr> {
    terms.push(term);
    terms
}
