//! The certificates the server itself needs, written at start and again before they end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use api::Timestamp;
use client::{Kubeconfig, User};

use super::pki::{Pair, Pki, Usage, Wanted};
use super::{Error, Identity, Options, front_proxy, tls};

/// How often to look whether something is due; a leaf is renewed months before it ends.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// The file of the client certificate that nodes are dialled with.
pub(super) const KUBELET_CLIENT: &str = "apiserver-kubelet-client";

const MASTERS: Option<&str> = Some("system:masters");

/// Users with a kubeconfig file: file, user, group.
const USERS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "kubernetes-admin", MASTERS),
    // Controllers of one process share an identity: docs/adr/0003.
    ("controller-manager", "system:kube-controller-manager", Some("system:trimtab:controllers")),
    ("scheduler", "system:kube-scheduler", None),
];

/// Makes what is missing or due; gives the serving certificate.
pub(super) fn renew(pki: &Pki, front_proxy: &Pki, options: &Options, now: Timestamp) -> Result<Pair, Error> {
    front_proxy.certificate(&Wanted::client(front_proxy::CLIENT, front_proxy::CLIENT, None), now)?;
    pki.certificate(&Wanted::client(KUBELET_CLIENT, "kube-apiserver-kubelet-client", MASTERS), now)?;
    for (file, user, group) in USERS {
        let pair = pki.certificate(&Wanted::client(file, user, *group), now)?;
        kubeconfig(pki, options, user, pair).write(&options.kubeconfigs.join(format!("{file}.kubeconfig")))?;
    }
    pki.certificate(&serving(options), now)
}

fn kubeconfig(pki: &Pki, options: &Options, user: &str, pair: Pair) -> Kubeconfig {
    Kubeconfig {
        cluster: "trimtab".into(),
        server: options.server.clone(),
        ca: pki.ca_pem().into(),
        name: user.into(),
        user: User::Embedded { certificate: pair.certificate, key: pair.key },
    }
}

fn serving(options: &Options) -> Wanted {
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut dns_names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    dns_names.push("kubernetes.default.svc.cluster.local".into());
    dns_names.extend(options.names.iter().cloned());
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    addresses.extend(&options.addresses);
    dns_names.sort();
    dns_names.dedup();
    addresses.sort();
    addresses.dedup();
    Wanted { dns_names, addresses, usage: Usage::Server, ..Wanted::client("apiserver", "kube-apiserver", None) }
}

/// Looks now and then; a new serving certificate takes effect with the next connection.
pub(super) async fn keep(identity: &Identity) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Identity { pki, front_proxy, options, .. } = identity;
        let renewed = renew(pki, front_proxy, options, Timestamp::now());
        match renewed.and_then(|serving| tls::config(&serving, &[pki, front_proxy])) {
            Ok(config) => {
                identity.tls.send_replace(Arc::new(config));
            }
            Err(error) => tracing::warn!(%error, "certificates cannot be renewed yet"),
        }
    }
}
