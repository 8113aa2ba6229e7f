//! URLs as Go's `net/url` takes them apart.

use std::collections::BTreeMap;

/// An absolute URL or an absolute path (`url.ParseRequestURI`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Url {
    pub scheme: String,
    /// With the port, where there is one.
    pub host: String,
    /// Escaped.
    pub path: String,
    query: String,
}

impl Url {
    /// Reads one; the error is Go's.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return wrong("empty url");
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return wrong("net/url: invalid control character in URL");
        }
        let (rest, query) = text.split_once('?').unwrap_or((text, ""));
        if rest.starts_with('/') {
            return Self::path_only(rest, query).ok_or_else(|| format!("parse {text:?}: invalid URL escape"));
        }
        let Some((scheme, rest)) = rest.split_once(':') else { return wrong("invalid URI for request") };
        let letters = scheme.chars().enumerate();
        let valid = |(at, c): (usize, char)| {
            c.is_ascii_alphabetic() || (at > 0 && (c.is_ascii_digit() || matches!(c, '+' | '-' | '.')))
        };
        if scheme.is_empty() {
            return wrong("missing protocol scheme");
        }
        if !letters.into_iter().all(valid) || !rest.starts_with('/') {
            return wrong("invalid URI for request");
        }
        let Some(rest) = rest.strip_prefix("//") else {
            let path = Self::path_only(rest, query);
            return path
                .map(|url| Self { scheme: scheme.to_lowercase(), ..url })
                .ok_or_else(|| "invalid URL escape".into());
        };
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.contains([' ', '<', '>', '"']) {
            return wrong("invalid character in host name");
        }
        if host.starts_with('[') && !host.contains(']') {
            return wrong("missing ']' in host");
        }
        let url = Self { scheme: scheme.to_lowercase(), host: host.into(), path: path.into(), query: query.into() };
        if !url.port().bytes().all(|b| b.is_ascii_digit()) {
            return wrong(&format!("invalid port {:?} after host", format!(":{}", url.port())));
        }
        if unescape(path, false).is_none() { wrong("invalid URL escape") } else { Ok(url) }
    }

    fn path_only(path: &str, query: &str) -> Option<Self> {
        unescape(path, false)?;
        Some(Self { scheme: String::new(), host: String::new(), path: path.into(), query: query.into() })
    }

    /// The host without brackets and port.
    pub fn hostname(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
            None => self.host.rsplit_once(':').map_or(&self.host, |(host, _)| host),
        }
    }

    /// The port, empty where there is none.
    pub fn port(&self) -> &str {
        let after = match self.host.starts_with('[') {
            true => self.host.split_once(']').map_or("", |(_, after)| after),
            false => &self.host,
        };
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    /// The query's keys and values; pairs that cannot be read are left out.
    pub fn query(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) {
                found.entry(key).or_default().push(value);
            }
        }
        found
    }
}

fn unescape(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
