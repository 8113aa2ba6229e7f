//! A server on the memory store for trying things out, with an identity of its own below a folder.
//!
//! `cargo run -p apiserver --example dev -- 127.0.0.1:7443 /tmp/dev`, then
//! `kubectl --kubeconfig /tmp/dev/admin.kubeconfig get namespaces`.
#![allow(missing_docs, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::identity::{Identity, Options};
use apiserver::{Config, Server, User, bootstrap};

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr =
        arguments.next().unwrap_or_else(|| "127.0.0.1:7443".into()).parse().expect("an address and port");
    let folder = arguments.next().unwrap_or_else(|| "/tmp/trimtab-dev".into());
    let options = Options::new(folder.as_str(), &format!("https://{address}"));
    let identity = Identity::open(options, api::Timestamp::now()).expect("an identity");
    let config = Config { advertise: address.to_string(), ..Config::default() };
    let store = Arc::new(store::memory::Memory::new());
    let server = Server::start(config, store, identity.parts()).await.expect("a server");
    let listener = tokio::net::TcpListener::bind(address).await.expect("the address is free");
    let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
    let local = server.clone();
    let client = client::in_process(move || local.local(user.clone()));
    // Endpoints may not be on loopback; this one is reached by nobody.
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], address.port()));
    let made = bootstrap::reconcile(&client, [10, 96, 0, 1].into(), &[elsewhere], &identity.trust()).await;
    made.expect("bootstrap objects");
    println!("serving on {address}, {folder}/admin.kubeconfig");
    server.serve(listener, identity.tls()).await.expect("serves until shut down");
}
