//! One node's network: a bridge, a veth a pod, routes and tunnels to other nodes, service rules.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use rtnetlink::Handle;
use tokio::task::spawn_blocking;

use crate::conntrack::{self, Served};
use crate::lease::Leases;
use crate::links::{self, Via};
use crate::nfnetlink::Channel;
use crate::nft::Tables;
use crate::{Attachment, Config, Error, Frontend, FrontendKey, Peer, Result, namespace, peers};

/// A node's network, open for changes. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Network {
    config: Config,
    handle: Handle,
    /// One of its own for lists of addresses: the kernel refuses a second list on a connection while it sends the first.
    lists: Handle,
    bridge: u32,
    leases: Mutex<Leases>,
    /// Taken for the length of a transaction, on a blocking thread.
    tables: Arc<Mutex<Tables>>,
    /// To tracked connections.
    flows: Arc<Mutex<Channel>>,
}

pub(crate) fn system<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::System(what.into(), error))
}

async fn blocking<T: Send + 'static>(what: &str, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let joined = spawn_blocking(work).await.map_err(|error| Error::System(what.into(), io::Error::other(error)))?;
    system(what, joined)
}

impl Network {
    /// Makes the bridge, turns forwarding on, masquerades what leaves the cluster; adopts what an earlier process of
    /// the same instance left: its pods and, until the first [`Network::set_frontends`], its service rules.
    pub async fn open(config: Config) -> Result<Self> {
        check(&config)?;
        let namespaces = config.run_dir.clone();
        blocking("prepare the directory of network namespaces", move || namespace::shared_directory(&namespaces))
            .await?;
        system("make the data directory", fs::create_dir_all(&config.data_dir))?;
        let leases = Leases::open(config.data_dir.join("addresses.json"))?;
        let handle = system("open a netlink socket", links::connect())?;
        let lists = system("open a netlink socket", links::connect())?;
        let gateways: Vec<IpNet> = config.pod_cidrs.iter().filter_map(gateway_net).collect();
        let name = bridge_name(&config.instance);
        let bridge = system(format!("make bridge {name}"), links::bridge(&handle, &name, config.mtu, &gateways).await)?;
        for cidr in &config.service_cidrs {
            let metric = links::metric(&config.instance);
            system(format!("route {cidr}"), links::route(&handle, metric, cidr, Via::Link(bridge)).await)?;
        }
        system("turn forwarding on", forwarding(&name, &config))?;
        let tables = Tables::new(&config.instance, &config.cluster_cidrs, &config.pod_cidrs, &config.service_cidrs);
        let (tables, flows) = (Arc::new(Mutex::new(tables)), Arc::default());
        Ok(Self { config, handle, lists, bridge, leases: Mutex::new(leases), tables, flows })
    }

    /// A namespace with loopback up, `eth0` with the pod's addresses, and a default route. Idempotent by id. `namespace`
    /// is one that is there already (of a pod that owns it by a user namespace); without it a new one is made.
    pub async fn attach(&self, id: &str, namespace: Option<OwnedFd>) -> Result<Attachment> {
        let path = self.namespace_path(id);
        let same = match &namespace {
            None => is_namespace(&path),
            Some(given) => system("look at a network namespace", is_same(given, &path))?,
        };
        let held = self.leases.lock().all().contains_key(id);
        let addresses = self.leases.lock().take(id, &self.config.pod_cidrs)?;
        if held && same {
            return Ok(Attachment { id: id.into(), namespace: path, addresses });
        }
        self.clear(id).await?;
        self.build(id, path.clone(), namespace, addresses.clone()).await.inspect_err(|_| {
            let _ = self.leases.lock().release(id);
        })?;
        Ok(Attachment { id: id.into(), namespace: path, addresses })
    }

    /// Takes a pod's namespace, links and addresses away. Idempotent.
    pub async fn detach(&self, id: &str) -> Result<()> {
        self.clear(id).await?;
        self.leases.lock().release(id)
    }

    /// Every pod that has a place.
    pub fn attachments(&self) -> Vec<Attachment> {
        let attachment = |(id, addresses): (&String, &Vec<IpAddr>)| Attachment {
            id: id.clone(),
            namespace: self.namespace_path(id),
            addresses: addresses.clone(),
        };
        self.leases.lock().all().iter().map(attachment).collect()
    }

    /// Ways to other nodes' pods: exactly these. Goes on after a failure and returns the first.
    pub async fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        peers::set(&self.handle, &self.config, peers).await
    }

    /// Service rules: exactly these. Only differences are sent, and no packet is lost by it.
    pub async fn set_frontends(&self, frontends: Vec<Frontend>) -> Result<()> {
        self.rules(move |tables| tables.set(frontends)).await
    }

    /// Service rules: these, and no longer those that are `gone`; all others stay as they are. After an error the next
    /// call mends everything.
    pub async fn change_frontends(&self, frontends: Vec<Frontend>, gone: Vec<FrontendKey>) -> Result<()> {
        self.rules(move |tables| tables.change(frontends, gone)).await
    }

    async fn rules(&self, work: impl FnOnce(&mut Tables) -> io::Result<Served> + Send + 'static) -> Result<()> {
        let tables = self.tables.clone();
        let served = blocking("write service rules", move || work(&mut tables.lock())).await?;
        if served.is_empty() {
            return Ok(());
        }
        let local = system("list addresses", links::addresses(&self.lists).await)?;
        let local: Vec<IpAddr> = local.into_iter().map(|(ip, _)| ip).collect();
        let flows = self.flows.clone();
        let forget = move || conntrack::forget(&mut flows.lock(), &served, &local);
        let forgotten = blocking("end connections to endpoints that are gone", forget).await?;
        tracing::debug!(forgotten, "connections to endpoints that are gone");
        Ok(())
    }

    /// Removes everything that an instance made: links, tunnels, routes, namespaces, rules. Needs no open network.
    pub async fn purge(instance: &str, run_dir: &Path) -> Result<()> {
        let handle = system("open a netlink socket", links::connect())?;
        let id = instance.to_owned();
        blocking("remove service rules", move || Tables::remove(&id)).await?;
        let prefix = format!("tt{instance}-");
        for name in system("list links", links::names(&handle, &prefix).await)? {
            system(format!("delete link {name}"), links::delete(&handle, &name).await)?;
        }
        system("delete routes", links::prune_routes(&handle, links::metric(instance), &[]).await)?;
        let run_dir = run_dir.to_path_buf();
        blocking("remove network namespaces", move || remove_namespaces(&run_dir)).await
    }

    async fn build(&self, id: &str, path: PathBuf, given: Option<OwnedFd>, addresses: Vec<IpAddr>) -> Result<()> {
        let gateways: Vec<IpAddr> = self.config.pod_cidrs.iter().filter_map(gateway).collect();
        let (name, mtu, bridge) = (veth_name(&self.config.instance, id), self.config.mtu, self.bridge);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outside = move || {
            let runtime = runtime()?;
            let host = runtime.block_on(async { links::connect() })?;
            Ok((runtime, host))
        };
        let inside = move |(runtime, host): (tokio::runtime::Runtime, Handle)| {
            let here = File::open("/proc/thread-self/ns/net")?;
            runtime.block_on(async move {
                links::veth(&host, &name, bridge, mtu, here.as_fd()).await?;
                links::inside(&links::connect()?, &addresses, &gateways).await
            })
        };
        blocking("attach a pod to the network", move || namespace::create(path, given, outside, inside)).await
    }

    async fn clear(&self, id: &str) -> Result<()> {
        let name = veth_name(&self.config.instance, id);
        system(format!("delete link {name}"), links::delete(&self.handle, &name).await)?;
        let path = self.namespace_path(id);
        blocking("delete a network namespace", move || namespace::delete(&path)).await
    }

    fn namespace_path(&self, id: &str) -> PathBuf {
        self.config.run_dir.join(id)
    }
}

fn check(config: &Config) -> Result<()> {
    let fits = (1..=6).contains(&config.instance.len());
    if !fits || !config.instance.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(Error::Invalid(format!("instance {:?} must match [a-z0-9]{{1,6}}", config.instance)));
    }
    match config.pod_cidrs.iter().find(|net| gateway(net).is_none()) {
        Some(net) => Err(Error::Invalid(format!("pod range {net} has no room for pods"))),
        None => Ok(()),
    }
}

/// The first host of a range is the bridge's.
pub(crate) fn gateway(net: &IpNet) -> Option<IpAddr> {
    net.hosts().next().filter(|_| net.hosts().nth(1).is_some())
}

fn gateway_net(net: &IpNet) -> Option<IpNet> {
    IpNet::new(gateway(net)?, net.prefix_len()).ok()
}

fn bridge_name(instance: &str) -> String {
    format!("tt{instance}-br")
}

/// At most 15 bytes: `tt`, the instance, `-` and as much of a hash of the id as fits.
fn veth_name(instance: &str, id: &str) -> String {
    let mut name = format!("tt{instance}-{:016x}", links::name_hash(id.as_bytes()));
    name.truncate(15);
    name
}

/// Whether a descriptor and a file are the same namespace.
fn is_same(given: &OwnedFd, path: &Path) -> io::Result<bool> {
    let given = rustix::fs::fstat(given)?;
    Ok(rustix::fs::stat(path).is_ok_and(|kept| (kept.st_dev, kept.st_ino) == (given.st_dev, given.st_ino)))
}

fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}

/// Packets between pods, and to the world; no redirects, since pods must come back through the node.
fn forwarding(bridge: &str, config: &Config) -> io::Result<()> {
    let has = |v4: bool| config.pod_cidrs.iter().any(|net| net.addr().is_ipv4() == v4);
    let mut settings = Vec::new();
    if has(true) {
        settings.push("net/ipv4/ip_forward=1".to_owned());
        settings.push("net/ipv4/conf/all/send_redirects=0".to_owned());
        settings.push(format!("net/ipv4/conf/{bridge}/send_redirects=0"));
    }
    if has(false) {
        settings.push("net/ipv6/conf/all/forwarding=1".to_owned());
    }
    for (path, value) in settings.iter().filter_map(|s| s.split_once('=')) {
        fs::write(format!("/proc/sys/{path}"), value)?;
    }
    Ok(())
}

fn remove_namespaces(run_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(run_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        namespace::delete(&entry?.path())?;
    }
    namespace::remove_shared_directory(run_dir)
}
