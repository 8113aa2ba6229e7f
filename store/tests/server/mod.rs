//! Stores that need something started: Debian's etcd on loopback; a transformer that turns every bit.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
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

fn launch(dir: &std::path::Path, client: &str, peer: &str) -> std::io::Result<Child> {
    Command::new("etcd")
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
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (free_url(), free_url());
        match launch(dir.path(), &client, &peer) {
            Ok(child) => Some(Self { child, client, peer, dir }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: there is no etcd on PATH (Debian: apt-get install etcd-server)");
                None
            }
            Err(error) => panic!("starting etcd: {error}"),
        }
    }

    async fn connect(&self) -> Etcd {
        let config = Config { urls: vec![self.client.clone()], ..Config::default() };
        for _ in 0..200 {
            if let Ok(store) = Etcd::connect(config.clone()).await {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd did not start at {}", self.client);
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
    server.child = launch(server.dir.path(), &server.client, &server.peer).unwrap();
    let again = server.connect().await;
    let after = write(&again, vec![put("/after", "x")]).await;
    crate::conformance::collect(&mut watch, &mut seen, after).await;
    assert_eq!(seen, (from..=after).collect::<Vec<_>>());
}
