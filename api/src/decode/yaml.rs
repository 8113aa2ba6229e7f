//! Reads YAML as go-yaml v2 behind `sigs.k8s.io/yaml` does: the first document, keys as strings and sorted, YAML 1.1
//! scalars, merge keys, bounded aliases. Not recursive.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{MAX_DEPTH, Node};
use super::scalar;
use crate::quote::quote;

/// A document and the duplicate keys in it, as `line 3: key "x" already set in map`.
pub(crate) struct Document<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) duplicates: Vec<String>,
}

/// How much aliases may add: nodes, and bytes of text. Go bounds a ratio, which comes to about as many nodes.
const ALIAS_NODES: usize = 100_000;
const ALIAS_BYTES: usize = 8 << 20;

const TOO_DEEP: &str = "yaml: exceeded max depth of 10000";

/// Reads the first document. The error is go-yaml's text where the fault is one it knows.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document<'_>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid leading UTF-8 octet")?;
    if text.strip_prefix('\u{feff}').unwrap_or(text).contains(|c| !is_readable(c)) {
        return Err("yaml: control characters are not allowed".into());
    }
    let mut builder = Builder::new(text);
    let node = builder.document()?;
    Ok(Document { node, duplicates: builder.duplicates })
}

enum Open<'a> {
    List(Vec<Node<'a>>),
    Map(Entries<'a>),
}

/// A mapping that is being read.
#[derive(Default)]
struct Entries<'a> {
    entries: BTreeMap<Cow<'a, str>, Node<'a>>,
    key: Option<Key<'a>>,
}

enum Key<'a> {
    Merge,
    Text(Cow<'a, str>, String),
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    open: Vec<(Open<'a>, usize, usize)>,
    /// Which of the open collections are in flow style (`{}`, `[]`) or inside such.
    flows: Vec<bool>,
    cursor: Cursor<'a>,
    anchors: HashMap<usize, Node<'a>>,
    duplicates: Vec<String>,
    alias_nodes: usize,
    alias_bytes: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            open: Vec::new(),
            flows: Vec::new(),
            cursor: Cursor { text, chars: 0, bytes: 0 },
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            alias_nodes: 0,
            alias_bytes: 0,
        }
    }

    fn document(&mut self) -> Result<Node<'a>, String> {
        loop {
            let (event, span) = match self.parser.next_event() {
                None => return Ok(Node::Null),
                Some(event) => event.map_err(|error| syntax(self.cursor.text, &error))?,
            };
            if let Event::StreamEnd | Event::DocumentEnd = event {
                return Ok(Node::Null);
            }
            if let Some(root) = self.event(event, span)? {
                return Ok(root);
            }
        }
    }

    /// Takes an event; the root where it ends that.
    fn event(&mut self, event: Event<'a>, span: Span) -> Result<Option<Node<'a>>, String> {
        let line = span.start.line();
        self.check_style(&event, span)?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = style == ScalarStyle::Plain && text == "<<" && tag.is_none();
                if is_merge && self.merge_key() {
                    return Ok(None);
                }
                let node = scalar_node(text, style, tag.as_deref())?;
                self.complete(node, anchor, line)
            }
            Event::Alias(id) => {
                let node = self.alias(id)?;
                self.complete(node, 0, line)
            }
            Event::SequenceStart(anchor, _) => self.start(Open::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => self.start(Open::Map(Entries::default()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(items), anchor, line)) => self.complete(Node::List(items), anchor, line),
                Some((Open::Map(map), anchor, line)) => {
                    self.complete(Node::Map(map.entries.into_iter().collect()), anchor, line)
                }
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Refuses what saphyr reads and go-yaml does not: tabs as indentation, block scalars inside flow collections.
    fn check_style(&mut self, event: &Event<'_>, span: Span) -> Result<(), String> {
        let in_flow = self.flows.last().copied().unwrap_or_default();
        let (before, rest) = self.cursor.at(span.start.index());
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                self.flows.push(in_flow || rest.starts_with(['{', '[']));
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.flows.pop();
            }
            Event::Scalar(..) if in_flow && rest.starts_with(['|', '>']) => {
                return Err(located(span.start.line() - 1, true, NO_TOKEN));
            }
            Event::Scalar(..) if !in_flow => {
                let line = before.rsplit('\n').next().unwrap_or_default();
                let indentation = line.trim_end_matches([' ', '\t']);
                if indentation.is_empty() && line.contains('\t') {
                    return Err(tab(self.cursor.text, span.start.line() - 1));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, open: Open<'a>, anchor: usize, line: usize) -> Result<Option<Node<'a>>, String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(TOO_DEEP.into());
        }
        self.open.push((open, anchor, line));
        Ok(None)
    }

    fn alias(&mut self, id: usize) -> Result<Node<'a>, String> {
        let node = self.anchors.get(&id).ok_or("yaml: anchor contains itself")?.clone();
        self.charge(&node)?;
        Ok(node)
    }

    /// Counts a copy of a node, for an alias or behind an anchor (anchors nest, so they multiply too).
    fn charge(&mut self, node: &Node<'a>) -> Result<(), String> {
        let (nodes, bytes) = weight(node);
        self.alias_nodes += nodes;
        self.alias_bytes += bytes;
        if self.alias_nodes > ALIAS_NODES || self.alias_bytes > ALIAS_BYTES {
            return Err("yaml: document contains excessive aliasing".into());
        }
        Ok(())
    }

    /// Takes `<<` where a key is due.
    fn merge_key(&mut self) -> bool {
        match self.open.last_mut() {
            Some((Open::Map(map), _, _)) if map.key.is_none() => {
                map.key = Some(Key::Merge);
                true
            }
            _ => false,
        }
    }

    /// Puts a finished node where it belongs; the node itself where it is the root.
    fn complete(&mut self, node: Node<'a>, anchor: usize, line: usize) -> Result<Option<Node<'a>>, String> {
        if anchor > 0 {
            self.charge(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => return Ok(Some(node)),
            Some((Open::List(items), _, _)) => items.push(node),
            Some((Open::Map(map), _, _)) => match map.key.take() {
                None => map.key = Some(key(node)?),
                Some(Key::Merge) => merge(map, node)?,
                Some(Key::Text(key, shown)) => {
                    if map.entries.insert(key, node).is_some() && self.duplicates.len() < 100 {
                        self.duplicates.push(format!("line {line}: key {shown} already set in map"));
                    }
                }
            },
        }
        Ok(None)
    }
}

fn scalar_node<'a>(text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node<'a>, String> {
    let Some(tag) = tag else {
        return if style == ScalarStyle::Plain { scalar::resolve(text) } else { Ok(Node::String(text)) };
    };
    let known = if tag.is_yaml_core_schema() { tag.suffix.as_str() } else { "" };
    match known {
        "int" | "float" | "bool" | "null" => {
            let node = scalar::resolve(text.clone())?;
            let (found, fits) = match &node {
                Node::Number(number) if number.contains(['.', 'e']) => ("float", known == "float"),
                Node::Number(_) => ("int", matches!(known, "int" | "float")),
                Node::Bool(_) => ("bool", known == "bool"),
                Node::Null => ("null", known == "null"),
                _ => ("str", false),
            };
            if fits { Ok(node) } else { Err(format!("yaml: cannot decode !!{found} `{text}` as a !!{known}")) }
        }
        "binary" => {
            let bytes = STANDARD.decode(text.replace(['\n', ' '], ""));
            let bytes = bytes.map_err(|_| "yaml: !!binary value contains invalid base64 data")?;
            Ok(Node::String(String::from_utf8_lossy(&bytes).into_owned().into()))
        }
        _ => Ok(Node::String(text)),
    }
}

/// A key as JSON has it, and as go-yaml shows it in an error.
fn key(node: Node<'_>) -> Result<Key<'_>, String> {
    match node {
        Node::String(text) => {
            let shown = quote(&text);
            Ok(Key::Text(text, shown))
        }
        Node::Number(text) => {
            let shown = text.clone().into_owned();
            Ok(Key::Text(text, shown))
        }
        Node::Bool(value) => Ok(Key::Text(value.to_string().into(), value.to_string())),
        Node::Null => Err("unsupported map key of type: %!s(<nil>), key: <nil>, value: <nil>".into()),
        Node::List(_) | Node::Map(_) => Err("yaml: invalid map key: map[interface {}]interface {}{}".into()),
    }
}

/// `<<: *other` or `<<: [*one, *other]`: what stands there already is overwritten, as go-yaml v2 does.
fn merge<'a>(map: &mut Entries<'a>, node: Node<'a>) -> Result<(), String> {
    let sources = match node {
        Node::Map(entries) => vec![Node::Map(entries)],
        Node::List(items) => items.into_iter().rev().collect(),
        _ => vec![Node::Null],
    };
    for source in sources {
        let Node::Map(entries) = source else {
            return Err("yaml: map merge requires map or sequence of maps as the value".into());
        };
        map.entries.extend(entries);
    }
    Ok(())
}

fn weight(node: &Node<'_>) -> (usize, usize) {
    let add = |(nodes, bytes), (n, b)| (nodes + n, bytes + b);
    match node {
        Node::Null | Node::Bool(_) => (1, 0),
        Node::Number(text) | Node::String(text) => (1, text.len()),
        Node::List(items) => items.iter().map(weight).fold((1, 0), add),
        Node::Map(entries) => entries.iter().map(|(k, v)| add(weight(v), (0, k.len()))).fold((1, 0), add),
    }
}

/// Where events begin, counted in characters, as a place in the text. Events come in order, mostly.
struct Cursor<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl<'a> Cursor<'a> {
    /// The text before and after a place; a place that was passed counts as the last one.
    fn at(&mut self, chars: usize) -> (&'a str, &'a str) {
        let rest = self.text.get(self.bytes..).unwrap_or_default();
        let ahead = chars.saturating_sub(self.chars);
        self.bytes += rest.char_indices().nth(ahead).map_or(rest.len(), |(at, _)| at);
        self.chars += ahead;
        self.text.split_at_checked(self.bytes).unwrap_or((self.text, ""))
    }
}

const NO_TOKEN: &str = "found character that cannot start any token";

/// The scanners differ in their words; those that clients meet are go-yaml's.
fn syntax(text: &str, error: &saphyr_parser::ScanError) -> String {
    let info = error.info();
    if info.contains("recursion limit") {
        return TOO_DEEP.into();
    }
    let scanner = [
        ("unexpected character", NO_TOKEN),
        ("mapping values are not allowed", "mapping values are not allowed in this context"),
        ("block sequence entries", "block sequence entries are not allowed in this context"),
        ("unknown escape", "found unknown escape character"),
        ("simple key", "could not find expected ':'"),
        ("unexpected end of stream", "found unexpected end of stream"),
    ];
    let parser = [
        ("flow mapping", "did not find expected ',' or '}'"),
        ("flow sequence", "did not find expected ',' or ']'"),
        ("illegal placement of ':'", "did not find expected ',' or ']'"),
        ("block mapping", "did not find expected key"),
        ("block collection", "did not find expected '-' indicator"),
        ("node content", "did not find expected node content"),
    ];
    let find = |list: &[(&str, &'static str)]| list.iter().find(|(part, _)| info.contains(part)).map(|(_, text)| *text);
    let line = error.marker().line().saturating_sub(1);
    if info.contains("unknown anchor") {
        return format!("yaml: unknown anchor '{}' referenced", anchor_at(text, error.marker().index()));
    }
    if info.contains("tab") {
        return tab(text, line);
    }
    match (find(&scanner), find(&parser)) {
        (Some(text), _) => located(line, true, text),
        (None, text) => located(line, false, text.unwrap_or(info)),
    }
}

/// The name of the alias that begins at a character.
fn anchor_at(text: &str, index: usize) -> String {
    let rest = text.chars().skip(index).skip_while(|c| *c == '*');
    rest.take_while(|c| !c.is_whitespace() && !",[]{}".contains(*c)).collect()
}

/// A line (the first one from `line` on, from nought) that a tab indents: inside a plain scalar, or where a token should
/// start.
fn tab(text: &str, line: usize) -> String {
    let is_tabbed = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    let line = text.lines().enumerate().skip(line).find(|(_, text)| is_tabbed(text)).map_or(line, |(at, _)| at);
    let before: String = text.lines().take(line).collect::<Vec<_>>().join("\n");
    let continues = before.trim_end().ends_with(|c: char| !":-,[]{}\"'|>".contains(c));
    let fault = if continues { "found a tab character that violates indentation" } else { NO_TOKEN };
    located(line, true, fault)
}

/// Whether go-yaml's reader takes a character.
fn is_readable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
}

/// go-yaml counts lines from nought for its parser's faults and from one for its scanner's, and says none for the first.
fn located(line: usize, scanner: bool, text: &str) -> String {
    match line {
        0 => format!("yaml: {text}"),
        line => format!("yaml: line {}: {text}", line + usize::from(scanner)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::decode::node::{Path, Strict};

    fn check(text: &str) -> (String, Vec<String>) {
        let document = parse(text.as_bytes()).expect(text);
        let value = document.node.plain(&mut Path::default(), &mut Strict::default());
        (value.to_string(), document.duplicates)
    }

    #[test]
    fn documents_read_as_go_yaml_reads_them() {
        let cases = [
            ("", "null"),
            ("# nothing\n", "null"),
            ("a: 1\n---\nb: 2\n", r#"{"a":1}"#),
            ("b: yes\na: [1, 'yes', \"2\"]", r#"{"a":[1,"yes","2"],"b":true}"#),
            ("1: x\ntrue: z\n", r#"{"1":"x","true":"z"}"#),
            ("a: &x {k: v}\nb: {<<: *x, l: w}\nc: *x", r#"{"a":{"k":"v"},"b":{"k":"v","l":"w"},"c":{"k":"v"}}"#),
            ("a: |\n  text\n  more\nb: >-\n  fold\n  ed\n", r#"{"a":"text\nmore\n","b":"fold ed"}"#),
            ("a: !!str 1\nb: !!int \"2\"\n", r#"{"a":"1","b":2}"#),
            ("a:\nb: {}\n", r#"{"a":null,"b":{}}"#),
            (r#"{"apiVersion":"v1","n":1.50}"#, r#"{"apiVersion":"v1","n":1.5}"#),
        ];
        for (text, json) in cases {
            assert_eq!(check(text).0, json, "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_told_with_their_line() {
        let (json, duplicates) = check("m:\n  l: {a: b, a: c}\nd:\n  k: v\n  k: w\n1: 2\n1: 3\n");
        assert_eq!(json, r#"{"1":3,"d":{"k":"w"},"m":{"l":{"a":"c"}}}"#);
        let expected = ["line 2: key \"a\"", "line 5: key \"k\"", "line 7: key 1"];
        assert_eq!(duplicates, expected.map(|text| format!("{text} already set in map")));
    }

    #[test]
    fn faults_are_go_yaml_s() {
        let cases = [
            ("{\n", "yaml: line 1: did not find expected node content"),
            ("\tapiVersion: v1", "yaml: found character that cannot start any token"),
            ("a: 1\n\tb: 2\n", "yaml: line 2: found a tab character that violates indentation"),
            ("a:\n\tb: 2\n", "yaml: line 2: found character that cannot start any token"),
            ("a: *x", "yaml: unknown anchor 'x' referenced"),
            ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
            ("a: \u{1}", "yaml: control characters are not allowed"),
            ("- a\nb: c", "yaml: line 1: did not find expected '-' indicator"),
            ("a: 1\na: [2", "yaml: line 2: did not find expected ',' or ']'"),
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
        ];
        for (text, fault) in cases {
            assert_eq!(parse(text.as_bytes()).err().as_deref(), Some(fault), "{text}");
        }
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (one, two) in ["ab", "bc", "cd", "de", "ef", "fg", "gh"].iter().filter_map(|p| p.split_at_checked(1)) {
            bomb += &format!("{two}: &{two} [{}*{one}]\n", format!("*{one},").repeat(9));
        }
        assert_eq!(parse(bomb.as_bytes()).err().as_deref(), Some("yaml: document contains excessive aliasing"));
        let fat = format!("a: &a \"{}\"\nb: [{}*a]\n", "x".repeat(1 << 20), "*a,".repeat(99));
        assert_eq!(parse(fat.as_bytes()).err().as_deref(), Some("yaml: document contains excessive aliasing"));
        let deep = "[".repeat(1_000_000);
        assert_eq!(parse(deep.as_bytes()).err().as_deref(), Some("yaml: exceeded max depth of 10000"));
        assert!(parse(b"a: *a").is_err() && parse(b"a: &a [*a]").is_err() && parse(b"\xff").is_err());
    }
}
