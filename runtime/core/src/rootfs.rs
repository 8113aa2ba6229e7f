//! A container's file system. [`plan`] runs in the parent, in the host's mount namespace: it opens every source as a
//! detached mount. [`Plan::build`] runs in the child: it puts the mounts where they belong, through one descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use crate::cgroup::Named;
use crate::devices;
use crate::id_maps::{self, IdMaps};
use crate::labels;
use crate::mount_options::{self, Bind, Options, SourceLink};
use crate::pod::Rootfs;
use crate::resolve::{Root, is_device, is_dir};
use crate::sys::{self, MountAttributes};
use crate::{Error, Result, failed, proc, unpivoted};

/// How long the text of a file system's option may be (fsconfig(2)).
const MAX_OPTION_BYTES: usize = 255;

/// File systems that take no context: what the policy says of them goes for all, or (mqueue) they are older than the mount.
const OWN_LABELS: [&str; 3] = ["proc", "sysfs", "mqueue"];

/// How a root can hang together with the host while it is being built.
const EARLY: u64 = libc::MS_PRIVATE | libc::MS_SLAVE;

/// Everything the child needs to build its file system.
#[derive(Debug)]
pub(crate) struct Plan {
    root: OwnedFd,
    /// The directory that the root is attached to, in the child's mount namespace.
    attach_to: PathBuf,
    mounts: Vec<Planned>,
    devices: Vec<LinuxDevice>,
    /// Where these were made outside, for a container that may not make any.
    made: Option<OwnedFd>,
    /// /dev is ours to fill: no bind mount lies on it.
    fill_dev: bool,
    masked: Vec<PathBuf>,
    readonly: Vec<PathBuf>,
    readonly_root: bool,
    /// The mount namespace is the container's own. If not, what it mounts lies below its root on the host, or in the
    /// namespace that it joins.
    own_mounts: bool,
    /// The root before can be pivoted away.
    pivot: bool,
    /// It is in a user namespace: what protects the host's files from it stays.
    own_users: bool,
    propagation: Option<(u64, bool)>,
    cwd: PathBuf,
    /// SELinux's context of new file systems.
    label: Option<String>,
}

#[derive(Debug)]
struct Planned {
    destination: PathBuf,
    options: Options,
    source: Source,
}

impl Planned {
    /// A /dev that is to be read-only is so when it is full.
    fn is_late(&self) -> bool {
        let set = self.options.own.set | self.options.recursive.set;
        let dev = self.destination == Path::new("/dev") && matches!(self.source, Source::Filesystem { .. });
        dev && set & READ_ONLY.set != 0
    }
}

const READ_ONLY: MountAttributes = MountAttributes {
    set: MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64,
    clear: 0,
    propagation: 0,
    user_namespace: 0,
};

#[derive(Debug)]
enum Source {
    /// A detached copy of something on the host.
    Tree { mount: OwnedFd, is_dir: bool },
    /// Something in the container's own root, with what is mounted there by then: this path below it, all that is
    /// mounted below too, and who sees it with other ids.
    Inside { path: PathBuf, recursive: bool, users: Option<(bool, OwnedFd)> },
    /// A symbolic link that leads there.
    Link(PathBuf),
    /// A new file system of this type.
    Filesystem { kind: String, source: String },
    /// What is mounted there by then.
    Mounted,
    /// The container's cgroups: in a directory each, or one of no name for a pure v2 host. `None`: they come when they are
    /// made.
    Cgroups(Option<Vec<Named>>),
}

/// Waits for the container's cgroups, as detached mounts: once, then there are none.
pub(crate) type Cgroups<'a> = &'a mut dyn FnMut() -> Result<Vec<Named>>;

/// A user namespace that files are seen from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Users<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    /// The user and group outside that is root inside.
    pub(crate) root: u32,
}

/// What [`plan`] needs beside the spec.
pub(crate) struct Sources<'a> {
    /// Overlay layers, or `None` for what lies where the root is attached.
    pub(crate) rootfs: Option<&'a Rootfs>,
    /// Relative paths of the spec start here.
    pub(crate) bundle: &'a Path,
    /// A directory of the host for the root's mount point; without layers the spec's `root.path`.
    pub(crate) attach_to: &'a Path,
    /// The user namespace that layers and bind mounts are seen from: ids on disk are those inside. The file systems must
    /// know idmapped mounts (ext4, xfs, btrfs, tmpfs since Linux 6.3), overlayfs detached ones as layers (Linux 6.15).
    pub(crate) users: Option<Users<'a>>,
    /// The mount namespace is the container's own.
    pub(crate) own_mounts: bool,
    /// The root of the host is one that pivot_root(2) takes away.
    pub(crate) pivot: bool,
    /// The container's cgroups as detached mounts, where they are there already.
    pub(crate) cgroups: Option<Vec<Named>>,
}

impl Sources<'_> {
    /// A path of the host as one below the container's root, where it is a directory of the host.
    fn inside<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let below = path.strip_prefix(self.attach_to).ok().filter(|_| self.rootfs.is_none());
        below.filter(|below| !below.as_os_str().is_empty())
    }
}

/// Whether a container sees its cgroups.
pub(crate) fn shows_cgroups(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")))
}

/// Opens all sources; runs in the host's mount namespace.
pub(crate) fn plan(spec: &Spec, mut sources: Sources<'_>) -> Result<Plan> {
    let linux = spec.linux().as_ref();
    let root = spec.root().as_ref();
    let word = linux.and_then(|l| l.rootfs_propagation().as_deref()).filter(|w| !w.is_empty());
    let propagation = word.map(|word| {
        let bad = || Error::Invalid(format!("linux.rootfsPropagation: {word:?} is unknown"));
        mount_options::propagation(word).ok_or_else(bad)
    });
    let propagation = propagation.transpose()?;
    let label = labels::of_mounts(linux)?;
    let base = match sources.rootfs {
        Some(rootfs) => overlay_base(rootfs, sources.users, label.as_deref())?,
        None => {
            let what = || format!("root.path: open {}", sources.attach_to.display());
            let tree = clone_at(CWD, sources.attach_to, true, OpenTreeFlags::empty()).map_err(failed(what))?;
            // A shared root is so among the container's own: what is mounted in it must not come up on the host.
            let shared = propagation.is_some_and(|(flag, _)| flag == libc::MS_SHARED);
            propagate(tree.as_fd(), if shared { libc::MS_PRIVATE } else { libc::MS_SLAVE }, true)?;
            tree
        }
    };
    let mut cgroups = std::mem::take(&mut sources.cgroups);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mounts: Vec<Planned> =
        mounts.iter().map(|mount| plan_mount(mount, linux, &sources, &mut cgroups)).collect::<Result<_>>()?;
    let is_dev = |m: &Planned| m.destination == Path::new("/dev") && matches!(m.source, Source::Tree { .. });
    let fill_dev = !mounts.iter().any(is_dev);
    let listed = linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
    let has_users = listed.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let paths = |list: Option<&Vec<String>>| {
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in list.into_iter().flatten().map(PathBuf::from) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    };
    let devices = linux.and_then(|l| l.devices().clone()).unwrap_or_default();
    let users = linux.filter(|l| sources.own_mounts && sources.users.is_none() && l.uid_mappings().is_some());
    let made = users.map(|linux| devices::make_outside(&devices, linux)).transpose()?.flatten();
    Ok(Plan {
        root: base,
        attach_to: sources.attach_to.to_owned(),
        mounts,
        devices,
        made,
        fill_dev,
        masked: paths(linux.and_then(|l| l.masked_paths().as_ref())),
        readonly: paths(linux.and_then(|l| l.readonly_paths().as_ref())),
        readonly_root: root.and_then(|r| r.readonly()).unwrap_or(false),
        own_mounts: sources.own_mounts,
        pivot: sources.pivot,
        own_users: sources.users.is_some() || has_users,
        propagation,
        cwd: spec.process().as_ref().map(|p| p.cwd().clone()).unwrap_or_default(),
        label,
    })
}

/// Makes a directory the root of this process alone.
pub(crate) fn enter_below(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).map_err(failed(|| "enter the root".to_owned()))?;
    rustix::process::chroot(".").map_err(failed(|| "chroot".to_owned()))?;
    rustix::process::chdir("/").map_err(failed(|| "chdir /".to_owned()))
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
fn overlay_base(rootfs: &Rootfs, users: Option<Users<'_>>, label: Option<&str>) -> Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(failed(|| format!("open layer {}", path.display())))
    };
    let layer = |path: &PathBuf| match users {
        None => open(path),
        Some(users) => {
            let tree = clone_tree(path, false)?;
            map_ids(&tree, path, false, users.namespace)?;
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
    let mount = overlay(&lower, &make("upper")?, &make("work")?, label)?;
    propagate(mount.as_fd(), libc::MS_PRIVATE, false)?;
    Ok(mount)
}

fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    clone_at(CWD, path, recursive, OpenTreeFlags::empty())
        .map_err(failed(|| format!("open mount source {}", path.display())))
}

fn clone_at(dir: BorrowedFd<'_>, path: &Path, recursive: bool, more: OpenTreeFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
    open_tree(dir, path, if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
}

/// Shows a detached tree as it is to be seen from a user namespace.
fn map_ids(tree: &OwnedFd, path: &Path, recursive: bool, namespace: BorrowedFd<'_>) -> Result<()> {
    let user_namespace = u64::try_from(namespace.as_raw_fd()).unwrap_or_default();
    let set = MountAttrFlags::MOUNT_ATTR_IDMAP.bits().into();
    let attributes = MountAttributes { set, user_namespace, ..Default::default() };
    let what = || {
        let path = path.display();
        format!("map the ids of {path} (maybe its file system does not support idmapped mounts)")
    };
    sys::mount_setattr(tree.as_fd(), recursive, &attributes).map_err(|e| Error::System(what(), e))
}

fn plan_mount(
    mount: &Mount,
    linux: Option<&Linux>,
    sources: &Sources<'_>,
    cgroups: &mut Option<Vec<Named>>,
) -> Result<Planned> {
    // Some callers name a place by the host's path.
    let named = sources.inside(mount.destination()).unwrap_or(mount.destination());
    let destination = Path::new("/").join(named);
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let kind = mount.typ().as_deref().unwrap_or_default();
    let place = destination.display();
    let source_path = mount.source().clone().unwrap_or_default();
    let bound = options.bind.is_some() || kind == "bind";
    if let Some(option) = options.data.first().filter(|_| bound) {
        // The kernel would not say so.
        return Err(Error::Invalid(format!("mounts: {place}: option {option}: not for a bind mount")));
    }
    let source = match (options.bind, kind) {
        _ if options.remount => Source::Mounted,
        (None, "" | "none") => return Err(Error::Invalid(format!("mounts: {place}: neither a type nor bind"))),
        (None, "cgroup" | "cgroup2") => Source::Cgroups(cgroups.as_mut().map(std::mem::take)),
        (None, "bind") => bind_source(&source_path, Bind::Recursive, mount, &options, linux, sources)?,
        (None, kind) => {
            Source::Filesystem { kind: kind.to_owned(), source: source_path.to_string_lossy().into_owned() }
        }
        (Some(_), _) if source_path.as_os_str().is_empty() => {
            return Err(Error::Invalid(format!("mounts: {place}: bind without a source")));
        }
        (Some(bind), _) => bind_source(&source_path, bind, mount, &options, linux, sources)?,
    };
    Ok(Planned { destination, options, source })
}

fn bind_source(
    path: &Path,
    bind: Bind,
    mount: &Mount,
    options: &Options,
    linux: Option<&Linux>,
    sources: &Sources<'_>,
) -> Result<Source> {
    let path = &sources.bundle.join(path);
    let recursive = bind == Bind::Recursive;
    if let Some(inside) = sources.inside(path) {
        let users = mount_users(mount, options, linux)?;
        return Ok(Source::Inside { path: inside.to_owned(), recursive, users });
    }
    if options.source_link == Some(SourceLink::Copy)
        && let Ok(target) = std::fs::read_link(path)
    {
        return Ok(Source::Link(target));
    }
    let tree = match options.source_link {
        Some(SourceLink::Mount) => clone_at(CWD, path, recursive, OpenTreeFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed(|| format!("open mount source {}", path.display())))?,
        _ => clone_tree(path, recursive)?,
    };
    if let Some(users) = sources.users {
        map_ids(&tree, path, recursive, users.namespace)?;
    } else if let Some((below, namespace)) = mount_users(mount, options, linux)? {
        map_ids(&tree, path, below, namespace.as_fd())?;
    }
    let is_dir = is_dir(&tree).map_err(failed(|| format!("look at {}", path.display())))?;
    Ok(Source::Tree { mount: tree, is_dir })
}

/// Whether a mount's ids are mapped (all below it too, namespace that maps): as the mount says, or else as the container.
fn mount_users(mount: &Mount, options: &Options, linux: Option<&Linux>) -> Result<Option<(bool, OwnedFd)>> {
    let place = mount.destination().display();
    let said = [mount.uid_mappings(), mount.gid_mappings()].map(|maps| maps.as_deref().unwrap_or_default());
    let (below, how) = match &options.id_map {
        Some((below, how)) => (*below, how.as_deref()),
        None if said.iter().all(|maps| maps.is_empty()) => return Ok(None),
        None => (false, None),
    };
    let maps = if let Some(how) = how {
        id_map_text(how).ok_or_else(|| Error::Invalid(format!("mounts: {place}: idmap={how}: not understood")))?
    } else {
        let container =
            [linux.and_then(|l| l.uid_mappings().as_deref()), linux.and_then(|l| l.gid_mappings().as_deref())];
        let container = container.map(Option::unwrap_or_default);
        let [uid, gid] = if said.iter().all(|maps| maps.is_empty()) { container } else { said };
        IdMaps { uid: id_maps::text(uid), gid: id_maps::text(gid) }
    };
    let joined = linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default().iter();
    let mut joined = joined.filter(|n| n.typ() == LinuxNamespaceType::User).filter_map(|n| n.path().as_deref());
    if maps.uid.is_empty()
        && let Some(path) = joined.next()
    {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open(path, flags, Mode::empty());
        return Ok(Some((below, namespace.map_err(failed(|| format!("open {}", path.display())))?)));
    }
    if maps.uid.is_empty() || maps.gid.is_empty() {
        return Err(Error::Invalid(format!("mounts: {place}: idmap needs uidMappings and gidMappings")));
    }
    Ok(Some((below, id_maps::user_namespace(&maps)?)))
}

/// `uids=0-1000-10#20-2000-5;gids=...`: on disk, outside, how many.
pub(crate) fn id_map_text(text: &str) -> Option<IdMaps> {
    let mut maps = IdMaps { uid: String::new(), gid: String::new() };
    for part in text.split(';') {
        let (kind, list) = part.split_once('=')?;
        let map = match kind {
            "uids" => &mut maps.uid,
            "gids" => &mut maps.gid,
            _ => return None,
        };
        for entry in list.split('#') {
            let numbers: Vec<u32> = entry.split('-').map(crate::decimal).collect::<Option<_>>()?;
            let [inside, outside, size] = numbers.as_slice() else { return None };
            map.push_str(&format!("{inside} {outside} {size}\n"));
        }
    }
    Some(maps)
}

impl Plan {
    /// The mount that becomes the root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Builds everything below the root; runs in the child, in its own namespaces. `cgroups` waits for those to come.
    /// Returns the root and, with `terminal`, the master of a new terminal whose other side is /dev/console and the one
    /// returned.
    pub(crate) fn build(&self, terminal: bool, cgroups: Cgroups<'_>) -> Result<(Root, Option<(OwnedFd, OwnedFd)>)> {
        rustix::process::umask(Mode::empty());
        if self.own_mounts {
            let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", slave).map_err(failed(|| "make / a slave".to_owned()))?;
        }
        let nodes = self.nodes()?;
        let root = attach_at(&self.root, &self.attach_to)?;
        // What is mounted from here on says for itself how it hangs together with the host.
        if let Some((flag, recursive)) = self.propagation.filter(|(flag, _)| *flag & EARLY != 0) {
            propagate(root.as_fd(), flag, recursive)?;
        }
        for mount in &self.mounts {
            self.mount(&root, mount, cgroups)?;
        }
        if self.fill_dev {
            devices::fill(&root)?;
        }
        for (at, device) in self.devices.iter().enumerate() {
            match nodes.get(at) {
                Some(node) => put(node.as_fd(), &root.make_file(device.path())?, device.path())?,
                None => devices::add(&root, device)?,
            }
        }
        let console = if terminal { Some(devices::console(&root)?) } else { None };
        if self.mounts.iter().any(Planned::is_late) {
            let dev = root.open(Path::new("/dev"), OFlags::PATH).map_err(failed(|| "open /dev".to_owned()))?;
            sys::mount_setattr(dev.as_fd(), false, &READ_ONLY)
                .map_err(|e| Error::System("make /dev read-only".to_owned(), e))?;
        }
        root.make_dir(&self.cwd).ok();
        for path in &self.readonly {
            read_only(&root, path)?;
        }
        self.mask(&root)?;
        Ok((root, console))
    }

    /// The devices that were made outside, if they were. Before Linux 6.15 a part of a file system can only be shown again
    /// where it is mounted: for a moment that is where the root is going to be.
    fn nodes(&self) -> Result<Vec<OwnedFd>> {
        let Some(made) = &self.made else { return Ok(Vec::new()) };
        attach_at(made, &self.attach_to)?;
        let nodes = devices::made_outside(made, self.devices.len())?;
        rustix::mount::unmount(&self.attach_to, UnmountFlags::DETACH)
            .map_err(failed(|| format!("detach the devices at {}", self.attach_to.display())))?;
        Ok(nodes)
    }

    /// Makes the root ours and drops the host's file system.
    pub(crate) fn enter(&self, root: &Root) -> Result<()> {
        let what = || "pivot_root".to_owned();
        if self.readonly_root {
            // Hooks have written what they had to.
            sys::mount_setattr(root.as_fd(), false, &READ_ONLY)
                .map_err(|e| Error::System("make the root read-only".to_owned(), e))?;
        }
        if !self.own_mounts {
            // Nothing may be taken from whoever else lives there.
            return enter_below(root.as_fd());
        }
        if self.pivot {
            rustix::process::fchdir(root).map_err(failed(what))?;
            rustix::process::pivot_root(".", ".").map_err(failed(what))?;
            // The old root now lies on top of the new one at ".": slave, so that nothing goes back to the host.
            rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed(|| "detach the old root".to_owned()))?;
            rustix::process::chdir("/").map_err(failed(|| "chdir /".to_owned()))?;
        } else {
            unpivoted::enter(root.as_fd(), &proc::private()?)?;
        }
        // A shared root cannot be made the root, and of an unbindable one nothing can be shown again.
        if let Some((flag, recursive)) = self.propagation.filter(|(flag, _)| *flag & EARLY == 0) {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed(what))?;
            propagate(root.as_fd(), flag, recursive)?;
        }
        Ok(())
    }

    fn mount(&self, root: &Root, planned: &Planned, cgroups: Cgroups<'_>) -> Result<()> {
        let (place, label) = (&planned.destination, self.label.as_deref());
        match &planned.source {
            Source::Tree { mount, is_dir } => self.put_tree(root, mount, *is_dir, planned),
            Source::Inside { path, recursive, users } => {
                let what = || format!("open mount source {}", path.display());
                let source = root.open(path, OFlags::PATH).map_err(failed(what))?;
                let tree = clone_fd(source.as_fd(), *recursive).map_err(failed(what))?;
                if let Some((below, namespace)) = users {
                    map_ids(&tree, path, *below, namespace.as_fd())?;
                }
                self.put_tree(root, &tree, is_dir(&source).map_err(failed(what))?, planned)
            }
            Source::Link(target) => {
                let (dir, name) = root.parent(place)?;
                match rustix::fs::symlinkat(target, &dir, &name) {
                    Ok(()) => Ok(()),
                    Err(Errno::EXIST) if rustix::fs::readlinkat(&dir, &name, Vec::new()).is_ok() => Ok(()),
                    Err(e) => Err(failed(|| format!("make link {}", place.display()))(e)),
                }
            }
            Source::Filesystem { kind, .. } if planned.options.copy_up && place == Path::new("/") => {
                Err(Error::Invalid(format!("mounts: /: {kind}: there is nothing below / to copy up")))
            }
            Source::Filesystem { kind, source } => {
                let there = root.open(place, OFlags::PATH).is_ok();
                let target = target_for(root, kind, place)?;
                let mount = match new_filesystem(kind, source, planned, there.then_some(&target), label) {
                    // A user namespace that has no network namespace of its own has no /sys of its own either.
                    Err(Error::System(_, e)) if kind == "sysfs" && e.raw_os_error() == Some(libc::EPERM) => {
                        let host = clone_tree(Path::new("/sys"), true)?;
                        let own = planned.options.own;
                        bind(&host, &Options { recursive: own, ..Options::default() }, true, place)?;
                        host
                    }
                    other => other?,
                };
                put(mount.as_fd(), &target, place)?;
                if planned.options.copy_up { copy_up(&target, &mount, place) } else { Ok(()) }
            }
            Source::Mounted => change(root, planned, self.own_users),
            Source::Cgroups(Some(mounts)) => mount_cgroups(root, mounts, planned, label),
            Source::Cgroups(None) => mount_cgroups(root, &cgroups()?, planned, label),
        }
    }

    fn put_tree(&self, root: &Root, tree: &OwnedFd, is_dir: bool, planned: &Planned) -> Result<()> {
        let place = &planned.destination;
        let target = match is_dir {
            _ if planned.options.over_link => root.make_place(place)?,
            true => root.make_dir(place)?,
            false => root.make_file(place)?,
        };
        bind(tree, &planned.options, self.own_users, place)?;
        put(tree.as_fd(), &target, place)
    }

    fn mask(&self, root: &Root) -> Result<()> {
        if self.masked.is_empty() {
            return Ok(());
        }
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
                empty_dir(&mut empty, self.label.as_deref())?
            } else {
                clone_fd(null.as_fd(), false).map_err(failed(what))?
            };
            put(cover.as_fd(), &target, path)?;
        }
        Ok(())
    }
}

/// An empty read-only directory: one file system for all masks of a container. `shared` is the one that is mounted.
fn empty_dir(shared: &mut Option<OwnedFd>, label: Option<&str>) -> Result<OwnedFd> {
    let what = || "make an empty directory".to_owned();
    if let Some(shared) = shared {
        return clone_fd(shared.as_fd(), false).map_err(failed(what));
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(what))?;
    fsconfig_set_string(&context, "nr_inodes", "1").map_err(failed(what))?;
    fsconfig_set_string(&context, "mode", "755").map_err(failed(what))?;
    set_context(&context, label)?;
    fsconfig_create(&context).map_err(failed(what))?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed(what))?;
    *shared = Some(mount.try_clone().map_err(|e| Error::System(what(), e))?);
    Ok(mount)
}

fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    clone_at(fd, Path::new(""), recursive, OpenTreeFlags::AT_EMPTY_PATH)
}

fn read_only(root: &Root, path: &Path) -> Result<()> {
    let what = || format!("make {} read-only", path.display());
    let target = match root.open(path, OFlags::PATH) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(e) => return Err(failed(what)(e)),
    };
    let mount = clone_fd(target.as_fd(), true).map_err(failed(what))?;
    sys::mount_setattr(mount.as_fd(), true, &READ_ONLY).map_err(|e| Error::System(what(), e))?;
    put(mount.as_fd(), &target, path)
}

/// An overlay of directories given as descriptors. They are named through /proc, because an option's text is bounded
/// at 255 bytes.
/// The layers as one detached mount: one option a layer where the kernel knows that (Linux 6.8), or else all in one.
fn overlay(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd, label: Option<&str>) -> Result<OwnedFd> {
    let by_fd = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let each = lower.iter().map(|layer| ("lowerdir+", by_fd(layer))).collect::<Vec<_>>();
    // Older kernels take any option and refuse all of them in the end.
    let (up, down) = (by_fd(upper), by_fd(work));
    overlay_of(&each, up, down, label).or_else(|_| overlay_in_one_option(lower, upper, work, label))
}

/// A kernel takes 255 bytes in an option, so layers are named by the numbers of their descriptors, in the directory of
/// descriptors. We have one thread: nobody else sees the working directory change.
fn overlay_in_one_option(lower: &[OwnedFd], upper: &OwnedFd, work: &OwnedFd, label: Option<&str>) -> Result<OwnedFd> {
    let name = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let all = lower.iter().map(name).collect::<Vec<_>>().join(":");
    if all.len() > MAX_OPTION_BYTES {
        let layers = lower.len();
        return Err(Error::Invalid(format!("rootfs.lower: {layers} layers are more than this kernel mounts at once")));
    }
    let what = || "enter /proc/self/fd".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = rustix::fs::open(".", flags, Mode::empty()).map_err(failed(what))?;
    rustix::process::chdir("/proc/self/fd").map_err(failed(what))?;
    let made = overlay_of(&[("lowerdir", all)], name(upper), name(work), label);
    rustix::process::fchdir(&here).map_err(failed(what))?;
    made
}

fn overlay_of(lower: &[(&str, String)], upper: String, work: String, label: Option<&str>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(|| "mount the root overlay".into()))?;
    let what = || format!("mount the root overlay{}", explanation(&context));
    set_context(&context, label)?;
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

/// Gives a file system that is being made a context, in which all of its files are.
fn set_context(context: &OwnedFd, label: Option<&str>) -> Result<()> {
    let what = || format!("linux.mountLabel: label a file system{}", explanation(context));
    label.map_or(Ok(()), |label| fsconfig_set_string(context, "context", label)).map_err(failed(what))
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
    let what = || format!("root.path: attach to {}", place.display());
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

/// Changes what is mounted at a place: the mount, and unless it is a bind mount its file system, as far as options name
/// something of that. A file system is never made read-only as a whole: it may be somebody else's too.
fn change(root: &Root, planned: &Planned, locked: bool) -> Result<()> {
    let (place, options) = (&planned.destination, &planned.options);
    let what = || format!("mounts: {}: remount", place.display());
    let target = root.open(place, OFlags::PATH).map_err(failed(what))?;
    if options.bind.is_none() && !(options.superblock.is_empty() && options.data.is_empty()) {
        let context = fspick(&target, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH);
        let context = context.map_err(failed(what))?;
        set_options(&context, "", options, place)?;
        fsconfig_reconfigure(&context).map_err(failed(|| format!("{}{}", what(), explanation(&context))))?;
    }
    attribute(&target, options, locked, place)?;
    options.propagation.map_or(Ok(()), |(flag, recursive)| propagate(target.as_fd(), flag, recursive))
}

/// Gives a cloned tree its attributes and propagation, before anybody can see it. `locked`: what protects its source
/// stays.
fn bind(mount: &OwnedFd, options: &Options, locked: bool, place: &Path) -> Result<()> {
    attribute(mount, options, locked, place)?;
    // The clone is a peer of the host's mount: only `shared` may leave it so.
    let (flag, recursive) = options.propagation.unwrap_or((libc::MS_SLAVE, true));
    propagate(mount.as_fd(), flag, recursive)
}

fn attribute(mount: &OwnedFd, options: &Options, locked: bool, place: &Path) -> Result<()> {
    let what = || format!("set the options of {}", place.display());
    let set = |recursive, attributes: &MountAttributes| match attributes.set | attributes.clear {
        0 => Ok(()),
        _ => sys::mount_setattr(mount.as_fd(), recursive, attributes),
    };
    set(false, &options.of_bind(locked))
        .or_else(|e| match e.raw_os_error() {
            // Locked by the kernel: we are in a user namespace, and the source is of one above (user_namespaces(7)).
            Some(libc::EPERM) => set(false, &options.of_bind(true)),
            _ => Err(e),
        })
        .and_then(|()| set(true, &options.recursive))
        .map_err(|e| Error::System(what(), e))
}

/// The place for a new file system. /proc and /sys must be real directories of the image: through a link they would
/// land elsewhere and leave the masks without effect (CVE-2019-19921, CVE-2023-27561).
fn target_for(root: &Root, kind: &str, place: &Path) -> Result<OwnedFd> {
    if !matches!(kind, "proc" | "sysfs") {
        return root.make_dir(place);
    }
    let plain = || root.open_plain(place, OFlags::PATH | OFlags::DIRECTORY);
    let target = match plain() {
        Err(Errno::NOENT) => {
            root.make_dir(place)?;
            plain()
        }
        other => other,
    };
    target.map_err(failed(|| format!("mounts: {}: {kind} must be mounted on ordinary directory", place.display())))
}

/// A tmpfs has the mode of the directory that it is mounted over, if nobody says another: `target`.
fn new_filesystem(
    kind: &str,
    source: &str,
    planned: &Planned,
    target: Option<&OwnedFd>,
    label: Option<&str>,
) -> Result<OwnedFd> {
    let place = planned.destination.display();
    let context = open_filesystem(kind, planned)?;
    if !source.is_empty() {
        let _ = fsconfig_set_string(&context, "source", source);
    }
    set_context(&context, label.filter(|_| !OWN_LABELS.contains(&kind)))?;
    let _held = set_options(&context, kind, &planned.options, &planned.destination)?;
    let says_mode = planned.options.data.iter().any(|o| o.starts_with("mode="));
    if let Some(stat) = target.filter(|_| kind == "tmpfs" && !says_mode).and_then(|t| rustix::fs::fstat(t).ok()) {
        let _ = fsconfig_set_string(&context, "mode", format!("{:o}", stat.st_mode & 0o7777));
    }
    fsconfig_create(&context).map_err(failed(|| format!("mounts: {place}: mount {kind}{}", explanation(&context))))?;
    let late = if planned.is_late() { READ_ONLY.set } else { 0 };
    let set = (planned.options.own.set | planned.options.recursive.set) & !late;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(set).unwrap_or_default());
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed(|| format!("mounts: {place}: mount {kind}")))?;
    if let Some(label) = label.filter(|_| kind == "mqueue") {
        labels::label_root(&mount, label).map_err(failed(|| format!("mounts: {place}: label {kind}")))?;
    }
    if let Some((flag, recursive)) = planned.options.propagation {
        propagate(mount.as_fd(), flag, recursive)?;
    }
    Ok(mount)
}

fn open_filesystem(kind: &str, planned: &Planned) -> Result<OwnedFd> {
    let place = planned.destination.display();
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed(|| format!("mounts: {place}: type {kind}")))
}

/// Gives a file system its options; what comes back has to stay open until it is made.
fn set_options(context: &OwnedFd, kind: &str, options: &Options, place: &Path) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for option in options.superblock.iter().chain(&options.data) {
        let set = match option.split_once('=') {
            Some((key, value)) if kind == "overlay" && value.len() > MAX_OPTION_BYTES => {
                set_directories(context, key, value, &mut held)
            }
            Some((key, value)) => fsconfig_set_string(context, key, value),
            // devpts knows this word no more: every instance is new.
            None if option == "newinstance" => Ok(()),
            None => fsconfig_set_flag(context, option.as_str()),
        };
        set.map_err(failed(|| format!("mounts: {}: option {option}{}", place.display(), explanation(context))))?;
    }
    Ok(held)
}

/// Names directories of an overlay by descriptors, which are short, where the text is longer than an option may be. More
/// lower ones than fit then are an option each, which needs Linux 6.8. `held` keeps them open until the overlay is made.
fn set_directories(context: &OwnedFd, key: &str, value: &str, held: &mut Vec<OwnedFd>) -> rustix::io::Result<()> {
    let paths = if key == "lowerdir" { lower_directories(value) } else { vec![value.to_owned()] };
    let mut names = Vec::new();
    for path in paths {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        names.push(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        held.push(directory);
    }
    match names.join(":") {
        all if all.len() <= MAX_OPTION_BYTES => fsconfig_set_string(context, key, all),
        _ => names.iter().try_for_each(|name| fsconfig_set_string(context, "lowerdir+", name.as_str())),
    }
}

/// The paths between the colons of `lowerdir`; a backslash takes the meaning from what follows it.
fn lower_directories(value: &str) -> Vec<String> {
    let (mut paths, mut escaped) = (vec![String::new()], false);
    for c in value.chars() {
        match (c, paths.last_mut()) {
            (':', _) if !escaped => paths.push(String::new()),
            ('\\', _) if !escaped => {}
            (c, path) => path.into_iter().for_each(|path| path.push(c)),
        }
        escaped = c == '\\' && !escaped;
    }
    paths
}

/// Copies what the image has at a mount point into the tmpfs that covers it: files, directories and links.
fn copy_up(below: &OwnedFd, mount: &OwnedFd, place: &Path) -> Result<()> {
    let what = || format!("copy up {}", place.display());
    devices::copy_tree(below.as_fd(), mount.as_fd(), 0).map_err(|e| Error::System(what(), e))
}

fn mount_cgroups(root: &Root, mounts: &[Named], planned: &Planned, label: Option<&str>) -> Result<()> {
    let place = &planned.destination;
    let attributes = planned.options.own;
    let dress = |mount: &OwnedFd| {
        sys::mount_setattr(mount.as_fd(), false, &attributes)
            .map_err(|e| Error::System(format!("set the options of {}", place.display()), e))
    };
    if let [(name, mount)] = mounts
        && name.is_empty()
    {
        // They are all cgroups', whoever mounts them, and a container may not change them (cgroups(7)); but that there is no
        // such option, the kernel says.
        set_options(&open_filesystem("cgroup2", planned)?, "cgroup2", &planned.options, place)?;
        dress(mount)?;
        propagate(mount.as_fd(), libc::MS_PRIVATE, false)?;
        return put(mount.as_fd(), &root.make_dir(place)?, place);
    }
    let empty = Planned { destination: place.clone(), options: Options::default(), source: Source::Cgroups(None) };
    let target = root.make_dir(place)?;
    let tmpfs = new_filesystem("tmpfs", "tmpfs", &empty, Some(&target), label)?;
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
        for (name, make) in [("a", overlay as fn(&_, &_, &_, _) -> _), ("b", overlay_in_one_option)] {
            let [upper, work] = ["upper", "work"].map(|part| directory(&at(name).join(part)));
            let mount = make(lower.as_slice(), &upper, &work, None).unwrap();
            for (file, content) in [("file", "upper"), ("only", "deep")] {
                let mut text = String::new();
                let fd = openat(&mount, file, OFlags::RDONLY, Mode::empty()).unwrap();
                File::from(fd).read_to_string(&mut text).unwrap();
                assert_eq!(text, content);
            }
        }
    }

    #[test]
    fn lower_directories_stand_between_colons() {
        assert_eq!(super::lower_directories(r"/a:/b\:c:/d\\e"), ["/a", "/b:c", r"/d\e"]);
    }

    #[test]
    fn ids_of_a_mount_are_mapped_as_its_option_says() {
        let maps = super::id_map_text("uids=0-1000-10#20-2000-5;gids=0-7-1").unwrap();
        assert_eq!((maps.uid.as_str(), maps.gid.as_str()), ("0 1000 10\n20 2000 5\n", "0 7 1\n"));
        for bad in ["", "uids=1-2", "uids=a-b-c", "x=1-2-3", "uids=-1-2-3"] {
            assert!(super::id_map_text(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn more_layers_than_an_option_takes_are_refused_with_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<OwnedFd> = (0..150).map(|_| directory(dir.path())).collect();
        let refused = overlay_in_one_option(&lower, &directory(dir.path()), &directory(dir.path()), None).unwrap_err();
        assert!(refused.to_string().contains("150 layers"), "{refused}");
    }
}
