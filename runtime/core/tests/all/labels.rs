//! Labels of security modules. Where the kernel has AppArmor or SELinux without a policy of its own, and what compiles
//! policies is there: with small ones of ours. Elsewhere: that nobody runs without the label he was to have.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use runtime_core::pod::ExecConfig;
use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::oci_bad::{refused, residue};
use crate::support::{Pod, busybox, exit_code, read_all};
use crate::sys;
use crate::user::Theirs;

/// Held by who loads a policy, and by who expects none.
static LOADS: Mutex<()> = Mutex::new(());

const SEE: &str = "cat /proc/self/attr/current; echo";

fn apparmor_is_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|said| said.starts_with('Y'))
}

fn selinux_has_a_policy() -> bool {
    Path::new("/sys/fs/selinux/load").exists() && own_label().contains(':')
}

fn own_label() -> String {
    fs::read_to_string("/proc/self/attr/current").unwrap_or_default()
}

/// Runs to its end; what it says on both outputs.
fn output_of(bundle: &Bundle) -> String {
    let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
    text(&[output.stdout, output.stderr].concat())
}

/// Labels end with NUL when the kernel shows them.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "")
}

/// Runs in the background with the streams closed.
fn detach(bundle: &Bundle) {
    let mut run = bundle.command(&["run", "-d", "-b", bundle.bundle(), &bundle.id]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
}

/// A process to run in a container: what it sees of itself, with some fields more.
fn process(bundle: &Bundle, fields: Value) -> String {
    let mut process = json!({"args": ["sh", "-c", SEE], "cwd": "/", "env": ["PATH=/bin"]});
    process.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let path = bundle.dir.path().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn in_user_namespace(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for maps in ["uidMappings", "gidMappings"] {
        spec["linux"][maps] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    }
}

fn exec_in_pod(pod: &Pod, script: &str) -> (i32, String) {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let streams = pod.shim.exec(&ExecConfig { container: "c".to_owned(), args, tty: false, stdin: false }).unwrap();
    let said = text((read_all(streams.stdout.unwrap()) + &read_all(streams.stderr.unwrap())).as_bytes());
    (exit_code(streams.exit.unwrap()), said)
}

#[test]
fn who_cannot_be_labelled_does_not_run() {
    let Some(_) = busybox() else { return };
    let _none = LOADS.lock().unwrap();
    let fields = [
        ("/process/apparmorProfile", "process.apparmorProfile: AppArmor", apparmor_is_enabled()),
        ("/process/selinuxLabel", "process.selinuxLabel: SELinux", selinux_has_a_policy()),
    ];
    for (pointer, want, _) in fields.into_iter().filter(|(.., enabled)| !enabled) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let set = |s: &mut Value| s.pointer_mut(parent).unwrap()[key] = json!("a:b:c");
        let bundle = Bundle::new("unlabelled", "true", set);
        assert_eq!(refused(&bundle, &bundle.id), format!("{want} is not enabled on this host"));
        assert_eq!(residue(&bundle), Vec::<String>::new());
        let pod = Pod::start();
        let error = pod.shim.start_container(&pod.container_with("c", "true", set)).unwrap_err().to_string();
        assert_eq!(error, format!("{want} is not enabled on this host"));
    }
    // Nobody has to be anything for these.
    let bundle = Bundle::new("free", "sleep 1000", |s| {
        (s["process"]["apparmorProfile"], s["process"]["selinuxLabel"]) = (json!("unconfined"), json!(""));
        s["linux"]["mountLabel"] = json!(if selinux_has_a_policy() { "" } else { "a:b:c" });
    });
    detach(&bundle);
    for (flag, want, enabled) in [
        ("--apparmor", "process.apparmorProfile: AppArmor", apparmor_is_enabled()),
        ("--process-label", "process.selinuxLabel: SELinux", selinux_has_a_policy()),
    ] {
        bundle.good(&["exec", flag, "", &bundle.id, "true"]);
        if !enabled {
            let said = bundle.bad(&["exec", flag, "a:b:c", &bundle.id, "true"]);
            assert_eq!(said, format!("{want} is not enabled on this host"));
        }
    }
    bundle.good(&["exec", "--apparmor", "unconfined", &bundle.id, "true"]);
}

/// Two profiles of a test's own, in the kernel until they are dropped.
struct Profiles {
    cage: String,
    other: String,
}

impl Profiles {
    /// `None`, with a line that says why, where the kernel takes none.
    fn load(test: &str) -> Option<Self> {
        let there = |path: &str| Path::new(path).exists();
        if !apparmor_is_enabled() || !there("/sys/kernel/security/apparmor") || !there("/usr/sbin/apparmor_parser") {
            println!("skipped: AppArmor is not enabled, or apparmor_parser (package apparmor) is not there");
            return None;
        }
        busybox()?;
        let name = |kind: &str| format!("tt-{kind}-{test}-{}", std::process::id());
        let profiles = Self { cage: name("cage"), other: name("other") };
        profiles.tell("--add");
        Some(profiles)
    }

    fn tell(&self, what: &str) {
        let all = "file, capability, mount, umount, pivot_root, signal, ptrace, unix, network,";
        let Self { cage, other } = self;
        let profiles = format!(
            "profile {cage} flags=(attach_disconnected) {{ {all} deny /tmp/kept w, }}\n\
             profile {other} flags=(attach_disconnected) {{ {all} }}\n"
        );
        let mut parser = Command::new("/usr/sbin/apparmor_parser");
        let mut parser = parser
            .args(["--config-file=/dev/null", "--quiet", "--skip-cache", what])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        parser.stdin.take().unwrap().write_all(profiles.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }

    /// What a process in one of them sees of itself.
    fn seen(profile: &str) -> String {
        format!("{profile} (enforce)\n\n")
    }
}

impl Drop for Profiles {
    fn drop(&mut self) {
        self.tell("--remove");
    }
}

const UNCONFINED: &str = "unconfined\n\n";

#[test]
fn a_profile_holds_for_run_and_exec() {
    let Some(profiles) = Profiles::load("holds") else { return };
    let Profiles { cage, other } = &profiles;
    let bundle = Bundle::new("cage", &format!("{SEE}; echo x > /tmp/kept"), |s| {
        s["process"]["apparmorProfile"] = json!(cage);
    });
    let denied = "/bin/sh: can't create /tmp/kept: Permission denied\n";
    assert_eq!(output_of(&bundle), Profiles::seen(cage) + denied);

    let bundle = Bundle::new("caged", "sleep 1000", |s| s["process"]["apparmorProfile"] = json!(cage));
    detach(&bundle);
    let id = bundle.id.as_str();
    let first = fs::read_to_string(format!("/proc/{}/attr/current", crate::cgroups::pid(&bundle))).unwrap();
    assert_eq!(first, format!("{cage} (enforce)\n"));
    let exec = |words: &[&str]| bundle.good(&[&["exec"], words].concat());
    assert_eq!(exec(&[id, "sh", "-c", SEE]), Profiles::seen(cage));
    assert!(bundle.oci(&["exec", id, "sh", "-c", "echo x > /tmp/kept"]).stderr.ends_with(b"Permission denied\n"));
    assert_eq!(exec(&["--apparmor", other, id, "sh", "-c", SEE]), Profiles::seen(other));
    exec(&["--apparmor", other, id, "sh", "-c", "echo x > /tmp/kept"]);
    assert_eq!(exec(&["--apparmor", "unconfined", id, "sh", "-c", SEE]), UNCONFINED);
    for (fields, want) in [(json!({}), cage), (json!({"apparmorProfile": other}), other)] {
        assert_eq!(exec(&["-p", &process(&bundle, fields), id]), Profiles::seen(want));
    }
    let flag = exec(&["--apparmor", cage, "-p", &process(&bundle, json!({"apparmorProfile": other})), id]);
    assert_eq!(flag, Profiles::seen(cage));
}

#[test]
fn a_profile_is_set_before_a_filter_and_in_a_user_namespace() {
    let Some(profiles) = Profiles::load("order") else { return };
    let cage = &profiles.cage;
    for gains in [false, true] {
        let bundle = Bundle::new("order", "sleep 1000", |s| {
            s["process"]["apparmorProfile"] = json!(cage);
            s["process"]["noNewPrivileges"] = json!(!gains);
            // What a label is set with.
            let calls = json!(["fsopen", "fsmount", "openat2"]);
            let rule = json!({"names": calls, "action": "SCMP_ACT_ERRNO"});
            s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            in_user_namespace(s);
        });
        detach(&bundle);
        assert_eq!(bundle.good(&["exec", &bundle.id, "sh", "-c", SEE]), Profiles::seen(cage));
    }
}

/// CVE-2025-52881: what stands in the place of /proc is not what is written to.
#[test]
fn a_proc_of_the_image_takes_no_label() {
    let Some(profiles) = Profiles::load("proc") else { return };
    let cage = &profiles.cage;
    let bundle = Bundle::new("proc", "sleep 1000", |s| {
        s["process"]["apparmorProfile"] = json!(cage);
        s["mounts"][0] = json!({"destination": "/proc", "type": "bind", "source": "fake", "options": ["bind"]});
    });
    let fake = bundle.dir.path().join("fake/self/attr");
    let taken = ["exec", "apparmor/exec"].map(|file| fake.join(file));
    fs::create_dir_all(fake.join("apparmor")).unwrap();
    taken.iter().for_each(|file| fs::write(file, "").unwrap());
    detach(&bundle);
    let mut exec = bundle.command(&["exec", "-d", "--pid-file", "pid", &bundle.id, "sleep", "1000"]);
    let exec = exec.current_dir(bundle.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(exec.status().unwrap().success());
    let second = fs::read_to_string(bundle.dir.path().join("pid")).unwrap();
    for pid in [crate::cgroups::pid(&bundle).to_string(), second] {
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap(), format!("{cage} (enforce)\n"));
    }
    taken.iter().for_each(|file| assert_eq!(fs::read_to_string(file).unwrap(), ""));
}

#[test]
fn a_user_who_is_not_root_sets_a_profile() {
    let Some(profiles) = Profiles::load("user") else { return };
    let theirs = Theirs::new("caged", "sleep 1000", |s| s["process"]["apparmorProfile"] = json!(profiles.cage));
    theirs.detach();
    let exec = |words: &[&str]| theirs.good(&[&["exec"], words, &[&theirs.bundle.id, "sh", "-c", SEE]].concat());
    assert_eq!(exec(&[]), Profiles::seen(&profiles.cage));
    assert_eq!(exec(&["--apparmor", &profiles.other]), Profiles::seen(&profiles.other));
}

#[test]
fn hooks_inside_have_the_profile_too() {
    let Some(profiles) = Profiles::load("hooks") else { return };
    let bundle = Bundle::new("hooked", "true", |s| s["process"]["apparmorProfile"] = json!(profiles.cage));
    let config = bundle.dir.path().join("config.json");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let root = bundle.dir.path().join("rootfs");
    let hook = |file: String| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("{{ {SEE}; }} > {file}")]}]);
    spec["hooks"] = json!({
        "createContainer": hook(root.join("outside").display().to_string()), "startContainer": hook("/inside".to_owned())
    });
    fs::write(config, spec.to_string()).unwrap();
    assert_eq!(output_of(&bundle), "");
    let said = ["outside", "inside"].map(|file| fs::read_to_string(root.join(file)).unwrap());
    assert_eq!(said, [UNCONFINED.to_owned(), Profiles::seen(&profiles.cage)]);
}

#[test]
fn a_profile_that_nobody_loaded_is_named() {
    let Some(profiles) = Profiles::load("absent") else { return };
    let want = "process.apparmorProfile: no profile \"tt-nowhere\" is loaded";
    let absent = |s: &mut Value| s["process"]["apparmorProfile"] = json!("tt-nowhere");
    let bundle = Bundle::new("nowhere", "true", absent);
    assert_eq!(refused(&bundle, &bundle.id), want);
    assert_eq!(residue(&bundle), Vec::<String>::new());
    let bundle = Bundle::new("there", "sleep 1000", |s| s["process"]["apparmorProfile"] = json!(profiles.cage));
    detach(&bundle);
    assert_eq!(bundle.bad(&["exec", "--apparmor", "tt-nowhere", &bundle.id, "true"]), want);
    assert_eq!(bundle.status(), "running");
    let pod = Pod::start();
    let error = pod.shim.start_container(&pod.container_with("c", "true", absent)).unwrap_err();
    assert_eq!(error.to_string(), want);
}

#[test]
fn a_profile_holds_in_a_pod() {
    let Some(profiles) = Profiles::load("pod") else { return };
    let pod = Pod::start();
    let script = format!("{SEE}; sleep 1000");
    let config = pod.container_with("c", &script, |s| s["process"]["apparmorProfile"] = json!(profiles.cage));
    pod.shim.start_container(&config).unwrap();
    let (code, said) = exec_in_pod(&pod, &format!("{SEE}; echo x > /tmp/kept"));
    assert_eq!((code, said), (1, Profiles::seen(&profiles.cage) + "sh: can't create /tmp/kept: Permission denied\n"));
    assert_eq!(pod.log("c"), Profiles::seen(&profiles.cage));
}

/// A policy that keeps who is `cage_t` from writing what is `mount_t`, and nobody else from anything.
const POLICY: &str = include_str!("selinux.conf");

const BASE: &str = "base_u:base_r:base_t";
const CAGE: &str = "base_u:base_r:cage_t";
const FREE: &str = "base_u:base_r:free_t";
const MOUNT: &str = "base_u:object_r:mount_t";

/// Gives the kernel the policy, and has it enforced. False, with a line that says why, where that cannot be.
fn selinux_is_ours() -> bool {
    let there = |path: &str| Path::new(path).exists();
    if !there("/sys/fs/selinux/load") || !there("/usr/bin/checkpolicy") {
        println!("skipped: SELinux is not enabled, or checkpolicy (package checkpolicy) is not there");
        return false;
    }
    if selinux_has_a_policy() {
        println!("skipped: SELinux has a policy already");
        return false;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("policy.conf"), dir.path().join("policy"));
    fs::write(&source, POLICY).unwrap();
    let mut compile = Command::new("/usr/bin/checkpolicy");
    let output = compile.args(["-U", "allow", "-o"]).arg(&binary).arg(&source).output().unwrap();
    assert!(output.status.success(), "{}", text(&[output.stdout, output.stderr].concat()));
    fs::write("/sys/fs/selinux/load", fs::read(&binary).unwrap()).unwrap();
    fs::write("/sys/fs/selinux/enforce", "1").unwrap();
    assert_eq!(text(own_label().as_bytes()), BASE);
    true
}

fn label_of(path: &str) -> String {
    let mut label = [0; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut label).unwrap();
    text(&label[..length])
}

/// One test, since a kernel takes its first policy once.
#[test]
fn labels_and_contexts_are_what_was_asked_for() {
    let Some(_) = busybox() else { return };
    let _policy = LOADS.lock().unwrap();
    if !selinux_is_ours() {
        return;
    }
    labels_hold_for_run_and_exec();
    file_systems_have_the_context();
    keys_have_the_label();
    labels_that_no_policy_knows_are_named();
    labels_hold_in_a_pod();
}

fn labelled(spec: &mut Value) {
    spec["process"]["selinuxLabel"] = json!(CAGE);
    spec["linux"]["mountLabel"] = json!(MOUNT);
    spec["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}),
    ]);
}

fn labels_hold_for_run_and_exec() {
    let bundle = Bundle::new("cage", &format!("{SEE}; echo x > /tmp/file"), labelled);
    let denied = "/bin/sh: can't create /tmp/file: Permission denied\n";
    assert_eq!(output_of(&bundle), format!("{CAGE}\n{denied}"));

    let bundle = Bundle::new("caged", "sleep 1000", labelled);
    detach(&bundle);
    let id = bundle.id.as_str();
    let exec = |words: &[&str]| text(bundle.good(&[&["exec"], words].concat()).as_bytes());
    assert_eq!(exec(&[id, "sh", "-c", SEE]), format!("{CAGE}\n"));
    assert!(bundle.oci(&["exec", id, "sh", "-c", "echo x > /tmp/file"]).stderr.ends_with(b"Permission denied\n"));
    // It has been told to gain nothing, and what is not bounded by us may be more than we.
    let refused = bundle.bad(&["exec", "--process-label", FREE, id, "sh", "-c", SEE]);
    assert_eq!(refused, "exec \"/bin/sh\": Operation not permitted (os error 1)");
    for (fields, want) in [(json!({}), CAGE), (json!({"selinuxLabel": FREE}), FREE)] {
        assert_eq!(exec(&["-p", &process(&bundle, fields), id]), format!("{want}\n"));
    }
    exec(&["--process-label", FREE, "-p", &process(&bundle, json!({"args": ["sh", "-c", "echo x > /tmp/file"]})), id]);
}

fn file_systems_have_the_context() {
    for own_users in [false, true] {
        let bundle = Bundle::new("contexts", "sleep 1000", |s| {
            labelled(s);
            s["linux"]["maskedPaths"] = json!(["/sys/kernel"]);
            if own_users {
                in_user_namespace(s);
            }
        });
        detach(&bundle);
        let inside = |path: &str| label_of(&format!("/proc/{}/root{path}", crate::cgroups::pid(&bundle)));
        for path in ["/tmp", "/dev", "/dev/pts", "/dev/mqueue", "/sys/kernel"] {
            assert_eq!(inside(path), MOUNT, "{path}");
        }
        for path in ["/", "/bin/busybox", "/proc", "/sys"] {
            assert_eq!(inside(path), "base_u:object_r:file_t", "{path}");
        }
    }
}

fn keys_have_the_label() {
    let before = session_keyrings(CAGE);
    let bundle = Bundle::new("keys", "sleep 1000", labelled);
    detach(&bundle);
    let mut exec = bundle.command(&["exec", "-d", &bundle.id, "sleep", "1000"]);
    assert!(exec.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(session_keyrings(CAGE).difference(&before).count(), 2);
}

/// The numbers of those with a label.
fn session_keyrings(label: &str) -> BTreeSet<i32> {
    let keys = fs::read_to_string("/proc/keys").unwrap();
    let rings = keys.lines().filter(|line| line.contains(" keyring ") && line.contains(" _ses"));
    let number = |line: &str| i32::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
    let labelled = |key: &i32| sys::key_label(*key).is_ok_and(|said| text(&said) == label);
    rings.map(number).filter(labelled).collect()
}

fn labels_that_no_policy_knows_are_named() {
    let unknown = "nobody_u:nobody_r:nobody_t";
    for (pointer, want) in
        [("/process/selinuxLabel", "process.selinuxLabel: "), ("/linux/mountLabel", "linux.mountLabel: ")]
    {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let bundle = Bundle::new("nowhere", "true", |s| s.pointer_mut(parent).unwrap()[key] = json!(unknown));
        let error = refused(&bundle, &bundle.id);
        assert!(error.starts_with(want) && error.contains("Invalid argument"), "{error}");
        assert_eq!(residue(&bundle), Vec::<String>::new());
    }
}

fn labels_hold_in_a_pod() {
    let pod = Pod::start();
    let config = pod.container_with("c", &format!("{SEE}; sleep 1000"), labelled);
    let state = pod.shim.start_container(&config).unwrap();
    let (code, said) = exec_in_pod(&pod, &format!("{SEE}; echo x > /tmp/file"));
    assert_eq!((code, said), (1, format!("{CAGE}\nsh: can't create /tmp/file: Permission denied\n")));
    for path in ["/", "/bin/busybox", "/tmp"] {
        assert_eq!(label_of(&format!("/proc/{}/root{path}", state.pid)), MOUNT, "{path}");
    }
}
