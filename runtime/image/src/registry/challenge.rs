//! `WWW-Authenticate`: how a registry wants to be spoken to (RFC 9110, 11.6.1; distribution's token specification).

use std::collections::BTreeMap;

/// What a registry asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Challenge {
    Basic,
    /// A token from `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The best challenge of some headers: a token before a password. `None` where we know none of them.
pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for header in headers {
        match one(header) {
            Some(bearer @ Challenge::Bearer { .. }) => return Some(bearer),
            other => found = found.or(other),
        }
    }
    found
}

fn one(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    let realm = parameters.remove("realm")?;
    Some(Challenge::Bearer { realm, service: parameters.remove("service"), scope: parameters.remove("scope") })
}

/// `key="value", key=value`; a quoted value may hold commas and escaped characters.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim().trim_start_matches(',').trim().to_ascii_lowercase();
        let (value, tail) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                after.split_once(',').map_or((after.trim().to_owned(), ""), |(v, tail)| (v.trim().to_owned(), tail))
            }
        };
        all.insert(key, value);
        rest = tail;
    }
    all
}

fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (headers, want) in [
            (&["Basic realm=\"x\""][..], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (&["Negotiate", "Basic realm=x", "Bearer realm=\"https://a/t\""], Some(bearer("https://a/t", None, None))),
            (
                &["Bearer realm=\"https://a/t\",service=\"s\\\"t\",scope=\"repository:a/b:pull,push\""],
                Some(bearer("https://a/t", Some("s\"t"), Some("repository:a/b:pull,push"))),
            ),
            (&["bearer  service=s , realm = https://a/t"], Some(bearer("https://a/t", Some("s"), None))),
            (&["Bearer service=s"], None),
            (&["Bearer realm=\"unended"], Some(bearer("unended", None, None))),
            (&["", "=", "Digest a=b"], None),
        ] {
            assert_eq!(best(headers.iter().copied()), want, "{headers:?}");
        }
    }
}
