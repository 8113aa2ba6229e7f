//! What a machine holds that an instance could leave behind: mounts, cgroups, network namespaces, links, tables,
//! processes. Taken before and after, the two must be equal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything with one of our names, a line each.
pub fn traces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = |line: &&str| line.contains("trimtab") || line.contains("tt-e2e-");
    found.extend(mounts.lines().filter(ours).filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount {at}")));
    cgroups(Path::new("/sys/fs/cgroup"), 3, &mut found);
    found.extend(processes());
    found.extend(namespaces());
    found
}

fn cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() || depth == 0 {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("trimtab-") {
            found.insert(format!("cgroup {}", path.display()));
        } else {
            cgroups(&path, depth - 1, found);
        }
    }
}

/// Our processes, and those of containers (whose root is an overlay of ours).
fn processes() -> Vec<String> {
    let of = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_string_lossy().parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&line).replace('\0', " ");
        (text.contains("trimtab ") && !text.contains("cargo")).then(|| format!("process {pid} {text}"))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of).collect()
}

/// Network namespaces that somebody holds, by a file or by a descriptor.
fn namespaces() -> Vec<String> {
    let output = Command::new("lsns").args(["-t", "net", "-n", "-o", "NS"]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().map(|line| format!("network namespace {}", line.trim())).collect()
}
