//! Containers in mount namespaces that others live in, and roots that cannot be pivoted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::json;

use crate::oci::Bundle;
use crate::support::busybox;

/// A process in a mount namespace of its own, which ends with us.
struct Helper {
    process: Child,
    _stdin: ChildStdin,
}

impl Helper {
    /// `before` runs in its namespace, which hears nothing of ours and tells us nothing.
    fn new(before: &str) -> Self {
        let line = format!("{before}\necho ready && exec cat");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-e", "-c", &line]);
        let mut process = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let stdin = process.stdin.take().unwrap();
        Self { process, _stdin: stdin }
    }

    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/mnt", self.process.id()).into()
    }

    /// What is mounted in it at a place or below.
    fn mounts_at(&self, place: &Path) -> Vec<String> {
        mounts_at(&format!("/proc/{}/mountinfo", self.process.id()), place)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mounts_at(table: &str, place: &Path) -> Vec<String> {
    let table = fs::read_to_string(table).unwrap();
    let at = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(place));
    table.lines().filter(at).map(str::to_owned).collect()
}

fn here(place: &Path) -> Vec<String> {
    mounts_at("/proc/self/mountinfo", place)
}

/// Runs in the background with the streams closed.
fn detach(bundle: &Bundle, flags: &[&str]) {
    let words = [&["run", "-d"], flags, &["-b", bundle.bundle(), &bundle.id]].concat();
    let run = bundle.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(run.success(), "{}", bundle.bad(&words));
}

fn pid_of(bundle: &Bundle) -> String {
    let state: serde_json::Value = serde_json::from_str(&bundle.good(&["state", &bundle.id])).unwrap();
    state["pid"].to_string()
}

/// A bundle whose container lives in a mount namespace.
fn joining(id: &str, script: &str, namespace: &Path, masks: bool) -> Bundle {
    Bundle::new(id, script, |s| {
        s["linux"]["namespaces"][1] = json!({"type": "mount", "path": namespace});
        s["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/bound", "source": "data", "options": ["bind"]}));
        if !masks {
            s["linux"]["maskedPaths"] = json!([]);
        }
    })
}

#[test]
fn a_mount_namespace_is_joined_by_its_path() {
    let Some(_) = busybox() else { return };
    let helper = Helper::new("mount -t tmpfs helper /mnt && echo > /mnt/helper");
    let bundle = joining("joinmnt", "sleep 1000", &helper.namespace(), true);
    let data = bundle.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "of the host").unwrap();
    // What the caller has mounted there is the root, and none of the container's to take away.
    let rootfs = bundle.dir.path().join("rootfs");
    let _mount = Mounted::bind(&rootfs);
    // Other tests' mounts come and go.
    let all = bundle.dir.path();
    let host = here(all);
    assert_eq!((here(&rootfs).len(), helper.mounts_at(all)), (1, vec![]));
    detach(&bundle, &[]);
    let pid = pid_of(&bundle);
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(namespace(&pid), namespace(&helper.process.id().to_string()));
    assert_ne!(namespace(&pid), namespace("self"));
    // Its root, file system and all; and for who joins it, too.
    let script = "readlink /proc/self/ns/mnt; ls /; cat /bound/file; readlink /proc/1/root; cat /proc/keys";
    fs::write(rootfs.join("script"), script).unwrap();
    let said = bundle.good(&["exec", &bundle.id, "sh", "/script"]);
    let link = namespace(&pid);
    let want = format!("{}\nbin\nbound\ndev\netc\nproc\nscript\nsys\ntmp\nof the host/\n", link.display());
    assert_eq!(said, want);
    assert_eq!(here(all), host);
    assert!(helper.mounts_at(&rootfs).len() > 5);
    bundle.good(&["delete", "-f", &bundle.id]);
    assert_eq!((here(all), helper.mounts_at(all)), (host, vec![]));
    assert!(rootfs.join("bin/busybox").exists());
}

/// Something mounted, for a test's time.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(args: &[&str], place: &Path) -> Self {
        for args in [args, &["--make-private"]] {
            assert!(Command::new("mount").args(args).arg(place).status().unwrap().success());
        }
        Self(place.to_owned())
    }

    fn bind(place: &Path) -> Self {
        Self::new(&["--bind", place.to_str().unwrap()], place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn what_lies_at_the_place_of_a_root_by_the_time_it_is_deleted_stays() {
    let Some(_) = busybox() else { return };
    let helper = Helper::new("");
    let bundle = joining("othermnt", "true", &helper.namespace(), false);
    fs::create_dir(bundle.dir.path().join("data")).unwrap();
    let rootfs = bundle.dir.path().join("rootfs");
    bundle.good(&["run", "--keep", "-b", bundle.bundle(), &bundle.id]);
    let pid = helper.process.id().to_string();
    let inside = |args: &[&str]| {
        let entered = Command::new("nsenter").args(["-t", &pid, "-m"]).args(args).status().unwrap();
        assert!(entered.success(), "{args:?}");
    };
    assert!(!helper.mounts_at(&rootfs).is_empty());
    inside(&["umount", "-l", rootfs.to_str().unwrap()]);
    inside(&["mount", "-t", "tmpfs", "other", rootfs.to_str().unwrap()]);
    let left = helper.mounts_at(&rootfs);
    assert_eq!(left.len(), 1);
    bundle.good(&["delete", &bundle.id]);
    assert_eq!(helper.mounts_at(&rootfs), left);
    // A name that leads to another namespace by now leads to nothing of the container's.
    let link = bundle.dir.path().join("namespace");
    let (theirs, ours) = (helper.namespace(), "/proc/self/ns/mnt");
    std::os::unix::fs::symlink(theirs, &link).unwrap();
    let second = joining("linkmnt", "true", &link, false);
    fs::create_dir(second.dir.path().join("data")).unwrap();
    second.good(&["run", "--keep", "-b", second.bundle(), &second.id]);
    let rootfs = second.dir.path().join("rootfs");
    let _mount = Mounted::bind(&rootfs);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(ours, &link).unwrap();
    second.good(&["delete", &second.id]);
    assert_eq!(here(&rootfs).len(), 1);
}

#[test]
fn a_namespace_without_the_root_is_told_and_a_failed_start_leaves_nothing_in_it() {
    let Some(_) = busybox() else { return };
    let helper = Helper::new("mount -t tmpfs empty /tmp");
    let bundle = joining("norootmnt", "true", &helper.namespace(), false);
    fs::create_dir(bundle.dir.path().join("data")).unwrap();
    let rootfs = bundle.dir.path().join("rootfs");
    if !rootfs.starts_with("/tmp") {
        println!("skipped in part: temporary files are not below /tmp");
        return;
    }
    let said = bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
    assert!(said.starts_with(&format!("root.path: attach to {}: No such file", rootfs.display())), "{said}");
    assert_eq!(helper.mounts_at(bundle.dir.path()), Vec::<String>::new());
    // One that fails when all is mounted: in such a namespace, and on the host's mounts.
    let helper = Helper::new("");
    for namespace in [Some(helper.namespace()), None] {
        let bundle = joining("failmnt", "true", &helper.namespace(), false);
        fs::create_dir(bundle.dir.path().join("data")).unwrap();
        let config = bundle.dir.path().join("config.json");
        let mut spec: serde_json::Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        spec["process"]["args"] = json!(["/nowhere"]);
        if namespace.is_none() {
            spec["linux"]["namespaces"].as_array_mut().unwrap().remove(1);
            spec["linux"]["readonlyPaths"] = json!([]);
        }
        fs::write(&config, spec.to_string()).unwrap();
        assert!(bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]).contains("/nowhere"));
        let rootfs = bundle.dir.path().join("rootfs");
        assert_eq!((here(&rootfs), helper.mounts_at(&rootfs)), (vec![], vec![]), "{namespace:?}");
    }
}

/// What a shell says in the mount namespace of a process, at its root.
fn in_namespace_of(pid: &str, script: &str) -> String {
    let output = Command::new("nsenter").args(["-t", pid, "-m", "sh", "-c", script]).output().unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

#[test]
fn a_root_that_is_not_pivoted_lies_over_what_is_left_of_the_host() {
    let Some(_) = busybox() else { return };
    let script = "ls /; grep -c /host-mount /proc/self/mountinfo; awk '$5 == \"/\"' /proc/self/mountinfo | grep -c .; sleep 1000";
    let bundle = Bundle::new("nopivot", script, |s| s["root"]["readonly"] = json!(true));
    // A name that mountinfo writes with a backslash.
    let mount = bundle.dir.path().join("host-mount of ours");
    fs::create_dir(&mount).unwrap();
    let mount = Mounted::new(&["-t", "tmpfs", "tmpfs"], &mount);
    fs::write(mount.0.join("below"), "").unwrap();
    let host = here(bundle.dir.path());
    let out = fs::File::create(bundle.dir.path().join("out")).unwrap();
    let mut run = bundle.command(&["run", "-d", "--no-pivot", "-b", bundle.bundle(), &bundle.id]);
    assert!(run.stdout(out).stderr(Stdio::null()).status().unwrap().success());
    let said = || fs::read_to_string(bundle.dir.path().join("out")).unwrap();
    crate::support::eventually("it speaks", || said().lines().count() >= 8);
    assert_eq!(said(), "bin\ndev\netc\nproc\nsys\ntmp\n0\n1\n");
    assert!(bundle.good(&["exec", &bundle.id, "ls", "-a", "/proc/1/root/.."]).starts_with(".\n..\nbin\n"));
    // Whoever gets to the root of the namespace is in the container still.
    let pid = pid_of(&bundle);
    assert_eq!(
        in_namespace_of(&pid, "ls /; echo $(ls -d /..)/bin/busybox"),
        "bin\ndev\netc\nproc\nsys\ntmp\n/../bin/busybox\n"
    );
    // And whoever takes that away, in the host's root with nothing mounted.
    in_namespace_of(&pid, "umount -l /");
    let below = format!(
        "test -e '{}' && echo it is the old root; ls /proc /sys '{}'; mount -t proc proc /proc && cut -d' ' -f5 /proc/self/mountinfo",
        bundle.root().display(),
        mount.0.display()
    );
    let said = in_namespace_of(&pid, &below);
    let want = format!("it is the old root\n/proc:\n\n/sys:\n\n{}:\n/\n/proc\n", mount.0.display());
    assert_eq!(said, want);
    bundle.good(&["delete", "-f", &bundle.id]);
    assert_eq!(here(bundle.dir.path()), host);
    assert!(mount.0.join("below").exists() && Path::new("/proc/self").exists());
}
