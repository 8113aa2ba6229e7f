//! The corpus of layers: `corpus/layers.txt` says at its head how it is read.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use tar::{EntryType, Header};

const TEXT: &str = include_str!("../../corpus/layers.txt");

/// One layer and what must come of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The layers it is put upon, the lowest first.
    pub(crate) below: Vec<Vec<u8>>,
    pub(crate) archive: Vec<u8>,
    /// A part of the error, if it must be refused.
    pub(crate) refused: Option<Vec<u8>>,
    /// Paths in what all layers together show, and contents where they are given.
    pub(crate) holds: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) absent: Vec<Vec<u8>>,
}

/// What stands before a header.
#[derive(Default)]
struct Next {
    records: Vec<u8>,
    fields: Vec<(&'static str, Vec<u8>)>,
    claim: Option<u64>,
    depth: usize,
}

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    TEXT.split("\n== ").skip(1).map(case).collect()
}

fn case(text: &'static str) -> Case {
    let (name, lines) = text.split_once('\n').unwrap();
    let mut case =
        Case { name, below: Vec::new(), archive: Vec::new(), refused: None, holds: Vec::new(), absent: Vec::new() };
    let (mut next, mut missing) = (Next::default(), 0);
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap();
        let (first, second) = rest.split_once(' ').map_or((rest, ""), |(first, second)| (first, second));
        match word {
            "refused" => case.refused = Some(bytes(rest)),
            "holds" => case.holds.push((bytes(first), Some(bytes(second)).filter(|text| !text.is_empty()))),
            "absent" => case.absent.push(bytes(rest)),
            "layer" => {
                case.archive.extend([0; 1024]);
                case.below.push(std::mem::take(&mut case.archive));
            }
            "zeros" => case.archive.extend(vec![0; 512 * rest.parse::<usize>().unwrap()]),
            "cut" => missing = rest.parse().unwrap(),
            "claim" => next.claim = Some(rest.parse().unwrap()),
            "depth" => next.depth = rest.parse().unwrap(),
            "field" => next.fields.push((first, bytes(second))),
            "pax" => next.records.extend(record(&bytes(rest))),
            "longname" => extension(&mut case.archive, b'L', &bytes(rest), next.claim.take()),
            "longlink" => extension(&mut case.archive, b'K', &bytes(rest), next.claim.take()),
            kind => member(&mut case.archive, kind, &bytes(first), &bytes(second), std::mem::take(&mut next)),
        }
    }
    case.archive.extend([0; 1024]);
    // What is missing is missing of the members.
    let whole = case.archive.len();
    if missing > 0 {
        case.archive.truncate(whole - 1024 - missing);
    }
    case
}

fn member(archive: &mut Vec<u8>, kind: &str, path: &[u8], text: &[u8], next: Next) {
    let mut path = path.to_vec();
    if next.depth > 0 {
        let deep = [b"d/".repeat(next.depth), path].concat();
        extension(archive, b'L', &deep, None);
        path = b"deep".to_vec();
    }
    if !next.records.is_empty() {
        extension(archive, b'x', &next.records, next.claim);
    }
    let (kind, link, data): (EntryType, &[u8], &[u8]) = match kind {
        "dir" => (EntryType::Directory, b"", b""),
        "file" => (EntryType::Regular, b"", text),
        "symlink" => (EntryType::Symlink, text, b""),
        "link" => (EntryType::Link, text, b""),
        "char" => (EntryType::Char, b"", b""),
        "fifo" => (EntryType::Fifo, b"", b""),
        other => panic!("{other}: no such line"),
    };
    let mut header = header(&path, link, data.len() as u64, kind);
    if kind == EntryType::Char {
        let (major, minor) = std::str::from_utf8(text).unwrap().split_once(':').unwrap();
        header.set_device_major(major.parse().unwrap()).unwrap();
        header.set_device_minor(minor.parse().unwrap()).unwrap();
    }
    header.set_cksum();
    for (field, text) in &next.fields {
        let start = match *field {
            "mode" => 100,
            "uid" => 108,
            "gid" => 116,
            "size" => 124,
            "mtime" => 136,
            "checksum" => 148,
            "type" => 156,
            "devmajor" => 329,
            other => panic!("{other}: no such field"),
        };
        header.as_mut_bytes()[start..start + text.len()].copy_from_slice(text);
        if *field != "checksum" {
            header.set_cksum();
        }
    }
    push(archive, &header, data);
}

fn header(path: &[u8], link: &[u8], size: u64, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    // By hand: the crate refuses what a hostile layer holds.
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path);
    gnu.linkname[..link.len()].copy_from_slice(link);
    header
}

fn extension(archive: &mut Vec<u8>, kind: u8, text: &[u8], claim: Option<u64>) {
    let mut header = header(b"extension", b"", claim.unwrap_or(text.len() as u64), EntryType::new(kind));
    header.set_cksum();
    push(archive, &header, text);
}

fn push(archive: &mut Vec<u8>, header: &Header, data: &[u8]) {
    archive.extend(header.as_bytes());
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn record(text: &[u8]) -> Vec<u8> {
    let rest = text.len() + 2;
    let length = (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length).unwrap();
    [format!("{length} ").as_bytes(), text, b"\n"].concat()
}

fn bytes(text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        all.extend(before.as_bytes());
        let (byte, used) = match after.as_bytes()[0] {
            b'e' => (0x1b, 1),
            b'n' => (b'\n', 1),
            b'0' => (0, 1),
            b'x' => (u8::from_str_radix(&after[1..3], 16).unwrap(), 3),
            other => panic!("{}: no such escape", char::from(other)),
        };
        all.push(byte);
        rest = &after[used..];
    }
    all.extend(rest.as_bytes());
    all
}
