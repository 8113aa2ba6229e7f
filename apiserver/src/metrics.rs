//! `/metrics` under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

/// Counters of requests by verb and code.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn request(&self, verb: &str, code: u16) {
        *self.requests.lock().entry((verb.to_uppercase(), code)).or_default() += 1;
    }

    /// The text form; `objects` are counts by resource.
    pub(crate) fn text(&self, objects: &[(String, usize)]) -> String {
        let mut out = String::new();
        out.push_str("# HELP apiserver_request_total Counter of apiserver requests by verb and HTTP response code.\n");
        out.push_str("# TYPE apiserver_request_total counter\n");
        for ((verb, code), count) in self.requests.lock().iter() {
            let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",verb=\"{verb}\"}} {count}");
        }
        out.push_str("# HELP apiserver_storage_objects Number of stored objects by resource.\n");
        out.push_str("# TYPE apiserver_storage_objects gauge\n");
        for (resource, count) in objects {
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
        }
        out
    }
}
