//! Bytes that a server allocates for a PATCH of a small Pod: `allocations COUNT` prints `patch BYTES`, the mean of so many,
//! and `object BYTES`, what the Pod has in JSON. The server is whole but for TLS, on the embedded store; what the client
//! allocates is not counted. `cargo xtask bench P5` is the way to call it.
#![allow(missing_docs, unsafe_code, clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apiserver::identity::{Identity, Options, Trust};
use apiserver::{Config, Server, User, bootstrap};
use http::{Method, Request};
use serde_json::{Value, json};
use store::embedded::{Embedded, Settings};
use tokio::runtime::{Builder, Runtime};

/// Patches before the first that counts.
const WARM: usize = 50;
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 6443);

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread works for the server.
    static SERVES: Cell<bool> = const { Cell::new(true) };
}

/// The system's allocator, counted.
struct Counted;

fn count(bytes: usize) {
    if SERVES.try_with(Cell::get).unwrap_or(true) {
        ALLOCATED.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call is the system allocator's own, with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the same allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("usage: allocations COUNT");
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    let folder = tempfile::tempdir().expect("a folder");
    let serving = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (server, trust) = serving.block_on(serve(folder.path()));
    SERVES.set(false);
    let asking = Builder::new_current_thread().enable_all().build().expect("a runtime");
    asking.block_on(async { patch(client(&serving, &server), &trust, count).await });
    serving.block_on(server.shutdown(std::time::Duration::from_secs(2)));
}

async fn serve(folder: &std::path::Path) -> (Server, Trust) {
    let options = Options::new(folder, &format!("https://{ADDRESS}"));
    let identity = Identity::open(options, api::Timestamp::now()).expect("an identity");
    let store = Embedded::open(&folder.join("store"), Settings::default()).expect("a store");
    let config = Config { advertise: ADDRESS.to_string(), ..Config::default() };
    let trust = identity.trust();
    (Server::start(config, Arc::new(store), identity.parts()).await.expect("a server"), trust)
}

/// Its connections are served by the server's threads.
fn client(serving: &Runtime, server: &Server) -> client::Client {
    let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
    let (handle, server) = (serving.handle().clone(), server.clone());
    client::in_process(move || {
        let _served = handle.enter();
        server.local(user.clone())
    })
}

async fn ask(client: &client::Client, method: Method, path: &str, media: &str, body: &Value) -> String {
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    client.request_text(request.body(body.to_string().into_bytes()).expect("a request")).await.expect("an answer")
}

async fn patch(client: client::Client, trust: &Trust, count: usize) {
    // Endpoints may not be on loopback; this one is reached by nobody.
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], ADDRESS.port()));
    bootstrap::reconcile(&client, [10, 96, 0, 1].into(), &[elsewhere], trust).await.expect("bootstrap objects");
    let create = async |kind: &str, object: Value| {
        ask(&client, Method::POST, &format!("/api/v1/namespaces/default/{kind}"), "application/json", &object).await
    };
    create("serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let container = json!({"name": "c", "image": "none", "args": ["web", "--listen", ":8080", "--root", "/"]});
    let spec = json!({"automountServiceAccountToken": false, "containers": [container]});
    create("pods", json!({"metadata": {"name": "patched", "labels": {"app": "bench"}}, "spec": spec})).await;
    let (mut before, mut size) = (0, 0);
    for at in 0..WARM + count {
        if at == WARM {
            before = ALLOCATED.load(Ordering::Relaxed);
        }
        let change = json!({"metadata": {"annotations": {"bench": at.to_string()}}});
        let path = "/api/v1/namespaces/default/pods/patched";
        size = ask(&client, Method::PATCH, path, "application/strategic-merge-patch+json", &change).await.len();
    }
    let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
    println!("patch {}", allocated as f64 / count as f64);
    println!("object {size}");
}
