//! Where a client goes and as whom.

use std::path::{Path, PathBuf};

use http::Uri;
use kube::config::{AuthInfo, Cluster, Kubeconfig, NamedContext};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::{Client, Error, files, transport};

/// Text that is known, or stands in a file that may change.
#[derive(Clone, Debug)]
pub enum Material {
    /// The text itself.
    Data(String),
    /// A file, read again when it changes.
    File(PathBuf),
}

impl Material {
    pub(crate) fn read(&self) -> Result<String, Error> {
        match self {
            Self::Data(text) => Ok(text.clone()),
            Self::File(path) => files::read(path),
        }
    }

    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Data(_) => None,
            Self::File(path) => Some(path.clone()),
        }
    }
}

/// As whom.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// As nobody.
    None,
    /// A client certificate (PEM, with what signed it) and its key.
    Certificate {
        /// The chain.
        certificate: Material,
        /// The private key.
        key: Material,
    },
    /// A bearer token.
    Token(Material),
}

/// A server and an identity.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://host:port`, possibly with a path before `/api`.
    pub server: Uri,
    /// Who signs the server's certificate (PEM). Unused with plain http.
    pub ca: Material,
    /// The name in the server's certificate, where it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// As whom.
    pub credentials: Credentials,
    /// The namespace of requests that name none.
    pub namespace: String,
}

impl Target {
    /// A server whose certificate `ca` signed.
    pub fn new(server: &str, ca: Material, credentials: Credentials) -> Result<Self, Error> {
        let uri: Uri = server.parse().map_err(|_| Error::Server(server.into()))?;
        if uri.host().is_none() || uri.scheme().is_none() {
            return Err(Error::Server(server.into()));
        }
        Ok(Self { server: uri, ca, tls_server_name: None, credentials, namespace: "default".into() })
    }

    /// The current context of a kubeconfig file. Relative paths in it are relative to the file.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        let bad = |why: String| Error::Kubeconfig { path: path.into(), why };
        let file = Kubeconfig::read_from(path).map_err(|e| bad(e.to_string()))?;
        let (context, cluster, user) = parts(&file).map_err(bad)?;
        let credentials = credentials(user).map_err(bad)?;
        let server = cluster.server.clone().unwrap_or_default();
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err(bad("insecure-skip-tls-verify is not supported".into()));
        }
        let ca = material(&cluster.certificate_authority_data, &cluster.certificate_authority).map_err(bad)?;
        let ca = match ca {
            Some(ca) => ca,
            None if server.starts_with("http://") => Material::Data(String::new()),
            None => return Err(bad("it names no certificate-authority".into())),
        };
        let target = Self::new(&server, ca, credentials)?;
        let namespace = context.context.as_ref().and_then(|c| c.namespace.clone()).unwrap_or(target.namespace);
        Ok(Self { tls_server_name: cluster.tls_server_name.clone(), namespace, ..target })
    }

    /// A client.
    pub fn client(self) -> Result<Client, Error> {
        transport::remote(self)
    }

    /// The files that were read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let credentials: Vec<&Material> = match &self.credentials {
            Credentials::None => vec![],
            Credentials::Certificate { certificate, key } => vec![certificate, key],
            Credentials::Token(token) => vec![token],
        };
        credentials.into_iter().chain([&self.ca]).filter_map(Material::path).collect()
    }
}

fn parts(file: &Kubeconfig) -> Result<(&NamedContext, &Cluster, Option<&AuthInfo>), String> {
    let current = file.current_context.as_deref().unwrap_or_default();
    let context = file.contexts.iter().find(|c| c.name == current);
    let context = context.ok_or_else(|| format!("there is no context {current:?}"))?;
    let inner = context.context.as_ref().ok_or("the context is empty")?;
    let cluster = file.clusters.iter().find(|c| c.name == inner.cluster).and_then(|c| c.cluster.as_ref());
    let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", inner.cluster))?;
    let name = inner.user.as_deref().unwrap_or_default();
    let user = file.auth_infos.iter().find(|u| u.name == name).and_then(|u| u.auth_info.as_ref());
    Ok((context, cluster, user))
}

/// Inline data goes before a path, as in client-go.
fn material(data: &Option<String>, path: &Option<String>) -> Result<Option<Material>, String> {
    let some = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    match (some(data), some(path)) {
        (Some(data), _) => {
            let bytes = BASE64_STANDARD.decode(data.trim()).map_err(|e| format!("inline data is not base64: {e}"))?;
            let text = String::from_utf8(bytes).map_err(|_| "inline data is not PEM".to_owned())?;
            Ok(Some(Material::Data(text)))
        }
        (None, Some(path)) => Ok(Some(Material::File(path.into()))),
        (None, None) => Ok(None),
    }
}

fn credentials(user: Option<&AuthInfo>) -> Result<Credentials, String> {
    use secrecy::ExposeSecret;
    let Some(user) = user else { return Ok(Credentials::None) };
    if user.exec.is_some() || user.auth_provider.is_some() || user.username.is_some() || user.impersonate.is_some() {
        return Err("exec, auth-provider, username and impersonation are not supported".into());
    }
    if let Some(path) = user.token_file.clone().filter(|p| !p.is_empty()) {
        return Ok(Credentials::Token(Material::File(path.into())));
    }
    if let Some(token) = user.token.as_ref().map(|t| t.expose_secret().to_owned()).filter(|t| !t.is_empty()) {
        return Ok(Credentials::Token(Material::Data(token)));
    }
    let key = user.client_key_data.as_ref().map(|k| k.expose_secret().to_owned());
    let certificate = material(&user.client_certificate_data, &user.client_certificate)?;
    match (certificate, material(&key, &user.client_key)?) {
        (Some(certificate), Some(key)) => Ok(Credentials::Certificate { certificate, key }),
        (None, None) => Ok(Credentials::None),
        _ => Err("a client certificate needs its key, and the other way round".into()),
    }
}
