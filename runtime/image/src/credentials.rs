//! Docker's `config.json`: whose credentials go to which registry.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{Auth, Error, Result};

/// A `config.json`, read.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

/// Where the credentials of a registry are.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Here.
    Auth(Auth),
    /// With a program, `docker-credential-<helper> get`, which is told `server` on standard input.
    #[allow(missing_docs)]
    Helper { helper: String, server: String },
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Reads a `config.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::Malformed(format!("config.json: {e}")))
    }

    /// What is known of a registry (`host[:port]`, or `docker.io`). A helper of its own counts before a store of all, and
    /// that before the file. `None` where nothing is known.
    pub fn find(&self, registry: &str) -> Result<Option<Found>> {
        let helper =
            |helper: &String, server: &str| Found::Helper { helper: helper.clone(), server: server.to_owned() };
        if let Some((server, name)) = self.cred_helpers.iter().find(|(key, _)| host(key) == host(registry)) {
            return Ok(Some(helper(name, server)));
        }
        let entry = self.auths.iter().find(|(key, _)| host(key) == host(registry));
        if !self.creds_store.is_empty() {
            return Ok(entry.map(|(server, _)| helper(&self.creds_store, server)));
        }
        entry.and_then(|(server, entry)| entry.read(server).transpose()).map(|auth| auth.map(Found::Auth)).transpose()
    }

    /// What a helper wrote to its standard output.
    pub fn answer(bytes: &[u8]) -> Result<Auth> {
        // Its words may hold the secret: they are not repeated.
        let bad = |_| Error::Malformed("the credential helper's answer is not what Docker's protocol says".to_owned());
        let Answer { username, secret: password } = serde_json::from_slice(bytes).map_err(bad)?;
        Ok(match username.as_str() {
            "<token>" => Auth::Identity(password),
            _ => Auth::Basic { username, password },
        })
    }
}

impl Entry {
    fn read(&self, server: &str) -> Result<Option<Auth>> {
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.and_then(|text| text.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned())));
            let bad = || Error::Malformed(format!("config.json: auths.{server}.auth is not base64 of NAME:PASSWORD"));
            (username, password) = pair.ok_or_else(bad)?;
        }
        Ok(match (self.identitytoken.as_str(), self.registrytoken.as_str(), username.is_empty()) {
            ("", "", true) => None,
            ("", "", false) => Some(Auth::Basic { username, password: password.trim_end_matches('\0').to_owned() }),
            ("", token, _) => Some(Auth::Bearer(token.to_owned())),
            (token, ..) => Some(Auth::Identity(token.to_owned())),
        })
    }
}

/// The host of a key, which may be a URL. Docker Hub has several names.
fn host(key: &str) -> &str {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_where_docker_finds_them() {
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnE="}, "a.io:5000": {"identitytoken": "i"},
            "b.io": {"username": "u", "password": "p"}, "c.io": {}, "d.io": {"auth": "%"}, "e.io": {"registrytoken": "r"}},
            "credHelpers": {"h.io": "ecr"}}"#;
        let read = Credentials::parse(text.as_bytes()).unwrap();
        let basic = |u: &str, p: &str| Some(Found::Auth(Auth::Basic { username: u.into(), password: p.into() }));
        assert_eq!(read.find("docker.io").unwrap(), basic("u", "p:q"));
        assert_eq!(read.find("b.io").unwrap(), basic("u", "p"));
        assert_eq!(read.find("a.io:5000").unwrap(), Some(Found::Auth(Auth::Identity("i".into()))));
        assert_eq!(read.find("e.io").unwrap(), Some(Found::Auth(Auth::Bearer("r".into()))));
        let helper = Found::Helper { helper: "ecr".into(), server: "h.io".into() };
        assert_eq!(read.find("h.io").unwrap(), Some(helper));
        assert_eq!([read.find("c.io").unwrap(), read.find("a.io").unwrap()], [None, None]);
        assert!(read.find("d.io").unwrap_err().to_string().contains("auths.d.io.auth"));
        let store = Credentials::parse(br#"{"auths": {"b.io": {}}, "credsStore": "pass"}"#).unwrap();
        assert_eq!(store.find("b.io").unwrap(), Some(Found::Helper { helper: "pass".into(), server: "b.io".into() }));
        assert_eq!(store.find("c.io").unwrap(), None);
        assert!(Credentials::parse(b"<html>").is_err());
    }

    #[test]
    fn a_helper_answers_with_a_password_or_a_token() {
        let basic = Auth::Basic { username: "u".into(), password: "s".into() };
        assert_eq!(Credentials::answer(br#"{"ServerURL":"x","Username":"u","Secret":"s"}"#).unwrap(), basic);
        let token = Credentials::answer(br#"{"Username":"<token>","Secret":"s"}"#).unwrap();
        assert_eq!(token, Auth::Identity("s".into()));
        assert!(!Credentials::answer(b"Secret: s3cret").unwrap_err().to_string().contains("s3cret"));
    }
}
