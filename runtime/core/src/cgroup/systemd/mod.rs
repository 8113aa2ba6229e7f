//! Cgroups that systemd hands out: a container is a unit, a scope or a slice, which is made and unmade over the system bus
//! (org.freedesktop.systemd1(5)). What systemd has no property for is written to the cgroup itself, which is delegated.

mod bus;
mod properties;
mod variant;
mod wire;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};

use crate::sys::{self, Forked};
use crate::{Error, Result};
use bus::{Bus, Failure, Method};
pub(crate) use properties::File;
use properties::Property;
use wire::Value;

/// Where the system bus listens.
const SOCKET: &str = "/run/dbus/system_bus_socket";

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// A container's unit, and the slice that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    name: String,
    slice: String,
}

/// A process that keeps a scope alive which has no other yet. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Placeholder {
    pid: i32,
    pidfd: OwnedFd,
}

impl Placeholder {
    fn start() -> Result<Self> {
        match sys::fork(0, None).map_err(|e| Error::System("clone".to_owned(), e))? {
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd }),
            Forked::Child => {
                // Ends with its parent too, should that be killed.
                let bound = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
                sys::reset_signals();
                if bound.is_ok() && sys::close_from(0).is_ok() {
                    let _ = rustix::event::poll(&mut [], None);
                }
                sys::exit_now(0)
            }
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

impl Unit {
    /// What `linux.cgroupsPath` says, which is `slice:prefix:name` here; nothing at all is `system.slice:trimtab:ID`, and
    /// a slice that is not named `system.slice`.
    pub(crate) fn named(path: Option<&Path>, id: &str) -> Result<Self> {
        let default = format!("system.slice:trimtab:{id}");
        let text = path.map_or(default.as_str(), |path| path.to_str().unwrap_or_default());
        let wrong =
            |what: &str| Error::Invalid(format!("linux.cgroupsPath: {text:?} is not slice:prefix:name: {what}"));
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(wrong("of three parts"));
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let name = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (_, "") => format!("{name}.scope"),
            _ => format!("{prefix}-{name}.scope"),
        };
        if name.contains('/') || name.starts_with('.') {
            return Err(wrong("the name of a unit"));
        }
        expand(slice).ok_or_else(|| wrong("a slice"))?;
        if name.ends_with(".slice") && expand(&name).is_none() {
            return Err(wrong("the name of a slice"));
        }
        Ok(Self { name, slice: slice.to_owned() })
    }

    /// Its cgroup, below the root of every hierarchy.
    pub(crate) fn path(&self) -> PathBuf {
        match expand(&self.name) {
            Some(slice) => slice,
            None => expand(&self.slice).unwrap_or_default().join(&self.name),
        }
    }

    fn is_scope(&self) -> bool {
        !self.name.ends_with(".slice")
    }

    /// Makes the unit, with what annotations say of it. A scope has a process in it from the start: it is ours, until the
    /// container's own is there. Rules for devices, where systemd has to know them, it must know by now: for the first ones
    /// that a slice has it moves all processes of that slice out of their cgroups of v1's `devices`.
    pub(crate) fn start(
        &self,
        annotations: &BTreeMap<String, String>,
        devices: Option<&[LinuxDeviceCgroup]>,
    ) -> Result<Option<Placeholder>> {
        let more = properties::of_annotations(annotations.iter())?;
        let mut manager = Manager::connect()?;
        let placeholder = if self.is_scope() { Some(Placeholder::start()?) } else { None };
        let mut properties = self.properties(placeholder.as_ref());
        properties.extend(devices.into_iter().flat_map(properties::of_devices).chain(more));
        let started = match manager.start(&self.name, &properties) {
            // One that has failed is still known.
            Err(Failure::Refused { name, .. }) if name == UNIT_EXISTS => {
                let _ = manager.call("ResetFailedUnit", &[Value::text(&self.name)]);
                manager.start(&self.name, &properties)
            }
            other => other,
        };
        started.map_err(|failure| self.error("start", failure))?;
        Ok(placeholder)
    }

    fn properties(&self, placeholder: Option<&Placeholder>) -> Vec<Property> {
        let mut properties = vec![("Description", Value::String(format!("trimtab container {}", self.name)))];
        match placeholder {
            Some(placeholder) => {
                let pid = Value::U32(placeholder.pid.unsigned_abs());
                properties.push(("Slice", Value::text(&self.slice)));
                properties.push(("Delegate", Value::Bool(true)));
                properties.push(("PIDs", Value::Array("u".to_owned(), vec![pid])));
            }
            // A slice has its place by its name.
            None => properties.push(("Wants", Value::Array("s".to_owned(), vec![Value::text(&self.slice)]))),
        }
        let counted = ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"];
        properties.extend(counted.map(|name| (name, Value::Bool(true))));
        properties.push(("DefaultDependencies", Value::Bool(false)));
        properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Tells systemd what is written to the files of the unit's cgroup, so that it writes nothing else there: and on v1
    /// the rules for devices, too.
    pub(crate) fn set(&self, files: &[File], devices: Option<&[LinuxDeviceCgroup]>) -> Result<()> {
        let mut manager = Manager::connect()?;
        let version = manager.version().map_err(|failure| self.error("limit", failure))?;
        let mut properties = properties::of_files(files, version);
        properties.extend(devices.into_iter().flat_map(properties::of_devices));
        if properties.is_empty() {
            return Ok(());
        }
        // For as long as the unit lives.
        let body = [Value::text(&self.name), Value::Bool(true), list(&properties)];
        manager.call("SetUnitProperties", &body).map(|_| ()).map_err(|failure| self.error("limit", failure))
    }

    /// Unmakes the unit. One that has gone by itself is no error.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut manager = Manager::connect()?;
        let stopped = manager.job("StopUnit", &[Value::text(&self.name), Value::text("replace")]);
        // A scope with a process that died of a signal is kept as failed.
        let _ = manager.call("ResetFailedUnit", &[Value::text(&self.name)]);
        match stopped {
            Err(Failure::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(()),
            other => other.map_err(|failure| self.error("stop", failure)),
        }
    }

    fn error(&self, verb: &str, failure: Failure) -> Error {
        match failure {
            Failure::Bus(error) => Error::System(format!("{verb} {} over the system bus", self.name), error),
            Failure::Refused { text, .. } => Error::State(format!("systemd: {verb} {}: {text}", self.name)),
        }
    }
}

/// systemd's manager of units.
struct Manager(Bus);

impl Manager {
    fn connect() -> Result<Self> {
        let failed = |failure| match failure {
            Failure::Bus(error) => Error::System(format!("--systemd-cgroup: no system bus at {SOCKET}"), error),
            Failure::Refused { text, .. } => Error::State(format!("--systemd-cgroup: the system bus says: {text}")),
        };
        let mut bus = Bus::connect(Path::new(SOCKET)).map_err(failed)?;
        bus.listen(&format!("type='signal',sender='{DESTINATION}',interface='{MANAGER}',member='JobRemoved'"))
            .map_err(failed)?;
        Ok(Self(bus))
    }

    fn call(&mut self, member: &str, body: &[Value]) -> std::result::Result<Vec<Value>, Failure> {
        self.0.call(Method { destination: DESTINATION, path: OBJECT, interface: MANAGER, member }, body)
    }

    /// The number that its version begins with.
    fn version(&mut self) -> std::result::Result<u32, Failure> {
        let interface = "org.freedesktop.DBus.Properties";
        let get = Method { destination: DESTINATION, path: OBJECT, interface, member: "Get" };
        let answer = self.0.call(get, &[Value::text(MANAGER), Value::text("Version")])?;
        let text = match answer.first() {
            Some(Value::Variant(text)) => text.as_str().unwrap_or_default(),
            _ => "",
        };
        let digits = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).next();
        Ok(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }

    fn start(&mut self, unit: &str, properties: &[Property]) -> std::result::Result<(), Failure> {
        let others = Value::Array("(sa(sv))".to_owned(), Vec::new());
        self.job("StartTransientUnit", &[Value::text(unit), Value::text("replace"), list(properties), others])
    }

    /// Calls what answers with a job, and waits for the job's end.
    fn job(&mut self, member: &str, body: &[Value]) -> std::result::Result<(), Failure> {
        let answer = self.call(member, body)?;
        let job = answer.first().and_then(Value::as_str).unwrap_or_default();
        // Number, job, unit, result.
        let result = self.0.signal("JobRemoved", |values| {
            let ours = values.get(1).and_then(Value::as_str) == Some(job);
            ours.then(|| values.get(3).and_then(Value::as_str).unwrap_or_default().to_owned())
        })?;
        match result.as_str() {
            "done" => Ok(()),
            other => Err(Failure::Refused { name: String::new(), text: format!("the job ended as {other:?}") }),
        }
    }
}

fn list(properties: &[Property]) -> Value {
    let property = |(name, value): &Property| Value::Struct(vec![Value::text(name), value.clone().variant()]);
    Value::Array("(sv)".to_owned(), properties.iter().map(property).collect())
}

/// `a-b.slice` lies in `a.slice`; `-.slice` is the root (systemd.slice(5)).
fn expand(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    if stem.contains('/') || stem.starts_with('.') || stem.split('-').any(str::is_empty) {
        return None;
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.filter_map(|end| stem.get(..end)).map(|name| format!("{name}.slice")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_units() {
        let path = |text: &str| Unit::named((!text.is_empty()).then(|| Path::new(text)), "id").map(|unit| unit.path());
        for (text, want) in [
            ("", "system.slice/trimtab-id.scope"),
            ("machine.slice:libpod:x", "machine.slice/libpod-x.scope"),
            (":p:x", "system.slice/p-x.scope"),
            ("a-b-c.slice::x", "a.slice/a-b.slice/a-b-c.slice/x.scope"),
            ("-.slice:p:x", "p-x.scope"),
            ("a.slice::a-b.slice", "a.slice/a-b.slice"),
        ] {
            assert_eq!(path(text).unwrap(), Path::new(want), "{text}");
        }
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c",
            "a.slice:b:c:d",
            "-a.slice:b:c",
            "a--b.slice::c",
            ".slice:b:c",
            "a/b.slice:c:d",
            "a.slice:..:/x",
            "a.slice::../x",
            "a.slice:b:c/d",
            "../a.slice:b:c",
        ] {
            let error = path(bad).unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains("slice:prefix:name"), "{bad}: {error}");
        }
    }
}
