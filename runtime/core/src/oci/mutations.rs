//! What callers write, with each field wrong, and thousands of mutations of it: nothing panics, nothing is touched, and
//! what is wrong is named. `corpus/documents.txt` says at its head how it is read.

use std::path::Path;

use mutations::{Random, document, rounds, text};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::namespaces::{everybody, time_offsets, user_map};
use super::{document as read, exec, parse_signal, update};
use crate::process::Prepared;
use crate::{Error, Result, cgroup, mount_options, rootfs, seccomp};

/// Mutations of each line. All of them take some seconds.
const MUTATIONS: u64 = 300;
const MAX_ERROR: usize = 2000;
/// What a mutation puts in the place of a part of a text.
const PIECES: [&str; 20] = [
    "null",
    "-1",
    "+1",
    "18446744073709551616",
    "1e999",
    "\"\"",
    "[]",
    "{}",
    "\\u0000",
    "\\n",
    "\u{1b}",
    "4294967295",
    ":",
    "=",
    "#",
    " -u ",
    " --cgroup ",
    "-",
    "[[[[",
    "\\ud800",
];
/// What the errors of documents begin with: a file or a field.
const NAMES: [&str; 14] = [
    "config.json",
    "process.json",
    "resources",
    "ociVersion",
    "process.",
    "process:",
    "root",
    "mounts",
    "hooks",
    "hostname",
    "domainname",
    "linux.",
    "linux:",
    "invalid configuration: linux.resources",
];
/// And those of words: an option as well.
const OPTIONS: [&str; 8] =
    ["-", "exec:", "update:", "a container id", "unexpected argument", "unknown option", "unknown signal", "\""];

struct Line {
    number: usize,
    kind: &'static str,
    text: &'static str,
    wanted: &'static str,
}

fn lines() -> Vec<Line> {
    let text = include_str!("../../corpus/documents.txt");
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#'));
    let line = |(number, line): (usize, &'static str)| {
        let (before, wanted) = line.rsplit_once(" => ").unwrap();
        let (kind, text) = before.split_once(' ').unwrap_or((before, ""));
        Line { number, kind, text, wanted }
    };
    lines.map(line).collect()
}

/// The smallest specification that is good.
fn least() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    })
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => drop(into.remove(key)),
                    _ => merge(into.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// A document of the corpus, whole; `None` where it is none.
fn whole(line: &Line) -> Option<Value> {
    let value: Value = serde_json::from_str(line.text).ok()?;
    if line.kind != "spec" {
        return matches!(line.kind, "process" | "resources").then_some(value);
    }
    let mut spec = least();
    merge(&mut spec, &value);
    Some(spec)
}

/// Reads a document as far as that goes without touching anything.
fn read_document(kind: &str, value: Value) -> Result<()> {
    match kind {
        "spec" => plan(&read::checked_spec(Path::new("config.json"), value)?.content),
        "process" => {
            let process = read::checked_process(Path::new("process.json"), value)?.content;
            Prepared::of(&process, None, false).map(drop)
        }
        _ => cgroup::translate(&read::checked_resources(Path::new("resources"), value)?),
    }
}

/// What `create` makes of a specification before it makes anything else.
fn plan(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::Invalid("linux: missing".to_owned()))?;
    let process = spec.process().as_ref().ok_or_else(|| Error::Invalid("process: missing".to_owned()))?;
    let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;
    Prepared::of(process, filter.map(std::rc::Rc::new), false)?.in_container(Some(linux))?;
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    let new = |kind| listed.iter().any(|n| n.typ() == kind && n.path().is_none());
    if new(LinuxNamespaceType::User) {
        user_map(linux)?;
    }
    time_offsets(linux)?;
    for mount in spec.mounts().iter().flatten() {
        let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
        let how = options.id_map.and_then(|(_, how)| how);
        if let Some(how) = how.filter(|how| rootfs::id_map_text(how).is_none()) {
            let place = mount.destination().display();
            return Err(Error::Invalid(format!("mounts: {place}: idmap={how}: not understood")));
        }
    }
    Ok(())
}

/// Reads words or a map: what it says, where that is more than that it is good.
fn read_words(kind: &str, text: &str) -> Result<String> {
    let mut arguments = Arguments::new(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect());
    match kind {
        "exec" => {
            let options = exec::options(&mut arguments)?;
            let base: Process = serde_json::from_value(least()["process"].clone()).unwrap();
            Prepared::of(&exec::from_words(&options, &base)?, None, false).map(|_| String::new())
        }
        "update" => update::options(&mut arguments).map(|_| String::new()),
        "signal" => parse_signal(text).map(|_| String::new()),
        "idmap" => match rootfs::id_map_text(text) {
            Some(maps) => {
                check_map(&maps.uid);
                check_map(&maps.gid);
                Ok(format!(" {}/{}", maps.uid, maps.gid).replace('\n', ";"))
            }
            None => Err(Error::Invalid("idmap: not understood".to_owned())),
        },
        "idfile" => Ok(format!(" {}", everybody(&text.replace(';', "\n"))).replace('\n', ";").trim_end().to_owned()),
        other => panic!("{other}"),
    }
}

/// The kernel's format: three numbers a line.
fn check_map(map: &str) {
    for line in map.lines() {
        let numbers: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 3, "{line:?}");
    }
}

fn outcome(line: &Line) -> Result<String> {
    match whole(line) {
        Some(value) => read_document(line.kind, value).map(|()| String::new()),
        None => read_words(line.kind, line.text),
    }
}

#[test]
fn each_wrong_field_word_and_map_is_named() {
    let mut wrong = Vec::new();
    for line in lines() {
        let said = match outcome(&line) {
            Ok(more) => format!("ok{more}"),
            Err(error) => error.to_string(),
        };
        let right = if line.wanted.starts_with("ok") { said == line.wanted } else { said.contains(line.wanted) };
        wrong.extend((!right).then(|| format!("line {}: {said:?} for {:?}", line.number, line.wanted)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether something was good; what was not must say where.
fn check_error(what: &str, names: &[&str], outcome: Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(Error::Invalid(text)) => {
            assert!(text.len() < MAX_ERROR && names.iter().any(|name| text.starts_with(name)), "{what}: {text:?}");
            false
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
}

#[test]
fn mutations_of_documents_are_planned_or_refused() {
    let lines = lines();
    let documents: Vec<(&Line, Value)> = lines.iter().filter_map(|line| Some((line, whole(line)?))).collect();
    let (mut good, mut refused) = (0, 0);
    for (line, value) in &documents {
        let others: Vec<Value> =
            documents.iter().filter(|(other, _)| other.kind == line.kind).map(|(_, value)| value.clone()).collect();
        let texts: Vec<Vec<u8>> = others.iter().map(|other| other.to_string().into_bytes()).collect();
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        for mutation in 0..rounds(MUTATIONS) {
            let random = &mut Random::of(line.number, mutation);
            let changed = if mutation % 4 > 0 {
                document(value, &others, random)
            } else {
                // What is no document at all is refused before anybody looks into it.
                match serde_json::from_slice(&text(value.to_string().as_bytes(), &PIECES, &texts, random)) {
                    Ok(changed) => changed,
                    Err(_) => continue,
                }
            };
            let what = format!("line {}, mutation {mutation}: {changed}", line.number);
            if check_error(&what, &NAMES, read_document(line.kind, changed)) { good += 1 } else { refused += 1 }
        }
    }
    // Mutations that all fail at once, or all succeed, would test nothing.
    assert!(good > refused / 20 && refused > good / 20, "{good} good, {refused} refused");
}

#[test]
fn mutations_of_words_and_maps_are_read_or_refused() {
    let names: Vec<&str> = NAMES.iter().chain(&OPTIONS).chain(&["idmap"]).copied().collect();
    let lines = lines();
    let others: Vec<&[u8]> = lines.iter().map(|line| line.text.as_bytes()).collect();
    for line in lines.iter().filter(|line| whole(line).is_none()) {
        for mutation in 0..rounds(10 * MUTATIONS) {
            let changed = text(line.text.as_bytes(), &PIECES, &others, &mut Random::of(line.number, mutation));
            let changed = String::from_utf8_lossy(&changed);
            let what = format!("line {}, mutation {mutation}: {changed:?}", line.number);
            check_error(&what, &names, read_words(line.kind, &changed).map(drop));
        }
    }
}
