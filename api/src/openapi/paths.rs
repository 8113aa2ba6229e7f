//! The paths of resources, with upstream's operation ids.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::custom::type_name;
use super::operation::{Body, META, Operation, path};
use super::{Served, ServedSubresource, group_version_kind};
use crate::schema::Schema;

const WRITE: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "pretty"];
const LIST: [&str; 12] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "pretty",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const DELETE: [&str; 6] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const EXEC: [&str; 6] = ["command", "container", "stderr", "stdin", "stdout", "tty"];
const LOG: [&str; 10] = [
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

/// The paths of some resources, and of their groups and versions.
pub(super) fn of_resources(served: &[Served]) -> Map<String, Value> {
    let mut out = Map::new();
    for resource in served {
        let names = Names::new(resource);
        if !resource.schema.is_custom() {
            let root = get(&format!("get{}{}APIResources", names.group, names.version), &names.tag, "APIResourceList");
            out.insert(format!("{}/", names.root), path(&[], vec![root]));
        }
        resource_paths(resource, &names, &mut out);
    }
    out
}

/// The paths above versions: of the groups, and of the server.
pub(super) fn of_groups(served: &[Served]) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |at: &str, id: &str, tag: &str, of: &str| {
        out.insert(at.to_owned(), path(&[], vec![get(id, tag, of)]));
    };
    put("/api/", "getCoreAPIVersions", "core", "APIVersions");
    put("/apis/", "getAPIVersions", "apis", "APIGroupList");
    let groups: BTreeSet<&str> = served.iter().filter(|s| !s.schema.is_custom()).map(|s| s.group.as_str()).collect();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        let title = title(group);
        put(&format!("/apis/{group}/"), &format!("get{title}APIGroup"), &lower_first(&title), "APIGroup");
    }
    let mut version = get("getCodeVersion", "version", "");
    version.answer = "io.k8s.apimachinery.pkg.version.Info".into();
    out.insert("/version/".into(), path(&[], vec![version]));
    for (at, id, tag) in [
        ("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration", "WellKnown"),
        ("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset", "openid"),
    ] {
        let text = Operation { answer: String::new(), ..get(id, tag, "") };
        out.insert(at.into(), path(&[], vec![text]));
    }
    out
}

/// A plain GET of a discovery document.
fn get(id: &str, tag: &str, of: &str) -> Operation {
    Operation {
        method: "get",
        action: "",
        id: id.to_owned(),
        tag: tag.to_owned(),
        kind: None,
        query: Vec::new(),
        body: Body::None,
        answer: format!("{META}{of}"),
        codes: &["200"],
    }
}

/// `rbac.authorization.k8s.io` as `RbacAuthorization`.
fn title(group: &str) -> String {
    match group {
        "" => "Core".into(),
        group => group.trim_end_matches(".k8s.io").split(['.', '-']).map(upper_first).collect(),
    }
}

fn upper_first(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn lower_first(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// How a resource is named in paths and ids.
struct Names {
    /// `/apis/apps/v1`.
    root: String,
    /// `Apps`, `V1`.
    group: String,
    version: String,
    tag: String,
    /// `Namespaced` or empty.
    scope: &'static str,
    kind: Value,
    own_type: String,
}

impl Names {
    fn new(served: &Served) -> Self {
        let group = title(&served.group);
        let root = match served.group.as_str() {
            "" => format!("/api/{}", served.version),
            group => format!("/apis/{group}/{}", served.version),
        };
        Self {
            root,
            tag: format!("{}_{}", lower_first(&group), served.version),
            version: upper_first(&served.version),
            group,
            scope: if served.namespaced { "Namespaced" } else { "" },
            kind: group_version_kind(&served.group, &served.version, &served.kind),
            own_type: type_name(served),
        }
    }

    /// `readAppsV1NamespacedDeploymentStatus`.
    fn id(&self, verb: &str, rest: &str) -> String {
        format!("{verb}{}{}{rest}", self.group, self.version)
    }
}

fn resource_paths(served: &Served, names: &Names, out: &mut Map<String, Value>) {
    let has = |verb: &str| served.verbs.iter().any(|v| v == verb);
    let (kind, plural) = (&served.kind, &served.plural);
    let (collection, scope): (String, &[&str]) = match served.namespaced {
        true => (format!("{}/namespaces/{{namespace}}/{plural}", names.root), &["namespace"]),
        false => (format!("{}/{plural}", names.root), &[]),
    };
    let named = [&["name"], scope].concat();
    let mut put = |at: &str, in_path: &[&str], operations: Vec<Operation>| {
        if !operations.is_empty() {
            out.insert(at.to_owned(), path(in_path, operations));
        }
    };
    if served.namespaced && has("list") {
        let all = list(names, &format!("{kind}ForAllNamespaces"));
        put(&format!("{}/{plural}", names.root), &[], vec![all]);
    }
    put(&collection, scope, collection_operations(served, names));
    put(&format!("{collection}/{{name}}"), &named, item_operations(served, names));
    if has("watch") && !served.schema.is_custom() {
        let under = collection.replacen(&names.root, &format!("{}/watch", names.root), 1);
        if served.namespaced {
            let all = watch(names, "watchlist", &format!("{kind}ListForAllNamespaces"));
            put(&format!("{}/watch/{plural}", names.root), &[], vec![all]);
        }
        put(&under, scope, vec![watch(names, "watchlist", &format!("{}{kind}List", names.scope))]);
        put(&format!("{under}/{{name}}"), &named, vec![watch(names, "watch", &format!("{}{kind}", names.scope))]);
    }
    for subresource in &served.subresources {
        let at = format!("{collection}/{{name}}/{}", subresource.name);
        put(&at, &named, subresource_operations(served, subresource, names, ""));
        if subresource.name == "proxy" {
            let deeper = [named.as_slice(), &["path"]].concat();
            let operations = subresource_operations(served, subresource, names, "WithPath");
            put(&format!("{at}/{{path}}"), &deeper, operations);
        }
    }
}

fn list(names: &Names, rest: &str) -> Operation {
    Operation {
        method: "get",
        action: "list",
        id: names.id("list", rest),
        tag: names.tag.clone(),
        kind: Some(names.kind.clone()),
        query: LIST.to_vec(),
        body: Body::None,
        answer: format!("{}List", names.own_type),
        codes: &["200"],
    }
}

fn watch(names: &Names, action: &'static str, rest: &str) -> Operation {
    Operation { action, id: names.id("watch", rest), answer: format!("{META}WatchEvent"), ..list(names, rest) }
}

fn collection_operations(served: &Served, names: &Names) -> Vec<Operation> {
    let rest = format!("{}{}", names.scope, served.kind);
    let mut out = Vec::new();
    for verb in &served.verbs {
        match verb.as_str() {
            "list" => out.push(list(names, &rest)),
            "create" => out.push(write(names, Write::CREATE, &rest, &names.own_type, names.kind.clone())),
            "deletecollection" => out.push(Operation {
                method: "delete",
                action: "deletecollection",
                id: names.id("delete", &format!("Collection{rest}")),
                query: delete_collection_query(),
                body: Body::Type(format!("{META}DeleteOptions"), false),
                answer: format!("{META}Status"),
                ..list(names, &rest)
            }),
            _ => {}
        }
    }
    out
}

fn delete_collection_query() -> Vec<&'static str> {
    let list = LIST.into_iter().filter(|name| !matches!(*name, "allowWatchBookmarks" | "watch"));
    let all: BTreeSet<&str> = list.chain(DELETE).collect();
    all.into_iter().collect()
}

/// How a writing verb looks in HTTP.
struct Write {
    method: &'static str,
    action: &'static str,
    word: &'static str,
    codes: &'static [&'static str],
}

impl Write {
    const CREATE: Self = Self { method: "post", action: "post", word: "create", codes: &["200", "201", "202"] };
    const UPDATE: Self = Self { method: "put", action: "put", word: "replace", codes: &["200", "201"] };
    const PATCH: Self = Self { method: "patch", action: "patch", word: "patch", codes: &["200", "201"] };
}

fn write(names: &Names, how: Write, rest: &str, of: &str, kind: Value) -> Operation {
    Operation {
        method: how.method,
        action: how.action,
        id: names.id(how.word, rest),
        query: WRITE.to_vec(),
        body: Body::Type(of.to_owned(), true),
        answer: of.to_owned(),
        codes: how.codes,
        kind: Some(kind),
        ..list(names, rest)
    }
}

fn patch(names: &Names, rest: &str, of: &str, kind: Value, custom: bool) -> Operation {
    let media_types = if custom { PATCHES.get(..3).unwrap_or(&PATCHES) } else { &PATCHES };
    let mut query = WRITE.to_vec();
    query.push("force");
    Operation { query, body: Body::Patch(media_types), ..write(names, Write::PATCH, rest, of, kind) }
}

fn read(names: &Names, rest: &str, of: &str, kind: Value) -> Operation {
    Operation {
        action: "get",
        id: names.id("read", rest),
        query: vec!["pretty"],
        answer: of.to_owned(),
        kind: Some(kind),
        ..list(names, rest)
    }
}

fn delete(names: &Names, rest: &str) -> Operation {
    Operation {
        method: "delete",
        action: "delete",
        id: names.id("delete", rest),
        query: DELETE.to_vec(),
        body: Body::Type(format!("{META}DeleteOptions"), false),
        answer: format!("{META}Status"),
        codes: &["200", "202"],
        ..list(names, rest)
    }
}

fn item_operations(served: &Served, names: &Names) -> Vec<Operation> {
    let rest = format!("{}{}", names.scope, served.kind);
    let of = &names.own_type;
    let operation = |verb: &String| match verb.as_str() {
        "get" => Some(read(names, &rest, of, names.kind.clone())),
        "update" => Some(write(names, Write::UPDATE, &rest, of, names.kind.clone())),
        "patch" => Some(patch(names, &rest, of, names.kind.clone(), served.schema.is_custom())),
        "delete" => Some(delete(names, &rest)),
        _ => None,
    };
    served.verbs.iter().filter_map(operation).collect()
}

fn subresource_operations(
    served: &Served,
    subresource: &ServedSubresource,
    names: &Names,
    suffix: &str,
) -> Vec<Operation> {
    let pick = |own: &str, other: &str| if own.is_empty() { other.to_owned() } else { own.to_owned() };
    let group = if subresource.version.is_empty() { served.group.clone() } else { subresource.group.clone() };
    let version = pick(&subresource.version, &served.version);
    let kind = group_version_kind(&group, &version, &subresource.kind);
    let rest = format!("{}{}{}{suffix}", names.scope, served.kind, upper_first(&subresource.name));
    if subresource.kind.ends_with("Options") {
        return connect(served, subresource, names, &rest, &kind);
    }
    let of = match Schema::of_kind(&group, &version, &subresource.kind) {
        Some(schema) if subresource.name != "log" => schema.root().name.clone(),
        _ if subresource.name == "log" => String::new(),
        _ => names.own_type.clone(),
    };
    let operation = |verb: &String| match verb.as_str() {
        "get" if subresource.name == "log" => {
            Some(Operation { query: LOG.to_vec(), ..read(names, &rest, &of, kind.clone()) })
        }
        "get" => Some(read(names, &rest, &of, kind.clone())),
        "update" => Some(write(names, Write::UPDATE, &rest, &of, kind.clone())),
        "patch" => Some(patch(names, &rest, &of, kind.clone(), served.schema.is_custom())),
        "create" => Some(write(names, Write::CREATE, &rest, &of, kind.clone())),
        _ => None,
    };
    subresource.verbs.iter().filter_map(operation).collect()
}

/// Operations that are handed to a node or pod.
fn connect(
    served: &Served,
    subresource: &ServedSubresource,
    names: &Names,
    rest: &str,
    kind: &Value,
) -> Vec<Operation> {
    let verbs = subresource.verbs.iter().filter_map(|verb| match verb.as_str() {
        "get" => Some("get"),
        "create" => Some("post"),
        "update" => Some("put"),
        "patch" => Some("patch"),
        "delete" => Some("delete"),
        _ => None,
    });
    let is_proxy = subresource.name == "proxy";
    let more: &[&str] = if is_proxy { &["head", "options"] } else { &[] };
    let query: &[&str] = match subresource.name.as_str() {
        "exec" => &EXEC,
        "attach" => EXEC.get(1..).unwrap_or_default(),
        "portforward" => &["ports"],
        _ => &["path"],
    };
    let _ = served;
    let operation = |method: &'static str| Operation {
        method,
        action: "connect",
        id: format!("connect{}{}{}{rest}", names.group, names.version, upper_first(method)),
        query: query.to_vec(),
        answer: String::new(),
        kind: Some(kind.clone()),
        ..list(names, rest)
    };
    verbs.chain(more.iter().copied()).map(operation).collect()
}
