//! Documents with each field wrong, and thousands of mutations of them: nothing panics, an error is one line, and what is
//! taken has what later code relies on. Seeded: a failure repeats.

use mutations::{Random, rounds, text};

use crate::document::{self, Descriptor, Document, MAX_LAYERS};
use crate::reference::is_digest;
use crate::{Error, Result};

/// Mutations of each line. All of them take about a second.
const MUTATIONS: u64 = 1000;
/// What a mutation puts in the place of something.
const PIECES: [&str; 16] = [
    "null",
    "-1",
    "18446744073709551616",
    "1e999",
    "\"\"",
    "[]",
    "{}",
    "\\u0000",
    "\\n",
    "\u{1b}",
    "\"sha256:../..\"",
    "layers",
    "manifests",
    "[[[[",
    "\u{feff}",
    "\\ud800",
];

struct Line {
    number: usize,
    kind: &'static str,
    json: String,
    wanted: &'static str,
}

fn lines() -> Vec<Line> {
    let text = include_str!("../../corpus/documents.txt");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let line = |(at, line): (usize, &'static str)| {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (json, wanted) = rest.rsplit_once(" => ").unwrap();
        let json = json.replace("DIGEST", &format!("sha256:{}", "0a".repeat(32)));
        Line { number: at + 1, kind, json, wanted }
    };
    lines.map(line).collect()
}

/// Reads a document, and checks what is taken.
fn read(bytes: &[u8], kind: &str) -> Result<()> {
    if kind == "configuration" {
        let configuration = document::configuration(bytes, "it")?;
        assert!(configuration.rootfs.diff_ids.iter().all(|diff| is_digest(diff)));
        let config = configuration.config.unwrap_or_default();
        let user = config.user().clone().unwrap_or_default();
        assert!(!user.chars().any(char::is_control));
        let arguments = [config.env(), config.entrypoint(), config.cmd()];
        assert!(arguments.iter().filter_map(|list| list.as_ref()).flatten().all(|text| !text.contains('\0')));
        return Ok(());
    }
    let document = document::parse(bytes, "it")?;
    let all = document.blobs().chain(document.manifests()).chain(document.subject());
    assert!(all.into_iter().all(|descriptor| is_digest(&descriptor.digest)));
    assert!(document.blobs().count() <= MAX_LAYERS + 1);
    let own = document.describe(bytes);
    assert_eq!(serde_json::from_slice::<Descriptor>(&serde_json::to_vec(&own).unwrap()).unwrap(), own);
    match (kind, &document) {
        ("manifest", Document::Manifest(_)) => document::image(document, "it").map(drop),
        _ => Ok(()),
    }
}

#[test]
fn each_field_that_is_wrong_is_named() {
    for line in lines() {
        let said = match read(line.json.as_bytes(), line.kind) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        let right = if line.wanted == "ok" { said == "ok" } else { said.contains(line.wanted) };
        assert!(right, "line {}: {said:?} does not speak of {:?}", line.number, line.wanted);
    }
}

#[test]
fn mutations_of_documents_are_read_or_refused() {
    let lines = lines();
    let others: Vec<&[u8]> = lines.iter().map(|line| line.json.as_bytes()).collect();
    for line in &lines {
        for mutation in 0..rounds(MUTATIONS) {
            let bytes = text(line.json.as_bytes(), &PIECES, &others, &mut Random::of(line.number, mutation));
            match read(&bytes, line.kind) {
                Ok(()) => {}
                Err(Error::Malformed(text)) => {
                    let clean = text.len() < 2000 && !text.chars().any(char::is_control);
                    assert!(clean, "line {}, mutation {mutation}: {text:?}", line.number);
                }
                Err(other) => panic!("line {}, mutation {mutation}: {other:?}", line.number),
            }
        }
    }
}
