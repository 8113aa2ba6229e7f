//! Files and mounts of a pod on the host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use node_plan::volumes::File;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::memory::private_dir;

/// Writes a file that containers may read, with its parents. In place: it may be bind-mounted already.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    private_dir(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// At most the first `most` bytes as text.
pub(super) fn read_limited(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A directory on a tmpfs of its own. Idempotent.
pub(super) fn memory_dir(path: &Path, size_bytes: Option<i64>, mode: u32) -> io::Result<()> {
    private_dir(path)?;
    if !is_mount(path)? {
        let size = size_bytes.map(|s| format!(",size={s}")).unwrap_or_default();
        let options = std::ffi::CString::new(format!("mode={mode:o}{size}"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, options.as_c_str())?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn is_mount(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Unmounts all that is mounted below a directory, deepest first, and removes it. Idempotent.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    for mount in mounts_below(path)? {
        let _ = rustix::mount::unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Mount points at or below a directory, deepest first.
fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut list: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    list.reverse();
    Ok(list)
}

/// The kernel writes blanks and backslashes of a path as octal.
pub(super) fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

/// Writes the files of a volume so that a reader sees all old or all new ones: into a fresh directory that the link
/// `..data` is then turned to (upstream's atomic writer). Returns whether anything changed.
pub(super) fn write_all(dir: &Path, files: &BTreeMap<String, File>, group: Option<u32>) -> io::Result<bool> {
    if let Some(bad) = files.keys().find(|path| !safe(path)) {
        return Err(io::Error::other(format!("invalid path: {bad}")));
    }
    let data = dir.join("..data");
    if same(&data, files) {
        return Ok(false);
    }
    let old = fs::read_link(&data).ok();
    let fresh = (0..).map(|n| format!("..{}_{n}", stamp())).find(|name| !dir.join(name).exists()).unwrap_or_default();
    let root = dir.join(&fresh);
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        write_one(&root, path, file, group)?;
    }
    let link = dir.join("..data_tmp");
    let _ = fs::remove_file(&link);
    symlink(&fresh, &link)?;
    fs::rename(&link, &data)?;
    links(dir, files)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

/// A time that sorts, for people who look.
fn stamp() -> String {
    api::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f").to_string()
}

/// Relative, without `..`.
fn safe(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != ".." && !part.is_empty())
}

fn same(data: &Path, files: &BTreeMap<String, File>) -> bool {
    let there = count(data).unwrap_or(0);
    data.exists()
        && there == files.len()
        && files.iter().all(|(path, file)| {
            let at = data.join(path);
            fs::read(&at).is_ok_and(|bytes| bytes == file.data)
        })
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(sum)
}

fn write_one(root: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let at = root.join(path);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&at, &file.data)?;
    // What belongs to a group is for the group to read.
    let mode = file.mode | if group.is_some() { 0o440 } else { 0 };
    fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
    if file.uid.is_some() || group.is_some() {
        chown(&at, file.uid, group)?;
    }
    Ok(())
}

/// The visible names are links through `..data`; those of files that are no longer there go.
fn links(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let names: std::collections::BTreeSet<&str> = files.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &names {
        let at = dir.join(name);
        if fs::symlink_metadata(&at).is_err() {
            symlink(Path::new("..data").join(name), &at)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
