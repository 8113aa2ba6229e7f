//! Levels and versions, and what a namespace's labels say about them (`k8s.io/pod-security-admission/api`).

use std::fmt;

use api::Document;
use api::field::{Error, Errors, Path};

/// How strict, from the loosest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as it was in a version of Kubernetes: the minor one; `None`: the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub level: Level,
    pub version: Option<u32>,
}

/// The three modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

impl Policy {
    /// What a namespace's labels say. A policy comes out of any: what cannot be read is restricted, or privileged where
    /// it only warns or notes.
    pub(super) fn of(namespace: &Document) -> (Self, Errors) {
        let mut errors = Errors::new();
        let [enforce, audit, warn] = ["enforce", "audit", "warn"].map(|mode| mode_of(namespace, mode, &mut errors));
        let level = |found: Option<Result<Level, ()>>, broken| match found {
            Some(Ok(level)) => level,
            Some(Err(())) => broken,
            None => Level::Privileged,
        };
        let latest = |version: Option<Option<u32>>| version.flatten();
        let enforced = LevelVersion { level: level(enforce.0, Level::Restricted), version: latest(enforce.1) };
        let audited = LevelVersion { level: level(audit.0, Level::Privileged), version: latest(audit.1) };
        let mut warned = LevelVersion { level: level(warn.0, Level::Privileged), version: latest(warn.1) };
        // Who enforces a level wants to be warned of templates that break it.
        if warn.0.is_none() && matches!(enforce.0, Some(Ok(level)) if level > warned.level) {
            warned.level = enforced.level;
            if warn.1.is_none() {
                warned.version = enforced.version;
            }
        }
        (Self { enforce: enforced, audit: audited, warn: warned }, errors)
    }

    /// Whether nothing is to be looked at.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.level == Level::Privileged)
    }
}

type Mode = (Option<Result<Level, ()>>, Option<Option<u32>>);

/// The level and the version that the labels of a mode name, as far as there are some.
fn mode_of(namespace: &Document, mode: &str, errors: &mut Errors) -> Mode {
    let label = |key: &str| namespace.label(key).map(str::to_owned);
    let path = |key: &str| Path::new("metadata").child("labels").key(key);
    let key = format!("pod-security.kubernetes.io/{mode}");
    let level = label(&key).map(|text| {
        level(&text).ok_or_else(|| {
            let why = "must be one of privileged, baseline, restricted";
            errors.push(Error::invalid(path(&key), text.as_str(), why));
        })
    });
    let key = format!("{key}-version");
    let version = label(&key).map(|text| {
        version(&text).unwrap_or_else(|| {
            errors.push(Error::invalid(path(&key), text.as_str(), "must be \"latest\" or \"v1.x\""));
            None
        })
    });
    (level, version)
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    plain.then(|| minor.parse().ok().map(Some)).flatten()
}
