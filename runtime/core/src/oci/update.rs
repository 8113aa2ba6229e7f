//! `update`: other limits for a container that is there.

use std::io::Read;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::arguments::Arguments;
use super::container::{Container, Status};
use super::{Global, document};
use crate::{Error, Result, files};

/// How the value of a flag is read.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// A number of bytes, which may have a unit (`50M`).
    Bytes,
    Text,
    /// A number of processes; negative: any.
    Processes,
}

/// Flag, section and field of `linux.resources`.
const FLAGS: [(&str, &str, &str, Kind); 18] = [
    ("--blkio-weight", "blockIO", "weight", Kind::Number),
    ("--cpu-burst", "cpu", "burst", Kind::Number),
    ("--cpu-idle", "cpu", "idle", Kind::Number),
    ("--cpu-period", "cpu", "period", Kind::Number),
    ("--cpu-quota", "cpu", "quota", Kind::Number),
    ("--cpu-rt-period", "cpu", "realtimePeriod", Kind::Number),
    ("--cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Number),
    ("--cpu-share", "cpu", "shares", Kind::Number),
    ("--cpu-shares", "cpu", "shares", Kind::Number),
    ("--cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("--cpuset-mems", "cpu", "mems", Kind::Text),
    ("--kernel-memory", "memory", "kernel", Kind::Bytes),
    ("--kernel-memory-tcp", "memory", "kernelTCP", Kind::Bytes),
    ("--memory", "memory", "limit", Kind::Bytes),
    ("--memory-reservation", "memory", "reservation", Kind::Bytes),
    ("--memory-swap", "memory", "swap", Kind::Bytes),
    ("--pids-limit", "pids", "limit", Kind::Processes),
    ("--pids", "pids", "limit", Kind::Processes),
];

/// A document of resources larger than this is refused.
const MAX_BYTES: u64 = 1 << 20;

/// What the command line says.
#[derive(Debug)]
pub(super) struct Options {
    id: String,
    /// A file, or `-`, that says more than the flags.
    document: Option<String>,
    resources: LinuxResources,
}

pub(super) fn update(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let options = options(arguments)?;
    let container = Container::load(&global.root, &options.id)?;
    let resources = options.document.map_or(Ok(options.resources), |path| read(&path))?;
    if container.status() == Status::Stopped {
        return Err(Error::State("container not running".to_owned()));
    }
    container.limit(&container.host()?.open(&container.cgroup)?, &resources)
}

pub(super) fn options(arguments: &mut Arguments) -> Result<Options> {
    let mut sections = Map::new();
    let mut document = None;
    while let Some(option) = arguments.option() {
        match FLAGS.iter().find(|(flag, ..)| *flag == option) {
            Some((flag, section, field, kind)) => {
                let value = value(flag, &arguments.value(flag)?, *kind)?;
                let section = sections.entry(*section).or_insert_with(|| Value::Object(Map::new()));
                section.as_object_mut().and_then(|fields| fields.insert((*field).to_owned(), value));
            }
            None if matches!(option.as_str(), "-r" | "--resources") => document = Some(arguments.value(&option)?),
            None => return Err(Error::Invalid(format!("update: unknown option {option}"))),
        }
    }
    let resources = serde_json::from_value(Value::Object(sections));
    Ok(Options {
        id: arguments.only_id()?,
        document,
        resources: resources.map_err(|e| Error::Invalid(format!("update: {e}")))?,
    })
}

/// Resources of a file, or of standard input for `-`.
fn read(path: &str) -> Result<LinuxResources> {
    if path != "-" {
        return document::checked_resources(path.as_ref(), files::read(path.as_ref())?);
    }
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_BYTES).read_to_string(&mut text);
    read.map_err(|e| Error::System("read standard input".to_owned(), e))?;
    let value = serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("resources: {e}")))?;
    document::checked_resources("resources".as_ref(), value)
}

fn value(flag: &str, text: &str, kind: Kind) -> Result<Value> {
    let number = match kind {
        Kind::Text => return Ok(Value::from(text)),
        Kind::Number => text.parse().ok(),
        // runc's: whoever asks for no processes is not meant to get any number of them.
        Kind::Processes => text.parse().ok().map(|n: i64| if n == 0 { 1 } else { n }),
        Kind::Bytes => bytes(text),
    };
    number.map(Value::from).ok_or_else(|| Error::Invalid(format!("{flag}: {text:?} is not a number")))
}

/// `50M`, `1g`, `4096`, `-1`: units are powers of 1024.
fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.char_indices().last()? {
        (at, unit @ ('k' | 'm' | 'g' | 't')) => (lower.get(..at)?, 10 * (1 + "kmgt".find(unit)?)),
        _ => (lower, 0),
    };
    digits.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, want) in [
            ("4096", Some(4096)),
            ("50M", Some(50 << 20)),
            ("1gb", Some(1 << 30)),
            ("2KiB", Some(2048)),
            ("-1", Some(-1)),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
        for text in ["", "M", "1x", "9999999999T"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
