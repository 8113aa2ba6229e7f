//! What only tells: `state`, `list`, `ps`, `spec`, `version`.

use std::process::{Command, ExitCode};

use serde::Serialize;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::container::Container;
use super::{Global, print};
use crate::cgroup::Host;
use crate::state::State;
use crate::{Error, Result};

pub(super) fn state(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let container = Container::load(&global.root, &arguments.only_id()?)?;
    print_json(&container.oci_state())
}

pub(super) fn list(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let (mut json, mut quiet) = (false, false);
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-f" | "--format" => json = is_json(&arguments.value(&option)?)?,
            "-q" | "--quiet" => quiet = true,
            other => return Err(Error::Invalid(format!("list: unknown option {other}"))),
        }
    }
    arguments.end()?;
    // The usual place need not be there yet; one that was named is thought to be.
    if global.own_root && !global.root.exists() {
        return Err(Error::NotFound(global.root.display().to_string()));
    }
    let containers = Container::list(&global.root)?;
    if quiet {
        return containers.iter().try_for_each(|c| print(&format!("{}\n", c.id)));
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = |uid: u32| crate::rootless::name_of(&passwd, uid).unwrap_or_else(|| format!("#{uid}"));
    let owned = |c: &Container| Owned { state: c.oci_state(), owner: c.owner().map(name).unwrap_or_default() };
    let list: Vec<Owned> = containers.iter().map(owned).collect();
    if json {
        let text = serde_json::to_string(&list).map_err(|e| Error::Invalid(e.to_string()))?;
        return print(&(text + "\n"));
    }
    let row = |id: &str, pid: &str, status: &str, bundle: &str, created: &str, owner: &str| {
        format!("{id:<24} {pid:<8} {status:<9} {bundle:<40} {created:<35} {owner}\n")
    };
    let mut text = row("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
    for Owned { state: s, owner } in &list {
        text.push_str(&row(&s.id, &s.pid.to_string(), s.status, &s.bundle.to_string_lossy(), &s.created, owner));
    }
    print(&text)
}

/// A container in a list, with the name of who made it.
#[derive(Serialize)]
struct Owned {
    #[serde(flatten)]
    state: State,
    owner: String,
}

/// What `--format` says.
fn is_json(format: &str) -> Result<bool> {
    match format {
        "json" => Ok(true),
        "table" => Ok(false),
        other => Err(Error::Invalid(format!("--format: {other:?} is not table or json"))),
    }
}

/// The processes of a container: their ids, or what ps(1) tells of them.
pub(super) fn ps(global: &Global, arguments: &mut Arguments) -> Result<ExitCode> {
    let mut json = false;
    while let Some(option) = arguments.leading_option() {
        match option.as_str() {
            "-f" | "--format" => json = is_json(&arguments.value(&option)?)?,
            other => return Err(Error::Invalid(format!("ps: unknown option {other}"))),
        }
    }
    let container = Container::load(&global.root, &arguments.positional("a container id")?)?;
    let mut words = arguments.rest();
    if words.iter().any(|word| word == "json") {
        (json, words) = (true, Vec::new());
    }
    let pids = container.processes()?;
    if json {
        return print_json(&pids).map(|()| ExitCode::SUCCESS);
    }
    if words.is_empty() {
        words.push("-ef".to_owned());
    }
    let output = Command::new("ps").args(words).output().map_err(|e| Error::System("run ps".to_owned(), e))?;
    if !output.status.success() {
        return Err(Error::State(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    print(&rows_of(&String::from_utf8_lossy(&output.stdout), &pids)?).map(|()| ExitCode::SUCCESS)
}

/// The head of a table of ps(1), and the rows of these processes.
fn rows_of(table: &str, pids: &[i32]) -> Result<String> {
    let head = table.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Error::Invalid("ps: no column PID".to_owned()))?;
    let pid = |row: &str| row.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
    let ours = table.lines().skip(1).filter(|row| pid(row).is_some_and(|pid| pids.contains(&pid)));
    Ok([head].into_iter().chain(ours).map(|row| row.to_owned() + "\n").collect())
}

/// Writes a spec to start from.
pub(super) fn spec(arguments: &mut Arguments) -> Result<()> {
    let (mut bundle, mut rootless) = (std::path::PathBuf::from("."), false);
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "-b" | "--bundle" => bundle = arguments.value(&option)?.into(),
            "--rootless" => rootless = true,
            other => return Err(Error::Invalid(format!("spec: unknown option {other}"))),
        }
    }
    arguments.end()?;
    let path = bundle.join("config.json");
    if path.exists() {
        return Err(Error::State(format!("{} exists", path.display())));
    }
    let unified = Host::discover()?.is_unified();
    let mut document = example(unified)?;
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_rootless(&mut document, uid, gid);
    }
    let text = serde_json::to_string_pretty(&document).map_err(|e| Error::Invalid(e.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::System(format!("write {}", path.display()), e))
}

/// A shell in a read-only root with few capabilities, as runc's users know it.
fn example(unified: bool) -> Result<Value> {
    let mut document: Value =
        serde_json::from_str(include_str!("example.json")).map_err(|e| Error::Invalid(e.to_string()))?;
    if unified && let Some(list) = document.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.push(json!({"type": "cgroup"}));
    }
    Ok(document)
}

/// What somebody who is not root can run: with a user namespace, on the host's network.
fn make_rootless(document: &mut Value, uid: u32, gid: u32) {
    if let Some(list) = document.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        list.retain(|namespace| namespace["type"] != "network");
        list.push(json!({"type": "user"}));
    }
    if let Some(list) = document.pointer_mut("/mounts").and_then(Value::as_array_mut) {
        let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        list.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        for mount in list {
            if mount["destination"] == "/sys" {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
            }
            // The group of terminals is not mapped.
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option.as_str().is_none_or(|o| !o.starts_with("gid=")));
            }
        }
    }
    if let Some(linux) = document["linux"].as_object_mut() {
        linux.remove("resources");
        linux.insert("uidMappings".to_owned(), json!([{"containerID": 0, "hostID": uid, "size": 1}]));
        linux.insert("gidMappings".to_owned(), json!([{"containerID": 0, "hostID": gid, "size": 1}]));
    }
}

pub(super) fn version() -> Result<()> {
    print(&format!("trimtab oci version {}\nspec: 1.3.0\n+CAP +SECCOMP +EBPF\n", env!("CARGO_PKG_VERSION")))
}

pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Invalid(e.to_string()))?;
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_specifications() {
        let mut document = example(true).unwrap();
        let read = |document: &Value| serde_json::from_value::<oci_spec::runtime::Spec>(document.clone()).unwrap();
        let kinds = |spec: oci_spec::runtime::Spec| {
            spec.linux().as_ref().and_then(|l| l.namespaces().clone()).map_or(0, |n| n.len())
        };
        assert_eq!(kinds(read(&document)), 6);
        make_rootless(&mut document, 1000, 100);
        assert_eq!(kinds(read(&document)), 6);
        assert_eq!(document["linux"]["uidMappings"][0]["hostID"], 1000);
        assert!(!document.to_string().contains("gid=5"));
    }

    #[test]
    fn rows_are_those_of_the_container() {
        let table = "UID PID CMD\nroot 1 init\nroot 17 sh\nroot 117 sh\n";
        assert_eq!(rows_of(table, &[17]).ok().as_deref(), Some("UID PID CMD\nroot 17 sh\n"));
        assert!(rows_of("CMD\nsh\n", &[17]).is_err());
    }
}
