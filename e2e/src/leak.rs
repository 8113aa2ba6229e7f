//! What one instance holds on a machine: mounts, cgroups, namespaces, links, tables, processes, files. Other instances
//! beside it are not looked at.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kinds of namespaces that a pod can have of its own, as `/proc/PID/ns` names them.
const KINDS: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "uts"];

/// One instance, watched from while it lives until after it is gone.
pub struct Instance {
    id: String,
    data: PathBuf,
    namespace: String,
    /// The namespaces its pods were ever seen in, such as `net:[4026532001]`.
    namespaces: BTreeSet<String>,
}

impl Instance {
    /// The instance of a data directory, whose links are in a network namespace (a name of `ip netns`).
    pub fn open(data: &Path, namespace: &str) -> std::io::Result<Self> {
        let id = fs::read_to_string(data.join("instance"))?.trim().to_owned();
        Ok(Self { id, data: data.to_owned(), namespace: namespace.to_owned(), namespaces: BTreeSet::new() })
    }

    /// Everything there is of it now, a line each.
    pub fn traces(&mut self) -> BTreeSet<String> {
        let processes: Vec<Process> = Process::all().collect();
        let ours: Vec<&Process> = processes.iter().filter(|p| self.owns(p)).collect();
        let hosts = namespaces_of(Path::new("/proc/self"));
        let seen = ours.iter().filter(|p| p.contained).flat_map(|p| namespaces_of(&p.dir)).chain(self.network_files());
        let seen: Vec<String> = seen.filter(|n| !hosts.contains(n) && !self.is_machine(n)).collect();
        self.namespaces.extend(seen);
        let mut found: BTreeSet<String> = ours.iter().map(|p| format!("process {} {}", p.pid, p.line)).collect();
        found.extend(processes.iter().flat_map(|p| self.held_by(p)));
        found.extend(processes.iter().flat_map(|p| self.mounts_of(p)));
        found.extend(self.cgroups().into_iter().map(|path| format!("cgroup {}", path.display())));
        found.extend(self.links());
        found.extend(self.tables());
        found.extend(self.files());
        found
    }

    /// Shims, containers, and whoever else works on its files. (Its agent is the caller's own process to end.)
    fn owns(&self, process: &Process) -> bool {
        process.contained_in(&format!("trimtab-{}", self.id))
            || process.line.contains(&*self.run_dir().to_string_lossy())
    }

    fn run_dir(&self) -> PathBuf {
        Path::new("/run/trimtab").join(&self.id)
    }

    /// The network namespaces that it keeps by a file.
    fn network_files(&self) -> Vec<String> {
        let inode = |entry: fs::DirEntry| Some(format!("net:[{}]", fs::metadata(entry.path()).ok()?.ino()));
        fs::read_dir(self.run_dir().join("netns")).into_iter().flatten().flatten().filter_map(inode).collect()
    }

    /// Whether it is the network namespace that stands for the whole machine.
    fn is_machine(&self, namespace: &str) -> bool {
        let inode = fs::metadata(Path::new("/run/netns").join(&self.namespace)).map(|m| m.ino());
        inode.is_ok_and(|inode| namespace == format!("net:[{inode}]"))
    }

    /// The instance's namespaces that a process lives in or holds by a descriptor.
    fn held_by(&self, process: &Process) -> Vec<String> {
        let descriptors = fs::read_dir(process.dir.join("fd")).into_iter().flatten().flatten();
        let open = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|to| to.display().to_string());
        let held = namespaces_of(&process.dir).into_iter().chain(open).filter(|n| self.namespaces.contains(n));
        held.map(|n| format!("namespace {n} held by {}", process.pid)).collect()
    }

    /// Mounts in a process's mount namespace: of its files, or of its namespaces.
    fn mounts_of(&self, process: &Process) -> Vec<String> {
        let text = fs::read_to_string(process.dir.join("mountinfo")).unwrap_or_default();
        let (data, run) = (self.data.display().to_string(), self.run_dir().display().to_string());
        let ours = |line: &&str| {
            line.contains(&data) || line.contains(&run) || self.namespaces.iter().any(|n| line.contains(n.as_str()))
        };
        let within = fs::read_link(process.dir.join("ns/mnt")).unwrap_or_default();
        let point = |line: &str| line.split(' ').nth(4).map(|at| format!("mount {at} in {}", within.display()));
        text.lines().filter(ours).filter_map(point).collect()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
        let roots = hierarchies.chain([root.to_owned()]).map(|dir| dir.join(format!("trimtab-{}", self.id)));
        roots.filter(|dir| dir.is_dir()).flat_map(|dir| below(&dir)).filter(|path| path.is_dir()).collect()
    }

    fn links(&self) -> Vec<String> {
        let prefix = format!("tt{}-", self.id);
        let text = output(Command::new("ip").args(["-n", &self.namespace, "-brief", "link"]));
        let names = text.lines().filter_map(|line| line.split(['@', ' ']).next());
        names.filter(|name| name.starts_with(&prefix)).map(|name| format!("link {name}")).collect()
    }

    fn tables(&self) -> Vec<String> {
        let net = format!("--net=/run/netns/{}", self.namespace);
        let text = output(Command::new("nsenter").args([&net, "nft", "list", "tables"]));
        text.lines().filter(|line| line.contains(&format!("trimtab-{}", self.id))).map(str::to_owned).collect()
    }

    /// Files that go with a pod, the pods' addresses, and the folders themselves.
    fn files(&self) -> Vec<String> {
        let folders = [self.run_dir(), self.data.join("pods"), self.data.join("log")];
        let mut found: Vec<String> =
            folders.iter().flat_map(|dir| below(dir)).map(|path| format!("file {}", path.display())).collect();
        let leases = fs::read_to_string(self.data.join("network/addresses.json")).unwrap_or_default();
        let leases: serde_json::Value = serde_json::from_str(&leases).unwrap_or_default();
        let leases = leases.get("leases").and_then(|l| l.as_object()).into_iter().flatten();
        found.extend(leases.map(|(pod, at)| format!("address {pod} {at}")));
        found.extend(self.data.exists().then(|| format!("file {}", self.data.display())));
        found
    }
}

/// A process of this machine.
struct Process {
    pid: u32,
    dir: PathBuf,
    /// Its command line.
    line: String,
    cgroups: String,
    /// Whether it is in a cgroup of any instance.
    contained: bool,
}

impl Process {
    fn all() -> impl Iterator<Item = Self> {
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| Self::read(&entry.path()))
    }

    /// None once it has ended.
    fn read(dir: &Path) -> Option<Self> {
        let pid = dir.file_name()?.to_str()?.parse().ok()?;
        let line = String::from_utf8_lossy(&fs::read(dir.join("cmdline")).ok()?).replace('\0', " ");
        let cgroups = fs::read_to_string(dir.join("cgroup")).ok()?;
        Some(Self { pid, dir: dir.to_owned(), line, contained: cgroups.contains("/trimtab-"), cgroups })
    }

    fn contained_in(&self, cgroup: &str) -> bool {
        self.cgroups.lines().any(|line| line.split('/').any(|part| part == cgroup))
    }
}

/// The namespaces a process lives in.
fn namespaces_of(process: &Path) -> Vec<String> {
    let link = |kind: &&str| Some(fs::read_link(process.join("ns").join(kind)).ok()?.display().to_string());
    KINDS.iter().filter_map(link).collect()
}

/// A folder and all below it, not following links nor entering what is mounted on another device.
fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(metadata) = fs::symlink_metadata(dir) else { return Vec::new() };
    let mut found = vec![dir.to_owned()];
    if metadata.is_dir() {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let same = entries.filter(|path| fs::symlink_metadata(path).is_ok_and(|m| m.dev() == metadata.dev()));
        found.extend(same.flat_map(|path| below(&path)));
    }
    found
}

fn output(command: &mut Command) -> String {
    command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
