//! Writing kubeconfig files.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::{Error, files};

/// How the user of a kubeconfig file proves who it is.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum User {
    /// Embedded PEM texts.
    Embedded { certificate: String, key: String },
    /// Paths of PEM files, which are read again when they change.
    Files { certificate: PathBuf, key: PathBuf },
    /// An embedded bearer token.
    Token(String),
}

/// A kubeconfig file with one cluster, one user and one context.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The name of the cluster and the context.
    pub cluster: String,
    /// `https://host:port`.
    pub server: String,
    /// The cluster's CA, PEM; embedded.
    pub ca: String,
    /// The user's name in the file (the server reads names from certificates and tokens).
    pub name: String,
    /// The user.
    pub user: User,
}

impl Kubeconfig {
    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let (cluster, name) = (quoted(&self.cluster), quoted(&self.name));
        let user = match &self.user {
            User::Embedded { certificate, key } => {
                let (certificate, key) = (BASE64_STANDARD.encode(certificate), BASE64_STANDARD.encode(key));
                format!("client-certificate-data: {certificate}\n    client-key-data: {key}")
            }
            User::Files { certificate, key } => {
                let text = |path: &Path| quoted(&path.display().to_string());
                format!("client-certificate: {}\n    client-key: {}", text(certificate), text(key))
            }
            User::Token(token) => format!("token: {}", quoted(token)),
        };
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\npreferences: {{}}\n\
             clusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             users:\n- name: {name}\n  user:\n    {user}\n\
             contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {name}\n",
            server = quoted(&self.server),
            ca = BASE64_STANDARD.encode(&self.ca),
        )
    }

    /// Writes the file with mode 0600, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        files::write_secret(path, self.to_yaml().as_bytes())
    }
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
