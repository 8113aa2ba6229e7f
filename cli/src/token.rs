//! `trimtab token`: bootstrap tokens that let an agent join, as secrets of the cluster
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use client::join::JoinToken;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::instance::DEFAULT_DATA_DIR;

/// The group that agents are in before they have a certificate.
const GROUP: &str = "system:bootstrappers:trimtab:agents";
const PREFIX: &str = "bootstrap-token-";
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Tokens with which agents join.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab token create\n  trimtab token create --ttl 30m\n  trimtab token list\n  trimtab token delete abcdef"
)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
    /// The server's data directory.
    #[arg(long, global = true, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Makes a token and prints it; the secret half is shown only now.
    Create {
        /// How long it is good for, such as 24h or 30m.
        #[arg(long, default_value = "24h")]
        ttl: jiff::Span,
    },
    /// Lists tokens by their public half.
    List,
    /// Deletes a token by its public half.
    Delete {
        /// The six characters after `::`.
        id: String,
    },
}

/// Does what was asked.
pub(crate) async fn run(arguments: Token) -> Result<()> {
    let kubeconfig = arguments.data_dir.join("admin.kubeconfig");
    let client = client::from_kubeconfig(&kubeconfig)
        .with_context(|| format!("no server keeps its data in {}; see --data-dir", arguments.data_dir.display()))?;
    let secrets: Api<Secret> = Api::namespaced(client, "kube-system");
    match arguments.action {
        Action::Create { ttl } => {
            let ttl = SignedDuration::try_from(ttl).context("--ttl must be in hours, minutes or seconds")?;
            println!("{}", create(&secrets, &ca(&arguments.data_dir)?, ttl).await?);
        }
        Action::List => list(&secrets).await?,
        Action::Delete { id } => {
            match secrets.delete(&format!("{PREFIX}{id}"), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    bail!("there is no token {id}; `trimtab token list` shows those that are there")
                }
                result => drop(result?),
            }
            println!("token {id} deleted");
        }
    }
    Ok(())
}

fn ca(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("pki/ca.crt");
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Stores a new token and returns what an agent is given.
async fn create(secrets: &Api<Secret>, ca_pem: &str, ttl: SignedDuration) -> Result<JoinToken> {
    let (id, secret) = (letters(6)?, letters(16)?);
    let expiration = Timestamp::now() + ttl;
    let object = json!({
        "metadata": {"name": format!("{PREFIX}{id}")},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": GROUP,
        },
    });
    secrets.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(JoinToken::new(ca_pem, &id, &secret)?)
}

async fn list(secrets: &Api<Secret>) -> Result<()> {
    let only = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
    println!("{:<8} {:<22} GROUPS", "ID", "EXPIRES");
    for secret in secrets.list(&only).await? {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.map(|b| String::from_utf8_lossy(&b.0).into_owned()).unwrap_or_default()
        };
        println!("{:<8} {:<22} {}", text("token-id"), text("expiration"), text("auth-extra-groups"));
    }
    Ok(())
}

/// Random letters and digits from the kernel, without bias.
fn letters(count: usize) -> Result<String> {
    let mut found = String::with_capacity(count);
    let mut bytes = [0; 64];
    while found.len() < count {
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if read == 0 {
            bail!("the kernel gave no random bytes");
        }
        let fair = bytes.iter().take(read).filter(|b| usize::from(**b) < 252);
        let letters = fair.filter_map(|b| LETTERS.get(usize::from(*b) % LETTERS.len()));
        found.extend(letters.take(count - found.len()).map(|b| char::from(*b)));
    }
    Ok(found)
}
