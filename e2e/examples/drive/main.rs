//! A client that takes time: `drive KUBECONFIG TASK ARGS...` does one of the tasks below against any API server and
//! prints a line `WHAT VALUE` for each thing that it saw; times are nanoseconds. `cargo xtask bench` is the way to call
//! it.
//!
//! ```text
//! ready                       waits until the server is ready                             ready UNIX_TIME
//! put COUNT                   creates ConfigMaps of 1 KiB, one after the other             put TIME
//! patch CLIENTS COUNT         CLIENTS patch a small Pod each, COUNT times                  patch TIME, all TIME
//! allocated COUNT             the same as one client, and what Go's runtime says of it       patch, object BYTES
//! fill TOTAL                  makes ConfigMaps until there are TOTAL                       (nothing)
//! list COUNT                  lists ConfigMaps with a selector that matches none           list TIME
//! pods COUNT IMAGE            creates a Pod, waits until it runs, deletes it               running TIME
//! first-pod                   waits for the kubeconfig and the first Pod that runs         ready, pod UNIX_TIME
//! node NAME IP CIDR           makes a Node with an address and a range of pods             (nothing)
//! services TOTAL ENDPOINTS    makes TOTAL services with ENDPOINTS each, and one, `probe`   (nothing)
//! reach                       waits until a connection through `probe` gets through        reached UNIX_TIME
//! moves COUNT                 moves the endpoint of `probe`, waits until it is reached     move TIME
//! nodes TOTAL                 makes Nodes that nobody runs                                 (nothing)
//! waiting KIND COUNT          makes COUNT pods for a scheduler                             (nothing)
//! bound COUNT                 watches until COUNT pods are bound           watching, first, last UNIX_TIME
//! emptied                     deletes all pods                                             (nothing)
//! ```
//!
//! All endpoints of `services` are in 10.128.0.0/9; `reach` and `moves` are asked in the network namespace of a node that
//! has this range as its own addresses. KIND is `plain`, `affinity` or `anti-affinity`.

mod bind;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Requests before the first that counts: connection, TLS and caches.
const WARM: usize = 20;
/// Clients that fill a server.
const FILLERS: usize = 32;
/// All of a task may take so long.
const LONGEST: Duration = Duration::from_secs(600);
/// How often is looked for what has no event to wait for.
const LOOK: Duration = Duration::from_millis(2);

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [kubeconfig, task @ ..] = words.as_slice() else { bail!("usage: drive KUBECONFIG TASK ARGS...") };
    // Whoever comes second is told so by an error that changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::time::timeout(LONGEST, run(Path::new(kubeconfig), task)).await.context("not done in time")?
}

async fn run(kubeconfig: &Path, task: &[&str]) -> Result<()> {
    let client = || client::from_kubeconfig(kubeconfig);
    let fillers = || (0..FILLERS).map(|_| client()).collect::<Result<Vec<_>, _>>();
    match task {
        ["ready"] => ready(kubeconfig).await.map(drop),
        ["put", count] => put(client()?, count.parse()?).await,
        ["patch", clients, count] => {
            let clients = (0..clients.parse()?).map(|_| client()).collect::<Result<Vec<_>, _>>()?;
            patch(clients, count.parse()?).await
        }
        ["allocated", count] => allocated(client()?, count.parse()?).await,
        ["fill", total] => fill(fillers()?, total.parse()?).await,
        ["list", count] => list(client()?, count.parse()?).await,
        ["pods", count, image] => pods(client()?, count.parse()?, image).await,
        ["first-pod"] => first_pod(ready(kubeconfig).await?).await,
        ["node", name, ip, cidr] => node(client()?, name, ip, cidr).await,
        ["services", total, endpoints] => services(fillers()?, total.parse()?, endpoints.parse()?).await,
        ["reach"] => reach(client()?).await,
        ["moves", count] => moves(client()?, count.parse()?).await,
        ["nodes", total] => bind::nodes(fillers()?, total.parse()?).await,
        ["waiting", kind, count] => bind::waiting(fillers()?, kind, count.parse()?).await,
        ["bound", count] => bind::bound(client()?, count.parse()?).await,
        ["emptied"] => bind::emptied(client()?).await,
        other => bail!("unknown task {other:?}"),
    }
}

fn said(what: &str, start: Instant) {
    println!("{what} {}", start.elapsed().as_nanos());
}

fn now(what: &str) -> Result<()> {
    println!("{what} {}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    Ok(())
}

/// Whether anything was refused tells the caller; that an object is there already is fine.
fn there<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

fn object<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

async fn ready(kubeconfig: &Path) -> Result<Client> {
    let client = loop {
        match client::from_kubeconfig(kubeconfig) {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    loop {
        let readyz = http::Request::get("/readyz").body(Vec::new())?;
        if client.request_text(readyz).await.is_ok() {
            now("ready")?;
            return Ok(client);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn config_map(name: &str) -> Result<ConfigMap> {
    let metadata = json!({"name": name, "labels": {"app": "bench"}});
    object(json!({"metadata": metadata, "data": {"value": "v".repeat(1024)}}))
}

async fn put(client: Client, count: usize) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let own = std::process::id();
    for at in 0..WARM + count {
        let map = config_map(&format!("put-{own}-{at}"))?;
        let start = Instant::now();
        api.create(&PostParams::default(), &map).await?;
        if at >= WARM {
            said("put", start);
        }
    }
    Ok(())
}

fn pod(name: &str, image: &str) -> Result<Pod> {
    let args = ["web", "--listen", ":8080", "--root", "/"];
    let container = json!({"name": "c", "image": image, "imagePullPolicy": "Never", "args": args});
    let spec =
        json!({"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "containers": [container]});
    object(json!({"metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}))
}

/// Nobody makes service accounts where no controllers run.
async fn account(client: &Client) -> Result<()> {
    let account: ServiceAccount = object(json!({"metadata": {"name": "default"}}))?;
    let api: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    Ok(there(api.create(&PostParams::default(), &account).await)?)
}

async fn patch(clients: Vec<Client>, count: usize) -> Result<()> {
    account(clients.first().context("no clients")?).await?;
    let mut ready = Vec::new();
    for (at, client) in clients.into_iter().enumerate() {
        let (api, name): (Api<Pod>, _) = (Api::default_namespaced(client), format!("patched-{at}"));
        there(api.create(&PostParams::default(), &pod(&name, "none")?).await)?;
        patch_one(&api, &name, WARM, &mut |_| {}).await?;
        ready.push((api, name));
    }
    let start = Instant::now();
    let all =
        ready.iter().map(|(api, name)| async move { patch_one(api, name, count, &mut |s| said("patch", s)).await });
    futures::future::try_join_all(all).await?;
    said("all", start);
    Ok(())
}

async fn patch_one(api: &Api<Pod>, name: &str, count: usize, done: &mut (dyn FnMut(Instant) + Send)) -> Result<()> {
    for at in 0..count {
        let change = json!({"metadata": {"annotations": {"bench": at.to_string()}}});
        let start = Instant::now();
        api.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await?;
        done(start);
    }
    Ok(())
}

/// The mean of what a server in Go allocates for a patch, and the size of the Pod.
async fn allocated(client: Client, count: usize) -> Result<()> {
    account(&client).await?;
    let (api, name): (Api<Pod>, _) = (Api::default_namespaced(client.clone()), "patched");
    there(api.create(&PostParams::default(), &pod(name, "none")?).await)?;
    patch_one(&api, name, WARM, &mut |_| {}).await?;
    let before = metric(&client, "go_memstats_alloc_bytes_total").await?;
    patch_one(&api, name, count, &mut |_| {}).await?;
    let bytes = metric(&client, "go_memstats_alloc_bytes_total").await? - before;
    println!("patch {}", bytes / count as f64);
    println!("object {}", serde_json::to_vec(&api.get(name).await?)?.len());
    Ok(())
}

async fn metric(client: &Client, name: &str) -> Result<f64> {
    let all = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let value = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no metric {name}"))?.parse()?)
}

async fn fill(clients: Vec<Client>, total: usize) -> Result<()> {
    let numbers = stream::iter((0..total).zip(clients.iter().cycle()));
    let made = numbers.map(|(at, client)| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        anyhow::Ok(there(api.create(&PostParams::default(), &config_map(&format!("fill-{at:06}"))?).await)?)
    });
    made.buffer_unordered(clients.len()).try_for_each(|()| async { Ok(()) }).await
}

async fn list(client: Client, count: usize) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let none = ListParams::default().labels("app=nobody-has-this");
    for at in 0..WARM + count {
        let start = Instant::now();
        let found = api.list(&none).await?;
        ensure!(found.items.is_empty(), "the selector matched");
        if at >= WARM {
            said("list", start);
        }
    }
    Ok(())
}

async fn pods(client: Client, count: usize, image: &str) -> Result<()> {
    account(&client).await?;
    let api: Api<Pod> = Api::default_namespaced(client);
    let own = std::process::id();
    // One more than counts: the first finds cold caches.
    for at in 0..=count {
        let name = format!("start-{own}-{at}");
        let version = api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
        let only = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = pin!(api.watch(&only, &version.unwrap_or_default()).await?);
        let start = Instant::now();
        api.create(&PostParams::default(), &pod(&name, image)?).await?;
        until(&mut events, |event| matches!(event, WatchEvent::Modified(pod) if running(pod))).await?;
        if at > 0 {
            said("running", start);
        }
        api.delete(&name, &DeleteParams::default()).await?;
        until(&mut events, |event| matches!(event, WatchEvent::Deleted(_))).await?;
    }
    Ok(())
}

fn running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

async fn until<K: Clone + Debug>(
    events: &mut (impl TryStreamExt<Ok = WatchEvent<K>, Error = kube::Error> + Unpin),
    wanted: impl Fn(&WatchEvent<K>) -> bool,
) -> Result<()> {
    while let Some(event) = events.try_next().await? {
        if wanted(&event) {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

async fn first_pod(client: Client) -> Result<()> {
    let api: Api<Pod> = Api::all(client);
    let mut events = pin!(api.watch(&WatchParams::default(), "0").await?);
    let runs = |event: &WatchEvent<Pod>| matches!(event, WatchEvent::Added(p) | WatchEvent::Modified(p) if running(p));
    until(&mut events, runs).await?;
    now("pod")
}

async fn node(client: Client, name: &str, ip: &str, cidr: &str) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let node = json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
    there(api.create(&PostParams::default(), &object(node)?).await)?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": ip}]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// Where an endpoint is.
fn endpoint(number: usize) -> Value {
    json!({"addresses": [Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 1).to_bits() + number as u32)]})
}

async fn service(client: &Client, name: &str, endpoints: Vec<Value>) -> Result<()> {
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let api: Api<Service> = Api::default_namespaced(client.clone());
    there(api.create(&PostParams::default(), &object(service)?).await)?;
    let slice = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    });
    let api: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    Ok(there(api.create(&PostParams::default(), &object(slice)?).await)?)
}

async fn services(clients: Vec<Client>, total: usize, endpoints: usize) -> Result<()> {
    service(clients.first().context("no clients")?, "probe", vec![endpoint(0)]).await?;
    let numbers = stream::iter((0..total).zip(clients.iter().cycle()));
    let made = numbers.map(|(at, client)| async move {
        let own = (1..=endpoints).map(|number| endpoint(at * endpoints + number)).collect();
        service(client, &format!("service-{at:06}"), own).await
    });
    made.buffer_unordered(clients.len()).try_for_each(|()| async { Ok(()) }).await
}

/// Every endpoint is here, and says at which address it was reached.
async fn endpoints() -> Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8080").await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let at = stream.local_addr().map(|at| at.ip().to_string()).unwrap_or_default();
                let _ = stream.write_all(at.as_bytes()).await;
            });
        }
    });
    Ok(())
}

async fn virtual_address(client: &Client) -> Result<SocketAddr> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let ip = api.get("probe").await?.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
    Ok(SocketAddr::new(ip.parse()?, 80))
}

/// Who answers, if anybody does at once.
async fn answer(at: SocketAddr) -> Option<IpAddr> {
    let asked = async {
        let mut text = String::new();
        TcpStream::connect(at).await.ok()?.read_to_string(&mut text).await.ok()?;
        text.parse().ok()
    };
    tokio::time::timeout(10 * LOOK, asked).await.ok()?
}

async fn reach(client: Client) -> Result<()> {
    endpoints().await?;
    let at = virtual_address(&client).await?;
    while answer(at).await.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    now("reached")
}

/// Pauses a little longer than kube-proxy does between two looks at its objects.
async fn moves(client: Client, count: usize) -> Result<()> {
    endpoints().await?;
    let at = virtual_address(&client).await?;
    let api: Api<EndpointSlice> = Api::default_namespaced(client);
    let before = answer(at).await.context("the service is not reached")?;
    let first = usize::from(before == IpAddr::from([10, 128, 0, 1]));
    for number in first..first + count {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let change = json!({"endpoints": [endpoint(number % 2)]});
        api.patch("probe", &PatchParams::default(), &Patch::Merge(change)).await?;
        let start = Instant::now();
        while answer(at).await != Some(IpAddr::from([10, 128, 0, 1 + (number % 2) as u8])) {}
        said("move", start);
    }
    Ok(())
}
