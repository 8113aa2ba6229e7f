//! Where a request goes: which host, port and path (`ResourceLocation` and its kin in `pkg/registry/core`).

use std::net::IpAddr;

use api::{Document, GroupResource, ObjectName, Status, StatusResult};
use http::Uri;
use serde_json::Value;

use super::options;
use crate::attributes::Attributes;
use crate::request::Query;
use crate::view::View;

/// Which kind of way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Log,
    Exec,
    Attach,
    PortForward,
    Pod,
    Service,
    Node,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A node: TLS both ways, by the cluster's CA.
    Node,
    /// A pod by plain HTTP.
    Plain,
    /// A pod by TLS.
    Tls,
}

/// A place to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) peer: Peer,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, escaped.
    pub(super) path: String,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// The pod is on no node yet: its log is empty.
    Nowhere,
    /// To the same path with a slash.
    Root(String),
    There(Place),
}

/// A request.
pub(super) struct Asked<'a> {
    pub(super) attributes: &'a Attributes,
    pub(super) uri: &'a Uri,
    pub(super) query: &'a Query,
    pub(super) view: &'a dyn View,
    pub(super) turn: u64,
}

/// Finds the place.
pub(super) fn locate(way: Way, asked: &Asked<'_>) -> StatusResult<Location> {
    match way {
        Way::Log => log(asked),
        Way::Exec => streams(asked, "exec").map(Location::There),
        Way::Attach => streams(asked, "attach").map(Location::There),
        Way::PortForward => port_forward(asked).map(Location::There),
        Way::Pod => proxied(asked, pod_address),
        Way::Service => proxied(asked, service_address),
        Way::Node => proxied(asked, node_address),
    }
}

impl Asked<'_> {
    fn object(&self) -> ObjectName {
        self.attributes.resource.as_ref().map(|r| r.object.clone()).unwrap_or_default()
    }

    fn get(&self, resource: &str, name: &ObjectName) -> StatusResult<Document> {
        let resource = GroupResource::new("", resource);
        self.view.get(&resource, name).ok_or_else(|| Status::not_found(&resource, &name.name))
    }

    fn node(&self, name: &str, path: String) -> StatusResult<Place> {
        let node = self.get("nodes", &ObjectName { namespace: String::new(), name: name.into() })?;
        let host = host(&node).ok_or_else(|| {
            Status::internal(format!("no preferred addresses found; known addresses: {}", known(&node)))
        })?;
        let port = node.i64_at("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(|p| u16::try_from(p).ok());
        Ok(Place { peer: Peer::Node, host, port: port.filter(|p| *p != 0).unwrap_or(10250), path })
    }
}

/// Addresses before names: an address needs no resolver.
fn host(node: &Document) -> Option<String> {
    let all = node.list_at("/status/addresses");
    let of = |kind: &str| all.iter().find(|a| a.get("type").is_some_and(|t| t == kind));
    let found = ["InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname"].iter().find_map(|k| of(k))?;
    found.get("address").and_then(Value::as_str).map(str::to_owned)
}

fn known(node: &Document) -> String {
    node.at("/status/addresses").cloned().unwrap_or_default().to_string()
}

fn log(asked: &Asked<'_>) -> StatusResult<Location> {
    let object = asked.object();
    let query = options::log(asked.query, &object.name)?;
    let pod = asked.get("pods", &object)?;
    let container = container(&pod, asked.query.get("container").unwrap_or_default())?;
    let node = pod.str_at("/spec/nodeName");
    if node.is_empty() {
        return Ok(Location::Nowhere);
    }
    let path = format!("/containerLogs/{}/{}/{container}{query}", pod.namespace(), pod.name());
    asked.node(node, path).map(Location::There)
}

fn streams(asked: &Asked<'_>, verb: &str) -> StatusResult<Place> {
    let pod = asked.get("pods", &asked.object())?;
    let query = options::streams(asked.query, verb)?;
    let container = container(&pod, asked.query.get("container").unwrap_or_default())?;
    let path = format!("/{verb}/{}/{}/{container}{query}", pod.namespace(), pod.name());
    asked.node(bound(&pod)?, path)
}

fn port_forward(asked: &Asked<'_>) -> StatusResult<Place> {
    let pod = asked.get("pods", &asked.object())?;
    let path = format!("/portForward/{}/{}{}", pod.namespace(), pod.name(), options::ports(asked.query));
    asked.node(bound(&pod)?, path)
}

fn bound(pod: &Document) -> StatusResult<&str> {
    match pod.str_at("/spec/nodeName") {
        "" => Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name()))),
        node => Ok(node),
    }
}

fn names<'a>(pod: &'a Document, list: &str) -> Vec<&'a str> {
    let all = pod.list_at(&format!("/spec/{list}"));
    all.iter().filter_map(|c| c.get("name").and_then(Value::as_str)).collect()
}

/// The container that is meant: the only one where none is named.
fn container(pod: &Document, named: &str) -> StatusResult<String> {
    let all: Vec<&str> =
        ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| names(pod, list)).collect();
    let bad = |why: String| Err(Status::bad_request(why));
    let pod_name = pod.name();
    match (named, names(pod, "containers").as_slice()) {
        ("", []) => bad(format!("a container name must be specified for pod {pod_name}")),
        ("", [one]) => Ok((*one).to_owned()),
        ("", _) => {
            let all = all.join(" ");
            bad(format!("a container name must be specified for pod {pod_name}, choose one of: [{all}]"))
        }
        (named, _) if all.contains(&named) => Ok(named.to_owned()),
        (named, _) => bad(format!("container {named} is not valid for pod {pod_name}")),
    }
}

/// `[scheme:]name[:port]` of a proxy request.
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn peer(&self) -> Peer {
        if self.scheme == "https" { Peer::Tls } else { Peer::Plain }
    }

    fn place(&self, host: &str, port: Option<u16>, path: String) -> Place {
        let port = port.unwrap_or(if self.scheme == "https" { 443 } else { 80 });
        Place { peer: self.peer(), host: host.into(), port, path }
    }
}

type Address = fn(&Asked<'_>, &Id<'_>, String) -> StatusResult<Place>;

fn proxied(asked: &Asked<'_>, address: Address) -> StatusResult<Location> {
    let object = asked.object();
    let kind = asked.attributes.resource.as_ref().map(|r| r.resource.trim_end_matches('s').to_owned());
    let id = Id::parse(&object.name).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {:?}", kind.unwrap_or_default(), object.name))
    })?;
    let path = rest(asked.uri);
    let root = path.is_empty() && matches!(asked.attributes.verb.as_str(), "get");
    if root {
        let query = asked.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        return Ok(Location::Root(format!("{}/{query}", asked.uri.path())));
    }
    let query = asked.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    address(asked, &id, format!("{path}{query}")).map(Location::There)
}

/// What follows `/proxy`, escaped as it came; empty without a slash.
pub(crate) fn rest(uri: &Uri) -> String {
    let path = uri.path();
    // Behind the names, which hold no slash: api/v1/[namespaces/x/]resource/name/proxy
    let segments = if path.starts_with("/api/v1/namespaces/") { 7 } else { 5 };
    let at = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.get(at..).unwrap_or_default().to_owned()
}

/// Only addresses of pods: never loopback, link-local, multicast or none at all.
fn global(address: &str) -> bool {
    let unusable = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let parsed: Result<IpAddr, _> = address.parse();
    parsed.is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !unusable(ip))
}

fn number(port: &str, what: &str) -> StatusResult<Option<u16>> {
    match port {
        "" => Ok(None),
        port => port.parse().map(Some).map_err(|_| Status::bad_request(format!("invalid port {port:?} of a {what}"))),
    }
}

fn pod_address(asked: &Asked<'_>, id: &Id<'_>, path: String) -> StatusResult<Place> {
    let name = ObjectName { name: id.name.into(), ..asked.object() };
    let pod = asked.get("pods", &name)?;
    let declared = pod.list_at("/spec/containers").iter().find_map(|c| c.pointer("/ports/0/containerPort")?.as_u64());
    let port = number(id.port, "pod")?.or_else(|| declared.and_then(|p| u16::try_from(p).ok()));
    match pod.str_at("/status/podIP") {
        address if global(address) => Ok(id.place(address, port, path)),
        _ => Err(Status::bad_request("address not allowed")),
    }
}

fn node_address(asked: &Asked<'_>, id: &Id<'_>, path: String) -> StatusResult<Place> {
    let place = asked.node(id.name, path)?;
    if place.host.parse::<IpAddr>().is_ok() && !global(&place.host) {
        return Err(Status::bad_request("address not allowed"));
    }
    match number(id.port, "node")? {
        Some(port) if port != place.port => Ok(Place { peer: id.peer(), port, ..place }),
        _ => Ok(place),
    }
}

fn service_address(asked: &Asked<'_>, id: &Id<'_>, path: String) -> StatusResult<Place> {
    let name = ObjectName { name: id.name.into(), ..asked.object() };
    let unavailable = |why: String| Status::failure(503, "ServiceUnavailable", why);
    let mut port_name = id.port.to_owned();
    if let Ok(wanted) = id.port.parse::<u64>() {
        let service = asked.get("services", &name)?;
        let found =
            service.list_at("/spec/ports").iter().find(|p| p.get("port").and_then(Value::as_u64) == Some(wanted));
        let found =
            found.ok_or_else(|| unavailable(format!("no service port {wanted} found for service {:?}", id.name)))?;
        port_name = found.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    let pods = |endpoint: &Value, address: &str| global(address) && is_pod(asked, endpoint, address, &name.namespace);
    let all = endpoints(asked.view, &name, (!id.port.is_empty()).then_some(port_name.as_str()), pods);
    let turn = usize::try_from(asked.turn).unwrap_or_default();
    let chosen = turn.checked_rem(all.len()).and_then(|at| all.get(at));
    let (host, port) =
        chosen.ok_or_else(|| unavailable(format!("no endpoints available for service {:?}", id.name)))?;
    Ok(id.place(host, Some(*port), path))
}

/// A ready endpoint of a service that a webhook stands behind, or the name that it stands for: host and port. The error
/// is upstream's text (`k8s.io/apiserver/pkg/util/proxy`). Who is there, TLS says.
pub(crate) fn endpoint(view: &dyn View, name: &ObjectName, port: u16, turn: u64) -> Result<(String, u16), String> {
    let service = view.get(&GroupResource::new("", "services"), name);
    let service = service.ok_or_else(|| format!("service {:?} not found", name.name))?;
    if service.str_at("/spec/type") == "ExternalName" {
        return Ok((service.str_at("/spec/externalName").to_owned(), port));
    }
    let numbered = |p: &&Value| p.get("port").and_then(Value::as_u64) == Some(port.into());
    let found = service.list_at("/spec/ports").iter().find(numbered);
    let found = found.ok_or_else(|| format!("no service port {port} found for service {:?}", name.name))?;
    let port_name = found.get("name").and_then(Value::as_str).unwrap_or_default();
    let all = endpoints(view, name, Some(port_name), |_, address| !address.is_empty());
    let chosen = usize::try_from(turn).unwrap_or_default().checked_rem(all.len()).and_then(|at| all.get(at));
    chosen.cloned().ok_or_else(|| format!("no endpoints available for service {:?}", name.name))
}

/// The ready endpoints of a service that count, with the port of that name (or the first one).
fn endpoints(
    view: &dyn View,
    service: &ObjectName,
    port_name: Option<&str>,
    counts: impl Fn(&Value, &str) -> bool,
) -> Vec<(String, u16)> {
    let slices = view.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(&service.namespace));
    let of_service = |slice: &Document| slice.label("kubernetes.io/service-name") == Some(service.name.as_str());
    let mut all = Vec::new();
    for slice in slices.iter().filter(|slice| of_service(slice)) {
        let named = |port: &&Value| {
            port_name.is_none_or(|name| port.get("name").and_then(Value::as_str).unwrap_or_default() == name)
        };
        let port = slice.list_at("/ports").iter().find(named).and_then(|p| p.get("port")?.as_u64());
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in slice.list_at("/endpoints") {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false);
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str).unwrap_or_default();
            if ready && counts(endpoint, address) {
                all.push((address.to_owned(), port));
            }
        }
    }
    all
}

/// Anybody may write slices: an endpoint counts only where the pod it names has that address.
fn is_pod(asked: &Asked<'_>, endpoint: &Value, address: &str, namespace: &str) -> bool {
    let text = |pointer: &str| endpoint.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/targetRef/kind") != "Pod" || !["", namespace].contains(&text("/targetRef/namespace")) {
        return false;
    }
    let name = ObjectName { namespace: namespace.into(), name: text("/targetRef/name").into() };
    let pod = asked.view.get(&GroupResource::new("", "pods"), &name);
    let has = |pod: &Document| {
        let all = pod.list_at("/status/podIPs").iter();
        pod.str_at("/status/podIP") == address || all.into_iter().any(|ip| ip.get("ip").is_some_and(|ip| ip == address))
    };
    pod.is_some_and(|pod| has(&pod))
}

#[cfg(test)]
mod tests {
    use super::{Id, container, global, rest};
    use api::Document;
    use serde_json::json;

    #[test]
    fn what_follows_proxy_stays_as_it_came() {
        for (path, want) in [
            ("/api/v1/namespaces/a/pods/b:80/proxy/x%2Fy/proxy/z", "/x%2Fy/proxy/z"),
            ("/api/v1/namespaces/a/pods/b/proxy", ""),
            ("/api/v1/namespaces/a/services/https:b:c/proxy/", "/"),
            ("/api/v1/nodes/n/proxy/metrics", "/metrics"),
        ] {
            assert_eq!(rest(&path.parse().unwrap()), want);
        }
    }

    #[test]
    fn ids_have_a_scheme_and_a_port_or_not() {
        let parts = |id| Id::parse(id).map(|id| [id.scheme, id.name, id.port].join("|"));
        assert_eq!(parts("web").as_deref(), Some("|web|"));
        assert_eq!(parts("https:web:8443").as_deref(), Some("https|web|8443"));
        assert_eq!(parts("ftp:web:21"), None);
        assert_eq!(parts("a:b:c:d"), None);
    }

    #[test]
    fn only_addresses_that_pods_can_have() {
        assert!(global("10.1.2.3") && global("fd00::1"));
        for bad in ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "224.0.0.1", "", "name"] {
            assert!(!global(bad), "{bad}");
        }
    }

    #[test]
    fn the_only_container_is_meant_where_none_is_named() {
        let pod = |containers| {
            Document::new(json!({"metadata": {"name": "p"}, "spec": {"containers": containers,
                "initContainers": [{"name": "i"}]}}))
            .unwrap()
        };
        let one = pod(json!([{"name": "a"}]));
        assert_eq!(container(&one, "").unwrap(), "a");
        assert_eq!(container(&one, "i").unwrap(), "i");
        assert_eq!(container(&one, "x").unwrap_err().message, "container x is not valid for pod p");
        let two = container(&pod(json!([{"name": "a"}, {"name": "b"}])), "").unwrap_err();
        assert_eq!(two.message, "a container name must be specified for pod p, choose one of: [i a b]");
    }
}
