//! What a container uses, as `runc events` tells it: callers read these names.

use std::os::fd::BorrowedFd;

use serde_json::{Map, Value, json};

use super::read;

type Controller<'a, 'b> = &'a dyn Fn(&str) -> Option<(BorrowedFd<'b>, bool)>;

/// Everything that the host counts.
pub(super) fn report(controller: Controller<'_, '_>) -> Value {
    json!({
        "cpu": cpu(controller),
        "cpuset": cpuset(controller),
        "memory": memory(controller),
        "pids": pids(controller),
        "blkio": io(controller),
        "hugetlb": huge_pages(controller),
    })
}

/// A number of a file; `max` is none.
fn number(dir: BorrowedFd<'_>, file: &str) -> Option<u64> {
    read(dir, file).ok()?.trim().parse().ok()
}

/// `name value` lines.
fn fields(dir: BorrowedFd<'_>, file: &str) -> Map<String, Value> {
    let text = read(dir, file).unwrap_or_default();
    let field = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), Value::from(value.trim().parse::<u64>().ok()?)))
    };
    text.lines().filter_map(field).collect()
}

fn field(fields: &Map<String, Value>, name: &str) -> u64 {
    fields.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn cpu(controller: Controller<'_, '_>) -> Value {
    let Some((dir, v2)) = controller("cpu") else { return json!({}) };
    let stat = fields(dir, "cpu.stat");
    let throttling = |time: u64| {
        json!({
            "periods": field(&stat, "nr_periods"),
            "throttledPeriods": field(&stat, "nr_throttled"),
            "throttledTime": time,
        })
    };
    if v2 {
        let ns = |name| field(&stat, name) * 1000;
        return with_pressure(
            json!({
                "usage": {"total": ns("usage_usec"), "kernel": ns("system_usec"), "user": ns("user_usec")},
                "throttling": throttling(ns("throttled_usec")),
            }),
            dir,
            "cpu.pressure",
        );
    }
    let (accounting, _) = controller("cpuacct").unwrap_or((dir, false));
    let part = |file| number(accounting, file).unwrap_or(0);
    let each = |file| {
        let text = read(accounting, file).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>()
    };
    json!({
        "usage": {
            "total": part("cpuacct.usage"),
            "kernel": part("cpuacct.usage_sys"),
            "user": part("cpuacct.usage_user"),
            "percpu": each("cpuacct.usage_percpu"),
            "percpu_kernel": each("cpuacct.usage_percpu_sys"),
            "percpu_user": each("cpuacct.usage_percpu_user"),
        },
        "throttling": throttling(field(&stat, "throttled_time")),
    })
}

/// The numbers of a v1 cpuset (cpuset(7)).
const CPUSET: [&str; 9] = [
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

/// What processors and memory nodes it has; on v2, where a group can leave that to those above it, what it has by then.
fn cpuset(controller: Controller<'_, '_>) -> Value {
    let Some((dir, v2)) = controller("cpuset") else { return json!({}) };
    let list = |file: &str| list(read(dir, file).unwrap_or_default().trim());
    if v2 {
        return json!({"cpus": list("cpuset.cpus.effective"), "mems": list("cpuset.mems.effective")});
    }
    let mut report = Map::new();
    report.insert("cpus".to_owned(), json!(list("cpuset.cpus")));
    report.insert("mems".to_owned(), json!(list("cpuset.mems")));
    for name in CPUSET {
        // -1 is a level, too.
        let value = read(dir, format!("cpuset.{name}")).ok().and_then(|text| text.trim().parse::<i64>().ok());
        report.extend(value.map(|value| (name.to_owned(), Value::from(value))));
    }
    Value::Object(report)
}

/// `0-2,7` as numbers.
fn list(text: &str) -> Vec<u16> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(part).flatten().collect()
}

fn memory(controller: Controller<'_, '_>) -> Value {
    let Some((dir, v2)) = controller("memory") else { return json!({}) };
    let raw = fields(dir, "memory.stat");
    if v2 {
        let events = fields(dir, "memory.events");
        let entry = |usage: &str, limit: &str, failures: u64| json!({"usage": number(dir, usage), "limit": number(dir, limit).unwrap_or(u64::MAX), "failcnt": failures});
        return with_pressure(
            json!({
                "cache": field(&raw, "file"),
                "usage": entry("memory.current", "memory.max", field(&events, "max")),
                "swap": entry("memory.swap.current", "memory.swap.max", 0),
                "raw": raw,
            }),
            dir,
            "memory.pressure",
        );
    }
    let entry = |name: &str| {
        let part = |what: &str| number(dir, &format!("{name}.{what}"));
        part("usage_in_bytes").map(|usage| {
            json!({
                "usage": usage,
                "limit": part("limit_in_bytes"),
                "max": part("max_usage_in_bytes"),
                "failcnt": part("failcnt"),
            })
        })
    };
    json!({
        "cache": field(&raw, "cache"),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw,
    })
}

fn pids(controller: Controller<'_, '_>) -> Value {
    let Some((dir, _)) = controller("pids") else { return json!({}) };
    json!({"current": number(dir, "pids.current"), "limit": number(dir, "pids.max")})
}

fn io(controller: Controller<'_, '_>) -> Value {
    let Some((dir, v2)) = controller("blkio") else { return json!({}) };
    if v2 {
        let text = read(dir, "io.stat").unwrap_or_default();
        let (mut bytes, mut operations) = (Vec::new(), Vec::new());
        for (device, word) in text.lines().flat_map(|line| {
            let mut words = line.split_whitespace();
            let device = words.next().unwrap_or_default();
            words.map(move |word| (device, word))
        }) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "rbytes" => bytes.extend(entry(device, "Read", value)),
                "wbytes" => bytes.extend(entry(device, "Write", value)),
                "rios" => operations.extend(entry(device, "Read", value)),
                "wios" => operations.extend(entry(device, "Write", value)),
                _ => {}
            }
        }
        let both = json!({"ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations});
        return with_pressure(both, dir, "io.pressure");
    }
    let entries = |file: &str| {
        let text = read(dir, file).unwrap_or_default();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [device, operation, value] = words.as_slice() else { return None };
            entry(device, operation, value)
        };
        text.lines().filter_map(line).collect::<Vec<_>>()
    };
    json!({
        "ioServiceBytesRecursive": entries("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": entries("blkio.throttle.io_serviced_recursive"),
    })
}

fn entry(device: &str, operation: &str, value: &str) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok();
    Some(json!({"major": number(major)?, "minor": number(minor)?, "op": operation, "value": number(value)?}))
}

fn huge_pages(controller: Controller<'_, '_>) -> Value {
    let Some((dir, v2)) = controller("hugetlb") else { return json!({}) };
    let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten();
    let sizes = sizes.filter_map(|entry| page_size(entry.ok()?.file_name().to_str()?));
    let report = sizes.map(|size| {
        let part = |name: &str| number(dir, &format!("hugetlb.{size}.{name}"));
        let value = match v2 {
            true => {
                json!({"usage": part("current"), "failcnt": fields(dir, &format!("hugetlb.{size}.events")).get("max")})
            }
            false => {
                json!({"usage": part("usage_in_bytes"), "max": part("max_usage_in_bytes"), "failcnt": part("failcnt")})
            }
        };
        (size, value)
    });
    Value::Object(report.collect())
}

/// `hugepages-2048kB` as cgroups name it: `2MB`.
fn page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..1_048_576 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    })
}

/// Adds how long processes waited (Documentation/accounting/psi.rst), where the kernel counts it.
fn with_pressure(mut report: Value, dir: BorrowedFd<'_>, file: &str) -> Value {
    if let (Ok(text), Some(report)) = (read(dir, file), report.as_object_mut()) {
        report.insert("psi".to_owned(), pressure(&text));
    }
    report
}

fn pressure(text: &str) -> Value {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let kind = words.next()?.to_owned();
        let value = |word: &str| {
            let (name, value) = word.split_once('=')?;
            let value = match name {
                "total" => Value::from(value.parse::<u64>().ok()?),
                _ => Value::from(value.parse::<f64>().ok()?),
            };
            Some((name.to_owned(), value))
        };
        Some((kind, Value::Object(words.filter_map(value).collect())))
    };
    Value::Object(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_numbers_by_name() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let want = json!({
            "some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 77},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 3}
        });
        assert_eq!(pressure(text), want);
        assert_eq!(page_size("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(page_size("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!((list("0-2,7"), list(""), list("3")), (vec![0, 1, 2, 7], vec![], vec![3]));
        assert_eq!(entry("8:0", "Read", "5"), Some(json!({"major": 8, "minor": 0, "op": "Read", "value": 5})));
    }
}
