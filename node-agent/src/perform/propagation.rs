//! Whether mounts can pass between the host and a container: the host's mount must be shared, or at least be a slave.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::unescape;

/// Checks the mount that `path` is on; `wish` is a volume mount's `mountPropagation`. The error says what containerd's
/// says.
pub(super) fn check(path: &Path, wish: Option<&str>) -> Result<(), String> {
    if !matches!(wish, Some("Bidirectional" | "HostToContainer")) {
        return Ok(());
    }
    let path = fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    judge(&table, &path, wish)
}

fn judge(table: &str, path: &Path, wish: Option<&str>) -> Result<(), String> {
    // The last of those that are longest is the one on top.
    let mount = table.lines().filter_map(parse).filter(|m| path.starts_with(&m.point));
    let Some(mount) = mount.max_by_key(|m| m.point.components().count()) else {
        return Err(format!("no mount holds {}", path.display()));
    };
    let (good, what) = match wish {
        Some("Bidirectional") => (mount.shared, "a shared mount"),
        _ => (mount.shared || mount.slave, "a shared or slave mount"),
    };
    let (path, point) = (path.display().to_string(), mount.point.display().to_string());
    if good { Ok(()) } else { Err(format!("path {path:?} is mounted on {point:?} but it is not {what}")) }
}

struct Mount {
    point: PathBuf,
    shared: bool,
    slave: bool,
}

/// A line of mountinfo (proc_pid_mountinfo(5)): its optional fields stand before a single hyphen.
fn parse(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(4);
    let point = unescape(fields.next()?);
    let tags: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
    let has = |tag: &str| tags.iter().any(|field| field.starts_with(tag));
    Some(Mount { point, shared: has("shared:"), slave: has("master:") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_that_propagate_can() {
        let table = "20 1 8:1 / / rw - ext4 /dev/vda rw\n21 20 0:5 / /a rw shared:1 - tmpfs x rw\n\
            22 21 0:6 / /a/b\\040c rw master:1 - tmpfs x rw\n23 20 0:7 / /s rw shared:2 - tmpfs x rw\n";
        let said = |path: &str, wish: &str| judge(table, Path::new(path), Some(wish)).err().unwrap_or_default();
        assert_eq!(said("/a/x", "Bidirectional"), "");
        assert_eq!(said("/a/x", "HostToContainer"), "");
        assert_eq!(said("/a/b c/x", "HostToContainer"), "");
        let wanted = "path \"/a/b c\" is mounted on \"/a/b c\" but it is not a shared mount";
        assert_eq!(said("/a/b c", "Bidirectional"), wanted);
        let wanted = "path \"/home\" is mounted on \"/\" but it is not a shared or slave mount";
        assert_eq!(said("/home", "HostToContainer"), wanted);
        assert_eq!(said("/sx", "Bidirectional"), "path \"/sx\" is mounted on \"/\" but it is not a shared mount");
    }
}
