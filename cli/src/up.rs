//! `trimtab up`: a whole cluster on this machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ipnet::IpNet;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node as NodeObject, Service};
use kube::api::{Api, WatchEvent, WatchParams};

use crate::foreground::Foreground;
use crate::instance::DEFAULT_DATA_DIR;
use crate::manifests;
use crate::node::{Node, node_name, root};
use crate::plane::{Options, StoreChoice, store_choice};
use crate::progress::Progress;

/// Starts a whole cluster on this machine and stays in the foreground.
///
/// TERM or Ctrl-C drains requests and ends; containers go on running, and the next `up` adopts them.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab up\n  trimtab up --data-dir /tmp/t1 --listen 127.0.0.1:7443 --no-quickstart\n  trimtab up --store etcd=http://127.0.0.1:2379"
)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) plane: PlaneArguments,
    /// This node's name.
    #[arg(long)]
    node_name: Option<String>,
    /// Do not apply the quick start (a Deployment of a small web server, a Service, a ConfigMap).
    #[arg(long)]
    no_quickstart: bool,
    #[command(flatten)]
    node: NodePorts,
}

/// What `up` and `server` share.
#[derive(Args, Debug)]
pub(crate) struct PlaneArguments {
    /// Where everything is kept.
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// Where clients connect to the API server.
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Where the state is: `embedded`, or `etcd=URL[,URL]`.
    #[arg(long, default_value = "embedded", value_parser = store_choice)]
    store: StoreChoice,
    /// The address of this machine for pods and other nodes; by default the one that its default route uses.
    #[arg(long)]
    pub(crate) node_ip: Option<IpAddr>,
    /// Addresses of services.
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: IpNet,
    /// Addresses of pods; every node gets a part.
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: IpNet,
    /// The domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Seconds without a heartbeat after which a node is NotReady.
    #[arg(long, default_value_t = 40)]
    node_monitor_grace_period: u64,
}

/// Ports of the node agent.
#[derive(Args, Debug, Clone)]
pub(crate) struct NodePorts {
    /// The port of the node agent's HTTPS server (logs, exec, port-forward).
    #[arg(long, default_value_t = 10250)]
    pub(crate) agent_port: u16,
}

impl PlaneArguments {
    /// The options of a control plane, with what was not given found out.
    pub(crate) fn options(&self) -> Result<Options> {
        let node_ip = self.node_ip()?;
        Ok(Options {
            listen: self.listen,
            advertise: vec![node_ip],
            store: self.store.clone(),
            service_cidrs: vec![self.service_cidr],
            pod_cidrs: vec![self.cluster_cidr],
            domain: self.cluster_domain.clone(),
            node_grace: Duration::from_secs(self.node_monitor_grace_period),
        })
    }

    /// The given address of this machine, or the one it would use to reach others.
    pub(crate) fn node_ip(&self) -> Result<IpAddr> {
        self.node_ip.map_or_else(default_address, Ok)
    }
}

/// The source address of the default route: nothing is sent.
pub(crate) fn default_address() -> Result<IpAddr> {
    let found = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    match found {
        Ok(address) if !address.ip().is_loopback() => Ok(address.ip()),
        _ => bail!("this machine has no default route to tell its address by; give one with --node-ip"),
    }
}

/// Runs until TERM or INT.
pub(crate) async fn run(arguments: Up) -> Result<()> {
    root()?;
    let name = node_name(arguments.node_name.as_deref())?;
    let mut foreground = Foreground::start(&arguments.plane).await?;
    let Foreground { instance, options, plane, progress, .. } = &foreground;
    progress.step("starting the node");
    let node_ip = arguments.plane.node_ip()?;
    let mut node = Node::start_local(instance, plane, options, &name, node_ip, arguments.node.agent_port).await?;
    let (admin, progress) = (plane.admin(), progress.clone());
    let ready = async {
        node_ready(&admin, &name).await?;
        progress.done(&format!("node {name} is Ready"));
        if !arguments.no_quickstart {
            quick_start(&admin, &progress, node_ip).await?;
        }
        anyhow::Ok(())
    };
    let complete = tokio::select! {
        result = ready => { result?; true }
        error = node.ended() => return Err(error),
        () = foreground.signalled() => false,
    };
    if complete {
        foreground.ready();
        tokio::select! {
            error = node.ended() => return Err(error),
            () = foreground.signalled() => {}
        }
    }
    node.stop().await;
    foreground.plane.stop().await;
    Ok(())
}

async fn quick_start(admin: &client::Client, progress: &Progress, node_ip: IpAddr) -> Result<()> {
    progress.step("applying the quick start");
    manifests::apply(admin, manifests::QUICK_START, &[], "trimtab").await?;
    available(admin, "web").await?;
    progress.done("the quick start's Deployment is available");
    let service = Api::<Service>::default_namespaced(admin.clone()).get("web").await?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    if let Some(port) = ports.first().and_then(|port| port.node_port) {
        eprintln!("open http://{node_ip}:{port}/");
    }
    Ok(())
}

/// Waits until a node says that it is Ready.
pub(crate) async fn node_ready(client: &client::Client, name: &str) -> Result<()> {
    let ready = |node: &NodeObject| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    until(&Api::all(client.clone()), name, ready).await
}

async fn available(client: &client::Client, name: &str) -> Result<()> {
    let ready = |deployment: &Deployment| {
        let status = deployment.status.as_ref();
        let current = status.and_then(|s| s.observed_generation) == deployment.metadata.generation;
        let wanted = deployment.spec.replicas.unwrap_or(1);
        current && status.and_then(|s| s.available_replicas).unwrap_or(0) >= wanted
    };
    until(&Api::default_namespaced(client.clone()), name, ready).await
}

/// Follows one object until the condition holds.
async fn until<K>(api: &Api<K>, name: &str, condition: impl Fn(&K) -> bool) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + kube::Resource,
{
    use futures::TryStreamExt;
    loop {
        let only = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(api.watch(&only, "0").await.context("watch")?);
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                && condition(&object)
            {
                return Ok(());
            }
        }
    }
}
