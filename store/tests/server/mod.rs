//! Stores that need something started: Debian's etcd on loopback; a transformer that turns every bit.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use store::etcd::{Config, Etcd};
use store::memory::Memory;
use store::transform::{Transformed, Transformer};
use store::{Error, Range, Store};

use crate::conformance::{put, write};

/// An etcd of its own in a temporary directory; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) client: String,
    peer: String,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn launch(dir: &Path, client: &str, peer: &str, more: &[String]) -> std::io::Result<Child> {
    Command::new("etcd")
        .args(more)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl Server {
    /// Nothing if there is no etcd on this machine.
    fn start() -> Option<Self> {
        Self::start_with(tempfile::tempdir().unwrap(), "http", &[])
    }

    fn start_with(dir: tempfile::TempDir, scheme: &str, more: &[String]) -> Option<Self> {
        let (client, peer) = (free_url().replacen("http", scheme, 1), free_url());
        match launch(dir.path(), &client, &peer, more) {
            Ok(child) => Some(Self { child, client, peer, dir }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: there is no etcd on PATH (Debian: apt-get install etcd-server)");
                None
            }
            Err(error) => panic!("starting etcd: {error}"),
        }
    }

    /// It need not have started yet.
    async fn connect(&self) -> Etcd {
        Etcd::connect(self.config()).await.unwrap()
    }

    fn config(&self) -> Config {
        Config { urls: vec![self.client.clone()], ..Config::default() }
    }
}

pub(crate) async fn start() -> Option<(Etcd, Server)> {
    let server = Server::start()?;
    Some((server.connect().await, server))
}

struct Flip;

impl Transformer for Flip {
    fn seal(&self, _: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        Ok(value.iter().map(|b| !b).collect())
    }

    fn open(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Error> {
        self.seal(key, value)
    }
}

pub(crate) fn flipped() -> Transformed<Memory> {
    Transformed::new(Memory::new(), Arc::new(Flip))
}

#[tokio::test]
async fn the_home_sees_sealed_values() {
    let home = Memory::new();
    write(&Transformed::new(home.clone(), Arc::new(Flip)), vec![put("/k", "a")]).await;
    let sealed = home.range(Range::key("/k")).await.unwrap().entries.remove(0).value;
    assert_eq!(sealed.as_ref(), [!b'a']);
}

/// etcd is killed and started again under a watch: it goes on without a gap and without doubles.
#[tokio::test]
async fn a_watch_survives_a_restart_of_etcd() {
    let Some(mut server) = Server::start() else { return };
    let store = server.connect().await;
    let from = store.revision().await.unwrap() + 1;
    let mut watch = store.watch("/".into(), from).await.unwrap();
    write(&store, vec![put("/before", "x")]).await;
    let mut seen = Vec::new();
    crate::conformance::collect(&mut watch, &mut seen, from).await;

    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let lost = store.commit(store::Txn { compare: vec![], ops: vec![put("/lost", "x")] });
    assert!(matches!(lost.await, Err(Error::Unknown(_) | Error::Unavailable(_))));
    server.child = launch(server.dir.path(), &server.client, &server.peer, &[]).unwrap();
    let again = server.connect().await;
    let after = write(&again, vec![put("/after", "x")]).await;
    crate::conformance::collect(&mut watch, &mut seen, after).await;
    assert_eq!(seen, (from..=after).collect::<Vec<_>>());
}

/// Two API servers on one etcd: what is older than two intervals goes, whoever's turn it is.
#[tokio::test]
async fn history_is_compacted() {
    let Some(server) = Server::start() else { return };
    let config = Config { compaction: Duration::from_millis(50), ..server.config() };
    let (store, _other) = (Etcd::connect(config.clone()).await.unwrap(), Etcd::connect(config).await.unwrap());
    let old = write(&store, vec![put("/k", "a")]).await;
    let newest = write(&store, vec![put("/k", "b")]).await;
    let mut turns = store.watch("compact_rev_key".into(), old).await.unwrap();
    let asked = Range { revision: old, ..Range::key("/k") };
    while store.range(asked.clone()).await.is_ok() {
        // A turn is taken before what it is for is done, so the last one may be one too many.
        turns.next().await.unwrap().unwrap();
    }
    assert!(matches!(store.range(asked).await, Err(Error::Compacted(_))));
    let kept = store.range(Range::key("/k")).await.unwrap().entries;
    assert_eq!((kept[0].value.as_ref(), kept[0].mod_revision), (b"b".as_ref(), newest));
}

/// What does not answer is named in the end; the server may be started before its etcd (all other tests do so).
#[tokio::test]
async fn an_etcd_that_never_answers_is_named() {
    let config = Config { urls: vec![free_url()], patience: Duration::from_millis(200), ..Config::default() };
    match Etcd::connect(config.clone()).await.map(|_| ()) {
        Err(Error::Unavailable(why)) => assert!(why.contains(&config.urls[0]), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// A CA and a certificate that it signed for a server on loopback and a client, as files.
fn certificates(dir: &Path) -> [PathBuf; 3] {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    let file = |name: &str, pem: String| {
        std::fs::write(dir.join(name), pem).unwrap();
        dir.join(name)
    };
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    [file("ca.pem", ca_certificate.pem()), file("leaf.pem", certificate.pem()), file("leaf.key", key.serialize_pem())]
}

#[tokio::test]
async fn tls_and_a_password_are_needed_and_enough() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, leaf, key] = certificates(dir.path());
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = [
        flag("trusted-ca-file", &ca),
        flag("cert-file", &leaf),
        flag("key-file", &key),
        "--client-cert-auth".to_owned(),
    ];
    let Some(server) = Server::start_with(dir, "https", &flags) else { return };
    let open = Config { ca_file: Some(ca.clone()), client_files: Some((leaf, key)), ..server.config() };
    Etcd::connect(open.clone()).await.unwrap();
    require_password(&open).await;

    let right = Config { user: Some(("root".to_owned(), "secret".to_owned())), ..open.clone() };
    let store = Etcd::connect(right.clone()).await.unwrap();
    let revision = write(&store, vec![put("/k", "x")]).await;
    let mut watch = store.watch("/".into(), revision).await.unwrap();
    crate::conformance::collect(&mut watch, &mut Vec::new(), revision).await;

    let wrong = Config { user: Some(("root".to_owned(), "guess".to_owned())), ..open.clone() };
    let (asked, patience) = (Instant::now(), wrong.patience);
    assert!(Etcd::connect(wrong).await.is_err(), "a wrong password");
    assert!(asked.elapsed() < patience, "a refusal is not tried again");
    let nobody = Etcd::connect(open).await;
    let refused = async { nobody?.range(Range::key("/k")).await };
    assert!(refused.await.is_err(), "no password");
    let stranger = Config { client_files: None, patience: Duration::ZERO, ..right };
    assert!(Etcd::connect(stranger).await.is_err(), "no certificate");
}

/// Makes etcd ask for the password of its user root.
async fn require_password(config: &Config) {
    use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
    let read = |path: &PathBuf| std::fs::read(path).unwrap();
    let (leaf, key) = config.client_files.as_ref().unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(config.ca_file.as_ref().unwrap())))
        .identity(Identity::from_pem(read(leaf), read(key)));
    let options = ConnectOptions::new().with_tls(tls);
    let mut client = Client::connect(&config.urls, Some(options)).await.unwrap();
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
}
