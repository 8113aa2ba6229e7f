//! The control plane of one process: store, identity, API server, controllers, scheduler, and the objects that every
//! cluster has. Each part gets a client under its own identity.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::identity::{self, Identity};
use apiserver::{Server, User};
use ipnet::IpNet;
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::instance::Instance;
use crate::manifests;

/// How long requests may go on after TERM.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a certificate signed for a node is good.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A part that ended is started again after this.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where the cluster's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    /// In the data directory.
    Embedded,
    /// In an etcd at these URLs.
    Etcd(Vec<String>),
}

/// Reads `embedded` or `etcd=URL[,URL]`.
pub(crate) fn store_choice(text: &str) -> Result<StoreChoice, String> {
    match text.split_once('=') {
        None if text == "embedded" => Ok(StoreChoice::Embedded),
        Some(("etcd", urls)) if !urls.is_empty() => Ok(StoreChoice::Etcd(urls.split(',').map(str::to_owned).collect())),
        _ => Err(format!("{text:?} is neither \"embedded\" nor \"etcd=URL[,URL]\"")),
    }
}

/// What a control plane is made from.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Addresses of this machine that pods and other nodes reach the API server at.
    pub(crate) advertise: Vec<IpAddr>,
    /// Where the state is.
    pub(crate) store: StoreChoice,
    /// Addresses of services.
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Addresses of pods; each node gets a part.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// The domain of the cluster's DNS.
    pub(crate) domain: String,
    /// After how many seconds without a heartbeat a node is NotReady.
    pub(crate) node_grace: Duration,
}

impl Options {
    /// The address of the cluster's DNS: the tenth of the services' range.
    pub(crate) fn dns_ip(&self) -> Result<IpAddr> {
        let range = self.service_cidrs.first().context("no service range")?;
        range.hosts().nth(9).with_context(|| format!("service range {range} is too small"))
    }

    /// Where others reach the API server.
    fn advertised(&self) -> SocketAddr {
        SocketAddr::new(self.advertise.first().copied().unwrap_or(self.listen.ip()), self.listen.port())
    }

    /// The address of the `kubernetes` service: the first of the range.
    fn api_ip(&self) -> Result<IpAddr> {
        let range = self.service_cidrs.first().context("no service range")?;
        range.hosts().next().with_context(|| format!("service range {range} is too small"))
    }
}

/// A running control plane.
pub(crate) struct Plane {
    /// The API server.
    pub(crate) server: Server,
    /// The cluster's authority.
    pub(crate) identity: Arc<Identity>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Plane {
    /// Starts everything; on return the API server answers and has the objects that every cluster has.
    pub(crate) async fn start(instance: &Instance, options: &Options) -> Result<Self> {
        let plane = Self::serve(instance, options).await?;
        plane.start_parts(options)?;
        Ok(plane)
    }

    /// Starts the API server alone, with the objects that every cluster has.
    pub(crate) async fn serve(instance: &Instance, options: &Options) -> Result<Self> {
        let identity = Arc::new(Identity::open(identity_options(instance, options)?, jiff::Timestamp::now())?);
        let store = open_store(&options.store, &instance.data).await?;
        let mut parts = identity.parts();
        parts.connects = apiserver::proxy::connects(&identity)?;
        let config = apiserver::Config {
            service_cidrs: options.service_cidrs.clone(),
            advertise: options.advertised().to_string(),
            seed: seed()?,
            ..apiserver::Config::default()
        };
        let server = Server::start(config, store, parts).await?;
        let plane = Self { server, identity, shutdown: CancellationToken::new(), tasks: TaskTracker::new() };
        plane.listen(options).await?;
        let (shutdown, identity) = (plane.shutdown.clone(), plane.identity.clone());
        plane.tasks.spawn(async move {
            shutdown.run_until_cancelled(identity.keep()).await;
        });
        let port = options.listen.port();
        let addresses: Vec<SocketAddr> = options.advertise.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let admin = plane.admin();
        let trust = plane.identity.trust();
        apiserver::bootstrap::reconcile(&admin, options.api_ip()?, &addresses, &trust).await?;
        let values = [("${DNS_IP}", options.dns_ip()?.to_string()), ("${CLUSTER_DOMAIN}", options.domain.clone())];
        manifests::apply(&admin, manifests::CLUSTER, &values, "trimtab").await?;
        Ok(plane)
    }

    /// A client that may do everything.
    pub(crate) fn admin(&self) -> client::Client {
        self.client("system:admin", &["system:masters"])
    }

    /// A client of this very process.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> client::Client {
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        let (server, user) = (self.server.clone(), User { name: user.into(), groups, ..User::default() });
        client::in_process(move || server.local(user.clone()))
    }

    /// Ends the parts, drains requests, closes the store.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.server.shutdown(DRAIN).await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn listen(&self, options: &Options) -> Result<()> {
        let port = options.listen.port();
        let others = options.advertise.iter().map(|ip| SocketAddr::new(*ip, port));
        let covered = |at: &SocketAddr| *at == options.listen || options.listen.ip().is_unspecified();
        for at in [options.listen].into_iter().chain(others.filter(|at| !covered(at))) {
            let listener = TcpListener::bind(at).await.with_context(|| {
                format!("listen on {at}; is another server running? Choose another address with --listen")
            })?;
            let (server, tls) = (self.server.clone(), self.identity.tls());
            self.tasks.spawn(async move {
                if let Err(error) = server.serve(listener, tls).await {
                    tracing::error!(%error, "the API server's listener ended");
                }
            });
        }
        Ok(())
    }

    fn start_parts(&self, options: &Options) -> Result<()> {
        let pki = self.identity.pki();
        let signer = signer(pki.ca_pem(), pki.ca_key_pem())?;
        let settings = controller::Options {
            root_ca: pki.ca_pem().to_owned(),
            cluster_cidrs: options.pod_cidrs.iter().map(ToString::to_string).collect(),
            node_grace: options.node_grace,
            ..controller::Options::default()
        };
        let signer: Arc<dyn driver::Signer> = Arc::new(signer);
        let (user, stop) =
            (self.client("system:kube-controller-manager", &["system:trimtab:controllers"]), self.shutdown.clone());
        self.drive("the controllers", move || {
            let config = lease("kube-controller-manager", Some(Arc::clone(&signer)));
            driver::run(user.clone(), controllers(&settings), config, stop.clone())
        });
        let (user, stop) = (self.client("system:kube-scheduler", &[]), self.shutdown.clone());
        self.drive("the scheduler", move || {
            driver::run(user.clone(), scheduler(), lease("kube-scheduler", None), stop.clone())
        });
        Ok(())
    }

    /// Runs a part, and again when it had to end (it lost its lease: a busy machine renews late).
    fn drive<R>(&self, name: &'static str, run: impl Fn() -> R + Send + 'static)
    where
        R: Future<Output = Result<(), driver::Error>> + Send,
    {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            while let Err(error) = run().await {
                tracing::error!(%error, "{name} ended; starting again");
                if shutdown.run_until_cancelled(tokio::time::sleep(START_AGAIN_AFTER)).await.is_none() {
                    return;
                }
            }
        });
    }
}

/// All controllers.
pub(crate) fn controllers(settings: &controller::Options) -> driver::Parts {
    driver::Parts { controllers: controller::all(settings), planners: Vec::new() }
}

/// The scheduler.
pub(crate) fn scheduler() -> driver::Parts {
    driver::Parts { controllers: Vec::new(), planners: vec![Box::new(scheduler::Scheduler::default())] }
}

/// What signs certificates of nodes.
pub(crate) fn signer(certificate: &str, key: &str) -> Result<driver::CaSigner> {
    driver::CaSigner::from_pem(certificate, key, CERTIFICATE_LIFE).map_err(anyhow::Error::msg)
}

/// One of many processes runs a part at a time: the holder of the Lease of this name.
pub(crate) fn lease(name: &str, signer: Option<Arc<dyn driver::Signer>>) -> driver::Config {
    let identity = format!("{}_{}", hostname(), std::process::id());
    driver::Config { signer, lease: Some(driver::Lease::new(name, &identity)) }
}

async fn open_store(choice: &StoreChoice, data: &Path) -> Result<Arc<dyn Store>> {
    Ok(match choice {
        StoreChoice::Embedded => {
            let path = data.join("store");
            let open = move || store::embedded::Embedded::open(&path, store::embedded::Settings::default());
            Arc::new(tokio::task::spawn_blocking(open).await??)
        }
        StoreChoice::Etcd(urls) => {
            let config = store::etcd::Config { urls: urls.clone(), ..Default::default() };
            Arc::new(store::etcd::Etcd::connect(config).await.context("connect to etcd")?)
        }
    })
}

fn identity_options(instance: &Instance, options: &Options) -> Result<identity::Options> {
    let local = if options.listen.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { options.listen.ip() };
    let server = format!("https://{}", SocketAddr::new(local, options.listen.port()));
    let mut wanted = identity::Options::new(&instance.data, &server);
    wanted.addresses = vec![options.api_ip()?, local];
    wanted.addresses.extend(&options.advertise);
    wanted.names = vec![format!("kubernetes.default.svc.{}", options.domain)];
    wanted.issuer = format!("https://kubernetes.default.svc.{}", options.domain);
    wanted.advertise = options.advertised().to_string();
    wanted.audit = Some(instance.data.join("audit.log"));
    Ok(wanted)
}

fn seed() -> Result<u64> {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? != bytes.len() {
        bail!("the kernel gave no random bytes");
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// This machine's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{StoreChoice, store_choice};

    #[test]
    fn stores_are_chosen_by_word() {
        let two = StoreChoice::Etcd(vec!["http://a:1".into(), "http://b:1".into()]);
        assert_eq!(store_choice("embedded"), Ok(StoreChoice::Embedded));
        assert_eq!(store_choice("etcd=http://a:1,http://b:1"), Ok(two));
        assert!(["", "etcd", "etcd=", "memory"].iter().all(|text| store_choice(text).is_err()));
    }
}
