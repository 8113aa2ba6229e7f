//! `registries.yaml` in the data directory: how registries are reached, in the words that k3s has for it.
//!
//! ```yaml
//! mirrors:
//!   docker.io:
//!     endpoint: ["https://mirror.example"]
//! configs:
//!   registry.example:5000:
//!     auth: {username: me, password: secret}
//!     tls: {ca_file: ca.pem, cert_file: me.pem, key_file: me.key}
//! plain_http: ["localhost:5000"]
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runtime_image::{Auth, Registries};
use serde::Deserialize;

const FILE: &str = "registries.yaml";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, Config>,
    plain_http: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    auth: Option<Password>,
    tls: Tls,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    username: String,
    password: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

/// What an instance knows of registries: nothing, where it has no file. Paths in it begin at the data directory.
pub(crate) fn load(data_dir: &Path) -> Result<Registries> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => read(&text, data_dir).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Registries::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn read(text: &str, dir: &Path) -> Result<Registries> {
    // An empty file is no document at all.
    let file: Option<File> = serde_yaml::from_str(text)?;
    let file = file.unwrap_or_default();
    let mut registries = Registries { plain_http: file.plain_http, ..Registries::default() };
    for (name, mirror) in file.mirrors {
        registries.hosts.entry(name).or_default().mirrors = mirror.endpoint;
    }
    let open = |path: &PathBuf| fs::read(dir.join(path)).with_context(|| format!("read {}", path.display()));
    for (name, config) in file.configs {
        let host = registries.hosts.entry(name).or_default();
        host.auth = config.auth.map(|Password { username, password }| Auth::Basic { username, password });
        host.ca_pem = config.tls.ca_file.as_ref().map(open).transpose()?;
        let own = [config.tls.cert_file, config.tls.key_file];
        let own = own.iter().flatten().map(open).collect::<Result<Vec<_>>>()?;
        host.client_pem = (!own.is_empty()).then(|| own.join(&b'\n'));
    }
    Ok(registries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_from_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), Registries::default());
        for (name, text) in [("ca.pem", "CA"), ("me.pem", "ME"), ("me.key", "KEY"), (FILE, "# nothing yet\n")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(load(dir.path()).unwrap(), Registries::default());
        let text = "mirrors: {docker.io: {endpoint: ['https://m']}}\nplain_http: ['l:5000']\nconfigs:\n  r.io:\n    \
                    auth: {username: u, password: p}\n    tls: {ca_file: ca.pem, cert_file: me.pem, key_file: me.key}\n";
        fs::write(dir.path().join(FILE), text).unwrap();
        let read = load(dir.path()).unwrap();
        assert_eq!(read.plain_http, ["l:5000"]);
        assert_eq!(read.hosts["docker.io"].mirrors, ["https://m"]);
        let host = &read.hosts["r.io"];
        assert_eq!(host.auth, Some(Auth::Basic { username: "u".into(), password: "p".into() }));
        assert_eq!((host.ca_pem.as_deref(), host.client_pem.as_deref()), (Some(&b"CA"[..]), Some(&b"ME\nKEY"[..])));
        fs::write(dir.path().join(FILE), "mirror: {}\n").unwrap();
        let error = format!("{:#}", load(dir.path()).unwrap_err());
        assert!(error.contains(FILE) && error.contains("unknown field `mirror`"), "{error}");
    }
}
