//! A container's file system. [`plan`] runs in the parent, in the host's mount namespace: it opens every source as a
//! detached mount. [`Plan::build`] runs in the child: it puts the mounts where they belong, through one descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, Mount, Spec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::devices;
use crate::mount_options::{self, Bind, Options};
use crate::pod::Rootfs;
use crate::resolve::{Root, is_device, is_dir};
use crate::sys::{self, MountAttributes};
use crate::{Error, Result, failed};

/// Everything the child needs to build its file system.
#[derive(Debug)]
pub(crate) struct Plan {
    root: OwnedFd,
    /// A directory of the host that the root is attached to, in the child's own mount namespace only.
    attach_to: PathBuf,
    mounts: Vec<Planned>,
    devices: Vec<LinuxDevice>,
    /// /dev is ours to fill: no bind mount lies on it.
    fill_dev: bool,
    masked: Vec<PathBuf>,
    readonly: Vec<PathBuf>,
    readonly_root: bool,
    propagation: Option<(u64, bool)>,
    cwd: PathBuf,
}

#[derive(Debug)]
struct Planned {
    destination: PathBuf,
    options: Options,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// A detached copy of something on the host.
    Tree { mount: OwnedFd, is_dir: bool },
    /// A new file system of this type.
    Filesystem { kind: String, source: String },
    /// The container's cgroups: (directory name, detached mount), or one mount for a pure v2 host.
    Cgroups(Vec<(String, OwnedFd)>),
}

/// A user namespace that files are seen from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Users<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    /// The user and group outside that is root inside.
    pub(crate) root: u32,
}

/// What [`plan`] needs beside the spec.
pub(crate) struct Sources<'a> {
    /// Overlay layers, or `None` for the spec's `root.path`.
    pub(crate) rootfs: Option<&'a Rootfs>,
    /// Relative paths of the spec start here.
    pub(crate) bundle: &'a Path,
    /// A directory of the host for the root's mount point.
    pub(crate) attach_to: &'a Path,
    /// The user namespace that layers and bind mounts are seen from: ids on disk are those inside. The file systems must
    /// know idmapped mounts (ext4, xfs, btrfs, tmpfs since Linux 6.3), overlayfs detached ones as layers (Linux 6.15).
    pub(crate) users: Option<Users<'a>>,
    /// The container's cgroup directories by hierarchy name.
    pub(crate) cgroups: Vec<(String, OwnedFd)>,
}

/// Opens all sources; runs in the host's mount namespace.
pub(crate) fn plan(spec: &Spec, mut sources: Sources<'_>) -> Result<Plan> {
    let linux = spec.linux().as_ref();
    let root = spec.root().as_ref();
    let (base, attach_to) = match sources.rootfs {
        Some(rootfs) => (overlay_base(rootfs, sources.users)?, sources.attach_to.to_owned()),
        None => {
            let path = root.map(|r| r.path().clone()).ok_or_else(|| Error::Invalid("root: missing".to_owned()))?;
            let path = sources.bundle.join(path);
            let tree = clone_tree(&path, true)?;
            propagate(tree.as_fd(), libc::MS_SLAVE, true)?;
            (tree, path)
        }
    };
    let mut cgroups = Some(std::mem::take(&mut sources.cgroups));
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mounts: Vec<Planned> =
        mounts.iter().map(|mount| plan_mount(mount, &sources, &mut cgroups)).collect::<Result<_>>()?;
    let is_dev = |m: &Planned| m.destination == Path::new("/dev") && matches!(m.source, Source::Tree { .. });
    let fill_dev = !mounts.iter().any(is_dev);
    let paths = |list: Option<&Vec<String>>| list.map(|l| l.iter().map(PathBuf::from).collect()).unwrap_or_default();
    let word = linux.and_then(|l| l.rootfs_propagation().as_deref()).filter(|w| !w.is_empty());
    let propagation = word.map(|word| {
        let bad = || Error::Invalid(format!("linux.rootfsPropagation: {word:?} is unknown"));
        mount_options::propagation(word).ok_or_else(bad)
    });
    Ok(Plan {
        root: base,
        attach_to,
        mounts,
        devices: linux.and_then(|l| l.devices().clone()).unwrap_or_default(),
        fill_dev,
        masked: paths(linux.and_then(|l| l.masked_paths().as_ref())),
        readonly: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
        readonly_root: root.and_then(|r| r.readonly()).unwrap_or(false),
        propagation: propagation.transpose()?,
        cwd: spec.process().as_ref().map(|p| p.cwd().clone()).unwrap_or_default(),
    })
}

/// The host's /dev/null, verified (CVE-2025-31133), of the child's own mount namespace: only there it can be cloned.
fn host_null() -> Result<OwnedFd> {
    let what = || "open /dev/null".to_owned();
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let null = null.map_err(failed(what))?;
    match is_device(&null, 1, 3) {
        Ok(true) => Ok(null),
        _ => Err(Error::Invalid("/dev/null is not the null device".to_owned())),
    }
}

/// The overlay as a detached mount. It is made here and not in the child, because overlayfs takes directories of the
/// caller's own mount namespace only.
fn overlay_base(rootfs: &Rootfs, users: Option<Users<'_>>) -> Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(failed(|| format!("open layer {}", path.display())))
    };
    let layer = |path: &PathBuf| match users {
        None => open(path),
        Some(users) => {
            let tree = clone_tree(path, false)?;
            map_ids(&tree, path, false, users)?;
            Ok(tree)
        }
    };
    // What is written belongs to ids outside: the layer is this container's alone.
    let make = |name: &str| {
        let path = rootfs.scratch.join(name);
        let owner = users.map(|users| users.root);
        std::fs::create_dir_all(&path)
            .and_then(|()| if owner.is_some() { std::os::unix::fs::chown(&path, owner, owner) } else { Ok(()) })
            .map_err(|e| Error::System(format!("make {}", path.display()), e))?;
        open(&path)
    };
    if rootfs.lower.is_empty() {
        return Err(Error::Invalid("rootfs.lower: empty".to_owned()));
    }
    // What a volatile overlay leaves behind keeps the next one from mounting; there is nothing else in it to keep.
    let stale = rootfs.scratch.join("work");
    match std::fs::remove_dir_all(&stale) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::System(format!("clear {}", stale.display()), e));
        }
        _ => {}
    }
    let lower = rootfs.lower.iter().map(layer).collect::<Result<Vec<_>>>()?;
    let mount = overlay(&lower, &make("upper")?, &make("work")?)?;
    propagate(mount.as_fd(), libc::MS_PRIVATE, false)?;
    Ok(mount)
}

fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    open_tree(CWD, path, flags).map_err(failed(|| format!("open mount source {}", path.display())))
}

/// Shows a detached tree as it is to be seen from a user namespace.
fn map_ids(tree: &OwnedFd, path: &Path, recursive: bool, users: Users<'_>) -> Result<()> {
    let user_namespace = u64::try_from(users.namespace.as_raw_fd()).unwrap_or_default();
    let set = MountAttrFlags::MOUNT_ATTR_IDMAP.bits().into();
    let attributes = MountAttributes { set, user_namespace, ..Default::default() };
    let what = || {
        let path = path.display();
        format!("map the ids of {path} (maybe its file system does not support idmapped mounts)")
    };
    sys::mount_setattr(tree.as_fd(), recursive, &attributes).map_err(|e| Error::System(what(), e))
}

fn plan_mount(mount: &Mount, sources: &Sources<'_>, cgroups: &mut Option<Vec<(String, OwnedFd)>>) -> Result<Planned> {
    let bundle = sources.bundle;
    let destination = Path::new("/").join(mount.destination());
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default(), &destination)?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    let place = destination.display();
    let source_path = mount.source().clone().unwrap_or_default();
    let source = match (options.bind, kind) {
        (None, "" | "none") => return Err(Error::Invalid(format!("mounts: {place}: neither a type nor bind"))),
        (None, "cgroup" | "cgroup2") => Source::Cgroups(cgroups.take().unwrap_or_default()),
        (None, "bind") => bind_source(&bundle.join(source_path), Bind::Recursive, sources.users)?,
        (None, kind) => {
            Source::Filesystem { kind: kind.to_owned(), source: source_path.to_string_lossy().into_owned() }
        }
        (Some(_), _) if source_path.as_os_str().is_empty() => {
            return Err(Error::Invalid(format!("mounts: {place}: bind without a source")));
        }
        (Some(bind), _) => bind_source(&bundle.join(source_path), bind, sources.users)?,
    };
    Ok(Planned { destination, options, source })
}

fn bind_source(path: &Path, bind: Bind, users: Option<Users<'_>>) -> Result<Source> {
    let recursive = bind == Bind::Recursive;
    let mount = clone_tree(path, recursive)?;
    if let Some(users) = users {
        map_ids(&mount, path, recursive, users)?;
    }
    let is_dir = is_dir(&mount).map_err(failed(|| format!("look at {}", path.display())))?;
    Ok(Source::Tree { mount, is_dir })
}

impl Plan {
    /// Builds everything below the root; runs in the child, in its own namespaces. Returns the root and, with
    /// `terminal`, the master of a new terminal whose other side is /dev/console and the one returned.
    pub(crate) fn build(&self, terminal: bool) -> Result<(Root, Option<(OwnedFd, OwnedFd)>)> {
        rustix::process::umask(Mode::empty());
        let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).map_err(failed(|| "make / a slave".to_owned()))?;
        let root = attach_at(&self.root, &self.attach_to)?;
        for mount in &self.mounts {
            self.mount(&root, mount)?;
        }
        if self.fill_dev {
            devices::fill(&root)?;
        }
        for device in &self.devices {
            devices::add(&root, device)?;
        }
        let console = if terminal { Some(devices::console(&root)?) } else { None };
        root.make_dir(&self.cwd).ok();
        for path in &self.readonly {
            read_only(&root, path)?;
        }
        self.mask(&root)?;
        if self.readonly_root {
            let attributes =
                MountAttributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..Default::default() };
            sys::mount_setattr(root.as_fd(), false, &attributes)
                .map_err(|e| Error::System("make the root read-only".to_owned(), e))?;
        }
        Ok((root, console))
    }

    /// Makes the root ours and drops the host's file system.
    pub(crate) fn enter(&self, root: &Root) -> Result<()> {
        let what = || "pivot_root".to_owned();
        rustix::process::fchdir(root).map_err(failed(what))?;
        rustix::process::pivot_root(".", ".").map_err(failed(what))?;
        // The old root now lies on top of the new one at ".": slave, so that nothing goes back to the host.
        rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(|| "detach the old root".to_owned()))?;
        rustix::process::chdir("/").map_err(failed(|| "chdir /".to_owned()))?;
        if let Some((flag, recursive)) = self.propagation {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
            propagate(root.as_fd(), flag, recursive)?;
        }
        Ok(())
    }

    fn mount(&self, root: &Root, planned: &Planned) -> Result<()> {
        let place = &planned.destination;
        match &planned.source {
            Source::Tree { mount, is_dir } => {
                let target = if *is_dir { root.make_dir(place)? } else { root.make_file(place)? };
                bind(mount, planned)?;
                put(mount.as_fd(), &target, place)
            }
            Source::Filesystem { kind, source } => {
                let target = target_for(root, kind, place)?;
                let mount = new_filesystem(kind, source, planned, &target)?;
                put(mount.as_fd(), &target, place)?;
                if planned.options.copy_up { copy_up(&target, &mount, place) } else { Ok(()) }
            }
            Source::Cgroups(mounts) => mount_cgroups(root, mounts, planned),
        }
    }

    fn mask(&self, root: &Root) -> Result<()> {
        let null = host_null()?;
        let mut empty: Option<OwnedFd> = None;
        for path in &self.masked {
            let what = || format!("mask {}", path.display());
            let target = match root.open(path, OFlags::PATH) {
                Ok(target) => target,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(e) => return Err(failed(what)(e)),
            };
            let cover = if is_dir(&target).map_err(failed(what))? {
                empty_dir(&mut empty)?
            } else {
                clone_fd(null.as_fd(), false).map_err(failed(what))?
            };
            put(cover.as_fd(), &target, path)?;
        }
        Ok(())
    }
}

/// An empty read-only directory: one file system for all masks of a container.
fn empty_dir(shared: &mut Option<OwnedFd>) -> Result<OwnedFd> {
    let what = || "make an empty directory".to_owned();
    if let Some(copy) = shared.as_ref().and_then(|shared| clone_fd(shared.as_fd(), false).ok()) {
        return Ok(copy);
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(what))?;
    fsconfig_set_string(&context, "nr_inodes", "1").map_err(failed(what))?;
    fsconfig_set_string(&context, "mode", "755").map_err(failed(what))?;
    fsconfig_create(&context).map_err(failed(what))?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed(what))?;
    // Cloning a detached mount needs Linux 6.15; before, each mask gets a file system of its own.
    *shared = clone_fd(mount.as_fd(), false).ok();
    Ok(mount)
}

fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, "", if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
}

fn read_only(root: &Root, path: &Path) -> Result<()> {
    let what = || format!("make {} read-only", path.display());
    let target = match root.open(path, OFlags::PATH) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(failed(what)(e)),
    };
    let mount = clone_fd(target.as_fd(), true).map_err(failed(what))?;
    let attributes = MountAttributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), ..Default::default() };
    sys::mount_setattr(mount.as_fd(), true, &attributes).map_err(|e| Error::System(what(), e))?;
    put(mount.as_fd(), &target, path)
}

/// An overlay of directories given as descriptors. They are named through /proc, because an option's text is bounded
/// at 255 bytes.
/// The layers as one detached mount: one option a layer where the kernel knows that (Linux 6.8), or else all in one.
fn overlay(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd> {
    let by_fd = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let each = lower.iter().map(|layer| ("lowerdir+", by_fd(layer))).collect::<Vec<_>>();
    // Older kernels take any option and refuse all of them in the end.
    overlay_of(&each, by_fd(upper), by_fd(work)).or_else(|_| overlay_in_one_option(lower, upper, work))
}

/// A kernel takes 255 bytes in an option, so layers are named by the numbers of their descriptors, in the directory of
/// descriptors. We have one thread: nobody else sees the working directory change.
fn overlay_in_one_option(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd) -> Result<OwnedFd> {
    const MOST: usize = 255;
    let name = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let all = lower.iter().map(name).collect::<Vec<_>>().join(":");
    if all.len() > MOST {
        let layers = lower.len();
        return Err(Error::Invalid(format!("rootfs.lower: {layers} layers are more than this kernel mounts at once")));
    }
    let what = || "enter /proc/self/fd".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = rustix::fs::open(".", flags, Mode::empty()).map_err(failed(what))?;
    rustix::process::chdir("/proc/self/fd").map_err(failed(what))?;
    let made = overlay_of(&[("lowerdir", all)], name(upper), name(work));
    rustix::process::fchdir(&here).map_err(failed(what))?;
    made
}

fn overlay_of(lower: &[(&str, String)], upper: String, work: String) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(|| "mount the root overlay".into()))?;
    let what = || format!("mount the root overlay{}", explanation(&context));
    for (option, value) in lower {
        fsconfig_set_string(&context, *option, value.as_str()).map_err(failed(what))?;
    }
    fsconfig_set_string(&context, "upperdir", upper).map_err(failed(what))?;
    fsconfig_set_string(&context, "workdir", work).map_err(failed(what))?;
    // Nothing of a container's scratch space has to survive the machine.
    let _ = fsconfig_set_flag(&context, "volatile");
    fsconfig_create(&context).map_err(failed(what))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed(what))
}

/// What the kernel says about a file system it would not make: messages wait to be read from the context.
fn explanation(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut line = [0; 256];
    while let Ok(n @ 1..) = rustix::io::read(context, &mut line) {
        text.push_str(": ");
        text.push_str(String::from_utf8_lossy(line.get(..n).unwrap_or_default()).trim());
    }
    text
}

fn attach_at(mount: &OwnedFd, place: &Path) -> Result<Root> {
    let what = || format!("attach the root at {}", place.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(place, flags, Mode::empty()).map_err(failed(what))?;
    put(mount.as_fd(), &target, place)?;
    Ok(Root::new(mount.try_clone().map_err(|e| Error::System(what(), e))?))
}

fn put(mount: BorrowedFd<'_>, target: &OwnedFd, place: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(failed(|| format!("mount at {}", place.display())))
}

fn propagate(mount: BorrowedFd<'_>, flag: u64, recursive: bool) -> Result<()> {
    let attributes = MountAttributes { propagation: flag, ..Default::default() };
    sys::mount_setattr(mount, recursive, &attributes).map_err(|e| Error::System("set the propagation".to_owned(), e))
}

/// Gives a cloned tree its attributes and propagation, before anybody can see it.
fn bind(mount: &OwnedFd, planned: &Planned) -> Result<()> {
    let options = &planned.options;
    let what = || format!("set the options of {}", planned.destination.display());
    for (recursive, attributes) in [(false, &options.own), (true, &options.recursive)] {
        if attributes.set | attributes.clear != 0 {
            sys::mount_setattr(mount.as_fd(), recursive, attributes).map_err(|e| Error::System(what(), e))?;
        }
    }
    // The clone is a peer of the host's mount: only `shared` may leave it so.
    let (flag, recursive) = options.propagation.unwrap_or((libc::MS_SLAVE, true));
    propagate(mount.as_fd(), flag, recursive)
}

/// The place for a new file system. /proc and /sys must be real directories of the image: through a link they would
/// land elsewhere and leave the masks without effect (CVE-2019-19921, CVE-2023-27561).
fn target_for(root: &Root, kind: &str, place: &Path) -> Result<OwnedFd> {
    let target = root.make_dir(place)?;
    if matches!(kind, "proc" | "sysfs") {
        let what = || format!("{} is not a plain directory", place.display());
        return root.open_plain(place, OFlags::PATH | OFlags::DIRECTORY).map_err(failed(what));
    }
    Ok(target)
}

fn new_filesystem(kind: &str, source: &str, planned: &Planned, target: &OwnedFd) -> Result<OwnedFd> {
    let place = planned.destination.display();
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(|| format!("mounts: {place}: type {kind}")))?;
    if !source.is_empty() {
        let _ = fsconfig_set_string(&context, "source", source);
    }
    for option in &planned.options.data {
        let set = match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value),
            // devpts knows this word no more: every instance is new.
            None if option == "newinstance" => Ok(()),
            None => fsconfig_set_flag(&context, option.as_str()),
        };
        set.map_err(failed(|| format!("mounts: {place}: option {option}{}", explanation(&context))))?;
    }
    if kind == "tmpfs" && !planned.options.data.iter().any(|o| o.starts_with("mode=")) {
        let mode = rustix::fs::fstat(target).map_or(0o1777, |stat| stat.st_mode & 0o7777);
        let _ = fsconfig_set_string(&context, "mode", format!("{mode:o}"));
    }
    fsconfig_create(&context).map_err(failed(|| format!("mounts: {place}: mount {kind}{}", explanation(&context))))?;
    let set = planned.options.own.set | planned.options.recursive.set;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(set).unwrap_or_default());
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed(|| format!("mounts: {place}: mount {kind}")))?;
    if let Some((flag, recursive)) = planned.options.propagation {
        propagate(mount.as_fd(), flag, recursive)?;
    }
    Ok(mount)
}

/// Copies what the image has at a mount point into the tmpfs that covers it: files, directories and links.
fn copy_up(below: &OwnedFd, mount: &OwnedFd, place: &Path) -> Result<()> {
    let what = || format!("copy up {}", place.display());
    devices::copy_tree(below.as_fd(), mount.as_fd(), 0).map_err(|e| Error::System(what(), e))
}

fn mount_cgroups(root: &Root, mounts: &[(String, OwnedFd)], planned: &Planned) -> Result<()> {
    let place = &planned.destination;
    let attributes = planned.options.own;
    let dress = |mount: &OwnedFd| {
        sys::mount_setattr(mount.as_fd(), false, &attributes)
            .map_err(|e| Error::System(format!("set the options of {}", place.display()), e))
    };
    if let [(name, mount)] = mounts
        && name.is_empty()
    {
        dress(mount)?;
        propagate(mount.as_fd(), libc::MS_PRIVATE, false)?;
        return put(mount.as_fd(), &root.make_dir(place)?, place);
    }
    let empty =
        Planned { destination: place.clone(), options: Options::default(), source: Source::Cgroups(Vec::new()) };
    let target = root.make_dir(place)?;
    let tmpfs = new_filesystem("tmpfs", "tmpfs", &empty, &target)?;
    put(tmpfs.as_fd(), &target, place)?;
    for (name, mount) in mounts {
        let sub = place.join(name);
        dress(mount)?;
        propagate(mount.as_fd(), libc::MS_PRIVATE, false)?;
        put(mount.as_fd(), &root.make_dir(&sub)?, &sub)?;
    }
    dress(&tmpfs)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::{Mode, OFlags, openat};

    use super::{overlay, overlay_in_one_option};

    fn directory(path: &Path) -> OwnedFd {
        std::fs::create_dir_all(path).unwrap();
        File::open(path).unwrap().into()
    }

    #[test]
    fn layers_mount_one_by_one_and_all_in_one_option() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let lower: Vec<OwnedFd> = (0..20).map(|n| directory(&at(&format!("layer{n}")))).collect();
        std::fs::write(at("layer0/file"), "upper").unwrap();
        std::fs::write(at("layer19/file"), "lower").unwrap();
        std::fs::write(at("layer19/only"), "deep").unwrap();
        for (name, make) in [("a", overlay as fn(&_, &_, &_) -> _), ("b", overlay_in_one_option)] {
            let [upper, work] = ["upper", "work"].map(|part| directory(&at(name).join(part)));
            let mount = make(lower.as_slice(), &upper, &work).unwrap();
            for (file, content) in [("file", "upper"), ("only", "deep")] {
                let mut text = String::new();
                let fd = openat(&mount, file, OFlags::RDONLY, Mode::empty()).unwrap();
                File::from(fd).read_to_string(&mut text).unwrap();
                assert_eq!(text, content);
            }
        }
    }

    #[test]
    fn more_layers_than_an_option_takes_are_refused_with_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<OwnedFd> = (0..150).map(|_| directory(dir.path())).collect();
        let refused = overlay_in_one_option(&lower, &directory(dir.path()), &directory(dir.path())).unwrap_err();
        assert!(refused.to_string().contains("150 layers"), "{refused}");
    }
}
