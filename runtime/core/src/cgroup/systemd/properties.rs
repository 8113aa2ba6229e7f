//! Limits as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::variant;
use super::wire::Value;
use crate::{Error, Result};

/// Name and value.
pub(super) type Property = (String, Value);

/// A file of a cgroup and what is written to it.
pub(crate) type File = (String, String);

/// Where annotations name properties.
const ANNOTATION: &str = "org.systemd.property.";

/// The number of a processor, or of a node of memory, is below this.
const MAX_BITS: usize = 8192;

/// File, property, how the text becomes its value, the version of systemd that brought it.
type Row = (&'static str, &'static str, fn(&str) -> Option<Value>, u32);

const ROWS: [Row; 14] = [
    ("memory.limit_in_bytes", "MemoryLimit", number, 0),
    ("memory.max", "MemoryMax", number, 0),
    ("memory.high", "MemoryHigh", number, 0),
    ("memory.low", "MemoryLow", number, 0),
    ("memory.min", "MemoryMin", number, 240),
    ("memory.swap.max", "MemorySwapMax", number, 232),
    ("cpu.shares", "CPUShares", number, 0),
    ("cpu.weight", "CPUWeight", number, 0),
    ("cpu.idle", "CPUWeight", idle, 252),
    ("cpu.max", "CPUQuotaPerSecUSec", quota_per_second, 0),
    ("cpu.max", "CPUQuotaPeriodUSec", period, 242),
    ("cpuset.cpus", "AllowedCPUs", bits, 244),
    ("cpuset.mems", "AllowedMemoryNodes", bits, 244),
    ("pids.max", "TasksMax", number, 0),
];

/// The properties that say the same as these files, as far as this version of systemd has them.
pub(super) fn of_files(files: &[File], version: u32) -> Vec<Property> {
    let mut properties = Vec::new();
    for (file, text) in files {
        let rows = ROWS.iter().filter(|(of, _, _, since)| of == file && *since <= version);
        properties.extend(rows.filter_map(|(_, property, read, _)| Some(((*property).to_owned(), read(text)?))));
    }
    properties
}

/// A number; where there is no limit, the largest.
fn number(text: &str) -> Option<Value> {
    match text {
        "max" | "-1" => Some(Value::U64(u64::MAX)),
        _ => text.parse().ok().map(Value::U64),
    }
}

fn idle(text: &str) -> Option<Value> {
    (text == "1").then_some(Value::U64(0))
}

/// Of `QUOTA PERIOD`. systemd keeps whole percents: it is given none less than was asked for.
fn quota_per_second(text: &str) -> Option<Value> {
    const PERCENT: u64 = 10_000;
    let (quota, period) = text.split_once(' ')?;
    if quota == "max" {
        return Some(Value::U64(u64::MAX));
    }
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    let each_second = quota.checked_mul(1_000_000)?.checked_div(period)?;
    each_second.checked_next_multiple_of(PERCENT).map(Value::U64)
}

fn period(text: &str) -> Option<Value> {
    text.split_once(' ')?.1.parse().ok().map(Value::U64)
}

/// `0-2,7` as a bit for each, the lowest first.
fn bits(text: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last < first || last >= MAX_BITS {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        for bit in first..=last {
            *bytes.get_mut(bit / 8)? |= 1_u8 << (bit % 8);
        }
    }
    (!bytes.is_empty()).then(|| Value::Array("y".to_owned(), bytes.into_iter().map(Value::Byte).collect()))
}

/// Rules for devices, the last that matches deciding, as systemd has them: everything, or what is listed. It writes them
/// to a v1 cgroup whenever it is told to read its files again. What cannot be said that way stays the kernel's alone.
pub(super) fn of_devices(rules: &[LinuxDeviceCgroup]) -> Vec<Property> {
    let mut allowed = Vec::new();
    let mut policy = "strict";
    for rule in rules {
        let any = |n: Option<i64>| n.is_none_or(|n| n < 0);
        let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        let kind = rule.typ().unwrap_or(LinuxDeviceType::A);
        if kind == LinuxDeviceType::A {
            policy = if rule.allow() { "auto" } else { "strict" };
            allowed.clear();
        } else if rule.allow() && policy == "strict" {
            let kind = if kind == LinuxDeviceType::B { "block" } else { "char" };
            let name = match (rule.major(), rule.minor()) {
                (major, minor) if any(major) && any(minor) => format!("{kind}-*"),
                (Some(major), minor) if any(minor) => format!("{kind}-{major}"),
                (Some(major), Some(minor)) if major >= 0 => format!("/dev/{kind}/{major}:{minor}"),
                _ => continue,
            };
            allowed.push(Value::Struct(vec![Value::String(name), Value::text(access)]));
        }
    }
    vec![
        ("DevicePolicy".to_owned(), Value::text(policy)),
        ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), allowed)),
    ]
}

/// The properties that annotations name, with values as GLib writes them; a time in seconds (`...Sec`) is told in
/// microseconds (`...USec`).
pub(super) fn of_annotations<'a>(annotations: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let wrong = |what: &str| Error::Invalid(format!("annotations: {key}: {what}"));
        if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
            return Err(wrong("not the name of a property"));
        }
        let value =
            variant::parse(text).ok_or_else(|| wrong(&format!("{text:?} is not a value as GVariant has them")))?;
        properties.push(match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
            Some(stem) => {
                let value = microseconds(&value).ok_or_else(|| wrong(&format!("{text:?} is not a time")))?;
                (format!("{stem}USec"), Value::U64(value))
            }
            None => (name.to_owned(), value),
        });
    }
    Ok(properties)
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = |n: u64| n.checked_mul(1_000_000);
    match seconds {
        Value::Byte(n) => whole(u64::from(*n)),
        Value::I16(n) => whole(u64::try_from(*n).ok()?),
        Value::U16(n) => whole(u64::from(*n)),
        Value::I32(n) => whole(u64::try_from(*n).ok()?),
        Value::U32(n) => whole(u64::from(*n)),
        Value::I64(n) => whole(u64::try_from(*n).ok()?),
        Value::U64(n) => whole(*n),
        Value::Double(n) if *n >= 0.0 && *n < 1e12 => Some((n * 1e6) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_properties() {
        let properties = |file: &str, text: &str, version| -> Vec<(String, u64)> {
            let properties = of_files(&[(file.to_owned(), text.to_owned())], version);
            let number = |value| match value {
                Value::U64(n) => n,
                other => panic!("{other:?}"),
            };
            properties.into_iter().map(|(name, value)| (name, number(value))).collect()
        };
        for (file, text, want) in [
            ("memory.max", "100", &[("MemoryMax", 100)][..]),
            ("memory.swap.max", "max", &[("MemorySwapMax", u64::MAX)]),
            ("memory.limit_in_bytes", "-1", &[("MemoryLimit", u64::MAX)]),
            ("cpu.idle", "1", &[("CPUWeight", 0)]),
            ("cpu.idle", "0", &[]),
            ("cpu.max", "50000 100000", &[("CPUQuotaPerSecUSec", 500_000), ("CPUQuotaPeriodUSec", 100_000)]),
            ("cpu.max", "33333 100000", &[("CPUQuotaPerSecUSec", 340_000), ("CPUQuotaPeriodUSec", 100_000)]),
            ("cpu.max", "max 5000", &[("CPUQuotaPerSecUSec", u64::MAX), ("CPUQuotaPeriodUSec", 5000)]),
            ("cpu.max", "1 0", &[("CPUQuotaPeriodUSec", 0)]),
            ("pids.max", "7", &[("TasksMax", 7)]),
            ("hugetlb.2MB.max", "7", &[]),
        ] {
            let want: Vec<(String, u64)> = want.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            assert_eq!(properties(file, text, 252), want, "{file} {text}");
        }
        assert_eq!(properties("cpu.max", "5 10", 241), [("CPUQuotaPerSecUSec".to_owned(), 500_000)]);
    }

    #[test]
    fn lists_are_bits() {
        let bytes = |text| match bits(text) {
            Some(Value::Array(_, bytes)) => Some(bytes),
            _ => None,
        };
        assert_eq!(bytes("0-2,9"), Some(vec![Value::Byte(7), Value::Byte(2)]));
        assert_eq!(bytes("8"), Some(vec![Value::Byte(0), Value::Byte(1)]));
        for bad in ["", "x", "3-1", "0-99999999"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn rules_are_a_list() {
        let rules = |json: &str| -> Vec<LinuxDeviceCgroup> { serde_json::from_str(json).unwrap() };
        let told = |json: &str| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let properties = of_devices(&rules(json));
            let Value::Array(_, list) = &properties[1].1 else { panic!("no list") };
            let pair = |value: &Value| match value {
                Value::Struct(pair) => pair.iter().map(text).collect::<Vec<_>>().join(" "),
                _ => String::new(),
            };
            [text(&properties[0].1)].into_iter().chain(list.iter().map(pair)).collect::<Vec<_>>()
        };
        let some = r#"[{"allow":true,"type":"c","major":9},{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","access":"m"},{"allow":true,"type":"c","major":1,"minor":3},
            {"allow":true,"type":"b","major":8,"minor":-1,"access":"r"},{"allow":true,"type":"c","minor":7}]"#;
        assert_eq!(told(some), ["strict", "char-* m", "/dev/char/1:3 rwm", "block-8 r"]);
        assert_eq!(told(r#"[{"allow":true,"type":"a"},{"allow":true,"type":"c","major":1}]"#), ["auto"]);
    }

    #[test]
    fn annotations_name_properties() {
        let read = |key: &str, text: &str| {
            let (key, text) = (format!("{ANNOTATION}{key}"), text.to_owned());
            of_annotations([(&key, &text)].into_iter())
        };
        assert_eq!(read("TimeoutStopUSec", "uint64 7").unwrap(), [("TimeoutStopUSec".to_owned(), Value::U64(7))]);
        assert_eq!(read("TimeoutStopSec", "5").unwrap(), [("TimeoutStopUSec".to_owned(), Value::U64(5_000_000))]);
        assert_eq!(read("TimeoutStopSec", "0.5").unwrap(), [("TimeoutStopUSec".to_owned(), Value::U64(500_000))]);
        for (key, text, want) in [
            ("a", "1", "annotations: org.systemd.property.a: not the name of a property"),
            ("Some-Thing", "1", "not the name"),
            ("CollectMode", "inactive", "\"inactive\" is not a value"),
            ("TimeoutStopSec", "-5", "\"-5\" is not a time"),
        ] {
            let error = read(key, text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let other = ("a".to_owned(), "b".to_owned());
        assert_eq!(of_annotations([(&other.0, &other.1)].into_iter()).unwrap(), []);
    }
}
