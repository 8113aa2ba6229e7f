//! What only tells: `state`, `list`, `ps`, `spec`, `features`.

use oci_spec::runtime::{LinuxNamespaceType, ProcessBuilder, RootBuilder, Spec, SpecBuilder};
use serde_json::json;

use super::arguments::Arguments;
use super::container::{Container, Status};
use super::{Global, print};
use crate::cgroup::Host;
use crate::{Error, Result, capabilities};

pub(super) fn state(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    print_json(&container.oci_state())
}

pub(super) fn list(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let (format, quiet) = format(arguments)?;
    let containers = Container::list(&global.root)?;
    if quiet {
        return containers.iter().try_for_each(|c| print(&format!("{}\n", c.id)));
    }
    if format == "json" {
        return print_json(&json!(containers.iter().map(Container::oci_state).collect::<Vec<_>>()));
    }
    let mut text = format!("{:<24} {:<8} {:<9} {:<32} {}\n", "ID", "PID", "STATUS", "CREATED", "BUNDLE");
    for c in &containers {
        let status = c.status();
        let pid = if status == Status::Stopped { 0 } else { c.pid };
        text.push_str(&format!(
            "{:<24} {pid:<8} {:<9} {:<32} {}\n",
            c.id,
            status.name(),
            c.created,
            c.bundle.display()
        ));
    }
    print(&text)
}

pub(super) fn ps(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let (mut format_name, _) = format(arguments)?;
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    if arguments.take_flag("json") {
        format_name = "json".to_owned();
    }
    let host = Host::discover()?;
    let pids = host.processes(&host.open(&container.cgroup)?)?;
    if format_name == "json" {
        return print_json(&json!(pids));
    }
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let rows: Vec<String> = pids.iter().map(|pid| format!("{pid:<8} {}\n", name(pid).trim())).collect();
    print(&format!("{:<8} COMMAND\n{}", "PID", rows.concat()))
}

fn format(arguments: &mut Arguments) -> Result<(String, bool)> {
    let (mut format, mut quiet) = ("table".to_owned(), false);
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-f" | "--format" => format = arguments.value(&option)?,
            "-q" | "--quiet" => quiet = true,
            other => return Err(Error::Invalid(format!("unknown option {other}"))),
        }
    }
    Ok((format, quiet))
}

/// Writes a spec to start from.
pub(super) fn spec(arguments: &mut Arguments) -> Result<()> {
    let mut bundle = std::path::PathBuf::from(".");
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-b" | "--bundle" => bundle = arguments.value(&option)?.into(),
            other => return Err(Error::Invalid(format!("spec: unknown option {other}"))),
        }
    }
    let path = bundle.join("config.json");
    if path.exists() {
        return Err(Error::State(format!("{} exists", path.display())));
    }
    let text = serde_json::to_string_pretty(&default_spec()?).map_err(|e| Error::Invalid(e.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::System(format!("write {}", path.display()), e))
}

fn default_spec() -> Result<Spec> {
    let invalid = |e: oci_spec::OciSpecError| Error::Invalid(e.to_string());
    let process =
        ProcessBuilder::default().terminal(true).args(vec!["sh".to_owned()]).cwd("/").build().map_err(invalid)?;
    let root = RootBuilder::default().path("rootfs").readonly(true).build().map_err(invalid)?;
    SpecBuilder::default().process(process).root(root).hostname("trimtab").build().map_err(invalid)
}

/// What this runtime can do (features.md).
pub(super) fn features() -> Result<()> {
    let kinds = [
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::User,
        LinuxNamespaceType::Uts,
    ];
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": crate::mount_options::words(),
        "linux": {
            "namespaces": kinds,
            "capabilities": capabilities::names(),
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": [if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" }],
                "knownFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}}
        }
    }))
}

pub(super) fn version() -> Result<()> {
    print(&format!("trimtab oci version {}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION")))
}

fn print_json(value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Invalid(e.to_string()))?;
    print(&(text + "\n"))
}
