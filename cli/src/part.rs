//! One part of a cluster as a process of its own: `trimtab apiserver | scheduler | controller | node-agent | dns`.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::instance::Instance;
use crate::node;
use crate::plane::{self, Plane};
use crate::up::PlaneArguments;
use crate::web::listen_address;

/// Where a service account's token and CA are, in a pod.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The parts.
#[derive(Subcommand, Debug)]
pub(crate) enum Part {
    /// The API server alone.
    Apiserver(Apiserver),
    /// The scheduler alone.
    Scheduler(Connection),
    /// The controllers alone.
    Controller(Controller),
    /// The node agent alone.
    NodeAgent(node::NodeAgent),
    /// The cluster's DNS server.
    Dns(Dns),
}

/// The API server alone.
#[derive(Args, Debug)]
pub(crate) struct Apiserver {
    #[command(flatten)]
    plane: PlaneArguments,
    /// Where to write the administrator's kubeconfig, besides the data directory.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// How a part reaches the API server.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// The kubeconfig with the part's own identity.
    #[arg(long)]
    pub(crate) kubeconfig: PathBuf,
}

/// The controllers alone.
#[derive(Args, Debug)]
pub(crate) struct Controller {
    #[command(flatten)]
    connection: Connection,
    /// The CA that every namespace's `kube-root-ca.crt` carries.
    #[arg(long)]
    root_ca_file: PathBuf,
    /// The certificate of the CA that signs certificate requests.
    #[arg(long)]
    cluster_signing_cert_file: PathBuf,
    /// Its key.
    #[arg(long)]
    cluster_signing_key_file: PathBuf,
    /// Addresses of pods; every node gets a part.
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: IpNet,
    /// Seconds without a heartbeat after which a node is NotReady.
    #[arg(long, default_value_t = 40)]
    node_monitor_grace_period: u64,
}

/// The cluster's DNS server.
#[derive(Args, Debug)]
pub(crate) struct Dns {
    /// The kubeconfig to watch services with.
    #[arg(long, conflicts_with = "in_cluster", required_unless_present = "in_cluster")]
    kubeconfig: Option<PathBuf>,
    /// Use the service account of the pod this runs in.
    #[arg(long)]
    in_cluster: bool,
    /// Where to answer, over UDP and TCP.
    #[arg(long, default_value = ":53", value_parser = listen_address)]
    listen: SocketAddr,
    /// Where to answer `/healthz` and `/readyz`, over HTTP.
    #[arg(long, default_value = ":8080", value_parser = listen_address)]
    health: SocketAddr,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// Name servers for all other names; by default those of /etc/resolv.conf.
    #[arg(long)]
    upstream: Vec<IpAddr>,
}

/// Runs one part until TERM or INT.
pub(crate) async fn run(part: Part) -> Result<()> {
    let shutdown = on_signal()?;
    match part {
        Part::Apiserver(arguments) => apiserver(arguments, shutdown).await,
        Part::Scheduler(arguments) => {
            let client = client::from_kubeconfig(&arguments.kubeconfig)?;
            Ok(driver::run(client, plane::scheduler(), plane::lease("kube-scheduler", None), shutdown).await?)
        }
        Part::Controller(arguments) => controller(arguments, shutdown).await,
        Part::NodeAgent(arguments) => node::part(arguments, shutdown).await,
        Part::Dns(arguments) => dns(arguments, shutdown).await,
    }
}

/// Cancelled by TERM or INT.
pub(crate) fn on_signal() -> Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        token.cancel();
    });
    Ok(shutdown)
}

async fn apiserver(arguments: Apiserver, shutdown: CancellationToken) -> Result<()> {
    let instance = Instance::open(&arguments.plane.data_dir)?;
    let _lock = instance.lock()?;
    let plane = Plane::serve(&instance, &arguments.plane.options()?).await?;
    if let Some(path) = &arguments.kubeconfig {
        client::write_secret(path, &fs::read(instance.admin_kubeconfig())?)?;
    }
    println!("ready");
    shutdown.cancelled().await;
    plane.stop().await;
    Ok(())
}

async fn controller(arguments: Controller, shutdown: CancellationToken) -> Result<()> {
    let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let (certificate, key) = (read(&arguments.cluster_signing_cert_file)?, read(&arguments.cluster_signing_key_file)?);
    let signer = plane::signer(&certificate, &key)?;
    let settings = controller::Options {
        root_ca: read(&arguments.root_ca_file)?,
        cluster_cidrs: vec![arguments.cluster_cidr.to_string()],
        node_grace: Duration::from_secs(arguments.node_monitor_grace_period),
        ..controller::Options::default()
    };
    let client = client::from_kubeconfig(&arguments.connection.kubeconfig)?;
    let config = plane::lease("kube-controller-manager", Some(Arc::new(signer)));
    Ok(driver::run(client, plane::controllers(&settings), config, shutdown).await?)
}

async fn dns(arguments: Dns, shutdown: CancellationToken) -> Result<()> {
    let client = match &arguments.kubeconfig {
        Some(path) => client::from_kubeconfig(path)?,
        None => in_cluster()?,
    };
    let config = node_agent::DnsConfig {
        listen: arguments.listen,
        health: Some(arguments.health),
        domain: arguments.domain,
        upstreams: arguments.upstream,
    };
    Ok(node_agent::run_dns(client, config, shutdown.cancelled_owned()).await?)
}

/// The API server as a pod finds it.
fn in_cluster() -> Result<client::Client> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: not in a pod?"));
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let folder = PathBuf::from(IN_CLUSTER);
    let ca = client::Material::File(folder.join("ca.crt"));
    let token = client::Credentials::Token(client::Material::File(folder.join("token")));
    Ok(client::Target::new(&format!("https://{host}:{port}"), ca, token)?.client()?)
}
