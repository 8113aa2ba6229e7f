//! The files that a pod gets in /etc: hosts, hostname, resolv.conf.

use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::Pod;

/// The longest hostname that Linux takes, in bytes.
const HOSTNAME_MAX: usize = 63;
/// `nameserver` lines that a resolver reads, and `search` domains and their bytes in all (as kubelet limits them).
const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_BYTES: usize = 2048;

/// The cluster's DNS as a node's settings have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterDns {
    /// The address of its service.
    pub servers: Vec<IpAddr>,
    /// `cluster.local`.
    pub domain: String,
}

/// The pod's own name inside.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|s| s.hostname_override.as_deref().or(s.hostname.as_deref())).filter(|h| !h.is_empty());
    let name = own.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let cut = &name[..floor_char(name, HOSTNAME_MAX)];
    let short = cut.trim_end_matches(['-', '.']).to_owned();
    match (spec.and_then(|s| s.set_hostname_as_fqdn), domain(pod)) {
        (Some(true), Some(domain)) if short.len() + domain.len() < 64 => format!("{short}.{domain}"),
        _ => short,
    }
}

fn floor_char(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// `<subdomain>.<namespace>.svc`, without the cluster's domain.
fn domain(pod: &Pod) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!("{subdomain}.{}.svc", pod.metadata.namespace.as_deref().unwrap_or_default()))
}

/// `/etc/hosts`; a pod on the host's network gets `host_file` (the node's own) with its aliases.
pub fn hosts(pod: &Pod, ips: &[IpAddr], cluster_domain: &str, host_file: Option<&str>) -> String {
    let mut text = match host_file {
        Some(own) => format!("# Kubernetes-managed hosts file (host network).\n{own}"),
        None => "# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\n\
            fe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n"
            .into(),
    };
    if host_file.is_none() {
        let name = hostname(pod);
        let full = domain(pod).map(|d| format!("{name}.{d}.{cluster_domain}\t")).unwrap_or_default();
        for ip in ips {
            text.push_str(&format!("{ip}\t{full}{name}\n"));
        }
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
    text
}

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// `/etc/resolv.conf`, by the pod's DNS policy and configuration; `host_file` is the node's own.
pub fn resolv_conf(pod: &Pod, cluster: &ClusterDns, host_file: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let host = parse(host_file);
    let on_host = spec.host_network == Some(true);
    let mut resolver = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "ClusterFirst" if !on_host && !cluster.servers.is_empty() => in_cluster(pod, cluster, host),
        "ClusterFirstWithHostNet" if !cluster.servers.is_empty() => in_cluster(pod, cluster, host),
        _ => host,
    };
    if let Some(config) = spec.dns_config {
        extend(&mut resolver.servers, config.nameservers.unwrap_or_default());
        extend(&mut resolver.searches, config.searches.unwrap_or_default());
        for option in config.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            resolver.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            resolver.options.push(option.value.map(|v| format!("{name}:{v}")).unwrap_or(name));
        }
    }
    written(&resolver)
}

fn extend(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn in_cluster(pod: &Pod, cluster: &ClusterDns, host: Resolver) -> Resolver {
    let (namespace, domain) = (pod.metadata.namespace.as_deref().unwrap_or_default(), &cluster.domain);
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    extend(&mut searches, host.searches);
    let servers = cluster.servers.iter().map(ToString::to_string).collect();
    Resolver { servers, searches, options: vec!["ndots:5".into()] }
}

fn parse(file: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in file.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => resolver.servers.extend(words.next()),
            Some("search") => resolver.searches = words.collect(),
            Some("options") => resolver.options.extend(words),
            _ => {}
        }
    }
    resolver
}

fn written(resolver: &Resolver) -> String {
    let mut searches = resolver.searches.clone();
    searches.truncate(SEARCHES);
    while searches.join(" ").len() > SEARCH_BYTES {
        searches.pop();
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in resolver.servers.iter().take(NAMESERVERS) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}
