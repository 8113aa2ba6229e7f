//! Seeded mutations of what strangers write, for tests of what reads it: thousands in each run of the tests, a hundred
//! times as many with `cargo xtask attacks`. A failure repeats with its seed. (What instrumented fuzzers need beyond that,
//! a nightly compiler, would keep them out of the runs that everybody does.)

use std::ops::Range;

use serde_json::{Value, json};

/// Set by `cargo xtask attacks`: tests of attacks run at full size.
pub const FULL: &str = "TRIMTAB_ATTACKS_FULL";
/// A mutation is a few changes.
const MAX_CHANGES: u64 = 4;
/// Bytes that one change of a text takes away at most, and copies from another.
const MAX_CUT: usize = 30;
const MAX_COPY: u64 = 80;

/// How many mutations a test reads of each case that usually reads `usual`.
pub fn rounds(usual: u64) -> u64 {
    if std::env::var_os(FULL).is_some() { 100 * usual } else { usual }
}

/// Numbers that repeat with their seed (SplitMix64: Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// For the mutation with this number of the case with that one.
    pub fn of(case: usize, mutation: u64) -> Self {
        Self::new(case as u64 * 1_000_003 + mutation)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// One of these, if there are any.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    fn changes(&mut self) -> u64 {
        1 + self.below(MAX_CHANGES)
    }

    /// A short range of a text.
    fn range(&mut self, length: usize) -> Range<usize> {
        let mut place = || self.below(length as u64 + 1) as usize;
        let (one, two) = (place(), place());
        let from = one.min(two);
        from..one.max(two).min(from + MAX_CUT)
    }
}

/// A text with a few changes: cut short, without a part, with one of `pieces` or a part of one of `others` for a part of
/// its own, with another byte.
pub fn text(bytes: &[u8], pieces: &[&str], others: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.changes() {
        let range = random.range(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(range.end),
            1 => drop(bytes.drain(range)),
            2 => drop(bytes.splice(range, random.pick(pieces).copied().unwrap_or_default().bytes())),
            3 => {
                let other = random.pick(others).copied().unwrap_or_default();
                let start = random.below(other.len() as u64) as usize;
                let end = other.len().min(start + random.below(MAX_COPY) as usize);
                bytes.splice(range, other.get(start..end).unwrap_or_default().iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(range.start) {
                    *byte = random.below(256) as u8;
                }
            }
        }
    }
    bytes
}

/// Values that are somewhere at an end of what can be.
fn extremes() -> Vec<Value> {
    let numbers = [0, 1, 5, 7, 4095, 4096, 1 << 31, u32::MAX.into(), 1 << 32, i64::MAX as u64, u64::MAX];
    let texts =
        ["", "\u{0}", "../..", "/", "/proc/self/fd/7", "a\nb", "\u{feff}\u{202e}", "0-3,7", "9999999999", "=", "-"];
    let others = [
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!([null]),
        json!(-1),
        json!(i64::MIN),
        json!(1.5),
        json!(1e300),
    ];
    let long = json!("x".repeat(300));
    let numbers = numbers.into_iter().map(Value::from);
    numbers.chain(texts.into_iter().map(Value::from)).chain(others).chain([long]).collect()
}

/// JSON pointers to each value of a document, the whole of it first.
pub fn pointers(value: &Value) -> Vec<String> {
    fn collect(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                collect(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }),
            Value::Array(items) => (0..).zip(items).for_each(|(n, value)| collect(value, &format!("{at}/{n}"), found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(value, "", &mut found);
    found
}

/// A document with a few changes: without a value, with an extreme one or one of `others` in its place, with one twice.
pub fn document(value: &Value, others: &[Value], random: &mut Random) -> Value {
    let mut value = value.clone();
    let extremes = extremes();
    for _ in 0..random.changes() {
        let all = pointers(&value);
        let Some(pointer) = random.pick(all.get(1..).unwrap_or_default()).cloned() else { continue };
        match random.below(4) {
            0 => remove(&mut value, &pointer),
            1 => twice(&mut value, &pointer),
            2 => put(&mut value, &pointer, random.pick(&extremes)),
            _ => {
                let Some(other) = random.pick(others) else { continue };
                let there = pointers(other);
                // The same field of another document, or else anything of it.
                let from = if there.contains(&pointer) { Some(&pointer) } else { random.pick(&there) };
                put(&mut value, &pointer, from.and_then(|from| other.pointer(from)));
            }
        }
    }
    value
}

fn put(document: &mut Value, pointer: &str, value: Option<&Value>) {
    if let (Some(place), Some(value)) = (document.pointer_mut(pointer), value) {
        *place = value.clone();
    }
}

/// The value that a pointer leads to is in another one: with that, and its key there.
fn parent<'a>(document: &'a mut Value, pointer: &str) -> Option<(&'a mut Value, String)> {
    let (parent, key) = pointer.rsplit_once('/')?;
    Some((document.pointer_mut(parent)?, key.replace("~1", "/").replace("~0", "~")))
}

fn remove(document: &mut Value, pointer: &str) {
    match parent(document, pointer) {
        Some((Value::Object(fields), key)) => drop(fields.remove(&key)),
        Some((Value::Array(items), key)) => {
            drop(key.parse().ok().filter(|at| *at < items.len()).map(|at: usize| items.remove(at)))
        }
        _ => {}
    }
}

fn twice(document: &mut Value, pointer: &str) {
    let Some(value) = document.pointer(pointer).cloned() else { return };
    match parent(document, pointer) {
        Some((Value::Object(fields), key)) => drop(fields.insert(format!("{key}2"), value)),
        Some((Value::Array(items), _)) => items.push(value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_repeat_with_their_seed_and_differ_without() {
        let document_of =
            |seed| document(&json!({"a": [1, {"b/c": 2}], "d": "e"}), &[json!({"d": 7})], &mut Random::new(seed));
        let text_of = |seed| text(b"some text", &["piece"], &[b"another"], &mut Random::new(seed));
        let documents: Vec<Value> = (0..100).map(document_of).collect();
        let texts: Vec<Vec<u8>> = (0..100).map(text_of).collect();
        assert_eq!(documents, (0..100).map(document_of).collect::<Vec<_>>());
        assert_eq!(texts, (0..100).map(text_of).collect::<Vec<_>>());
        let kinds = |list: Vec<String>| list.into_iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(kinds(documents.iter().map(Value::to_string).collect()) > 50);
        assert!(kinds(texts.iter().map(|text| format!("{text:?}")).collect()) > 50);
        // Every kind of change comes to be: a field gone, one there twice, one of another document.
        assert!(documents.iter().any(|d| d.get("d").is_none()) && documents.iter().any(|d| d.get("d2").is_some()));
        assert!(documents.iter().any(|d| d["d"] == 7));
    }

    #[test]
    fn nothing_is_too_small_to_be_changed() {
        for seed in 0..200 {
            text(b"", &[], &[], &mut Random::new(seed));
            document(&json!(null), &[], &mut Random::new(seed));
            document(&json!([]), &[json!({})], &mut Random::new(seed));
        }
    }
}
