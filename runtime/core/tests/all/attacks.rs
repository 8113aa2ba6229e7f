//! What has broken out of other runtimes, tried on ours: docs/security.md says which test is for which lesson.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime_core::pod::ExecConfig;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::oci_mounts::Mounted;
use crate::support::{Pod, busybox, eventually, exit_code, program, read_all};

/// Starts while somebody swaps directories: enough to lose a race that is there, and (`cargo xtask attacks`) as many as
/// it took to find the last of them elsewhere.
fn starts() -> usize {
    if std::env::var_os(mutations::FULL).is_some() { 10_000 } else { 300 }
}

fn exec(container: &str, script: &str) -> ExecConfig {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecConfig { container: container.to_owned(), args, tty: false, stdin: false }
}

fn output_of(bundle: &Bundle) -> String {
    let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn detach(bundle: &Bundle) {
    let mut run = bundle.command(&["run", "-d", "-b", bundle.bundle(), &bundle.id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
}

/// Names and contents, links unfollowed.
fn tree(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            let below = if path.is_dir() && !path.is_symlink() { tree(&path) } else { Vec::new() };
            let text = fs::symlink_metadata(&path).map(|m| format!("{} {:o} {}", path.display(), m.mode(), m.len()));
            [vec![text.unwrap()], below].concat()
        })
        .collect();
    all.sort();
    all
}

/// CVE-2024-21626: a working directory that a descriptor of ours leads to.
#[test]
fn nobody_works_in_a_directory_of_the_host() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("leak", "ls /proc/self/fd | tr '\\n' ' '; sleep 1000", |_| {});
    // Whoever calls us has directories of the host open that he forgot to close.
    let line = |words: &str| {
        let held: String = (3..10).map(|fd| format!(" {fd}</")).collect();
        let line = format!("exec{held}; exec {} oci --root {} {words}", program().display(), bundle.root().display());
        Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap()
    };
    detach(&bundle);
    let exec = line(&format!("exec {} ls /proc/self/fd", bundle.id));
    // The last is its own, of the directory that it lists.
    assert_eq!(String::from_utf8_lossy(&exec.stdout), "0\n1\n2\n3\n", "{}", String::from_utf8_lossy(&exec.stderr));
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    spec["linux"]["cgroupsPath"] = json!(format!("/trimtab-test/oci/{}x", bundle.id));
    spec["process"]["args"] = json!(["ls", "/proc/self/fd"]);
    fs::write(&config, spec.to_string()).unwrap();
    let run = line(&format!("run -b {} {}x", bundle.bundle(), bundle.id));
    assert_eq!(String::from_utf8_lossy(&run.stdout), "0\n1\n2\n3\n", "{}", String::from_utf8_lossy(&run.stderr));
    spec["process"]["args"] = json!(["ls", "."]);
    let mut entered = Vec::new();
    for fd in 3..=64 {
        let cwd = format!("/proc/self/fd/{fd}");
        spec["process"]["cwd"] = json!(cwd);
        fs::write(&config, spec.to_string()).unwrap();
        let run = line(&format!("run -b {} {}x", bundle.bundle(), bundle.id));
        let exec = line(&format!("exec --cwd {cwd} {} ls .", bundle.id));
        for (how, output) in [("run", run), ("exec", exec)] {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let refused = !output.status.success() && said.contains("process.cwd") && output.stdout.is_empty();
            entered.extend((!refused).then(|| format!("{how} in {cwd}: {said}")));
        }
    }
    assert!(entered.is_empty(), "{entered:#?}");
}

/// CVE-2019-5736: our own executable through /proc/PID/exe of a process that enters.
#[test]
fn our_executable_is_what_it_was() {
    let Some(_) = busybox() else { return };
    let caps: Vec<String> = ["SYS_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE", "DAC_READ_SEARCH", "CHOWN", "FOWNER", "KILL"]
        .map(|name| format!("CAP_{name}"))
        .to_vec();
    let all = |s: &mut Value| {
        s["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        s["linux"]["maskedPaths"] = json!([]);
        s["linux"]["readonlyPaths"] = json!([]);
    };
    // Nobody writes to a program that runs: whoever has opened it waits until it does not.
    let script = "touch /began; while :; do for p in /proc/[0-9]*; do [ $p != /proc/1 ] && (exec 3< $p/exe && n=0 && \
        until echo x > /proc/self/fd/3 || [ $n = 500 ]; do n=$((n + 1)); done) 2>/dev/null; done; done";
    let before = fs::read(program()).unwrap();
    let bundle = Bundle::new("exe", &script.replace("touch", "busybox touch"), all);
    detach(&bundle);
    eventually("the attack begins", || bundle.dir.path().join("rootfs/began").exists());
    // A copy that nobody else runs.
    let copy = bundle.dir.path().join("program");
    fs::copy(program(), &copy).unwrap();
    let command = |words: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("oci").arg("--root").arg(bundle.root()).args(words).stdin(Stdio::null());
        command
    };
    for _ in 0..50 {
        assert!(command(&["exec", &bundle.id, "true"]).status().unwrap().success());
    }
    // What runs beside a container does so from a read-only mount.
    let mut beside = command(&["exec", &bundle.id, "sh", "-c", "echo > /entered; sleep 1000"]).spawn().unwrap();
    eventually("it has entered", || bundle.dir.path().join("rootfs/entered").exists());
    let mount = rustix::fs::statvfs(format!("/proc/{}/exe", beside.id())).unwrap().f_flag;
    assert!(mount.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{mount:?}");
    bundle.good(&["delete", "-f", &bundle.id]);
    beside.wait().unwrap();
    assert!(before == fs::read(&copy).unwrap(), "the program has been written to");
    let pod = Pod::start();
    pod.shim.start_container(&pod.container_with("c", &script.replace("touch", "busybox touch"), all)).unwrap();
    for _ in 0..50 {
        assert_eq!(exit_code(pod.shim.exec(&exec("c", "true")).unwrap().exit.unwrap()), 0);
    }
    assert!(before == fs::read(program()).unwrap(), "the program has been written to");
}

/// Ends an attacker, also where a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465 and its kin: a directory that becomes a link while a mount is put there.
#[test]
fn mounts_land_in_the_container_however_directories_are_swapped() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let (volume, outside) = (pod.dir.path().join("volume"), pod.dir.path().join("outside"));
    fs::create_dir_all(volume.join("place")).unwrap();
    fs::create_dir_all(outside.join("dir")).unwrap();
    fs::write(outside.join("file"), "as it was").unwrap();
    fs::write(pod.dir.path().join("source"), "source").unwrap();
    let up = format!("../../../../../../../../..{}", outside.display());
    let targets = [outside.to_str().unwrap(), &up, "/proc/1/root", "/proc/self/fd/3"];
    let links: Vec<PathBuf> = (0..).map(|n| volume.join(format!("link{n}"))).take(targets.len()).collect();
    targets.iter().zip(&links).for_each(|(target, link)| symlink(target, link).unwrap());
    let before = tree(&outside);
    let mounts = |s: &mut Value| {
        s["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/v", "source": volume, "options": ["rbind"]}),
            json!({"destination": "/v/place/dir", "type": "tmpfs", "source": "tmpfs", "options": ["size=44k"]}),
            json!({"destination": "/v/place/file", "source": pod.dir.path().join("source"), "options": ["bind", "ro"]}),
        ]);
        s["linux"]["devices"] = json!([{"path": "/v/place/node", "type": "c", "major": 1, "minor": 3}]);
        s["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/v/place/dir"));
        s["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/v/place"));
    };
    // The tmpfs and the file that were asked for, as this process sees them mounted.
    let config =
        pod.container_with("c", "grep -c size=44k /proc/self/mountinfo; grep -c /source /proc/self/mountinfo", mounts);
    let done = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for link in links.iter().cycle() {
                for _ in 0..2 {
                    renameat_with(CWD, volume.join("place"), CWD, link, RenameFlags::EXCHANGE).unwrap();
                    // Who swaps without pause makes nothing but look-ups that are tried again.
                    std::thread::park_timeout(Duration::from_micros(20));
                }
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _end = End(&done);
        for _ in 0..starts() {
            match pod.shim.start_container(&config) {
                Ok(_) => {
                    pod.wait("c");
                    let log = pod.log("c");
                    // Once, and once more below what is made read-only.
                    assert!(log.lines().count() == 2 && log.lines().all(|count| ["1", "2"].contains(&count)), "{log}");
                    good += 1;
                    pod.shim.remove_container("c").unwrap();
                    fs::remove_file(pod.log_path("c")).unwrap();
                }
                Err(_) => refused += 1,
            }
            assert_eq!(tree(&outside), before);
        }
    });
    println!("{good} started, {refused} refused");
    assert!(good > 0 && good + refused == starts());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(outside.to_str().unwrap()) && !mounts.contains("size=44k"));
}

/// Images whose /proc, /sys, /dev or /etc is not a directory of their own.
#[test]
fn directories_of_an_image_may_be_links() {
    let Some(_) = busybox() else { return };
    for name in ["proc", "sys", "dev", "etc"] {
        for target in ["/tmp", "/../../outside", "OUTSIDE"] {
            let bundle = Bundle::new("links", "readlink /etc; cat /etc/hosts; stat -c %t:%T /dev/null", |s| {
                s["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"destination": "/etc/hosts", "source": "hosts", "options": ["bind"]}));
            });
            let (rootfs, outside) = (bundle.dir.path().join("rootfs"), bundle.dir.path().join("outside"));
            fs::create_dir(&outside).unwrap();
            fs::write(bundle.dir.path().join("hosts"), "hosts\n").unwrap();
            fs::remove_dir_all(rootfs.join(name)).unwrap();
            symlink(target.replace("OUTSIDE", outside.to_str().unwrap()), rootfs.join(name)).unwrap();
            let said = output_of(&bundle);
            let right = match name {
                // Configuration may lie elsewhere in the image.
                "etc" => said.ends_with("hosts\n1:3\n"),
                "dev" => said.contains("/dev must be an ordinary directory"),
                _ => said.contains(&format!("/{name}: ")) && said.contains("must be mounted on ordinary directory"),
            };
            assert!(right, "/{name} -> {target}: {said}");
            assert_eq!(tree(&outside), Vec::<String>::new(), "/{name} -> {target}");
        }
    }
}

/// CVE-2025-31133: what hides files is the null device, whatever the image calls so.
#[test]
fn a_null_device_of_the_image_hides_nothing() {
    let Some(_) = busybox() else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = "stat -c %t:%T /proc/keys /proc/uptime; echo '|/evil' > /dev/null; echo '|/evil' > /proc/keys";
    let prepare = |fake: &Path, bound: bool| {
        let bundle = Bundle::new("null", script, |s| {
            s["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
            s["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
            s["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/uptime"]);
            if bound {
                s["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"destination": "/dev", "source": "dev", "options": ["bind"]}));
            }
        });
        for dev in ["dev", "rootfs/dev"].map(|dev| bundle.dir.path().join(dev)) {
            fs::create_dir_all(&dev).unwrap();
            symlink(fake, dev.join("null")).unwrap();
        }
        bundle
    };
    let fake = Path::new("/proc/sys/kernel/core_pattern");
    // A /dev that we fill must not hold something else already.
    let said = output_of(&prepare(fake, false));
    assert!(said.contains("make device null: something else is there"), "{said}");
    // One that we do not fill is no place to take it from.
    let said = output_of(&prepare(fake, true));
    assert!(said.starts_with("1:3\n1:3\n"), "{said}");
    assert_eq!(fs::read_to_string(fake).unwrap(), pattern);
}

/// CVE-2025-52565: a terminal is what its own multiplexer made, whatever lies under its name.
#[test]
fn a_terminal_of_the_image_is_none() {
    let Some(_) = busybox() else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (what, target) in [("link", Some("/dev/ptmx")), ("node", None)] {
        let bundle = Bundle::new("pts", "echo in; echo '|/evil' > /dev/console", |s| {
            s["process"]["terminal"] = json!(true);
            for mount in s["mounts"].as_array_mut().unwrap() {
                if mount["destination"] == "/dev/pts" {
                    *mount = json!({"destination": "/dev/pts", "source": "pts", "options": ["bind", "dev"]});
                }
            }
        });
        let pts = bundle.dir.path().join("pts");
        fs::create_dir(&pts).unwrap();
        (0..16).for_each(|n| symlink("/proc/sys/kernel/core_pattern", pts.join(n.to_string())).unwrap());
        match target {
            Some(target) => symlink(target, pts.join("ptmx")).unwrap(),
            None => {
                let made = Command::new("mknod").arg(pts.join("ptmx")).args(["c", "5", "2"]).status().unwrap();
                assert!(made.success() && fs::metadata(pts.join("ptmx")).unwrap().file_type().is_char_device());
            }
        }
        let said = output_of(&bundle);
        assert!(said.contains("/dev/pts") && !said.contains("in\n"), "{what}: {said}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

/// CVE-2025-52565: nor does it matter who has that name by then.
#[test]
fn a_terminal_is_its_multiplexer_s_however_names_are_swapped() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("swapped", "echo own; echo own > /dev/console", |s| {
        s["process"]["terminal"] = json!(true);
        let mounts = s["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        mounts.insert(0, json!({"destination": "/dev", "source": "dev", "options": ["bind"]}));
        mounts.push(json!({"destination": "/dev/other", "source": "theirs", "options": ["bind", "dev"]}));
    });
    let at = |name: &str| bundle.dir.path().join(name);
    ["dev", "dev/pts", "dev/other", "theirs"].iter().for_each(|dir| fs::create_dir(at(dir)).unwrap());
    // Other people's terminals, by the names that the container's are going to have.
    let _mount = Mounted::new(&["-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts"], &at("theirs"));
    let open = |_| {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        let master = rustix::fs::open(at("theirs/ptmx"), flags, rustix::fs::Mode::empty()).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        master
    };
    let masters: Vec<OwnedFd> = (0..8).map(open).collect();
    let done = AtomicBool::new(false);
    let (begun, own) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let dev = fs::File::open(at("dev")).unwrap();
            while !done.load(Ordering::Relaxed) {
                renameat_with(&dev, "pts", &dev, "other", RenameFlags::EXCHANGE).unwrap();
            }
        });
        let run = |_| {
            let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), said.matches("own").count() == 2)
        };
        let runs: Vec<(bool, bool)> = (0..starts()).map(run).collect();
        done.store(true, Ordering::Relaxed);
        (runs.iter().filter(|run| run.0).count(), runs.iter().filter(|run| **run == (true, true)).count())
    });
    let mut text = [0; 64];
    let mut heard = |master: &OwnedFd| rustix::io::read(master, &mut text) != Err(rustix::io::Errno::AGAIN);
    assert_eq!(masters.iter().map(&mut heard).filter(|heard| *heard).count(), 0);
    // Both have a multiplexer under that name nearly always.
    assert!(begun == own && own > starts() / 4, "{own} of {begun} of {}", starts());
}

/// CVE-2025-52881: a sysctl is set through a /proc that nothing of the container's lies on.
#[test]
fn sysctls_go_where_nothing_can_be_mounted() {
    let Some(_) = busybox() else { return };
    let script = "cat /p/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/ip_default_ttl";
    let bundle = Bundle::new("sysctl", script, |s| {
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
        s["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "77"});
        s["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/p", "type": "proc", "source": "proc"}),
            json!({"destination": "/proc/sys/net/ipv4", "source": "fake", "options": ["bind"]}),
        ]);
    });
    let fake = bundle.dir.path().join("fake");
    fs::create_dir(&fake).unwrap();
    fs::write(fake.join("ip_default_ttl"), "fake\n").unwrap();
    assert_eq!(output_of(&bundle), "77\nfake\n");
    // Nor of anybody else's: whoever calls us may have something lie there.
    let all = bundle.dir.path().join("all");
    fs::create_dir_all(all.join("net/ipv4")).unwrap();
    fs::write(all.join("net/ipv4/ip_default_ttl"), "fake\n").unwrap();
    let line = format!(
        "mount --bind {} /proc/sys && exec {} oci --root {} run -b {} {}",
        all.display(),
        program().display(),
        bundle.root().display(),
        bundle.bundle(),
        bundle.id
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(said, "77\nfake\n");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), "64\n");
}

/// CVE-2022-29162: what is inheritable comes back with a file's capabilities.
#[test]
fn nothing_is_inheritable() {
    let Some(_) = busybox() else { return };
    let inheritable = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("CapInh:")).unwrap_or_else(|| panic!("{text}"));
        line.trim_start_matches("CapInh:").trim().to_owned()
    };
    let (none, script) = ("0000000000000000", "cat /proc/self/status; sleep 1000");
    let pod = Pod::start();
    // A pod's are so whatever is asked for.
    pod.shim.start_container(&pod.container("c", script)).unwrap();
    eventually("it tells", || pod.log("c").contains("CapInh"));
    assert_eq!(inheritable(&pod.log("c")), none);
    let joined = pod.shim.exec(&exec("c", "cat /proc/self/status")).unwrap();
    assert_eq!(inheritable(&read_all(joined.stdout.unwrap())), none);
    let plain = |s: &mut Value| drop(s["process"]["capabilities"].as_object_mut().unwrap().remove("inheritable"));
    let bundle = Bundle::new("inherit", "cat /proc/self/status", plain);
    assert_eq!(inheritable(&output_of(&bundle)), none);
    let bundle = Bundle::new("inherit", "sleep 1000", plain);
    detach(&bundle);
    for more in [vec![], vec!["--cap", "CAP_NET_RAW", "--cap", "CAP_KILL"]] {
        let words = [vec!["exec"], more, vec![&bundle.id, "cat", "/proc/self/status"]].concat();
        assert_eq!(inheritable(&bundle.good(&words)), none);
    }
    // Nor does what `spec` writes ask for any.
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new(program()).args(["oci", "spec"]).current_dir(dir.path()).status().unwrap().success());
    let spec: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    let said = &spec["process"]["capabilities"]["inheritable"];
    assert!(said.is_null() || said == &json!([]), "{said}");
}

/// CVE-2026-30892, CVE-2024-40635: an id is a number of 32 bits, or refused.
#[test]
fn users_are_who_they_are_said_to_be() {
    let Some(_) = busybox() else { return };
    let bundle = Bundle::new("ids", "sleep 1000", |_| {});
    detach(&bundle);
    for (text, wanted) in [
        ("0", "0:0"),
        ("1000", "1000:0"),
        ("0:1000", "0:1000"),
        ("1000:1000", "1000:1000"),
        ("65536:65537", "65536:65537"),
        ("2147483647:2147483648", "2147483647:2147483648"),
        ("2147483648", "2147483648:0"),
        ("4294967294:4294967294", "4294967294:4294967294"),
    ] {
        let said = bundle.good(&["exec", "-u", text, &bundle.id, "sh", "-c", "echo $(id -u):$(id -g)"]);
        assert_eq!(said.trim(), wanted, "{text}");
    }
    for text in [
        "4294967295",
        "0:4294967295",
        "4294967296",
        "0:4294967296",
        "18446744073709551616",
        "-1",
        "0:-1",
        "+1",
        "0:+1",
        "",
        ":",
        "1:",
        ":1",
        "1:2:3",
        " 1",
        "1 ",
        "0x1",
        "1e3",
        "1.0",
        "one",
        "root",
        "١",
    ] {
        let said = bundle.bad(&["exec", "-u", text, &bundle.id, "true"]);
        assert!(said.contains("user") || said.contains("number"), "{text:?}: {said}");
    }
    for (uid, gid) in [
        (json!(u32::MAX), json!(0)),
        (json!(0), json!(u32::MAX)),
        (json!(1_u64 << 32), json!(0)),
        (json!(-1), json!(0)),
        (json!("0"), json!(0)),
    ] {
        let bundle = Bundle::new("ids", "true", |s| s["process"]["user"] = json!({"uid": uid, "gid": gid}));
        let said = bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
        assert!(said.contains("process.user."), "{uid}:{gid}: {said}");
    }
}

/// CVE-2022-1708: a process whose caller has left is of use to nobody.
#[test]
fn processes_end_with_their_callers() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    pod.shim.start_container(&pod.container("c", "sleep 1000")).unwrap();
    let count = || {
        let streams = pod.shim.exec(&exec("c", "ps | grep -c 'sleep 200[0]'")).unwrap();
        read_all(streams.stdout.unwrap())
    };
    let callers: Vec<_> = (0..10).map(|_| pod.shim.exec(&exec("c", "exec sleep 2000")).unwrap()).collect();
    eventually("they run", || count() == "10\n");
    drop(callers);
    eventually("they end", || count() == "0\n");
}

/// CVE-2022-1708, CVE-2025-64329: who joins again and again leaves nothing behind in the shim; CVE-2024-25621: what it
/// keeps is for root alone.
#[test]
fn a_thousand_processes_leave_nothing() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    pod.shim.start_container(&pod.container("c", "sleep 1000")).unwrap();
    let shim: Value = serde_json::from_slice(&fs::read(pod.config.run_dir.join("shim.json")).unwrap()).unwrap();
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", shim["pid"])).unwrap().count();
    let run = |n: usize| {
        let streams =
            pod.shim.exec(&exec("c", if n.is_multiple_of(2) { "exit 3" } else { "head -c 100000 /dev/zero" })).unwrap();
        // Half of the callers leave before the end.
        if n % 4 < 2 {
            read_all(streams.stdout.unwrap());
            assert!([0, 3].contains(&exit_code(streams.exit.unwrap())));
        }
    };
    run(0);
    let before = count("fd");
    (0..1000).for_each(run);
    eventually("descriptors are closed", || count("fd") <= before);
    assert_eq!(count("task"), 1);

    eventually("processes are reaped", || {
        let now = fs::read_to_string(format!("/proc/{}/task/{}/children", shim["pid"], shim["pid"]));
        now.unwrap_or_default().split_whitespace().count() <= 1
    });
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pod.config.run_dir), 0o700);
    for name in ["containers", "pod.json", "shim.json", "shim.log", "containers/c.json", "containers/c.state"] {
        assert_eq!(mode(&pod.config.run_dir.join(name)) & 0o077, 0, "{name}");
    }
}
