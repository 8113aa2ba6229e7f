//! Documents of the caller: `config.json` and `process.json`. What a runtime has to tolerate in them is taken out before
//! they are read; what it must refuse whatever the kernel says is refused here.

use std::path::Path;

use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType, LinuxResources, LinuxSchedulerPolicy, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::strict::Strict;
use crate::{Error, Result, capabilities, devices, files};

/// A document, and sentences for its author.
pub(super) struct Document<T> {
    pub(super) content: T,
    pub(super) warnings: Vec<String>,
}

/// Sysctls of the IPC namespace (those of fs.mqueue beside).
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];
const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// The specification's words for scheduler flags, and those of the library that reads them.
const SCHEDULER_FLAGS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// Reads a container's specification.
pub(super) fn spec(path: &Path) -> Result<Document<Spec>> {
    checked_spec(path, files::read(path)?)
}

/// The same of what has been read from there.
pub(super) fn checked_spec(path: &Path, mut value: Value) -> Result<Document<Spec>> {
    let warnings = value.get_mut("process").map(tolerate).unwrap_or_default();
    if let Some(policy) = value.pointer("/linux/memoryPolicy").filter(|policy| policy.is_object()) {
        check_memory_policy(policy)?;
    }
    let content: Spec = typed(path, value)?;
    if !content.version().starts_with("1.") {
        return Err(Error::Invalid(format!("ociVersion: {:?} is not 1.x", content.version())));
    }
    let linux = content.linux().as_ref().ok_or_else(|| Error::Invalid("linux: missing".to_owned()))?;
    check(&content, linux)?;
    Ok(Document { content, warnings })
}

/// Reads a process to run in a container.
pub(super) fn process(path: &Path) -> Result<Document<Process>> {
    checked_process(path, files::read(path)?)
}

/// The same of what has been read from there.
pub(super) fn checked_process(path: &Path, mut value: Value) -> Result<Document<Process>> {
    let warnings = tolerate(&mut value);
    Ok(Document { content: typed(path, value)?, warnings })
}

/// Resources of a document with this name.
pub(super) fn checked_resources(name: &Path, value: Value) -> Result<LinuxResources> {
    typed(name, value)
}

fn typed<T: DeserializeOwned>(path: &Path, value: Value) -> Result<T> {
    if !value.is_object() {
        return Err(Error::Invalid(format!("{}: not an object", path.display())));
    }
    T::deserialize(Strict(&value)).map_err(|e| {
        let error = e.to_string();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        match culprit::<T>(&value, &error) {
            field if field.is_empty() => Error::Invalid(format!("{name}: {error}")),
            field => Error::Invalid(format!("{name}: {field}: {error}")),
        }
    })
}

/// The field that an error is about: the innermost value without which the error is another, or none.
fn culprit<T: DeserializeOwned>(document: &Value, error: &str) -> String {
    let (mut pointer, mut name) = (String::new(), String::new());
    while let Some((key, word)) = children(document.pointer(&pointer)).into_iter().find(|(key, _)| {
        let mut rest = document.clone();
        match rest.pointer_mut(&pointer) {
            Some(Value::Object(fields)) => drop(fields.remove(key)),
            Some(Value::Array(items)) => drop(key.parse().map(|at: usize| items.remove(at))),
            _ => {}
        }
        let without = T::deserialize(Strict(&rest)).err().map(|e| e.to_string()).unwrap_or_default();
        // Another that must be there is none of the reasons why one is missing.
        without != error && !(error.starts_with("missing field") && without == format!("missing field `{key}`"))
    }) {
        pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        name.push_str(&word);
    }
    name.trim_start_matches('.').to_owned()
}

/// What is directly in a value: its key, and how a sentence names it.
fn children(value: Option<&Value>) -> Vec<(String, String)> {
    match value {
        Some(Value::Object(fields)) => fields.keys().map(|key| (key.clone(), format!(".{key}"))).collect(),
        Some(Value::Array(items)) => (0..items.len()).map(|at| (at.to_string(), format!("[{at}]"))).collect(),
        _ => Vec::new(),
    }
}

/// Capabilities that nobody knows are left out (config.md, Linux Process), a missing user is root.
fn tolerate(process: &mut Value) -> Vec<String> {
    let known = capabilities::names();
    let mut unknown: Vec<String> = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let good = name.as_str().is_some_and(|name| known.iter().any(|k| k == name));
            unknown.extend((!good).then(|| name.as_str().unwrap_or_default().to_owned()));
            good
        });
    }
    for flag in process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, ours)) = SCHEDULER_FLAGS.iter().find(|(theirs, _)| flag == theirs) {
            *flag = json!(ours);
        }
    }
    if let Some(process) = process.as_object_mut() {
        let user = process.entry("user").or_insert(Value::Null);
        if user.is_null() {
            *user = json!({"uid": 0, "gid": 0});
        }
    }
    unknown.sort();
    unknown.dedup();
    (!unknown.is_empty()).then(|| capabilities::ignored(&unknown)).into_iter().collect()
}

fn check_memory_policy(policy: &Value) -> Result<()> {
    let known = |word: &Value, words: &[&str]| word.as_str().is_some_and(|word| words.contains(&word));
    let mode = policy.get("mode").unwrap_or(&Value::Null);
    if !known(mode, &MEMORY_MODES) {
        return Err(Error::Invalid(format!("linux.memoryPolicy.mode: invalid memory policy mode: {mode}")));
    }
    let flags = policy.get("flags").and_then(Value::as_array);
    match flags.into_iter().flatten().find(|flag| !known(flag, &MEMORY_FLAGS)) {
        Some(flag) => Err(Error::Invalid(format!("linux.memoryPolicy.flags: invalid memory policy flag: {flag}"))),
        None => Ok(()),
    }
}

/// Fields that need a namespace of the container's own, since they would change the host's.
fn check(spec: &Spec, linux: &Linux) -> Result<()> {
    let invalid = |what: String| Err(Error::Invalid(what));
    let own = |kind| linux.namespaces().iter().flatten().any(|n| n.typ() == kind);
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if name.as_ref().is_some_and(|name| !name.is_empty()) && !own(LinuxNamespaceType::Uts) {
            return invalid(format!("{field}: cannot be set without a uts namespace"));
        }
    }
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let hidden = some(linux.masked_paths()) || some(linux.readonly_paths());
    if hidden && !own(LinuxNamespaceType::Mount) {
        return invalid("linux.maskedPaths, linux.readonlyPaths: need a mount namespace".to_owned());
    }
    if linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()) && !own(LinuxNamespaceType::Time) {
        return invalid("linux.timeOffsets: needs a time namespace".to_owned());
    }
    let mapped = linux.uid_mappings().is_some() || linux.gid_mappings().is_some();
    if mapped && !own(LinuxNamespaceType::User) {
        return invalid("linux.uidMappings: need a user namespace".to_owned());
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) && !own(LinuxNamespaceType::Network) {
        return invalid("linux.netDevices: need a network namespace".to_owned());
    }
    if linux.intel_rdt().is_some() {
        return invalid("linux.intelRdt: resctrl file systems are not supported".to_owned());
    }
    if linux.personality().as_ref().is_some_and(|p| p.flags().as_ref().is_some_and(|flags| !flags.is_empty())) {
        return invalid("linux.personality.flags: none is supported".to_owned());
    }
    if spec.root().as_ref().is_some_and(|root| root.path().as_os_str().is_empty()) {
        return invalid("root.path: missing".to_owned());
    }
    spec.hooks().iter().try_for_each(check_hooks)?;
    linux.devices().iter().flatten().try_for_each(devices::check)?;
    for name in linux.sysctl().iter().flat_map(|sysctls| sysctls.keys()) {
        check_sysctl(name, linux)?;
    }
    let also = linux.sysctl().as_ref().and_then(|sysctls| sysctls.get("kernel.domainname"));
    let field = spec.domainname().as_deref().filter(|name| !name.is_empty());
    if field.is_some() && also.is_some_and(|also| Some(also.as_str()) != field) {
        return invalid("linux.sysctl: kernel.domainname: the field domainname says something else".to_owned());
    }
    let cpus = linux.resources().as_ref().and_then(|r| r.cpu().as_ref()).and_then(|cpu| cpu.cpus().as_ref());
    let scheduler = spec.process().as_ref().and_then(|p| p.scheduler().as_ref());
    let deadline = scheduler.is_some_and(|s| *s.policy() == LinuxSchedulerPolicy::SchedDeadline);
    if deadline && cpus.is_some_and(|cpus| !cpus.is_empty()) {
        return invalid("process.scheduler: process scheduler can't be used together with AllowedCPUs".to_owned());
    }
    Ok(())
}

/// A hook is named by its whole path, and has some time if its time is bounded (config.md, POSIX-platform Hooks).
fn check_hooks(hooks: &Hooks) -> Result<()> {
    #[allow(deprecated)]
    let kinds = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    let all = kinds.iter().flat_map(|(kind, list)| list.iter().flatten().enumerate().map(move |hook| (kind, hook)));
    for (kind, (at, hook)) in all {
        if !hook.path().is_absolute() {
            return Err(Error::Invalid(format!("hooks.{kind}[{at}].path: {:?} is not an absolute path", hook.path())));
        }
        if let Some(seconds) = hook.timeout().filter(|seconds| *seconds <= 0) {
            return Err(Error::Invalid(format!("hooks.{kind}[{at}].timeout: {seconds} is not above 0")));
        }
    }
    Ok(())
}

fn check_sysctl(name: &str, linux: &Linux) -> Result<()> {
    let path = |kind| linux.namespaces().iter().flatten().find(|n| n.typ() == kind).map(|n| n.path().clone());
    let own = |kind| path(kind).is_some();
    let dotted = crate::proc::sysctl_path(name).replace('/', ".");
    let (allowed, kind) = if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        (own(LinuxNamespaceType::Ipc), "ipc")
    } else if dotted.starts_with("net.") {
        let network = path(LinuxNamespaceType::Network);
        let link = |path: &Path| std::fs::read_link(path).ok();
        let host =
            |path: &Path| link(path).is_some_and(|link_of| Some(link_of) == link(Path::new("/proc/self/ns/net")));
        (network.is_some_and(|path| path.is_none_or(|path| !host(&path))), "network")
    } else if dotted == "kernel.domainname" {
        (own(LinuxNamespaceType::Uts), "uts")
    } else if dotted.starts_with("user.") {
        (own(LinuxNamespaceType::User), "user")
    } else if dotted == "kernel.hostname" {
        return Err(Error::Invalid(format!("linux.sysctl: {name}: the field hostname sets it")));
    } else {
        return Err(Error::Invalid(format!("linux.sysctl: {name} is not in a separate kernel namespace")));
    };
    match allowed {
        true => Ok(()),
        false => Err(Error::Invalid(format!("linux.sysctl: {name} is not allowed in the host's {kind} namespace"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_left_out_and_told_of() {
        let mut process = json!({"capabilities": {"bounding": ["CAP_KILL", "CAP_UNKNOWN"], "ambient": ["NONE"]},
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]}});
        assert_eq!(tolerate(&mut process), ["ignoring unknown or unavailable capabilities: [CAP_UNKNOWN NONE]"]);
        assert_eq!(process["capabilities"], json!({"bounding": ["CAP_KILL"], "ambient": []}));
        assert_eq!(process["scheduler"]["flags"], json!(["SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"]));
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
    }

    #[test]
    fn sysctls_stay_in_the_container() {
        let linux = |kinds: &[&str]| -> Linux {
            let list: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            serde_json::from_value(json!({"namespaces": list})).unwrap()
        };
        for (name, kind) in [
            ("kernel.msgmax", "ipc"),
            ("fs.mqueue.queues_max", "ipc"),
            ("net.ipv4.ip_forward", "network"),
            ("net/ipv4/conf/eth0.1/forwarding", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ] {
            assert!(check_sysctl(name, &linux(&[kind])).is_ok(), "{name}");
            assert!(check_sysctl(name, &linux(&[])).is_err(), "{name}");
        }
        for name in ["kernel.hostname", "kernel.panic", "vm.swappiness"] {
            assert!(check_sysctl(name, &linux(&["uts", "ipc", "user"])).is_err(), "{name}");
        }
    }

    #[test]
    fn an_error_names_its_field() {
        let base = json!({"ociVersion": "1.2.0", "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]}, "mounts": [{"destination": "/a"}, {"destination": "/b"}],
            "linux": {"resources": {"devices": [{"allow": true}]}, "sysctl": {"net/core/x~y": "1"}}});
        for (pointer, value, want) in [
            ("/process", json!(7), "process: invalid type"),
            ("/process", json!([]), "process: invalid type: sequence, expected an object"),
            ("/process/user", json!([0, 0]), "process.user: invalid type: sequence, expected an object"),
            ("/linux/resources/devices/0", json!([true]), "linux.resources.devices[0]: invalid type: sequence"),
            ("/process/cwd", json!(7), "process.cwd: invalid type"),
            ("/process/user/uid", json!(-1), "process.user.uid: invalid value"),
            ("/process/rlimits/0/type", json!("RLIMIT_X"), "process.rlimits[0].type: unknown variant"),
            ("/process/rlimits/0/hard", json!([]), "process.rlimits[0].hard: invalid type"),
            ("/mounts/1", json!({"source": "/b"}), "mounts[1]: missing field `destination`"),
            ("/linux/resources/devices/0/allow", json!("no"), "linux.resources.devices[0].allow: invalid type"),
            ("/linux/sysctl/net~1core~1x~0y", json!(1), "linux.sysctl.net/core/x~y: invalid type"),
        ] {
            let mut value_of = base.clone();
            *value_of.pointer_mut(pointer).unwrap() = value;
            let error = typed::<Spec>(Path::new("/b/config.json"), value_of).unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.json: {want}")), "{pointer}: {error}");
        }
        let nothing = json!({"ociVersion": "1.2.0", "process": {"cwd": "/", "args": null, "user": {"uid": null, "gid": 0}},
            "mounts": null, "linux": {"devices": [{"path": "/dev/x", "type": "p", "major": null}]}});
        assert!(typed::<Spec>(Path::new("config.json"), nothing).is_ok());
        assert!(typed::<Spec>(Path::new("config.json"), base).is_ok());
    }

    #[test]
    fn memory_policies_have_known_words() {
        for (policy, want) in [
            (json!({"mode": "MPOL_BIND", "flags": ["MPOL_F_STATIC_NODES"]}), ""),
            (json!({}), "invalid memory policy mode"),
            (json!({"mode": "BIND"}), "invalid memory policy mode"),
            (json!({"mode": "MPOL_BIND", "flags": ["x"]}), "invalid memory policy flag"),
        ] {
            let error = check_memory_policy(&policy).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(want) && error.is_empty() == want.is_empty(), "{policy}: {error}");
        }
    }
}
