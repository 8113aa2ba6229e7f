//! The order of versions (`k8s.io/apimachinery/pkg/version/helpers.go`): stable ones before beta before alpha, higher
//! numbers first, all others after them by name.

use std::cmp::Ordering;

/// How two versions of a definition stand: the preferred one first.
pub(crate) fn versions(a: &str, b: &str) -> Ordering {
    match (parts(a), parts(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor number of `v1`, `v2beta1`, ...
fn parts(name: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| -> Option<u64> {
        let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        if plain { text.parse().ok() } else { None }
    };
    let rest = name.strip_prefix('v')?;
    for (stage, word) in [(1, "beta"), (0, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stage, number(major)?, if minor.is_empty() { 0 } else { number(minor)? }));
        }
    }
    Some((2, number(rest)?, 0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_stand_as_kubernetes_sorts_them() {
        let mut names =
            ["foo10", "v1", "v11alpha2", "v3beta1", "v12alpha1", "v10", "v11beta2", "foo1", "v10beta3", "v2"];
        names.sort_by(|a, b| super::versions(a, b));
        let want = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(names, want);
    }
}
