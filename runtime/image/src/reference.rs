//! Image references, normalised as docker does (the grammar of github.com/distribution/reference).

use std::fmt;

use crate::{Error, Result};

/// A normalised image reference: `registry/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io` where the text names none.
    pub registry: String,
    /// `library/nginx` for `nginx`.
    pub repository: String,
    /// `latest` where the text has neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:<64 hexadecimal digits>`.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses and normalises a reference; `Error::Reference` where it does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::Reference(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad());
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) || !is_repository(&repository) || registry.len() + repository.len() > 254 {
            return Err(bad());
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry, repository, tag, digest })
    }

    /// `registry/repository`, the name without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask a registry for: the digest, where there is one.
    pub(crate) fn tag_or_digest(&self) -> Result<&str> {
        self.digest.as_deref().or(self.tag.as_deref()).ok_or_else(|| Error::Reference(self.to_string()))
    }

    /// `registry/repository:tag`, if it has a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Whether a text is a digest this store can verify.
pub(crate) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn split_registry(name: &str) -> (String, String) {
    let named = name.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':']) || *first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (registry, rest) = named.unwrap_or(("docker.io", name));
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let official = registry == "docker.io" && !rest.contains('/');
    let repository = if official { format!("library/{rest}") } else { rest.to_owned() };
    (registry.to_owned(), repository)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match v6 {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(is_label),
    };
    host_ok && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_repository(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges =
        component.bytes().next().is_some_and(alphanumeric) && component.bytes().last().is_some_and(alphanumeric);
    edges && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(is_separator)
}

fn is_separator(text: &str) -> bool {
    matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-')
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/a/b__c:v1", "localhost:5000/a/b__c:v1".to_owned()),
            ("[::1]:5000/app", "[::1]:5000/app:latest".to_owned()),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10".to_owned()),
            (&format!("a.io/b@{digest}"), format!("a.io/b@{digest}")),
            (&format!("a.io/b:t@{digest}"), format!("a.io/b:t@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).map(|r| r.to_string()).ok(), Some(want), "{text}");
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = format!("a/{}", "b".repeat(260));
        for text in [
            "",
            "Nginx",
            "a..b",
            "a/",
            "/a",
            "a b",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@md5:00",
            "-a.io/b",
            "a_.io/b",
            "a___b",
            "a\nb",
            "../etc",
            &long,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
