//! How kube-apiserver and etcd are started: TLS and RBAC as ours have them, no TLS between the two.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::host::quiet;

/// Where etcd answers clients.
pub(crate) const ETCD: &str = "http://127.0.0.1:12379";
const ETCD_PEERS: &str = "http://127.0.0.1:12380";
const PORT: &str = "16443";
/// Known in the namespace only.
const TOKEN: &str = "bench";

/// A certificate, a key for service accounts, a token of the administrators, and the kubeconfig that has them.
pub(crate) fn identity(data: &Path) -> Result<PathBuf> {
    let file = |name: &str| data.join(name);
    let mut certificate = Command::new("openssl");
    certificate.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    certificate.args(["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"]);
    certificate.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    quiet(certificate.arg("-keyout").arg(file("tls.key")).arg("-out").arg(file("tls.crt")))?;
    quiet(Command::new("openssl").args(["genrsa", "-out"]).arg(file("accounts.key")).arg("2048"))?;
    fs::write(file("tokens.csv"), format!("{TOKEN},bench,bench,system:masters\n"))?;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: peer\n\
         clusters: [{{name: peer, cluster: {{server: \"https://127.0.0.1:{PORT}\", certificate-authority: tls.crt}}}}]\n\
         users: [{{name: peer, user: {{token: {TOKEN}}}}}]\n\
         contexts: [{{name: peer, context: {{cluster: peer, user: peer}}}}]\n"
    );
    fs::write(file("kubeconfig"), kubeconfig)?;
    Ok(file("kubeconfig"))
}

/// etcd's own defaults, at ports of its own.
pub(crate) fn etcd_arguments(data: &Path) -> Vec<String> {
    let pairs = [
        ("data-dir", data.join("etcd").display().to_string()),
        ("listen-client-urls", ETCD.to_owned()),
        ("advertise-client-urls", ETCD.to_owned()),
        ("listen-peer-urls", ETCD_PEERS.to_owned()),
        ("initial-advertise-peer-urls", ETCD_PEERS.to_owned()),
        ("initial-cluster", format!("default={ETCD_PEERS}")),
        ("log-level", "warn".to_owned()),
    ];
    flags(&pairs)
}

/// kube-apiserver's own defaults, with RBAC and what it insists on.
pub(crate) fn apiserver_arguments(data: &Path, etcd: &str) -> Vec<String> {
    let file = |name: &str| data.join(name).display().to_string();
    let pairs = [
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("secure-port", PORT.to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("etcd-servers", etcd.to_owned()),
        ("tls-cert-file", file("tls.crt")),
        ("tls-private-key-file", file("tls.key")),
        ("token-auth-file", file("tokens.csv")),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file("accounts.key")),
        ("service-account-signing-key-file", file("accounts.key")),
    ];
    flags(&pairs)
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
