//! The checks of the levels, each a function and a row (`k8s.io/pod-security-admission/policy`).

use std::collections::BTreeSet;

use api::kinds;
use serde_json::Value;

use super::level::{Level, LevelVersion};

/// The newest version that any check knows; later ones are the same.
const NEWEST: u32 = 37;

/// A pod's spec and annotations.
pub(super) struct Pod<'a> {
    spec: &'a Value,
    annotations: &'a Value,
    containers: Vec<&'a Value>,
}

/// What is wrong.
#[derive(Debug, PartialEq)]
#[allow(missing_docs)]
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

/// One check.
struct Check {
    /// Upstream's id: the order of messages follows it.
    id: &'static str,
    /// The minor version from which on it is made.
    since: u32,
    /// The baseline check that it replaces.
    replaces: &'static str,
    run: fn(&Pod<'_>, u32) -> Option<Violation>,
}

const BASELINE: &[Check] = &[
    Check { id: "appArmorProfile", since: 0, replaces: "", run: app_armor },
    Check { id: "capabilities_baseline", since: 0, replaces: "", run: capabilities },
    Check { id: "hostNamespaces", since: 0, replaces: "", run: host_namespaces },
    Check { id: "hostPathVolumes", since: 0, replaces: "", run: host_paths },
    Check { id: "hostPorts", since: 0, replaces: "", run: host_ports },
    Check { id: "hostProbesAndHostLifecycle", since: 34, replaces: "", run: hosts },
    Check { id: "privileged", since: 0, replaces: "", run: privileged },
    Check { id: "procMount", since: 0, replaces: "", run: proc_mount },
    Check { id: "seLinuxOptions", since: 0, replaces: "", run: selinux },
    Check { id: "seccompProfile_baseline", since: 0, replaces: "", run: seccomp },
    Check { id: "sysctls", since: 0, replaces: "", run: sysctls },
    Check { id: "windowsHostProcess", since: 0, replaces: "", run: host_process },
];

const RESTRICTED: &[Check] = &[
    Check { id: "allowPrivilegeEscalation", since: 8, replaces: "", run: escalation },
    Check { id: "capabilities_restricted", since: 22, replaces: "capabilities_baseline", run: few_capabilities },
    Check { id: "procMount_restricted", since: 35, replaces: "procMount", run: masked_proc },
    Check { id: "restrictedVolumes", since: 0, replaces: "hostPathVolumes", run: volumes },
    Check { id: "runAsNonRoot", since: 0, replaces: "", run: non_root },
    Check { id: "runAsUser", since: 23, replaces: "", run: user },
    Check { id: "seccompProfile_restricted", since: 19, replaces: "seccompProfile_baseline", run: set_seccomp },
];

/// What a level finds wrong with a pod.
pub(super) fn violations(pod: &Pod<'_>, level: LevelVersion) -> Vec<Violation> {
    let minor = level.version.unwrap_or(NEWEST).min(NEWEST);
    let known = |check: &&Check| check.since <= minor;
    let restricted = RESTRICTED.iter().filter(known).filter(|_| level.level == Level::Restricted);
    let replaced: Vec<&str> = restricted.clone().map(|check| check.replaces).collect();
    let baseline = BASELINE.iter().filter(known).filter(|check| !replaced.contains(&check.id));
    let baseline = baseline.filter(|_| level.level != Level::Privileged);
    baseline.chain(restricted).filter_map(|check| (check.run)(pod, minor)).collect()
}

impl<'a> Pod<'a> {
    /// Of a pod or a template.
    pub(super) fn at(template: &'a Value) -> Option<Self> {
        let spec = template.get("spec").filter(|spec| spec.is_object())?;
        let annotations = template.pointer("/metadata/annotations").unwrap_or(&Value::Null);
        let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
        let containers = lists.flat_map(|list| spec.get(list).and_then(Value::as_array).into_iter().flatten());
        Some(Self { spec, annotations, containers: containers.collect() })
    }

    fn windows(&self) -> bool {
        self.spec.pointer("/os/name").is_some_and(|name| name == "windows")
    }

    fn own_users(&self) -> bool {
        self.spec.get("hostUsers").and_then(Value::as_bool) == Some(false)
    }

    /// A field of the pod's security context.
    fn own(&self, path: &str) -> Option<&'a Value> {
        self.spec.pointer(&format!("/securityContext{path}")).filter(|value| !value.is_null())
    }

    /// The names of the containers for which something holds.
    fn which(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|container| holds(container)).map(|container| text(container, "/name")).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> {
        self.spec.get("volumes").and_then(Value::as_array).into_iter().flatten()
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A field of a container's security context.
fn context<'a>(container: &'a Value, path: &str) -> Option<&'a Value> {
    container.pointer(&format!("/securityContext{path}")).filter(|value| !value.is_null())
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// Who sets something bad: the pod, or containers; empty where nobody does.
fn setters(pod: bool, names: &[&str]) -> String {
    let all = [pod.then(|| "pod".to_owned()), (!names.is_empty()).then(|| containers(names))];
    all.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn violation(wrong: bool, reason: impl Into<String>, detail: impl FnOnce() -> String) -> Option<Violation> {
    wrong.then(|| Violation { reason: reason.into(), detail: detail() })
}

fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = |profile: Option<&Value>| {
        let kind = text(profile?, "/type");
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let own = bad(pod.own("/appArmorProfile"));
    let names = pod.which(|c| bad(context(c, "/appArmorProfile")).is_some());
    let mut values: BTreeSet<String> = own.iter().cloned().collect();
    values.extend(pod.containers.iter().filter_map(|c| bad(context(c, "/appArmorProfile"))));
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let named = annotations.filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"));
    let mut noted: Vec<String> = named
        .filter(|(_, value)| !allowed(value.as_str().unwrap_or_default()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    noted.sort();
    let mut who = setters(own.is_some(), &names);
    if !noted.is_empty() {
        let and = if who.is_empty() { "" } else { " and " };
        who = format!("{who}{and}{}", plural("annotation", "annotations", noted.len()));
    }
    let values: Vec<String> = values.into_iter().chain(noted).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(!who.is_empty(), reason, || format!("{who} must not set AppArmor profile type to {}", quoted(&values)))
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The added capabilities of a container that are not allowed.
fn added<'a>(container: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let list = context(container, "/capabilities/add").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).filter(|name| !allowed.contains(name)).collect()
}

fn must_not_add(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let names = pod.which(|c| !added(c, allowed).is_empty());
    let all: BTreeSet<&str> = pod.containers.iter().flat_map(|c| added(c, allowed)).collect();
    let text =
        || format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(&all));
    (!names.is_empty()).then(text)
}

fn capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let detail = must_not_add(pod, &DEFAULT_CAPABILITIES)?;
    Some(Violation { reason: "non-default capabilities".into(), detail })
}

fn few_capabilities(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    let drops_all = |c: &Value| {
        let list = context(c, "/capabilities/drop").and_then(Value::as_array).into_iter().flatten();
        list.into_iter().any(|name| name == "ALL")
    };
    let keep = pod.which(|c| !drops_all(c));
    let drop = (!keep.is_empty())
        .then(|| format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keep)));
    let details: Vec<String> = [drop, must_not_add(pod, &["NET_BIND_SERVICE"])].into_iter().flatten().collect();
    violation(!details.is_empty(), "unrestricted capabilities", || details.join("; "))
}

fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let all: Vec<String> = kinds::host_namespaces(pod.spec).map(|field| format!("{field}=true")).collect();
    violation(!all.is_empty(), "host namespaces", || all.join(", "))
}

fn host_paths(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let is = |volume: &&Value| volume.get("hostPath").is_some_and(|v| !v.is_null());
    let names: Vec<&str> = pod.volumes().filter(is).map(|volume| text(volume, "/name")).collect();
    let word = plural("volume", "volumes", names.len());
    violation(!names.is_empty(), "hostPath volumes", || format!("{word} {}", quoted(&names)))
}

fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<String> {
        let list = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        let host = list.filter_map(|port| port.get("hostPort")?.as_u64());
        host.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let names = pod.which(|c| !ports(c).is_empty());
    let all: BTreeSet<String> = pod.containers.iter().flat_map(|c| ports(c)).collect();
    violation(!names.is_empty(), "hostPort", || {
        let uses = plural("uses", "use", names.len());
        let word = plural("hostPort", "hostPorts", all.len());
        let listed: Vec<&str> = all.iter().map(String::as_str).collect();
        format!("{} {uses} {word} {}", containers(&names), listed.join(", "))
    })
}

fn hosts(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let named = |container: &Value| -> Vec<String> {
        let kinds = |handler: &&str| ["httpGet", "tcpSocket"].map(|kind| format!("{handler}/{kind}/host"));
        let all = HANDLERS.iter().flat_map(kinds);
        all.map(|pointer| text(container, &pointer).to_owned()).filter(|host| !host.is_empty()).collect()
    };
    let names: BTreeSet<&str> = pod.which(|c| !named(c).is_empty()).into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let all: BTreeSet<String> = pod.containers.iter().flat_map(|c| named(c)).collect();
    violation(!names.is_empty(), "probe or lifecycle host", || {
        let uses = plural("uses", "use", names.len());
        let word = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
        format!("{} {uses} {word} {}", containers(&names), quoted(&all))
    })
}

fn privileged(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let names = pod.which(|c| context(c, "/privileged").and_then(Value::as_bool) == Some(true));
    let detail = || format!("{} must not set securityContext.privileged=true", containers(&names));
    violation(!names.is_empty(), "privileged", detail)
}

fn proc_mount(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.own_users() { None } else { masked_proc(pod, minor) }
}

fn masked_proc(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = |container: &Value| {
        let mount = context(container, "/procMount").and_then(Value::as_str);
        mount.filter(|mount| *mount != "Default").map(str::to_owned)
    };
    let names = pod.which(|c| bad(c).is_some());
    let all: BTreeSet<String> = pod.containers.iter().filter_map(|c| bad(c)).collect();
    let detail = || format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&all));
    violation(!names.is_empty(), "procMount", detail)
}

fn selinux(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (minor >= 31 && kind == "container_engine_t")
    };
    let bad = |options: &Value| {
        !allowed(text(options, "/type")) || !text(options, "/user").is_empty() || !text(options, "/role").is_empty()
    };
    let own = pod.own("/seLinuxOptions");
    let names = pod.which(|c| context(c, "/seLinuxOptions").is_some_and(bad));
    let who = setters(own.is_some_and(bad), &names);
    let all: Vec<&Value> =
        own.into_iter().chain(pod.containers.iter().filter_map(|c| context(c, "/seLinuxOptions"))).collect();
    let types: BTreeSet<&str> = all.iter().map(|options| text(options, "/type")).filter(|t| !allowed(t)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, &format!("/{field}")).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    let detail = || format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    violation(!who.is_empty(), "seLinuxOptions", detail)
}

/// A seccomp profile that is none of the safe ones.
fn unsafe_seccomp(profile: Option<&Value>) -> Option<String> {
    let kind = text(profile?, "/type");
    (!matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
}

fn seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 { seccomp_annotations(pod) } else { bad_seccomp(pod) }
}

fn bad_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let own = unsafe_seccomp(pod.own("/seccompProfile"));
    let names = pod.which(|c| unsafe_seccomp(context(c, "/seccompProfile")).is_some());
    let mut values: BTreeSet<String> = own.iter().cloned().collect();
    values.extend(pod.containers.iter().filter_map(|c| unsafe_seccomp(context(c, "/seccompProfile"))));
    let who = setters(own.is_some(), &names);
    let detail = || format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values));
    violation(!who.is_empty(), "seccompProfile", detail)
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let each = |c: &&Value| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "/name"));
    let keys = std::iter::once(POD.to_owned()).chain(pod.containers.iter().map(each));
    let bad = keys.filter_map(|key| {
        let value = pod.annotations.get(&key)?.as_str()?;
        (!allowed(value)).then(|| format!("{key}={value:?}"))
    });
    let all: BTreeSet<String> = bad.collect();
    let word = plural("annotation", "annotations", all.len());
    let listed: Vec<&str> = all.iter().map(String::as_str).collect();
    violation(!all.is_empty(), "seccompProfile", || format!("forbidden {word} {}", listed.join(", ")))
}

fn set_seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    if let Some(bad) = bad_seccomp(pod) {
        return Some(bad);
    }
    let set = pod.own("/seccompProfile").is_some();
    let names = pod.which(|c| !set && context(c, "/seccompProfile").is_none());
    violation(!names.is_empty(), "seccompProfile", || {
        let who = containers(&names);
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    })
}

/// Sysctls that are safe, with the minor version since when.
const SYSCTLS: [(&str, u32); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
    ("net.ipv4.tcp_notsent_lowat", 37),
];

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let list = pod.own("/sysctls").and_then(Value::as_array).into_iter().flatten();
    let bad: Vec<&str> = list.map(|sysctl| text(sysctl, "/name")).filter(|name| !safe(name)).collect();
    violation(!bad.is_empty(), "forbidden sysctls", || bad.join(", "))
}

fn host_process(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    const FIELD: &str = "/windowsOptions/hostProcess";
    let yes = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let names = pod.which(|c| yes(context(c, FIELD)));
    let who = setters(yes(pod.own(FIELD)), &names);
    let detail = || format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    violation(!who.is_empty(), "hostProcess", detail)
}

fn escalation(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.windows() {
        return None;
    }
    let names = pod.which(|c| context(c, "/allowPrivilegeEscalation").and_then(Value::as_bool) != Some(false));
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    violation(!names.is_empty(), "allowPrivilegeEscalation != false", detail)
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let kind = |volume: &Value| -> String {
        let fields = volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        fields.map(|(key, _)| key.clone()).next().unwrap_or_else(|| "unknown".into())
    };
    let bad: Vec<&Value> = pod.volumes().filter(|volume| !VOLUMES.contains(&kind(volume).as_str())).collect();
    let names: Vec<&str> = bad.iter().map(|volume| text(volume, "/name")).collect();
    let kinds: BTreeSet<String> = bad.iter().map(|volume| kind(volume)).collect();
    violation(!bad.is_empty(), "restricted volume types", || {
        let (volume, uses) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
        let word = plural("restricted volume type", "restricted volume types", kinds.len());
        format!("{volume} {} {uses} {word} {}", quoted(&names), quoted(&kinds))
    })
}

fn non_root(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.own_users() {
        return None;
    }
    let flag = |value: Option<&Value>| value.and_then(Value::as_bool);
    let own = flag(pod.own("/runAsNonRoot"));
    let explicit = pod.which(|c| flag(context(c, "/runAsNonRoot")) == Some(false));
    let who = setters(own == Some(false), &explicit);
    let reason = "runAsNonRoot != true";
    if !who.is_empty() {
        return violation(true, reason, || format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = pod.which(|c| own != Some(true) && flag(context(c, "/runAsNonRoot")).is_none());
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit));
    violation(!implicit.is_empty(), reason, detail)
}

fn user(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.own_users() {
        return None;
    }
    let root = |value: Option<&Value>| value.and_then(Value::as_i64) == Some(0);
    let names = pod.which(|c| root(context(c, "/runAsUser")));
    let who = setters(root(pod.own("/runAsUser")), &names);
    violation(!who.is_empty(), "runAsUser=0", || format!("{who} must not set runAsUser=0"))
}
