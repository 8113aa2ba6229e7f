//! Hashes of templates, in the alphabet that Kubernetes uses for generated names.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// No vowels and no look-alikes, so that no word is spelled by accident (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A stable hash of a template and a collision count, at most ten characters. Kubernetes hashes a Go dump of the
/// struct, which nothing else can reproduce; any stable hash does, since a controller finds its object by comparing
/// templates, never by name.
pub fn hash<T: Serialize>(template: &T, collisions: Option<i32>) -> String {
    let value = serde_json::to_value(template).unwrap_or(Value::Null);
    let mut sum = fnv(0x811c_9dc5, sorted(&value).as_bytes());
    if let Some(count) = collisions {
        sum = fnv(sum, &count.to_le_bytes());
    }
    safe_encode(&sum.to_string())
}

/// Compact JSON with sorted keys. `Value` itself keeps the order of insertion where any crate of a build asks serde_json
/// for it, and then the same template would have two hashes.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let keys: BTreeMap<_, _> = map.iter().collect();
            let pairs: Vec<_> =
                keys.iter().map(|(key, v)| format!("{}:{}", Value::from(key.as_str()), sorted(v))).collect();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

fn fnv(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |sum, b| (sum ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// Each byte as a safe character.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(SAFE[usize::from(b) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::{hash, safe_encode};
    use serde_json::json;

    #[test]
    fn hashes_are_stable_and_safe() {
        assert_eq!(safe_encode("0123456789"), "4567 89bcdf".replace(' ', ""));
        assert_eq!(hash(&json!({"a": 1, "b": 2}), None), hash(&json!({"b": 2, "a": 1}), None));
        assert_ne!(hash(&json!({"a": 1}), None), hash(&json!({"a": 1}), Some(1)));
    }
}
