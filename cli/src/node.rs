//! The node of one machine: in `up`, as an agent that joins a cluster, as a part alone, and taking it all away again.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use client::join::JoinToken;
use ipnet::IpNet;
use jiff::Timestamp;
use node_agent::{Config, Serving};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use apiserver::identity::{Usage, Wanted};

use crate::instance::{DEFAULT_DATA_DIR, Instance};
use crate::part::{Connection, on_signal};
use crate::plane::{Options, Plane, hostname};
use crate::progress::Progress;
use crate::registries;
use crate::up::{NodePorts, default_address, node_ready};

/// The image that is made from this program.
const BUILT_IN_IMAGE: &str = "trimtab.local/trimtab:latest";
/// Links carry packets of this size, in bytes.
const MTU: u32 = 1500;

/// What the cluster's nodes must agree on.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterNetwork {
    /// Addresses of services.
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cidr: IpNet,
    /// Addresses of pods.
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: IpNet,
    /// The domain of the cluster's DNS.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
}

/// What a node is told on the command line.
#[derive(Args, Debug, Clone)]
pub(crate) struct NodeArguments {
    /// Where everything is kept.
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// This node's name; by default the host's.
    #[arg(long)]
    node_name: Option<String>,
    /// This node's address; by default the one that its default route uses.
    #[arg(long)]
    node_ip: Option<IpAddr>,
    #[command(flatten)]
    network: ClusterNetwork,
    #[command(flatten)]
    ports: NodePorts,
}

/// Joins this machine to a cluster as a node and stays in the foreground.
///
/// TERM or Ctrl-C ends the agent; containers go on running, and the next agent adopts them.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  trimtab agent --server https://10.0.0.1:6443 --token \"$(ssh server trimtab token create)\""
)]
pub(crate) struct Agent {
    /// The API server, `https://host:port`.
    #[arg(long)]
    server: String,
    /// A token from `trimtab token create`; it names the server's CA, so nothing is trusted unseen.
    #[arg(long, env = "TRIMTAB_TOKEN", hide_env_values = true)]
    token: JoinToken,
    #[command(flatten)]
    node: NodeArguments,
}

/// The node agent alone.
#[derive(Args, Debug)]
pub(crate) struct NodeAgent {
    #[command(flatten)]
    connection: Connection,
    /// The CA whose client certificates the agent's HTTPS server accepts.
    #[arg(long)]
    client_ca_file: PathBuf,
    #[command(flatten)]
    node: NodeArguments,
}

/// Stops all pods of an instance and removes every mount, cgroup, namespace, link and rule that it made.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  trimtab down\n  trimtab down --data-dir /tmp/t1 --purge")]
pub(crate) struct Down {
    /// The instance's data directory.
    #[arg(long, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Remove the data too: state, images, certificates.
    #[arg(long)]
    purge: bool,
}

/// A running node agent.
pub(crate) struct Node {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), node_agent::Error>>,
}

impl Node {
    /// The node of `up`: its certificates come from the control plane beside it.
    pub(crate) async fn start_local(
        instance: &Instance,
        plane: &Plane,
        options: &Options,
        name: &str,
        node_ip: IpAddr,
        agent_port: u16,
    ) -> Result<Self> {
        let pki = plane.identity.pki();
        let serving = Wanted {
            file: "kubelet",
            common_name: format!("system:node:{name}"),
            organizations: vec!["system:nodes".into()],
            dns_names: vec![name.to_owned()],
            addresses: vec![node_ip, IpAddr::from([127, 0, 0, 1])],
            usage: Usage::Server,
        };
        pki.certificate(&serving, Timestamp::now())?;
        let (certificate, key) = pki.paths("kubelet");
        let network = ClusterNetwork {
            service_cidr: *options.service_cidrs.first().context("no service range")?,
            cluster_cidr: *options.pod_cidrs.first().context("no pod range")?,
            cluster_domain: options.domain.clone(),
        };
        let seed = Seed { instance, name, node_ip, network: &network, agent_port };
        let mut config = config(&seed, Serving::Files { certificate, key }, pki.ca_pem().to_owned())?;
        config.grace_seconds = options.node_grace.as_secs();
        let user = plane.client(&format!("system:node:{name}"), &["system:nodes"]);
        Self::start(user, config).await
    }

    async fn start(client: client::Client, config: Config) -> Result<Self> {
        add_built_in_image(&config).await?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone().cancelled_owned();
        Ok(Self { shutdown, task: tokio::spawn(node_agent::run(client, config, stop)) })
    }

    /// Returns, with the reason, when the agent ends by itself; not to be called again then.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let reason = match (&mut self.task).await {
            Ok(Ok(())) => return anyhow!("the node agent ended"),
            Ok(Err(error)) => anyhow::Error::new(error),
            Err(error) => anyhow::Error::new(error),
        };
        reason.context("the node agent ended")
    }

    /// Ends the agent; its containers go on.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.task.await;
    }
}

/// What every agent's configuration is made from.
struct Seed<'a> {
    instance: &'a Instance,
    name: &'a str,
    node_ip: IpAddr,
    network: &'a ClusterNetwork,
    agent_port: u16,
}

fn config(seed: &Seed<'_>, serving: Serving, client_ca_pem: String) -> Result<Config> {
    let (instance, network) = (seed.instance, seed.network);
    let dns = network.service_cidr.hosts().nth(9).context("the service range is too small")?;
    let own = instance.data.join("log/pods");
    Ok(Config {
        instance: instance.id.clone(),
        node_name: seed.name.to_owned(),
        node_ips: vec![seed.node_ip],
        data_dir: instance.data.clone(),
        run_dir: instance.run_dir(),
        log_dir: if instance.is_default() { "/var/log/pods".into() } else { own },
        images_dir: instance.data.join("images"),
        preload_dir: Some(instance.data.join("preload")),
        program: std::env::current_exe().context("find our own program")?,
        cluster_dns: vec![dns],
        cluster_domain: network.cluster_domain.clone(),
        cluster_cidrs: vec![network.cluster_cidr],
        service_cidrs: vec![network.service_cidr],
        pod_cidrs: Vec::new(),
        mtu: MTU,
        max_pods: 250,
        grace_seconds: 40,
        labels: Default::default(),
        listen: SocketAddr::new(seed.node_ip, seed.agent_port),
        serving,
        client_ca_pem: Some(client_ca_pem),
        registries: registries::load(&instance.data)?,
        version: format!("v1.37.2+trimtab-{}", env!("CARGO_PKG_VERSION")),
        on_step: None,
    })
}

/// The program itself as an image: the cluster's DNS and the quick start need no registry.
async fn add_built_in_image(config: &Config) -> Result<()> {
    let (root, program) = (config.images_dir.clone(), config.program.clone());
    let add = move || {
        let store = runtime_image::Store::open(&root)?;
        store.add_executable(BUILT_IN_IMAGE, &program, &["/trimtab"]).map(drop)
    };
    tokio::task::spawn_blocking(add).await?.context("make the built-in image")
}

/// The given name of the node, or else this machine's.
///
/// # Errors
/// It is none that a Node can have (an RFC 1123 subdomain): nothing would come of a node that registers under it.
pub(crate) fn node_name(given: Option<&str>) -> Result<String> {
    let name = given.map_or_else(hostname, str::to_owned);
    match api::validation::text::subdomain(&name).first() {
        None => Ok(name),
        Some(message) => bail!("a node cannot have the name {name:?}: {message}; give it one with --node-name"),
    }
}

/// Says at once what would fail later, one thing after the other.
pub(crate) fn root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a node needs root, for namespaces, mounts and links: use sudo, or `trimtab server` without a node")
    }
    Ok(())
}

/// Runs until TERM or INT.
pub(crate) async fn agent(arguments: Agent) -> Result<()> {
    root()?;
    let (progress, shutdown) = (Progress::new(), on_signal()?);
    let instance = Instance::open(&arguments.node.data_dir)?;
    let _lock = instance.lock()?;
    let name = node_name(arguments.node.node_name.as_deref())?;
    progress.step("joining the cluster");
    let folder = instance.data.join("pki");
    let join = client::join::join(&arguments.server, &arguments.token, &name, &folder);
    let Some(joined) = shutdown.run_until_cancelled(join).await else { return Ok(()) };
    let joined = joined.with_context(|| format!("join the cluster at {}", arguments.server))?;
    progress.done("joined the cluster");
    let client = client::from_kubeconfig(&joined.kubeconfig)?;
    let renewal = client::issue::keep(client.clone(), client::issue::kubelet_client(&name), joined.client);
    let renewal = tokio::spawn(renewal);
    let config = named(&arguments.node, &instance, &name, fs::read_to_string(&joined.ca)?)?;
    let node = Node::start(client.clone(), config).await?;
    let done = serve(node, &client, &name, &progress, &shutdown).await;
    renewal.abort();
    done
}

/// Says when the node is Ready, and lets the agent work until the signal.
async fn serve(
    mut node: Node,
    client: &client::Client,
    name: &str,
    progress: &Progress,
    shutdown: &CancellationToken,
) -> Result<()> {
    let told = async {
        node_ready(client, name).await?;
        progress.done(&format!("node {name} is Ready"));
        progress.finish();
        println!("ready");
        shutdown.cancelled().await;
        anyhow::Ok(())
    };
    tokio::select! {
        result = told => result?,
        error = node.ended() => return Err(error),
        () = shutdown.cancelled() => {}
    }
    node.stop().await;
    Ok(())
}

/// Runs the agent alone, under the identity of a kubeconfig.
pub(crate) async fn part(arguments: NodeAgent, shutdown: CancellationToken) -> Result<()> {
    root()?;
    let instance = Instance::open(&arguments.node.data_dir)?;
    let _lock = instance.lock()?;
    let name = node_name(arguments.node.node_name.as_deref())?;
    let path = &arguments.client_ca_file;
    let ca = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let config = named(&arguments.node, &instance, &name, ca)?;
    let client = client::from_kubeconfig(&arguments.connection.kubeconfig)?;
    let node = Node::start(client.clone(), config).await?;
    serve(node, &client, &name, &Progress::new(), &shutdown).await
}

fn named(arguments: &NodeArguments, instance: &Instance, name: &str, ca: String) -> Result<Config> {
    let node_ip = arguments.node_ip.map_or_else(default_address, Ok)?;
    let seed = Seed { instance, name, node_ip, network: &arguments.network, agent_port: arguments.ports.agent_port };
    config(&seed, Serving::Request, ca)
}

/// Takes away what an instance made on this machine.
pub(crate) async fn down(arguments: Down) -> Result<()> {
    let Some(instance) = Instance::existing(&arguments.data_dir)? else {
        eprintln!("no instance keeps its data in {}", arguments.data_dir.display());
        return Ok(());
    };
    let lock = instance.lock()?;
    let progress = Progress::new();
    progress.step("stopping pods");
    node_agent::purge(&instance.id, &instance.data, &instance.run_dir()).await?;
    progress.done("pods, mounts, cgroups, links and rules are gone");
    if arguments.purge {
        progress.step("removing data");
        if instance.is_default() {
            remove(Path::new("/var/log/pods"))?;
        }
        remove(&instance.data)?;
        progress.done(&format!("{} is gone", instance.data.display()));
    }
    drop(lock);
    progress.finish();
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::node_name;

    #[test]
    fn a_name_that_no_node_can_have_is_refused_at_once() {
        assert_eq!(node_name(Some("n1.example.com")).unwrap(), "n1.example.com");
        let refused = node_name(Some("(none)")).unwrap_err().to_string();
        assert!(refused.contains("(none)") && refused.contains("--node-name"), "{refused}");
    }
}
